//! `drystone access show`: the rule of every RPC, as servers obey it.

use anyhow::{Result, bail};
use drystone::contract::{Idempotency, METHODS, Method, Subject};
use drystone_mesh::config::Span;
use serde::Serialize;

use crate::{output, table::Table};

/// The flags of `drystone access show`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Show only RPCs whose name holds SUBSTRING, in capitals or not
    #[arg(long, value_name = "SUBSTRING")]
    rpc: Option<String>,

    /// Write JSON instead of a table
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(args: &Args) -> Result<()> {
    let wanted = args.rpc.as_deref().unwrap_or_default();
    let rules = rules(wanted);
    if rules.is_empty() {
        bail!("no RPC has `{wanted}` in its name; leave --rpc out to see them all");
    }
    if args.json {
        output::print(serde_json::to_string_pretty(&rules)? + "\n")
    } else {
        output::print(table(&rules).to_string())
    }
}

/// The rule of one RPC.
#[derive(Debug, Serialize)]
struct Rule {
    rpc: &'static str,
    callers: &'static [&'static str],
    subject: &'static str,
    permission: Option<&'static str>,
    max_auth_age_seconds: Option<u64>,
    audited: bool,
    idempotency: &'static str,
    rest: &'static [&'static str],
}

fn rules(wanted: &str) -> Vec<Rule> {
    let wanted = wanted.to_lowercase();
    METHODS.iter().filter(|method| method.path.to_lowercase().contains(&wanted)).map(Rule::of).collect()
}

impl Rule {
    fn of(method: &'static Method) -> Self {
        Self {
            rpc: method.path.trim_start_matches('/'),
            callers: method.callers,
            subject: match method.subject {
                Subject::None => "none",
                Subject::User => "user",
            },
            permission: method.permission,
            max_auth_age_seconds: method.max_auth_age.map(|age| age.as_secs()),
            audited: method.audited,
            idempotency: match method.idempotency {
                Idempotency::Unknown => "unknown",
                Idempotency::NoSideEffects => "no_side_effects",
                Idempotency::Idempotent => "idempotent",
            },
            rest: method.rest,
        }
    }
}

fn table(rules: &[Rule]) -> Table<7> {
    const NOTHING: &str = "-";
    let mut table = Table::new(["RPC", "CALLERS", "SUBJECT", "PERMISSION", "MAX AUTH AGE", "AUDITED", "REST"]);
    for rule in rules {
        let max_auth_age = rule.max_auth_age_seconds.map(|seconds| Span::seconds(seconds).to_string());
        table.row([
            rule.rpc.to_owned(),
            rule.callers.join(" "),
            rule.subject.to_owned(),
            rule.permission.unwrap_or(NOTHING).to_owned(),
            max_auth_age.unwrap_or_else(|| NOTHING.to_owned()),
            if rule.audited { "yes" } else { "no" }.to_owned(),
            if rule.rest.is_empty() { NOTHING.to_owned() } else { rule.rest.join(", ") },
        ]);
    }
    table
}
