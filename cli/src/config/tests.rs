use std::{ffi::OsString, path::Path};

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
    assert_eq!(peers["auth"], ["auth.internal:50051"]);
    assert_eq!(peers["user"], ["127.0.0.1:6000"]);
    assert_eq!(peers["session"], ["127.0.0.1:50053"]);
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
    assert_eq!(config.peers()["auth"], ["auth-1:50051", "auth-2:50051"]);
    assert!(fault([("DRYSTONE_PEERS__AUTH", "[]")]).contains("a list of addresses must not be empty"));
    assert!(
        fault([("DRYSTONE_PEERS__AUTH", r#"["auth-1:50051", "auth-2"]"#)])
            .contains("it is not the address of a service")
    );
    assert!(fault([("DRYSTONE_PEERS__AUTH", "50051")]).contains("HOST:PORT, or a list of them"));
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
fn what_is_shown_can_be_loaded() {
    let peers = [("DRYSTONE_PEERS__AUTH", "auth:1"), ("DRYSTONE_PEERS__USER", r#"["user-1:1", "user-2:1"]"#)];
    let shown = load(peers).unwrap().show().unwrap();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("drystone.toml");
    std::fs::write(&path, &shown).unwrap();
    assert_eq!(Config::load(&App::new(), &ConfigSources::new().file(path)).unwrap().show().unwrap(), shown);
}
