//! Who may call what: every RPC of a mesh, as every workload that has a certificate.
//!
//! The table is made from the contracts, so that a new RPC is in it from the day on which it is written.

use drystone::{
    Reason,
    contract::{Contracts, Method, Subject},
};
use tonic::{Request, Status, transport::Channel};

use crate::{
    Mesh,
    grpc::{assert_refused, call_raw, reason},
};

/// How many calls were allowed and how many denied.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Outcome {
    /// Calls that a rule allows.
    pub allowed: usize,
    /// Calls that a rule denies.
    pub denied: usize,
}

/// Calls every RPC of the contracts as every workload of the mesh, and asserts that each is allowed or denied as its rule
/// says. Services that do not run here are left out.
///
/// # Panics
/// If a rule does not hold.
pub async fn assert_rules_hold(mesh: &Mesh, contracts: &Contracts) -> Outcome {
    let mut outcome = Outcome { allowed: 0, denied: 0 };
    for service in mesh.services() {
        for workload in mesh.certificates().workloads() {
            let channel = mesh.channel(service, workload);
            for method in contracts.methods().iter().filter(|method| *method.workload == *service) {
                let answer = call(channel.clone(), &method.path, method.is_streaming()).await;
                if may_call(method, workload) {
                    assert_allowed(method, workload, answer);
                    outcome.allowed += 1;
                } else {
                    assert_refused(answer, Reason::CallerNotAllowed);
                    outcome.denied += 1;
                }
            }
        }
    }
    outcome
}

/// Calls an RPC with nothing in the message.
///
/// # Errors
/// The status that the call ends with.
pub async fn call(channel: Channel, path: &str, is_stream: bool) -> Result<Vec<u8>, Status> {
    call_raw(channel, path, Request::new(Vec::new()), is_stream).await
}

/// What the rule says, read here a second time on purpose.
#[must_use]
pub fn may_call(method: &Method, workload: &str) -> bool {
    let lists = |name: &str| method.callers.iter().any(|caller| caller == name);
    let is_entry_point = ["edge", "ingress"].contains(&workload);
    let is_any = !is_entry_point && workload != "operator";
    lists(workload) || (lists("outside") && is_entry_point) || (lists("any") && is_any)
}

/// Allowed means: what the call is refused for, if it is, is not who makes it. It is called with nothing in it, so that
/// something else may be wrong with it.
#[track_caller]
pub fn assert_allowed(method: &Method, workload: &str, answer: Result<Vec<u8>, Status>) {
    match (method.subject, answer) {
        (Subject::User, answer) => assert_refused(answer, Reason::TokenMissing),
        (Subject::None, Ok(_)) => {}
        (Subject::None, Err(status)) => {
            assert!(reason(&status).is_some_and(is_about_content), "{} as {workload}: {status:?}", method.path);
        }
    }
}

/// Whether a call can be refused for this reason because its message is empty: its fields are invalid, or what it names
/// is not there.
fn is_about_content(reason: Reason) -> bool {
    use Reason::{InvalidRequest, PropertyNotFound, SessionNotFound, UserNotFound};

    matches!(reason, InvalidRequest | UserNotFound | SessionNotFound | PropertyNotFound)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_refusal_of_the_message_counts_as_allowed() {
        let accepted: Vec<&str> =
            Reason::ALL.iter().filter(|reason| is_about_content(**reason)).map(|reason| reason.name()).collect();
        assert_eq!(accepted, ["INVALID_REQUEST", "USER_NOT_FOUND", "SESSION_NOT_FOUND", "PROPERTY_NOT_FOUND"]);
    }
}
