//! `drystone access diff`: who gains and who loses which RPC between two sets of contracts.

mod entries;

use std::path::PathBuf;

use anyhow::{Result, bail};
use drystone::contract::changes::{AccessChange, Direction, access_changes};

use self::entries::Entry;
use crate::{
    App,
    access::read_methods,
    config::{Config, ConfigFile},
    output,
    table::Table,
};

/// The flags of `drystone access diff`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    config: ConfigFile,

    /// The old contracts: a file of `drystone contract export`
    #[arg(value_name = "OLD")]
    old: PathBuf,

    /// The new contracts [default: those of this program and its configuration]
    #[arg(value_name = "NEW")]
    new: Option<PathBuf>,

    /// The document with an entry for each loosened rule; without it, every one fails
    #[arg(long, value_name = "FILE")]
    changes: Option<PathBuf>,

    /// The file that names the newest entry of OLD; only entries above it count. If it is empty, every entry does
    #[arg(long, value_name = "FILE", requires = "changes")]
    after: Option<PathBuf>,
}

pub(crate) fn run(app: &App, args: &Args) -> Result<()> {
    let entries = match &args.changes {
        Some(path) => entries::read(path, args.after.as_deref())?,
        None => Vec::new(),
    };
    let old = read_methods(&args.old)?;
    let new = match &args.new {
        Some(path) => read_methods(path)?,
        None => Config::load(app, &args.config.sources())?.contracts(app)?.methods().to_vec(),
    };
    let changes = access_changes(&old, &new);
    output::print(shown(&changes))?;

    let is_named = |change: &AccessChange| entries.iter().any(|entry| entry.names(change));
    let is_looser = |change: &&AccessChange| change.direction == Direction::Looser;
    let unnamed: Vec<_> = changes.iter().filter(is_looser).filter(|change| !is_named(change)).collect();
    if unnamed.is_empty() {
        return Ok(());
    }
    let list: Vec<String> = unnamed.iter().map(|change| format!("\n  {}: {}", change.rpc, change.what)).collect();
    let advice = match &args.changes {
        Some(path) => format!("write an entry for each into {}, or restore the rule", path.display()),
        None => "name the document with their entries with --changes FILE, or restore the rules".to_owned(),
    };
    bail!("loosened without an entry; {advice}:{}", list.concat())
}

fn shown(changes: &[AccessChange]) -> String {
    if changes.is_empty() {
        return "no access rule has changed\n".to_owned();
    }
    let mut table = Table::new(["CHANGE", "RPC", "WHAT", "WHO GAINS OR LOSES"]);
    for AccessChange { direction, rpc, what, who } in changes {
        let direction = match direction {
            Direction::Looser => "looser",
            Direction::Stricter => "stricter",
        };
        table.row([direction.to_owned(), rpc.clone(), what.clone(), who.clone()]);
    }
    table.to_string()
}

impl Entry {
    /// Whether the entry is about this change.
    fn names(&self, change: &AccessChange) -> bool {
        self.rpc == change.rpc && self.what == change.what
    }
}
