//! The access token of a request: the `authorization` header with the scheme `Bearer`.

use http::{HeaderMap, HeaderValue, header::AUTHORIZATION};

use crate::error::{Error, Reason, Result};

/// An access token as received.
#[derive(Debug, Clone, Copy)]
pub struct BearerToken<'a> {
    /// The header, to be passed on.
    pub header: &'a HeaderValue,
    /// The token.
    pub token: &'a str,
}

impl<'a> BearerToken<'a> {
    /// The token in these headers.
    ///
    /// # Errors
    /// `TOKEN_MISSING`, or `TOKEN_INVALID` for several headers or another scheme.
    pub fn of(headers: &'a HeaderMap) -> Result<Self> {
        let mut values = headers.get_all(AUTHORIZATION).iter();
        let header = values.next().ok_or_else(|| {
            Error::new(Reason::TokenMissing, "the call needs an access token; send it as `authorization: Bearer TOKEN`")
        })?;
        if values.next().is_some() {
            return Err(Error::new(Reason::TokenInvalid, "send one `authorization` header, not several"));
        }
        Ok(Self { header, token: parse(header)? })
    }
}

/// The token of a `Bearer` credential: the scheme, case-insensitive, one or more spaces, and a token without spaces (RFC
/// 6750, section 2.1; RFC 9110, section 11.4).
fn parse(value: &HeaderValue) -> Result<&str> {
    let malformed = || Error::new(Reason::TokenInvalid, "send the access token as `authorization: Bearer TOKEN`");
    let text = value.to_str().map_err(|_| malformed())?;
    let (scheme, rest) = text.split_once(' ').ok_or_else(malformed)?;
    let token = rest.trim_start_matches(' ');
    let is_valid = !token.is_empty() && !token.contains([' ', '\t', ',']);
    if scheme.eq_ignore_ascii_case("bearer") && is_valid { Ok(token) } else { Err(malformed()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bearer_token_follows_one_or_more_spaces() {
        let token = |text| parse(&HeaderValue::from_static(text)).ok().map(str::to_owned);
        for valid in ["Bearer a.b.c", "bearer a.b.c", "BEARER  a.b.c", "Bearer     a.b.c"] {
            assert_eq!(token(valid).as_deref(), Some("a.b.c"), "{valid:?}");
        }
        for invalid in [
            "",
            "Bearer",
            "Bearer ",
            "Bearer   ",
            "Bearera.b.c",
            " Bearer a.b.c",
            "Bearer\ta.b.c",
            "Bearer \ta.b.c",
            "Bearer a.b.c ",
            "Bearer a.b.c d",
            "Bearer a.b.c, Bearer d",
            "Basic a.b.c",
        ] {
            assert_eq!(token(invalid), None, "{invalid:?}");
        }
    }

    #[test]
    fn one_header_is_accepted() {
        let mut headers = HeaderMap::new();
        let reason = |headers: &HeaderMap| BearerToken::of(headers).unwrap_err().reason();
        assert_eq!(reason(&headers), Reason::TokenMissing);
        headers.append(AUTHORIZATION, HeaderValue::from_static("Bearer a"));
        assert_eq!(BearerToken::of(&headers).unwrap().token, "a");
        headers.append(AUTHORIZATION, HeaderValue::from_static("Bearer b"));
        assert_eq!(reason(&headers), Reason::TokenInvalid);
    }
}
