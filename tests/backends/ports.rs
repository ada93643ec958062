//! Ports that stay free while their server is stopped.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};

use uuid::Uuid;

/// Below the ephemeral port range. Otherwise an outgoing connection could take the port of a stopped server, and a client
/// that connects to that port could even connect to itself.
const MIN_PORT: u16 = 10_000;
const PORT_COUNT: u16 = 20_000;

/// A free address on the loopback interface.
pub(crate) fn free_address() -> SocketAddr {
    loop {
        let [.., high, low] = Uuid::now_v7().into_bytes();
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, MIN_PORT + u16::from_be_bytes([high, low]) % PORT_COUNT));
        if TcpListener::bind(address).is_ok() {
            return address;
        }
    }
}
