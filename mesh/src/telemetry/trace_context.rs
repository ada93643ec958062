//! Trace context propagation, by [W3C Trace Context](https://www.w3.org/TR/trace-context/).

use std::{
    fmt,
    hash::{BuildHasher, Hasher, RandomState},
};

use http::HeaderValue;

/// The length of a `traceparent` of version 00.
const LENGTH: usize = 55;
/// The flags that are propagated; the specification requires all others to be cleared.
const SAMPLED: u8 = 0x01;

/// A span of a trace: the trace id, the span id and the flags.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct TraceContext {
    trace_id: u128,
    span_id: u64,
    flags: u8,
}

impl TraceContext {
    /// Starts a trace, not sampled.
    #[must_use]
    pub fn new_root() -> Self {
        let trace_id = (u128::from(new_id()) << 64) | u128::from(new_id());
        Self { trace_id, span_id: new_id(), flags: 0 }
    }

    /// Parses a `traceparent` header. `None` if it is invalid: the specification requires the receiver to start a new trace.
    #[must_use]
    pub fn parse(value: &HeaderValue) -> Option<Self> {
        let bytes = value.as_bytes();
        let version = hex(bytes.get(0..2)?)?;
        let is_version_00 = version == 0;
        // Later versions may be longer, and are parsed as version 00.
        let is_valid_length = bytes.len() == LENGTH || (!is_version_00 && bytes.get(LENGTH) == Some(&b'-'));
        let has_dashes = [2, 35, 52].into_iter().all(|at| bytes.get(at) == Some(&b'-'));
        if version == 0xff || !is_valid_length || !has_dashes {
            return None;
        }
        let trace_id = hex(bytes.get(3..35)?)?;
        let span_id = u64::try_from(hex(bytes.get(36..52)?)?).ok()?;
        let flags = u8::try_from(hex(bytes.get(53..55)?)?).ok()?;
        (trace_id != 0 && span_id != 0).then_some(Self { trace_id, span_id, flags: flags & SAMPLED })
    }

    /// A child span in the same trace.
    #[must_use]
    pub fn child(&self) -> Self {
        Self { span_id: new_id(), ..*self }
    }

    /// The `traceparent` header.
    #[must_use]
    pub fn header(&self) -> HeaderValue {
        // Hexadecimal digits and dashes are always valid in a header.
        HeaderValue::try_from(self.to_string()).unwrap_or(HeaderValue::from_static(""))
    }

    /// The id of the trace.
    #[must_use]
    pub fn trace_id(&self) -> TraceId {
        TraceId(self.trace_id)
    }

    /// Whether the caller may have recorded this trace.
    #[must_use]
    pub fn is_sampled(&self) -> bool {
        self.flags & SAMPLED != 0
    }
}

impl fmt::Display for TraceContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "00-{:032x}-{:016x}-{:02x}", self.trace_id, self.span_id, self.flags)
    }
}

impl fmt::Debug for TraceContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TraceContext({self})")
    }
}

/// The id of a trace, displayed as 32 hexadecimal digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct TraceId(u128);

impl fmt::Display for TraceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

/// A non-zero id. Ids must be unique, not secret, so the standard library's hash keys suffice: they are random per thread,
/// differ at every call, and need no system call.
fn new_id() -> u64 {
    RandomState::new().build_hasher().finish().max(1)
}

/// Parses lower-case hexadecimal digits, the only form that the specification allows.
fn hex(digits: &[u8]) -> Option<u128> {
    digits.iter().try_fold(0u128, |value, digit| {
        let digit = match digit {
            b'0'..=b'9' => digit - b'0',
            b'a'..=b'f' => digit - b'a' + 10,
            _ => return None,
        };
        Some((value << 4) | u128::from(digit))
    })
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    const VALID_HEADER: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    fn parse(text: &str) -> Option<TraceContext> {
        TraceContext::parse(&HeaderValue::from_str(text).unwrap())
    }

    #[test]
    fn a_valid_header_round_trips() {
        let context = parse(VALID_HEADER).unwrap();
        assert_eq!(context.header(), VALID_HEADER);
        assert_eq!(context.trace_id().to_string(), "4bf92f3577b34da6a3ce929d0e0e4736");
        assert!(context.is_sampled());
    }

    #[test]
    fn an_invalid_header_is_rejected() {
        for text in [
            "",
            "00",
            "garbage",
            "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
            "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-0",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-more",
            "00_4bf92f3577b34da6a3ce929d0e0e4736_00f067aa0ba902b7_01",
            "01-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01more",
            "00-4bf92f3577b34da6a3ce929d0e0e473g-00f067aa0ba902b7-01",
        ] {
            assert_eq!(parse(text), None, "{text}");
        }
    }

    #[test]
    fn a_later_version_is_parsed_as_version_00() {
        let context = parse("01-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-03-more").unwrap();
        assert_eq!(context.header(), VALID_HEADER);
    }

    #[test]
    fn a_child_has_the_same_trace_id_and_another_span_id() {
        let parent = parse(VALID_HEADER).unwrap();
        let child = parent.child();
        assert_eq!(child.trace_id(), parent.trace_id());
        assert!(child.is_sampled());
        assert_ne!(child, parent);
    }

    #[test]
    fn root_contexts_are_unique_and_round_trip() {
        let roots: HashSet<String> = (0..1000).map(|_| TraceContext::new_root().to_string()).collect();
        assert_eq!(roots.len(), 1000);
        assert!(roots.iter().all(|root| parse(root).is_some()));
    }

    proptest::proptest! {
        #[test]
        fn the_parser_never_panics(bytes in proptest::collection::vec(0x20u8..0x7f, 0..80)) {
            let value = HeaderValue::from_bytes(&bytes).unwrap();
            if let Some(context) = TraceContext::parse(&value) {
                assert_eq!(TraceContext::parse(&context.header()), Some(context));
            }
        }
    }
}
