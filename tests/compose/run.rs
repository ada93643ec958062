//! Runs the processes of the containers without Docker, with the same commands, configuration, secrets, PostgreSQL roles and
//! Redis users. Only paths and addresses are replaced.

use std::{fs, os::unix::fs::PermissionsExt, path::Path};

use drystone::Reason;
use drystone_backends::{Database, Postgres, Redis};
use drystone_tests::{
    Home, Mesh, MetricsSnapshot, RestClient, Starting, User,
    certs::Certificates,
    modules,
    ports::some_free_addresses,
    process::{drystone, run_to_end},
    services_on_postgres,
    wait::until,
};
use serde_json::json;
use tempfile::TempDir;

use crate::{
    file::{Compose, Service, shared, text},
    setup::RepositoryCopy,
};

/// PostgreSQL and Redis with the setup of the compose file, and the secrets of the services.
struct Stack {
    copy: RepositoryCopy,
    _postgres: Postgres,
    database: Database,
    redis: Redis,
    /// Addresses of the containers, and their replacements.
    replacements: Vec<(String, String)>,
    _stores: TempDir,
}

impl Stack {
    async fn start() -> Self {
        let copy = RepositoryCopy::new();
        // The servers run as other users than the tests.
        let stores = tempfile::tempdir().unwrap();
        fs::set_permissions(stores.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let compose = Compose::read();
        for mount in ["postgres", "redis"].iter().flat_map(|name| compose.service(name).secrets()) {
            let file = stores.path().join(file_name(&mount.target));
            fs::copy(copy.path(&mount.source), &file).unwrap();
            fs::set_permissions(&file, fs::Permissions::from_mode(0o644)).unwrap();
        }
        let localize = |text: String| text.replace("/run/secrets", stores.path().to_str().unwrap());

        let postgres = Postgres::temporary().await;
        let database = postgres.database().await;
        database.run(&localize(text("deploy/compose/roles.sql"))).await;

        let configuration = stores.path().join("redis.conf");
        fs::write(&configuration, localize(text("deploy/compose/redis.conf")).replace("dir /data", "dir .")).unwrap();
        let redis = Redis::start_with(&["--include", configuration.to_str().unwrap()]);

        let url = database.url();
        let server = format!("@{}:{}{}?", url.host_str().unwrap(), url.port().unwrap(), url.path());
        let mut replacements = vec![
            ("@postgres/drystone?".to_owned(), server),
            ("redis:6379".to_owned(), redis.url().replace("redis://", "")),
        ];
        for (name, address) in modules().into_iter().zip(some_free_addresses(modules().len())) {
            let listen = shared(name, "listen");
            let port = listen.rsplit_once(':').unwrap().1;
            replacements.push((format!("{name}:{port}"), address.to_string()));
            replacements.push((listen, address.to_string()));
        }
        Self { copy, _postgres: postgres, database, redis, replacements, _stores: stores }
    }

    /// A configuration text of a container, with the local addresses and with its secrets in this directory.
    fn localize(&self, text: &str, secrets: &Path) -> String {
        let text = text.replace("/run/secrets", secrets.to_str().unwrap());
        self.replacements.iter().fold(text, |text, (container, local)| text.replace(container, local))
    }

    fn listen(&self, name: &str) -> String {
        self.localize(&shared(name, "listen"), Path::new(""))
    }

    /// Starts the process of a container, with only the secrets mounted into it.
    fn begin(&self, service: Service, name: &'static str, unused: &Certificates) -> Starting {
        let home = Home::new();
        let secrets = home.path().join("secrets");
        fs::create_dir(&secrets).unwrap();
        for mount in service.secrets() {
            // `fs::copy` keeps the mode.
            fs::copy(self.copy.path(&mount.source), secrets.join(file_name(&mount.target))).unwrap();
        }
        let mount = service.configs().remove(0);
        let configuration = home.write("drystone.toml", &self.localize(&text(&mount.source), &secrets));
        assert_eq!(service.list("command"), ["serve", name]);
        let setup = Mesh::setup().home(home).serve(&[name], unused).with_default_rate_limits();
        // Test machines are slow under load.
        let setup = setup.set("redis.timeout", "5s");
        // Overrides the port, the master key and the certificates of the harness with those of the configuration.
        let setup = setup.set("sealing.keys", "");
        let setup = setup.set(&format!("{name}.listen"), &self.listen(name));
        let setup = setup.set("certs_dir", secrets.to_str().unwrap());
        let setup = service.environment().iter().fold(setup, |setup, (variable, value)| {
            let value = if *value == mount.target { configuration.to_str().unwrap() } else { value };
            let key = variable.strip_prefix("DRYSTONE_").unwrap().replace("__", ".");
            setup.set(&key, &self.localize(value, &secrets))
        });
        setup.spawn()
    }
}

fn file_name(target: &str) -> &str {
    target.rsplit_once('/').unwrap().1
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_services_run_with_only_their_mounted_files() {
    let stack = Stack::start().await;
    let compose = Compose::read();
    let unused_home = Home::new();
    let unused = Certificates::generate_in(&unused_home.path().join("certs"));
    // In reverse order: the edge starts before its upstreams.
    let begin = |name| (name, stack.begin(compose.service(name), name, &unused));
    let starting: Vec<_> = modules().into_iter().rev().map(begin).collect();
    let running: Vec<_> = starting.into_iter().map(|(name, starting)| (name, starting.ready())).collect();
    for (name, mesh) in &running {
        let check =
            || run_to_end(drystone(&["health"]).env("DRYSTONE_ADMIN__LISTEN", mesh.admin_address().to_string()));
        until(&format!("{name} is healthy"), async || (check().stdout == "ready\n").then_some(())).await;
    }

    let rest = RestClient::at(stack.listen("edge").parse().unwrap());
    let user = User::register_at(rest).await;
    let first = user.sign_in_at(rest).await;
    let barn =
        rest.post("/v1/properties", json!({"displayName": "Barn"})).bearer(&first.access).send().await.expect(200);
    let tokens = first.refresh(rest).await;
    for path in ["/v1/users/me", "/v1/properties", "/v1/sessions"] {
        rest.get(path).bearer(&tokens.access).send().await.expect(200);
    }
    let other = user.sign_in_at(rest).await;
    rest.delete(&format!("/v1/sessions/{}", other.session_id)).bearer(&tokens.access).send().await.expect(200);
    rest.get("/v1/users/me").bearer(&other.access).send().await.refused(Reason::TokenRevoked);
    let barn = format!("/v1/properties/{}", barn.json()["id"].as_str().unwrap());
    rest.delete(&barn).bearer(&tokens.access).send().await.expect(200);
    rest.post("/v1/sessions:revokeAll", json!({})).bearer(&tokens.access).send().await.expect(200);
    rest.get("/v1/users/me").bearer(&tokens.access).send().await.refused(Reason::TokenRevoked);

    for (name, mesh) in running {
        let metrics = MetricsSnapshot::parse(&mesh.admin("/metrics").await.expect(200).text());
        let fallbacks = metrics.sum("drystone_rate_limit_fallbacks_total", &[]);
        assert!(fallbacks == 0.0, "{name} has counted without Redis");
        let log = mesh.log();
        for refusal in ["NOPERM", "permission", "\"level\":\"ERROR\""] {
            assert!(!log.contains(refusal), "{name}: {log}");
        }
        let home = mesh.stop();
        // The file system of a container is read-only, but for the mails of notification, which have a `tmpfs`.
        let written =
            fs::read_dir(home.data()).map_or(Vec::new(), |files| files.map(|file| file.unwrap().file_name()).collect());
        let expected: &[&str] = if name == "notification" { &["mail"] } else { &[] };
        assert_eq!(written, expected, "{name} writes into its data directory");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_postgres_role_can_access_only_its_own_schema() {
    let stack = Stack::start().await;
    let names = services_on_postgres();
    let connect = async |name: &str, database: &str| {
        let mut url = stack.database.url().clone();
        let password = fs::read_to_string(stack.copy.path(&format!("deploy/compose/secrets/{name}_database_password")));
        url.set_username(&format!("drystone_{name}")).unwrap();
        url.set_password(Some(&password.unwrap())).unwrap();
        if !database.is_empty() {
            url.set_path(database);
        }
        <sqlx::PgConnection as sqlx::Connection>::connect(url.as_str()).await
    };
    for name in names.iter().copied() {
        let mut connection = connect(name, "").await.unwrap();
        let own = format!("CREATE TABLE drystone_{name}.stone (weight BIGINT)");
        sqlx::raw_sql(sqlx::AssertSqlSafe(own)).execute(&mut connection).await.unwrap();
        assert!(connect(name, "postgres").await.is_err(), "{name} can connect to the database `postgres`");
    }
    for name in names.iter().copied() {
        let mut connection = connect(name, "").await.unwrap();
        let others = names.iter().filter(|other| **other != name);
        let tables = others.map(|other| format!("SELECT * FROM drystone_{other}.stone"));
        let statements = [
            "CREATE TABLE public.stone (weight BIGINT)".to_owned(),
            "CREATE SCHEMA quarry".to_owned(),
            "CREATE TEMPORARY TABLE stone (weight BIGINT)".to_owned(),
            "CREATE ROLE mason".to_owned(),
            "CREATE DATABASE quarry".to_owned(),
            "SELECT pg_read_file('/etc/passwd')".to_owned(),
            "SELECT rolpassword FROM pg_authid".to_owned(),
        ];
        for statement in tables.chain(statements) {
            let outcome = sqlx::raw_sql(sqlx::AssertSqlSafe(statement.clone())).execute(&mut connection).await;
            let refusal = outcome.map(drop).unwrap_err().to_string();
            assert!(refusal.contains("permission denied"), "{name}: {statement}: {refusal}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_redis_user_can_access_only_its_own_keys() {
    let stack = Stack::start().await;
    let password = |name: &str| {
        fs::read_to_string(stack.copy.path(&format!("deploy/compose/secrets/{name}_redis_password"))).unwrap()
    };
    let address = stack.redis.url().replace("redis://", "");
    let send = |name: &str, commands: &[&str]| -> Vec<String> {
        let login = if name.is_empty() { String::new() } else { format!("AUTH {name} {}\r\n", password(name)) };
        send_lines(&address, &format!("{login}{}\r\n", commands.join("\r\n")))
    };
    assert_eq!(send("", &["PING"]), ["+PONG"], "the health check needs no password");
    for command in ["GET drystone:limit:{sign_in_address:1}", "INFO", "DBSIZE", "CONFIG GET requirepass"] {
        assert!(send("", &[command])[0].starts_with("-NOPERM"), "{command}");
    }
    for (name, own, other) in [
        ("auth", "drystone:limit:{sign_in_address:1}", "drystone:limit:{request_address:1}"),
        ("session", "drystone:session:{0}:1", "drystone:limit:{sign_in_address:1}"),
    ] {
        assert_eq!(send(name, &[&format!("SET {own} 1")]), ["+OK", "+OK"], "{name}");
        let other = format!("SET {other} 1");
        for command in [other.as_str(), "SET elsewhere 1", "FLUSHALL", "KEYS *", "CONFIG GET *", "ACL LIST", "SHUTDOWN"]
        {
            let answers = send(name, &[command]);
            assert_eq!(answers[0], "+OK", "{name}");
            assert!(answers[1].starts_with("-NOPERM"), "{name}: {command}: {answers:?}");
        }
    }
    let wrong = send_lines(&address, "AUTH session wrong\r\n");
    assert!(wrong[0].starts_with("-WRONGPASS"), "{wrong:?}");
}

/// Sends these lines to Redis; the replies, one line each.
fn send_lines(address: &str, lines: &str) -> Vec<String> {
    use std::io::{BufRead, BufReader, Write};
    let mut stream = std::net::TcpStream::connect(address).unwrap();
    stream.write_all(lines.as_bytes()).unwrap();
    let answers = BufReader::new(stream).lines().take(lines.matches("\r\n").count());
    answers.map(|answer| answer.unwrap()).collect()
}
