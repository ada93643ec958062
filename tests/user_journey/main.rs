//! What an end user does: sign-up, sign-in, sessions, limits, sign-out.

mod limits;
mod sessions;
mod sign_in;
mod walk;
