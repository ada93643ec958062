//! The PROXY protocol, versions 1 and 2: the client's address, which a proxy sends ahead of a connection's bytes.
//!
//! Source: <https://www.haproxy.org/download/3.2/doc/proxy-protocol.txt>. A header is read to its last byte and no further,
//! so that what follows is the client's.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    str::FromStr,
};

use tokio::io::{AsyncRead, AsyncReadExt};

/// How a header of version 2 begins.
const SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";
/// How a header of version 1 begins.
const PREFIX: &[u8] = b"PROXY ";
/// The maximum length of a header of version 1, with its line break.
const MAX_LINE: usize = 107;
/// The maximum length of what follows the first 16 bytes of version 2. Addresses take 36 bytes at most; the rest is for
/// extensions, such as the identifiers of cloud load balancers.
const MAX_REST: usize = 2048;

/// Whose connection it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Source {
    /// The proxy's own, as for a health check.
    Local,
    /// That of a client whose address the proxy does not state.
    Unknown,
    /// That of the client at this address.
    Client(SocketAddr),
}

/// Reads the header of a connection.
///
/// # Errors
/// Those of the connection, and `InvalidData` for what is no header or too long.
pub(crate) async fn read_header(stream: &mut (impl AsyncRead + Unpin)) -> io::Result<Source> {
    // The shortest header has 15 bytes.
    let mut start = [0; SIGNATURE.len()];
    stream.read_exact(&mut start).await?;
    if start == *SIGNATURE {
        let [version_command, family, high, low] = read_array(stream).await?;
        let mut rest = [0; MAX_REST];
        let rest = rest
            .get_mut(..u16::from_be_bytes([high, low]).into())
            .ok_or_else(|| invalid("a header of version 2 is too long"))?;
        stream.read_exact(rest).await?;
        return source_of_version_2(version_command, family, rest);
    }
    if !start.starts_with(PREFIX) {
        return Err(invalid("a connection without a header"));
    }
    let mut line = start.to_vec();
    while !line.ends_with(b"\r\n") {
        if line.len() == MAX_LINE {
            return Err(invalid("a header of version 1 is too long"));
        }
        line.push(stream.read_u8().await?);
    }
    source_of_version_1(&line[PREFIX.len()..line.len() - 2])
}

/// `TCP4 SOURCE DESTINATION SOURCE-PORT DESTINATION-PORT`, `TCP6` likewise, or `UNKNOWN` and anything.
fn source_of_version_1(line: &[u8]) -> io::Result<Source> {
    let line = str::from_utf8(line).map_err(|_| invalid("a header of version 1 is not ASCII"))?;
    let mut words = line.split(' ');
    let source = match words.next() {
        Some("UNKNOWN") => return Ok(Source::Unknown),
        Some("TCP4") => addresses::<Ipv4Addr>(words),
        Some("TCP6") => addresses::<Ipv6Addr>(words),
        _ => None,
    };
    source.map(Source::Client).ok_or_else(|| invalid("a header of version 1 has invalid addresses"))
}

fn addresses<'a, A: FromStr + Into<IpAddr>>(mut words: impl Iterator<Item = &'a str>) -> Option<SocketAddr> {
    let source: A = words.next()?.parse().ok()?;
    let _destination: A = words.next()?.parse().ok()?;
    let port = words.next()?.parse().ok()?;
    let _destination: u16 = words.next()?.parse().ok()?;
    words.next().is_none().then(|| SocketAddr::new(source.into(), port))
}

fn source_of_version_2(version_command: u8, family: u8, rest: &[u8]) -> io::Result<Source> {
    match (version_command, family) {
        // LOCAL, whatever the addresses.
        (0x20, _) => Ok(Source::Local),
        // PROXY of a protocol that the proxy does not name, or of a UNIX socket.
        (0x21, 0x00 | 0x31) => Ok(Source::Unknown),
        // TCP over IPv4: source and destination, then both ports.
        (0x21, 0x11) => match rest.first_chunk::<12>() {
            Some([a, b, c, d, _, _, _, _, high, low, ..]) => {
                Ok(Source::Client((Ipv4Addr::new(*a, *b, *c, *d), u16::from_be_bytes([*high, *low])).into()))
            }
            None => Err(invalid("a header of version 2 is shorter than its addresses")),
        },
        // TCP over IPv6.
        (0x21, 0x21) => match (rest.first_chunk::<16>(), rest.get(32..36)) {
            (Some(source), Some(&[high, low, ..])) => {
                Ok(Source::Client((Ipv6Addr::from(*source), u16::from_be_bytes([high, low])).into()))
            }
            _ => Err(invalid("a header of version 2 is shorter than its addresses")),
        },
        _ => Err(invalid("a header of version 2 has an unknown version, command or protocol")),
    }
}

async fn read_array<const N: usize>(stream: &mut (impl AsyncRead + Unpin)) -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    stream.read_exact(&mut bytes).await?;
    Ok(bytes)
}

fn invalid(text: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, text)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The source of a header, and what follows it.
    async fn read(header: &[u8]) -> Result<Source, String> {
        let bytes = [header, b"GET / HTTP/1.1\r\n"].concat();
        let mut rest = bytes.as_slice();
        let source = read_header(&mut rest).await.map_err(|error| error.to_string())?;
        assert_eq!(rest, b"GET / HTTP/1.1\r\n", "the bytes of the client are left");
        Ok(source)
    }

    fn client(address: &str) -> Source {
        Source::Client(address.parse().unwrap())
    }

    fn version_2(version_command: u8, family: u8, rest: &[u8]) -> Vec<u8> {
        let length = u16::try_from(rest.len()).unwrap().to_be_bytes();
        [SIGNATURE, [version_command, family].as_slice(), &length, rest].concat()
    }

    #[tokio::test]
    async fn the_source_is_the_client() {
        let ipv4 = [192, 0, 2, 7, 10, 0, 0, 1, 0x12, 0x34, 0, 80];
        let mut ipv6 = [0; 36];
        ipv6[..4].copy_from_slice(&[0x20, 0x01, 0x0d, 0xb8]);
        ipv6[15] = 9;
        ipv6[32..].copy_from_slice(&[0, 7, 0, 80]);
        for (header, expected) in [
            (b"PROXY TCP4 192.0.2.7 10.0.0.1 4660 80\r\n".to_vec(), client("192.0.2.7:4660")),
            (b"PROXY TCP6 2001:db8::9 ::1 7 80\r\n".to_vec(), client("[2001:db8::9]:7")),
            (b"PROXY UNKNOWN\r\n".to_vec(), Source::Unknown),
            (b"PROXY UNKNOWN ffff:f...f ffff 65535 65535\r\n".to_vec(), Source::Unknown),
            (version_2(0x21, 0x11, &ipv4), client("192.0.2.7:4660")),
            // With an extension, and of the maximum length.
            (version_2(0x21, 0x11, &[ipv4.as_slice(), &[4, 0, 1, 42]].concat()), client("192.0.2.7:4660")),
            (version_2(0x21, 0x11, &[ipv4.as_slice(), &[0; MAX_REST - 12]].concat()), client("192.0.2.7:4660")),
            (version_2(0x21, 0x21, &ipv6), client("[2001:db8::9]:7")),
            (version_2(0x20, 0x00, &[]), Source::Local),
            (version_2(0x20, 0x11, &ipv4), Source::Local),
            (version_2(0x21, 0x00, &[1, 2, 3]), Source::Unknown),
            (version_2(0x21, 0x31, &[0; 216]), Source::Unknown),
        ] {
            assert_eq!(read(&header).await, Ok(expected), "{header:?}");
        }
    }

    #[tokio::test]
    async fn anything_else_is_refused() {
        let long = format!("PROXY UNKNOWN {}\r\n", "f".repeat(MAX_LINE));
        for header in [
            b"GET / HTTP/1.1\r\nhost: a\r\n\r\n".to_vec(),
            b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec(),
            b"proxy TCP4 192.0.2.7 10.0.0.1 1 80\r\n".to_vec(),
            b"PROXY TCP4 192.0.2.7 10.0.0.1 1\r\n".to_vec(),
            b"PROXY TCP4 192.0.2.7 10.0.0.1 1 80 9\r\n".to_vec(),
            b"PROXY TCP4 192.0.2.7 10.0.0.1 65536 80\r\n".to_vec(),
            b"PROXY TCP4 2001:db8::9 ::1 7 80\r\n".to_vec(),
            b"PROXY TCP6 192.0.2.7 10.0.0.1 1 80\r\n".to_vec(),
            b"PROXY UDP4 192.0.2.7 10.0.0.1 1 80\r\n".to_vec(),
            b"PROXY TCP4 \xff\xff 10.0.0.1 1 80\r\n".to_vec(),
            long.into_bytes(),
            // Version 1, command 2, UDP, and addresses that are cut off.
            version_2(0x11, 0x11, &[0; 12]),
            version_2(0x22, 0x11, &[0; 12]),
            version_2(0x21, 0x12, &[0; 12]),
            version_2(0x21, 0x11, &[0; 11]),
            version_2(0x21, 0x21, &[0; 35]),
            version_2(0x21, 0x11, &[0; MAX_REST + 1]),
        ] {
            read(&header).await.unwrap_err();
        }
        // The connection ends within the header.
        assert!(read_header(&mut b"PROXY TCP4 192".as_slice()).await.is_err());
        assert!(read_header(&mut &version_2(0x21, 0x11, &[0; 12])[..20]).await.is_err());
    }
}
