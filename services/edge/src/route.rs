//! The REST calls of the contract: read from its descriptor once, at the start, with all that a call needs looked up.

use std::{collections::HashSet, sync::Arc};

use drystone::contract::{DESCRIPTOR_SET, METHODS, Method};
use http::uri::PathAndQuery;
use prost_reflect::{DescriptorPool, DynamicMessage, FieldDescriptor, MessageDescriptor, MethodDescriptor};

use crate::{
    field::{FieldPath, Spelling},
    mask::{self, MaskRule},
    template::Template,
    text,
};

/// The workload that every route is served as; an RPC whose rule does not let it call has no route.
const CALLER: &str = crate::NAME;

/// What is served: a descriptor set, and the access rules of its RPCs.
#[derive(Debug, Clone, Copy)]
pub struct Contract {
    /// An encoded `google.protobuf.FileDescriptorSet`, imports inside.
    pub descriptor_set: &'static [u8],
    /// Its RPCs.
    pub methods: &'static [Method],
}

impl Contract {
    /// The contract of this house.
    #[must_use]
    pub const fn drystone() -> Self {
        Self { descriptor_set: DESCRIPTOR_SET, methods: METHODS }
    }
}

/// A contract that cannot be served over REST: says which RPC, and what is wrong with it.
#[derive(Debug, thiserror::Error)]
#[error("{rpc}: {fault}")]
pub struct ContractError {
    /// The RPC, or what else is at fault.
    pub rpc: String,
    /// What is wrong.
    pub fault: String,
}

/// One REST call.
pub(crate) struct Route {
    /// The RPC that it reaches, and its rule.
    pub(crate) rpc: &'static Method,
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
    /// The field of the answer that becomes the body; the whole answer if there is none.
    pub(crate) response_body: Option<FieldDescriptor>,
    /// How an update mask is made up where the client sends none.
    pub(crate) mask: Option<MaskRule>,
}

/// What the body of a request fills.
#[derive(PartialEq, Eq)]
pub(crate) enum BodyMapping {
    /// Nothing.
    Nothing,
    /// Every field that the path does not fill.
    Whole,
    /// One field.
    Field(FieldDescriptor),
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

/// Reads every REST call of a contract.
///
/// # Errors
/// [`ContractError`] for the first that cannot be served as it is written.
pub(crate) fn read(contract: Contract) -> Result<Vec<Route>, ContractError> {
    let whole = |fault: String| ContractError { rpc: "the descriptor set".to_owned(), fault };
    let pool = DescriptorPool::decode(contract.descriptor_set).map_err(|error| whole(error.to_string()))?;
    let http = pool
        .get_extension_by_name("google.api.http")
        .ok_or_else(|| whole("does not hold the option `google.api.http`".to_owned()))?;

    let output_only = Arc::new(mask::output_only(&pool));
    let reader = Reader { rules: contract.methods, output_only };
    let mut routes = Vec::new();
    for method in pool.services().flat_map(|service| service.methods().collect::<Vec<_>>()) {
        let options = method.options();
        if !options.has_extension(&http) {
            continue;
        }
        let rule = options.get_extension(&http);
        let Some(rule) = rule.as_message() else { continue };
        let additional = rule.get_field_by_name("additional_bindings");
        let additional = additional.as_deref().and_then(|bindings| bindings.as_list()).unwrap_or_default();
        for binding in [rule].into_iter().chain(additional.iter().filter_map(|binding| binding.as_message())) {
            let route = reader
                .bind(&method, binding)
                .map_err(|fault| ContractError { rpc: method.full_name().to_owned(), fault })?;
            routes.push(route);
        }
    }
    Ok(routes)
}

/// What every binding is read with.
struct Reader {
    rules: &'static [Method],
    /// The full names of the fields that a client cannot change.
    output_only: Arc<HashSet<String>>,
}

impl Reader {
    /// One binding of an RPC; the error says what is wrong with it.
    fn bind(&self, descriptor: &MethodDescriptor, binding: &DynamicMessage) -> Result<Route, String> {
        let path = format!("/{}/{}", descriptor.parent_service().full_name(), descriptor.name());
        let rpc = self.rules.iter().find(|rpc| rpc.path == path).ok_or("has a REST path but no access rule")?;
        if !rpc.allows(CALLER) {
            return Err("has a REST path but does not list `outside` among its callers".to_owned());
        }
        if rpc.client_streaming || rpc.server_streaming {
            return Err("has a REST path but is a stream, which is not carried over REST".to_owned());
        }
        let (verb, template) = pattern(binding).ok_or("has a REST binding without method and path")?;
        let label = format!("{verb} {template}").into();
        let method: http::Method =
            verb.parse().map_err(|_| format!("names the method `{verb}`, which HTTP does not have"))?;
        let template: Template = template.parse().map_err(|error| format!("the path `{template}` {error}"))?;

        let (input, output) = (descriptor.input(), descriptor.output());
        let variables = variables(&template, &input)?;
        let body = body_mapping(&text_of(binding, "body"), &input)?;
        let response_body = match text_of(binding, "response_body").as_str() {
            "" => None,
            name => Some(output.get_field_by_name(name).ok_or_else(|| format!("answers the unknown field `{name}`"))?),
        };
        let mask = match &body {
            BodyMapping::Field(field) if method == http::Method::PATCH => {
                MaskRule::of(&input, field, &variables, &self.output_only)
            }
            _ => None,
        };
        let path = PathAndQuery::from_static(rpc.path);
        Ok(Route { rpc, path, label, method, template, input, output, variables, body, response_body, mask })
    }
}

fn pattern(binding: &DynamicMessage) -> Option<(String, String)> {
    let plain = ["get", "put", "post", "delete", "patch"].into_iter().find(|verb| binding.has_field_by_name(verb));
    if let Some(verb) = plain {
        return Some((verb.to_uppercase(), text_of(binding, verb)));
    }
    let custom = binding.get_field_by_name("custom").filter(|_| binding.has_field_by_name("custom"))?;
    let custom = custom.as_message()?;
    Some((text_of(custom, "kind"), text_of(custom, "path")))
}

fn variables(template: &Template, input: &MessageDescriptor) -> Result<Vec<FieldPath>, String> {
    let resolve = |name: &str| {
        let path = FieldPath::resolve(input, name, Spelling::Proto)
            .ok_or_else(|| format!("fills the field `{name}` from the path, which is not there"))?;
        let is_fit = !path.leaf().is_list() && text::is_writable(path.leaf());
        is_fit
            .then_some(path)
            .ok_or_else(|| format!("fills the field `{name}` from the path, which is no single value"))
    };
    template.variables.iter().map(|variable| resolve(&variable.field)).collect()
}

fn body_mapping(name: &str, input: &MessageDescriptor) -> Result<BodyMapping, String> {
    match name {
        "" => Ok(BodyMapping::Nothing),
        "*" => Ok(BodyMapping::Whole),
        name => input
            .get_field_by_name(name)
            .map(BodyMapping::Field)
            .ok_or_else(|| format!("takes its body into the unknown field `{name}`")),
    }
}

fn text_of(message: &DynamicMessage, field: &str) -> String {
    message.get_field_by_name(field).and_then(|value| value.as_str().map(str::to_owned)).unwrap_or_default()
}
