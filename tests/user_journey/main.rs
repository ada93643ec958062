//! The user journey: sign-up, sign-in, sessions, rate limits, sign-out.

mod accounts;
mod end_to_end;
mod journey;
mod limits;
mod roles;
mod sessions;
mod sign_in;
