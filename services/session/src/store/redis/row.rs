//! What Redis answers, and what it means.

use drystone_mesh::{
    clock::Timestamp,
    time::{from_micros, to_micros},
};
use drystone_store::redis::FromRedisValue;
use redis::{from_redis_value, streams::StreamId};
use uuid::Uuid;

use crate::{
    revocation::{Revocation, Scope},
    session::Session,
    store::StoreError,
};

/// A session as Redis keeps it: the fields of `scripts/fields.lua`.
pub(super) type Row = (String, String, String, i64, i64, i64, i64, u64);

/// What the outbox holds: sessions, and when the revocation of each can be forgotten.
pub(super) type Outbox = Vec<(String, i64)>;

pub(super) fn session(id: Uuid, row: Row) -> Result<Session, StoreError> {
    let (user_id, device, address, created, seen, idle, end, counter) = row;
    Ok(Session {
        id,
        user_id: uuid(&user_id)?,
        device,
        address,
        created_at: from_micros(created),
        last_seen_at: from_micros(seen),
        idle_expires_at: from_micros(idle),
        expires_at: from_micros(end),
        counter,
    })
}

pub(super) fn revocation(entry: &StreamId) -> Result<Revocation, StoreError> {
    let seq = seq(&entry.id)?;
    let scope = match (field(entry, "session")?, field(entry, "user")?, field(entry, "until")?) {
        (Some(id), None, None) => Scope::Session(uuid::<String>(id)?),
        (None, Some(user), Some(until)) => {
            Scope::UserTokens { user_id: uuid::<String>(user)?, void_until: from_micros(until) }
        }
        _ => return Err(StoreError::Unreadable("a revocation of no known kind")),
    };
    let forget_at = field(entry, "forget")?.ok_or(StoreError::Unreadable("a revocation without an end"))?;
    Ok(Revocation { seq, scope, forget_at: from_micros(forget_at) })
}

fn field<T: FromRedisValue>(entry: &StreamId, name: &str) -> Result<Option<T>, StoreError> {
    let value = entry.map.get(name).cloned().map(from_redis_value).transpose();
    value.map_err(|_| StoreError::Unreadable("a revocation with a field that is none"))
}

pub(super) fn uuid<T: AsRef<str>>(text: T) -> Result<Uuid, StoreError> {
    Uuid::try_parse(text.as_ref()).map_err(|_| StoreError::Unreadable("an id that is none"))
}

/// How many of the bits of a number count the revocations of one millisecond.
const SEQUENCE_BITS: u32 = 20;
const SEQUENCE: u64 = (1 << SEQUENCE_BITS) - 1;

/// The number of the entry at this place, `MILLISECONDS-COUNT`. It grows even over the loss of all data, so that what
/// comes after is never taken for what was before.
pub(super) fn seq(place: &str) -> Result<u64, StoreError> {
    let parse = || {
        let (milliseconds, count) = place.split_once('-')?;
        let (milliseconds, count) = (milliseconds.parse::<u64>().ok()?, count.parse::<u64>().ok()?);
        (milliseconds < 1 << (64 - SEQUENCE_BITS) && count <= SEQUENCE).then_some(milliseconds << SEQUENCE_BITS | count)
    };
    parse().ok_or(StoreError::Unreadable("a place in the stream that is none"))
}

/// The place of the entry with this number.
pub(super) fn place(seq: u64) -> String {
    format!("{}-{}", seq >> SEQUENCE_BITS, seq & SEQUENCE)
}

/// How much later, in milliseconds, as Redis takes it.
pub(super) fn milliseconds(until: Timestamp, now: Timestamp) -> i64 {
    (to_micros(until) - to_micros(now)).max(0) / 1000
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_in_the_order_of_their_places() {
        let places = ["0-1", "1-0", "1700000000000-0", "1700000000000-1", "1700000000000-1048575", "1700000000001-0"];
        let numbers: Vec<u64> = places.iter().map(|place| seq(place).unwrap()).collect();
        assert!(numbers.is_sorted_by(|one, other| one < other), "{numbers:?}");
        assert_eq!(numbers.into_iter().map(place).collect::<Vec<_>>(), places);
    }

    #[test]
    fn what_is_no_place_has_no_number() {
        for text in ["", "1", "a-1", "1-a", "1-1048576", "99999999999999999-1"] {
            assert!(seq(text).is_err(), "{text}");
        }
    }
}
