//! `drystone contract export`: the descriptor set of all contracts, byte for byte as they were compiled.

use std::{
    fs,
    io::{self, IsTerminal},
    path::PathBuf,
};

use anyhow::{Context, Result};

use crate::{
    App,
    command_line::WrongUsage,
    config::{Config, ConfigFile},
    output,
};

/// The flags of `drystone contract export`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    config: ConfigFile,

    /// The file to write; standard output if it is left out
    #[arg(long, short, value_name = "FILE")]
    output: Option<PathBuf>,
}

pub(crate) fn run(app: &App, args: &Args) -> Result<()> {
    let contracts = Config::load(app, &args.config.sources())?.contracts(app)?;
    let descriptor_set = contracts.descriptor_set()?;
    match &args.output {
        Some(path) => fs::write(path, descriptor_set)
            .with_context(|| format!("cannot write {}; name a file that this user may write", path.display())),
        None if io::stdout().is_terminal() => {
            let sentence = "the descriptor set is binary and would upset the terminal; name a file with --output FILE";
            Err(WrongUsage(sentence.to_owned()).into())
        }
        None => output::print(descriptor_set),
    }
}
