use std::{ffi::OsString, path::Path, time::Duration};

use drystone_mesh::client::BreakerSettings;
use drystone_store::PoolConfig;

use super::*;

fn load<'a>(pairs: impl IntoIterator<Item = (&'a str, &'a str)>) -> Result<Config, ConfigError> {
    let variables = pairs.into_iter().map(|(name, value)| (OsString::from(name), OsString::from(value)));
    Config::load(&App::new(), &ConfigSources::new().environment(variables))
}

fn fault<'a>(pairs: impl IntoIterator<Item = (&'a str, &'a str)>) -> String {
    load(pairs).unwrap_err().to_string()
}

#[test]
fn the_defaults_are_those_of_the_design() {
    let config = load([]).unwrap();
    for (name, expected) in [
        ("auth", "127.0.0.1:50051"),
        ("user", "127.0.0.1:50052"),
        ("session", "127.0.0.1:50053"),
        ("property", "127.0.0.1:50054"),
        ("edge", "127.0.0.1:8080"),
    ] {
        assert_eq!(config.service(name).unwrap().listen.to_string(), expected);
    }
    assert_eq!(config.mesh.admin.listen.to_string(), "127.0.0.1:8081");
    assert_eq!(config.mesh.trust_domain.as_str(), "drystone.local");
    assert_eq!((config.mesh.data_dir, config.mesh.certs_dir), ("data".into(), "certs/dev".into()));
}

#[test]
fn the_issuer_is_the_edge_unless_it_is_set() {
    let edge = (Ipv4Addr::LOCALHOST, 4711).into();
    assert_eq!(load([]).unwrap().issuer(edge), "http://127.0.0.1:4711");
    let set = load([("DRYSTONE_ISSUER", "https://id.example.org")]).unwrap();
    assert_eq!(set.issuer(edge), "https://id.example.org");
    for invalid in [
        "id.example.org",
        "https://",
        "https:///x",
        "https://a/x",
        "https://a/",
        "https://a b",
        "https://a?b",
        "https://a#b",
        "ftp://a",
    ] {
        assert!(fault([("DRYSTONE_ISSUER", invalid)]).starts_with("issuer must be a URL"), "{invalid}");
    }
}

#[test]
fn peers_override_the_listen_addresses() {
    let config =
        load([("DRYSTONE_PEERS__AUTH", "auth.internal:50051"), ("DRYSTONE_USER__LISTEN", "127.0.0.1:6000")]).unwrap();
    let peers = config.peers();
    assert_eq!(peers["auth"].addresses, ["auth.internal:50051"]);
    assert_eq!(peers["user"].addresses, ["127.0.0.1:6000"]);
    assert_eq!(peers["session"].addresses, ["127.0.0.1:50053"]);
    assert!(fault([("DRYSTONE_PEERS__AUTH", "auth")]).contains("`peers.auth`"));
    let config = load([("DRYSTONE_PEERS__MAIL", "mail:1")]).unwrap();
    let unknown = config.contracts(&App::new()).unwrap_err().to_string();
    let contracts = load([]).unwrap().contracts(&App::new()).unwrap();
    let known = contracts.served_workloads().iter().map(String::as_str).collect::<Vec<_>>().join(", ");
    assert!(unknown.contains("peers.mail") && unknown.ends_with(&known) && known.starts_with("auth, "), "{unknown}");
}

#[test]
fn a_peer_can_have_several_instances() {
    let config = load([("DRYSTONE_PEERS__AUTH", r#"["auth-1:50051", "auth-2:50051", "auth-1:50051"]"#)]).unwrap();
    assert_eq!(config.peers()["auth"].addresses, ["auth-1:50051", "auth-2:50051"]);
    assert!(fault([("DRYSTONE_PEERS__AUTH", "[]")]).contains("a list of addresses must not be empty"));
    assert!(
        fault([("DRYSTONE_PEERS__AUTH", r#"["auth-1:50051", "auth-2"]"#)])
            .contains("it is not the address of a service")
    );
    assert!(fault([("DRYSTONE_PEERS__AUTH", "50051")]).contains("HOST:PORT, or a list of them"));
}

#[test]
fn a_peer_can_be_a_table_with_settings() {
    let config = load([
        ("DRYSTONE_PEERS__AUTH", r#"{addresses = ["auth-1:1", "auth-2:1"], failure_threshold = 3, open_time = "5s"}"#),
        ("DRYSTONE_PEERS__USER__PROBE_INTERVAL", "250ms"),
        (
            "DRYSTONE_PEERS__USER__GROUPS",
            r#"[{name = "canary", addresses = "user-9:1", percent = 5, header = {name = "X-Release", value = "next"}}]"#,
        ),
    ])
    .unwrap();
    let peers = config.peers();
    let auth = &peers["auth"];
    assert_eq!(auth.addresses, ["auth-1:1", "auth-2:1"]);
    assert_eq!((auth.breaker.failure_threshold, auth.breaker.success_threshold), (3, 1));
    assert_eq!(auth.breaker.open_time, Duration::from_secs(5));
    let user = &peers["user"];
    assert_eq!(user.addresses, ["127.0.0.1:50052"], "that of its section");
    assert!(!config.names_peer("user") && config.names_peer("auth"));
    assert_eq!((user.probe.interval, user.probe.timeout), (Duration::from_millis(250), Duration::from_secs(1)));
    let [canary] = &user.groups[..] else { panic!("{user:?}") };
    assert_eq!((canary.name.as_str(), canary.percent), ("canary", 5));
    assert_eq!(canary.addresses, ["user-9:1"]);
    let (name, value) = canary.header.clone().unwrap();
    assert_eq!((name.as_str(), value.to_str().unwrap()), ("x-release", "next"));
    assert_eq!(peers["session"].breaker, BreakerSettings::default());
}

#[test]
fn invalid_settings_of_a_peer_are_refused_by_their_key() {
    for (value, expected) in [
        ("{failure_threshold = 0}", "peers.user.failure_threshold must be from 1 to 1000, not 0"),
        ("{success_threshold = 1001}", "peers.user.success_threshold must be from 1 to 1000"),
        (r#"{open_time = "11m"}"#, "peers.user.open_time must be from 10ms to 10m, not 11m"),
        (r#"{probe_interval = "1ms"}"#, "peers.user.probe_interval must be from 50ms to 5m"),
        (r#"{probe_timeout = "0s"}"#, "peers.user.probe_timeout must be from 10ms to 1m"),
        (r#"{groups = [{name = "", addresses = "a:1", percent = 1}]}"#, "the name of each of peers.user.groups"),
        (r#"{groups = [{name = "default", addresses = "a:1", percent = 1}]}"#, "the name of each of peers.user.groups"),
        (r#"{groups = [{name = "a", percent = 1}]}"#, "peers.user.groups: of `a`, addresses must not be empty"),
        (r#"{groups = [{name = "a", addresses = "a:1"}]}"#, "peers.user.groups: of `a`, percent must be from 1 to 100"),
        (
            r#"{groups = [{name = "a", addresses = "a:1", percent = 101}]}"#,
            "peers.user.groups: of `a`, percent must be",
        ),
        (
            r#"{addresses = "a:1", groups = [{name = "a", addresses = "a:1", percent = 1}]}"#,
            "peers.user.groups: of `a`, the address a:1 must be in one group only",
        ),
        (
            r#"{groups = [{name = "a", addresses = "a:1", header = {name = "grpc-x", value = "1"}}]}"#,
            "peers.user.groups: of `a`, header.name must be",
        ),
        (
            r#"{groups = [{name = "a", addresses = "a:1", header = {name = "x-a", value = ""}}]}"#,
            "peers.user.groups: of `a`, header.value must be",
        ),
        (
            r#"{groups = [{name = "a", addresses = "a:1", percent = 60}, {name = "a", addresses = "b:1", percent = 1}]}"#,
            "peers.user.groups: of `a`, the name must be its own",
        ),
        (
            r#"{groups = [{name = "a", addresses = "a:1", percent = 60}, {name = "b", addresses = "b:1", percent = 60}]}"#,
            "the shares of all peers.user.groups must be at most 100 percent together, not 120",
        ),
    ] {
        let fault = fault([("DRYSTONE_PEERS__USER", value)]);
        assert!(fault.starts_with(expected), "{value}: {fault}");
    }
    let unknown = fault([("DRYSTONE_PEERS__USER__WEIGHT", "5")]);
    assert!(unknown.contains("`peers.user.weight`") && unknown.contains("failure_threshold"), "{unknown}");
}

#[test]
fn a_group_is_not_named_by_metadata_that_grpc_uses_or_outside_clients_choose() {
    for name in [
        "authorization",
        "content-type",
        "grpc-x",
        "te",
        "Traceparent",
        "user-agent",
        "x-drystone-client-agent",
        "x-release-bin",
        "X-Request-Id",
    ] {
        let group = format!(r#"{{name = "a", addresses = "a:1", header = {{name = "{name}", value = "1"}}}}"#);
        let fault = fault([("DRYSTONE_PEERS__USER", format!("{{groups = [{group}]}}").as_str())]);
        assert!(fault.starts_with("peers.user.groups: of `a`, header.name must be an entry"), "{name}: {fault}");
    }
}

#[test]
fn the_limits_of_servers_are_checked() {
    let config = load([("DRYSTONE_SERVER__MAX_IN_FLIGHT", "100")]).unwrap();
    assert_eq!(config.mesh.server.limits().max_in_flight_per_workload, 75);
    let fault = fault([("DRYSTONE_SERVER__MAX_IN_FLIGHT_PER_WORKLOAD", "2000")]);
    assert!(fault.starts_with("server.max_in_flight_per_workload must be from 1 to server.max_in_flight"), "{fault}");
}

#[test]
fn faults_name_the_key() {
    assert!(
        fault([("DRYSTONE_TRUST_DOMAIN", "Drystone Local")]).contains("`trust_domain` in the environment variable")
    );
    assert!(fault([("DRYSTONE_AUTH__ACCESS_TOKEN_LIFETIME", "2h")]).contains("auth.access_token_lifetime"));
    let longer = [("DRYSTONE_AUTH__ACCESS_TOKEN_LIFETIME", "10m"), ("DRYSTONE_SESSION__TOKEN_LIFETIME_MAX", "5m")];
    assert_eq!(fault(longer), "auth.access_token_lifetime must be at most session.token_lifetime_max, which is 5m");
    assert!(fault([("DRYSTONE_EDGE__LISTEN", "localhost")]).contains("must be an IP address with a port"));
}

#[test]
fn each_service_with_data_has_a_database_section() {
    let url = "postgres://ada@db/mesh";
    let config = load([
        ("DRYSTONE_USER__DATABASE__URL", url),
        ("DRYSTONE_USER__DATABASE__PASSWORD_FILE", "password"),
        ("DRYSTONE_USER__DATABASE__POOL__CONNECTIONS", "3"),
    ])
    .unwrap();
    let database = config.service("user").unwrap().database().unwrap();
    assert_eq!(database.password_file, Some("password".into()));
    assert_eq!(database.pool, PoolConfig { connections: 3, ..PoolConfig::default() });
    assert_eq!(config.service("user").unwrap().location(Path::new("data")).unwrap().to_string(), url);
    let property = config.service("property").unwrap().location(Path::new("data")).unwrap();
    assert_eq!(property.to_string(), "data/property.db");
    assert!(config.service("edge").unwrap().database().is_none());
    assert!(fault([("DRYSTONE_USER__DATABASE__POOL__CONNECTIONS", "0")]).starts_with("user.database.pool.connections"));
    let unknown = fault([("DRYSTONE_USER__DATABASE__PATH", "user.db")]);
    assert!(
        unknown.contains("`user.database.path`") && unknown.contains("[user.database]: password_file, pool, url"),
        "{unknown}"
    );
    assert!(fault([("DRYSTONE_EDGE__DATABASE__URL", "edge.db")]).contains("`edge.database`"));
}

#[test]
fn a_database_key_of_a_former_release_is_refused_with_its_replacement() {
    for (key, value, replacement) in [
        ("database", "postgres://ada@db/mesh", "user.database.url"),
        ("database_password_file", "password", "user.database.password_file"),
        ("database_pool", "{connections=3}", "user.database.pool"),
    ] {
        let variable = format!("DRYSTONE_USER__{}", key.to_uppercase());
        assert_eq!(
            fault([(variable.as_str(), value)]),
            format!("`user.{key}` in the environment variable {variable} is now `{replacement}`; rename it")
        );
    }
    let nested = "DRYSTONE_USER__DATABASE_POOL__CONNECTIONS";
    assert!(fault([(nested, "3")]).contains("is now `user.database.pool`"));
}

#[test]
fn using_redis_requires_its_url_and_the_password_is_masked() {
    for key in ["SESSION", "LIMITS"] {
        let store = format!("DRYSTONE_{key}__STORE");
        let fault = fault([(store.as_str(), "redis")]);
        assert!(fault.starts_with(&format!("{}.store is `redis`", key.to_lowercase())), "{fault}");
        let url = ("DRYSTONE_REDIS__URL", "redis://:hunter2@localhost");
        let shown = load([(store.as_str(), "redis"), url]).unwrap().show().unwrap();
        assert!(shown.contains("url = \"(secret)\"") && !shown.contains("hunter2"), "{shown}");
    }
    assert!(fault([("DRYSTONE_REDIS__URL", "http://:hunter2@localhost")]).starts_with("redis.url"));
    assert!(fault([("DRYSTONE_SESSION__STORE", "memory")]).contains("session.store"));
    for key in [
        "requests_per_minute",
        "sign_in_per_minute",
        "refresh_per_minute",
        "registration_per_minute",
        "password_reset_per_minute",
        "email_per_minute",
        "factor_per_minute",
        "write_per_minute",
    ] {
        let variable = format!("DRYSTONE_LIMITS__{}", key.to_uppercase());
        assert!(fault([(variable.as_str(), "1000001")]).starts_with(&format!("limits.{key} must be at most 1000000")));
        let shown = load([(variable.as_str(), "77")]).unwrap().show().unwrap();
        assert!(shown.contains(&format!("{key} = 77")), "{shown}");
    }
}

#[test]
fn shadow_contracts_are_descriptor_sets_without_duplicate_services() {
    let dir = tempfile::tempdir().unwrap();
    let write = |name: &str, bytes: &[u8]| {
        let path = dir.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        path.display().to_string()
    };
    let (good, other) = (write("a.binpb", drystone::CONTRACT.descriptor_set()), write("b.binpb", b"nonsense"));
    let rules = |paths: &[&str]| {
        let list = format!("{paths:?}");
        load([("DRYSTONE_ACCESS__SHADOW_CONTRACTS", list.as_str())]).unwrap().shadow_rules()
    };
    let contracts = drystone::contracts().unwrap();
    assert!(contracts.methods().iter().all(|method| rules(&[&good]).unwrap().of(method).is_some()));
    assert!(rules(&[]).unwrap().of(&contracts.methods()[0]).is_none());
    for paths in [&[other.as_str()][..], &["none.binpb"], &[&good, &good]] {
        let fault = rules(paths).unwrap_err().to_string();
        assert!(fault.starts_with("access.shadow_contracts: "), "{fault}");
    }
}

#[test]
fn what_is_shown_can_be_loaded() {
    let canary = r#"[{name = "canary", addresses = ["p:1", "q:1"], header = {name = "x-release", value = "next"}}]"#;
    let peers = [
        ("DRYSTONE_PEERS__AUTH", "auth:1"),
        ("DRYSTONE_PEERS__USER", r#"["user-1:1", "user-2:1"]"#),
        ("DRYSTONE_PEERS__SESSION__OPEN_TIME", "2s"),
        ("DRYSTONE_PEERS__PROPERTY__GROUPS", canary),
    ];
    let shown = load(peers).unwrap().show().unwrap();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("drystone.toml");
    std::fs::write(&path, &shown).unwrap();
    assert_eq!(Config::load(&App::new(), &ConfigSources::new().file(path)).unwrap().show().unwrap(), shown);
}
