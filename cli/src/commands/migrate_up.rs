//! `drystone migrate up`: brings the schemas of the databases up to date.

use anyhow::Result;
use drystone_mesh::{
    store::{self, Db, Migration, SchemaState, Settings},
    telemetry::logs,
};

use crate::{
    config::{Config, ConfigFile},
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
    /// The services whose databases are meant; all four where none is named
    #[arg(value_name = "NAME", value_parser = ["auth", "property", "session", "user"])]
    names: Vec<String>,

    #[command(flatten)]
    pub(super) config: ConfigFile,
}

impl Selection {
    pub(super) fn databases<'a>(
        &self,
        config: &'a Config,
    ) -> impl Iterator<Item = (&'static str, Settings<'a>, &'static [Migration])> {
        let is_meant = |name: &str| self.names.is_empty() || self.names.iter().any(|chosen| chosen == name);
        process::databases(config).into_iter().filter(move |(name, ..)| is_meant(name))
    }
}

pub(crate) fn run(args: &Args) -> Result<()> {
    let config = Config::load(&args.selection.config.sources())?;
    logs::init(&config.log);
    process::block_on(async {
        for (name, settings, migrations) in args.selection.databases(&config) {
            let place = settings.place(&config.data_dir);
            let SchemaState { applied, known } = store::schema_state(&place, migrations).await?;
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
