//! `drystone users import`: imports accounts from a file. It can be repeated: accounts that were imported before stay as they are.

use std::{
    collections::VecDeque,
    fs::{self, File},
    io::{self, BufReader, Write},
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail};
use drystone::auth::v1::{ImportOutcome, ImportUsersRequest, ImportUsersResponse, ImportedUser};
use futures_util::stream;
use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;
use tokio::sync::mpsc;
use tonic::Status;

use crate::{
    App,
    accounts::Accounts,
    config::ConfigFile,
    import_file::{Lines, RoleMap},
    operator, output, process,
};

/// How many accounts one message has, and of how many bytes of the file, at most.
const BATCH: usize = 500;
const BATCH_BYTES: u64 = 1 << 20;

/// How many messages are sent before the first is answered.
const AHEAD: usize = 3;

/// The flags of `drystone users import`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    config: ConfigFile,

    /// The file: one JSON object in each line. docs/operations.md has its members
    #[arg(value_name = "FILE")]
    accounts: PathBuf,

    /// The system that the accounts come from: with the id there, it tells which were imported before
    #[arg(long, value_name = "NAME", default_value = "import")]
    source: String,

    /// The role of this mesh for one of the other system
    #[arg(long, value_name = "OTHER=ROLE", value_parser = parse_role)]
    role: Vec<(String, String)>,

    /// Where to write which lines are refused, and why [default: FILE.refused]
    #[arg(long, value_name = "FILE")]
    report: Option<PathBuf>,
}

fn parse_role(text: &str) -> Result<(String, String), String> {
    let (other, role) = text.split_once('=').ok_or("must be OTHER=ROLE, such as MANAGER=manager")?;
    Ok((other.to_owned(), role.to_owned()))
}

pub(crate) fn run(app: &App, args: &Args) -> Result<()> {
    let file = File::open(&args.accounts).with_context(|| format!("{} cannot be read", args.accounts.display()))?;
    let length = file.metadata()?.len();
    let report = Report::new(args)?;
    process::block_on(async {
        let mut accounts = Accounts::connect(app, &args.config)?;
        let mut import = Import {
            lines: Lines::new(BufReader::new(file)),
            source: args.source.clone(),
            role_map: args.role.iter().cloned().collect(),
            report,
            bar: progress_bar(length),
            counts: Counts::default(),
        };
        let (requests, sent) = mpsc::channel(AHEAD);
        let sent = stream::unfold(sent, async |mut sent| Some((sent.recv().await?, sent)));
        let answers = accounts.auth.import_users(sent).await.map_err(|status| import.stopped(&status))?.into_inner();
        import.run(requests, answers).await?;
        import.bar.finish_and_clear();
        let Counts { imported, existed, refused } = import.counts;
        output::print(format!("{imported} imported, {existed} imported before, {refused} refused\n"))?;
        if refused > 0 {
            let path = import.report.path.display();
            bail!("{refused} lines are refused; {path} has the reasons. Mend them, and run the same command again");
        }
        Ok(())
    })
}

/// An import in progress.
struct Import {
    lines: Lines<BufReader<File>>,
    source: String,
    role_map: RoleMap,
    report: Report,
    bar: ProgressBar,
    counts: Counts,
}

#[derive(Debug, Default)]
struct Counts {
    imported: u64,
    existed: u64,
    refused: u64,
}

/// A message that is not answered yet.
struct Batch {
    /// The numbers of its lines.
    numbers: Vec<u64>,
    users: Vec<ImportedUser>,
    /// The bytes of the file that it ends, with refused lines.
    bytes: u64,
}

impl Import {
    async fn run(
        &mut self,
        requests: mpsc::Sender<ImportUsersRequest>,
        mut answers: tonic::Streaming<ImportUsersResponse>,
    ) -> Result<()> {
        let mut unanswered = VecDeque::new();
        loop {
            while unanswered.len() < AHEAD
                && let Some(batch) = self.next_batch()?
            {
                let Batch { numbers, users, bytes } = batch;
                unanswered.push_back((numbers, bytes));
                // Where the call has failed, its status says more.
                let _ = requests.send(ImportUsersRequest { source: self.source.clone(), users }).await;
            }
            let Some((numbers, bytes)) = unanswered.pop_front() else { break };
            match answers.message().await {
                Ok(Some(answer)) if answer.results.len() == numbers.len() => self.record(&numbers, answer)?,
                Ok(_) => bail!("the answer of the auth service is incomplete; run the same command again"),
                Err(status) => return Err(self.stopped(&status)),
            }
            self.bar.inc(bytes);
        }
        // To the end of the call, so that the server sees no interruption.
        drop(requests);
        while answers.message().await.map_err(|status| self.stopped(&status))?.is_some() {}
        self.report.finish().context("the report of an earlier run cannot be removed")
    }

    /// The next lines that are accounts. `None` at the end of the file.
    fn next_batch(&mut self) -> Result<Option<Batch>> {
        let mut batch = Batch { numbers: Vec::new(), users: Vec::new(), bytes: 0 };
        while batch.users.len() < BATCH && batch.bytes < BATCH_BYTES {
            let Some(line) = self.lines.next().context("the file cannot be read")? else { break };
            batch.bytes += line.length;
            match line.record.and_then(|record| record.into_message(&self.role_map)) {
                Ok(user) => {
                    batch.numbers.push(line.number);
                    batch.users.push(user);
                }
                Err(reason) => self.refuse(line.number, &reason)?,
            }
        }
        Ok((!batch.users.is_empty()).then_some(batch))
    }

    fn record(&mut self, numbers: &[u64], answer: ImportUsersResponse) -> Result<()> {
        for (number, result) in numbers.iter().zip(answer.results) {
            match result.outcome() {
                ImportOutcome::Imported => self.counts.imported += 1,
                ImportOutcome::Existed => self.counts.existed += 1,
                ImportOutcome::Refused | ImportOutcome::Unspecified => self.refuse(*number, &result.refusal)?,
            }
        }
        Ok(())
    }

    fn refuse(&mut self, number: u64, reason: &str) -> Result<()> {
        self.counts.refused += 1;
        self.report.add(number, reason).context("the report cannot be written")
    }

    fn stopped(&self, status: &Status) -> anyhow::Error {
        let done = self.counts.imported + self.counts.existed + self.counts.refused;
        let cause = operator::failure(status);
        cause.context(format!("the import stopped after {done} accounts; run the same command again to go on"))
    }
}

/// The lines that are refused, and why. There is no file without one.
struct Report {
    path: PathBuf,
    /// Whether the path is that of this command, which may remove what an earlier run wrote.
    is_default: bool,
    file: Option<io::LineWriter<File>>,
}

#[derive(Serialize)]
struct Refusal<'a> {
    line: u64,
    reason: &'a str,
}

impl Report {
    fn new(args: &Args) -> Result<Self> {
        let path = args.report.clone().unwrap_or_else(|| with_suffix(&args.accounts, ".refused"));
        if fs::canonicalize(&path).ok().is_some_and(|report| fs::canonicalize(&args.accounts).ok() == Some(report)) {
            bail!("{} is the file to import; name another one for the report", path.display());
        }
        Ok(Self { path, is_default: args.report.is_none(), file: None })
    }

    fn add(&mut self, line: u64, reason: &str) -> io::Result<()> {
        let file = match &mut self.file {
            Some(file) => file,
            None => self.file.insert(io::LineWriter::new(File::create(&self.path)?)),
        };
        serde_json::to_writer(&mut *file, &Refusal { line, reason })?;
        file.write_all(b"\n")
    }

    /// Removes the report of an earlier run if nothing is refused any more.
    fn finish(&self) -> io::Result<()> {
        if self.file.is_some() || !self.is_default {
            return Ok(());
        }
        match fs::remove_file(&self.path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            removed => removed,
        }
    }
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

/// On a terminal only.
fn progress_bar(length: u64) -> ProgressBar {
    let template = "{wide_bar} {percent} %, {bytes} of {total_bytes}, {eta} left";
    let style = ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
    ProgressBar::new(length).with_style(style)
}
