//! No query of the store scans a growing table on PostgreSQL, as the server's scan counters show.

use std::time::Duration;

use drystone_auth::{
    AuthStore, MIGRATIONS,
    challenge::{Challenge, hash},
    credential::Credential,
    factor::{
        Factor, FactorKind, FactorReset, FactorUse, StoredFactor,
        passkey::{PasskeyUse, StoredPasskey},
    },
    link::{Link, Purpose},
    sign_in_history::{Method, Outcome, SignInRecord},
    token::passkey_challenge::PasskeyChallenge,
    trusted_device::{Trust, TrustedDevice},
};
use drystone_backends::Postgres;
use drystone_mesh::{
    clock::{Clock, Timestamp},
    page::Page,
};
use drystone_store::{Db, Location, PoolConfig, sealing::Sealed};
use uuid::Uuid;

/// More executions than PostgreSQL makes custom plans for (five), so that it uses a generic plan where it thinks that cheaper.
const ROUNDS: usize = 8;

const MANY_ROWS: &str = "
    INSERT INTO drystone_auth.credential (user_id, password_hash, request_id, created_at, updated_at)
    SELECT gen_random_uuid(), 'one of many', gen_random_uuid(), n, n
    FROM generate_series(1, 20000) AS n;
    INSERT INTO drystone_auth.sign_in (id, user_id, created_at, method, outcome, address, device, is_new_device)
    SELECT gen_random_uuid(), gen_random_uuid(), n, 1, 1 + n % 2, '', '', 0
    FROM generate_series(1, 20000) AS n;
    INSERT INTO drystone_auth.link (id, purpose, user_id, created_at, expires_at)
    SELECT gen_random_uuid(), 'password_reset', gen_random_uuid(), n, 9000000000000000 + n
    FROM generate_series(1, 20000) AS n;
    INSERT INTO drystone_auth.factor (id, user_id, kind, display_name, secret, sealed_by, created_at, confirmed_at)
    SELECT gen_random_uuid(), gen_random_uuid(), 1, 'one of many', '', 'test', 9000000000000000 + n, CASE WHEN n % 9 > 0 THEN 1 END
    FROM generate_series(1, 20000) AS n;
    INSERT INTO drystone_auth.totp_use (factor_id, step)
    SELECT gen_random_uuid(), 90000000 + n
    FROM generate_series(1, 20000) AS n;
    INSERT INTO drystone_auth.backup_code (user_id, number, code_hash, created_at)
    SELECT gen_random_uuid(), n % 10, 'one of many', n
    FROM generate_series(1, 20000) AS n;
    INSERT INTO drystone_auth.factor_attempt (user_id, origin, failures, allowed_at)
    SELECT gen_random_uuid(), gen_random_uuid(), 1, 9000000000000000 + n
    FROM generate_series(1, 20000) AS n;
    INSERT INTO drystone_auth.challenge (token_hash, user_id, email, device, tries, expires_at)
    SELECT decode(md5(n::text), 'hex'), gen_random_uuid(), '', gen_random_uuid(), 0, 9000000000000000 + n
    FROM generate_series(1, 20000) AS n;
    INSERT INTO drystone_auth.passkey
        (factor_id, user_id, credential_id, public_key, sign_count, is_backup_eligible, is_backed_up, aaguid, transports)
    SELECT gen_random_uuid(), gen_random_uuid(), decode(md5(n::text), 'hex'), '', 0, 0, 0, gen_random_uuid(), ''
    FROM generate_series(1, 20000) AS n;
    INSERT INTO drystone_auth.trusted_device (user_id, device, name, created_at, expires_at)
    SELECT gen_random_uuid(), gen_random_uuid(), '', n, 9000000000000000 + n
    FROM generate_series(1, 20000) AS n;
    INSERT INTO drystone_auth.passkey_challenge_use (id, expires_at)
    SELECT gen_random_uuid(), 9000000000000000 + n
    FROM generate_series(1, 20000) AS n;
    INSERT INTO drystone_auth.factor_reset (user_id, due_at, created_at)
    SELECT gen_random_uuid(), 9000000000000000 + n, n
    FROM generate_series(1, 20000) AS n;
    INSERT INTO drystone_auth.factor_requirement (user_id, since)
    SELECT gen_random_uuid(), n
    FROM generate_series(1, 20000) AS n;
    ANALYZE";

#[tokio::test]
async fn every_credential_is_found_by_an_index() {
    let database = Postgres::shared().await.database().await;
    let location = Location::server("auth", database.as_str())
        .unwrap()
        // Each connection has plans of its own.
        .with_pool(PoolConfig { connections: 1, ..PoolConfig::default() });
    Db::open(location.clone(), MIGRATIONS).await.unwrap().close().await;
    database.run(MANY_ROWS).await;
    database.reset_scan_counts().await;

    let db = Db::open(location, MIGRATIONS).await.unwrap();
    let store = AuthStore::new(db.clone());
    let now = Clock::system().now();
    let password_hash = "$argon2id$v=19$m=64,t=1,p=1$c29tZXNhbHQ$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";
    for _ in 0..ROUNDS {
        let request_id = Uuid::now_v7();
        let new = Credential {
            user_id: Uuid::now_v7(),
            password_hash: password_hash.parse().unwrap(),
            form: drystone_auth::password::typed_password::PasswordForm::Opaque,
            request_id: Some(request_id),
            pending_since: Some(now),
            created_at: now,
            updated_at: now,
            reset_required_at: None,
            recovered_at: None,
            second_factor_since: None,
        };
        store.insert_credential(&new).await.unwrap();
        store.credential(new.user_id).await.unwrap().unwrap();
        store.resume_credential(request_id, now).await.unwrap().unwrap();
        store.replace_password_hash(new.user_id, &new.password_hash, &new.password_hash, new.form, now).await.unwrap();
        let cutoff = now + Duration::from_secs(1);
        assert_eq!(store.pending_credentials(cutoff, 10).await.unwrap(), [new.user_id]);
        assert!(store.delete_pending_credential(new.user_id, cutoff).await.unwrap());
        store.confirm_credential(new.user_id).await.unwrap();
        store.insert_credential(&Credential { request_id: None, pending_since: None, ..new.clone() }).await.unwrap();
        let sign_in = SignInRecord {
            id: Uuid::now_v7(),
            user_id: new.user_id,
            at: now,
            method: Method::Password,
            outcome: Outcome::Succeeded,
            address: String::new(),
            device: String::new(),
            is_new_device: true,
            session_id: None,
        };
        assert!(store.insert_success(&sign_in, &new, &[]).await.unwrap());
        store
            .insert_failure(&SignInRecord { id: Uuid::now_v7(), outcome: Outcome::WrongPassword, ..sign_in })
            .await
            .unwrap();
        assert!(store.has_signed_in(new.user_id).await.unwrap());
        let page = Page { size: 10, after: None };
        assert_eq!(store.sign_ins(new.user_id, &page, now - Duration::from_secs(1)).await.unwrap().len(), 2);
        let link = Link::new(
            Uuid::now_v7(),
            Purpose::EmailVerification,
            new.user_id,
            format!("{}@example.com", new.user_id),
            now,
        );
        store.insert_link(&link, 5, now - Duration::from_secs(1)).await.unwrap().unwrap();
        store.use_link(&link, &[Purpose::PasswordReset], None, &[], now).await.unwrap();
        use_second_factor(&store, &new).await;
    }
    db.close().await;
    let scans = database.scans("drystone_auth").await;
    for table in [
        "sign_in",
        "link",
        "factor",
        "totp_use",
        "backup_code",
        "factor_attempt",
        "challenge",
        "passkey",
        "passkey_challenge_use",
        "factor_reset",
        "trusted_device",
        "factor_requirement",
    ] {
        assert_eq!(scans[table].sequential, 0, "{table}: {:?}", scans[table]);
    }
    let scans = scans["credential"];
    assert_eq!(scans.sequential, 0);
    assert!(scans.index >= i64::try_from(ROUNDS * 6).unwrap(), "{scans:?}");
}

/// Adds an authenticator app, completes a sign-in, and removes it.
async fn use_second_factor(store: &AuthStore, user: &Credential) {
    let (now, user_id) = (Clock::system().now(), user.user_id);
    let factor = Factor {
        id: Uuid::now_v7(),
        user_id,
        kind: FactorKind::Totp,
        display_name: "Phone".to_owned(),
        created_at: now,
        last_used_at: None,
    };
    let secret = Sealed { envelope: b"sealed".to_vec(), key_id: "test".to_owned() };
    let (id, app) = (factor.id, StoredFactor { factor, secret });
    assert!(store.begin_factor(&app).await.unwrap());
    store.begun_factor(user_id, id, now).await.unwrap().unwrap();
    let codes = [user.password_hash.clone()];
    assert!(store.confirm_factor(&app.factor, Some(1), &codes, &[], now, now).await.unwrap());
    store.replace_backup_codes(user_id, &codes, &[], now).await.unwrap();
    store.backup_code(user_id, 0).await.unwrap().unwrap();
    assert_eq!(store.backup_codes_left(user_id).await.unwrap(), 1);
    store.rename_factor(user_id, id, "Tablet").await.unwrap().unwrap();
    let user = store.credential(user_id).await.unwrap().unwrap();
    let challenge = Challenge {
        token_hash: hash(&id.to_string()),
        user_id,
        email: String::new(),
        device: Uuid::nil(),
        expires_at: now + Duration::from_mins(5),
    };
    assert!(store.insert_challenge(&challenge, &user).await.unwrap());
    store.challenge(challenge.token_hash, now).await.unwrap().unwrap();
    store.count_try(user_id, Uuid::nil(), now).await.unwrap();
    store.try_challenge(&challenge).await.unwrap();
    let sign_in = SignInRecord {
        id: Uuid::now_v7(),
        user_id,
        at: now,
        method: Method::PasswordAndTotp,
        outcome: Outcome::Succeeded,
        address: String::new(),
        device: String::new(),
        is_new_device: false,
        session_id: None,
    };
    let spent = FactorUse::Totp { factor_id: id, step: 2 };
    let device = TrustedDevice {
        id,
        user_id,
        name: String::new(),
        created_at: now,
        expires_at: now + Duration::from_hours(1),
        last_used_at: None,
    };
    store.complete_challenge(&challenge, &spent, &sign_in, &user, Some(&device), &[]).await.unwrap();
    use_trusted_device(store, &user, &SignInRecord { id: Uuid::now_v7(), ..sign_in }, id).await;
    let spent = FactorUse::Backup { number: 0, hash: user.password_hash };
    store.use_factor(user_id, Uuid::nil(), &spent, &[], now).await.unwrap();
    assert!(store.is_used(id, 2).await.unwrap());
    store.give_back(user_id, 0, &codes[0], now).await.unwrap();
    store.uncount_try(user_id, Uuid::nil(), now).await.unwrap();
    store.untry_challenge(&challenge).await.unwrap();
    store.factor_secrets(id, 10).await.unwrap();
    store.replace_factor_envelope(id, &app.secret, &app.secret).await.unwrap();
    store.forget_factors(now).await.unwrap();
    store.forget_challenges(now).await.unwrap();
    assert_eq!(
        store.factor_required_since(user_id, now).await.unwrap(),
        store.factor_required_since(user_id, now + Duration::from_secs(1)).await.unwrap()
    );
    use_passkey(store, user_id, now).await;
    wait_for_reset(store, user_id, now).await;
    assert!(store.remove_factors(user_id, Some(id), &[], &[]).await.unwrap());
}

/// Requests a reset, cancels it, and requests one that ends with the factors.
async fn wait_for_reset(store: &AuthStore, user_id: Uuid, now: Timestamp) {
    let reset = FactorReset { user_id, requested_by: None, due_at: now, created_at: now };
    store.request_reset(&reset, &[]).await.unwrap().unwrap();
    store.pending_reset(user_id).await.unwrap().unwrap();
    assert!(store.cancel_reset(user_id, &[]).await.unwrap());
    store.request_reset(&reset, &[]).await.unwrap().unwrap();
    assert_eq!(store.due_resets(now, 10).await.unwrap(), [user_id]);
    assert!(!store.carry_out_reset(user_id, &[], now - Duration::from_secs(1)).await.unwrap());
}

/// Signs in on a device that is trusted, and ends that.
async fn use_trusted_device(store: &AuthStore, user: &Credential, sign_in: &SignInRecord, device: Uuid) {
    let (user_id, now) = (user.user_id, sign_in.at);
    let trust = Trust { device, since: now - Duration::from_hours(1) };
    assert!(store.is_trusted(user_id, trust, now).await.unwrap());
    assert!(store.insert_trusted_success(sign_in, user, trust).await.unwrap());
    assert_eq!(store.trusted_devices(user_id, trust.since, now).await.unwrap().len(), 1);
    store.forget_trusted_devices(now).await.unwrap();
    assert!(store.revoke_trusted_device(user_id, device).await.unwrap());
    assert_eq!(store.revoke_trusted_devices(user_id).await.unwrap(), 0);
}

/// Adds a passkey to what the user has, and signs in with it.
async fn use_passkey(store: &AuthStore, user_id: Uuid, now: Timestamp) {
    let challenge = || PasskeyChallenge { id: Uuid::now_v7(), expires_at: now + Duration::from_mins(5) };
    let id = Uuid::now_v7();
    let passkey = StoredPasskey {
        factor: Factor {
            id,
            user_id,
            kind: FactorKind::Passkey,
            display_name: "Laptop".to_owned(),
            created_at: now,
            last_used_at: None,
        },
        credential_id: id.as_bytes().to_vec(),
        public_key: Vec::new(),
        sign_count: 0,
        is_backup_eligible: true,
        is_backed_up: true,
        aaguid: Uuid::nil(),
        transports: Vec::new(),
    };
    let secret = Sealed { envelope: b"sealed".to_vec(), key_id: "test".to_owned() };
    assert!(store.add_passkey(&passkey, &secret, challenge(), now, &[], &[]).await.unwrap());
    store.passkey(&passkey.credential_id).await.unwrap().unwrap();
    assert!(!store.is_passkey_challenge_used(challenge()).await.unwrap());
    assert_eq!(store.passkeys_of(user_id).await.unwrap().len(), 1);
    assert_eq!(
        store.factor_kinds(user_id).await.unwrap(),
        [FactorKind::Totp, FactorKind::Passkey, FactorKind::BackupCode]
    );
    let used = PasskeyUse {
        factor_id: id,
        user_id,
        sign_count: 0,
        is_backed_up: true,
        method: drystone_auth::authentication::Method::SoftwareKey,
        challenge: challenge(),
    };
    let record = SignInRecord {
        id: Uuid::now_v7(),
        user_id,
        at: now,
        method: Method::Passkey,
        outcome: Outcome::Succeeded,
        address: String::new(),
        device: String::new(),
        is_new_device: false,
        session_id: None,
    };
    store.sign_in_with_passkey(&used, &record, &[]).await.unwrap();
    store.forget_passkey_challenges(now).await.unwrap();
    assert!(store.remove_factors(user_id, Some(id), &[], &[]).await.unwrap());
}
