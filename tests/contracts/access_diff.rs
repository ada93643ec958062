//! `drystone access diff`: loosened rules are found, and need an entry.

use std::path::PathBuf;

use drystone_tests::{
    Home,
    binary::repository,
    fixture::compile,
    process::{ProcessOutput, drystone, run_to_end},
    readme,
};

const CONTRACT: &str = r#"
    syntax = "proto3";
    package acme.orders.v1;
    import "drystone/access/v1/access.proto";
    message ListOrdersRequest {}
    message ListOrdersResponse {}
    service OrderService {
      option (drystone.access.v1.workload) = "orders";
      option (drystone.access.v1.permissions) = {name: "orders:read" description: "Read orders."};
      rpc ListOrders(ListOrdersRequest) returns (ListOrdersResponse) {
        option idempotency_level = NO_SIDE_EFFECTS;
        option (drystone.access.v1.rule) = {
          callers: ["edge", "operator"]
          subject: SUBJECT_USER
          permission: "orders:read"
          max_auth_age: {seconds: 600}
          audit: AUDIT_LOG
        };
      }
    }
"#;

/// Two versions of a contract in a directory.
struct Versions(Home);

impl Versions {
    /// With these replacements in the new one.
    fn new(replacements: &[(&str, &str)]) -> Self {
        let mut new = CONTRACT.to_owned();
        for (from, to) in replacements {
            assert!(new.contains(from), "{from}");
            new = new.replace(from, to);
        }
        let home = Home::new();
        for (name, contract) in [("old.binpb", CONTRACT), ("new.binpb", &new)] {
            std::fs::write(home.path().join(name), compile(contract).unwrap()).unwrap();
        }
        Self(home)
    }

    fn diff(&self, arguments: &[&str]) -> ProcessOutput {
        let mut command = drystone(&["access", "diff"]);
        run_to_end(command.args(arguments).current_dir(self.0.path()))
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }
}

#[test]
fn no_rule_is_looser_than_the_baseline_without_an_entry() {
    let files = ["--changes", "docs/access-changes.md", "--after", "proto/baseline.access-entry"];
    let arguments = [&["access", "diff", "proto/baseline.binpb"][..], &files].concat();
    let ended = run_to_end(drystone(&arguments).current_dir(repository()));
    assert!(ended.status.success(), "{ended:?}");
}

#[test]
fn a_loosened_rule_fails_until_an_entry_names_it() {
    let versions = Versions::new(&[(r#"["edge", "operator"]"#, r#"["outside"]"#), ("permission: \"orders:read\"", "")]);
    let both = ["old.binpb", "new.binpb"];
    let ended = versions.diff(&both);
    assert_eq!(ended.status.code(), Some(1), "{ended:?}");
    for line in [
        "looser    acme.orders.v1.OrderService/ListOrders  caller added: outside",
        "looser    acme.orders.v1.OrderService/ListOrders  permission: orders:read -> none",
        "stricter  acme.orders.v1.OrderService/ListOrders  caller removed: operator",
    ] {
        assert!(ended.stdout.lines().any(|shown| shown.starts_with(line)), "{line}: {ended:?}");
    }
    let unnamed = |ended: &ProcessOutput, what: &str| {
        ended.stderr.contains(&format!("\n  acme.orders.v1.OrderService/ListOrders: {what}\n"))
    };
    assert!(unnamed(&ended, "caller added: outside"), "{ended:?}");

    let entry =
        |what: &str| format!("## 2026-11-28 acme.orders.v1.OrderService/ListOrders\n\n- what: {what}\n- why: test\n");
    let with_entries = |text: &str| {
        std::fs::write(versions.path("changes.md"), format!("# Changes\n\n{text}")).unwrap();
        versions.diff(&[&both[..], &["--changes", "changes.md"]].concat())
    };
    let (caller, permission) = (entry("caller added: outside"), entry("permission: orders:read -> none"));
    let ended = with_entries(&caller);
    assert_eq!(ended.status.code(), Some(1), "{ended:?}");
    assert!(!unnamed(&ended, "caller added: outside"), "{ended:?}");
    assert!(unnamed(&ended, "permission: orders:read -> none"), "{ended:?}");
    let ended = with_entries(&format!("{caller}\n{permission}"));
    assert!(ended.status.success(), "{ended:?}");
    let ended = with_entries(&format!("{caller}nonsense\n"));
    assert!(ended.status.code() == Some(2) && ended.stderr.contains("changes.md, line 7: must be empty"), "{ended:?}");
}

/// A copy of what `scripts/proto-baseline` reads and writes, with this program.
fn copy_of_repository() -> Home {
    let home = Home::new();
    let files = ["scripts/proto-baseline", "buf.yaml", "docs/access-changes.md", "docs/breaking-changes.md"];
    let baseline = ["proto/baseline.binpb", "proto/baseline.entry", "proto/baseline.access-entry"];
    for file in files.iter().chain(&baseline) {
        let copy = home.path().join(file);
        std::fs::create_dir_all(copy.parent().unwrap()).unwrap();
        std::fs::copy(repository().join(file), copy).unwrap();
    }
    let program = home.path().join("target/debug/drystone");
    std::fs::create_dir_all(program.parent().unwrap()).unwrap();
    std::os::unix::fs::symlink(drystone(&[]).get_program(), program).unwrap();
    home
}

#[test]
fn an_entry_counts_until_the_baseline_is_renewed() {
    let versions = Versions::new(&[("permission: \"orders:read\"", "")]);
    let home = copy_of_repository();
    let write = |file: &str, text: &str| std::fs::write(home.path().join(file), text).unwrap();
    let renew = |contracts: &str| {
        let file = versions.path(contracts);
        let ended = readme::run(&format!("scripts/proto-baseline renew {}", file.display()), home.path());
        (ended.status.success(), String::from_utf8([ended.stdout, ended.stderr].concat()).unwrap())
    };
    std::fs::copy(versions.path("old.binpb"), home.path().join("proto/baseline.binpb")).unwrap();
    write("proto/baseline.access-entry", "");
    write("docs/access-changes.md", "# Changes\n\n```text\n## 2026-11-28 a.S/M\n\n- what: WHAT\n```\n");

    let before = std::fs::read(home.path().join("proto/baseline.binpb")).unwrap();
    let (is_renewed, text) = renew("new.binpb");
    assert!(!is_renewed && text.contains("permission: orders:read -> none"), "{text}");
    assert_eq!(std::fs::read(home.path().join("proto/baseline.binpb")).unwrap(), before);

    let record = "## 2026-11-28 acme.orders.v1.OrderService/ListOrders\n- what: permission: orders:read -> none\n";
    let entry = format!("{}- why: test\n", record.replacen('\n', "\n\n", 1));
    write("docs/access-changes.md", &format!("# Changes\n\n```text\n## 2026-11-28 a.S/M\n```\n\n{entry}"));
    let (is_renewed, text) = renew("new.binpb");
    assert!(is_renewed, "{text}");
    assert_eq!(std::fs::read_to_string(home.path().join("proto/baseline.access-entry")).unwrap(), record);

    // The rule becomes strict again, and is loosened once more.
    let (is_renewed, text) = renew("old.binpb");
    assert!(is_renewed, "{text}");
    let (is_renewed, text) = renew("new.binpb");
    assert!(!is_renewed && text.contains("loosened without an entry"), "{text}");
    write("docs/access-changes.md", "# Changes\n");
    let (is_renewed, text) = renew("new.binpb");
    assert!(!is_renewed && text.contains("does not have the entry that proto/baseline.access-entry names"), "{text}");
}

#[test]
fn a_stricter_rule_needs_no_entry() {
    let versions = Versions::new(&[("{seconds: 600}", "{seconds: 60}"), ("AUDIT_LOG", "AUDIT_TRAIL")]);
    let ended = versions.diff(&["old.binpb", "new.binpb"]);
    assert!(ended.status.success() && ended.stdout.contains("max_auth_age: 600s -> 60s"), "{ended:?}");
    let back = versions.diff(&["new.binpb", "old.binpb"]);
    assert!(back.status.code() == Some(1) && back.stderr.contains("audit: trail -> log"), "{back:?}");
    let same = versions.diff(&["old.binpb", "old.binpb"]);
    assert!(same.status.success() && same.stdout == "no access rule has changed\n", "{same:?}");
}

#[test]
fn an_export_of_all_contracts_can_be_compared_and_another_file_is_wrong_usage() {
    let versions = Versions::new(&[]);
    let export = run_to_end(drystone(&["contract", "export", "--output"]).arg(versions.path("all.binpb")));
    assert!(export.status.success(), "{export:?}");
    let same = versions.diff(&["all.binpb"]);
    assert!(same.status.success() && same.stdout == "no access rule has changed\n", "{same:?}");
    std::fs::write(versions.path("no.binpb"), "nonsense").unwrap();
    for arguments in [&["none.binpb"][..], &["no.binpb"], &["all.binpb", "--changes", "none.md"]] {
        let ended = versions.diff(arguments);
        assert_eq!(ended.status.code(), Some(2), "{ended:?}");
    }
}
