use std::{
    collections::BTreeMap,
    net::{Ipv4Addr, SocketAddr},
};

use serde::Deserialize;
use tempfile::TempDir;

use super::*;

#[derive(Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Config {
    name: String,
    listen: SocketAddr,
    issuer: Option<String>,
    peers: BTreeMap<String, String>,
    allow: Vec<String>,
    log: LogConfig,
    auth: Auth,
}

impl Default for Config {
    fn default() -> Self {
        let (peers, allow) = (BTreeMap::new(), vec!["here".to_owned()]);
        Self {
            name: "default".to_owned(),
            listen: (Ipv4Addr::LOCALHOST, 8080).into(),
            issuer: None,
            peers,
            allow,
            log: LogConfig::default(),
            auth: Auth::default(),
        }
    }
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Auth {
    lifetime: ConfigDuration,
    memory_kib: u32,
    enabled: bool,
    pepper: Secret,
}

impl Default for Auth {
    fn default() -> Self {
        Self { lifetime: ConfigDuration::minutes(5), memory_kib: 19_456, enabled: true, pepper: Secret::default() }
    }
}

impl PartialEq for Auth {
    fn eq(&self, other: &Self) -> bool {
        self.lifetime == other.lifetime
            && self.memory_kib == other.memory_kib
            && self.pepper.expose() == other.pepper.expose()
    }
}

/// Writes a file with this text; also returns its temporary directory.
fn file(text: impl AsRef<[u8]>) -> (TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("drystone.toml");
    fs::write(&path, text).unwrap();
    (dir, path)
}

fn variables<'a>(pairs: impl IntoIterator<Item = (&'a str, &'a str)>) -> Vec<(OsString, OsString)> {
    pairs.into_iter().map(|(name, value)| (name.into(), value.into())).collect()
}

fn load_file(text: &str) -> Result<Config, ConfigError> {
    let (_dir, path) = file(text);
    load(&ConfigSources::new().file(path))
}

fn load_environment<'a>(pairs: impl IntoIterator<Item = (&'a str, &'a str)>) -> Result<Config, ConfigError> {
    load(&ConfigSources::new().environment(variables(pairs)))
}

/// The error for a file, with its path replaced by FILE. It must be a single line.
fn file_error(text: impl AsRef<[u8]>) -> String {
    let (_dir, path) = file(text);
    let error = load::<Config>(&ConfigSources::new().file(&path)).unwrap_err().to_string();
    assert!(!error.contains('\n'), "{error}");
    error.replace(&path.display().to_string(), "FILE")
}

fn environment_error<'a>(pairs: impl IntoIterator<Item = (&'a str, &'a str)>) -> String {
    load_environment(pairs).unwrap_err().to_string()
}

#[test]
fn without_sources_the_defaults_apply() {
    assert_eq!(load::<Config>(&ConfigSources::new()).unwrap(), Config::default());
}

#[test]
fn flags_override_the_environment_which_overrides_the_file_which_overrides_the_defaults() {
    let (_dir, path) = file("name = 'file'\n[auth]\nlifetime = '1m'\nmemory_kib = 1\n");
    let config = |sources: ConfigSources| load::<Config>(&sources).unwrap();

    let from_file = config(ConfigSources::new().file(&path));
    assert_eq!((from_file.name.as_str(), from_file.auth.memory_kib), ("file", 1));
    assert_eq!(from_file.auth.lifetime, ConfigDuration::minutes(1));
    assert!(from_file.auth.enabled);

    let set = variables([("DRYSTONE_NAME", "environment"), ("DRYSTONE_AUTH__MEMORY_KIB", "2")]);
    let from_environment = config(ConfigSources::new().file(&path).environment(set.clone()));
    assert_eq!((from_environment.name.as_str(), from_environment.auth.memory_kib), ("environment", 2));
    assert_eq!(from_environment.auth.lifetime, ConfigDuration::minutes(1));

    let sources = ConfigSources::new().file(&path).environment(set).flag("--name", "name", "flag").flag(
        "--memory",
        "auth.memory_kib",
        3,
    );
    let from_flags = config(sources);
    assert_eq!((from_flags.name.as_str(), from_flags.auth.memory_kib), ("flag", 3));
    assert_eq!(from_flags.auth.lifetime, ConfigDuration::minutes(1));
}

#[test]
fn a_file_adds_to_a_table_and_replaces_a_list() {
    let config = load_file("allow = ['there', 'elsewhere']\n[peers]\nauth = '10.0.0.1:50051'\n").unwrap();
    assert_eq!(config.allow, ["there", "elsewhere"]);
    assert_eq!(config.peers["auth"], "10.0.0.1:50051");
}

#[test]
fn a_variable_is_a_string_if_the_default_is_a_string_and_a_parsed_value_otherwise() {
    let config = load_environment([
        ("DRYSTONE_NAME", "123"),
        ("DRYSTONE_LISTEN", "[::1]:8080"),
        ("DRYSTONE_AUTH__PEPPER", "true"),
        ("DRYSTONE_AUTH__ENABLED", "false"),
        ("DRYSTONE_AUTH__LIFETIME", "90s"),
        ("DRYSTONE_ALLOW", "[a, b]"),
        ("DRYSTONE_ISSUER", "https://id.example.org"),
        ("DRYSTONE_PEERS__AUTH", "10.0.0.1:50051"),
    ])
    .unwrap();
    assert_eq!((config.name.as_str(), config.auth.pepper.expose(), config.auth.enabled), ("123", "true", false));
    assert_eq!(config.auth.lifetime, ConfigDuration::seconds(90));
    assert_eq!(config.listen.to_string(), "[::1]:8080");
    assert_eq!(config.allow, ["a", "b"]);
    assert_eq!(config.issuer.as_deref(), Some("https://id.example.org"));
    assert_eq!(config.peers["auth"], "10.0.0.1:50051");
}

#[test]
fn unrelated_and_kubernetes_variables_are_ignored() {
    let config = load_environment([
        ("PATH", "/bin"),
        ("DRYSTONE_CONFIG", "elsewhere.toml"),
        ("DRYSTONE_AUTH_SERVICE_HOST", "10.0.0.1"),
        ("DRYSTONE_AUTH_SERVICE_PORT", "50051"),
        ("DRYSTONE_AUTH_SERVICE_PORT_GRPC", "50051"),
        ("DRYSTONE_AUTH_PORT", "tcp://10.0.0.1:50051"),
        ("DRYSTONE_AUTH_PORT_50051_TCP", "tcp://10.0.0.1:50051"),
        ("DRYSTONE_AUTH_PORT_50051_TCP_PROTO", "tcp"),
        ("DRYSTONE_AUTH_PORT_50051_TCP_PORT", "50051"),
        ("DRYSTONE_AUTH_PORT_50051_TCP_ADDR", "10.0.0.1"),
    ]);
    assert_eq!(config.unwrap(), Config::default());
}

#[test]
fn an_unknown_key_is_reported_with_its_source_and_the_valid_keys() {
    assert_eq!(
        file_error("nmae = 'x'"),
        "`nmae` in FILE is not a known key; remove it, or use one of the keys: allow, auth, issuer, listen, log, name, peers"
    );
    assert_eq!(
        file_error("[auth]\nlifetme = '5m'"),
        "`auth.lifetme` in FILE is not a known key; remove it, or use one of the keys in [auth]: enabled, lifetime, memory_kib, pepper"
    );
    assert_eq!(
        environment_error([("DRYSTONE_AUTH__LIFETME", "5m")]),
        "`auth.lifetme` in the environment variable DRYSTONE_AUTH__LIFETME is not a known key; remove it, or use one of the keys \
         in [auth]: enabled, lifetime, memory_kib, pepper"
    );
    let unknown_flag = load::<Config>(&ConfigSources::new().flag("--nmae", "nmae", "x")).unwrap_err().to_string();
    assert!(unknown_flag.starts_with("`nmae` in the flag --nmae is not a known key"), "{unknown_flag}");
}

#[test]
fn a_variable_that_does_not_name_a_key_is_rejected() {
    for name in ["DRYSTONE_", "DRYSTONE___LISTEN", "DRYSTONE_AUTH__", "DRYSTONE_A____B"] {
        assert!(environment_error([(name, "x")]).contains("does not name a key; remove it"), "{name}");
    }
}

#[test]
fn an_invalid_value_is_reported_with_its_source_and_the_valid_values() {
    for (error, expected) in [
        (
            file_error("[auth]\nlifetime = '5 parsecs'"),
            "`auth.lifetime` in FILE is invalid: `5 parsecs` is not a duration; write one as 500ms, 30s, 5m, 1h30m or 14d",
        ),
        (file_error("[auth]\nmemory_kib = 'much'"), "`auth.memory_kib` in FILE must be u32, not a string; correct it"),
        (
            file_error("listen = 'localhost'"),
            "`listen` in FILE must be an IP address with a port, such as 127.0.0.1:8080; correct it",
        ),
        (file_error("[log]\nformat = 'xml'"), "`log.format` in FILE must be `text` or `json`, not `xml`; correct it"),
        (
            environment_error([("DRYSTONE_LOG__FILTER", "loud")]),
            "`log.filter` in the environment variable DRYSTONE_LOG__FILTER is invalid: `loud` is not a log filter; write a level such \
             as `info`, or levels by module such as `warn,drystone_auth=debug`",
        ),
        (
            environment_error([("DRYSTONE_AUTH", "5")]),
            "`auth` in the environment variable DRYSTONE_AUTH must be struct Auth, not a number; correct it",
        ),
    ] {
        assert_eq!(error, expected);
    }
}

#[test]
fn an_invalid_or_missing_file_is_reported() {
    let error = file_error("name = 'a'\nauth = [\n");
    assert!(error.starts_with("FILE is not valid TOML at line "), "{error}");
    let error = file_error([b'a', 0xff, b'=']);
    assert!(error.contains("FILE cannot be read") && error.ends_with("save it as UTF-8"), "{error}");

    let missing = load::<Config>(&ConfigSources::new().file("/nowhere/drystone.toml")).unwrap_err().to_string();
    assert!(missing.starts_with("the configuration file /nowhere/drystone.toml cannot be read"), "{missing}");
    assert!(missing.ends_with("create it, or name another with --config"), "{missing}");
}

#[cfg(unix)]
#[test]
fn a_variable_that_is_not_utf8_is_reported() {
    use std::os::unix::ffi::OsStringExt;

    let variables = vec![("DRYSTONE_NAME".into(), OsString::from_vec(vec![0xff]))];
    let error = load::<Config>(&ConfigSources::new().environment(variables)).unwrap_err().to_string();
    assert_eq!(error, "the environment variable DRYSTONE_NAME is not valid UTF-8; set it again");
}

#[test]
fn a_secret_is_never_shown() {
    let config = load_file("[auth]\npepper = 'hunter2'").unwrap();
    assert_eq!(config.auth.pepper.expose(), "hunter2");
    let shown = show(&config).unwrap();
    assert!(shown.contains("pepper = \"(secret)\""), "{shown}");
    assert!(!format!("{config:?}{shown}").contains("hunter2"));
    assert!(!file_error("[auth]\npepper = 4711").contains("4711"));
    assert!(!file_error("[auth]\npepper = hunter2").contains("hunter2"));
    let sources = ConfigSources::new().environment(variables([("DRYSTONE_AUTH__PEPPER", "hunter2")]));
    let layers = LayeredConfig::read(&sources, defaults(&Config::default()).unwrap()).unwrap();
    assert!(!format!("{sources:?}{layers:?}").contains("hunter2"));
}

#[test]
fn a_number_that_json_cannot_express_is_not_an_unset_value() {
    assert_eq!(load_file("issuer = nan").unwrap().issuer.as_deref(), Some("NaN"));
    assert!(file_error("[auth]\nmemory_kib = inf").contains("`auth.memory_kib` in FILE must be u32, not a string"));
}

#[test]
fn a_serialized_configuration_can_be_loaded() {
    let config = load_file("name = 'shown'\nissuer = 'https://id.example.org'\n[peers]\nauth = 'a:1'").unwrap();
    assert_eq!(load_file(&show(&config).unwrap()).unwrap(), config);
    let defaults = show(&Config::default()).unwrap();
    assert!(defaults.contains("lifetime = \"5m\""), "{defaults}");
}
