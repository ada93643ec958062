//! What is mounted into a container: all that it needs, and nothing of its neighbours'.

use std::collections::BTreeSet;

use drystone_tests::services_on_postgres;

use crate::file::{Compose, path, shared, text};

#[test]
fn what_is_defined_is_used_and_lies_where_it_is_looked_for() {
    let compose = Compose::read();
    let services = compose.services();
    let used: BTreeSet<String> = services
        .iter()
        .flat_map(|service| service.secrets().into_iter().chain(service.configs()))
        .map(|mount| mount.source)
        .collect();
    for kind in ["secrets", "configs"] {
        for name in compose.defined(kind).as_object().unwrap().keys() {
            let source = compose.source(kind, name);
            assert!(used.contains(&source), "{name} is used by nobody");
            if kind == "configs" {
                assert!(path(&source).is_file(), "{source} is missing");
            } else {
                assert!(source.starts_with("deploy/compose/secrets/"), "{source}");
            }
        }
    }
    let ignored = text(".gitignore");
    for line in ["/deploy/compose/secrets", ".env"] {
        assert!(ignored.lines().any(|ignored| ignored == line), "{line} would get into git");
    }
}

#[test]
fn a_service_is_given_its_own_secrets_and_nobody_elses() {
    let compose = Compose::read();
    for service in compose.ours() {
        let name = service.name;
        let mut expected = vec!["ca.pem".to_owned(), format!("{name}.key"), format!("{name}.pem")];
        if service.list("networks").contains(&"postgres") {
            expected.push(format!("{name}_database_password"));
        }
        if service.list("networks").contains(&"redis") {
            expected.push(format!("{name}_redis_password"));
        }
        let mut given: Vec<String> =
            service.secrets().into_iter().map(|mount| mount.target.replace("/run/secrets/", "")).collect();
        given.sort_unstable();
        expected.sort_unstable();
        assert_eq!(given, expected, "{name}");
        assert!(!service.has("volumes"), "{name} needs no volume");
    }
    let given = |name: &str| -> Vec<String> {
        let secrets = compose.service(name).secrets();
        secrets.into_iter().map(|mount| mount.target.replace("/run/secrets/", "")).collect()
    };
    assert_eq!(given("redis"), ["redis_users"], "Redis gets hashes alone");
    let roles = services_on_postgres().into_iter().map(|name| format!("{name}_database_password"));
    let expected: BTreeSet<_> = roles.chain(["postgres_password".to_owned()]).collect();
    assert_eq!(given("postgres").into_iter().collect::<BTreeSet<_>>(), expected);
}

#[test]
fn a_secret_lies_where_the_configuration_looks_for_it() {
    let compose = Compose::read();
    for service in compose.ours() {
        let name = service.name;
        let targets: Vec<String> = service.secrets().into_iter().map(|mount| mount.target).collect();
        let environment = service.environment();
        if service.list("networks").contains(&"postgres") {
            assert!(targets.contains(&shared(&format!("{name}.database"), "password_file")), "{name}");
        }
        let redis = environment.get("DRYSTONE_REDIS__PASSWORD_FILE");
        assert_eq!(redis.is_some(), service.list("networks").contains(&"redis"), "{name}");
        assert!(redis.is_none_or(|file| targets.iter().any(|target| target == file)), "{name}");
        let config = service.configs();
        assert_eq!(config.len(), 1, "{name}");
        assert_eq!(environment["DRYSTONE_CONFIG"], config[0].target, "{name}");
    }
    let postgres = compose.service("postgres");
    let password = postgres.environment()["POSTGRES_PASSWORD_FILE"];
    assert!(postgres.secrets().iter().any(|mount| mount.target == password));
    assert!(postgres.configs().iter().any(|mount| mount.target == "/docker-entrypoint-initdb.d/roles.sql"));
    let redis = compose.service("redis");
    let [program, config] = redis.list("command")[..] else { panic!("redis is told its configuration") };
    assert_eq!(program, "redis-server");
    assert!(redis.configs().iter().any(|mount| mount.target == config));
    assert!(text("deploy/compose/redis.conf").contains("\naclfile /run/secrets/redis_users\n"));
    // They run as users of their images, and read what belongs to the group of whoever made it.
    for store in [postgres, redis] {
        let groups = store.list("group_add");
        assert!(matches!(groups[..], [group] if group.starts_with("${MESH_GID:?")), "{}: {groups:?}", store.name);
    }
}

#[test]
fn what_must_be_kept_is_on_a_volume() {
    let compose = Compose::read();
    for (name, volume) in [("postgres", "postgres:/var/lib/postgresql/data"), ("redis", "redis:/data")] {
        assert_eq!(compose.service(name).list("volumes"), [volume]);
        assert!(compose.defined("volumes").get(name).is_some(), "{name}");
    }
    let redis = text("deploy/compose/redis.conf");
    for line in ["dir /data", "appendonly yes", "appendfsync always", "maxmemory-policy noeviction"] {
        assert!(redis.lines().any(|found| found == line), "{line}");
    }
}

#[test]
fn no_secret_stands_in_a_file_that_git_keeps() {
    let compose = Compose::read();
    for service in compose.services() {
        for (name, value) in service.environment() {
            assert!(!name.contains("PASSWORD") || name.ends_with("_FILE"), "{}: {name}", service.name);
            assert!(!has_password(value), "{}: {name}", service.name);
        }
    }
    for file in ["docker-compose.yml", "deploy/compose/drystone.toml", "deploy/compose/redis.conf", "Dockerfile"] {
        for word in text(file).split([' ', '"', '\n']) {
            assert!(!has_password(word), "{file}: {word}");
            assert!(word != "requirepass", "{file}: {word}");
        }
    }
}

/// Whether it is a URL with a password.
fn has_password(text: &str) -> bool {
    let authority = text.split_once("://").map(|(_, rest)| rest.split(['/', '?']).next().unwrap_or_default());
    authority.and_then(|authority| authority.rsplit_once('@')).is_some_and(|(user, _)| user.contains(':'))
}
