//! Files mounted into the containers.

use std::collections::BTreeSet;

use drystone_tests::services_on_postgres;

use crate::file::{Compose, path, shared, text};

#[test]
fn every_secret_and_config_is_used_and_has_a_valid_path() {
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
            assert!(used.contains(&source), "{name} is not used");
            if kind == "configs" {
                assert!(path(&source).is_file(), "{source} is missing");
            } else {
                assert!(source.starts_with("deploy/compose/secrets/"), "{source}");
            }
        }
    }
    let ignored = text(".gitignore");
    for line in ["/deploy/compose/secrets", ".env"] {
        assert!(ignored.lines().any(|ignored| ignored == line), "{line} is not in .gitignore");
    }
}

#[test]
fn a_service_mounts_only_its_own_secrets() {
    let compose = Compose::read();
    for service in compose.mesh_services() {
        let name = service.name;
        let mut expected = vec!["ca.pem".to_owned(), format!("{name}.key"), format!("{name}.pem")];
        if service.list("networks").contains(&"postgres") {
            expected.push(format!("{name}_database_password"));
        }
        if service.list("networks").contains(&"redis") {
            expected.push(format!("{name}_redis_password"));
        }
        if ["auth", "notification"].contains(&name) {
            expected.push("master_key".to_owned());
        }
        let mut mounted: Vec<String> =
            service.secrets().into_iter().map(|mount| mount.target.replace("/run/secrets/", "")).collect();
        mounted.sort_unstable();
        expected.sort_unstable();
        assert_eq!(mounted, expected, "{name}");
        assert!(!service.has("volumes"), "{name} needs no volume");
    }
    let mounted = |name: &str| -> Vec<String> {
        let secrets = compose.service(name).secrets();
        secrets.into_iter().map(|mount| mount.target.replace("/run/secrets/", "")).collect()
    };
    assert_eq!(mounted("redis"), ["redis_users"], "Redis gets only hashes");
    let roles = services_on_postgres().into_iter().map(|name| format!("{name}_database_password"));
    let expected: BTreeSet<_> = roles.chain(["postgres_password".to_owned()]).collect();
    assert_eq!(mounted("postgres").into_iter().collect::<BTreeSet<_>>(), expected);
}

#[test]
fn secrets_are_mounted_at_their_configured_paths() {
    let compose = Compose::read();
    for service in compose.mesh_services() {
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
    let [program, config] = redis.list("command")[..] else { panic!("redis-server has no configuration file") };
    assert_eq!(program, "redis-server");
    assert!(redis.configs().iter().any(|mount| mount.target == config));
    assert!(text("deploy/compose/redis.conf").contains("\naclfile /run/secrets/redis_users\n"));
    // They run as users of their images and read the secrets as members of the group.
    for store in [postgres, redis] {
        let groups = store.list("group_add");
        assert!(matches!(groups[..], [group] if group.starts_with("${MESH_GID:?")), "{}: {groups:?}", store.name);
    }
}

#[test]
fn stores_keep_their_data_on_volumes() {
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
fn no_secret_is_in_a_tracked_file() {
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

/// Whether the text is a URL with a password.
fn has_password(text: &str) -> bool {
    let authority = text.split_once("://").map(|(_, rest)| rest.split(['/', '?']).next().unwrap_or_default());
    authority.and_then(|authority| authority.rsplit_once('@')).is_some_and(|(user, _)| user.contains(':'))
}
