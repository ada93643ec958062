//! `drystone migrate up`: brings the schemas of the databases up to date.

use anyhow::Result;
use drystone_mesh::telemetry::logs;
use drystone_store::{Db, Migration, SchemaState, Settings};

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

/// Which databases are meant.
#[derive(Debug, clap::Args)]
pub(crate) struct Selection {
    /// The services whose databases are meant; all where none is named
    #[arg(value_name = "NAME")]
    names: Vec<String>,

    #[command(flatten)]
    pub(super) config: ConfigFile,
}

/// A service with a database: its name, where that is, and its schema, step by step.
type Database<'a> = (&'static str, Settings<'a>, &'static [Migration]);

impl Selection {
    pub(super) fn databases<'a>(&self, app: &App, config: &'a Config) -> Result<Vec<Database<'a>>, WrongUsage> {
        app.select(&self.names)?;
        let is_meant = |name: &str| self.names.is_empty() || self.names.iter().any(|chosen| chosen == name);
        let meant = config.services.iter().filter(|service| is_meant(service.module.name()));
        let database = |service: &'a ServiceConfig| {
            Some((service.module.name(), service.database()?, service.module.migrations()))
        };
        Ok(meant.filter_map(database).collect())
    }
}

pub(crate) fn run(app: &App, args: &Args) -> Result<()> {
    let config = Config::load(app, &args.selection.config.sources())?;
    logs::init(&config.mesh.log);
    process::block_on(async {
        for (name, settings, migrations) in args.selection.databases(app, &config)? {
            let place = settings.place(&config.mesh.data_dir);
            let SchemaState { applied, known } = drystone_store::schema_state(&place, migrations).await?;
            Db::open(place, migrations).await?.close().await;
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
