//! `deploy/compose/setup`, run in a copy of the repository.

use std::{
    collections::BTreeMap,
    env, fs,
    os::unix::fs::{MetadataExt, PermissionsExt, symlink},
    path::{Path, PathBuf},
    process::Command,
};

use drystone_tests::{Home, binary, modules};

use crate::file::{Compose, path};

/// A copy of the needed files of the repository.
pub struct RepositoryCopy(Home);

/// A mock of the `docker` command: `info` prints the security options, `run` runs `drystone` on the mounted directory.
const DOCKER: &str = r#"#!/bin/sh
if [ "$1" = info ]; then
    cat "$(dirname "$0")/security"
    exit
fi
while [ "$1" != --user ]; do shift; done
echo "$2" >>"$(dirname "$0")/users"
while [ "$1" != --volume ]; do shift; done
directory=${2%:/certs}
shift 3
count=$#
while [ "$count" -gt 0 ]; do
    case $1 in /certs*) set -- "$@" "$directory${1#/certs}" ;; *) set -- "$@" "$1" ;; esac
    shift
    count=$((count - 1))
done
exec drystone "$@"
"#;

impl RepositoryCopy {
    pub fn new() -> Self {
        let this = Self::with_docker("[name=seccomp,profile=builtin name=cgroupns]");
        this.run(&[binary::drystone().to_str().unwrap()]);
        this
    }

    /// A copy in which setup has not been run, with a mock of Docker that has these security options.
    fn with_docker(security: &str) -> Self {
        let home = Home::new();
        fs::create_dir_all(home.path().join("deploy/compose")).unwrap();
        fs::create_dir(home.path().join("bin")).unwrap();
        for file in ["deploy/compose/setup", "docker-compose.yml"] {
            fs::copy(path(file), home.path().join(file)).unwrap();
        }
        home.write("bin/security", security);
        symlink(binary::drystone(), home.path().join("bin/drystone")).unwrap();
        let docker = home.write("bin/docker", DOCKER);
        fs::set_permissions(docker, fs::Permissions::from_mode(0o755)).unwrap();
        Self(home)
    }

    fn run(&self, arguments: &[&str]) {
        let mut command = Command::new(self.path("deploy/compose/setup"));
        // The configuration of the user who runs the tests must not apply.
        for (name, _) in env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("DRYSTONE_")) {
            command.env_remove(name);
        }
        let path = env::var_os("PATH").unwrap_or_default();
        let path = env::join_paths([self.path("bin")].into_iter().chain(env::split_paths(&path))).unwrap();
        let output = command.args(arguments).current_dir("/").env("PATH", path).output().expect("it can be run");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let text = String::from_utf8(output.stdout).unwrap();
        assert!(text.ends_with("start with: docker compose up --detach\n"), "{text}");
    }

    /// A file of the copy.
    pub fn path(&self, relative: &str) -> PathBuf {
        self.0.path().join(relative)
    }

    fn secrets(&self) -> BTreeMap<String, Vec<u8>> {
        let entries = fs::read_dir(self.path("deploy/compose/secrets")).unwrap().flatten();
        entries.map(|entry| (entry.file_name().into_string().unwrap(), fs::read(entry.path()).unwrap())).collect()
    }

    /// The user and group ids of the containers.
    fn ids(&self) -> [u32; 2] {
        let env = self.env();
        ["MESH_UID=", "MESH_GID="]
            .map(|name| env.lines().find_map(|line| line.strip_prefix(name)).unwrap().parse().unwrap())
    }

    fn env(&self) -> String {
        fs::read_to_string(self.path(".env")).unwrap()
    }
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap_or_else(|error| panic!("{}: {error}", path.display())).permissions().mode() & 0o777
}

#[test]
fn setup_creates_every_mounted_secret_with_owner_and_mode() {
    let copy = RepositoryCopy::new();
    let compose = Compose::read();
    let [uid, gid] = copy.ids();
    assert!(uid != 0 && gid != 0, "containers do not run as root");
    for name in compose.defined("secrets").as_object().unwrap().keys() {
        let file = copy.path(&compose.source("secrets", name));
        let expected = match name.rsplit_once('.') {
            Some((_, "key")) => 0o600,
            Some(_) => 0o644,
            None if name == "master_key" => 0o600,
            None => 0o640,
        };
        assert_eq!(mode(&file), expected, "{name}");
        let metadata = fs::metadata(&file).unwrap();
        assert_eq!((metadata.uid(), metadata.gid()), (uid, gid), "{name}");
        assert!(metadata.len() > 0, "{name}");
    }
    assert_eq!(mode(&copy.path("deploy/compose/secrets")), 0o700, "other users of the machine have no access");
}

#[test]
fn a_second_setup_renews_certificates_and_keeps_passwords() {
    let copy = RepositoryCopy::new();
    let others = "OTHER=1\n";
    fs::write(copy.path(".env"), format!("{others}{}", copy.env())).unwrap();
    let (before, env) = (copy.secrets(), copy.env());
    copy.run(&[binary::drystone().to_str().unwrap()]);
    let after = copy.secrets();
    assert_eq!(before.keys().collect::<Vec<_>>(), after.keys().collect::<Vec<_>>());
    for (name, content) in &after {
        let is_renewed = match name.rsplit_once('.') {
            Some((name, "pem" | "key")) => name != "ca",
            _ => false,
        };
        assert_eq!(*content != before[name], is_renewed, "{name}");
    }
    assert_eq!(copy.env(), env);
}

#[test]
fn passwords_are_long_and_all_different() {
    let secrets = RepositoryCopy::new().secrets();
    let mut passwords: Vec<&Vec<u8>> =
        secrets.iter().filter(|(name, _)| name.ends_with("_password")).map(|(_, password)| password).collect();
    assert!(passwords.len() >= 6 && passwords.iter().all(|password| password.len() == 64), "{}", passwords.len());
    let count = passwords.len();
    passwords.sort_unstable();
    passwords.dedup();
    assert_eq!(passwords.len(), count);
    let users = String::from_utf8(secrets["redis_users"].clone()).unwrap();
    let is_in_file = |password: &&Vec<u8>| users.contains(std::str::from_utf8(password).unwrap());
    assert!(!passwords.iter().any(is_in_file), "Redis gets only hashes");
}

#[test]
fn without_a_program_setup_runs_the_image() {
    for (security, is_rootless) in [("[name=cgroupns]", false), ("[name=rootless name=cgroupns]", true)] {
        let copy = RepositoryCopy::with_docker(security);
        copy.run(&[]);
        let ids = copy.ids();
        assert_eq!(ids == [0, 0], is_rootless, "{security}");
        let users = fs::read_to_string(copy.path("bin/users")).unwrap();
        assert_eq!(
            users,
            // A key for each service, for Envoy, and for the operator, and the master key.
            format!("{}:{}\n", ids[0], ids[1]).repeat(modules().len() + 3),
            "the keys are created by the user who reads them"
        );
        let with_program = RepositoryCopy::new().secrets();
        assert_eq!(copy.secrets().keys().collect::<Vec<_>>(), with_program.keys().collect::<Vec<_>>());
    }
}
