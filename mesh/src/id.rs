//! Resource ids: UUIDs of version 7 (RFC 9562) as strings.

use uuid::{NoContext, Uuid};

use crate::{
    clock::Timestamp,
    error::{Error, Result},
};

/// A new id with this timestamp. The `jti` of a token has the same timestamp as its `iat`: a token whose two issue times
/// differ is rejected.
#[must_use]
pub fn v7_at(at: Timestamp) -> Uuid {
    let seconds = u64::try_from(at.timestamp()).unwrap_or_default();
    Uuid::new_v7(uuid::Timestamp::from_unix(NoContext, seconds, at.timestamp_subsec_nanos()))
}

/// Parses the id in this field. The contract validates its format already, except for optional fields.
///
/// # Errors
/// `INVALID_REQUEST`, which names the field, if the text is not a UUID.
pub fn parse(field: &'static str, text: &str) -> Result<Uuid> {
    Uuid::try_parse(text).map_err(|_| Error::invalid_field(field, "must be a UUID"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Reason;

    #[test]
    fn an_invalid_id_is_rejected_with_its_field() {
        let id = Uuid::now_v7();
        assert_eq!(parse("user_id", &id.to_string()).unwrap(), id);
        for text in ["", "me", "0197a1b2"] {
            let error = parse("user_id", text).unwrap_err();
            assert_eq!(error.reason(), Reason::InvalidRequest, "{text:?}");
            assert!(error.to_string().contains("user_id: must be a UUID"), "{error}");
        }
    }
}
