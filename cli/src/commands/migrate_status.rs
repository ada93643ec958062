//! `drystone migrate status`: the schema version of each database.

use anyhow::{Result, bail};
use drystone_mesh::telemetry::{LogConfig, logs};
use drystone_store::{OpenError, SchemaState};

use super::migrate_up::Selection;
use crate::{App, config::Config, output, process, table::Table};

/// The flags of `drystone migrate status`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    selection: Selection,
}

pub(crate) fn run(app: &App, args: &Args) -> Result<()> {
    let config = Config::load(app, &args.selection.config.sources())?;
    logs::init(&LogConfig { audit_file: None, ..config.mesh.log.clone() })?;
    process::block_on(async {
        let mut table = Table::new(["SERVICE", "SCHEMA", "PROGRAM", "STATE", "DATABASE"]);
        let mut faults = Vec::new();
        let mut is_behind = false;
        for (name, location, migrations) in args.selection.databases(app, &config)? {
            let state = drystone_store::schema_state(&location, migrations).await;
            is_behind |= state.as_ref().is_ok_and(|state| state.applied < state.known);
            let [schema, program, state] = cells(state, &mut faults);
            table.row([name.to_owned(), schema, program, state, location.to_string()]);
        }
        output::print(table.to_string())?;
        match faults.as_slice() {
            [] if is_behind => bail!("not every schema is up to date; run `drystone migrate up`"),
            [] => Ok(()),
            faults => bail!("{}", faults.join("\n          ")),
        }
    })
}

fn cells(state: Result<SchemaState, OpenError>, faults: &mut Vec<String>) -> [String; 3] {
    const UNKNOWN: &str = "-";
    let (schema, program, state) = match state {
        Ok(SchemaState { applied, known }) if applied == known => {
            (applied.to_string(), known.to_string(), "up to date".to_owned())
        }
        Ok(SchemaState { applied, known }) => {
            (applied.to_string(), known.to_string(), format!("{} to apply", known - applied))
        }
        Err(error) => {
            let cells = match &error {
                OpenError::SchemaTooNew { found, known, .. } => {
                    (found.to_string(), known.to_string(), "newer".to_owned())
                }
                OpenError::MigrationChanged { .. } => (UNKNOWN.to_owned(), UNKNOWN.to_owned(), "changed".to_owned()),
                _ => (UNKNOWN.to_owned(), UNKNOWN.to_owned(), "unreachable".to_owned()),
            };
            let fault = error.to_string();
            if !faults.contains(&fault) {
                faults.push(fault);
            }
            cells
        }
    };
    [schema, program, state]
}
