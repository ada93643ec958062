//! The REST calls of the contracts, with all that a call needs looked up once, at the start.

use std::{sync::Arc, time::Duration};

pub(crate) use drystone::contract::rest::BodyMapping;
use drystone::contract::{
    Contract, Contracts, Deadline, Method,
    rest::{Binding, FieldPath, Template},
};
use http::{HeaderValue, uri::PathAndQuery};
use prost_reflect::{FieldDescriptor, MessageDescriptor};

use crate::transcode::mask::{self, MaskRule};

/// A contract that cannot be served over REST: says which RPC, and what is wrong with it.
#[derive(Debug, thiserror::Error)]
#[error("{rpc}: {fault}")]
pub struct RouteError {
    /// The RPC, or what else is at fault.
    pub rpc: String,
    /// What is wrong.
    pub fault: String,
}

/// One REST call.
pub(crate) struct Route {
    /// The RPC that it reaches, and its rule.
    pub(crate) rpc: Arc<Method>,
    /// The RPC's path on the wire.
    pub(crate) path: PathAndQuery,
    /// How metrics and logs name the route: `GET /v1/users/{id}`.
    pub(crate) label: Arc<str>,
    /// The HTTP method.
    pub(crate) method: http::Method,
    /// The path.
    pub(crate) template: Template,
    pub(crate) input: MessageDescriptor,
    pub(crate) output: MessageDescriptor,
    /// The fields that the template's variables fill, in their order.
    pub(crate) variables: Vec<FieldPath>,
    pub(crate) body: BodyMapping,
    /// How an update mask is made up where the client sends none.
    pub(crate) mask: Option<MaskRule>,
    /// How long a call may take.
    pub(crate) deadline: Deadline,
    /// What a cache may do with an answer: `None` for nothing.
    pub(crate) cache_control: Option<HeaderValue>,
}

impl Route {
    /// The field that stands for the body.
    pub(crate) fn body_field(&self) -> Option<&FieldDescriptor> {
        match &self.body {
            BodyMapping::Field(field) => Some(field),
            BodyMapping::Nothing | BodyMapping::Whole => None,
        }
    }
}

/// Every REST call of the contracts.
///
/// # Errors
/// [`RouteError`] for the first that cannot be served as it is written.
pub(crate) fn read(contracts: &Contracts) -> Result<Vec<Route>, RouteError> {
    let mut routes = Vec::new();
    for contract in contracts.contracts() {
        let output_only = Arc::new(mask::output_only(contract.pool()));
        for method in contract.methods() {
            for binding in &method.rest {
                let fault = |fault: String| RouteError { rpc: method.path.trim_start_matches('/').to_owned(), fault };
                routes.push(route(contract, method, binding, &output_only).map_err(fault)?);
            }
        }
    }
    Ok(routes)
}

fn route(
    contract: &Contract,
    rpc: &Arc<Method>,
    binding: &Binding,
    output_only: &Arc<std::collections::HashSet<String>>,
) -> Result<Route, String> {
    let service = contract.pool().get_service_by_name(rpc.service());
    let descriptor = service.and_then(|service| service.methods().find(|method| method.name() == rpc.name()));
    let descriptor = descriptor.ok_or("is not among the descriptors of its contract")?;
    let (input, output) = (descriptor.input(), descriptor.output());
    let Binding { method: verb, template, variables, body } = binding.clone();
    let method: http::Method =
        verb.parse().map_err(|_| format!("names the method `{verb}`, which HTTP does not have"))?;
    let mask = match &body {
        BodyMapping::Field(field) if method == http::Method::PATCH => {
            MaskRule::of(&input, field, &variables, output_only)
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
        output,
        variables,
        body,
        mask,
        deadline: rpc.policy.deadline,
        cache_control: rpc.policy.cache_max_age.and_then(cache_control),
        rpc: Arc::clone(rpc),
    })
}

/// What a cache is told of an answer that anybody may keep for so long (RFC 9111, section 5.2.2).
fn cache_control(max_age: Duration) -> Option<HeaderValue> {
    HeaderValue::try_from(format!("public, max-age={}", max_age.as_secs())).ok()
}
