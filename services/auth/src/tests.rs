//! The handlers over a real store and real hashing, with upstreams that a test can put out of order.

#![allow(clippy::unwrap_used, clippy::panic, reason = "what goes wrong here is for the test to tell")]

mod attempts;
mod fake;
mod fixture;
mod keys;
mod orphans;
mod password_form;
mod refresh;
mod register;
mod sign_in;
mod sign_out;
mod token;

use drystone_mesh::error::{Reason, reason_of};
use tonic::Status;

/// The reason of a refusal.
fn refusal<T>(answer: Result<T, Status>) -> Reason {
    match answer {
        Ok(_) => panic!("it was not refused"),
        Err(status) => reason_of(&status).unwrap(),
    }
}
