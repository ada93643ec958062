//! Second factors: authenticator apps, backup codes and passkeys, with foreign authenticators.

mod apps;
mod authenticator;
mod calls;
mod chromium;
mod enrolment;
mod passkeys;
mod refusals;
mod step_up;
mod timing;
