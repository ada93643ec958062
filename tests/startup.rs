//! Startup of a mesh: the banner, and one-line errors with advice.

use std::{
    fs,
    io::Write,
    net::{TcpListener, TcpStream},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use drystone_tests::{
    Home, Mesh, modules,
    process::{self, Process, ProcessOutput, drystone, run_to_end},
    readme, services, wait,
};
use sqlx::{ConnectOptions, Connection, sqlite::SqliteConnectOptions};

/// A configuration with free ports and all directories in this home.
fn configuration(home: &Home, more: &str) -> PathBuf {
    let sections = modules().into_iter().chain(["admin"]);
    let sections: Vec<_> = sections.map(|name| format!("[{name}]\nlisten = \"127.0.0.1:0\"\n")).collect();
    let sections = sections.concat();
    let (data, certs) = (home.data(), home.path().join("certs"));
    let text = format!("data_dir = '{}'\ncerts_dir = '{}'\n{more}\n{sections}", data.display(), certs.display());
    home.write("drystone.toml", &text)
}

fn up(configuration: &Path) -> ProcessOutput {
    run_to_end(drystone(&["up", "--config"]).arg(configuration))
}

/// The one-line error of a failed start.
#[track_caller]
fn error_line(ended: &ProcessOutput) -> &str {
    assert!(!ended.status.success(), "it exited with success: {ended:#?}");
    assert!(ended.status.code().is_some(), "it was killed by a signal: {ended:#?}");
    assert_eq!(ended.stderr.trim_end().lines().count(), 1, "not one line: {}", ended.stderr);
    assert_eq!(ended.stdout, "", "it printed a banner");
    let line = ended.stderr.trim_end();
    assert!(!line.contains("panicked") && !line.contains("Error {"), "{line}");
    line.strip_prefix("drystone: ").unwrap_or_else(|| panic!("no `drystone: ` prefix: {line}"))
}

#[track_caller]
fn assert_error(ended: &ProcessOutput, words: &[&str]) {
    let line = error_line(ended);
    for word in words {
        assert!(line.contains(word), "`{word}` is missing in: {line}");
    }
}

#[tokio::test]
async fn the_startup_banner_lists_addresses_and_working_commands() {
    let mesh = Mesh::setup().interactive().start();
    // The ready file is written before the banner.
    let banner = async || Some(mesh.stdout()).filter(|text| text.contains("Ctrl-C"));
    let banner = wait::until("the banner is printed", banner).await;
    let addresses = services().into_iter().map(|service| mesh.grpc_address(service).to_string());
    for address in addresses.into_iter().chain([mesh.rest().address().to_string(), mesh.admin_address().to_string()]) {
        assert!(banner.contains(&address), "{address} is missing in: {banner}");
    }
    assert!(banner.contains(mesh.home().data().to_str().unwrap()), "{banner}");

    let examples = banner.split_once("Try next:").and_then(|(_, rest)| rest.split_once("Ctrl-C")).unwrap().0;
    let commands = readme::commands(examples);
    assert_eq!(commands.len(), 3, "{examples}");
    let run = |command: &String| {
        let output = readme::run(command, mesh.home().path());
        assert!(output.status.success(), "{command}: {output:?}");
        String::from_utf8(output.stdout).unwrap()
    };
    let outputs: Vec<String> = commands.iter().map(run).collect();
    assert!(outputs[0].contains("ada@example.com"), "{outputs:#?}");
    assert!(outputs[1].contains("accessToken"), "{outputs:#?}");
    assert!(outputs[2].contains("drystone.user.v1.UserService"), "{outputs:#?}");
    let _home = mesh.interrupt();
}

#[test]
fn an_address_in_use_is_reported() {
    let home = Home::new();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = listener.local_addr().unwrap().to_string();
    for section in ["edge", "user", "admin"] {
        let path = configuration(&home, "");
        let others = fs::read_to_string(&path).unwrap();
        let section = format!("[{section}]\nlisten = \"");
        let text = others.replace(&format!("{section}127.0.0.1:0"), &format!("{section}{taken}"));
        fs::write(&path, text).unwrap();
        assert_error(&up(&path), &[&taken, "in use", &section[1..section.find(']').unwrap()], "listen"]);
    }
}

#[test]
fn an_unwritable_data_directory_is_reported() {
    let home = Home::new();
    // A file in place of a directory stops root as well.
    let file = home.write("file", "");
    let data = file.join("data");
    let path = configuration(&home, "");
    let ended = run_to_end(drystone(&["up", "--config"]).arg(path).arg("--data-dir").arg(&data));
    assert_error(&ended, &[data.to_str().unwrap(), "cannot be written"]);
}

#[test]
fn a_data_directory_is_locked_by_one_mesh() {
    let mesh = Mesh::start();
    let path = configuration(mesh.home(), "");
    assert_error(&up(&path), &[mesh.home().data().to_str().unwrap(), "in use"]);
    let _home = mesh.stop();
}

#[test]
fn an_unknown_configuration_key_is_reported_with_its_source() {
    let home = Home::new();
    let path = configuration(&home, "colour = \"red\"");
    assert_error(&up(&path), &["colour", path.to_str().unwrap()]);

    let path = configuration(&home, "[auth.password]\nmemory_mib = 19");
    assert_error(&up(&path), &["auth.password.memory_mib", path.to_str().unwrap(), "memory_kib"]);

    let path = configuration(&home, "");
    let ended = run_to_end(drystone(&["up", "--config"]).arg(&path).env("DRYSTONE_AUTH__LISTN", "127.0.0.1:1"));
    assert_error(&ended, &["DRYSTONE_AUTH__LISTN", "auth.listn"]);
}

#[test]
fn an_invalid_configuration_value_is_reported_with_the_valid_ones() {
    let home = Home::new();
    for (more, words) in [
        ("[log]\nformat = \"xml\"", ["log.format", "json"]),
        ("[auth.password]\nmemory_kib = \"much\"", ["auth.password.memory_kib", "u32"]),
        ("[auth.hashing]\nqueue_per_thread = 0", ["auth.hashing.queue_per_thread", "at least 1"]),
        ("issuer = \"nowhere\"", ["issuer", "https://"]),
        ("trust_domain = \"Not Valid\"", ["trust_domain", "a-z"]),
    ] {
        let path = configuration(&home, more);
        assert_error(&up(&path), &words);
    }
    let path = home.write("broken.toml", "data_dir = \n");
    assert_error(&up(&path), &[path.to_str().unwrap(), "line 1"]);
    assert_error(&up(&home.path().join("nowhere.toml")), &["nowhere.toml", "--config"]);
}

/// Runs `drystone serve user` with the certificates of an earlier mesh.
fn serve(home: &Home) -> ProcessOutput {
    let path = configuration(home, "");
    run_to_end(drystone(&["serve", "user", "--config"]).arg(path).env("DRYSTONE_CERTS_DIR", home.data().join("certs")))
}

#[test]
fn an_unusable_certificate_or_key_is_reported() {
    let mesh = Mesh::start();
    let [certificate, key] = mesh.certificates().files_of("user").clone();
    let [other, other_key] = mesh.certificates().files_of("auth").clone();
    let ca = mesh.certificates().ca().to_owned();
    let home = mesh.stop();
    let name = |path: &Path| path.to_str().unwrap().to_owned();
    let set = |path: &Path, content: &[u8]| fs::write(path, content).unwrap();
    let read = |path: &Path| fs::read(path).unwrap();
    let (good_certificate, good_key, good_ca) = (read(&certificate), read(&key), read(&ca));

    set(&certificate, b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n");
    assert_error(&serve(&home), &[&name(&certificate)]);
    set(&certificate, b"hello");
    assert_error(&serve(&home), &[&name(&certificate)]);
    set(&certificate, &good_certificate[..good_certificate.len() / 2]);
    assert_error(&serve(&home), &[&name(&certificate)]);
    fs::remove_file(&certificate).unwrap();
    assert_error(&serve(&home), &[&name(&certificate)]);
    // A valid certificate and key of another workload.
    set(&certificate, &read(&other));
    set(&key, &read(&other_key));
    assert_error(&serve(&home), &[&name(&certificate), "/service/auth", "/service/user"]);
    set(&certificate, &good_certificate);
    assert_error(&serve(&home), &[&name(&key), &name(&certificate)]);
    set(&key, b"-----BEGIN PRIVATE KEY-----\nc2VjcmV0\n-----END PRIVATE KEY-----\n");
    let ended = serve(&home);
    assert_error(&ended, &[&name(&key)]);
    assert!(!ended.stderr.contains("c2VjcmV0"), "{}", ended.stderr);
    set(&key, &good_key);
    set(&ca, b"");
    assert_error(&serve(&home), &[&name(&ca)]);
    set(&ca, &good_ca);
    fs::set_permissions(&key, fs::Permissions::from_mode(0o644)).unwrap();
    assert_error(&serve(&home), &[&name(&key), "chmod 600"]);
}

async fn with_database(home: &Home, name: &str, statement: &'static str) -> PathBuf {
    let path = home.data().join(name);
    let mut database = SqliteConnectOptions::new().filename(&path).connect().await.unwrap();
    sqlx::query(statement).execute(&mut database).await.unwrap();
    database.close().await.unwrap();
    path
}

#[tokio::test]
async fn a_database_with_a_newer_schema_is_refused() {
    let home = Mesh::start().stop();
    let statement =
        "INSERT INTO schema_migration (version, name, checksum, applied_at) VALUES (9999, 'later', x'00', 0)";
    let database = with_database(&home, "user.db", statement).await;
    assert_error(&up(&configuration(&home, "")), &[database.to_str().unwrap(), "9999", "newer"]);
}

#[test]
fn a_corrupt_database_is_reported() {
    let home = Mesh::start().stop();
    let database = home.data().join("session.db");
    for side_file in ["session.db-wal", "session.db-shm"] {
        let _may_not_exist = fs::remove_file(home.data().join(side_file));
    }
    fs::write(&database, "this is not a database, and longer than the header of an empty one".repeat(100)).unwrap();
    assert_error(&up(&configuration(&home, "")), &[database.to_str().unwrap(), "backup"]);
}

/// An ephemeral mesh whose temporary directory is in this home.
async fn ephemeral(home: &Home) -> (Process, serde_json::Value) {
    let (temporary, ready) = (home.path().join("tmp"), home.path().join("ready.json"));
    fs::create_dir(&temporary).unwrap();
    let mut command = drystone(&["up", "--ephemeral", "--ready-file"]);
    command.arg(&ready).env("TMPDIR", &temporary).current_dir(home.path());
    let mut process = Process::start(&mut command, &home.path().join("log"), home.path());
    let read = async || {
        assert!(process.exit_status().is_none(), "it has exited: {}", process.log());
        serde_json::from_slice(&fs::read(&ready).ok()?).ok()
    };
    let ready = wait::until("the mesh is ready", read).await;
    (process, ready)
}

fn entries(directory: &Path) -> Vec<String> {
    let names = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<_> = names.collect();
    names.sort();
    names
}

#[tokio::test]
async fn an_ephemeral_mesh_removes_its_data() {
    let home = Home::new();
    let (process, _) = ephemeral(&home).await;
    let temporary = entries(&home.path().join("tmp"));
    assert!(matches!(&temporary[..], [one] if one.starts_with("drystone-")), "{temporary:?}");
    assert!(entries(&home.path().join("tmp").join(&temporary[0])).contains(&"auth.db".to_owned()));
    tokio::task::spawn_blocking(|| process.stop()).await.unwrap();
    assert_eq!(entries(&home.path().join("tmp")), [""; 0]);
    assert_eq!(entries(home.path()), ["log", "log.stdout", "ready.json", "tmp"]);
}

#[tokio::test]
async fn a_second_signal_ends_the_process_at_once() {
    let home = Home::new();
    let (mut process, ready) = ephemeral(&home).await;
    // A request without its body keeps the edge draining until its timeout.
    let mut incomplete = TcpStream::connect(ready["rest"].as_str().unwrap().trim_start_matches("http://")).unwrap();
    incomplete
        .write_all(
            b"POST /v1/auth/login HTTP/1.1\r\nhost: a\r\ncontent-type: application/json\r\n\
                     content-length: 100\r\n\r\n{",
        )
        .unwrap();
    process::send("INT", process.id());
    wait::until("it is draining", async || process.log().contains("a second signal").then_some(())).await;
    assert!(process.exit_status().is_none(), "it did not wait for the request: {}", process.log());
    process::send("INT", process.id());
    let status = wait::until("it has exited", async || process.exit_status()).await;
    assert_eq!(status.code(), Some(130), "{}", process.log());
    assert!(process.log().contains("stopped at once by a second signal"), "{}", process.log());
    assert_eq!(entries(&home.path().join("tmp")), [""; 0], "its data is removed");
}
