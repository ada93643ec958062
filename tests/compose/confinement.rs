//! What a container may do, and whom it reaches.

use std::collections::BTreeSet;

use drystone_tests::{methods, parts, services_on_postgres};
use serde_json::Value;

use crate::file::{Compose, Service, texts};

#[test]
fn every_service_of_the_mesh_has_a_container_of_its_own() {
    let compose = Compose::read();
    for service in compose.ours() {
        assert_eq!(service.list("command"), ["serve", service.name]);
    }
    let others: Vec<&str> = compose.services().iter().map(|service| service.name).collect();
    let others: Vec<&str> = others.into_iter().filter(|name| !parts().contains(name)).collect();
    assert_eq!(others, ["postgres", "redis"]);
}

#[test]
fn no_container_has_more_rights_than_it_needs() {
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
        // The two halves of `${MESH_UID:?...}:${MESH_GID:?...}`, or of two numbers.
        let ids = service.text("user").replace("}:$", "} $");
        let ids: Vec<&str> = if ids.starts_with('$') { ids.split("} ").collect() } else { ids.split(':').collect() };
        assert_eq!(ids.len(), 2, "{name} runs as a user and a group");
        for id in ids {
            let is_ours = id.starts_with("${MESH_UID:?") || id.starts_with("${MESH_GID:?");
            assert!(is_ours || id.parse::<u32>().is_ok_and(|id| id != 0), "{name} runs as {id}");
        }
        for limit in ["mem_limit", "pids_limit"] {
            assert!(service.has(limit), "{name} has no {limit}");
        }
        assert!(!service.text("mem_limit").is_empty() && service.value("pids_limit").is_u64(), "{name}");
    }
}

#[test]
fn what_ends_is_started_again_and_may_end_in_peace() {
    for service in Compose::read().services() {
        assert_eq!(service.text("restart"), "unless-stopped", "{}", service.name);
        // The program takes up to 22 s to stop in order.
        let seconds: u32 = service.text("stop_grace_period").trim_end_matches('s').parse().unwrap();
        assert!(seconds >= 30, "{}", service.name);
    }
}

#[test]
fn the_order_of_starting_does_not_matter() {
    for service in Compose::read().services() {
        assert!(!service.has("depends_on"), "{}", service.name);
    }
}

#[test]
fn there_can_be_several_of_each_and_only_the_edge_is_reached_from_outside() {
    for service in Compose::read().services() {
        let name = service.name;
        assert!(!service.has("container_name") && !service.has("hostname"), "{name}");
        let ports = service.list("ports");
        if name == "edge" {
            assert_eq!(ports, ["127.0.0.1:8080:8080"]);
        } else {
            assert!(ports.is_empty() && !service.has("expose"), "{name} publishes {ports:?}");
        }
    }
}

#[test]
fn everybody_but_the_edge_is_on_networks_that_lead_nowhere_else() {
    let compose = Compose::read();
    let networks = compose.defined("networks").as_object().unwrap();
    let is_internal = |name: &str| networks[name]["internal"] == Value::Bool(true);
    for service in compose.services() {
        let outside: Vec<&str> = service.list("networks").into_iter().filter(|name| !is_internal(name)).collect();
        let expected: &[&str] = if service.name == "edge" { &["outside"] } else { &[] };
        assert_eq!(outside, expected, "{}", service.name);
    }
}

#[test]
fn a_store_is_reached_only_by_those_who_keep_something_there() {
    let compose = Compose::read();
    let on = |network: &str| -> Vec<&str> {
        let services = compose.services();
        let is_there = |service: &Service| service.list("networks").contains(&network);
        let mut names: Vec<&str> = services.into_iter().filter(is_there).map(|service| service.name).collect();
        names.sort_unstable();
        names
    };
    // Sessions are in Redis, and so is what counts attempts, which who serves a limited RPC asks.
    let counting = methods().iter().filter(|method| method.policy.limit.is_some()).map(|method| &*method.workload);
    let sorted = |names: &mut dyn Iterator<Item = &'static str>| names.collect::<BTreeSet<_>>().into_iter().collect();
    let expected: Vec<&str> = sorted(&mut services_on_postgres().into_iter().chain(["postgres"]));
    assert_eq!(on("postgres"), expected);
    let expected: Vec<&str> = sorted(&mut counting.chain(["redis", "session"]));
    assert_eq!(on("redis"), expected);
    let expected: Vec<&str> = sorted(&mut parts().into_iter());
    assert_eq!(on("mesh"), expected);
}

#[test]
fn images_are_pinned() {
    for service in Compose::read().services() {
        assert!(is_pinned(service.text("image")), "{}", service.text("image"));
    }
}

/// Whether an image is named with all three parts of its version.
pub fn is_pinned(image: &str) -> bool {
    let tag = image.split_once(':').map_or("", |(_, tag)| tag);
    let version = tag.split('-').next().unwrap_or_default();
    let parts: Vec<&str> = version.split('.').collect();
    // PostgreSQL counts in two.
    let count = if image.starts_with("postgres:") { 2 } else { 3 };
    parts.len() == count && parts.iter().all(|part| part.parse::<u32>().is_ok())
}

#[test]
fn every_container_says_how_it_is() {
    let compose = Compose::read();
    for service in compose.services() {
        let check = service.value("healthcheck");
        let test = texts(&check["test"]);
        let expected: &[&str] = match service.name {
            "postgres" => &["CMD", "pg_isready", "--host=127.0.0.1", "--username=postgres", "--dbname=drystone"],
            "redis" => &["CMD-SHELL", "redis-cli ping | grep --quiet PONG"],
            _ => &["CMD", "/drystone", "health"],
        };
        assert_eq!(test, expected, "{}", service.name);
        assert!(check.get("disable").is_none(), "{}", service.name);
        // The program gives up after 3 s, and is to be heard.
        assert_eq!((&check["interval"], &check["timeout"]), (&"10s".into(), &"5s".into()), "{}", service.name);
    }
    assert_eq!(compose.service("postgres").environment()["POSTGRES_DB"], "drystone");
}
