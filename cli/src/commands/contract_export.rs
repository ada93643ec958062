//! `drystone contract export`: the descriptor set, byte for byte as the build made it.

use std::{
    fs,
    io::{self, IsTerminal},
    path::PathBuf,
};

use anyhow::{Context, Result};
use drystone::contract::DESCRIPTOR_SET;

use crate::{WrongUsage, output};

/// The flags of `drystone contract export`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The file to write; standard output if it is left out
    #[arg(long, short, value_name = "FILE")]
    output: Option<PathBuf>,
}

pub(crate) fn run(args: &Args) -> Result<()> {
    match &args.output {
        Some(path) => fs::write(path, DESCRIPTOR_SET)
            .with_context(|| format!("cannot write {}; name a file that this user may write", path.display())),
        None if io::stdout().is_terminal() => {
            let sentence = "the descriptor set is binary and would upset the terminal; name a file with --output FILE";
            Err(WrongUsage(sentence.to_owned()).into())
        }
        None => output::print(DESCRIPTOR_SET),
    }
}
