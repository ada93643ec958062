//! Decodes the replies of Redis.

use std::str::FromStr;

use drystone_mesh::{
    clock::Timestamp,
    time::{from_micros, to_micros},
};
use drystone_store::redis::FromRedisValue;
use redis::{from_redis_value, streams::StreamId};
use uuid::Uuid;

use crate::{
    authentication::Authentication,
    revocation::{Holder, Revocation, Scope},
    session::Session,
    store::StoreError,
};

/// The fields of a session, in the order of `scripts/fields.lua`. Sessions of a former release have the first eight.
pub(super) type SessionFields = Vec<Option<String>>;

/// The entries of an outbox: the id of each session, and when its revocation can be deleted, in microseconds.
pub(super) type Outbox = Vec<(String, i64)>;

pub(super) fn session(id: Uuid, fields: SessionFields) -> Result<Session, StoreError> {
    let mut fields = fields.into_iter();
    let mut next = || fields.next().flatten();
    let missing = StoreError::Unreadable("a session without all its fields");
    let (Some(user_id), Some(device), Some(address)) = (next(), next(), next()) else { return Err(missing) };
    let (created, seen, idle, end) = (number(next())?, number(next())?, number(next())?, number(next())?);
    let (Some(created), Some(seen), Some(idle), Some(end)) = (created, seen, idle, end) else { return Err(missing) };
    let Some(counter) = number::<u64>(next())? else { return Err(missing) };
    let created_at = from_micros(created);
    Ok(Session {
        id,
        user_id: uuid(&user_id)?,
        created_at,
        last_seen_at: from_micros(seen),
        idle_expires_at: from_micros(idle),
        expires_at: from_micros(end),
        counter,
        confirmed: number(next())?.unwrap_or(counter.saturating_sub(1)),
        repeats: number(next())?.unwrap_or_default(),
        replacements: number(next())?.unwrap_or_default(),
        repeated_rotations: number(next())?.unwrap_or_default(),
        last_device: next().unwrap_or_else(|| device.clone()),
        last_address: next().unwrap_or_else(|| address.clone()),
        authentication: Authentication::from_text(&next().unwrap_or_default(), created_at),
        device,
        address,
    })
}

/// The authentication as it is stored; empty in a session of a former release.
pub(super) fn authentication(fields: &SessionFields) -> &str {
    fields.get(14).and_then(Option::as_deref).unwrap_or_default()
}

fn number<T: FromStr>(field: Option<String>) -> Result<Option<T>, StoreError> {
    let number = field.map(|text| text.parse()).transpose();
    number.map_err(|_| StoreError::Unreadable("a session with an invalid number"))
}

pub(super) fn revocation(entry: &StreamId) -> Result<Revocation, StoreError> {
    let seq = seq(&entry.id)?;
    let scope = match (field(entry, "session")?, field(entry, "user")?, field(entry, "until")?, field(entry, "key")?) {
        (Some(id), None, None, None) => Scope::Session(uuid::<String>(id)?),
        (None, Some(_), Some(_), Some(key_id)) => Scope::Key(key_id),
        (None, Some(user), Some(until), None) => {
            let of = Holder::from_columns(uuid::<String>(user)?, field(entry, "role")?);
            Scope::Tokens { of, void_until: from_micros(until) }
        }
        _ => return Err(StoreError::Unreadable("a revocation with an unknown scope")),
    };
    let forget_at = field(entry, "forget")?.ok_or(StoreError::Unreadable("a revocation without an expiry"))?;
    Ok(Revocation { seq, scope, forget_at: from_micros(forget_at) })
}

fn field<T: FromRedisValue>(entry: &StreamId, name: &str) -> Result<Option<T>, StoreError> {
    let value = entry.map.get(name).cloned().map(from_redis_value).transpose();
    value.map_err(|_| StoreError::Unreadable("a revocation with an invalid field"))
}

pub(super) fn uuid<T: AsRef<str>>(text: T) -> Result<Uuid, StoreError> {
    Uuid::try_parse(text.as_ref()).map_err(|_| StoreError::Unreadable("an invalid id"))
}

/// How many bits of a sequence number count the entries of one millisecond.
const COUNTER_BITS: u32 = 20;
const COUNTER_MASK: u64 = (1 << COUNTER_BITS) - 1;

/// The sequence number of the entry with this stream id, `MILLISECONDS-COUNT`. It grows even after the loss of all
/// data, so that no number is used twice.
pub(super) fn seq(stream_id: &str) -> Result<u64, StoreError> {
    let parse = || {
        let (milliseconds, count) = stream_id.split_once('-')?;
        let (milliseconds, count) = (milliseconds.parse::<u64>().ok()?, count.parse::<u64>().ok()?);
        (milliseconds < 1 << (64 - COUNTER_BITS) && count <= COUNTER_MASK)
            .then_some(milliseconds << COUNTER_BITS | count)
    };
    parse().ok_or(StoreError::Unreadable("an invalid stream id"))
}

/// The stream id of the entry with this sequence number.
pub(super) fn stream_id(seq: u64) -> String {
    format!("{}-{}", seq >> COUNTER_BITS, seq & COUNTER_MASK)
}

/// The time left until `until`, in milliseconds; at least 0.
pub(super) fn milliseconds(until: Timestamp, now: Timestamp) -> i64 {
    (to_micros(until) - to_micros(now)).max(0) / 1000
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sequence_numbers_are_in_the_order_of_their_stream_ids() {
        let stream_ids =
            ["0-1", "1-0", "1700000000000-0", "1700000000000-1", "1700000000000-1048575", "1700000000001-0"];
        let seqs: Vec<u64> = stream_ids.iter().map(|stream_id| seq(stream_id).unwrap()).collect();
        assert!(seqs.is_sorted_by(|one, other| one < other), "{seqs:?}");
        assert_eq!(seqs.into_iter().map(stream_id).collect::<Vec<_>>(), stream_ids);
    }

    #[test]
    fn an_invalid_stream_id_is_rejected() {
        for text in ["", "1", "a-1", "1-a", "1-1048576", "99999999999999999-1"] {
            assert!(seq(text).is_err(), "{text}");
        }
    }
}
