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
    let expected = [
        "outside operator",
        "user_or_operator",
        "users:read",
        "-",
        "-",
        "-",
        "-",
        "-",
        "no_side_effects",
        "GET /v1/users",
    ];
    assert_eq!(cells[1..], expected);

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
        "permission": "users:read", "factors": null, "max_auth_age_seconds": null, "fresh_revocations": false, "audit": null, "limit": null,
        "idempotency": "no_side_effects", "rest": ["GET /v1/users"], "workload": "user",
    });
    assert_eq!(rule, &expected);
    let same = Shell::new().run(&["access", "show", "--format", "json", "--rpc", "UserService/"]);
    assert_eq!(same.text(), shown.text());
    let both = Shell::new().run(&["access", "show", "--json", "--format", "table"]);
    assert_eq!(both.code, Some(2), "{}", both.err);
}

#[test]
fn the_page_of_access_rules_is_up_to_date() {
    let shown = Shell::new().run(&["access", "show", "--format", "markdown"]);
    let page = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/access.md")).unwrap();
    assert!(page == shown.text(), "docs/access.md is not that of the contracts: run `make access-docs`, and commit it");
}

#[test]
fn access_show_reports_when_nothing_matches() {
    let ended = Shell::new().run(&["access", "show", "--rpc", "Fly"]);
    assert_eq!(ended.complaint(1), "no RPC name contains `Fly`; omit --rpc to show all");
}

/// A key set with one key (RFC 8037, appendix A.2).
const KEYS: &str = r#"{"keys": [{"kty": "OKP", "crv": "Ed25519", "use": "sig", "alg": "EdDSA", "kid": "1",
    "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}]}"#;

/// A key set with one RSA key (RFC 7517, appendix A.1).
const RSA_KEYS: &str = r#"{"keys": [{"kty": "RSA", "use": "sig", "alg": "RS256", "kid": "1", "e": "AQAB",
    "n": "0vx7agoebGcQSuuPiLJXZptN9nndrQmbXEps2aiAFbWhM78LhWx4cbbfAAtVT86zwu1RK7aPFFxuhDR1L6tSoc_BJECPebWKRXjBZCiFV4n3oknjhMstn64tZ_2W-5JsGY4Hc5n9yBXArwl93lqt7_RN5w6Cf0h4QyQ5v-65YGjQR0_FDW2QvzqY368QQMicAtaSqzs8KJZgnYb9c7d0zgdAZHzu6qMQvRL5hajrn1n91CbOpbISD08qNLyrdkt-bFTWhAI4vMQFh6WeZu0fM4lFd2NcRwr3XPksINHaQ-G_xBniIqbw0Ls1jF44-csFCur-kEgU8awapJzKnqDKgw"}]}"#;

#[test]
fn access_explain_names_the_part_of_the_rule_that_denies_a_call() {
    let shell = Shell::new();
    fs::write(shell.path("token"), "of.no.use\n").unwrap();
    let explain = |arguments: &[&str]| {
        let ended = shell.run(&[&["access", "explain"], arguments].concat());
        let text = String::from_utf8(ended.out).unwrap();
        assert!(ended.err.is_empty(), "{}", ended.err);
        assert!(!text.contains("of.no.use") && text.contains("revocations"), "{text}");
        (ended.code, text)
    };

    let (code, text) = explain(&["--caller", "operator", "UserService/GetMe"]);
    assert!(code == Some(1) && text.starts_with("denied by `subject`: TOKEN_MISSING\n"), "{text}");
    let (code, text) = explain(&["--caller", "operator", "/drystone.user.v1.UserService/ListUsers"]);
    assert!(code == Some(0) && text.starts_with("allowed\n\ndrystone.user.v1.UserService/ListUsers\n"), "{text}");
    let (code, text) = explain(&["--caller", "property", "UserService/ListUsers", "--at", "2026-11-28T12:00:00Z"]);
    let expected = "denied by `caller`: CALLER_NOT_ALLOWED\n\
        spiffe://drystone.local/service/property may not call /drystone.user.v1.UserService/ListUsers; \
        its rule allows outside, operator\n\n\
        drystone.user.v1.UserService/ListUsers\n\
        as spiffe://drystone.local/service/property at 2026-11-28T12:00:00+00:00\n\n\
        PART               RULE              RESULT\n\
        caller             outside operator  denied\n\
        subject            user_or_operator  not reached\n\
        fresh_revocations  -                 not reached\n\
        permission         users:read        not reached\n\
        factors            -                 not reached\n\
        max_auth_age       -                 not reached\n";
    assert!(code == Some(1) && text.starts_with(expected), "{text}");
    let (code, text) = explain(&["--caller", "spiffe://other.example/service/edge", "UserService/ListUsers"]);
    assert!(code == Some(1) && text.starts_with("denied by `caller`: "), "{text}");
    let (code, text) = explain(&["--caller", "edge", "UserService/GetMy"]);
    assert!(code == Some(1) && text.starts_with("denied by `method`: METHOD_UNKNOWN\n"), "{text}");
    assert!(text.contains("The most similar names are drystone.user.v1.UserService/GetMe, "), "{text}");
    let with_token = ["--caller", "edge", "UserService/GetMe", "--keys", "keys.json", "--token-file", "token"];
    for keys in [KEYS, RSA_KEYS] {
        fs::write(shell.path("keys.json"), keys).unwrap();
        let (code, text) = explain(&with_token);
        assert!(code == Some(1) && text.starts_with("denied by `subject`: TOKEN_INVALID\n"), "{text}");
    }
}

#[test]
fn access_explain_refuses_wrong_usage_without_repeating_the_token() {
    let shell = Shell::new();
    let usage = |arguments: &[&str]| {
        let ended = shell.run(&[&["access", "explain"], arguments].concat());
        assert_eq!(ended.code, Some(2), "{}", ended.err);
        assert!(ended.out.is_empty() && !ended.err.contains("s3cret"), "{}", ended.err);
        ended.err
    };
    assert!(usage(&["--caller", "edge"]).contains("METHOD"));
    assert!(usage(&["UserService/GetMe"]).contains("--caller"));
    assert!(usage(&["--batch", "-", "--caller", "edge"]).contains("--batch"));
    let call = ["--caller", "edge", "UserService/GetMe", "--token", "s3cret"];
    assert!(usage(&[&call[..], &["--token-file", "token"]].concat()).contains("--token-file"));
    assert!(usage(&[&call[..], &["--keys", "none.json"]].concat()).contains("none.json cannot be read"));
    assert!(usage(&[&call[..], &["--at", "noon"]].concat()).contains("2026-11-28T12:00:00Z"));
    fs::write(shell.path("keys.json"), "{}").unwrap();
    assert!(usage(&[&call[..], &["--keys", "keys.json"]].concat()).contains("keys.json is not a JWK set"));
    fs::write(shell.path("keys.json"), r#"{"keys": []}"#).unwrap();
    assert!(usage(&[&call[..], &["--keys", "keys.json"]].concat()).contains("keys.json has no key"));
    assert!(usage(&["--caller", "ed/ge", "UserService/GetMe"]).contains("`ed/ge` is not a caller"));
    fs::write(shell.path("calls"), r#"{"caller": "edge", "method": "UserService/GetMe", "token": 3, "x": "s3cret"}"#)
        .unwrap();
    assert!(usage(&["--batch", "calls"]).contains("line 1 is not an object"));
}

#[test]
fn access_explain_answers_each_line_of_a_batch() {
    let shell = Shell::new();
    fs::write(shell.path("keys.json"), KEYS).unwrap();
    let calls = r#"{"caller": "edge", "method": "UserService/GetMe"}
        {"caller": "auth", "method": "drystone.user.v1.UserService/GetMe"}

        {"caller": "edge", "method": "/drystone.auth.v1.KeyService/GetJwks", "at": "2026-11-28T12:00:00Z"}
        {"caller": "edge", "method": "UserService/GetMe", "token": "of.no.use"}
        {"caller": "edge", "method": "acme.v1.S/M"}
        {"caller": "user", "method": "grpc.health.v1.Health/Check"}"#;
    fs::write(shell.path("calls"), calls).unwrap();
    let ended = shell.run(&["access", "explain", "--batch", "calls", "--keys", "keys.json"]);
    let expected = r#"{"allowed":false,"part":"subject","reason":"TOKEN_MISSING"}
{"allowed":false,"part":"caller","reason":"CALLER_NOT_ALLOWED"}
{"allowed":true,"part":null,"reason":null}
{"allowed":false,"part":"subject","reason":"TOKEN_INVALID"}
{"allowed":false,"part":"method","reason":"METHOD_UNKNOWN"}
{"allowed":true,"part":null,"reason":null}
"#;
    assert_eq!(ended.text(), expected);
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
    let listed = shell.run(&["certs", "init"]);
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
    shell.run(&["certs", "init"]).text();
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

#[test]
fn the_root_of_the_development_ca_is_rotated_in_three_steps() {
    let shell = Shell::new();
    shell.run(&["certs", "init"]).text();
    let rotate = |arguments: &[&str]| shell.run(&[&["certs", "rotate-root"], arguments].concat());
    let roots = || fs::read_to_string(shell.path("certs/dev/ca.pem")).unwrap().matches("BEGIN").count();
    assert!(rotate(&["issue"]).complaint(1).contains("the next step of the rotation of the root, which is `add`"));
    assert!(rotate(&["add"]).text().starts_with("1 of 3: "));
    assert_eq!(roots(), 2);
    assert_private(&shell.path("certs/dev/ca-next.key"));
    assert!(rotate(&["issue"]).text().starts_with("2 of 3: the new root has issued the certificates of "));
    assert!(!shell.path("certs/dev/ca-next.key").exists());
    shell.run(&["certs", "check"]).text();
    assert!(rotate(&["remove"]).text().starts_with("3 of 3: "));
    assert_eq!(roots(), 1);
    shell.run(&["certs", "check"]).text();
}

#[test]
fn a_certificate_is_shown_from_a_file() {
    let shell = Shell::new();
    shell.run(&["certs", "init"]).text();
    let shown = shell.run(&["certs", "show", "certs/dev/auth.pem"]);
    for line in [
        "SPIFFE ID      spiffe://drystone.local/service/auth\n",
        "subject        CN=auth\n",
        "key            ECDSA, 256 bits\n",
        "profile        that of an X.509-SVID; its issuer was not checked\n",
    ] {
        assert!(shown.text().contains(line), "{}", shown.text());
    }
    assert!(shell.run(&["certs", "show", "certs/dev/ca.pem"]).text().contains("profile        a CA\n"));
    assert!(shell.run(&["certs", "show", "certs/dev/auth.key"]).complaint(1).contains("auth.key"));
    let neither = shell.run(&["certs", "show", "nothing"]);
    assert!(
        neither.complaint(1).contains("`nothing` is neither a file nor the address of a server"),
        "{}",
        neither.err
    );
}

#[test]
fn certificates_are_checked_as_services_check_them() {
    let shell = Shell::new();
    assert!(shell.run(&["certs", "check"]).complaint(1).contains("issue some with `drystone certs init`"));
    shell.run(&["certs", "init"]).text();
    let checked = shell.run(&["certs", "check"]);
    assert_eq!(checked.text().lines().filter(|line| line.ends_with("  ok")).count(), workloads());
    // The table is shown as well.
    let fault = |arguments: &[&str]| {
        let ended = shell.run(&[&["certs", "check"], arguments].concat());
        assert!(String::from_utf8_lossy(&ended.out).contains("  not usable\n"), "{}", ended.err);
        assert_eq!(ended.code, Some(1));
        ended.err
    };
    assert!(fault(&["auth", "--within", "2d"]).contains("auth: the certificate expires within 2d"));
    assert!(fault(&["billing"]).contains("billing.pem"));

    fs::copy(shell.path("certs/dev/user.pem"), shell.path("certs/dev/auth.pem")).unwrap();
    let mismatched = fault(&[]);
    assert!(mismatched.contains("does not belong to the certificate"), "{mismatched}");
    fs::copy(shell.path("certs/dev/user.key"), shell.path("certs/dev/auth.key")).unwrap();
    let other = fault(&[]);
    assert!(other.contains("auth: the certificate is for spiffe://drystone.local/service/user"), "{other}");

    fs::write(shell.path("denied"), "spiffe://drystone.local/service/session\n").unwrap();
    let mut command = shell.command(&["certs", "check", "session"]);
    let denied = command.env("DRYSTONE_CERTIFICATES__DENYLIST", shell.path("denied")).output().unwrap();
    assert!(String::from_utf8(denied.stderr).unwrap().contains("session: the certificate is on the denylist"));
}

fn workloads() -> usize {
    drystone::contracts().unwrap().workloads().len()
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
    for command in [&["config", "check"][..], &["config", "show"], &["certs", "init"]] {
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
