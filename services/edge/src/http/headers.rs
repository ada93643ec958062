//! What of a client's headers goes into the mesh. This is the whole list: whatever else comes along, such as
//! `x-forwarded-client-cert`, `x-user-id` or our own `x-drystone-*`, ends here.

use std::{net::IpAddr, time::Instant};

use drystone::contract::{Deadline, Subject};
use drystone_mesh::{
    call::{self, Call, Client, Parts, header},
    deadline,
    error::{Error, Reason, Result},
    telemetry::TraceContext,
};
use http::{
    HeaderMap, HeaderValue,
    header::{AUTHORIZATION, USER_AGENT},
};

/// An access token has at most 8 KiB; `Bearer` and some room for the rest.
const MAX_AUTHORIZATION_LENGTH: usize = 8 * 1024 + 64;
/// How much of a `user-agent` is handed on, in characters.
const MAX_AGENT_LENGTH: usize = 256;

/// The client's own request id if it is valid, else a new one.
pub(crate) fn request_id(headers: &HeaderMap) -> HeaderValue {
    let own = headers.get(header::REQUEST_ID).filter(|id| call::valid_request_id(id));
    own.cloned().unwrap_or_else(call::new_request_id)
}

/// A request as it came in.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Arrival<'a> {
    pub(crate) headers: &'a HeaderMap,
    /// What [`request_id`] made of it.
    pub(crate) request_id: &'a HeaderValue,
    /// Where it came from.
    pub(crate) address: IpAddr,
    /// When.
    pub(crate) at: Instant,
}

/// The call that a request begins.
///
/// Its deadline lies where the client's `grpc-timeout` ends, counted from when the request came, but no later than the
/// maximum; without a `grpc-timeout`, where the default ends. A
/// token goes along only where the rule asks for one.
///
/// # Errors
/// `MALFORMED_TIMEOUT`, or an `authorization` header that is none: twice there, or longer than any token of ours.
pub(crate) fn call(arrival: &Arrival<'_>, subject: Subject, time: Deadline) -> Result<Call> {
    let headers = arrival.headers;
    let asked = deadline::parse_timeout(headers)?.and_then(|timeout| arrival.at.checked_add(timeout));
    let now = Instant::now();
    let latest = time.max.map(|max| now + max);
    let deadline = asked.or_else(|| time.default.map(|default| now + default));
    let trace = headers.get(header::TRACEPARENT).and_then(TraceContext::parse);
    Ok(Call::new(Parts {
        request_id: arrival.request_id.clone(),
        trace: trace.map_or_else(TraceContext::new_root, |trace| trace.child()),
        deadline: [deadline, latest].into_iter().flatten().min(),
        caller: None,
        principal: None,
        authorization: if subject == Subject::User { authorization(headers)? } else { None },
        client: Client { address: arrival.address.to_canonical().to_string(), agent: agent(headers) },
    }))
}

fn authorization(headers: &HeaderMap) -> Result<Option<HeaderValue>> {
    let mut values = headers.get_all(AUTHORIZATION).iter();
    let Some(value) = values.next() else { return Ok(None) };
    if values.next().is_some() {
        return Err(Error::invalid_field("authorization", "stands twice; send the header once"));
    }
    if value.len() > MAX_AUTHORIZATION_LENGTH {
        return Err(Error::new(Reason::TokenInvalid, "the access token is longer than any of ours; sign in again"));
    }
    Ok(Some(value.clone()))
}

/// The `user-agent`, in characters that a header can carry on.
fn agent(headers: &HeaderMap) -> String {
    let agent = headers.get(USER_AGENT).map(|agent| String::from_utf8_lossy(agent.as_bytes()));
    let printable = |sign: char| if sign.is_ascii_graphic() || sign == ' ' { sign } else { '?' };
    agent.map(|agent| agent.chars().take(MAX_AGENT_LENGTH).map(printable).collect()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::{net::Ipv4Addr, time::Duration};

    use super::*;

    fn headers(lines: &[(&'static str, &str)]) -> HeaderMap {
        lines.iter().map(|(name, value)| (name.parse::<http::HeaderName>().unwrap(), value.parse().unwrap())).collect()
    }

    fn begin(headers: &HeaderMap, subject: Subject) -> Result<Call> {
        let address = IpAddr::V6(Ipv4Addr::LOCALHOST.to_ipv6_mapped());
        let arrival = Arrival { headers, request_id: &request_id(headers), address, at: Instant::now() };
        let time = Deadline { default: Some(Duration::from_secs(10)), max: Some(Duration::from_secs(10)) };
        call(&arrival, subject, time)
    }

    #[test]
    fn what_a_client_claims_to_be_ends_here() {
        let call = begin(
            &headers(&[
                ("x-forwarded-for", "1.2.3.4"),
                ("x-forwarded-client-cert", "URI=spiffe://drystone.local/service/auth"),
                ("x-drystone-client-address", "1.2.3.4"),
                ("x-drystone-client-agent", "somebody else"),
                ("x-user-id", "root"),
                ("authorization", "Bearer token"),
                ("user-agent", "curl/8"),
            ]),
            Subject::User,
        )
        .unwrap();
        let parts = call.parts();
        assert_eq!(parts.client, Client { address: "127.0.0.1".to_owned(), agent: "curl/8".to_owned() });
        assert!(parts.caller.is_none() && parts.principal.is_none());
        assert_eq!(parts.authorization.as_ref().unwrap(), "Bearer token");
    }

    #[test]
    fn a_token_goes_only_where_one_is_asked_for() {
        let call = begin(&headers(&[("authorization", "Bearer token")]), Subject::None).unwrap();
        assert_eq!(call.parts().authorization, None);
    }

    #[test]
    fn an_authorization_that_is_none_is_refused() {
        let mut twice = headers(&[("authorization", "Bearer a")]);
        twice.append(AUTHORIZATION, "Bearer b".parse().unwrap());
        assert_eq!(begin(&twice, Subject::User).unwrap_err().reason(), Reason::InvalidRequest);
        let long = headers(&[("authorization", &"a".repeat(MAX_AUTHORIZATION_LENGTH + 1))]);
        assert_eq!(begin(&long, Subject::User).unwrap_err().reason(), Reason::TokenInvalid);
    }

    #[test]
    fn a_valid_request_id_and_the_trace_go_on() {
        let own = headers(&[
            ("x-request-id", "abc-123"),
            ("traceparent", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"),
        ]);
        let call = begin(&own, Subject::None).unwrap();
        assert_eq!(call.parts().request_id, "abc-123");
        assert_eq!(call.parts().trace.trace_id().to_string(), "4bf92f3577b34da6a3ce929d0e0e4736");
        assert_ne!(call.parts().trace.header(), own["traceparent"]);

        for invalid in ["", "a b", &"a".repeat(65), "a\"b"] {
            assert_ne!(request_id(&headers(&[("x-request-id", invalid)])), invalid);
        }
    }

    #[test]
    fn the_sooner_deadline_holds() {
        let left = |lines: &[(&'static str, &str)]| {
            let call = begin(&headers(lines), Subject::None).unwrap();
            call.parts().deadline.unwrap() - Instant::now()
        };
        assert!(left(&[]) > Duration::from_secs(9));
        assert!(left(&[("grpc-timeout", "500m")]) <= Duration::from_millis(500));
        assert!(left(&[("grpc-timeout", "99999999H")]) <= Duration::from_secs(10));
        let malformed = begin(&headers(&[("grpc-timeout", "soon")]), Subject::None);
        assert_eq!(malformed.unwrap_err().reason(), Reason::MalformedTimeout);
    }

    #[test]
    fn an_agent_is_cut_and_made_printable() {
        let mut odd = HeaderMap::new();
        odd.insert(USER_AGENT, HeaderValue::from_bytes("Schön\t\u{2603}".as_bytes()).unwrap());
        assert_eq!(agent(&odd), "Sch?n??");
        odd.insert(USER_AGENT, HeaderValue::from_bytes(&[b'a', 0xff]).unwrap());
        assert_eq!(agent(&odd), "a?");
        odd.insert(USER_AGENT, "x".repeat(1000).parse().unwrap());
        assert_eq!(agent(&odd).len(), 256);
    }
}
