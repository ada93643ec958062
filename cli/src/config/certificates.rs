//! The section `[certificates]`.

use std::path::{Path, PathBuf};

use drystone_mesh::{config::ConfigDuration, identity::IdentityFiles};
use serde::{Deserialize, Serialize};

use crate::identity::check_workload_api;

/// What stands for the name of the workload in the name of a file.
const WORKLOAD: &str = "{workload}";

/// The bounds of the interval in which files are looked at.
const MIN_CHECK_INTERVAL: ConfigDuration = ConfigDuration::millis(100);
const MAX_CHECK_INTERVAL: ConfigDuration = ConfigDuration::hours(1);

/// Where certificates come from, and what is done about their changes: names of files in `certs_dir`, or the Workload API.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct CertificatesConfig {
    /// The file of a workload's certificate and intermediates; `{workload}` stands for its name.
    pub(crate) certificate: String,
    /// The file of its private key.
    pub(crate) key: String,
    /// The file of the roots.
    pub(crate) roots: String,
    /// Where `serve` takes certificate, key and roots from in the place of files: the SPIFFE Workload API at this socket
    /// (`unix:///PATH`), or at the one that the environment names (`env`).
    pub(crate) workload_api: Option<String>,
    /// A file of denied workloads and serial numbers, a line each.
    pub(crate) denylist: Option<PathBuf>,
    /// How often the files are looked at.
    pub(crate) check_interval: ConfigDuration,
}

impl Default for CertificatesConfig {
    fn default() -> Self {
        Self {
            certificate: format!("{WORKLOAD}.pem"),
            key: format!("{WORKLOAD}.key"),
            roots: "ca.pem".to_owned(),
            workload_api: None,
            denylist: None,
            check_interval: ConfigDuration::seconds(5),
        }
    }
}

impl CertificatesConfig {
    /// The files of a workload in this directory.
    pub(crate) fn files(&self, directory: &Path, workload: &str) -> IdentityFiles {
        let file = |name: &str| directory.join(name.replace(WORKLOAD, workload));
        IdentityFiles { certificate: file(&self.certificate), key: file(&self.key), bundle: self.bundle(directory) }
    }

    /// The file of the roots in this directory.
    pub(crate) fn bundle(&self, directory: &Path) -> PathBuf {
        directory.join(&self.roots)
    }

    /// Checks that the files have the names that the development CA writes.
    pub(crate) fn check_names(&self) -> Result<(), String> {
        let Self { certificate, key, roots, .. } = Self::default();
        if (&self.certificate, &self.key, &self.roots) == (&certificate, &key, &roots) {
            return Ok(());
        }
        Err(format!(
            "the development CA writes `{certificate}`, `{key}` and `{roots}`; remove certificates.certificate, certificates.key \
             and certificates.roots, or use `drystone serve` with certificates of your own CA"
        ))
    }

    /// Checks that certificates are files, which the development CA writes.
    pub(crate) fn check_files(&self) -> Result<(), String> {
        match &self.workload_api {
            None => Ok(()),
            Some(_) => Err(
                "certificates.workload_api is for `drystone serve`, and `drystone up` has a CA of its own; remove the \
                            setting, or use `drystone serve`"
                    .to_owned(),
            ),
        }
    }

    /// Checks what types cannot express.
    pub(super) fn check(&self) -> Result<(), String> {
        for (key, name) in [("certificate", &self.certificate), ("key", &self.key), ("roots", &self.roots)] {
            if name.is_empty() || name.contains("..") || Path::new(name).is_absolute() {
                return Err(format!("certificates.{key} must be the name of a file in `certs_dir`, such as `tls.crt`"));
            }
        }
        if let Some(setting) = &self.workload_api {
            check_workload_api(setting)?;
        }
        if (MIN_CHECK_INTERVAL..=MAX_CHECK_INTERVAL).contains(&self.check_interval) {
            return Ok(());
        }
        Err(format!("certificates.check_interval must be from {MIN_CHECK_INTERVAL} to {MAX_CHECK_INTERVAL}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn file_names_can_be_those_of_a_mounted_secret() {
        let standard = CertificatesConfig::default().files(Path::new("certs"), "auth");
        assert_eq!(standard.certificate, Path::new("certs/auth.pem"));
        assert_eq!((standard.key, standard.bundle), ("certs/auth.key".into(), "certs/ca.pem".into()));
        let config = CertificatesConfig {
            certificate: "tls.crt".to_owned(),
            key: "{workload}/tls.key".to_owned(),
            roots: "ca.crt".to_owned(),
            ..CertificatesConfig::default()
        };
        config.check().unwrap();
        let files = config.files(Path::new("/tls"), "auth");
        assert_eq!(files.certificate, Path::new("/tls/tls.crt"));
        assert_eq!((files.key, files.bundle), ("/tls/auth/tls.key".into(), "/tls/ca.crt".into()));
        assert!(config.check_names().unwrap_err().contains("`{workload}.pem`"));
        CertificatesConfig::default().check_names().unwrap();
    }

    #[test]
    fn the_workload_api_is_for_a_binary_with_the_feature_and_for_serve() {
        let of = |setting: &str| CertificatesConfig {
            workload_api: Some(setting.to_owned()),
            ..CertificatesConfig::default()
        };
        let socket = of("unix:///run/spire/sockets/agent.sock");
        if cfg!(feature = "workload-api") {
            socket.check().unwrap();
            let error = of("tcp://127.0.0.1:8081").check().unwrap_err();
            assert!(error.starts_with("certificates.workload_api: `tcp://127.0.0.1:8081` is not"), "{error}");
        } else {
            let error = socket.check().unwrap_err();
            assert!(error.contains("built without the feature `workload-api`; build it with `cargo build"), "{error}");
        }
        assert!(socket.check_files().unwrap_err().contains("`drystone serve`"));
        CertificatesConfig::default().check_files().unwrap();
    }

    #[test]
    fn invalid_values_are_errors_that_name_the_key() {
        let fault = |change: fn(&mut CertificatesConfig)| {
            let mut config = CertificatesConfig::default();
            change(&mut config);
            config.check().unwrap_err()
        };
        assert!(fault(|config| config.key.clear()).starts_with("certificates.key "));
        assert!(fault(|config| config.roots = "/ca.pem".to_owned()).starts_with("certificates.roots "));
        assert!(fault(|config| config.certificate = "../a.pem".to_owned()).starts_with("certificates.certificate "));
        let interval = fault(|config| config.check_interval = ConfigDuration::millis(50));
        assert!(interval.starts_with("certificates.check_interval must be from 100ms"), "{interval}");
    }
}
