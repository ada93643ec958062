//! `drystone access explain`: whether a call would be allowed, and by which part of its rule it would not.

mod batch;

use std::{
    fs,
    io::{self, Read},
    path::{Path, PathBuf},
};

use anyhow::Result;
use drystone::contract::{Factors, Method};
use drystone_mesh::{
    access::RulePart,
    clock::{Clock, Timestamp},
    config::{ConfigDuration, Secret},
    token::KeySet,
};

use crate::{
    App,
    access::{Decider, Decision, Named, Query, fetch_keys, read_keys, read_methods},
    command_line::{Negative, WrongUsage},
    config::{Config, ConfigFile},
    output,
    table::Table,
};

/// What is not decided: the last line of the output.
const NOT_CHECKED: &str = "Not checked: revocations and whether a server has a current view of them, the denylist and the expiry of \
                           certificates, rate limits and load, and the message.";

/// The flags of `drystone access explain`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    config: ConfigFile,

    /// The RPC: package.Service/Method, or Service/Method
    #[arg(value_name = "METHOD", required_unless_present = "batch")]
    method: Option<String>,

    /// The calling workload, such as edge, or its SPIFFE ID
    #[arg(long, value_name = "NAME", required_unless_present = "batch")]
    caller: Option<String>,

    /// The access token; other users of this machine can see arguments, so better use --token-file
    #[arg(long, conflicts_with = "token_file")]
    token: Option<Secret>,

    /// The file with the access token; - for standard input
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,

    /// When the call is made, such as 2026-11-28T12:00:00Z [default: now]
    #[arg(long, value_name = "TIME", value_parser = parse_time)]
    at: Option<Timestamp>,

    /// Decide by the rules of this file of `drystone contract export`, such as one of a coming release [default: those of this
    /// program and its configuration]
    #[arg(long, value_name = "FILE")]
    contracts: Option<PathBuf>,

    /// The file with the keys that verify tokens, as /.well-known/jwks.json has them [default: asks the auth service]
    #[arg(long, value_name = "FILE")]
    keys: Option<PathBuf>,

    /// Decide about many calls: a JSON object of caller, method, token and at in each line; - for standard input
    #[arg(long, value_name = "FILE", conflicts_with_all = ["method", "caller", "token", "token_file", "at"])]
    batch: Option<PathBuf>,
}

fn parse_time(text: &str) -> Result<Timestamp, String> {
    text.parse().map_err(|_| "write it as in RFC 3339, such as 2026-11-28T12:00:00Z".to_owned())
}

pub(crate) fn run(app: &App, args: &Args) -> Result<()> {
    let config = Config::load(app, &args.config.sources())?;
    let contracts = config.contracts(app)?;
    let methods = match &args.contracts {
        Some(path) => read_methods(path)?,
        None => contracts.methods().to_vec(),
    };
    let keys = |is_needed: bool| match &args.keys {
        Some(path) => Ok(read_keys(path)?),
        None if is_needed => fetch_keys(app, &config),
        None => Ok(KeySet::new()),
    };
    if let Some(path) = &args.batch {
        let lines = batch::parse(&read(path)?)?;
        let decider = Decider::new(&config, &methods, keys(lines.iter().any(batch::Line::has_token))?);
        return output::print(batch::decide(&decider, &lines)?);
    }
    let (Some(method), Some(caller)) = (&args.method, &args.caller) else {
        return Err(WrongUsage("name --caller NAME and METHOD".to_owned()).into());
    };
    let token = match &args.token_file {
        Some(path) => Some(Secret::from(read(path)?.trim().to_owned())),
        None => args.token.clone(),
    };
    let at = args.at.unwrap_or_else(|| Clock::system().now());
    let decider = Decider::new(&config, &methods, keys(token.is_some())?);
    let query = Query { caller, token: token.as_ref(), at };
    let (rule, candidates) = match decider.find(method) {
        Named::Rule(rule) => (Some(&**rule), Vec::new()),
        Named::Unknown => (None, decider.nearest(method)),
        Named::Ambiguous(several) => return Err(ambiguous(method, &several).into()),
    };
    let decision = decider.decide(rule, &query)?;
    output::print(explanation(method, rule, &decision, at, &candidates))?;
    if decision.denial.is_some() { Err(Negative.into()) } else { Ok(()) }
}

fn ambiguous(name: &str, several: &[&str]) -> WrongUsage {
    WrongUsage(format!("several RPCs are called `{name}`; name one of {}", several.join(", ")))
}

/// Reads a file, or standard input for `-`.
fn read(path: &Path) -> Result<String, WrongUsage> {
    let text = if path.as_os_str() == "-" {
        let mut text = String::new();
        io::stdin().read_to_string(&mut text).map(|_| text)
    } else {
        fs::read_to_string(path)
    };
    text.map_err(|error| WrongUsage(format!("{} cannot be read: {error}", path.display())))
}

/// The answer for a person.
fn explanation(method: &str, rule: Option<&Method>, decision: &Decision, at: Timestamp, candidates: &[&str]) -> String {
    let mut lines = match &decision.denial {
        None => vec!["allowed".to_owned()],
        Some(denial) => {
            let (part, reason) = (denial.part, denial.error.reason().name());
            vec![format!("denied by `{part}`: {reason}"), denial.error.message().to_owned()]
        }
    };
    if !candidates.is_empty() {
        lines.push(format!("The most similar names are {}.", candidates.join(", ")));
    }
    let name = rule.map_or(method, |rule| rule.path.trim_start_matches('/'));
    lines.push(format!("\n{name}\nas {} at {}\n", decision.caller, at.to_rfc3339()));
    lines.extend(rule.map(|rule| parts(rule, decision).to_string()));
    lines.push(format!("{NOT_CHECKED}\n"));
    lines.join("\n")
}

/// Each part of the rule, and what it said.
fn parts(rule: &Method, decision: &Decision) -> Table<3> {
    const NOTHING: &str = "-";
    let text = |value: Option<&str>| value.unwrap_or(NOTHING).to_owned();
    let max_auth_age = rule.max_auth_age.map(|age| ConfigDuration::seconds(age.as_secs()).to_string());
    // In the order in which they are checked.
    let parts = [
        (RulePart::Caller, rule.callers.join(" "), true),
        (RulePart::Subject, rule.subject.name().to_owned(), rule.subject.name() != "none"),
        (RulePart::FreshRevocations, text(rule.fresh_revocations.then_some("fresh")), rule.fresh_revocations),
        (RulePart::Permission, text(rule.permission.as_deref()), rule.permission.is_some()),
        (RulePart::Factors, text(rule.factors.map(Factors::name)), rule.factors.is_some()),
        (RulePart::MaxAuthAge, text(max_auth_age.as_deref()), rule.max_auth_age.is_some()),
    ];
    let denied = decision.denial.as_ref().map(|denial| denial.part);
    let mut table = Table::new(["PART", "RULE", "RESULT"]);
    let mut is_reached = true;
    for (part, required, has_requirement) in parts {
        let is_of_user = matches!(
            part,
            RulePart::FreshRevocations | RulePart::Permission | RulePart::Factors | RulePart::MaxAuthAge
        );
        let result = if denied == Some(part) {
            "denied"
        } else if !is_reached {
            "not reached"
        } else if !has_requirement || (is_of_user && !decision.has_user) {
            "not required"
        } else if part == RulePart::FreshRevocations {
            // Only a server knows whether its view is current.
            "not checked"
        } else {
            "met"
        };
        is_reached &= denied != Some(part);
        table.row([part.name().to_owned(), required, result.to_owned()]);
    }
    table
}
