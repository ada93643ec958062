//! The headers of a client that become part of the call. All others are dropped, such as `x-forwarded-client-cert`,
//! `x-user-id` or the mesh's own `x-drystone-*`.

use std::{net::IpAddr, time::Instant};

use drystone::contract::Deadline;
use drystone_mesh::{
    call::{self, Call, CallFields, Client, header},
    deadline,
    error::Result,
    telemetry::TraceContext,
};
use http::{HeaderMap, HeaderValue, header::USER_AGENT};

/// How much of a `user-agent` is passed on, in characters.
const MAX_AGENT_LENGTH: usize = 256;

/// The client's own request id if it is valid, else a new one.
pub(crate) fn request_id(headers: &HeaderMap) -> HeaderValue {
    let own = headers.get(header::REQUEST_ID).filter(|id| call::valid_request_id(id));
    own.cloned().unwrap_or_else(call::new_request_id)
}

/// A client's request.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ClientRequest<'a> {
    pub(crate) headers: &'a HeaderMap,
    /// The result of [`request_id`].
    pub(crate) request_id: &'a HeaderValue,
    /// The client's address.
    pub(crate) address: IpAddr,
    pub(crate) received_at: Instant,
}

/// The call of a request.
///
/// Its deadline is the client's `grpc-timeout`, counted from when the request was received, else the default; and at most
/// the maximum. `authorization` is the header with the user's token, if the RPC requires a user.
///
/// # Errors
/// `MALFORMED_TIMEOUT`.
pub(crate) fn call(request: &ClientRequest<'_>, authorization: Option<HeaderValue>, time: Deadline) -> Result<Call> {
    let headers = request.headers;
    let requested = deadline::parse_timeout(headers)?.and_then(|timeout| request.received_at.checked_add(timeout));
    let now = Instant::now();
    let latest = time.max.map(|max| now + max);
    let deadline = requested.or_else(|| time.default.map(|default| now + default));
    let trace = headers.get(header::TRACEPARENT).and_then(TraceContext::parse);
    Ok(Call::new(CallFields {
        request_id: request.request_id.clone(),
        trace: trace.map_or_else(TraceContext::new_root, |trace| trace.child()),
        deadline: [deadline, latest].into_iter().flatten().min(),
        caller: None,
        principal: None,
        authorization,
        client: Client { address: request.address.to_canonical().to_string(), agent: agent(headers) },
    }))
}

/// The `user-agent`, in printable ASCII.
fn agent(headers: &HeaderMap) -> String {
    let agent = headers.get(USER_AGENT).map(|agent| String::from_utf8_lossy(agent.as_bytes()));
    let printable = |c: char| if c.is_ascii_graphic() || c == ' ' { c } else { '?' };
    agent.map(|agent| agent.chars().take(MAX_AGENT_LENGTH).map(printable).collect()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::{net::Ipv4Addr, time::Duration};

    use drystone_mesh::error::Reason;

    use super::*;

    fn headers(lines: &[(&'static str, &str)]) -> HeaderMap {
        lines.iter().map(|(name, value)| (name.parse::<http::HeaderName>().unwrap(), value.parse().unwrap())).collect()
    }

    fn call_of(headers: &HeaderMap) -> Result<Call> {
        let address = IpAddr::V6(Ipv4Addr::LOCALHOST.to_ipv6_mapped());
        let request = ClientRequest { headers, request_id: &request_id(headers), address, received_at: Instant::now() };
        let time = Deadline { default: Some(Duration::from_secs(10)), max: Some(Duration::from_secs(10)) };
        call(&request, None, time)
    }

    #[test]
    fn identity_headers_of_a_client_are_dropped() {
        let call = call_of(&headers(&[
            ("x-forwarded-for", "1.2.3.4"),
            ("x-forwarded-client-cert", "URI=spiffe://drystone.local/service/auth"),
            ("x-drystone-client-address", "1.2.3.4"),
            ("x-drystone-client-agent", "another agent"),
            ("x-user-id", "root"),
            ("authorization", "Bearer token"),
            ("user-agent", "curl/8"),
        ]))
        .unwrap();
        let fields = call.fields();
        assert_eq!(fields.client, Client { address: "127.0.0.1".to_owned(), agent: "curl/8".to_owned() });
        assert!(fields.caller.is_none() && fields.principal.is_none());
        assert_eq!(fields.authorization, None, "only a checked token is passed on");
    }

    #[test]
    fn a_valid_request_id_and_the_trace_are_passed_on() {
        let own = headers(&[
            ("x-request-id", "abc-123"),
            ("traceparent", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"),
        ]);
        let call = call_of(&own).unwrap();
        assert_eq!(call.fields().request_id, "abc-123");
        assert_eq!(call.fields().trace.trace_id().to_string(), "4bf92f3577b34da6a3ce929d0e0e4736");
        assert_ne!(call.fields().trace.header(), own["traceparent"]);

        for invalid in ["", "a b", &"a".repeat(65), "a\"b"] {
            assert_ne!(request_id(&headers(&[("x-request-id", invalid)])), invalid);
        }
    }

    #[test]
    fn the_earlier_deadline_applies() {
        let left = |lines: &[(&'static str, &str)]| {
            let call = call_of(&headers(lines)).unwrap();
            call.fields().deadline.unwrap() - Instant::now()
        };
        assert!(left(&[]) > Duration::from_secs(9));
        assert!(left(&[("grpc-timeout", "500m")]) <= Duration::from_millis(500));
        assert!(left(&[("grpc-timeout", "99999999H")]) <= Duration::from_secs(10));
        let malformed = call_of(&headers(&[("grpc-timeout", "soon")]));
        assert_eq!(malformed.unwrap_err().reason(), Reason::MalformedTimeout);
    }

    #[test]
    fn a_user_agent_is_truncated_and_made_printable() {
        let mut headers = HeaderMap::new();
        headers.insert(USER_AGENT, HeaderValue::from_bytes("Schön\t\u{2603}".as_bytes()).unwrap());
        assert_eq!(agent(&headers), "Sch?n??");
        headers.insert(USER_AGENT, HeaderValue::from_bytes(&[b'a', 0xff]).unwrap());
        assert_eq!(agent(&headers), "a?");
        headers.insert(USER_AGENT, "x".repeat(1000).parse().unwrap());
        assert_eq!(agent(&headers).len(), 256);
    }
}
