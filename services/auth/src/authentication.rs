//! The methods by which users prove who they are, as tokens and sessions name them.

use drystone_mesh::token::Principal;

use crate::{error::Error, store::AuthStore};

/// A method of authentication.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Method {
    /// A password: something that the user knows.
    Password,
    /// A one-time password: a code of an authenticator app, or a backup code. Something that the user has.
    OneTimePassword,
    /// A passkey that does not leave its device. Something that the user has, which verifies who uses it.
    HardwareKey,
    /// A passkey that the user's devices share.
    SoftwareKey,
}

impl Method {
    /// The value of `amr` (RFC 8176, section 2).
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Password => "pwd",
            Self::OneTimePassword => "otp",
            Self::HardwareKey => "hwk",
            Self::SoftwareKey => "swk",
        }
    }

    /// Whether it is a passkey.
    #[must_use]
    pub const fn is_passkey(self) -> bool {
        matches!(self, Self::HardwareKey | Self::SoftwareKey)
    }
}

/// Whether the user of a token has proved a second factor in its session.
pub(crate) fn has_second_factor(principal: &Principal) -> bool {
    let methods = [Method::OneTimePassword, Method::HardwareKey, Method::SoftwareKey];
    methods.iter().any(|method| principal.has_used(method.name()))
}

/// Asserts that the user of a token has proved their second factor in its session, if they have one. A session of the password alone can
/// be from a trusted device, or from before the factor was added.
///
/// # Errors
/// [`Error::SecondFactorRequired`].
pub(crate) async fn assert_strongest(principal: &Principal, store: &AuthStore) -> Result<(), Error> {
    if !has_second_factor(principal) && store.has_factor(principal.user_id).await? {
        return Err(Error::SecondFactorRequired);
    }
    Ok(())
}

/// This method, with the password of the sign-in if there was one: these are two factors.
pub(crate) fn with_password(principal: &Principal, method: Method) -> Vec<Method> {
    let password = principal.has_used(Method::Password.name()).then_some(Method::Password);
    password.into_iter().chain([method]).collect()
}

/// The user was present (RFC 8176, section 2), as each passkey asserts.
const USER_PRESENT: &str = "user";

/// Two factors of different kinds were used (RFC 8176, section 2).
const SEVERAL_FACTORS: &str = "mfa";

/// The claim `amr` of these methods.
#[must_use]
pub fn amr(methods: &[Method]) -> Vec<String> {
    let mut names: Vec<String> = methods.iter().map(|method| method.name().to_owned()).collect();
    let has_passkey = methods.iter().any(|method| method.is_passkey());
    if has_passkey {
        names.push(USER_PRESENT.to_owned());
    }
    // A passkey verifies its user by a PIN or biometrics: that is two.
    if has_passkey || methods.contains(&Method::Password) && methods.contains(&Method::OneTimePassword) {
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
        assert_eq!(amr(&[Method::HardwareKey]), ["hwk", "user", "mfa"]);
        assert_eq!(amr(&[Method::Password, Method::SoftwareKey]), ["pwd", "swk", "user", "mfa"]);
    }
}
