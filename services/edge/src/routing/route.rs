//! The REST routes of the contracts, with everything that a request needs resolved at the start.

use std::{collections::HashSet, sync::Arc, time::Duration};

pub(crate) use drystone::contract::rest::BodyMapping;
use drystone::contract::{
    Contract, Contracts, Deadline, Method,
    rest::{Binding, FieldPath, Template},
};
use http::{HeaderValue, uri::PathAndQuery};
use prost_reflect::{FieldDescriptor, MessageDescriptor};

use super::body_limit::BodyLimits;
use crate::transcode::mask::{self, MaskRule};

/// A contract that cannot be served over REST.
#[derive(Debug, thiserror::Error)]
#[error("{rpc}: {fault}")]
pub struct RouteError {
    /// The RPC, or the path of the edge's own that conflicts.
    pub rpc: String,
    /// What is wrong.
    pub fault: String,
}

/// One REST route.
pub(crate) struct Route {
    /// The RPC, and its rule.
    pub(crate) rpc: Arc<Method>,
    /// The path of the gRPC request.
    pub(crate) path: PathAndQuery,
    /// The route's name in metrics and logs: `GET /v1/users/{id}`.
    pub(crate) label: Arc<str>,
    pub(crate) method: http::Method,
    pub(crate) template: Template,
    pub(crate) input: MessageDescriptor,
    pub(crate) output: MessageDescriptor,
    /// Whether a response is a page of a list, which is large.
    pub(crate) has_pages: bool,
    /// The fields of the template's variables, in the same order.
    pub(crate) variables: Vec<FieldPath>,
    pub(crate) body: BodyMapping,
    /// The size of the largest valid body in bytes; `None` if the contract does not bound it.
    pub(crate) body_limit: Option<usize>,
    /// Infers an update mask where the client sends none.
    pub(crate) mask: Option<MaskRule>,
    /// The contract's default and maximum deadline.
    pub(crate) deadline: Deadline,
    /// The `cache-control` of a response; `None` if it must not be cached.
    pub(crate) cache_control: Option<HeaderValue>,
}

impl Route {
    /// The field that the body maps to.
    pub(crate) fn body_field(&self) -> Option<&FieldDescriptor> {
        match &self.body {
            BodyMapping::Field(field) => Some(field),
            BodyMapping::Nothing | BodyMapping::Whole => None,
        }
    }
}

/// The REST routes of the contracts.
///
/// # Errors
/// [`RouteError`] for the first that cannot be served.
pub(crate) fn read(contracts: &Contracts) -> Result<Vec<Route>, RouteError> {
    let mut routes = Vec::new();
    for contract in contracts.contracts() {
        let output_only = mask::output_only(contract.pool());
        let unchangeable = Arc::new(mask::unchangeable(contract.pool()));
        let limits = BodyLimits::new(contract.pool(), &output_only);
        for method in contract.methods() {
            for binding in &method.rest {
                let fault = |fault: String| RouteError { rpc: method.path.trim_start_matches('/').to_owned(), fault };
                routes.push(route(contract, method, binding, &limits, &unchangeable).map_err(fault)?);
            }
        }
    }
    Ok(routes)
}

fn route(
    contract: &Contract,
    rpc: &Arc<Method>,
    binding: &Binding,
    limits: &BodyLimits<'_>,
    unchangeable: &Arc<HashSet<String>>,
) -> Result<Route, String> {
    let service = contract.pool().get_service_by_name(rpc.service());
    let descriptor = service.and_then(|service| service.methods().find(|method| method.name() == rpc.name()));
    let descriptor = descriptor.ok_or("is not among the descriptors of its contract")?;
    let (input, output) = (descriptor.input(), descriptor.output());
    let Binding { method: verb, template, variables, body } = binding.clone();
    let method: http::Method =
        verb.parse().map_err(|_| format!("names the method `{verb}`, which is not an HTTP method"))?;
    let mask = match &body {
        BodyMapping::Field(field) if method == http::Method::PATCH => {
            MaskRule::of(&input, field, &variables, unchangeable)
        }
        _ => None,
    };
    let path = PathAndQuery::try_from(&*rpc.path).map_err(|error| error.to_string())?;
    Ok(Route {
        path,
        label: binding.to_string().into(),
        method,
        template,
        input,
        has_pages: output.get_field_by_name("next_page_token").is_some(),
        output,
        variables,
        body_limit: limits.of(&descriptor.input(), &body),
        body,
        mask,
        deadline: rpc.policy.deadline,
        cache_control: rpc.policy.cache_max_age.and_then(cache_control),
        rpc: Arc::clone(rpc),
    })
}

/// The `cache-control` of a public response (RFC 9111, section 5.2.2).
fn cache_control(max_age: Duration) -> Option<HeaderValue> {
    HeaderValue::try_from(format!("public, max-age={}", max_age.as_secs())).ok()
}
