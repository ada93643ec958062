use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
};

use super::*;

const LIMIT: Duration = Duration::from_secs(5);

/// Accepts one connection, and responds with these bytes.
async fn server(response: &'static str) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let _request = stream.read(&mut [0; 1024]).await;
        stream.write_all(response.as_bytes()).await.unwrap();
        let _end = stream.read_to_end(&mut Vec::new()).await;
    });
    address
}

async fn exchange(response: &'static str, limit: Duration) -> Result<Response<Bytes>, ExchangeError> {
    let address = server(response).await;
    let origin = Origin::new(&Url::parse("http://service.test/").unwrap(), Path::new("")).unwrap();
    let connection = origin.connect(&[address], LIMIT).await.unwrap();
    connection.exchange(Request::get("/").body(Bytes::new()).unwrap(), limit, 4).await
}

#[tokio::test]
async fn a_response_has_its_head_and_its_body() {
    let response = exchange("HTTP/1.1 404 Not Found\r\ncontent-length: 4\r\n\r\nbody", LIMIT).await.unwrap();
    assert_eq!(response.status(), 404);
    assert_eq!(response.into_body(), "body");
}

#[tokio::test]
async fn a_response_is_bounded_in_size_and_time() {
    let large = exchange("HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nlarge", LIMIT).await;
    assert!(matches!(large, Err(ExchangeError::TooLarge(4))), "{large:?}");
    let chunked = exchange("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nlarge\r\n", LIMIT).await;
    assert!(matches!(chunked, Err(ExchangeError::TooLarge(4))), "{chunked:?}");
    let short = Duration::from_millis(50);
    for slow in ["", "HTTP/1.1 200 OK\r\n", "HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nbo"] {
        let slow = exchange(slow, short).await;
        assert!(matches!(slow, Err(ExchangeError::Timeout)), "{slow:?}");
    }
    let invalid = exchange("220 smtp.example.org ESMTP\r\n", LIMIT).await;
    assert!(matches!(invalid, Err(ExchangeError::Invalid(_))), "{invalid:?}");
}

#[tokio::test]
async fn addresses_are_tried_in_turn() {
    let origin = Origin::new(&Url::parse("http://service.test:8080/").unwrap(), Path::new("")).unwrap();
    let closed = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let open = server("").await;
    origin.connect(&[closed, open], LIMIT).await.unwrap();
    assert!(matches!(origin.connect(&[closed], LIMIT).await, Err(ConnectError::Tcp(_))));
    assert!(matches!(origin.connect(&[], LIMIT).await, Err(ConnectError::NoAddress)));
}

#[tokio::test]
async fn a_server_that_does_not_shake_hands_is_given_up() {
    let address = server("").await;
    let origin = Origin::new(&Url::parse("https://service.test/").unwrap(), Path::new("")).unwrap();
    let silent = origin.connect(&[address], Duration::from_millis(50)).await;
    assert!(matches!(silent, Err(ConnectError::TlsTimeout)), "{silent:?}");
}

#[test]
fn an_origin_is_that_of_the_url() {
    let origin = |url: &str| Origin::new(&Url::parse(url).unwrap(), Path::new(""));
    for (url, port, authority) in [
        ("http://service.test/a?b", 80, "service.test"),
        ("http://service.test:8080/", 8080, "service.test:8080"),
        ("https://service.test/", 443, "service.test"),
        ("https://127.0.0.1:8443/", 8443, "127.0.0.1:8443"),
        ("http://[::1]:8080/", 8080, "[::1]:8080"),
        ("http://service.test:80/", 80, "service.test"),
    ] {
        let origin = origin(url).unwrap();
        assert_eq!((origin.port(), origin.authority.to_str().unwrap()), (port, authority), "{url}");
    }
    assert!(matches!(origin("ftp://service.test/"), Err(OriginError::Url)));
    assert!(matches!(origin("file:///etc/passwd"), Err(OriginError::Url)));
    assert!(matches!(origin("https://a..b/"), Err(OriginError::Host(_))));
}
