//! Validates the host of an HTTP request: `Host`, `:authority` or the authority of an absolute-form target.
//!
//! hyper accepts requests with a missing, duplicate or invalid host. RFC 9112 (section 3.2) and RFC 9113 (section 8.3.1)
//! require that they are rejected with 400.

use std::net::Ipv6Addr;

use http::{HeaderMap, Uri, Version, header::HOST};

/// Why the host of a request is rejected, always with 400.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum HostError {
    /// Neither `Host` nor `:authority`.
    #[error("is missing; it is required since HTTP/1.1")]
    Missing,
    /// More than one `Host`.
    #[error("is given twice; send it once")]
    Duplicate,
    /// Not `host [ ":" port ]`.
    #[error("is not a host name or IP address, with or without a port")]
    Invalid,
    /// `Host` and `:authority` name different hosts.
    #[error("differs from `:authority`; send one of them, or the same in both")]
    Differs,
}

/// Checks the host of a request.
///
/// An absolute-form target overrides a valid `Host` (RFC 9112, section 3.2.2), while in HTTP/2 both must be the same. An
/// HTTP/1.0 request needs none.
///
/// # Errors
/// [`HostError`], to be answered with 400.
pub fn check(version: Version, uri: &Uri, headers: &HeaderMap) -> Result<(), HostError> {
    let mut lines = headers.get_all(HOST).iter();
    let header = lines.next();
    if lines.next().is_some() {
        return Err(HostError::Duplicate);
    }
    let header = header.map(|value| value.to_str().ok().and_then(Host::parse).ok_or(HostError::Invalid)).transpose()?;
    let target = uri.authority().map(|authority| Host::parse(authority.as_str()).ok_or(HostError::Invalid));
    let target = target.transpose()?;
    match (header, target) {
        (Some(header), Some(target)) if version >= Version::HTTP_2 => {
            if header.is_equivalent(&target, uri.scheme_str()) { Ok(()) } else { Err(HostError::Differs) }
        }
        (Some(_), _) => Ok(()),
        (None, Some(_)) if version >= Version::HTTP_2 => Ok(()),
        (None, _) if version <= Version::HTTP_10 => Ok(()),
        (None, _) => Err(HostError::Missing),
    }
}

/// `uri-host [ ":" port ]` (RFC 9110, section 7.2).
struct Host<'h> {
    name: &'h str,
    port: Option<u16>,
}

impl<'h> Host<'h> {
    /// `None` if the text is not a host. An empty host is invalid in an `http` URI (RFC 9110, section 4.2.1).
    fn parse(text: &'h str) -> Option<Self> {
        let (name, port) = if let Some(rest) = text.strip_prefix('[') {
            let (address, port) = rest.split_once(']')?;
            address.parse::<Ipv6Addr>().ok()?;
            (address, if port.is_empty() { "" } else { port.strip_prefix(':')? })
        } else {
            let (name, port) = text.split_once(':').unwrap_or((text, ""));
            if name.is_empty() || !is_registered_name(name) {
                return None;
            }
            (name, port)
        };
        let is_number = port.bytes().all(|byte| byte.is_ascii_digit());
        let port = if port.is_empty() { None } else { Some(port.parse().ok().filter(|_| is_number)?) };
        Some(Self { name, port })
    }

    /// Whether both are the same host, ignoring case and the scheme's default port.
    fn is_equivalent(&self, other: &Self, scheme: Option<&str>) -> bool {
        let default_port = if scheme == Some("https") { 443 } else { 80 };
        self.name.eq_ignore_ascii_case(other.name)
            && self.port.unwrap_or(default_port) == other.port.unwrap_or(default_port)
    }
}

/// `reg-name` of RFC 3986, section 3.2.2, which includes IPv4 addresses.
fn is_registered_name(text: &str) -> bool {
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        let is_valid = match byte {
            b'%' => {
                [bytes.next(), bytes.next()].iter().all(|digit| digit.is_some_and(|digit| digit.is_ascii_hexdigit()))
            }
            byte => byte.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=".contains(&byte),
        };
        if !is_valid {
            return false;
        }
    }
    true
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn checked(version: Version, uri: &str, hosts: &[&str]) -> Result<(), HostError> {
        let lines = hosts.iter().map(|host| (HOST, HeaderValue::from_bytes(host.as_bytes()).unwrap()));
        let mut headers = HeaderMap::new();
        lines.for_each(|(name, value)| {
            headers.append(name, value);
        });
        check(version, &uri.parse().unwrap(), &headers)
    }

    #[test]
    fn http1_needs_one_valid_host() {
        let one = |host| checked(Version::HTTP_11, "/", &[host]);
        for good in ["edge", "EDGE:8080", "127.0.0.1", "127.0.0.1:80", "[::1]", "[::1]:8080", "edge:", "a%20b", "a_b"] {
            assert_eq!(one(good), Ok(()), "{good}");
        }
        for bad in [
            "",
            ":80",
            "a b",
            "a/b",
            "user@edge",
            "edge:x",
            "edge:+1",
            "edge:65536",
            "edge:1:2",
            "::1",
            "[::1",
            "[::1]8",
            "[edge]",
            "http://edge",
            "edge, edge",
            "a%2",
            "a%zz",
            "a\"b",
            "caf\u{e9}",
            "edge#",
            "edge?",
        ] {
            assert_eq!(one(bad), Err(HostError::Invalid), "{bad}");
        }
        assert_eq!(checked(Version::HTTP_11, "/", &[]), Err(HostError::Missing));
        assert_eq!(checked(Version::HTTP_11, "/", &["edge", "edge"]), Err(HostError::Duplicate));
        assert_eq!(checked(Version::HTTP_10, "/", &[]), Ok(()));
        assert_eq!(checked(Version::HTTP_10, "/", &["a b"]), Err(HostError::Invalid));
        assert_eq!(checked(Version::HTTP_10, "/", &["a", "b"]), Err(HostError::Duplicate));
    }

    #[test]
    fn an_absolute_target_overrides_a_valid_host() {
        let absolute = |uri, hosts: &[&str]| checked(Version::HTTP_11, uri, hosts);
        assert_eq!(absolute("http://other/", &["edge"]), Ok(()));
        assert_eq!(absolute("http://other/", &["a b"]), Err(HostError::Invalid));
        assert_eq!(absolute("http://other/", &[]), Err(HostError::Missing));
        assert_eq!(absolute("http://user@other/", &["edge"]), Err(HostError::Invalid));
    }

    #[test]
    fn http2_needs_one_host_in_authority_or_host() {
        let two = |uri, hosts: &[&str]| checked(Version::HTTP_2, uri, hosts);
        assert_eq!(two("http://edge/", &[]), Ok(()));
        assert_eq!(two("/", &["edge"]), Ok(()));
        assert_eq!(two("/", &[]), Err(HostError::Missing));
        for same in ["edge", "EDGE", "edge:80", "edge:"] {
            assert_eq!(two("http://edge/", &[same]), Ok(()), "{same}");
        }
        assert_eq!(two("https://edge:443/", &["edge"]), Ok(()));
        for other in ["other", "edge:81", "edge:443"] {
            assert_eq!(two("http://edge/", &[other]), Err(HostError::Differs), "{other}");
        }
    }
}
