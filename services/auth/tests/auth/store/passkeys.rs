//! Passkeys.

use drystone_auth::{
    Error, authentication,
    factor::{
        Factor, FactorKind, FactorUse, MAX_FACTORS,
        passkey::{PasskeyUse, StoredPasskey},
    },
    sign_in_history::{Method, SignInRecord},
    token::passkey_challenge::PasskeyChallenge,
};
use drystone_mesh::error::Reason;

use super::{
    factors::{codes, reason},
    *,
};

impl Fixture {
    pub(super) fn passkey_challenge(&self) -> PasskeyChallenge {
        PasskeyChallenge { id: Uuid::now_v7(), expires_at: self.clock.now() + Duration::from_mins(5) }
    }

    pub(super) fn passkey(&self, user_id: Uuid) -> StoredPasskey {
        let id = Uuid::now_v7();
        StoredPasskey {
            factor: Factor {
                id,
                user_id,
                kind: FactorKind::Passkey,
                display_name: "Laptop".to_owned(),
                created_at: self.clock.now(),
                last_used_at: None,
            },
            credential_id: id.as_bytes().to_vec(),
            public_key: vec![1, 2, 3],
            sign_count: 0,
            is_backup_eligible: false,
            is_backed_up: false,
            aaguid: Uuid::now_v7(),
            transports: vec!["internal".to_owned(), "hybrid".to_owned()],
        }
    }

    async fn add_passkey(&self, user_id: Uuid) -> StoredPasskey {
        let passkey = self.passkey(user_id);
        let codes = if self.store.has_factor(user_id).await.unwrap() { Vec::new() } else { codes() };
        assert!(
            self.store
                .add_passkey(&passkey, &secret(), self.passkey_challenge(), self.clock.now(), &codes, &[])
                .await
                .unwrap()
        );
        passkey
    }

    pub(super) fn passkey_use(&self, passkey: &StoredPasskey, sign_count: u32) -> PasskeyUse {
        PasskeyUse {
            factor_id: passkey.factor.id,
            user_id: passkey.factor.user_id,
            sign_count,
            is_backed_up: false,
            method: authentication::Method::HardwareKey,
            challenge: self.passkey_challenge(),
        }
    }
}

fn secret() -> Sealed {
    Sealed { envelope: b"sealed".to_vec(), key_id: "test".to_owned() }
}

pub(super) async fn a_passkey_is_added_once_with_the_codes_of_the_first_factor(fixture: Fixture) {
    let (user, other) = (fixture.user().await.user_id, fixture.user().await.user_id);
    let (store, passkey) = (&fixture.store, fixture.passkey(user));
    let challenge = fixture.passkey_challenge();
    assert!(
        !store.add_passkey(&passkey, &secret(), challenge, fixture.clock.now(), &[], &[]).await.unwrap(),
        "the first one has backup codes"
    );
    assert!(store.add_passkey(&passkey, &secret(), challenge, fixture.clock.now(), &codes(), &[]).await.unwrap());
    assert_eq!(store.passkey(&passkey.credential_id).await.unwrap(), Some(passkey.clone()));
    assert_eq!(store.backup_codes_left(user).await.unwrap(), 10);
    assert!(store.credential(user).await.unwrap().unwrap().has_second_factor());
    assert!(
        !store
            .add_passkey(&fixture.passkey(user), &secret(), challenge, fixture.clock.now(), &codes(), &[])
            .await
            .unwrap()
    );
    let again = store.add_passkey(&fixture.passkey(user), &secret(), challenge, fixture.clock.now(), &[], &[]).await;
    assert_eq!(reason(again), Some(Reason::PasskeyInvalid), "the challenge was used");
    let copy = StoredPasskey { credential_id: passkey.credential_id.clone(), ..fixture.passkey(other) };
    let copied =
        store.add_passkey(&copy, &secret(), fixture.passkey_challenge(), fixture.clock.now(), &codes(), &[]).await;
    assert_eq!(reason(copied), Some(Reason::PasskeyRegistered));
    assert!(!store.has_factor(other).await.unwrap());
    let names = store.passkeys_of(user).await.unwrap();
    assert_eq!((names.len(), &names[0].id, &names[0].transports), (1, &passkey.credential_id, &passkey.transports));

    for _ in 1..MAX_FACTORS {
        fixture.add_passkey(user).await;
    }
    let more = store
        .add_passkey(&fixture.passkey(user), &secret(), fixture.passkey_challenge(), fixture.clock.now(), &[], &[])
        .await;
    assert_eq!(reason(more), Some(Reason::TooManyFactors));
    assert_eq!(store.users_by_factor().await.unwrap(), [(FactorKind::Totp, 0), (FactorKind::Passkey, 1)]);
    // Each is under the next master key as well, for the release before.
    assert_eq!(store.factor_secrets(Uuid::nil(), 20).await.unwrap().len(), MAX_FACTORS as usize);
}

pub(super) async fn nothing_is_added_to_an_account_that_was_taken_back_or_removed_meanwhile(fixture: Fixture) {
    let (taken_back, removed) = (fixture.user().await.user_id, fixture.user().await.user_id);
    let (store, auth_time) = (&fixture.store, fixture.clock.now());
    let later = drystone_mesh::time::to_micros(auth_time + Duration::from_secs(1));
    run!(store.db().writer(), |db| {
        let sql = "UPDATE credential SET recovered_at = $2 WHERE user_id = $1";
        sqlx::query(sql).bind(taken_back).bind(later).execute(db).await.unwrap();
    });
    store.delete_credential(removed).await.unwrap();
    for user in [taken_back, removed] {
        let (passkey, challenge) = (fixture.passkey(user), fixture.passkey_challenge());
        let added = store.add_passkey(&passkey, &secret(), challenge, auth_time, &codes(), &[]).await;
        assert_eq!(reason(added), Some(Reason::SessionEnded));
        let app = fixture.app(user);
        assert!(store.begin_factor(&app).await.unwrap());
        let confirmed = store.confirm_factor(&app.factor, Some(7), &codes(), &[], auth_time, auth_time).await;
        assert_eq!(reason(confirmed), Some(Reason::SessionEnded));
        assert!(!store.has_factor(user).await.unwrap());
    }
    let (passkey, challenge) = (fixture.passkey(taken_back), fixture.passkey_challenge());
    let since = auth_time + Duration::from_secs(2);
    assert!(store.add_passkey(&passkey, &secret(), challenge, since, &codes(), &[]).await.unwrap());
}

pub(super) async fn of_first_factors_at_once_one_has_the_codes(fixture: Fixture) {
    let user = fixture.user().await.user_id;
    let mut tries = JoinSet::new();
    for _ in 0..6 {
        let (store, passkey, challenge) = (fixture.store.clone(), fixture.passkey(user), fixture.passkey_challenge());
        let now = fixture.clock.now();
        tries
            .spawn(async move { store.add_passkey(&passkey, &secret(), challenge, now, &codes(), &[]).await.unwrap() });
    }
    assert_eq!(tries.join_all().await.into_iter().filter(|added| *added).count(), 1);
}

pub(super) async fn a_proof_is_used_up_once_and_its_counter_increases(fixture: Fixture) {
    let user = fixture.user().await.user_id;
    let (store, now) = (&fixture.store, fixture.clock.now());
    let passkey = fixture.add_passkey(user).await;
    let spend = async |proof: PasskeyUse| {
        reason(store.use_factor(user, Uuid::nil(), &FactorUse::Passkey(proof), &[], now).await)
    };
    // Without a counter, the challenge alone decides.
    let first = fixture.passkey_use(&passkey, 0);
    assert_eq!(spend(first).await, None);
    assert_eq!(spend(first).await, Some(Reason::PasskeyInvalid), "its challenge");
    assert!(store.is_passkey_challenge_used(first.challenge).await.unwrap());
    assert_eq!(spend(fixture.passkey_use(&passkey, 0)).await, None);
    assert_eq!(spend(fixture.passkey_use(&passkey, 5)).await, None);
    for count in [5, 4, 0] {
        let proof = fixture.passkey_use(&passkey, count);
        assert_eq!(spend(proof).await, Some(Reason::PasskeyInvalid), "{count}");
    }
    assert_eq!(store.passkey(&passkey.credential_id).await.unwrap().unwrap().sign_count, 5);
    // A refused proof uses up nothing.
    let late = fixture.passkey_use(&passkey, 4);
    assert_eq!(spend(late).await, Some(Reason::PasskeyInvalid));
    assert_eq!(spend(PasskeyUse { sign_count: 6, ..late }).await, None);

    let of_other = fixture.passkey_use(&fixture.add_passkey(fixture.user().await.user_id).await, 1);
    assert_eq!(spend(of_other).await, Some(Reason::PasskeyUnknown));
    let proof = fixture.passkey_use(&passkey, 7);
    let mut tries = JoinSet::new();
    for _ in 0..8 {
        let store = store.clone();
        let challenge = fixture.passkey_challenge();
        tries.spawn(async move {
            let proof = FactorUse::Passkey(PasskeyUse { challenge, ..proof });
            store.use_factor(user, Uuid::nil(), &proof, &[], now).await.is_ok()
        });
    }
    assert_eq!(tries.join_all().await.into_iter().filter(|is_ok| *is_ok).count(), 1, "one counter");
}

pub(super) async fn a_sign_in_by_passkey_is_all_or_nothing(fixture: Fixture) {
    let user = fixture.user().await;
    let store = &fixture.store;
    let passkey = fixture.add_passkey(user.user_id).await;
    let record = || SignInRecord { id: Uuid::now_v7(), method: Method::Passkey, ..fixture.sign_in(user.user_id) };
    let proof = fixture.passkey_use(&passkey, 1);
    store.sign_in_with_passkey(&proof, &record(), &[]).await.unwrap();
    assert_eq!(reason(store.sign_in_with_passkey(&proof, &record(), &[]).await), Some(Reason::PasskeyInvalid));
    let page = drystone_mesh::page::Page { size: 10, after: None };
    let stored = store.sign_ins(user.user_id, &page, fixture.clock.now() - Duration::from_mins(1)).await.unwrap();
    assert_eq!(stored.iter().map(|record| record.method).collect::<Vec<_>>(), [Method::Passkey]);

    assert!(store.remove_factors(user.user_id, Some(passkey.factor.id), &[], &[]).await.unwrap());
    let removed = store.sign_in_with_passkey(&fixture.passkey_use(&passkey, 2), &record(), &[]).await;
    assert_eq!(reason(removed), Some(Reason::PasskeyUnknown));
    assert_eq!(store.passkey(&passkey.credential_id).await.unwrap(), None);
    assert!(store.passkeys_of(user.user_id).await.unwrap().is_empty());
    // It can be registered again.
    let passkey = StoredPasskey { credential_id: passkey.credential_id, ..fixture.passkey(user.user_id) };
    assert!(
        store
            .add_passkey(&passkey, &secret(), fixture.passkey_challenge(), fixture.clock.now(), &codes(), &[])
            .await
            .unwrap()
    );
    store.delete_credential(user.user_id).await.unwrap();
    assert_eq!(store.passkey(&passkey.credential_id).await.unwrap(), None);
}

pub(super) async fn used_challenges_are_forgotten_once_they_have_expired(fixture: Fixture) {
    let user = fixture.user().await.user_id;
    let (store, now) = (&fixture.store, fixture.clock.now());
    let passkey = fixture.add_passkey(user).await;
    let proof = fixture.passkey_use(&passkey, 0);
    let spend = async || -> Result<(), Error> {
        store.use_factor(user, Uuid::nil(), &FactorUse::Passkey(proof), &[], now).await
    };
    spend().await.unwrap();
    store.forget_passkey_challenges(now + Duration::from_mins(4)).await.unwrap();
    assert_eq!(reason(spend().await), Some(Reason::PasskeyInvalid));
    store.forget_passkey_challenges(now + Duration::from_mins(6)).await.unwrap();
    spend().await.unwrap();
}
