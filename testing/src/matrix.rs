//! The access matrix: every RPC of a mesh, called as every workload that has a certificate.
//!
//! It is derived from the contracts, so it covers new RPCs automatically.

use drystone::{
    Reason,
    contract::{Contracts, Method, Subject},
};
use tonic::{Request, Status, transport::Channel};

use crate::{
    Mesh,
    grpc::{assert_refused, call_raw, reason},
};

/// The numbers of allowed and denied calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CallCounts {
    /// Calls that a rule allows.
    pub allowed: usize,
    /// Calls that a rule denies.
    pub denied: usize,
}

/// Calls every RPC of the contracts as every workload of the mesh, and asserts that each is allowed or denied by its
/// access rule. Skips services that do not run in this mesh.
///
/// # Panics
/// If an access rule is not enforced.
pub async fn assert_rules_hold(mesh: &Mesh, contracts: &Contracts) -> CallCounts {
    let mut counts = CallCounts { allowed: 0, denied: 0 };
    for service in mesh.services() {
        for workload in mesh.certificates().workloads() {
            let channel = mesh.channel(service, workload);
            for method in contracts.methods().iter().filter(|method| *method.workload == *service) {
                let answer = call(channel.clone(), &method.path, method.is_streaming()).await;
                if may_call(method, workload) {
                    assert_allowed(method, workload, answer);
                    counts.allowed += 1;
                } else {
                    assert_refused(answer, Reason::CallerNotAllowed);
                    counts.denied += 1;
                }
            }
        }
    }
    counts
}

/// Calls an RPC with an empty message.
///
/// # Errors
/// The status that the call ends with.
pub async fn call(channel: Channel, path: &str, is_stream: bool) -> Result<Vec<u8>, Status> {
    call_raw(channel, path, Request::new(Vec::new()), is_stream).await
}

/// Whether the access rule allows the workload. Deliberately a second implementation of the rule.
#[must_use]
pub fn may_call(method: &Method, workload: &str) -> bool {
    let lists = |name: &str| method.callers.iter().any(|caller| caller == name);
    let is_entry_point = ["edge", "ingress"].contains(&workload);
    let is_any = !is_entry_point && workload != "operator";
    lists(workload) || (lists("outside") && is_entry_point) || (lists("any") && is_any)
}

/// Asserts that a call was not denied because of its caller. It may fail for other reasons, since its message is empty.
#[track_caller]
pub fn assert_allowed(method: &Method, workload: &str, answer: Result<Vec<u8>, Status>) {
    let needs_token = match method.subject {
        Subject::None => false,
        Subject::User => true,
        Subject::UserOrOperator => workload != "operator",
    };
    match (needs_token, answer) {
        (true, answer) => assert_refused(answer, Reason::TokenMissing),
        (false, Ok(_)) => {}
        (false, Err(status)) => {
            assert!(reason(&status).is_some_and(is_caused_by_message), "{} as {workload}: {status:?}", method.path);
        }
    }
}

/// Whether an empty message can cause this reason: its fields are invalid, or the resource does not exist. Or what it asks for is not
/// configured.
fn is_caused_by_message(reason: Reason) -> bool {
    use Reason::{InvalidRequest, PasskeysDisabled, PropertyNotFound, SessionNotFound, UserNotFound};

    matches!(reason, InvalidRequest | UserNotFound | SessionNotFound | PropertyNotFound | PasskeysDisabled)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_errors_of_the_message_count_as_allowed() {
        let accepted: Vec<&str> =
            Reason::ALL.iter().filter(|reason| is_caused_by_message(**reason)).map(|reason| reason.name()).collect();
        let expected =
            ["INVALID_REQUEST", "PASSKEYS_DISABLED", "USER_NOT_FOUND", "SESSION_NOT_FOUND", "PROPERTY_NOT_FOUND"];
        assert_eq!(accepted.len(), expected.len(), "{accepted:?}");
        assert!(expected.iter().all(|name| accepted.contains(name)), "{accepted:?}");
    }
}
