//! Second factors and challenges.

use drystone_auth::{
    Error,
    challenge::{Challenge, hash as token_hash},
    factor::{Factor, FactorKind, FactorUse, MAX_FACTORS, StoredFactor},
    sign_in_history::{Method, Outcome, SignInRecord},
};
use drystone_mesh::error::Reason;

use super::*;

impl Fixture {
    pub(super) async fn user(&self) -> Credential {
        let credential = Credential { pending_since: None, ..self.credential(None) };
        self.store.insert_credential(&credential).await.unwrap();
        credential
    }

    pub(super) fn app(&self, user_id: Uuid) -> StoredFactor {
        let factor = Factor {
            kind: FactorKind::Totp,
            id: Uuid::now_v7(),
            user_id,
            display_name: "Phone".to_owned(),
            created_at: self.clock.now(),
            last_used_at: None,
        };
        StoredFactor { factor, secret: Sealed { envelope: b"sealed".to_vec(), key_id: "test".to_owned() } }
    }

    /// Adds an app and ten backup codes.
    pub(super) async fn add_app(&self, user_id: Uuid) -> StoredFactor {
        let app = self.app(user_id);
        assert!(self.store.begin_factor(&app).await.unwrap());
        let now = self.clock.now();
        let codes = if self.store.has_factor(user_id).await.unwrap() { Vec::new() } else { codes() };
        assert!(self.store.confirm_factor(&app.factor, Some(1), &codes, &[], now, now).await.unwrap());
        StoredFactor { factor: Factor { last_used_at: Some(now), ..app.factor }, ..app }
    }

    pub(super) async fn challenge(&self, credential: &Credential) -> Challenge {
        let challenge = Challenge {
            token_hash: token_hash(&Uuid::now_v7().to_string()),
            user_id: credential.user_id,
            email: "ada@example.com".to_owned(),
            device: Uuid::nil(),
            expires_at: self.clock.now() + Duration::from_mins(5),
        };
        assert!(self.store.insert_challenge(&challenge, credential).await.unwrap());
        challenge
    }

    pub(super) fn sign_in(&self, user_id: Uuid) -> SignInRecord {
        SignInRecord {
            id: Uuid::now_v7(),
            user_id,
            at: self.clock.now(),
            method: Method::PasswordAndTotp,
            outcome: Outcome::Succeeded,
            address: String::new(),
            device: String::new(),
            is_new_device: false,
            session_id: Some(Uuid::now_v7()),
        }
    }
}

pub(super) fn codes() -> Vec<PasswordHash> {
    (0..10_u8).map(|number| hash(&format!("{}A", char::from(b'A' + number).to_string().repeat(42)))).collect()
}

pub(super) fn reason<T>(result: Result<T, Error>) -> Option<Reason> {
    result.err().map(|error| error.reason())
}

pub(super) async fn an_app_counts_once_it_is_confirmed(fixture: Fixture) {
    let user = fixture.user().await;
    let (store, now, id) = (&fixture.store, fixture.clock.now(), user.user_id);
    let (first, second) = (fixture.app(id), fixture.app(id));
    assert!(store.begin_factor(&first).await.unwrap() && store.begin_factor(&second).await.unwrap());
    assert_eq!(store.begun_factor(id, first.factor.id, now).await.unwrap(), None, "replaced");
    assert_eq!(store.begun_factor(Uuid::now_v7(), second.factor.id, now).await.unwrap(), None, "of another user");
    assert_eq!(store.begun_factor(id, second.factor.id, now + Duration::from_mins(15)).await.unwrap(), None);
    assert_eq!(store.begun_factor(id, second.factor.id, now).await.unwrap(), Some(second.clone()));
    assert!(!store.has_factor(id).await.unwrap());
    assert!(!store.credential(id).await.unwrap().unwrap().has_second_factor());

    assert!(
        !store.confirm_factor(&second.factor, Some(7), &[], &[], now, now).await.unwrap(),
        "the first one has backup codes"
    );
    assert!(store.confirm_factor(&second.factor, Some(7), &codes(), &[], now, now).await.unwrap());
    assert_eq!(
        reason(store.confirm_factor(&second.factor, Some(7), &[], &[], now, now).await),
        Some(Reason::FactorNotFound)
    );
    let third = fixture.app(id);
    store.begin_factor(&third).await.unwrap();
    assert!(
        !store.confirm_factor(&third.factor, Some(7), &codes(), &[], now, now).await.unwrap(),
        "further ones have none"
    );
    assert!(store.credential(id).await.unwrap().unwrap().has_second_factor());
    let confirmed = StoredFactor { factor: Factor { last_used_at: Some(now), ..second.factor }, ..second };
    assert_eq!(store.confirmed_factors(id).await.unwrap(), [confirmed]);
    assert_eq!(store.backup_codes_left(id).await.unwrap(), 10);
    for _ in 1..MAX_FACTORS {
        fixture.add_app(id).await;
    }
    assert!(!store.begin_factor(&fixture.app(id)).await.unwrap());
}

pub(super) async fn a_code_is_used_up_once(fixture: Fixture) {
    let user = fixture.user().await;
    let (store, now, id) = (fixture.store.clone(), fixture.clock.now(), user.user_id);
    let app = fixture.add_app(id).await.factor.id;
    let totp = FactorUse::Totp { factor_id: app, step: 2 };
    let backup = FactorUse::Backup { number: 3, hash: codes()[3].clone() };
    for spent in [totp, backup.clone()] {
        let mut tries = JoinSet::new();
        for _ in 0..8 {
            let (store, spent) = (store.clone(), spent.clone());
            tries.spawn(async move { store.use_factor(id, Uuid::nil(), &spent, &[], now).await.is_ok() });
        }
        let successes = tries.join_all().await.into_iter().filter(|is_ok| *is_ok).count();
        assert_eq!(successes, 1, "{spent:?}");
    }
    let refused = [
        FactorUse::Totp { factor_id: app, step: 1 },
        FactorUse::Totp { factor_id: Uuid::now_v7(), step: 3 },
        FactorUse::Backup { number: 4, hash: codes()[5].clone() },
    ];
    for spent in refused {
        let outcome = store.use_factor(id, Uuid::nil(), &spent, &[], now).await;
        assert_eq!(reason(outcome), Some(Reason::CodeInvalid), "{spent:?}");
    }
    let other = fixture.user().await.user_id;
    let stolen = FactorUse::Totp { factor_id: app, step: 9 };
    assert_eq!(reason(store.use_factor(other, Uuid::nil(), &stolen, &[], now).await), Some(Reason::CodeInvalid));
    assert_eq!(store.backup_code(id, 3).await.unwrap(), None);
    assert_eq!(store.backup_code(id, 4).await.unwrap(), Some(codes()[4].clone()));
    store.replace_backup_codes(id, &codes(), &[], now).await.unwrap();
    assert_eq!(store.backup_codes_left(id).await.unwrap(), 10);
    store.use_factor(id, Uuid::nil(), &backup, &[], now).await.unwrap();
    assert_eq!(reason(store.replace_backup_codes(other, &codes(), &[], now).await), Some(Reason::NoSecondFactor));
}

pub(super) async fn concurrent_tries_are_all_counted(fixture: Fixture) {
    let (store, now, user) = (fixture.store.clone(), fixture.clock.now(), Uuid::now_v7());
    let mut tries = JoinSet::new();
    for _ in 0..12 {
        let store = store.clone();
        tries.spawn(async move { store.count_try(user, Uuid::nil(), now).await.is_ok() });
    }
    let counted = tries.join_all().await.into_iter().filter(|is_ok| *is_ok).count();
    assert_eq!(counted, 5, "the fifth is followed by a wait");
    assert_eq!(reason(store.count_try(user, Uuid::nil(), now).await), Some(Reason::RateLimited));
    store.count_try(user, Uuid::now_v7(), now).await.expect("of another origin");
    store.count_try(user, Uuid::nil(), now + Duration::from_mins(1)).await.unwrap();
    assert_eq!(
        reason(store.count_try(user, Uuid::nil(), now + Duration::from_mins(2)).await),
        Some(Reason::RateLimited)
    );
}

pub(super) async fn a_challenge_is_completed_once_and_all_or_nothing(fixture: Fixture) {
    let user = fixture.user().await;
    let (store, now, id) = (fixture.store.clone(), fixture.clock.now(), user.user_id);
    let app = fixture.add_app(id).await.factor.id;
    let user = store.credential(id).await.unwrap().unwrap();
    let challenge = fixture.challenge(&user).await;
    assert_eq!(store.challenge(challenge.token_hash, now).await.unwrap(), Some(challenge.clone()));
    assert_eq!(store.challenge(challenge.token_hash, challenge.expires_at).await.unwrap(), None);
    let spent = FactorUse::Totp { factor_id: app, step: 1 };
    let complete = async |spent: &FactorUse, credential: &Credential| {
        store.complete_challenge(&challenge, spent, &fixture.sign_in(id), credential, None, &[]).await
    };
    assert_eq!(reason(complete(&spent, &user).await), Some(Reason::CodeInvalid));
    let spent = FactorUse::Totp { factor_id: app, step: 2 };
    let changed = Credential { password_hash: codes()[2].clone(), ..user.clone() };
    assert_eq!(reason(complete(&spent, &changed).await), Some(Reason::ChallengeInvalid), "the password is another one");
    assert!(!store.has_signed_in(id).await.unwrap());
    complete(&spent, &user).await.unwrap();
    assert!(store.has_signed_in(id).await.unwrap());
    assert_eq!(
        reason(complete(&FactorUse::Totp { factor_id: app, step: 3 }, &user).await),
        Some(Reason::ChallengeInvalid)
    );

    let other = Credential { password_hash: codes()[1].clone(), ..user.clone() };
    let unverified = Challenge { token_hash: token_hash("unverified"), ..challenge.clone() };
    assert!(!store.insert_challenge(&unverified, &other).await.unwrap());
    let tried = fixture.challenge(&user).await;
    for _ in 0..5 {
        store.try_challenge(&tried).await.unwrap();
    }
    assert_eq!(reason(store.try_challenge(&tried).await), Some(Reason::ChallengeInvalid));
    assert_eq!(store.challenge(tried.token_hash, now).await.unwrap(), None);
    store.forget_challenges(tried.expires_at + Duration::from_secs(1)).await.unwrap();
}

pub(super) async fn a_sign_in_without_a_second_factor_is_stored_only_while_there_is_none(fixture: Fixture) {
    let user = fixture.user().await;
    let (store, id) = (fixture.store.clone(), user.user_id);
    assert!(store.insert_success(&fixture.sign_in(id), &user, &[]).await.unwrap());
    fixture.add_app(id).await;
    assert!(!store.insert_success(&fixture.sign_in(id), &user, &[]).await.unwrap());
}

pub(super) async fn with_the_last_app_everything_goes(fixture: Fixture) {
    let user = fixture.user().await;
    let (store, id) = (fixture.store.clone(), user.user_id);
    let (first, second) = (fixture.add_app(id).await, fixture.add_app(id).await);
    let user = store.credential(id).await.unwrap().unwrap();
    let challenge = fixture.challenge(&user).await;
    assert!(store.remove_factors(id, Some(first.factor.id), &[], &[]).await.unwrap());
    assert!(!store.remove_factors(id, Some(first.factor.id), &[], &[]).await.unwrap());
    assert_eq!(store.backup_codes_left(id).await.unwrap(), 10);
    assert!(!store.remove_factors(id, Some(Uuid::nil()), &[], &[]).await.unwrap());
    assert!(!store.remove_factors(Uuid::now_v7(), Some(second.factor.id), &[], &[]).await.unwrap());
    assert!(store.remove_factors(id, Some(second.factor.id), &[], &[]).await.unwrap());
    assert_eq!(store.backup_codes_left(id).await.unwrap(), 0);
    assert_eq!(store.challenge(challenge.token_hash, fixture.clock.now()).await.unwrap(), None);

    fixture.add_app(id).await;
    fixture.add_app(id).await;
    assert!(store.remove_factors(id, None, &[], &[]).await.unwrap());
    assert!(!store.has_factor(id).await.unwrap());
    fixture.add_app(id).await;
    store.delete_credential(id).await.unwrap();
    assert!(!store.has_factor(id).await.unwrap(), "the user was removed");
}

pub(super) async fn what_is_over_is_forgotten_in_batches(fixture: Fixture) {
    let user = fixture.user().await;
    let (store, now, id) = (fixture.store.clone(), fixture.clock.now(), user.user_id);
    let app = fixture.add_app(id).await.factor;
    for step in 2..700 {
        store.use_factor(id, Uuid::nil(), &FactorUse::Totp { factor_id: app.id, step }, &[], now).await.unwrap();
    }
    let current = FactorUse::Totp { factor_id: app.id, step: drystone_auth::factor::totp::step_at(now) };
    store.use_factor(id, Uuid::nil(), &current, &[], now).await.unwrap();
    store.count_try(id, Uuid::nil(), now).await.unwrap();
    let begun = fixture.app(id);
    store.begin_factor(&begun).await.unwrap();
    store.forget_factors(now + Duration::from_mins(16)).await.unwrap();
    assert_eq!(store.begun_factor(id, begun.factor.id, now).await.unwrap(), None);
    let count = async |sql: &'static str| {
        run!(store.db().reader(), |db| sqlx::query_scalar::<_, i64>(sql).fetch_one(db).await.unwrap())
    };
    assert_eq!(count("SELECT COUNT(*) FROM totp_use").await, 1, "the code of now");
    assert_eq!(count("SELECT COUNT(*) FROM factor_attempt").await, 1);
    store.forget_factors(now + Duration::from_hours(25)).await.unwrap();
    assert_eq!(count("SELECT COUNT(*) FROM totp_use").await, 0);
    assert_eq!(count("SELECT COUNT(*) FROM factor_attempt").await, 0);
    assert!(store.has_factor(id).await.unwrap());
}

pub(super) async fn secrets_are_read_in_batches_and_replaced(fixture: Fixture) {
    let user = fixture.user().await.user_id;
    let mut ids = Vec::new();
    for _ in 0..3 {
        ids.push(fixture.add_app(user).await.factor.id);
    }
    let store = &fixture.store;
    let (first, second) =
        (store.factor_secrets(Uuid::nil(), 2).await.unwrap(), store.factor_secrets(ids[1], 2).await.unwrap());
    let found: Vec<Uuid> = first.iter().chain(&second).map(|(id, _)| *id).collect();
    assert_eq!(found, ids);
    let (old, new) = (&first[0].1, Sealed { envelope: b"again".to_vec(), key_id: "next".to_owned() });
    assert!(store.replace_factor_envelope(ids[0], old, &new).await.unwrap());
    assert!(!store.replace_factor_envelope(ids[0], old, &new).await.unwrap());
    assert_eq!(store.confirmed_factors(user).await.unwrap()[0].secret, new);
}
