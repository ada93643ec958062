//! Ids: UUIDs of version 7 (RFC 9562), written as text.

use uuid::{NoContext, Uuid};

use crate::{
    clock::Timestamp,
    error::{Error, Result},
};

/// A new id that carries this moment. The `jti` of a token is made from the same moment as its `iat`: a token whose two
/// issue times disagree is refused.
#[must_use]
pub fn v7_at(at: Timestamp) -> Uuid {
    let seconds = u64::try_from(at.timestamp()).unwrap_or_default();
    Uuid::new_v7(uuid::Timestamp::from_unix(NoContext, seconds, at.timestamp_subsec_nanos()))
}

/// The id in this field. Validation has checked its form already, except where an empty one means none.
///
/// # Errors
/// `INVALID_REQUEST`, which names the field, for a text that is no UUID.
pub fn parse(field: &'static str, text: &str) -> Result<Uuid> {
    Uuid::try_parse(text).map_err(|_| Error::invalid_field(field, "must be a UUID"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Reason;

    #[test]
    fn what_is_no_id_is_refused_by_its_field() {
        let id = Uuid::now_v7();
        assert_eq!(parse("user_id", &id.to_string()).unwrap(), id);
        for text in ["", "me", "0197a1b2"] {
            let error = parse("user_id", text).unwrap_err();
            assert_eq!(error.reason(), Reason::InvalidRequest, "{text:?}");
            assert!(error.to_string().contains("user_id: must be a UUID"), "{error}");
        }
    }
}
