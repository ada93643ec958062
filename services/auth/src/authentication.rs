//! The methods by which users prove who they are, as tokens and sessions name them.

/// A method of authentication.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Method {
    /// A password: something that the user knows.
    Password,
    /// A one-time password: a code of an authenticator app, or a backup code. Something that the user has.
    OneTimePassword,
}

impl Method {
    /// The value of `amr` (RFC 8176, section 2).
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Password => "pwd",
            Self::OneTimePassword => "otp",
        }
    }
}

/// Two factors of different kinds were used (RFC 8176, section 2).
const SEVERAL_FACTORS: &str = "mfa";

/// The claim `amr` of these methods.
#[must_use]
pub fn amr(methods: &[Method]) -> Vec<String> {
    let mut names: Vec<String> = methods.iter().map(|method| method.name().to_owned()).collect();
    if methods.contains(&Method::Password) && methods.contains(&Method::OneTimePassword) {
        names.push(SEVERAL_FACTORS.to_owned());
    }
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_factors_of_different_kinds_are_named() {
        assert_eq!(amr(&[Method::Password]), ["pwd"]);
        assert_eq!(amr(&[Method::OneTimePassword]), ["otp"]);
        assert_eq!(amr(&[Method::Password, Method::OneTimePassword]), ["pwd", "otp", "mfa"]);
    }
}
