//! `drystone access show`: the rule of every RPC, as servers obey it.

use std::collections::HashMap;

use anyhow::{Context, Result, bail};
use drystone::contract::{DESCRIPTOR_SET, Idempotency, METHODS, Method, Subject};
use drystone_mesh::config::Span;
use prost_reflect::{DescriptorPool, DynamicMessage};
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
    let rules = rules(wanted)?;
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
    rest: Vec<String>,
}

fn rules(wanted: &str) -> Result<Vec<Rule>> {
    let mut routes = routes()?;
    let wanted = wanted.to_lowercase();
    let methods = METHODS.iter().filter(|method| method.path.to_lowercase().contains(&wanted));
    Ok(methods.map(|method| Rule::of(method, routes.remove(method.path).unwrap_or_default())).collect())
}

impl Rule {
    fn of(method: &'static Method, rest: Vec<String>) -> Self {
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
            rest,
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

/// The REST calls of each RPC by its path, as `google.api.http` has them.
fn routes() -> Result<HashMap<String, Vec<String>>> {
    let pool = DescriptorPool::decode(DESCRIPTOR_SET).context("the contracts in this program cannot be read")?;
    let http = pool.get_extension_by_name("google.api.http").context("the contracts have no REST paths")?;
    let methods = pool.services().flat_map(|service| service.methods().collect::<Vec<_>>());
    let with_routes = methods.filter(|method| method.options().has_extension(&http)).map(|method| {
        let path = format!("/{}/{}", method.parent_service().full_name(), method.name());
        let options = method.options();
        (path, options.get_extension(&http).as_message().map(bindings).unwrap_or_default())
    });
    Ok(with_routes.collect())
}

fn bindings(rule: &DynamicMessage) -> Vec<String> {
    let own =
        ["get", "put", "post", "delete", "patch"].into_iter().filter(|verb| rule.has_field_by_name(verb)).map(|verb| {
            let path = rule.get_field_by_name(verb);
            format!("{} {}", verb.to_uppercase(), path.as_deref().and_then(|path| path.as_str()).unwrap_or_default())
        });
    let additional = rule.get_field_by_name("additional_bindings");
    let additional = additional.as_deref().and_then(|value| value.as_list()).unwrap_or_default();
    own.chain(additional.iter().filter_map(|item| item.as_message()).flat_map(bindings)).collect()
}
