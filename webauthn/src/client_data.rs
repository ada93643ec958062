//! What the browser says of a ceremony (section 5.8.1). It is signed by the authenticator as its hash.

use aws_lc_rs::digest::{Digest, SHA256, digest};
use serde::Deserialize;

use crate::{failure::Failure, relying_party::RelyingParty};

/// How much of a foreign origin an error shows, in characters.
const MAX_SHOWN: usize = 100;

/// The ceremonies, as `type` names them.
pub(crate) const CREATE: &str = "webauthn.create";
pub(crate) const GET: &str = "webauthn.get";

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Json {
    r#type: String,
    challenge: String,
    origin: String,
    #[serde(default)]
    cross_origin: bool,
    top_origin: Option<String>,
}

/// Verifies what the browser says: that it is of this ceremony, has a challenge that `is_expected`, and comes from an origin of the relying
/// party. Returns its hash, which the authenticator signs.
pub(crate) fn verify(
    bytes: &[u8],
    ceremony: &'static str,
    relying_party: &RelyingParty,
    is_expected: impl FnOnce(&str) -> bool,
) -> Result<Digest, Failure> {
    // Section 7.1 reads it with "UTF-8 decode", which skips a byte order mark.
    let text = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
    // An object: a list would be read as well, its values being those of the members in their order.
    let is_object = text.trim_ascii_start().starts_with(b"{");
    let json = serde_json::from_slice::<Json>(text).ok().filter(|_| is_object);
    let json = json.ok_or(Failure::Malformed("clientDataJSON"))?;
    if json.r#type != ceremony {
        return Err(Failure::Type(ceremony));
    }
    if !is_expected(&json.challenge) {
        return Err(Failure::Challenge);
    }
    if !relying_party.has_origin(&json.origin) {
        return Err(Failure::Origin(json.origin.escape_debug().take(MAX_SHOWN).collect()));
    }
    if json.cross_origin || json.top_origin.is_some() {
        return Err(Failure::CrossOrigin);
    }
    Ok(digest(&SHA256, bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcome(text: &str) -> Result<(), Failure> {
        let party = RelyingParty::new("example.com", &["https://example.com".to_owned()]).unwrap();
        verify(text.as_bytes(), GET, &party, |challenge| challenge == "abc").map(|_| ())
    }

    #[test]
    fn what_a_browser_says_is_verified() {
        let good =
            r#"{"type":"webauthn.get","challenge":"abc","origin":"https://example.com","crossOrigin":false,"more":{}}"#;
        assert_eq!(outcome(good), Ok(()));
        assert_eq!(outcome(&format!("\u{feff}{good}")), Ok(()));
        let changed = |from: &str, to: &str| {
            assert!(good.contains(from));
            outcome(&good.replace(from, to))
        };
        assert_eq!(changed("webauthn.get", "webauthn.create"), Err(Failure::Type(GET)));
        assert_eq!(changed("abc", "abd"), Err(Failure::Challenge));
        assert_eq!(changed("example.com", "example.org"), Err(Failure::Origin("https://example.org".to_owned())));
        assert_eq!(
            changed("example.com", "example.com:8443"),
            Err(Failure::Origin("https://example.com:8443".to_owned()))
        );
        assert_eq!(changed("false", "true"), Err(Failure::CrossOrigin));
        assert_eq!(changed(r#""more":{}"#, r#""topOrigin":"https://example.com""#), Err(Failure::CrossOrigin));
        let malformed = Err(Failure::Malformed("clientDataJSON"));
        assert_eq!(changed(r#""more":{}"#, r#""challenge":"abd""#), malformed, "two of a name");
        assert_eq!(outcome(&good[1..]), malformed);
        assert_eq!(outcome(&format!("{good}x")), malformed);
        assert_eq!(outcome("[]"), malformed);
    }
}
