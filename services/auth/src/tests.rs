//! Tests of the handlers with a real store, real hashing, and fake upstreams that a test can make fail.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod attempts;
mod emails;
mod fake;
mod fixture;
mod imports;
mod keys;
mod orphans;
mod password_form;
mod passwords;
mod refresh;
mod register;
mod running;
mod second_factors;
mod sign_in;
mod sign_in_history;
mod sign_out;
mod signing_keys;
mod token;

use drystone_mesh::error::{Reason, reason_of};
use tonic::Status;

/// The reason of a failed call.
fn reason<T>(result: Result<T, Status>) -> Reason {
    match result {
        Ok(_) => panic!("the call succeeded"),
        Err(status) => reason_of(&status).unwrap(),
    }
}
