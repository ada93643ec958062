//! Ids on the wire: UUIDs, written as text.

use uuid::Uuid;

use crate::error::{Error, Result};

/// The id in this field. The contract has seen to its form already, except where an empty one stands for none.
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
