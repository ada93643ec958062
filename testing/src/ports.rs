//! Ports that have to be known before anybody listens on them.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};

use uuid::Uuid;

/// Below the range that systems take the ports of outgoing connections from, or some connection of some test would sit
/// on one before its service does, and again whenever the service is away.
const FIRST: u16 = 10_000;
const COUNT: u16 = 20_000;

/// Addresses of this machine, all different, that nobody listens on.
///
/// # Panics
/// If there are not that many.
#[must_use]
pub fn free_addresses<const N: usize>() -> [SocketAddr; N] {
    some_free_addresses(N).try_into().expect("so many ports are free")
}

/// The same, for a number that is not known before.
pub fn some_free_addresses(count: usize) -> Vec<SocketAddr> {
    // Held until all are found, so that none is found twice.
    let mut held = Vec::new();
    for _ in 0..1000 {
        if held.len() == count {
            break;
        }
        held.extend(TcpListener::bind((Ipv4Addr::LOCALHOST, random_port())));
    }
    assert_eq!(held.len(), count, "so many ports are free");
    held.iter().map(|held| held.local_addr().expect("it is bound")).collect()
}

fn random_port() -> u16 {
    let [.., high, low] = Uuid::now_v7().into_bytes();
    FIRST + u16::from_be_bytes([high, low]) % COUNT
}
