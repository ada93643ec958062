//! What the commands about certificates have in common.

use std::path::PathBuf;

use anyhow::Result;
use drystone_mesh::{
    clock::{Clock, Timestamp},
    config::ConfigError,
    identity::{Authority, Identity},
};

use crate::{
    App,
    config::{Config, ConfigFile},
    table::Table,
};

/// The flags that say where certificates are.
#[derive(Debug, clap::Args)]
pub(crate) struct CertsDir {
    #[command(flatten)]
    config: ConfigFile,

    /// Use the certificates in DIR, and not in `certs_dir` of the configuration
    #[arg(long, value_name = "DIR")]
    certs_dir: Option<PathBuf>,
}

impl CertsDir {
    /// The configuration with this directory.
    pub(crate) fn config(&self, app: &App) -> Result<Config, ConfigError> {
        let mut sources = self.config.sources();
        if let Some(dir) = &self.certs_dir {
            let dir = dir
                .to_str()
                .ok_or_else(|| ConfigError::new("--certs-dir is not valid UTF-8; name another directory"))?;
            sources = sources.flag("--certs-dir", "certs_dir", dir);
        }
        Config::load(app, &sources)
    }
}

/// The development CA in `certs_dir`, which is created if there is none.
pub(crate) fn authority(config: &Config) -> Result<Authority> {
    config.mesh.certificates.check_names().map_err(ConfigError::new)?;
    Ok(Authority::open_or_create(&config.mesh.certs_dir, &config.mesh.trust_domain, Clock::system())?)
}

/// Issues certificates, and returns a table of them.
pub(crate) fn issue(authority: &Authority, names: &[String]) -> Result<String> {
    let mut table = Table::new(["WORKLOAD", "VALID UNTIL", "CERTIFICATE", "KEY"]);
    for name in names {
        let files = authority.issue(name)?;
        // Read back, so that what is listed is what a service will accept.
        let svid = Identity::load(&files)?.svid();
        let (certificate, key) = (files.certificate.display().to_string(), files.key.display().to_string());
        table.row([svid.id.to_string(), time(svid.not_after), certificate, key]);
    }
    Ok(format!("{table}\nThe CA that issued them: {}\n", authority.certificate().display()))
}

/// A time as people read it.
pub(crate) fn time(time: Timestamp) -> String {
    time.format("%Y-%m-%d %H:%M UTC").to_string()
}
