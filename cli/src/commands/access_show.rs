//! `drystone access show`: the access rule of every RPC.

use anyhow::{Result, bail};
use drystone::contract::{Audit, Contracts, Factors, Idempotency, Method, Subject, rest::Binding};
use drystone_mesh::config::ConfigDuration;
use serde::Serialize;

use crate::{
    App,
    config::{Config, ConfigFile},
    output,
    table::Table,
};

/// The flags of `drystone access show`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    config: ConfigFile,

    /// Show only RPCs whose name contains SUBSTRING; case is ignored
    #[arg(long, value_name = "SUBSTRING")]
    rpc: Option<String>,

    /// Write JSON instead of a table
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(app: &App, args: &Args) -> Result<()> {
    let wanted = args.rpc.as_deref().unwrap_or_default();
    let contracts = Config::load(app, &args.config.sources())?.contracts(app)?;
    let rules = rules(&contracts, wanted);
    if rules.is_empty() {
        bail!("no RPC name contains `{wanted}`; omit --rpc to show all");
    }
    if args.json {
        output::print(serde_json::to_string_pretty(&rules)? + "\n")
    } else {
        output::print(table(&rules).to_string())
    }
}

/// The rule of one RPC.
#[derive(Debug, Serialize)]
struct MethodRule<'c> {
    rpc: &'c str,
    workload: &'c str,
    callers: &'c [String],
    subject: &'static str,
    permission: Option<&'c str>,
    factors: Option<&'static str>,
    max_auth_age_seconds: Option<u64>,
    audit: Option<&'static str>,
    limit: Option<&'c str>,
    idempotency: &'static str,
    rest: Vec<String>,
}

fn rules<'c>(contracts: &'c Contracts, wanted: &str) -> Vec<MethodRule<'c>> {
    let wanted = wanted.to_lowercase();
    let methods = contracts.methods().iter().filter(|method| method.path.to_lowercase().contains(&wanted));
    methods.map(|method| MethodRule::of(method)).collect()
}

impl<'c> MethodRule<'c> {
    fn of(method: &'c Method) -> Self {
        Self {
            rpc: method.path.trim_start_matches('/'),
            workload: &method.workload,
            callers: &method.callers,
            subject: match method.subject {
                Subject::None => "none",
                Subject::User => "user",
                Subject::UserOrOperator => "user_or_operator",
            },
            permission: method.permission.as_deref(),
            factors: method.factors.map(|factors| match factors {
                Factors::Two => "two",
                Factors::PhishingResistant => "phishing_resistant",
            }),
            max_auth_age_seconds: method.max_auth_age.map(|age| age.as_secs()),
            audit: method.audit.map(|audit| match audit {
                Audit::Log => "log",
                Audit::Trail => "trail",
            }),
            limit: method.policy.limit.as_deref(),
            idempotency: match method.idempotency {
                Idempotency::Unknown => "unknown",
                Idempotency::NoSideEffects => "no_side_effects",
                Idempotency::Idempotent => "idempotent",
            },
            rest: method.rest.iter().map(Binding::to_string).collect(),
        }
    }
}

fn table(rules: &[MethodRule<'_>]) -> Table<8> {
    const NOTHING: &str = "-";
    let mut table = Table::new(["RPC", "CALLERS", "SUBJECT", "PERMISSION", "FACTORS", "MAX AUTH AGE", "AUDIT", "REST"]);
    for rule in rules {
        let max_auth_age = rule.max_auth_age_seconds.map(|seconds| ConfigDuration::seconds(seconds).to_string());
        table.row([
            rule.rpc.to_owned(),
            rule.callers.join(" "),
            rule.subject.to_owned(),
            rule.permission.unwrap_or(NOTHING).to_owned(),
            rule.factors.unwrap_or(NOTHING).to_owned(),
            max_auth_age.unwrap_or_else(|| NOTHING.to_owned()),
            rule.audit.unwrap_or(NOTHING).to_owned(),
            if rule.rest.is_empty() { NOTHING.to_owned() } else { rule.rest.join(", ") },
        ]);
    }
    table
}
