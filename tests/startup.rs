//! How a mesh starts; and what keeps it from starting, said in one sentence with what to do about it.

use std::{
    fs,
    io::Write,
    net::{TcpListener, TcpStream},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use drystone_tests::{
    Home, Mesh, parts,
    process::{self, Ended, Process, drystone, run_to_end},
    readme, services, wait,
};
use sqlx::{ConnectOptions, Connection, sqlite::SqliteConnectOptions};

/// Every port is free, and everything is in this home.
fn configuration(home: &Home, more: &str) -> PathBuf {
    let sections = parts().into_iter().chain(["admin"]);
    let sections: Vec<_> = sections.map(|name| format!("[{name}]\nlisten = \"127.0.0.1:0\"\n")).collect();
    let sections = sections.concat();
    let (data, certs) = (home.data(), home.path().join("certs"));
    let text = format!("data_dir = '{}'\ncerts_dir = '{}'\n{more}\n{sections}", data.display(), certs.display());
    home.write("drystone.toml", &text)
}

fn up(configuration: &Path) -> Ended {
    run_to_end(drystone(&["up", "--config"]).arg(configuration))
}

/// The one sentence on standard error of a start that failed.
#[track_caller]
fn sentence(ended: &Ended) -> &str {
    assert!(!ended.status.success(), "it says that all went well: {ended:#?}");
    assert!(ended.status.code().is_some(), "it was ended by a signal: {ended:#?}");
    assert_eq!(ended.stderr.trim_end().lines().count(), 1, "not one line: {}", ended.stderr);
    assert_eq!(ended.stdout, "", "it says that it is there");
    let line = ended.stderr.trim_end();
    assert!(!line.contains("panicked") && !line.contains("Error {"), "{line}");
    line.strip_prefix("drystone: ").unwrap_or_else(|| panic!("it does not say who speaks: {line}"))
}

#[track_caller]
fn assert_says(ended: &Ended, words: &[&str]) {
    let sentence = sentence(ended);
    for word in words {
        assert!(sentence.contains(word), "`{word}` is missing in: {sentence}");
    }
}

#[tokio::test]
async fn a_mesh_says_what_runs_where_and_three_commands_that_work() {
    let mesh = Mesh::setup().for_a_person().start();
    // The ready file is written once everything is there; the greeting may come a moment later.
    let greeting = async || Some(mesh.greeting()).filter(|text| text.contains("Ctrl-C"));
    let greeting = wait::until("it greets", greeting).await;
    let addresses = services().into_iter().map(|service| mesh.grpc_address(service).to_string());
    for address in addresses.into_iter().chain([mesh.rest().address().to_string(), mesh.admin_address().to_string()]) {
        assert!(greeting.contains(&address), "{address} is missing in: {greeting}");
    }
    assert!(greeting.contains(mesh.home().data().to_str().unwrap()), "{greeting}");

    let tries = greeting.split_once("Try next:").and_then(|(_, rest)| rest.split_once("Ctrl-C")).unwrap().0;
    let commands = readme::commands(tries);
    assert_eq!(commands.len(), 3, "{tries}");
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
fn a_port_that_is_taken_is_named() {
    let home = Home::new();
    let holder = TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = holder.local_addr().unwrap().to_string();
    for section in ["edge", "user", "admin"] {
        let path = configuration(&home, "");
        let others = fs::read_to_string(&path).unwrap();
        let section = format!("[{section}]\nlisten = \"");
        let text = others.replace(&format!("{section}127.0.0.1:0"), &format!("{section}{taken}"));
        fs::write(&path, text).unwrap();
        assert_says(&up(&path), &[&taken, "in use", &section[1..section.find(']').unwrap()], "listen"]);
    }
}

#[test]
fn a_data_directory_that_cannot_be_written_is_named() {
    let home = Home::new();
    // A file stands where a directory belongs, which stops root as well.
    let file = home.write("file", "");
    let data = file.join("data");
    let path = configuration(&home, "");
    let ended = run_to_end(drystone(&["up", "--config"]).arg(path).arg("--data-dir").arg(&data));
    assert_says(&ended, &[data.to_str().unwrap(), "cannot be written"]);
}

#[test]
fn a_data_directory_is_used_by_one_mesh_at_a_time() {
    let mesh = Mesh::start();
    let path = configuration(mesh.home(), "");
    assert_says(&up(&path), &[mesh.home().data().to_str().unwrap(), "in use"]);
    let _home = mesh.stop();
}

#[test]
fn an_unknown_key_is_named_with_where_it_stands() {
    let home = Home::new();
    let path = configuration(&home, "colour = \"red\"");
    assert_says(&up(&path), &["colour", path.to_str().unwrap()]);

    let path = configuration(&home, "[auth.password]\nmemory_mib = 19");
    assert_says(&up(&path), &["auth.password.memory_mib", path.to_str().unwrap(), "memory_kib"]);

    let path = configuration(&home, "");
    let ended = run_to_end(drystone(&["up", "--config"]).arg(&path).env("DRYSTONE_AUTH__LISTN", "127.0.0.1:1"));
    assert_says(&ended, &["DRYSTONE_AUTH__LISTN", "auth.listn"]);
}

#[test]
fn a_value_that_cannot_be_is_named_with_what_can() {
    let home = Home::new();
    for (more, words) in [
        ("[log]\nformat = \"xml\"", ["log.format", "json"]),
        ("[auth.password]\nmemory_kib = \"much\"", ["auth.password.memory_kib", "u32"]),
        ("[auth.hashing]\nqueue_per_thread = 0", ["auth.hashing.queue_per_thread", "at least 1"]),
        ("issuer = \"nowhere\"", ["issuer", "https://"]),
        ("trust_domain = \"Not Lawful\"", ["trust_domain", "a-z"]),
    ] {
        let path = configuration(&home, more);
        assert_says(&up(&path), &words);
    }
    let path = home.write("broken.toml", "data_dir = \n");
    assert_says(&up(&path), &[path.to_str().unwrap(), "line 1"]);
    assert_says(&up(&home.path().join("nowhere.toml")), &["nowhere.toml", "--config"]);
}

/// `drystone serve` finds its certificates ready; these are from a mesh that was.
fn serve(home: &Home) -> Ended {
    let path = configuration(home, "");
    run_to_end(drystone(&["serve", "user", "--config"]).arg(path).env("DRYSTONE_CERTS_DIR", home.data().join("certs")))
}

#[test]
fn a_certificate_that_is_broken_is_named() {
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
    assert_says(&serve(&home), &[&name(&certificate)]);
    set(&certificate, b"hello");
    assert_says(&serve(&home), &[&name(&certificate)]);
    set(&certificate, &good_certificate[..good_certificate.len() / 2]);
    assert_says(&serve(&home), &[&name(&certificate)]);
    fs::remove_file(&certificate).unwrap();
    assert_says(&serve(&home), &[&name(&certificate)]);
    // Another's certificate and key are whole, and still not ours.
    set(&certificate, &read(&other));
    set(&key, &read(&other_key));
    assert_says(&serve(&home), &[&name(&certificate), "/service/auth", "/service/user"]);
    set(&certificate, &good_certificate);
    assert_says(&serve(&home), &[&name(&key), &name(&certificate)]);
    set(&key, b"-----BEGIN PRIVATE KEY-----\nc2VjcmV0\n-----END PRIVATE KEY-----\n");
    let ended = serve(&home);
    assert_says(&ended, &[&name(&key)]);
    assert!(!ended.stderr.contains("c2VjcmV0"), "{}", ended.stderr);
    set(&key, &good_key);
    set(&ca, b"");
    assert_says(&serve(&home), &[&name(&ca)]);
    set(&ca, &good_ca);
    fs::set_permissions(&key, fs::Permissions::from_mode(0o644)).unwrap();
    assert_says(&serve(&home), &[&name(&key), "chmod 600"]);
}

async fn with_database(home: &Home, name: &str, statement: &'static str) -> PathBuf {
    let path = home.data().join(name);
    let mut database = SqliteConnectOptions::new().filename(&path).connect().await.unwrap();
    sqlx::query(statement).execute(&mut database).await.unwrap();
    database.close().await.unwrap();
    path
}

#[tokio::test]
async fn a_database_of_a_newer_version_is_left_alone() {
    let home = Mesh::start().stop();
    let statement =
        "INSERT INTO schema_migration (version, name, checksum, applied_at) VALUES (9999, 'later', x'00', 0)";
    let database = with_database(&home, "user.db", statement).await;
    assert_says(&up(&configuration(&home, "")), &[database.to_str().unwrap(), "9999", "newer"]);
}

#[test]
fn a_database_that_is_damaged_is_named() {
    let home = Mesh::start().stop();
    let database = home.data().join("session.db");
    for side_file in ["session.db-wal", "session.db-shm"] {
        let _there_may_be_none = fs::remove_file(home.data().join(side_file));
    }
    fs::write(&database, "this is no database, and long enough not to be taken for an empty one".repeat(100)).unwrap();
    assert_says(&up(&configuration(&home, "")), &[database.to_str().unwrap(), "backup"]);
}

/// An ephemeral mesh without `--data-dir`, its temporary directory in this home.
async fn ephemeral(home: &Home) -> (Process, serde_json::Value) {
    let (temporary, ready) = (home.path().join("tmp"), home.path().join("ready.json"));
    fs::create_dir(&temporary).unwrap();
    let mut command = drystone(&["up", "--ephemeral", "--ready-file"]);
    command.arg(&ready).env("TMPDIR", &temporary).current_dir(home.path());
    let mut process = Process::start(&mut command, &home.path().join("log"), home.path());
    let read = async || {
        assert!(process.ended().is_none(), "it has ended: {}", process.log());
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
async fn an_ephemeral_mesh_leaves_nothing_behind() {
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
    // A request whose body does not come keeps the edge from draining until its time limit.
    let mut held = TcpStream::connect(ready["rest"].as_str().unwrap().trim_start_matches("http://")).unwrap();
    held.write_all(
        b"POST /v1/auth/login HTTP/1.1\r\nhost: a\r\ncontent-type: application/json\r\n\
                     content-length: 100\r\n\r\n{",
    )
    .unwrap();
    process::send("INT", process.id());
    wait::until("it is stopping", async || process.log().contains("a second signal").then_some(())).await;
    assert!(process.ended().is_none(), "it did not wait for the request: {}", process.log());
    process::send("INT", process.id());
    let status = wait::until("it has ended", async || process.ended()).await;
    assert_eq!(status.code(), Some(130), "{}", process.log());
    assert!(process.log().contains("stopped at once by a second signal"), "{}", process.log());
    assert_eq!(entries(&home.path().join("tmp")), [""; 0], "what it kept is gone with it");
}
