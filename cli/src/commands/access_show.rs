//! `drystone access show`: the access rule of every RPC.

use std::{fmt::Write, sync::Arc};

use anyhow::{Result, bail};
use clap::ValueEnum;
use drystone::contract::{Audit, Contracts, Factors, Method, rest::Binding};
use drystone_mesh::config::ConfigDuration;
use serde::Serialize;

use crate::{
    App,
    config::{Config, ConfigFile},
    output,
    table::Table,
};

/// A cell without a value.
const NOTHING: &str = "-";

/// What the generated page says before the rules.
const MARKDOWN_INTRODUCTION: &str = "\
# Access rules

Who may call which RPC, by service. Generated from the contracts by `make access-docs`; do not edit. [contracts.md](contracts.md#options)
says what each column means, and [access-changes.md](access-changes.md) when and why a rule was loosened.
";

/// The flags of `drystone access show`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    config: ConfigFile,

    /// Show only RPCs whose name contains SUBSTRING; case is ignored
    #[arg(long, value_name = "SUBSTRING")]
    rpc: Option<String>,

    /// How to write the rules
    #[arg(long, value_enum, default_value_t = Format::Table)]
    format: Format,

    /// Write JSON; the same as --format json
    #[arg(long, conflicts_with = "format")]
    json: bool,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Format {
    /// Columns, for a terminal
    Table,
    /// A list of objects
    Json,
    /// A page with a table for each service
    Markdown,
}

pub(crate) fn run(app: &App, args: &Args) -> Result<()> {
    let wanted = args.rpc.as_deref().unwrap_or_default();
    let contracts = Config::load(app, &args.config.sources())?.contracts(app)?;
    let methods = select(&contracts, wanted);
    if methods.is_empty() {
        bail!("no RPC name contains `{wanted}`; omit --rpc to show all");
    }
    let rules: Vec<MethodRule<'_>> = methods.iter().map(|method| MethodRule::of(method)).collect();
    match if args.json { Format::Json } else { args.format } {
        Format::Table => output::print(table(&rules).to_string()),
        Format::Json => output::print(serde_json::to_string_pretty(&rules)? + "\n"),
        Format::Markdown => output::print(markdown(&rules)?),
    }
}

/// The RPCs with this text in their names: by workload and service, and within a service in the order of its contract.
fn select<'c>(contracts: &'c Contracts, wanted: &str) -> Vec<&'c Arc<Method>> {
    let wanted = wanted.to_lowercase();
    let is_wanted = |method: &&Arc<Method>| method.path.to_lowercase().contains(&wanted);
    let mut methods: Vec<_> = contracts.methods().iter().filter(is_wanted).collect();
    methods.sort_by(|a, b| (&a.workload, a.service()).cmp(&(&b.workload, b.service())));
    methods
}

/// The rule of one RPC.
#[derive(Debug, Serialize)]
pub(super) struct MethodRule<'c> {
    rpc: &'c str,
    workload: &'c str,
    callers: &'c [String],
    subject: &'static str,
    permission: Option<&'c str>,
    factors: Option<&'static str>,
    max_auth_age_seconds: Option<u64>,
    fresh_revocations: bool,
    audit: Option<&'static str>,
    limit: Option<&'c str>,
    idempotency: &'static str,
    rest: Vec<String>,
}

impl<'c> MethodRule<'c> {
    pub(super) fn of(method: &'c Method) -> Self {
        Self {
            rpc: method.path.trim_start_matches('/'),
            workload: &method.workload,
            callers: &method.callers,
            subject: method.subject.name(),
            permission: method.permission.as_deref(),
            factors: method.factors.map(Factors::name),
            max_auth_age_seconds: method.max_auth_age.map(|age| age.as_secs()),
            fresh_revocations: method.fresh_revocations,
            audit: method.audit.map(Audit::name),
            limit: method.policy.limit.as_deref(),
            idempotency: method.idempotency.name(),
            rest: method.rest.iter().map(Binding::to_string).collect(),
        }
    }

    /// The full name of the service, and the name of the RPC in it.
    fn names(&self) -> (&'c str, &'c str) {
        self.rpc.split_once('/').unwrap_or((self.rpc, ""))
    }

    /// This name, and the parts of the rule, in the order of [`HEADINGS`].
    fn cells(&self, name: &str) -> [String; 11] {
        let text = |value: Option<&str>| value.unwrap_or(NOTHING).to_owned();
        let max_auth_age = self.max_auth_age_seconds.map(|seconds| ConfigDuration::seconds(seconds).to_string());
        [
            name.to_owned(),
            self.callers.join(" "),
            self.subject.to_owned(),
            text(self.permission),
            text(self.factors),
            text(max_auth_age.as_deref()),
            text(self.fresh_revocations.then_some("fresh")),
            text(self.audit),
            text(self.limit),
            self.idempotency.to_owned(),
            if self.rest.is_empty() { NOTHING.to_owned() } else { self.rest.join(", ") },
        ]
    }
}

/// The columns of a rule.
const HEADINGS: [&str; 11] = [
    "RPC",
    "CALLERS",
    "SUBJECT",
    "PERMISSION",
    "FACTORS",
    "MAX AUTH AGE",
    "REVOCATIONS",
    "AUDIT",
    "LIMIT",
    "IDEMPOTENCY",
    "REST",
];

fn table(rules: &[MethodRule<'_>]) -> Table<11> {
    let mut table = Table::new(HEADINGS);
    for rule in rules {
        table.row(rule.cells(rule.rpc));
    }
    table
}

fn markdown(rules: &[MethodRule<'_>]) -> Result<String> {
    let mut page = MARKDOWN_INTRODUCTION.to_owned();
    let headings = HEADINGS[1..].join(" | ").to_lowercase();
    let mut current = None;
    for rule in rules {
        let (service, name) = rule.names();
        if current.replace(service) != Some(service) {
            writeln!(page, "\n## {service}\n\nServed by `{}`.\n", rule.workload)?;
            writeln!(page, "| RPC | {headings} |\n|{}", "---|".repeat(HEADINGS.len()))?;
        }
        let cells = rule.cells(name).map(|cell| if cell == NOTHING { String::new() } else { cell.replace('|', "\\|") });
        writeln!(page, "| {} |", cells.join(" | "))?;
    }
    Ok(page)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_are_grouped_by_workload_and_service() {
        let contracts = drystone::contracts().unwrap();
        let methods = select(&contracts, "");
        assert_eq!(methods.len(), contracts.methods().len());
        let services: Vec<_> = methods.iter().map(|method| (&method.workload, method.service())).collect();
        assert!(services.is_sorted(), "{services:?}");
    }

    #[test]
    fn the_page_has_a_heading_for_each_service_and_a_row_for_each_rpc() {
        let contracts = drystone::contracts().unwrap();
        let methods = select(&contracts, "");
        let rules: Vec<_> = methods.iter().map(|method| MethodRule::of(method)).collect();
        let page = markdown(&rules).unwrap();
        let row = "| ListUsers | outside operator | user_or_operator | users:read |  |  |  |  |  | no_side_effects | \
                   GET /v1/users |";
        assert!(page.lines().any(|line| line == row), "{page}");
        assert_eq!(page.matches("\n## drystone.user.v1.UserService\n").count(), 1);
        let rows = page.lines().filter(|line| line.starts_with("| ") && !line.starts_with("| RPC |")).count();
        assert_eq!(rows, rules.len());
    }
}
