//! The generated configuration of Envoy in deploy/envoy.

use std::{
    fs,
    path::Path,
    process::{Command, Stdio},
};

use drystone_tests::{Home, binary::repository, ports::free_addresses, process, process::Process, readme, wait};
use tempfile::TempDir;

use crate::file::{Compose, texts};

/// The command that made it.
fn export(output: &Path) {
    let mut export = process::drystone(&["export", "envoy", "--config", "deploy/compose/drystone.toml"]);
    export.args(["--mounted-at", "/etc/envoy", "--output"]).arg(output).current_dir(repository());
    let exported = process::run_to_end(&mut export);
    assert!(exported.status.success(), "{exported:?}");
}

#[test]
fn the_configuration_is_what_the_export_writes_and_every_file_is_mounted() {
    let directory = TempDir::new().unwrap();
    export(directory.path());
    let committed = repository().join("deploy/envoy");
    let names = |directory: &Path| {
        let entries = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let mut names: Vec<String> = entries.collect();
        names.sort();
        names
    };
    assert_eq!(names(&committed), names(directory.path()));
    for name in names(&committed) {
        let is_equal = fs::read(committed.join(&name)).unwrap() == fs::read(directory.path().join(&name)).unwrap();
        assert!(
            is_equal,
            "deploy/envoy/{name} is out of date; run: drystone export envoy --config deploy/compose/drystone.toml --mounted-at /etc/envoy --output deploy/envoy"
        );
    }
    let compose = Compose::read();
    let mut mounted: Vec<String> =
        compose.service("envoy").configs().into_iter().map(|mount| mount.target.replace("/etc/envoy/", "")).collect();
    mounted.sort();
    assert_eq!(mounted, names(&committed));
}

/// Envoy starts with the configuration, whether or not there are services yet, and the health check of the container sees it.
#[tokio::test]
async fn the_health_check_finds_envoy_ready() {
    let home = Home::new();
    let directory = home.path().join("envoy");
    export(&directory);
    let file = directory.join("envoy.yaml");
    // Here the files and ports are not those of the container.
    let [listen, admin] = free_addresses();
    let text = fs::read_to_string(&file).unwrap().replace("/etc/envoy", directory.to_str().unwrap());
    let text = text.replace("port_value: 10000", &format!("port_value: {}", listen.port()));
    let text = text.replace("port_value: 9901", &format!("port_value: {}", admin.port()));
    fs::write(&file, text).unwrap();
    let compose = Compose::read();
    let check =
        texts(&compose.service("envoy").value("healthcheck")["test"])[3].replace("9901", &admin.port().to_string());
    let is_healthy = || Command::new("bash").args(["-c", &check]).stderr(Stdio::null()).status().unwrap().success();
    assert!(!is_healthy());
    let mut command = Command::new(readme::tool("envoy"));
    command.arg("--config-path").arg(&file).args(["--disable-hot-restart", "--concurrency", "1"]);
    let mut envoy = Process::start(&mut command, &home.path().join("envoy.log"), home.path());
    wait::until("Envoy is healthy", async || {
        assert!(envoy.exit_status().is_none(), "{}", envoy.log());
        is_healthy().then_some(())
    })
    .await;
}
