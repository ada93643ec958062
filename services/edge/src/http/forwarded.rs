//! The syntax of `forwarded` (RFC 7239) and `x-forwarded-for`.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// The elements of a list, the last one first, without white space around them.
///
/// The nearest proxy appends its element. Reading from the end, an unbalanced quote that a client sent before it has no
/// effect.
pub(crate) fn elements_from_the_right(line: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = Some(line);
    std::iter::from_fn(move || {
        let text = rest?;
        let comma = last_outside_quotes(text, b',');
        rest = comma.map(|index| &text[..index]);
        Some(text[comma.map_or(0, |index| index + 1)..].trim_ascii())
    })
}

/// The client's address in an element of `forwarded`. `None` if it has none, or is invalid.
pub(crate) fn client_of(element: &[u8]) -> Option<IpAddr> {
    let mut client = None;
    let mut rest = Some(element);
    while let Some(text) = rest {
        let semicolon = last_outside_quotes(text, b';');
        rest = semicolon.map(|index| &text[..index]);
        let pair = text[semicolon.map_or(0, |index| index + 1)..].trim_ascii();
        let equals = pair.iter().position(|byte| *byte == b'=')?;
        let (name, value) = (&pair[..equals], &pair[equals + 1..]);
        if !is_token(name) || !(is_token(value) || is_quoted(value)) {
            return None;
        }
        if name.eq_ignore_ascii_case(b"for") && client.replace(value).is_some() {
            return None;
        }
    }
    let value = client?;
    let node = value.strip_prefix(b"\"").and_then(|value| value.strip_suffix(b"\"")).unwrap_or(value);
    // IPv6 addresses are in brackets here; else the last group could be a port.
    let mut colons = node.iter().filter(|byte| **byte == b':');
    let is_bare = !node.starts_with(b"[") && colons.nth(1).is_some();
    if is_bare { None } else { address(node) }
}

/// An address, in brackets or not, with a port or without: `192.0.2.1`, `192.0.2.1:80`, `2001:db8::1`, `[2001:db8::1]:443`.
pub(crate) fn address(text: &[u8]) -> Option<IpAddr> {
    let text = std::str::from_utf8(text).ok()?;
    if let Ok(address) = text.parse() {
        return Some(address);
    }
    let (address, port): (IpAddr, _) = if let Some(rest) = text.strip_prefix('[') {
        let (address, port) = rest.split_once(']')?;
        (address.parse::<Ipv6Addr>().ok()?.into(), port)
    } else {
        let (address, port) = text.split_at(text.find(':')?);
        (address.parse::<Ipv4Addr>().ok()?.into(), port)
    };
    (port.is_empty() || is_port(port.strip_prefix(':')?)).then_some(address)
}

/// `node-port` of RFC 7239, section 6: a number, or a name with an underscore before it.
fn is_port(text: &str) -> bool {
    match text.strip_prefix('_') {
        Some(name) => {
            !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte))
        }
        None => (1..=5).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_digit()),
    }
}

/// The index of the last `separator` outside quoted strings.
fn last_outside_quotes(text: &[u8], separator: u8) -> Option<usize> {
    let mut is_quoted = false;
    for (index, byte) in text.iter().enumerate().rev() {
        if *byte == b'"' {
            let backslashes = text[..index].iter().rev().take_while(|byte| **byte == b'\\').count();
            // An escaped quote does not end a string; outside of strings there are no escapes.
            is_quoted = if is_quoted { backslashes % 2 == 1 } else { true };
        } else if *byte == separator && !is_quoted {
            return Some(index);
        }
    }
    None
}

/// `token` of RFC 9110, section 5.6.2, and `[`, `]` and `:`, which some proxies write without quotes.
fn is_token(text: &[u8]) -> bool {
    let is_part = |byte: &u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~[]:".contains(byte);
    !text.is_empty() && text.iter().all(is_part)
}

/// `quoted-string` of RFC 9110, section 5.6.4.
fn is_quoted(text: &[u8]) -> bool {
    let Some(inside) = text.strip_prefix(b"\"").and_then(|text| text.strip_suffix(b"\"")) else { return false };
    let mut is_escaped = false;
    for byte in inside {
        match byte {
            _ if is_escaped => is_escaped = false,
            b'\\' => is_escaped = true,
            b'"' => return false,
            _ => {}
        }
    }
    !is_escaped
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn parsing_never_panics(text in prop::collection::vec(any::<u8>(), 0..64), syntax in "[for=\"\\\\,;:.\\[\\]_1a ]{0,64}") {
            for text in [text.as_slice(), syntax.as_bytes()] {
                for element in elements_from_the_right(text) {
                    let _ = (client_of(element), address(element));
                }
            }
        }

        /// What a client sends does not change the element that the nearest proxy appends.
        #[test]
        fn the_last_element_is_independent_of_the_ones_before(before in "[for=\"\\\\,;:.\\[\\]_1a ]{0,64}", address in any::<IpAddr>()) {
            let node = if address.is_ipv6() { format!("[{address}]:4711") } else { format!("{address}:4711") };
            let line = format!("{before}, proto=https;for=\"{node}\";host=\"a,\\\"b\"");
            prop_assert_eq!(elements_from_the_right(line.as_bytes()).next().and_then(client_of), Some(address));
        }
    }
}
