//! The challenge of a 401 response, and the authentication that it asks for (RFC 9470).

use std::{borrow::Cow, collections::HashMap, time::Duration};

use drystone_contract::Factors;
use tonic::Status;
use tonic_types::StatusExt;

use crate::Reason;

/// The parameter and metadata of the maximum time since the user's authentication, in seconds.
const MAX_AGE: &str = "max_age";
/// The parameter and metadata of the authentication context class.
const ACR_VALUES: &str = "acr_values";
/// The maximum of `max_age`, which therefore has at most ten digits.
const MAX_SECONDS: u64 = 9_999_999_999;
const MAX_DIGITS: usize = 10;

/// The authentication that a call requires. A status has it as `max_age` and `acr_values` in the metadata of its
/// `google.rpc.ErrorInfo`.
///
/// A status may come from any service, and a challenge is a header: only a number and a known class are read.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct StepUp {
    max_age: Option<u64>,
    factors: Option<Factors>,
}

impl StepUp {
    /// What a rule with this maximum age and these factors requires. The age counts in whole seconds, rounded down.
    #[must_use]
    pub fn new(max_auth_age: Option<Duration>, factors: Option<Factors>) -> Self {
        Self { max_age: max_auth_age.map(|age| age.as_secs().min(MAX_SECONDS)), factors }
    }

    /// What a status from Drystone asks for; nothing if it has no valid metadata.
    #[must_use]
    pub fn of(status: &Status) -> Self {
        let info = status.get_details_error_info().filter(|info| info.domain == Reason::DOMAIN);
        info.map(|info| Self::from_metadata(&info.metadata)).unwrap_or_default()
    }

    fn from_metadata(metadata: &HashMap<String, String>) -> Self {
        // `parse` alone would accept a sign.
        let is_number = |text: &str| text.len() <= MAX_DIGITS && text.bytes().all(|byte| byte.is_ascii_digit());
        let max_age = metadata.get(MAX_AGE).filter(|text| is_number(text));
        Self {
            max_age: max_age.and_then(|text| text.parse().ok()),
            factors: metadata.get(ACR_VALUES).and_then(|acr| Factors::from_acr(acr)),
        }
    }

    pub(super) fn metadata(self) -> HashMap<String, String> {
        self.parameters().map(|(name, value)| (name.to_owned(), value)).collect()
    }

    fn parameters(self) -> impl Iterator<Item = (&'static str, String)> {
        let acr_values = self.factors.map(|factors| (ACR_VALUES, factors.acr().to_owned()));
        let max_age = self.max_age.map(|seconds| (MAX_AGE, seconds.to_string()));
        acr_values.into_iter().chain(max_age)
    }
}

/// The challenge of a 401 response (RFC 6750, section 3; RFC 9470, section 3).
#[must_use]
pub fn challenge(reason: Option<Reason>, step_up: StepUp) -> Cow<'static, str> {
    let description = match reason {
        Some(Reason::TokenInvalid | Reason::TokenExpired | Reason::TokenRevoked) => {
            return Cow::Borrowed("Bearer error=\"invalid_token\"");
        }
        Some(Reason::ReauthenticationRequired) => "a more recent authentication is required",
        Some(Reason::FactorsRequired) => "an authentication with other factors is required",
        _ => return Cow::Borrowed("Bearer"),
    };
    let error = [("error", "insufficient_user_authentication"), ("error_description", description)];
    let error = error.map(|(name, value)| (name, value.to_owned()));
    let parameters = error.into_iter().chain(step_up.parameters());
    let parameters: Vec<String> = parameters.map(|(name, value)| format!("{name}=\"{value}\"")).collect();
    Cow::Owned(format!("Bearer {}", parameters.join(", ")))
}

#[cfg(test)]
mod tests {
    use tonic::Code;
    use tonic_types::ErrorDetails;

    use super::*;

    fn received(domain: &str, metadata: &[(&str, &str)]) -> StepUp {
        let metadata = metadata.iter().map(|&(name, value)| (name.to_owned(), value.to_owned()));
        let metadata: HashMap<String, String> = metadata.collect();
        let details = ErrorDetails::with_error_info("REAUTHENTICATION_REQUIRED", domain, metadata);
        StepUp::of(&Status::with_error_details(Code::Unauthenticated, "no", details))
    }

    #[test]
    fn a_challenge_has_the_parameters_of_rfc_9470() {
        let ten_minutes = Some(Duration::from_mins(10));
        let error = "Bearer error=\"insufficient_user_authentication\"";
        let recent = "error_description=\"a more recent authentication is required\"";
        let other = "error_description=\"an authentication with other factors is required\"";
        for (reason, step_up, expected) in [
            (
                Reason::ReauthenticationRequired,
                StepUp::new(ten_minutes, None),
                format!("{error}, {recent}, max_age=\"600\""),
            ),
            (Reason::ReauthenticationRequired, StepUp::default(), format!("{error}, {recent}")),
            (
                Reason::FactorsRequired,
                StepUp::new(None, Some(Factors::Two)),
                format!("{error}, {other}, acr_values=\"mfa\""),
            ),
            (
                Reason::FactorsRequired,
                StepUp::new(ten_minutes, Some(Factors::PhishingResistant)),
                format!("{error}, {other}, acr_values=\"phr\", max_age=\"600\""),
            ),
            (Reason::TokenMissing, StepUp::new(ten_minutes, None), "Bearer".to_owned()),
            (Reason::TokenExpired, StepUp::new(ten_minutes, None), "Bearer error=\"invalid_token\"".to_owned()),
        ] {
            assert_eq!(challenge(Some(reason), step_up), expected);
        }
        assert_eq!(challenge(None, StepUp::default()), "Bearer");
    }

    #[test]
    fn only_a_number_and_a_known_class_are_read_from_a_status() {
        let recent = StepUp::new(Some(Duration::from_mins(10)), None);
        assert_eq!(received("drystone", &[("max_age", "600"), ("acr_values", "gold"), ("scope", "all")]), recent);
        assert_eq!(received("acme.example", &[("max_age", "600")]), StepUp::default());
        for text in ["", "-1", "+1", "1.5", "600\", scope=\"all", "6\r\n", "٣", "00000000600", "99999999999"] {
            assert_eq!(received("drystone", &[("max_age", text)]), StepUp::default(), "{text}");
        }
        let phishing_resistant = StepUp::new(None, Some(Factors::PhishingResistant));
        assert_eq!(received("drystone", &[("acr_values", "phr")]), phishing_resistant);
        for text in ["", "PHR", "mfa phr", "phr\", max_age=\"1"] {
            assert_eq!(received("drystone", &[("acr_values", text)]), StepUp::default(), "{text}");
        }
        assert_eq!(StepUp::of(&Status::unauthenticated("no")), StepUp::default());
    }

    #[test]
    fn the_longest_age_survives_a_hop() {
        let longest = StepUp::new(Some(Duration::MAX), None);
        let metadata = longest.metadata();
        assert_eq!(metadata["max_age"], "9999999999");
        assert_eq!(StepUp::from_metadata(&metadata), longest);
    }
}
