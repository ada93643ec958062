//! The limits of one address.

use super::*;

#[tokio::test]
async fn an_address_with_too_many_unfinished_handshakes_loses_the_oldest() {
    let ca = TestCa::new("drystone.test");
    let limits = AcceptLimits {
        max_handshakes_per_address: 2,
        handshake_timeout: Duration::from_hours(1),
        ..AcceptLimits::default()
    };
    let mut server = Echo::with_limits(&ca, limits).await;
    let mut silent = Vec::new();
    for _ in 0..2 {
        silent.push(TcpStream::connect(server.address).await.unwrap());
    }
    // It takes the place of the oldest, although the others would wait for an hour.
    call(server.address, dialling_auth(&ca, "edge")).await.unwrap();
    assert_eq!(server.failure().await, HandshakeFailure::AddressHandshakes);
    assert_eq!(soon(silent[0].read(&mut [0])).await.unwrap_or_default(), 0, "the oldest is cut off");
}

#[tokio::test]
async fn an_address_with_too_many_connections_gets_no_further_one() {
    let ca = TestCa::new("drystone.test");
    let limits = AcceptLimits { max_connections_per_address: 1, ..AcceptLimits::default() };
    let mut server = Echo::with_limits(&ca, limits).await;
    let first = call(server.address, dialling_auth(&ca, "edge")).await.unwrap();
    assert!(call(server.address, dialling_auth(&ca, "operator")).await.is_err());
    assert_eq!(server.failure().await, HandshakeFailure::AddressConnections);
    drop(first);
    let connected = async { while call(server.address, dialling_auth(&ca, "operator")).await.is_err() {} };
    soon(connected).await;
}
