//! Ports for tests that need an address before a process listens on it.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};

use uuid::Uuid;

/// Below the ephemeral port range: otherwise outgoing connections of other tests could take the port while its service
/// is not running.
const FIRST_PORT: u16 = 10_000;
const PORT_COUNT: u16 = 20_000;

/// Distinct loopback addresses that no process listens on.
///
/// # Panics
/// If too few are free.
#[must_use]
pub fn free_addresses<const N: usize>() -> [SocketAddr; N] {
    some_free_addresses(N).try_into().expect("enough ports are free")
}

/// As [`free_addresses`], with a count that is known at run time.
pub fn some_free_addresses(count: usize) -> Vec<SocketAddr> {
    // The listeners stay open until the end, so that no port is found twice.
    let mut listeners = Vec::new();
    for _ in 0..1000 {
        if listeners.len() == count {
            break;
        }
        listeners.extend(TcpListener::bind((Ipv4Addr::LOCALHOST, random_port())));
    }
    assert_eq!(listeners.len(), count, "too few ports are free");
    listeners.iter().map(|listener| listener.local_addr().expect("the listener is bound")).collect()
}

fn random_port() -> u16 {
    let [.., high, low] = Uuid::now_v7().into_bytes();
    FIRST_PORT + u16::from_be_bytes([high, low]) % PORT_COUNT
}
