//! `drystone migrate up`: applies pending migrations.

use anyhow::Result;
use drystone_mesh::telemetry::{LogConfig, logs};
use drystone_store::{Db, Location, Migration, SchemaState};

use crate::{
    App,
    command_line::WrongUsage,
    config::{Config, ConfigFile, ServiceConfig},
    output, process,
};

/// The flags of `drystone migrate up`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    selection: Selection,
}

/// The databases to work on.
#[derive(Debug, clap::Args)]
pub(crate) struct Selection {
    /// The services whose databases to work on; all by default
    #[arg(value_name = "NAME")]
    names: Vec<String>,

    #[command(flatten)]
    pub(super) config: ConfigFile,
}

/// The name of a service, its database, and its migrations.
type Database = (&'static str, Location, &'static [Migration]);

impl Selection {
    pub(super) fn databases(&self, app: &App, config: &Config) -> Result<Vec<Database>, WrongUsage> {
        app.select(&self.names)?;
        let is_selected = |name: &str| self.names.is_empty() || self.names.iter().any(|selected| selected == name);
        let selected = config.services.iter().filter(|service| is_selected(service.module.name()));
        let database = |service: &ServiceConfig| {
            Some((service.module.name(), service.location(&config.mesh.data_dir)?, service.module.migrations()))
        };
        Ok(selected.filter_map(database).collect())
    }
}

pub(crate) fn run(app: &App, args: &Args) -> Result<()> {
    let config = Config::load(app, &args.selection.config.sources())?;
    logs::init(&LogConfig { audit_file: None, ..config.mesh.log.clone() })?;
    process::block_on(async {
        for (name, location, migrations) in args.selection.databases(app, &config)? {
            let SchemaState { applied, known } = drystone_store::schema_state(&location, migrations).await?;
            Db::open(location, migrations).await?.close().await;
            let done = match known - applied {
                0 => "was up to date".to_owned(),
                1 => "1 step applied".to_owned(),
                steps => format!("{steps} steps applied"),
            };
            output::print(format!("{name}: schema version {known}, {done}\n"))?;
        }
        Ok(())
    })
}
