//! `drystone passwords build-list`: makes a compact list of leaked passwords.

use std::{
    fmt::Write as _,
    fs::File,
    io::{BufReader, stdin},
    path::PathBuf,
};

use anyhow::{Context, Result};
use clap::ValueEnum;
use drystone_auth::password::policy::blocklist::{LineKind, build};

use crate::output;

/// The flags of `drystone passwords build-list`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The list: a password or a SHA-1 on each line (HASH:COUNT, as of Have I Been Pwned); - for standard input
    list: PathBuf,

    /// The file to write, for auth.password_policy.blocklist
    file: PathBuf,

    /// What the lines are; without it, the first one tells
    #[arg(long, value_enum)]
    lines: Option<Lines>,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Lines {
    /// Passwords
    Passwords,
    /// SHA-1 in hexadecimal digits
    Sha1,
}

pub(crate) fn run(args: &Args) -> Result<()> {
    let kind = args.lines.map(|lines| match lines {
        Lines::Passwords => LineKind::Password,
        Lines::Sha1 => LineKind::Sha1,
    });
    let shown = args.list.display();
    let summary = if args.list.as_os_str() == "-" {
        build(stdin().lock(), &args.file, kind)?
    } else {
        let list = File::open(&args.list).with_context(|| format!("{shown} cannot be read"))?;
        build(BufReader::new(list), &args.file, kind).with_context(|| format!("the list {shown} cannot be used"))?
    };
    let kind = match summary.kind {
        LineKind::Password => "passwords",
        LineKind::Sha1 => "hashes",
    };
    let mut text = format!("{}: {} entries of {} {kind}\n", args.file.display(), summary.entries, summary.lines);
    for (count, why) in
        [(summary.not_utf8, "are not UTF-8"), (summary.out_of_length, "are too short or too long to be set")]
    {
        if count > 0 {
            let _ = writeln!(text, "{count} lines were left out, since they {why}");
        }
    }
    output::print(text)
}
