//! Ports that a server keeps while it is stopped.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};

use uuid::Uuid;

/// Below the range that systems take the ports of outgoing connections from: while a server is away, a connection would
/// sit on its port sooner or later, and a client that tries to reach it could even be connected to itself.
const FIRST: u16 = 10_000;
const COUNT: u16 = 20_000;

/// An address of this machine that nobody listens on.
pub(crate) fn free_address() -> SocketAddr {
    loop {
        let [.., high, low] = Uuid::now_v7().into_bytes();
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, FIRST + u16::from_be_bytes([high, low]) % COUNT));
        if TcpListener::bind(address).is_ok() {
            return address;
        }
    }
}
