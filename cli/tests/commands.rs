//! The commands that need no running mesh, as a shell calls them.

#![allow(clippy::unwrap_used, reason = "what goes wrong here is for the test to tell")]

use std::{
    fs,
    path::Path,
    process::{Command, Output, Stdio},
};

use tempfile::TempDir;

const PROGRAM: &str = env!("CARGO_BIN_EXE_drystone");

/// How a command ended.
struct Ended {
    code: Option<i32>,
    out: Vec<u8>,
    err: String,
}

impl Ended {
    fn text(&self) -> &str {
        assert_eq!(self.code, Some(0), "{}", self.err);
        std::str::from_utf8(&self.out).unwrap()
    }

    /// The one sentence that a failed command says, without the program's name.
    fn complaint(&self, code: i32) -> &str {
        assert_eq!(self.code, Some(code), "{}", self.err);
        assert!(self.out.is_empty());
        let sentence = self.err.strip_prefix("drystone: ").and_then(|rest| rest.strip_suffix('\n')).unwrap_or_default();
        assert!(!sentence.is_empty() && !sentence.contains('\n'), "{}", self.err);
        sentence
    }
}

/// A shell's directory, whose environment knows nothing of Drystone.
struct Shell(TempDir);

impl Shell {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(PROGRAM);
        command.args(arguments).env_clear().current_dir(self.0.path()).stdin(Stdio::null());
        command
    }

    fn run(&self, arguments: &[&str]) -> Ended {
        let Output { status, stdout, stderr } = self.command(arguments).output().unwrap();
        Ended { code: status.code(), out: stdout, err: String::from_utf8(stderr).unwrap() }
    }

    fn path(&self, name: &str) -> std::path::PathBuf {
        self.0.path().join(name)
    }
}

#[test]
fn wrong_usage_ends_with_code_2() {
    let shell = Shell::new();
    for arguments in [&[][..], &["fly"], &["access"], &["access", "show", "--colour"], &["serve"]] {
        let ended = shell.run(arguments);
        assert_eq!(ended.code, Some(2), "{arguments:?}");
        assert!(ended.err.contains("--help"), "{}", ended.err);
    }
    let known = "there is no service `mail` in this binary; there are auth, user, session, ";
    for arguments in [&["serve", "mail"][..], &["up", "--without", "mail"], &["migrate", "status", "mail"]] {
        let ended = shell.run(arguments);
        let listed = ended.complaint(2).strip_prefix(known).unwrap_or_else(|| panic!("{}", ended.err));
        assert!(listed.split(", ").any(|name| name == "edge"), "{listed}");
    }
    assert!(shell.run(&["--help"]).text().contains("To start a mesh on this machine: drystone up"));
    assert!(shell.run(&["up", "--help"]).text().contains("--ready-file <FILE>"));
}

#[test]
fn access_show_has_the_rule_of_every_rpc() {
    let shell = Shell::new();
    let shown = shell.run(&["access", "show"]);
    let lines: Vec<&str> = shown.text().lines().collect();
    assert_eq!(lines.len(), drystone::contracts().unwrap().methods().len() + 1);
    assert!(
        drystone::contracts()
            .unwrap()
            .methods()
            .iter()
            .all(|method| lines.iter().any(|line| line.starts_with(&method.path[1..])))
    );
    let rule = lines.iter().find(|line| line.contains("UserService/ListUsers ")).unwrap();
    let cells: Vec<&str> = rule.split("  ").map(str::trim).filter(|cell| !cell.is_empty()).collect();
    assert_eq!(cells[1..], ["outside operator", "user_or_operator", "users:read", "-", "-", "-", "GET /v1/users"]);

    let some = shell.run(&["access", "show", "--rpc", "propertyservice/list"]);
    assert_eq!(some.text().lines().count(), 3, "{}", some.text());
}

#[test]
fn access_show_writes_json() {
    let shown = Shell::new().run(&["access", "show", "--json", "--rpc", "UserService/"]);
    let rules: Vec<serde_json::Value> = serde_json::from_str(shown.text()).unwrap();
    let rule = rules.iter().find(|rule| rule["rpc"] == "drystone.user.v1.UserService/ListUsers").unwrap();
    let expected = serde_json::json!({
        "rpc": "drystone.user.v1.UserService/ListUsers", "callers": ["outside", "operator"], "subject": "user_or_operator",
        "permission": "users:read", "factors": null, "max_auth_age_seconds": null, "audit": null, "limit": null,
        "idempotency": "no_side_effects", "rest": ["GET /v1/users"], "workload": "user",
    });
    assert_eq!(rule, &expected);
}

#[test]
fn access_show_reports_when_nothing_matches() {
    let ended = Shell::new().run(&["access", "show", "--rpc", "Fly"]);
    assert_eq!(ended.complaint(1), "no RPC name contains `Fly`; omit --rpc to show all");
}

#[test]
fn a_closed_output_pipe_is_not_a_failure() {
    let shell = Shell::new();
    let mut child =
        shell.command(&["contract", "export"]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    drop(child.stdout.take());
    let Output { status, stderr, .. } = child.wait_with_output().unwrap();
    assert!(status.success(), "{}", String::from_utf8_lossy(&stderr));
}

#[test]
fn contract_export_writes_the_descriptor_set_as_it_is() {
    let shell = Shell::new();
    let ended = shell.run(&["contract", "export"]);
    assert_eq!((ended.code, ended.out == drystone::CONTRACT.descriptor_set()), (Some(0), true));

    assert_eq!(shell.run(&["contract", "export", "--output", "drystone.binpb"]).text(), "");
    assert_eq!(fs::read(shell.path("drystone.binpb")).unwrap(), drystone::CONTRACT.descriptor_set());

    let ended = shell.run(&["contract", "export", "--output", "no/such/directory"]);
    assert!(ended.complaint(1).starts_with("cannot write no/such/directory; name a file that this user may write"));
}

#[test]
fn certs_are_issued_for_every_workload_and_renewed() {
    let shell = Shell::new();
    let listed = shell.run(&["certs"]);
    for name in drystone::contracts().unwrap().workloads() {
        let line =
            listed.text().lines().find(|line| line.starts_with(&format!("spiffe://drystone.local/service/{name} ")));
        let line = line.unwrap_or_else(|| panic!("{name}: {}", listed.text()));
        assert!(line.contains(" UTC ") && line.contains(&format!("certs/dev/{name}.pem")), "{line}");
        assert_private(&shell.path(&format!("certs/dev/{name}.key")));
    }
    let certificate = || fs::read(shell.path("certs/dev/auth.pem")).unwrap();
    let authority = || fs::read(shell.path("certs/dev/ca.pem")).unwrap();
    let before = (certificate(), authority());
    shell.run(&["certs"]).text();
    assert_ne!(certificate(), before.0);
    assert_eq!(authority(), before.1);
}

#[test]
fn a_certificate_can_be_issued_for_one_workload() {
    let shell = Shell::new();
    let listed = shell.run(&["certs", "issue", "billing", "--certs-dir", "elsewhere"]);
    assert!(listed.text().contains("spiffe://drystone.local/service/billing "), "{}", listed.text());
    assert!(shell.path("elsewhere/billing.pem").exists() && !shell.path("elsewhere/auth.pem").exists());
    assert!(
        shell.run(&["certs", "issue", "../auth"]).complaint(1).starts_with("`../auth` is not a valid workload name")
    );
}

/// The SHA-1 of `correct horse battery staple`, as Have I Been Pwned writes it.
const HASH: &str = "ABF7AAD6438836DBE526AA231ABDE2D0EEF74D42:3";

#[test]
fn a_list_of_leaked_passwords_is_built_from_passwords_or_hashes() {
    let shell = Shell::new();
    fs::write(shell.path("passwords.txt"), "correct horse battery staple\nshort\n").unwrap();
    fs::write(shell.path("hashes.txt"), format!("{HASH}\r\n")).unwrap();
    let build = |list: &str, file: &str| shell.run(&["passwords", "build-list", list, file]);
    let from_passwords = build("passwords.txt", "a.filter");
    assert!(from_passwords.text().starts_with("a.filter: 1 entries of 2 passwords\n1 lines were left out"));
    assert_eq!(build("hashes.txt", "b.filter").text(), "b.filter: 1 entries of 1 hashes\n");
    let read = |name| fs::read(shell.path(name)).unwrap();
    assert_eq!(read("a.filter"), read("b.filter"), "either is the list of one password");

    fs::write(shell.path("mixed.txt"), format!("{HASH}\nhunter2hunter2\n")).unwrap();
    let complaint = build("mixed.txt", "a.filter");
    assert!(complaint.complaint(1).contains("line 2 is not a SHA-1"), "{}", complaint.err);
    assert!(!complaint.err.contains("hunter2"));
    assert_eq!(read("a.filter"), read("b.filter"), "it is as it was");
    assert!(build("none.txt", "c.filter").complaint(1).contains("none.txt"));
    assert!(!shell.path("c.filter").exists());
}

#[test]
fn a_valid_configuration_is_reported_as_valid() {
    let shell = Shell::new();
    assert_eq!(shell.run(&["config", "check"]).text(), "the configuration can be used\n");
    fs::write(shell.path("mesh.toml"), "trust_domain = 'example.org'\n[edge]\nlisten = '0.0.0.0:80'\n").unwrap();
    let shown = shell.run(&["config", "show", "--config", "mesh.toml"]);
    assert!(shown.text().contains("trust_domain = \"example.org\""), "{}", shown.text());

    let mut command = shell.command(&["config", "show"]);
    let by_variable = command.env("DRYSTONE_CONFIG", "mesh.toml").output().unwrap();
    assert_eq!(String::from_utf8(by_variable.stdout).unwrap(), shown.text());
}

#[test]
fn an_invalid_configuration_fails_every_command_that_reads_it_with_code_2() {
    let shell = Shell::new();
    fs::write(shell.path("mesh.toml"), "[auth]\nlisten_on = '127.0.0.1:1'\n").unwrap();
    for command in [&["config", "check"][..], &["config", "show"], &["certs"]] {
        let ended = shell.run(&[command, &["--config", "mesh.toml"]].concat());
        let complaint = ended.complaint(2);
        assert!(complaint.starts_with("`auth.listen_on` in mesh.toml is not a known key; remove it"), "{complaint}");
        let ended = shell.run(&[command, &["--config", "missing.toml"]].concat());
        assert!(ended.complaint(2).ends_with("create it, or name another with --config"));
    }
}

#[cfg(unix)]
fn assert_private(path: &Path) {
    use std::os::unix::fs::PermissionsExt;

    let mode = fs::metadata(path).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600, "{}", path.display());
}

#[cfg(not(unix))]
fn assert_private(path: &Path) {
    assert!(path.exists());
}
