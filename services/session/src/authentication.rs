//! How and when the user of a session proved who they are.

use drystone_mesh::{
    clock::Timestamp,
    time::{from_micros, to_micros},
};

/// The method of a session whose methods nobody said: the release before had no other.
const PASSWORD: &str = "pwd";

/// How and when the user of a session last proved who they are.
///
/// A store has it as text: the time in microseconds since 1970, and the methods after it, each after a space.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Authentication {
    /// When.
    pub at: Timestamp,
    /// The methods (RFC 8176) of this time. Those of earlier ones do not count: a weaker proof makes no stronger one recent.
    pub methods: Vec<String>,
}

impl Authentication {
    /// A first authentication. Without methods it was by password.
    #[must_use]
    pub fn new(at: Timestamp, methods: Vec<String>) -> Self {
        Self { at, methods: if methods.is_empty() { vec![PASSWORD.to_owned()] } else { methods } }
    }

    /// After another authentication in the same session.
    #[must_use]
    pub fn raised(&self, at: Timestamp, methods: &[String]) -> Self {
        Self { at: self.at.max(at), methods: methods.to_vec() }
    }

    /// As a store has it.
    #[must_use]
    pub fn to_text(&self) -> String {
        format!("{} {}", to_micros(self.at), self.methods.join(" "))
    }

    /// Reads what a store has. Sessions of the release before have nothing: their user signed in by password when they were created.
    #[must_use]
    pub fn from_text(text: &str, created_at: Timestamp) -> Self {
        let mut words = text.split(' ');
        let at = words.next().and_then(|micros| micros.parse().ok()).map_or(created_at, from_micros);
        Self::new(at, words.map(str::to_owned).collect())
    }
}

#[cfg(test)]
mod tests {
    use chrono::TimeDelta;
    use drystone_mesh::clock::Clock;

    use super::*;

    fn methods(names: &[&str]) -> Vec<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn it_is_read_as_it_was_written() {
        let now = from_micros(to_micros(Clock::system().now()));
        for names in [methods(&["pwd"]), methods(&["pwd", "otp", "mfa"])] {
            let authentication = Authentication::new(now, names);
            assert_eq!(Authentication::from_text(&authentication.to_text(), now - TimeDelta::days(1)), authentication);
        }
    }

    #[test]
    fn a_session_of_the_release_before_is_of_a_password() {
        let now = Clock::system().now();
        assert_eq!(Authentication::from_text("", now), Authentication { at: now, methods: methods(&["pwd"]) });
    }

    #[test]
    fn another_authentication_replaces_the_methods_and_never_moves_the_time_back() {
        let now = Clock::system().now();
        let first = Authentication::new(now, methods(&["pwd"]));
        let raised = first.raised(now + TimeDelta::minutes(1), &methods(&["pwd", "otp", "mfa"]));
        assert_eq!(
            raised,
            Authentication { at: now + TimeDelta::minutes(1), methods: methods(&["pwd", "otp", "mfa"]) }
        );
        let again = raised.raised(now, &methods(&["otp"]));
        assert_eq!(again, Authentication { at: raised.at, methods: methods(&["otp"]) });
    }
}
