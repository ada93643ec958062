//! The rows of sessions and revocations.

use drystone_mesh::time::from_micros;
use uuid::Uuid;

use crate::{
    authentication::Authentication,
    revocation::{Holder, Revocation, Scope},
    session::Session,
};

pub(super) type SessionRow =
    (Uuid, Uuid, String, String, i64, i64, i64, i64, i64, i64, i64, i64, i64, String, String, String);

pub(super) type RevocationRow = (i64, Option<Uuid>, Option<Uuid>, Option<i64>, i64, Option<String>, Option<String>);

pub(super) fn read_session(row: SessionRow) -> Session {
    let (id, user_id, device, address, created_at, last_seen_at, idle_expires_at, expires_at, ..) = row;
    let (.., counter, confirmed, repeats, replacements, repeated_rotations, last_device, last_address, authentication) =
        row;
    let created_at = from_micros(created_at);
    Session {
        id,
        user_id,
        device,
        address,
        created_at,
        last_seen_at: from_micros(last_seen_at),
        idle_expires_at: from_micros(idle_expires_at),
        expires_at: from_micros(expires_at),
        counter: from_column(counter),
        confirmed: from_column(confirmed),
        repeats: count(repeats),
        replacements: count(replacements),
        repeated_rotations: count(repeated_rotations),
        last_device,
        last_address,
        authentication: Authentication::from_text(&authentication, created_at),
    }
}

/// These counts are small.
pub(super) fn count(column: i64) -> u32 {
    u32::try_from(column).unwrap_or(u32::MAX)
}

pub(super) fn read_revocation(
    (seq, session_id, user_id, void_until, forget_at, role, key_id): RevocationRow,
) -> sqlx::Result<Revocation> {
    let scope = match (session_id, user_id, void_until, key_id) {
        (Some(id), None, None, None) => Scope::Session(id),
        (None, Some(_), Some(_), Some(key_id)) => Scope::Key(key_id),
        (None, Some(user_id), Some(until), None) => {
            Scope::Tokens { of: Holder::from_columns(user_id, role), void_until: from_micros(until) }
        }
        _ => return Err(sqlx::Error::Decode(format!("revocation {seq} has an unknown scope").into())),
    };
    Ok(Revocation { seq: from_column(seq), scope, forget_at: from_micros(forget_at) })
}

/// A value that does not fit into the column was never issued, and matches no row.
pub(super) fn to_column(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

/// Values in these columns are never negative.
pub(super) fn from_column(count: i64) -> u64 {
    u64::try_from(count).unwrap_or_default()
}
