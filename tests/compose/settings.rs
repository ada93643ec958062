//! Checks commands, environment and configuration of the containers with the program.

use std::process::Command;

use drystone_tests::{
    free_addresses,
    process::{drystone, run_to_end},
    services, services_on_postgres,
};

use crate::file::{Compose, Service, path, shared};

/// The program with these arguments and the environment of the container.
fn container_command(service: Service, arguments: &[&str]) -> Command {
    let mut command = drystone(arguments);
    for (name, value) in service.environment() {
        let mount = service.configs().into_iter().find(|mount| mount.target == value);
        match mount {
            Some(mount) => command.env(name, path(&mount.source)),
            None => command.env(name, value),
        };
    }
    command
}

#[test]
fn every_service_configuration_is_valid() {
    let compose = Compose::read();
    for service in compose.mesh_services() {
        let ended = run_to_end(&mut container_command(service, &["config", "check"]));
        assert!(ended.status.success(), "{}: {}", service.name, ended.stderr);
        let wrong = run_to_end(container_command(service, &["config", "check"]).env("DRYSTONE_REDIS__USER", "x"));
        assert_eq!(wrong.status.code(), Some(2), "an unknown key is refused: {wrong:?}");
    }
}

#[test]
fn every_service_command_line_is_valid() {
    let compose = Compose::read();
    for service in compose.mesh_services() {
        let mut command = container_command(service, &service.list("command"));
        let ended = run_to_end(command.env("DRYSTONE_CERTS_DIR", "/nonexistent"));
        // The command line is valid: it fails only at the missing certificate.
        let certificate = format!("cannot read the certificate /nonexistent/{}.pem", service.name);
        assert_eq!(ended.status.code(), Some(1), "{ended:?}");
        assert!(ended.stderr.contains(&certificate), "{}: {}", service.name, ended.stderr);
    }
}

#[test]
fn every_health_check_command_is_valid() {
    let compose = Compose::read();
    for service in compose.mesh_services() {
        let test = service.value("healthcheck")["test"].clone();
        let words = crate::file::texts(&test);
        let [_, _, arguments @ ..] = words.as_slice() else { panic!("{words:?}") };
        let [unused] = free_addresses::<1>().map(|address| address.to_string());
        let ended = run_to_end(container_command(service, arguments).env("DRYSTONE_ADMIN__LISTEN", &unused));
        assert_eq!(ended.status.code(), Some(1), "{ended:?}");
        assert!(ended.stderr.contains(&format!("no server answers at http://{unused}")), "{}", ended.stderr);
    }
}

/// Otherwise all clients share the address of the gateway, and its limits.
#[test]
fn the_edge_trusts_the_gateway_that_its_published_port_comes_from() {
    let compose = Compose::read();
    let network = &compose.defined("networks")["outside"]["ipam"]["config"][0];
    let gateway = network["gateway"].as_str().unwrap();
    assert_eq!(shared("edge", "trusted_proxies"), format!("[\"{gateway}\"]"));
    // Only proxies on the machine itself reach it: another client could forge its address.
    let ports = compose.service("edge").list("ports");
    assert!(ports.iter().all(|port| port.starts_with("127.0.0.1:")), "{ports:?}");
}

#[test]
fn peers_are_services_with_matching_ports() {
    let compose = Compose::read();
    for name in services() {
        let peer = shared("peers", name);
        let (host, port) = peer.split_once(':').unwrap();
        assert_eq!(host, name, "the host is the service name");
        assert_eq!(shared(name, "listen"), format!("0.0.0.0:{port}"), "{name}");
        for other in compose.mesh_services() {
            let shares =
                other.list("networks").iter().any(|network| compose.service(name).list("networks").contains(network));
            assert!(shares, "{} cannot reach {name}", other.name);
        }
    }
    let published = compose.service("edge").list("ports")[0].rsplit_once(':').map(|(_, port)| port);
    assert_eq!(shared("edge", "listen").rsplit_once(':').map(|(_, port)| port), published);
}

#[test]
fn stores_are_services_on_a_shared_network() {
    let compose = Compose::read();
    let shares = |one: Service, network: &str| one.list("networks").contains(&network);
    for name in services_on_postgres() {
        let url = shared(&format!("{name}.database"), "url");
        assert_eq!(url, format!("postgres://drystone_{name}@postgres/drystone?sslmode=disable"));
        assert!(shares(compose.service(name), "postgres") && shares(compose.service("postgres"), "postgres"), "{name}");
    }
    for service in compose.mesh_services().into_iter().filter(|service| shares(*service, "redis")) {
        let name = service.name;
        assert_eq!(service.environment()["DRYSTONE_REDIS__URL"], format!("redis://{name}@redis:6379"));
        assert!(shares(service, "redis") && shares(compose.service("redis"), "redis"), "{name}");
    }
    assert_eq!((shared("session", "store"), shared("limits", "store")), ("redis".to_owned(), "redis".to_owned()));
}
