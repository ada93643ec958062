//! A mesh on PostgreSQL.

use drystone::Reason;
use drystone_backends::{Database, Postgres};
use drystone_tests::{
    Home, Mesh, RestResponse, Setup, Tokens, User,
    process::{ProcessOutput, drystone, run_to_end},
    services,
    wait::until,
};
use serde_json::json;

fn setup(database: &Database) -> Setup {
    let issuer = Mesh::setup().set("issuer", "https://id.example.com");
    services().iter().fold(issuer, |setup, service| setup.set(&format!("{service}.database.url"), database.as_str()))
}

async fn get(mesh: &Mesh, path: &str, tokens: &Tokens) -> RestResponse {
    mesh.rest().get(path).bearer(&tokens.access).send().await
}

async fn create_property(mesh: &Mesh, tokens: &Tokens, name: &str) -> RestResponse {
    mesh.rest().post("/v1/properties", json!({"displayName": name})).bearer(&tokens.access).send().await
}

async fn property_names(mesh: &Mesh, tokens: &Tokens) -> Vec<String> {
    let list = get(mesh, "/v1/properties", tokens).await.expect(200).json();
    let properties = list["properties"].as_array().unwrap().iter();
    properties.map(|property| property["displayName"].as_str().unwrap().to_owned()).collect()
}

#[tokio::test]
async fn acknowledged_writes_survive_a_kill_on_postgres() {
    let database = Postgres::shared().await.database().await;
    let mesh = setup(&database).start();
    let (user, tokens) = User::signed_in(&mesh).await;
    create_property(&mesh, &tokens, "Barn").await.expect(200);
    let ended = user.sign_in(&mesh).await;
    mesh.rest().post("/v1/auth/logout", json!({})).bearer(&ended.access).send().await.expect(200);
    let me = get(&mesh, "/v1/users/me", &tokens).await.expect(200).json();
    assert!(!mesh.home().data().join("user.db").exists(), "no SQLite database is created");

    let mesh = setup(&database).home(mesh.kill()).start();
    assert_eq!(get(&mesh, "/v1/users/me", &tokens).await.expect(200).json(), me);
    assert_eq!(property_names(&mesh, &tokens).await, ["Barn"]);
    get(&mesh, "/v1/users/me", &ended).await.refused(Reason::TokenRevoked);
    tokens.refresh(mesh.rest()).await;
    user.sign_in(&mesh).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_postgres_outage_is_reported_and_the_mesh_reconnects() {
    let server = Postgres::temporary().await;
    let database = server.database().await;
    let mesh = setup(&database).start();
    let (user, tokens) = User::signed_in(&mesh).await;
    create_property(&mesh, &tokens, "before").await.expect(200);

    server.stop();
    let refused = create_property(&mesh, &tokens, "during the outage").await.expect(503);
    assert_eq!(refused.reason(), "UNAVAILABLE");
    assert!(!refused.header("retry-after").is_empty());
    until("health reports the databases as down", async || {
        let health = mesh.admin("/health/detailed").await.json();
        let is_down = |service: &&str| health["components"][format!("{service} database")]["state"] == "down";
        services().iter().all(is_down).then_some(())
    })
    .await;

    server.start();
    until("writes succeed again", async || {
        let answer = create_property(&mesh, &tokens, "after").await;
        if answer.status == 503 { None } else { Some(answer.expect(200)) }
    })
    .await;
    assert_eq!(property_names(&mesh, &tokens).await, ["before", "after"]);
    user.sign_in(&mesh).await;
    until("the mesh is healthy", async || {
        let health = mesh.admin("/health/detailed").await.json();
        (health["status"] == "ok").then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_mesh_waits_for_postgres_at_startup() {
    let server = Postgres::temporary().await;
    let database = server.database().await;
    server.stop();
    let mesh = setup(&database).spawn();
    until("the log says what it waits for", async || mesh.log().contains("waiting for a database").then_some(())).await;
    server.start();
    let mesh = mesh.ready();
    User::signed_in(&mesh).await;
}

/// Runs `drystone` with a configuration that uses this database.
fn run_with_database(home: &Home, database: &str, arguments: &[&str]) -> ProcessOutput {
    let sections = services()
        .into_iter()
        .map(|service| format!("[{service}.database]\nurl = \"{database}\"\n"))
        .collect::<Vec<_>>()
        .concat();
    let (data, certs) = (home.data(), home.path().join("certs"));
    let (data, certs) = (data.display(), certs.display());
    let text = format!("data_dir = '{data}'\ncerts_dir = '{certs}'\n{sections}");
    let configuration = home.write("drystone.toml", &text);
    run_to_end(drystone(arguments).arg("--config").arg(configuration))
}

#[tokio::test]
async fn migrate_reports_and_applies_migrations_on_postgres() {
    let server = Postgres::shared().await;
    let database = server.database().await;
    let home = Home::new();
    let run = |arguments: &[&str]| run_with_database(&home, database.as_str(), arguments);

    let status = run(&["migrate", "status"]);
    assert_eq!(status.status.code(), Some(1), "{status:?}");
    assert_eq!(status.stdout.matches("to apply").count(), 5, "{}", status.stdout);
    assert!(status.stderr.contains("run `drystone migrate up`"), "{}", status.stderr);

    let up = run(&["migrate", "up", "user"]);
    assert_eq!(up.stdout, "user: schema version 9, 9 steps applied\n", "{up:?}");
    let status = run(&["migrate", "status", "user"]);
    assert!(status.status.success() && status.stdout.contains("up to date"), "{status:?}");

    let up = run(&["migrate", "up"]);
    assert!(up.status.success(), "{up:?}");
    assert!(up.stdout.contains("user: schema version 9, was up to date\n"), "{}", up.stdout);
    assert!(run(&["migrate", "status"]).status.success());

    let later = "INSERT INTO drystone_auth.schema_migration (version, name, checksum, applied_at)
                 VALUES (9999, 'later', '', 0)";
    database.run(later).await;
    let status = run(&["migrate", "status"]);
    assert_eq!(status.status.code(), Some(1), "{status:?}");
    assert!(status.stdout.contains("9999") && status.stdout.contains("newer"), "{}", status.stdout);
    for refused in [status, run(&["migrate", "up"]), run(&["up", "--ephemeral"])] {
        assert_eq!(refused.status.code(), Some(1), "{refused:?}");
        let expected = "has schema version 9999, but this program knows only up to 15: start the newer release";
        assert!(refused.stderr.contains(expected), "{}", refused.stderr);
    }

    let password = database.url().password().unwrap();
    let shown = run(&["config", "show"]);
    assert!(shown.stdout.contains(":(secret)@"), "{}", shown.stdout);
    let wrong = run_with_database(&home, &database.as_str().replace(password, "wrong-one"), &["migrate", "status"]);
    assert!(wrong.stdout.contains("unreachable"), "{}", wrong.stdout);
    for ended in [shown, wrong] {
        assert!(!format!("{ended:?}").contains(password), "{ended:?}");
        assert!(!format!("{ended:?}").contains("wrong-one"), "{ended:?}");
    }
}

#[test]
fn migrate_status_does_not_create_sqlite_databases() {
    let home = Home::new();
    let configuration = home.write("drystone.toml", &format!("data_dir = {:?}\n", home.data()));
    let run = |arguments: &[&str]| run_to_end(drystone(arguments).arg("--config").arg(&configuration));
    assert_eq!(run(&["migrate", "status"]).status.code(), Some(1));
    assert!(!home.data().exists());
    assert!(run(&["migrate", "up", "session"]).status.success());
    assert!(run(&["migrate", "status", "session"]).status.success());
    assert!(home.data().join("session.db").exists() && !home.data().join("user.db").exists());
}

#[tokio::test]
async fn a_refused_postgres_login_is_reported_in_one_line() {
    let server = Postgres::temporary().await;
    let database = server.database().await;
    let home = Home::new();
    let url = database.as_str().replace(database.url().password().unwrap(), "wrong-one");
    let ended = run_with_database(&home, &url, &["migrate", "up"]);
    assert_eq!(ended.status.code(), Some(1), "{ended:?}");
    assert_eq!(ended.stderr.trim_end().lines().count(), 1, "{}", ended.stderr);
    assert!(
        ended.stderr.contains("rejects the login") && ended.stderr.contains("`auth.database.url`"),
        "{}",
        ended.stderr
    );
    assert!(!ended.stderr.contains("wrong-one"), "{}", ended.stderr);
}
