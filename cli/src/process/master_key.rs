//! The master key of the process: the configured one, or a file in the data directory that `drystone up` generates.

use std::{path::Path, sync::Arc};

use anyhow::{Result, bail};
use drystone_store::sealing::{self, KeyEncryption, MasterKeyFile, MasterKeys};
use tracing::info;

use super::Opened;
use crate::config::{MeshConfig, ServiceConfig};

/// The name of the generated file.
const FILE: &str = "master.key";

/// Checks the configured master key before a database is opened, and so migrated, without one that can be used.
///
/// # Errors
/// The configured key cannot be used, or there is none although a service seals values.
pub(super) fn check(config: &MeshConfig, may_generate: bool, services: &[&ServiceConfig]) -> Result<()> {
    let Some(service) = services.iter().find(|service| sealing::seals(service.module.migrations())) else {
        return Ok(());
    };
    let configured = config.sealing.open().map_err(anyhow::Error::msg)?;
    if configured.is_none() && !may_generate {
        bail!("{}", drystone_store::no_master_key(service.module.name()));
    }
    Ok(())
}

/// The master key. `None` if no service needs one, or none is configured or generated.
///
/// # Errors
/// The configured key cannot be used; or the generated file is gone, while there are databases that its key seals.
pub(super) async fn load(
    config: &MeshConfig,
    may_generate: bool,
    opened: &[Opened<'_>],
) -> Result<Option<Arc<dyn KeyEncryption>>> {
    let sealing = opened.iter().filter(|opened| sealing::seals(opened.service.module.migrations()));
    let sealing: Vec<_> =
        sealing.filter_map(|opened| Some((opened.service.module.name(), opened.database.as_ref()?))).collect();
    if sealing.is_empty() {
        return Ok(None);
    }
    let configured = config.sealing.open().map_err(anyhow::Error::msg)?;
    if configured.is_some() || !may_generate {
        return Ok(configured);
    }
    let path = config.data_dir.join(FILE);
    if path.exists() {
        return Ok(Some(Arc::new(MasterKeyFile::open(&path)?)));
    }
    for (name, database) in sealing {
        if sealing::is_in_use(database).await? {
            bail!(
                "the master key file {} is missing, which seals the database of `{name}`; restore it from your copy",
                path.display()
            );
        }
    }
    generate(&path)?;
    Ok(Some(Arc::new(MasterKeyFile::open(&path)?)))
}

fn generate(path: &Path) -> Result<()> {
    if let Some(directory) = path.parent() {
        std::fs::create_dir_all(directory)?;
    }
    MasterKeys::generate(path)?;
    info!(path = %path.display(), "generated a master key, which encrypts secrets in databases; keep a copy apart from them");
    Ok(())
}
