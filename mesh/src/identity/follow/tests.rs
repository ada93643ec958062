//! Changes of certificates and denylists, and sets that are refused.

use std::{fs, os::unix::fs::symlink, path::Path};

use chrono::{TimeDelta, Utc};
use rcgen::CertificateParams;
use tempfile::TempDir;

use super::*;
use crate::{
    health::{Health, Kind, State},
    identity::{
        IdentityFiles, Svid,
        testing::{TestCa, set_validity},
    },
};

const INTERVAL: Duration = Duration::from_millis(10);

/// A follower that runs.
struct Following {
    identity: Identity,
    metrics: Metrics,
    health: Health,
    _stop: tokio_util::sync::DropGuard,
}

fn metrics() -> Metrics {
    Metrics::new(&drystone::contract::Contracts::load([]).unwrap())
}

fn follow(files: &IdentityFiles, denylist: Option<&Path>) -> Following {
    let identity = Identity::load(files).unwrap();
    let (metrics, health, stop) = (metrics(), Health::new(), CancellationToken::new());
    let source = Arc::new(WatchedFiles::new(files.clone(), INTERVAL));
    let certificates = CertificateMetrics::of(&metrics);
    let mut follower = Follower::new("auth", identity.clone(), source, certificates, Clock::system());
    if let Some(path) = denylist {
        follower = follower.with_denylist(WatchedFiles::new(path.to_owned(), INTERVAL)).unwrap();
    }
    tokio::spawn(follower.run(health.component("auth certificate", Kind::Vital), stop.clone()));
    Following { identity, metrics, health, _stop: stop.drop_guard() }
}

impl Following {
    async fn until(&self, what: &str, mut is_met: impl FnMut(&Self) -> bool) {
        let wait = async {
            while !is_met(self) {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        let waited = tokio::time::timeout(Duration::from_secs(20), wait).await;
        assert!(waited.is_ok(), "not within 20 s: {what}\n{}", self.metrics.render());
    }

    fn has(&self, line: &str) -> bool {
        self.metrics.render().lines().any(|other| other == line)
    }

    fn loads(&self, what: &str, outcome: &str, count: u32) -> bool {
        let labels = format!(r#"service="auth",what="{what}",outcome="{outcome}""#);
        self.has(&format!("drystone_certificate_loads_total{{{labels}}} {count}"))
    }

    fn state(&self) -> (State, String) {
        let report = self.health.report().components.remove("auth certificate").unwrap();
        (report.state, report.detail)
    }
}

#[tokio::test]
async fn a_new_certificate_is_used_and_its_expiry_is_a_metric() {
    let (dir, ca) = (TempDir::new().unwrap(), TestCa::new("drystone.test"));
    let following = follow(&ca.leaf("auth", |_| {}).write(dir.path(), &[&ca]), None);
    let before = following.identity.svid();
    ca.leaf("auth", |_| {}).write(dir.path(), &[&ca]);
    following.until("the new serial number", |following| following.identity.svid().serial != before.serial).await;
    following.until("the count", |following| following.loads("certificate", "loaded", 1)).await;
    let expiry = following.identity.svid().not_after.timestamp();
    let line = format!(r#"drystone_certificate_expiry_timestamp_seconds{{service="auth"}} {expiry}"#);
    following.until("the expiry", |following| following.has(&line)).await;
    assert_eq!(following.state().0, State::Up);
}

#[tokio::test]
async fn a_bad_set_is_refused_counted_and_the_old_one_stays() {
    let (dir, ca) = (TempDir::new().unwrap(), TestCa::new("drystone.test"));
    let files = ca.leaf("auth", |_| {}).write(dir.path(), &[&ca]);
    let following = follow(&files, None);
    let before = following.identity.svid();
    // The key of another certificate.
    let other = TempDir::new().unwrap();
    fs::copy(ca.leaf("auth", |_| {}).write(other.path(), &[&ca]).key, &files.key).unwrap();
    following.until("the refusal", |following| following.loads("certificate", "refused", 1)).await;
    following.until("the state", |following| following.state().0 == State::Degraded).await;
    let detail = following.state().1;
    assert!(detail.contains("does not belong to the certificate"), "{detail}");
    assert_eq!(following.identity.svid(), before);

    ca.leaf("auth", |_| {}).write(dir.path(), &[&ca]);
    following.until("recovery", |following| following.identity.svid() != before).await;
    following.until("the state", |following| following.state().0 == State::Up).await;
}

#[tokio::test]
async fn a_certificate_of_another_workload_is_refused() {
    let (dir, ca) = (TempDir::new().unwrap(), TestCa::new("drystone.test"));
    let following = follow(&ca.leaf("auth", |_| {}).write(dir.path(), &[&ca]), None);
    ca.leaf("operator", |_| {}).write(dir.path(), &[&ca]);
    following.until("the refusal", |following| following.loads("certificate", "refused", 1)).await;
    assert_eq!(following.identity.id().workload(), Some("auth"));
}

/// As Kubernetes mounts a secret: files are links into `..data`, which is a link to a directory and is swapped as a whole.
#[tokio::test]
async fn swapped_directories_of_a_mounted_secret_are_followed() {
    let (mount, ca) = (TempDir::new().unwrap(), TestCa::new("drystone.test"));
    let version = |name: &str| {
        let directory = mount.path().join(name);
        fs::create_dir(&directory).unwrap();
        ca.leaf("auth", |_| {}).write(&directory, &[&ca]);
        let link = mount.path().join("..data_tmp");
        symlink(name, &link).unwrap();
        fs::rename(link, mount.path().join("..data")).unwrap();
    };
    version("..2026_11_28_1");
    for name in ["own.pem", "own.key", "roots.pem"] {
        symlink(Path::new("..data").join(name), mount.path().join(name)).unwrap();
    }
    let path = |name: &str| mount.path().join(name);
    let files = IdentityFiles { certificate: path("own.pem"), key: path("own.key"), bundle: path("roots.pem") };
    let following = follow(&files, None);
    let before = following.identity.svid();
    version("..2026_11_28_2");
    fs::remove_dir_all(mount.path().join("..2026_11_28_1")).unwrap();
    following.until("the new version", |following| following.identity.svid() != before).await;
    // Counted after the replacement.
    following.until("the count", |following| following.loads("certificate", "loaded", 1)).await;
}

#[tokio::test]
async fn a_certificate_that_is_not_replaced_in_time_degrades_health_and_an_expired_one_is_down() {
    let (dir, ca) = (TempDir::new().unwrap(), TestCa::new("drystone.test"));
    let files = ca.leaf("auth", |_| {}).write(dir.path(), &[&ca]);
    let (identity, clock, health) = (Identity::load(&files).unwrap(), Clock::manual(Utc::now()), Health::new());
    let source = Arc::new(WatchedFiles::new(files, INTERVAL));
    let follower = Follower::new("auth", identity, source, CertificateMetrics::of(&metrics()), clock.clone());
    let component = health.component("auth certificate", Kind::Vital);
    let state = || {
        follower.report(&component);
        health.report().components["auth certificate"].state
    };
    assert_eq!(state(), State::Up);
    // It is valid from an hour ago to an hour from now.
    clock.advance(Duration::from_mins(47));
    assert_eq!(state(), State::Up);
    clock.advance(Duration::from_mins(2));
    assert_eq!(state(), State::Degraded);
    clock.advance(Duration::from_mins(12));
    assert_eq!(state(), State::Down);
}

#[tokio::test]
async fn a_changed_denylist_is_used_and_a_bad_one_refused() {
    let (dir, ca) = (TempDir::new().unwrap(), TestCa::new("drystone.test"));
    let list = dir.path().join("denylist");
    fs::write(&list, "# nobody\n").unwrap();
    let following = follow(&ca.leaf("auth", |_| {}).write(dir.path(), &[&ca]), Some(&list));
    let stolen =
        Svid { id: "spiffe://drystone.test/service/orders".parse().unwrap(), ..(*following.identity.svid()).clone() };
    assert!(!following.identity.denies(&stolen));

    fs::write(&list, "spiffe://drystone.test/service/orders\n").unwrap();
    following.until("the denial", |following| following.identity.denies(&stolen)).await;
    let line = r#"drystone_denylist_entries{service="auth"} 1"#;
    following.until("the metric", |following| following.has(line)).await;

    fs::write(&list, "not a serial number\n").unwrap();
    following.until("the refusal", |following| following.loads("denylist", "refused", 1)).await;
    assert!(following.identity.denies(&stolen), "the old list stays in use");
    fs::remove_file(&list).unwrap();
    following.until("the refusal", |following| following.loads("denylist", "refused", 2)).await;
    assert!(following.identity.denies(&stolen), "a removed list is a fault");

    fs::write(&list, "").unwrap();
    following.until("the end of the denial", |following| !following.identity.denies(&stolen)).await;
}

#[tokio::test]
async fn a_certificate_that_becomes_valid_later_is_used_then() {
    let (dir, ca) = (TempDir::new().unwrap(), TestCa::new("drystone.test"));
    let following = follow(&ca.leaf("auth", |_| {}).write(dir.path(), &[&ca]), None);
    let before = following.identity.svid();
    let soon = Utc::now() + TimeDelta::seconds(4);
    let later = |params: &mut CertificateParams| set_validity(params, soon, soon + TimeDelta::hours(1));
    ca.leaf("auth", later).write(dir.path(), &[&ca]);
    following.until("the refusal", |following| following.loads("certificate", "refused", 1)).await;
    assert_eq!(following.identity.svid(), before);
    following.until("its use", |following| following.identity.svid() != before).await;
}
