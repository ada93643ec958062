//! Trusted devices.

use drystone_auth::{
    Error,
    challenge::{Challenge, hash as token_hash},
    factor::FactorUse,
    store::NewPassword,
    trusted_device::{MAX_TRUSTED_DEVICES, Trust, TrustedDevice},
};
use drystone_mesh::{clock::Timestamp, error::Reason};

use super::{
    factors::{codes, reason},
    *,
};

const DAY: Duration = Duration::from_hours(24);

impl Fixture {
    /// A user with an authenticator app, and its id.
    async fn user_with_app(&self) -> (Credential, Uuid) {
        let id = self.user().await.user_id;
        let app = self.add_app(id).await.factor.id;
        (self.store.credential(id).await.unwrap().unwrap(), app)
    }

    fn device(&self, user_id: Uuid) -> TrustedDevice {
        let now = self.clock.now();
        TrustedDevice {
            id: Uuid::now_v7(),
            user_id,
            name: "Firefox".to_owned(),
            created_at: now,
            expires_at: now + DAY,
            last_used_at: None,
        }
    }

    /// Completes a sign-in with the code of this step, and trusts this device.
    async fn trust(&self, (user, app): &(Credential, Uuid), step: i64, device: &TrustedDevice) -> Result<(), Error> {
        let challenge = self.challenge(user).await;
        let spent = FactorUse::Totp { factor_id: *app, step };
        let record = self.sign_in(user.user_id);
        self.store.complete_challenge(&challenge, &spent, &record, user, Some(device), &[]).await
    }
}

/// What a sign-in relies on, if devices are trusted for a day.
fn trust_in(device: &TrustedDevice, now: Timestamp) -> Trust {
    Trust { device: device.id, since: now - DAY }
}

pub(super) async fn a_device_is_trusted_by_a_completed_sign_in(fixture: Fixture) {
    let (store, now) = (&fixture.store, fixture.clock.now());
    let user = fixture.user_with_app().await;
    let (id, device) = (user.0.user_id, fixture.device(user.0.user_id));
    let trust = trust_in(&device, now);
    assert_eq!(reason(fixture.trust(&user, 1, &device).await), Some(Reason::CodeInvalid));
    assert!(!store.is_trusted(id, trust, now).await.unwrap(), "all or nothing");
    fixture.trust(&user, 2, &device).await.unwrap();
    assert!(store.is_trusted(id, trust, now).await.unwrap());
    assert!(!store.is_trusted(Uuid::now_v7(), trust, now).await.unwrap(), "of another user");
    assert!(!store.is_trusted(id, Trust { device: Uuid::now_v7(), ..trust }, now).await.unwrap());
    assert!(!store.is_trusted(id, Trust { since: now, ..trust }, now).await.unwrap(), "the time is shorter now");
    assert!(!store.is_trusted(id, trust, device.expires_at).await.unwrap());
    assert_eq!(store.trusted_devices(id, trust.since, now).await.unwrap(), std::slice::from_ref(&device));
    assert_eq!(store.trusted_devices(id, now, now).await.unwrap(), []);
    assert_eq!(store.trusted_devices(id, trust.since, device.expires_at).await.unwrap(), []);
    assert!(!store.revoke_trusted_device(Uuid::now_v7(), device.id).await.unwrap());
    assert!(store.revoke_trusted_device(id, device.id).await.unwrap());
    assert!(!store.is_trusted(id, trust, now).await.unwrap());
}

pub(super) async fn a_sign_in_on_a_trusted_device_is_stored_only_while_it_is_trusted(fixture: Fixture) {
    let (store, now) = (fixture.store.clone(), fixture.clock.now());
    let user = fixture.user_with_app().await;
    let id = user.0.user_id;
    for round in 0..8 {
        let device = fixture.device(id);
        let trust = trust_in(&device, now);
        fixture.trust(&user, 2 + round, &device).await.unwrap();
        assert!(store.insert_trusted_success(&fixture.sign_in(id), &user.0, trust).await.unwrap());
        let stored = store.trusted_devices(id, trust.since, now).await.unwrap().remove(0);
        assert_eq!(stored, TrustedDevice { last_used_at: Some(now), ..device });
        let changed = Credential { password_hash: codes()[1].clone(), ..user.0.clone() };
        assert!(!store.insert_trusted_success(&fixture.sign_in(id), &changed, trust).await.unwrap());

        let mut sign_ins = JoinSet::new();
        for _ in 0..6 {
            let (store, record, credential) = (store.clone(), fixture.sign_in(id), user.0.clone());
            sign_ins.spawn(async move { store.insert_trusted_success(&record, &credential, trust).await.unwrap() });
        }
        assert_eq!(store.revoke_trusted_devices(id).await.unwrap(), 1);
        assert!(!store.insert_trusted_success(&fixture.sign_in(id), &user.0, trust).await.unwrap());
        sign_ins.join_all().await;
    }
    let device = fixture.device(id);
    let trust = trust_in(&device, now);
    fixture.trust(&user, 20, &device).await.unwrap();
    fixture.clock.advance(DAY);
    assert!(!store.insert_trusted_success(&fixture.sign_in(id), &user.0, trust).await.unwrap(), "it has expired");
}

pub(super) async fn a_user_has_twenty_trusted_devices_also_if_they_are_added_at_once(fixture: Fixture) {
    let user = fixture.user_with_app().await;
    let (store, id) = (fixture.store.clone(), user.0.user_id);
    let mut devices = Vec::new();
    for step in 0..i64::from(MAX_TRUSTED_DEVICES) {
        fixture.clock.advance(Duration::from_secs(1));
        devices.push(fixture.device(id));
        fixture.trust(&user, 2 + step, &devices[devices.len() - 1]).await.unwrap();
    }
    let other = fixture.user_with_app().await;
    fixture.trust(&other, 2, &fixture.device(other.0.user_id)).await.unwrap();
    fixture.clock.advance(Duration::from_secs(1));
    let (now, newest) = (fixture.clock.now(), fixture.device(id));
    let mut sign_ins = JoinSet::new();
    for step in 0..4 {
        let challenge = fixture.challenge(&user.0).await;
        let spent = FactorUse::Totp { factor_id: user.1, step: 100 + step };
        let (store, record, credential) = (store.clone(), fixture.sign_in(id), user.0.clone());
        let device = TrustedDevice { id: Uuid::now_v7(), ..newest.clone() };
        sign_ins.spawn(async move {
            store.complete_challenge(&challenge, &spent, &record, &credential, Some(&device), &[]).await.unwrap();
        });
    }
    sign_ins.join_all().await;
    let stored = store.trusted_devices(id, now - DAY, now).await.unwrap();
    assert_eq!(stored.len(), MAX_TRUSTED_DEVICES as usize);
    assert!(stored[..4].iter().all(|device| device.created_at == now));
    devices.reverse();
    assert_eq!(stored[4..], devices[..16], "the oldest were forgotten");
    assert_eq!(store.trusted_devices(other.0.user_id, now - DAY, now).await.unwrap().len(), 1);
}

pub(super) async fn a_device_that_is_trusted_anew_replaces_its_earlier_id(fixture: Fixture) {
    let (store, now) = (&fixture.store, fixture.clock.now());
    let user = fixture.user_with_app().await;
    let id = user.0.user_id;
    let (earlier, later) = (fixture.device(id), fixture.device(id));
    fixture.trust(&user, 2, &earlier).await.unwrap();
    let challenge =
        Challenge { token_hash: token_hash("on the device"), device: earlier.id, ..fixture.challenge(&user.0).await };
    assert!(store.insert_challenge(&challenge, &user.0).await.unwrap());
    let spent = FactorUse::Totp { factor_id: user.1, step: 3 };
    store.complete_challenge(&challenge, &spent, &fixture.sign_in(id), &user.0, Some(&later), &[]).await.unwrap();
    assert_eq!(store.trusted_devices(id, now - DAY, now).await.unwrap(), [later]);
}

pub(super) async fn a_new_password_ends_trust_also_if_it_is_given_at_once(fixture: Fixture) {
    let (store, now) = (fixture.store.clone(), fixture.clock.now());
    for _ in 0..8 {
        let user = fixture.user_with_app().await;
        let (id, device) = (user.0.user_id, fixture.device(user.0.user_id));
        fixture.trust(&user, 2, &fixture.device(id)).await.unwrap();
        let challenge = fixture.challenge(&user.0).await;
        let spent = FactorUse::Totp { factor_id: user.1, step: 3 };
        let (store_of_sign_in, record, credential) = (store.clone(), fixture.sign_in(id), user.0.clone());
        let sign_in = tokio::spawn(async move {
            let trusted = Some(&device);
            store_of_sign_in.complete_challenge(&challenge, &spent, &record, &credential, trusted, &[]).await.is_ok()
        });
        let new = NewPassword {
            user_id: id,
            hash: codes()[2].clone(),
            form: PasswordForm::Opaque,
            messages: Vec::new(),
            now,
        };
        assert!(store.change_password(&user.0.password_hash, &new).await.unwrap());
        sign_in.await.unwrap();
        assert_eq!(store.trusted_devices(id, now - DAY, now).await.unwrap(), []);
    }
}

pub(super) async fn trust_ends_with_the_password_the_last_factor_and_the_account(fixture: Fixture) {
    let (store, now) = (&fixture.store, fixture.clock.now());
    let user = fixture.user_with_app().await;
    let id = user.0.user_id;
    let count = async || store.trusted_devices(id, now - DAY, now).await.unwrap().len();
    fixture.trust(&user, 2, &fixture.device(id)).await.unwrap();
    let second = fixture.add_app(id).await.factor.id;
    assert!(store.remove_factors(id, Some(second), &[], &[]).await.unwrap());
    assert_eq!(count().await, 1, "another factor is left");
    assert!(store.remove_factors(id, Some(user.1), &[], &[]).await.unwrap());
    assert_eq!(count().await, 0);

    let app = fixture.add_app(id).await.factor.id;
    let user = (store.credential(id).await.unwrap().unwrap(), app);
    fixture.trust(&user, 2, &fixture.device(id)).await.unwrap();
    store.require_reset(id, now).await.unwrap();
    assert_eq!(count().await, 0);

    let other = fixture.user_with_app().await;
    let id = other.0.user_id;
    fixture.trust(&other, 2, &fixture.device(id)).await.unwrap();
    store.delete_credential(id).await.unwrap();
    assert_eq!(store.trusted_devices(id, now - DAY, now).await.unwrap(), []);
}

pub(super) async fn expired_trust_is_forgotten_in_batches(fixture: Fixture) {
    let (store, now) = (&fixture.store, fixture.clock.now());
    let user = fixture.user_with_app().await;
    fixture.trust(&user, 2, &fixture.device(user.0.user_id)).await.unwrap();
    for _ in 0..600 {
        run!(store.db().writer(), |db| {
            sqlx::query(
                "INSERT INTO trusted_device (user_id, device, name, created_at, expires_at) VALUES ($1, $2, '', 1, 2)",
            )
            .bind(Uuid::now_v7())
            .bind(Uuid::now_v7())
            .execute(db)
            .await
            .unwrap();
        });
    }
    let count = async || {
        run!(store.db().reader(), |db| {
            sqlx::query_scalar::<_, i64>("SELECT COUNT(*) FROM trusted_device").fetch_one(db).await.unwrap()
        })
    };
    store.forget_trusted_devices(now).await.unwrap();
    assert_eq!(count().await, 1);
    store.forget_trusted_devices(now + DAY).await.unwrap();
    assert_eq!(count().await, 0);
}
