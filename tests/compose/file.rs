//! Parses docker-compose.yml and the configuration beside it.

use std::{collections::BTreeMap, fs, path::PathBuf};

use drystone_tests::{binary::repository, modules};
use serde_json::Value;

/// The compose file.
pub struct Compose(Value);

/// A service of the compose file.
#[derive(Clone, Copy)]
pub struct Service<'a> {
    pub name: &'a str,
    value: &'a Value,
    file: &'a Value,
}

/// A mounted file: its path in the repository, and in the container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mount {
    pub source: String,
    pub target: String,
}

/// The text of a file in the repository.
pub fn text(path: &str) -> String {
    fs::read_to_string(repository().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

impl Compose {
    pub fn read() -> Self {
        let text = text("docker-compose.yml");
        Self(
            serde_saphyr::from_str(&text)
                .unwrap_or_else(|error| panic!("docker-compose.yml is not valid YAML: {error}")),
        )
    }

    pub fn services(&self) -> Vec<Service<'_>> {
        let services = self.0["services"].as_object().expect("services are a mapping").iter();
        services.map(|(name, value)| Service { name, value, file: &self.0 }).collect()
    }

    pub fn service(&self, name: &str) -> Service<'_> {
        let found = self.services().into_iter().find(|service| service.name == name);
        found.unwrap_or_else(|| panic!("there is no service `{name}`"))
    }

    /// The services that run `drystone`: all except PostgreSQL and Redis.
    pub fn mesh_services(&self) -> Vec<Service<'_>> {
        modules().into_iter().map(|name| self.service(name)).collect()
    }

    /// A top-level value of the file.
    pub fn defined(&self, key: &str) -> &Value {
        &self.0[key]
    }

    /// The path of a secret or config, relative to the repository.
    pub fn source(&self, kind: &str, name: &str) -> String {
        source(&self.0, kind, name)
    }
}

impl<'a> Service<'a> {
    pub fn value(&self, key: &str) -> &'a Value {
        &self.value[key]
    }

    pub fn has(&self, key: &str) -> bool {
        self.value.get(key).is_some()
    }

    pub fn text(&self, key: &str) -> &'a str {
        self.value[key].as_str().unwrap_or_else(|| panic!("{}.{key} is {}", self.name, self.value[key]))
    }

    /// A list of strings; empty if the key is missing.
    pub fn list(&self, key: &str) -> Vec<&'a str> {
        texts(&self.value[key])
    }

    pub fn environment(&self) -> BTreeMap<&'a str, &'a str> {
        let entries = self.value["environment"].as_object().into_iter().flatten();
        entries.map(|(key, value)| (key.as_str(), value.as_str().expect("a variable is a string"))).collect()
    }

    /// The mounted configuration files.
    pub fn configs(&self) -> Vec<Mount> {
        self.mounts("configs", "")
    }

    /// The mounted secrets.
    pub fn secrets(&self) -> Vec<Mount> {
        self.mounts("secrets", "/run/secrets")
    }

    /// In the short syntax an entry is a name; Compose mounts the file under this name in a default directory.
    fn mounts(&self, kind: &str, directory: &str) -> Vec<Mount> {
        let entries = self.value[kind].as_array().into_iter().flatten();
        let mount = |entry: &Value| {
            let name = entry.as_str().or_else(|| entry["source"].as_str()).expect("a mount has a source");
            let target = entry["target"].as_str().unwrap_or(name);
            let target = if target.starts_with('/') { target.to_owned() } else { format!("{directory}/{target}") };
            Mount { source: source(self.file, kind, name), target }
        };
        entries.map(mount).collect()
    }
}

pub fn texts(list: &Value) -> Vec<&str> {
    list.as_array().into_iter().flatten().map(|entry| entry.as_str().expect("an entry is a string")).collect()
}

fn source(file: &Value, kind: &str, name: &str) -> String {
    let path = file[kind][name]["file"].as_str();
    path.unwrap_or_else(|| panic!("`{name}` is used but not defined under `{kind}` with a file")).to_owned()
}

/// A one-line value of the shared configuration, without quotes.
pub fn shared(section: &str, key: &str) -> String {
    let text = text("deploy/compose/drystone.toml");
    let lines = text.lines().skip_while(|line| *line != format!("[{section}]")).skip(1);
    let mut lines = lines.take_while(|line| !line.starts_with('['));
    let value =
        lines.find_map(|line| line.strip_prefix(&format!("{key} = ")).map(|value| value.trim_matches('"').to_owned()));
    value.unwrap_or_else(|| panic!("`{section}.{key}` is not set in drystone.toml"))
}

/// A file of the repository.
pub fn path(relative: &str) -> PathBuf {
    repository().join(relative)
}
