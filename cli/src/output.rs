//! What a person or a pipe reads.

use std::io::{self, Write};

use anyhow::{Context, Result};
use drystone_mesh::error::Chain;

/// Writes to standard output. A reader that has seen enough, as `head` does, is no failure.
pub(crate) fn print(bytes: impl AsRef<[u8]>) -> Result<()> {
    let mut out = io::stdout().lock();
    match out.write_all(bytes.as_ref()).and_then(|()| out.flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        written => written.context("the answer cannot be written to standard output"),
    }
}

/// Writes one line to standard error: what happened, and what lies behind it.
pub(crate) fn complain(error: &anyhow::Error) {
    // Where even that fails, the exit code has to do.
    let _ = writeln!(io::stderr(), "drystone: {}", Chain(error.as_ref()));
}
