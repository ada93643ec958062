//! `drystone keys generate`: a file with a new master key.

use std::path::PathBuf;

use anyhow::Result;
use drystone_store::sealing::{KeyEncryption, MasterKeys};

use crate::output;

/// The flags of `drystone keys generate`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The file to write, which must not exist
    #[arg(value_name = "FILE")]
    file: PathBuf,
}

pub(crate) fn run(args: &Args) -> Result<()> {
    let keys = MasterKeys::generate(&args.file)?;
    let path = args.file.display();
    output::print(format!(
        "wrote the master key `{}` to {path}; set sealing.key_file to it, and keep a copy apart from the databases\n",
        keys.key_id()
    ))
}
