use drystone::session::v1::{RoleTokens, UserTokens};
use proptest::prelude::*;

use super::*;
use crate::{
    time::to_proto,
    token::testing::{clock, principal},
};

const HOUR: Duration = Duration::from_hours(1);

fn session_revocation(id: Uuid, expires: Timestamp) -> Revocation {
    Revocation { scope: Some(Scope::SessionId(id.to_string())), expire_time: Some(to_proto(expires)) }
}

fn user_revocation(user: Uuid, before: Timestamp, expires: Timestamp) -> Revocation {
    let tokens = UserTokens { user_id: user.to_string(), before_time: Some(to_proto(before)) };
    Revocation { scope: Some(Scope::UserTokens(tokens)), expire_time: Some(to_proto(expires)) }
}

#[test]
fn only_revoked_tokens_are_rejected() {
    let (clock, view) = (clock(), RevocationView::new(clock()));
    let now = clock.now();
    let (session_ended, user_revoked, other) = (principal(now), principal(now), principal(now));
    view.apply(&[
        session_revocation(session_ended.session_id, now + HOUR),
        user_revocation(user_revoked.user_id, now, now + HOUR),
    ]);
    assert!(view.is_revoked(&session_ended) && view.is_revoked(&user_revoked) && !view.is_revoked(&other));
    assert_eq!(view.len(), 2);
}

#[test]
fn duplicate_revocations_merge_to_the_latest() {
    let (clock, view) = (clock(), RevocationView::new(clock()));
    let now = clock.now();
    let user = principal(now);
    view.apply(&[user_revocation(user.user_id, now, now + 2 * HOUR)]);
    view.apply(&[user_revocation(user.user_id, now - HOUR, now + HOUR)]);
    assert_eq!(view.len(), 1);
    assert!(view.is_revoked(&user));
}

#[test]
fn a_clock_that_jumps_forward_and_back_makes_nothing_forgotten() {
    let clock = clock();
    let view = RevocationView::new(clock.clone());
    let (before, user) = (principal(clock.now()), principal(clock.now()));
    view.apply(&[
        session_revocation(before.session_id, clock.now() + HOUR),
        user_revocation(user.user_id, clock.now(), clock.now() + HOUR),
    ]);
    clock.set_by(TimeDelta::hours(2));
    for _ in 0..3 {
        clock.advance(Duration::from_mins(2));
        view.apply(&[]);
    }
    clock.set_by(-TimeDelta::hours(2));
    assert!(view.is_revoked(&before) && view.is_revoked(&user));
    // They are removed after as much time as without the jump.
    clock.advance(HOUR);
    view.apply(&[]);
    assert!(view.is_empty());
}

#[test]
fn only_expired_revocations_are_removed() {
    let clock = clock();
    let view = RevocationView::new(clock.clone());
    let (soon, late) = (principal(clock.now()), principal(clock.now()));
    view.apply(&[
        session_revocation(soon.session_id, clock.now() + HOUR),
        user_revocation(late.user_id, clock.now(), clock.now() + 2 * HOUR),
    ]);
    clock.advance(HOUR);
    view.apply(&[]);
    assert_eq!(view.len(), 2, "kept a little longer than the tokens");
    clock.advance(Duration::from_mins(2));
    view.apply(&[]);
    assert_eq!(view.len(), 1);
    assert!(view.is_revoked(&late) && !view.is_revoked(&soon));
    clock.advance(HOUR);
    view.apply(&[]);
    assert!(view.is_empty() && !view.is_revoked(&late));
}

#[test]
fn invalid_revocations_are_ignored_and_the_rest_applied() {
    let (clock, view) = (clock(), RevocationView::new(clock()));
    let now = clock.now();
    let token = principal(now);
    let no_end = Revocation { scope: Some(Scope::SessionId(token.session_id.to_string())), expire_time: None };
    let no_id = Revocation { scope: Some(Scope::SessionId("x".to_owned())), expire_time: None };
    let no_user = Revocation { scope: Some(Scope::UserTokens(UserTokens::default())), expire_time: None };
    view.apply(&[no_id, no_user, no_end]);
    assert!(view.is_revoked(&token));
    assert_eq!(view.len(), 1);
}

fn role_revocation(role: &str, before: Timestamp, expires: Timestamp) -> Revocation {
    let tokens = RoleTokens { role: role.to_owned(), before_time: Some(to_proto(before)) };
    Revocation { scope: Some(Scope::RoleTokens(tokens)), expire_time: Some(to_proto(expires)) }
}

#[test]
fn a_revoked_role_revokes_the_earlier_tokens_of_all_who_have_it() {
    let clock = clock();
    let view = RevocationView::new(clock.clone());
    let now = clock.now();
    let with = |roles: &[&str], issued_at| Principal {
        roles: roles.iter().map(|&role| role.to_owned()).collect(),
        ..principal(issued_at)
    };
    view.apply(&[role_revocation("manager", now - HOUR, now + HOUR), role_revocation("manager", now, now + HOUR)]);
    assert_eq!(view.len(), 1);
    assert!(view.is_revoked(&with(&["member", "manager"], now)));
    assert!(!view.is_revoked(&with(&["manager"], now + TimeDelta::milliseconds(1))));
    assert!(!view.is_revoked(&with(&["member", "managers"], now)));
    assert!(!view.is_revoked(&with(&[], now)));
    clock.advance(HOUR + Duration::from_mins(2));
    view.apply(&[]);
    assert!(view.is_empty());
}

#[test]
fn a_revocation_of_an_unknown_kind_revokes_every_earlier_token() {
    let clock = clock();
    let view = RevocationView::new(clock.clone());
    let now = clock.now();
    view.apply(&[Revocation { scope: None, expire_time: Some(to_proto(now + HOUR)) }]);
    assert_eq!(view.len(), 1);
    assert!(view.is_revoked(&principal(now)) && view.is_revoked(&principal(now - HOUR)));
    assert!(!view.is_revoked(&principal(now + TimeDelta::milliseconds(1))));
    clock.advance(HOUR + Duration::from_mins(2));
    view.apply(&[]);
    assert!(view.is_empty());
}

#[test]
fn the_revocation_of_a_key_revokes_all_its_tokens_for_as_long_as_the_process_runs() {
    let clock = clock();
    let view = RevocationView::new(clock.clone());
    let now = clock.now();
    let of_key = |key_id: &str, issued_at| Principal { key_id: key_id.into(), ..principal(issued_at) };
    let scope = Some(Scope::KeyId("key-1".to_owned()));
    view.apply(&[Revocation { scope, expire_time: Some(to_proto(now + HOUR)) }]);
    assert!(view.is_empty() && view.withdrawn_keys().len() == 1);
    assert!(view.is_revoked(&of_key("key-1", now)) && view.is_revoked(&of_key("key-1", now + HOUR)));
    assert!(!view.is_revoked(&of_key("key-2", now)));
    clock.advance(Duration::from_hours(24 * 60));
    view.apply(&[]);
    assert!(view.is_revoked(&of_key("key-1", clock.now())));
}

#[test]
fn a_view_is_fresh_for_ten_seconds_after_each_update() {
    let view = RevocationView::new(clock());
    assert!(!view.is_fresh() && view.last_update().is_none());
    view.apply(&[]);
    let updated = view.last_update().unwrap();
    assert!(view.is_fresh_at(updated) && view.is_fresh_at(updated + Duration::from_millis(9_999)));
    assert!(!view.is_fresh_at(updated + STALE_AFTER));
}

#[test]
fn a_view_is_loaded_by_the_first_message_after_which_none_is_pending() {
    let (clock, view) = (clock(), RevocationView::new(clock()));
    let now = clock.now();
    let revocations: Vec<_> =
        (0..MAX_REVOCATIONS).map(|_| session_revocation(principal(now).session_id, now + HOUR)).collect();
    view.apply(&revocations);
    assert!(view.last_update().is_none() && view.len() == revocations.len());
    view.apply(&revocations[1..]);
    assert!(view.is_fresh());
}

#[test]
fn calls_that_last_are_notified_of_a_revocation_once() {
    let (clock, view) = (clock(), RevocationView::new(clock()));
    let (now, user) = (clock.now(), principal(clock.now()));
    let mut changes = view.changes();
    let key = Revocation { scope: Some(Scope::KeyId("key-1".to_owned())), expire_time: None };
    let all = [
        session_revocation(user.session_id, now + HOUR),
        user_revocation(user.user_id, now, now + HOUR),
        role_revocation("manager", now, now + HOUR),
        key,
    ];
    for revocation in all {
        view.apply(std::slice::from_ref(&revocation));
        assert!(changes.has_changed().unwrap());
        changes.mark_unchanged();
        view.apply(&[revocation]);
        view.apply(&[]);
        assert!(!changes.has_changed().unwrap());
    }
    view.apply(&[user_revocation(user.user_id, now + TimeDelta::seconds(1), now + HOUR)]);
    assert!(changes.has_changed().unwrap(), "of later tokens as well");
}

#[test]
fn concurrent_threads_see_their_own_revocations() {
    let view = RevocationView::new(clock());
    let now = clock().now();
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..500 {
                    let user = principal(now);
                    assert!(!view.is_revoked(&user));
                    view.apply(&[session_revocation(user.session_id, now + HOUR)]);
                    assert!(view.is_revoked(&user));
                }
            });
        }
    });
    assert_eq!(view.len(), 2000);
}

proptest! {
    /// The view gives the same results as a list of all revocations.
    #[test]
    fn the_view_is_equivalent_to_a_list(
        events in prop::collection::vec((0_usize..4, prop::option::of(-60_i64..60)), 0..40),
        queries in prop::collection::vec((0_usize..4, -60_i64..60), 0..20),
    ) {
        let now = clock().now();
        let users: Vec<_> = (0..4).map(|_| principal(now)).collect();
        let view = RevocationView::new(clock());
        for (who, before) in &events {
            view.apply(&[match before {
                None => session_revocation(users[*who].session_id, now + HOUR),
                Some(seconds) => user_revocation(users[*who].user_id, now + TimeDelta::seconds(*seconds), now + HOUR),
            }]);
        }
        for (who, issued) in queries {
            let mut token = users[who].clone();
            token.issued_at = now + TimeDelta::seconds(issued);
            let expected = events.iter().any(|(of, before)| *of == who && before.is_none_or(|before| issued <= before));
            prop_assert_eq!(view.is_revoked(&token), expected);
        }
    }
}
