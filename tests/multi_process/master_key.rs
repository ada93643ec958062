//! The master key, which encrypts secrets in databases.

use std::{
    fs::{self, Permissions},
    os::unix::fs::PermissionsExt,
    path::Path,
};

use drystone_tests::{
    Home, MASTER_KEY, Mesh, User,
    bad_tokens::GoodToken,
    process::{ProcessOutput, drystone, run_to_end},
    sealed,
};
use sqlx::{AssertSqlSafe, ConnectOptions, Connection, sqlite::SqliteConnectOptions};

/// What every private key of P-256 has in its PKCS#8 form: the algorithm `id-ecPublicKey` with the curve `prime256v1`.
const PKCS8_P256: &[u8] =
    &[0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07];

fn contains(bytes: &[u8], wanted: &[u8]) -> bool {
    bytes.windows(wanted.len()).any(|window| window == wanted)
}

/// Runs a command of an operator of this mesh.
fn operator(mesh: &Mesh, command: &[&str]) -> ProcessOutput {
    let mut command = drystone(command);
    command.env("DRYSTONE_CERTS_DIR", mesh.certificates().ca().parent().unwrap());
    for service in ["auth", "notification"] {
        let name = format!("DRYSTONE_PEERS__{}", service.to_uppercase());
        command.env(name, mesh.grpc_address(service).to_string());
    }
    run_to_end(&mut command)
}

/// Stores all keys as a release without sealing did. Returns their bytes.
async fn unseal_all(home: &Home) -> Vec<Vec<u8>> {
    let master = fs::read_to_string(home.data().join("master.key")).unwrap();
    let mut database = SqliteConnectOptions::new().filename(home.data().join("auth.db")).connect().await.unwrap();
    let mut opened = Vec::new();
    for (table, key, value) in [("signing_key", "kid", "private_key"), ("secret", "name", "value")] {
        let select = format!("SELECT {key}, {value} FROM {table}");
        let rows: Vec<(String, Vec<u8>)> =
            sqlx::query_as(AssertSqlSafe(select)).fetch_all(&mut database).await.unwrap();
        for (row, envelope) in rows {
            let plain = sealed::open(&master, &envelope, [table, &row, value]);
            let update = format!("UPDATE {table} SET {value} = $2, sealed_by = NULL WHERE {key} = $1");
            sqlx::query(AssertSqlSafe(update)).bind(row).bind(&plain).execute(&mut database).await.unwrap();
            opened.push(plain);
        }
    }
    database.close().await.unwrap();
    opened
}

/// Starts a mesh that is expected to refuse.
fn up(home: &Home) -> ProcessOutput {
    run_to_end(
        drystone(&["up", "--ephemeral", "--data-dir"])
            .arg(home.data())
            .current_dir(home.path())
            .env("DRYSTONE_LOG__FILTER", "error"),
    )
}

#[track_caller]
fn assert_refused(output: &ProcessOutput, words: &[&str]) {
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let lines: Vec<_> = output.stderr.lines().collect();
    let [line] = lines[..] else { panic!("one sentence: {output:?}") };
    for word in words {
        assert!(line.contains(word), "`{word}` is not in: {line}");
    }
}

/// The files of a data directory, without the master key.
fn copied(data: &Path) -> Vec<(String, Vec<u8>)> {
    let files = fs::read_dir(data).unwrap().map(|entry| entry.unwrap().path()).filter(|path| path.is_file());
    let files = files.filter(|path| !path.ends_with("master.key"));
    files.map(|path| (path.display().to_string(), fs::read(path).unwrap())).collect()
}

#[tokio::test]
async fn a_copied_database_has_no_signing_key() {
    let mesh = Mesh::start();
    let (_, tokens) = User::signed_in(&mesh).await;
    mesh.rest().get("/v1/users/me").bearer(&tokens.access).send().await.expect(200);
    let opened = GoodToken::of(&mesh).await;
    assert!(contains(&opened.key, PKCS8_P256), "the key is found where it is not sealed");
    // While it runs, with the write-ahead log, and after the stop.
    let running = copied(&mesh.home().data());
    let home = mesh.stop();
    let files = [running, copied(&home.data())].concat();
    assert!(files.iter().any(|(name, _)| name.ends_with("auth.db-wal")));
    for (name, bytes) in files {
        assert!(!contains(&bytes, PKCS8_P256), "{name} has a private key");
        assert!(!contains(&bytes, &opened.key[opened.key.len() - 32..]), "{name} has a part of the key");
    }
}

#[tokio::test]
async fn a_start_without_the_right_master_key_is_refused() {
    let setup = || Mesh::setup().set("issuer", "https://id.example.com");
    let mesh = setup().start();
    let (_, tokens) = User::signed_in(&mesh).await;
    let home = mesh.stop();
    let file = home.data().join("master.key");
    let key = fs::read(&file).unwrap();
    assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);

    fs::remove_file(&file).unwrap();
    assert_refused(&up(&home), &["master.key is missing", "database of `auth`", "restore it"]);
    assert!(!file.exists(), "no other key is generated");

    fs::write(&file, MASTER_KEY).unwrap();
    fs::set_permissions(&file, Permissions::from_mode(0o600)).unwrap();
    assert_refused(&up(&home), &["database of `auth`", "master key `k-", "is missing"]);

    let id = String::from_utf8(key.clone()).unwrap();
    let id = id.lines().last().unwrap().split(' ').next().unwrap().to_owned();
    fs::write(&file, MASTER_KEY.replace("test", &id)).unwrap();
    assert_refused(
        &up(&home),
        &["database of `auth`", &format!("the master key `{id}` is not the one that sealed it")],
    );

    fs::write(&file, "not a key").unwrap();
    assert_refused(&up(&home), &["line 1 of the master keys is no key"]);

    fs::write(&file, &key).unwrap();
    fs::set_permissions(&file, Permissions::from_mode(0o644)).unwrap();
    assert_refused(&up(&home), &["master.key", "chmod 600"]);

    fs::set_permissions(&file, Permissions::from_mode(0o600)).unwrap();
    let mesh = setup().home(home).start();
    mesh.rest().get("/v1/users/me").bearer(&tokens.access).send().await.expect(200);
}

#[test]
fn a_service_that_runs_apart_needs_a_configured_master_key() {
    let mesh = Mesh::start();
    let serve = |key_file: Option<&Path>| {
        let home = Home::new();
        let mut command = drystone(&["serve", "auth", "--ready-file"]);
        command
            .arg(home.path().join("ready.json"))
            .env("DRYSTONE_CERTS_DIR", mesh.certificates().ca().parent().unwrap());
        command.env("DRYSTONE_DATA_DIR", home.data()).env("DRYSTONE_LOG__FILTER", "error");
        command.env("DRYSTONE_AUTH__LISTEN", "127.0.0.1:0").env("DRYSTONE_ADMIN__LISTEN", "127.0.0.1:0");
        let key_file = key_file.map(|file| ("DRYSTONE_SEALING__KEY_FILE", file));
        let output = run_to_end(command.envs(key_file).current_dir(home.path()));
        // So that a release before can still be started.
        assert!(!home.data().join("auth.db").exists(), "no database is opened, and so none migrated");
        output
    };
    assert_refused(&serve(None), &["`auth`", "no master key", "drystone keys generate FILE", "sealing.key_file"]);
    let home = Home::new();
    let file = home.path().join("master.key");
    assert_refused(&serve(Some(&file)), &["master.key cannot be read"]);

    let generate = || run_to_end(drystone(&["keys", "generate"]).arg(&file));
    let written = generate();
    assert!(written.status.success() && written.stdout.contains("sealing.key_file"), "{written:?}");
    let key = fs::read(&file).unwrap();
    assert_refused(&generate(), &["master.key exists", "not replaced"]);
    assert_eq!(fs::read(&file).unwrap(), key);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keys_of_a_release_without_sealing_are_sealed_and_replaced_while_the_mesh_serves() {
    let setup = || Mesh::setup().set("issuer", "https://id.example.com");
    let mesh = setup().start();
    let (_, tokens) = User::signed_in(&mesh).await;
    let home = mesh.stop();
    let keys = unseal_all(&home).await;
    assert_eq!(keys.len(), 5);
    let has_key = |home: &Home| {
        let files = copied(&home.data());
        let found = files.iter().filter(|(_, bytes)| keys.iter().any(|key| contains(bytes, &key[key.len() - 32..])));
        found.map(|(name, _)| name.clone()).collect::<Vec<_>>()
    };
    assert!(!has_key(&home).is_empty(), "the search finds what is not sealed");

    let mesh = setup().home(home).start();
    let published = async || mesh.rest().get("/.well-known/jwks.json").send().await.expect(200).json()["keys"].clone();
    assert_eq!(published().await.as_array().unwrap().len(), 1);
    let output = operator(&mesh, &["keys", "seal"]);
    assert!(output.status.success() && output.stdout.starts_with("encrypted and replaced 5 keys"), "{output:?}");
    assert_eq!(published().await.as_array().unwrap().len(), 2);
    let found = has_key(mesh.home());
    assert!(found.is_empty(), "no file of the running mesh has a key that was not sealed: {found:?}");
    let again = operator(&mesh, &["keys", "seal"]);
    assert_eq!(
        again.stdout, "all keys were encrypted already; earlier bytes were removed from the files of the database\n",
        "{again:?}"
    );

    // What was issued before is valid, also after a restart.
    mesh.rest().get("/v1/users/me").bearer(&tokens.access).send().await.expect(200);
    let mesh = setup().home(mesh.stop()).start();
    mesh.rest().get("/v1/users/me").bearer(&tokens.access).send().await.expect(200);
    let refreshed = tokens.refresh(mesh.rest()).await;
    mesh.rest().get("/v1/users/me").bearer(&refreshed.access).send().await.expect(200);
    let home = mesh.stop();
    assert!(has_key(&home).is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_master_key_is_replaced_while_the_mesh_serves() {
    let mesh = Mesh::start();
    let (_, tokens) = User::signed_in(&mesh).await;
    let file = mesh.home().data().join("master.key");
    let old = fs::read_to_string(&file).unwrap();
    // As an operator does: the new key first, in a new file with the name of the old one.
    let next = mesh.home().data().join("next.key");
    let generated = run_to_end(drystone(&["keys", "generate"]).arg(&next));
    assert!(generated.status.success(), "{generated:?}");
    let new = fs::read_to_string(&next).unwrap();
    fs::write(&next, format!("{new}{old}")).unwrap();
    fs::rename(&next, &file).unwrap();
    let id = new.lines().last().unwrap().split(' ').next().unwrap();
    let output = operator(&mesh, &["keys", "rewrap"]);
    assert_eq!(
        output.stdout,
        format!("5 keys are under the master key `{id}`\n0 messages are under the master key `{id}`\n"),
        "{output:?}"
    );
    mesh.rest().get("/v1/users/me").bearer(&tokens.access).send().await.expect(200);
    let refreshed = tokens.refresh(mesh.rest()).await;

    // The old key is not needed any more.
    let home = mesh.stop();
    fs::write(&file, &old).unwrap();
    assert_refused(&up(&home), &["database of `auth`", &format!("master key `{id}` is missing")]);
    fs::write(&file, &new).unwrap();
    let mesh = Mesh::setup().home(home).start();
    refreshed.refresh(mesh.rest()).await;
}

#[test]
fn only_an_operator_manages_keys() {
    let mesh = Mesh::start();
    for command in [&["seal"][..], &["rewrap"], &["list"], &["rotate"], &["withdraw", "kid"]] {
        let (home, command) = (Home::new(), [&["keys"], command].concat());
        let mut without = drystone(&command);
        without.env("DRYSTONE_CERTS_DIR", home.path());
        let output = run_to_end(without.env("DRYSTONE_PEERS__AUTH", mesh.grpc_address("auth").to_string()));
        assert_refused(&output, &["operator.pem"]);
        // With the certificate of a service in the place of the operator's.
        let [certificate, key] = mesh.certificates().files_of("user");
        fs::copy(certificate, home.path().join("operator.pem")).unwrap();
        fs::copy(key, home.path().join("operator.key")).unwrap();
        fs::copy(mesh.certificates().ca(), home.path().join("ca.pem")).unwrap();
        let mut service = drystone(&command);
        service.env("DRYSTONE_CERTS_DIR", home.path());
        let output = run_to_end(service.env("DRYSTONE_PEERS__AUTH", mesh.grpc_address("auth").to_string()));
        assert_refused(&output, &["CALLER_NOT_ALLOWED"]);
    }
}
