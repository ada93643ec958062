//! Rights and networks of the containers.

use std::collections::BTreeSet;

use drystone::contract::{Method, Subject};
use drystone_tests::{methods, modules, services_on_postgres};
use serde_json::Value;

use crate::file::{Compose, Service, texts};

#[test]
fn each_service_has_its_own_container() {
    let compose = Compose::read();
    for service in compose.mesh_services() {
        assert_eq!(service.list("command"), ["serve", service.name]);
    }
    let others: Vec<&str> = compose.services().iter().map(|service| service.name).collect();
    let others: Vec<&str> = others.into_iter().filter(|name| !modules().contains(name)).collect();
    assert_eq!(others, ["envoy", "postgres", "redis"]);
}

#[test]
fn containers_run_with_least_privilege() {
    for service in Compose::read().services() {
        let name = service.name;
        assert_eq!(service.value("read_only"), &Value::Bool(true), "{name}");
        assert_eq!(service.list("cap_drop"), ["ALL"], "{name}");
        assert_eq!(service.list("security_opt"), ["no-new-privileges:true"], "{name}");
        let forbidden = [
            "privileged",
            "cap_add",
            "devices",
            "pid",
            "ipc",
            "network_mode",
            "userns_mode",
            "cgroup",
            "volumes_from",
            "env_file",
        ];
        for key in forbidden {
            assert!(!service.has(key), "{name} has {key}");
        }
        // `${MESH_UID:?...}:${MESH_GID:?...}`, or two numbers.
        let ids = service.text("user").replace("}:$", "} $");
        let ids: Vec<&str> = if ids.starts_with('$') { ids.split("} ").collect() } else { ids.split(':').collect() };
        assert_eq!(ids.len(), 2, "{name} runs as a user and a group");
        for id in ids {
            let is_variable = id.starts_with("${MESH_UID:?") || id.starts_with("${MESH_GID:?");
            assert!(is_variable || id.parse::<u32>().is_ok_and(|id| id != 0), "{name} runs as {id}");
        }
        for limit in ["mem_limit", "pids_limit"] {
            assert!(service.has(limit), "{name} has no {limit}");
        }
        assert!(!service.text("mem_limit").is_empty() && service.value("pids_limit").is_u64(), "{name}");
    }
}

#[test]
fn containers_restart_and_have_a_stop_grace_period() {
    for service in Compose::read().services() {
        assert_eq!(service.text("restart"), "unless-stopped", "{}", service.name);
        // A graceful stop takes up to 22 s.
        let seconds: u32 = service.text("stop_grace_period").trim_end_matches('s').parse().unwrap();
        assert!(seconds >= 30, "{}", service.name);
    }
}

#[test]
fn no_service_declares_depends_on() {
    for service in Compose::read().services() {
        assert!(!service.has("depends_on"), "{}", service.name);
    }
}

#[test]
fn services_can_be_scaled_and_only_entry_points_publish_a_port() {
    for service in Compose::read().services() {
        let name = service.name;
        assert!(!service.has("container_name") && !service.has("hostname"), "{name}");
        let ports = service.list("ports");
        match name {
            "edge" => assert_eq!(ports, ["127.0.0.1:8080:8080"]),
            "envoy" => assert_eq!(ports, ["127.0.0.1:10000:10000"]),
            _ => assert!(ports.is_empty() && !service.has("expose"), "{name} publishes {ports:?}"),
        }
    }
}

#[test]
fn only_entry_points_and_notification_are_on_an_external_network() {
    let compose = Compose::read();
    let networks = compose.defined("networks").as_object().unwrap();
    let is_internal = |name: &str| networks[name]["internal"] == Value::Bool(true);
    for service in compose.services() {
        let outside: Vec<&str> = service.list("networks").into_iter().filter(|name| !is_internal(name)).collect();
        let expected: &[&str] = match service.name {
            "edge" | "envoy" => &["outside"],
            // On one of its own: nobody outside reaches it, and it reaches mail servers and webhooks.
            "notification" => &["outgoing"],
            _ => &[],
        };
        assert_eq!(outside, expected, "{}", service.name);
    }
}

#[test]
fn a_store_is_reachable_only_by_its_clients() {
    let compose = Compose::read();
    let on = |network: &str| -> Vec<&str> {
        let services = compose.services();
        let is_there = |service: &Service| service.list("networks").contains(&network);
        let mut names: Vec<&str> = services.into_iter().filter(is_there).map(|service| service.name).collect();
        names.sort_unstable();
        names
    };
    // Redis has the sessions, and the rate limits of services with a limited RPC for strangers.
    let is_counted = |method: &&Method| method.policy.limit.is_some() && method.subject == Subject::None;
    let counting = methods().iter().map(AsRef::as_ref).filter(is_counted).map(|method| &*method.workload);
    let sorted = |names: &mut dyn Iterator<Item = &'static str>| names.collect::<BTreeSet<_>>().into_iter().collect();
    let expected: Vec<&str> = sorted(&mut services_on_postgres().into_iter().chain(["postgres"]));
    assert_eq!(on("postgres"), expected);
    let expected: Vec<&str> = sorted(&mut counting.chain(["redis", "session"]));
    assert_eq!(on("redis"), expected);
    let expected: Vec<&str> = sorted(&mut modules().into_iter().chain(["envoy"]));
    assert_eq!(on("mesh"), expected);
}

#[test]
fn images_are_pinned() {
    for service in Compose::read().services() {
        assert!(is_pinned(service.text("image")), "{}", service.text("image"));
    }
}

/// Whether the tag of an image is a complete version.
pub fn is_pinned(image: &str) -> bool {
    let tag = image.split_once(':').map_or("", |(_, tag)| tag);
    let version = tag.split('-').next().unwrap_or_default().trim_start_matches('v');
    let parts: Vec<&str> = version.split('.').collect();
    // PostgreSQL versions have two parts.
    let count = if image.starts_with("postgres:") { 2 } else { 3 };
    parts.len() == count && parts.iter().all(|part| part.parse::<u32>().is_ok())
}

#[test]
fn every_container_has_a_health_check() {
    let compose = Compose::read();
    for service in compose.services() {
        let check = service.value("healthcheck");
        let test = texts(&check["test"]);
        let expected: &[&str] = match service.name {
            "postgres" => &["CMD", "pg_isready", "--host=127.0.0.1", "--username=postgres", "--dbname=drystone"],
            // `envoy::the_health_check_finds_envoy_ready` runs it.
            "envoy" => &["CMD", "bash", "-c", test[3]],
            "redis" => &["CMD-SHELL", "redis-cli ping | grep --quiet PONG"],
            _ => &["CMD", "/drystone", "health"],
        };
        assert_eq!(test, expected, "{}", service.name);
        assert!(check.get("disable").is_none(), "{}", service.name);
        // The command has a timeout of 3 s, so its error is reported before this one.
        assert_eq!((&check["interval"], &check["timeout"]), (&"10s".into(), &"5s".into()), "{}", service.name);
    }
    assert_eq!(compose.service("postgres").environment()["POSTGRES_DB"], "drystone");
}
