//! Decodes and validates one contract.

use std::{collections::BTreeSet, sync::Arc};

use prost_reflect::{DescriptorPool, FieldDescriptor, MethodDescriptor, ServiceDescriptor};

use crate::{
    ContractError, EncodedContract,
    method::{ANY, Idempotency, Method, NON_SERVING_WORKLOADS, OPERATOR, OUTSIDE, Permission, Policy, Subject},
    options::{Options, Rule},
    rest::{Binding, HEALTH_PATH},
};

/// The maximum length of a workload's name: that of a DNS label, since it is often used as one.
const MAX_WORKLOAD_NAME_LENGTH: usize = 63;

/// A contract with its own descriptor pool, since files of the same name may differ between contracts.
#[derive(Debug, Clone)]
pub struct Contract {
    encoded: EncodedContract,
    pool: DescriptorPool,
    services: Vec<String>,
    workloads: BTreeSet<String>,
    clients: BTreeSet<String>,
    methods: Vec<Arc<Method>>,
    permissions: Vec<Permission>,
}

impl Contract {
    /// Decodes a contract and validates every RPC that it offers.
    ///
    /// # Errors
    /// [`ContractError`] with every finding.
    pub fn decode(encoded: EncodedContract) -> Result<Self, ContractError> {
        let invalid = |findings| ContractError { contract: encoded.name().to_owned(), findings };
        let pool = DescriptorPool::decode(encoded.descriptor_set()).map_err(|error| {
            let advice = "write it with `protoc --include_imports --descriptor_set_out=FILE`";
            invalid(vec![format!("is not a descriptor set with all its imports: {error}; {advice}")])
        })?;
        let options = Options::of(&pool);
        let mut validator = Validator { options, findings: Vec::new() };
        let offered: Vec<_> = pool.services().filter(|service| encoded.offers(service.package_name())).collect();
        if offered.is_empty() {
            validator.findings.push("offers no service".to_owned());
        }
        let (mut services, mut methods, mut permissions) = (Vec::new(), Vec::new(), Vec::new());
        let (mut workloads, mut clients) = (BTreeSet::new(), BTreeSet::new());
        for service in &offered {
            services.push(service.full_name().to_owned());
            let workload = validator.workload(service);
            methods.extend(service.methods().filter_map(|method| validator.method(&method, &workload)).map(Arc::new));
            permissions.extend(validator.permissions(service));
            clients.extend(validator.options.clients(service));
            workloads.insert(workload.to_string());
        }
        let messages = pool.all_messages().filter(|message| encoded.offers(message.package_name()));
        for field in messages.flat_map(|message| message.fields().collect::<Vec<_>>()).filter(is_secret_in_oneof) {
            let name = field.full_name();
            let finding = "is marked debug_redact inside a oneof, which cannot be redacted; move it out";
            validator.findings.push(format!("{name}: {finding}"));
        }
        if !validator.findings.is_empty() {
            return Err(invalid(validator.findings));
        }
        Ok(Self { encoded, pool, services, workloads, clients, methods, permissions })
    }

    /// The name in error messages.
    #[must_use]
    pub fn name(&self) -> &str {
        self.encoded.name()
    }

    /// The encoded `FileDescriptorSet`.
    #[must_use]
    pub fn descriptor_set(&self) -> &[u8] {
        self.encoded.descriptor_set()
    }

    /// The encoded `FileDescriptorSet` if the contract is embedded.
    #[must_use]
    pub fn static_descriptor_set(&self) -> Option<&'static [u8]> {
        self.encoded.static_descriptor_set()
    }

    /// The descriptor pool.
    #[must_use]
    pub fn pool(&self) -> &DescriptorPool {
        &self.pool
    }

    /// The full names of the offered services.
    #[must_use]
    pub fn services(&self) -> &[String] {
        &self.services
    }

    /// The workloads that serve the offered services.
    #[must_use]
    pub fn workloads(&self) -> &BTreeSet<String> {
        &self.workloads
    }

    /// Workloads that only call, and that rules can list.
    #[must_use]
    pub fn clients(&self) -> &BTreeSet<String> {
        &self.clients
    }

    /// The offered RPCs.
    #[must_use]
    pub fn methods(&self) -> &[Arc<Method>] {
        &self.methods
    }

    /// The declared permissions.
    #[must_use]
    pub fn permissions(&self) -> &[Permission] {
        &self.permissions
    }
}

struct Validator {
    options: Options,
    findings: Vec<String>,
}

impl Validator {
    fn workload(&mut self, service: &ServiceDescriptor) -> Arc<str> {
        let name = service.full_name();
        let workload = self.options.workload(service).unwrap_or_default();
        if workload.is_empty() {
            self.findings
                .push(format!("{name}: has no workload: add `option (drystone.access.v1.workload) = \"NAME\"`"));
        } else if !is_workload_name(&workload) {
            self.findings.push(format!(
                "{name}: names the workload `{workload}`; a workload name has 1 to {MAX_WORKLOAD_NAME_LENGTH} of a-z, 0-9, `-` and `_`, and is not one of {}",
                reserved().collect::<Vec<_>>().join(", ")
            ));
        }
        for client in self.options.clients(service) {
            if !is_workload_name(&client) {
                self.findings.push(format!("{name}: names the client `{client}`, which is not a valid workload name"));
            }
        }
        workload.into()
    }

    fn permissions(&mut self, service: &ServiceDescriptor) -> Vec<Permission> {
        let permissions = self.options.permissions(service);
        for permission in permissions.iter().filter(|permission| !is_permission_name(&permission.name)) {
            self.findings.push(format!(
                "{}: declares the permission `{}`; a permission is RESOURCE:ACTION, each of a-z, 0-9, `-` and `_`, or with `:own` or `:any` after it",
                service.full_name(),
                permission.name
            ));
        }
        permissions
    }

    /// Validates an RPC; `None` if it is invalid, with its errors added to the findings.
    fn method(&mut self, method: &MethodDescriptor, workload: &Arc<str>) -> Option<Method> {
        let before = self.findings.len();
        let name = method.full_name().to_owned();
        let mut problems = Vec::new();
        let rule = self.options.rule(method).unwrap_or_else(|finding| {
            problems.push(finding);
            None
        });
        let policy = self.options.policy(method).unwrap_or_else(|finding| {
            problems.push(finding);
            Policy::default()
        });
        let idempotency = Options::idempotency(method);
        let mut rest = Vec::new();
        for binding in self.options.bindings(method) {
            match Binding::read(&binding, &method.input()) {
                Ok(binding) => rest.push(binding),
                Err(fault) => problems.push(fault),
            }
        }
        let Some(Rule { callers, subject, permission, factors, max_auth_age, fresh_revocations, audit }) = rule else {
            if problems.is_empty() {
                problems.push("has no access rule: add `option (drystone.access.v1.rule)`".to_owned());
            }
            self.findings.extend(problems.into_iter().map(|finding| format!("{name}: {finding}")));
            return None;
        };
        if subject.is_none() {
            problems.push("its access rule has no subject: add SUBJECT_NONE or SUBJECT_USER".to_owned());
        }
        if idempotency.is_none() {
            problems.push(
                "does not state whether it can be retried: add `option idempotency_level`, with IDEMPOTENCY_UNKNOWN if it cannot"
                    .to_owned(),
            );
        }
        let method = Method {
            path: format!("/{}/{}", method.parent_service().full_name(), method.name()).into(),
            workload: Arc::clone(workload),
            callers,
            subject: subject.unwrap_or(Subject::None),
            permission,
            factors,
            max_auth_age,
            fresh_revocations,
            audit,
            policy,
            idempotency: idempotency.unwrap_or(Idempotency::Unknown),
            client_streaming: method.is_client_streaming(),
            server_streaming: method.is_server_streaming(),
            rest,
        };
        check_rule(&method, subject, &mut problems);
        check_policy(&method, &mut problems);
        check_bindings(&method, idempotency, &mut problems);
        self.findings.extend(problems.into_iter().map(|finding| format!("{name}: {finding}")));
        (self.findings.len() == before).then_some(method)
    }
}

fn check_rule(method: &Method, subject: Option<Subject>, problems: &mut Vec<String>) {
    if method.callers.is_empty() {
        problems.push("its access rule has no callers".to_owned());
    }
    let has_user = matches!(subject, Some(Subject::User | Subject::UserOrOperator));
    let asks_for_user = method.permission.is_some()
        || method.factors.is_some()
        || method.max_auth_age.is_some()
        || method.fresh_revocations;
    if !has_user && asks_for_user {
        problems.push(
            "requires a permission, factors, a recent sign-in or fresh revocations, which needs SUBJECT_USER"
                .to_owned(),
        );
    }
    if subject == Some(Subject::UserOrOperator) && !method.callers.iter().any(|caller| caller == OPERATOR) {
        problems.push("has SUBJECT_USER_OR_OPERATOR but does not list `operator` among its callers".to_owned());
    }
}

fn check_policy(method: &Method, problems: &mut Vec<String>) {
    let Policy { deadline, limit, cache_max_age } = &method.policy;
    if let (Some(default), Some(max)) = (deadline.default, deadline.max)
        && default > max
    {
        problems.push("has a default deadline longer than its maximum".to_owned());
    }
    if let Some(limit) = limit
        && !limit.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_')
    {
        problems.push(format!("names the limit `{limit}`; a limit name has only a-z, 0-9 and `_`"));
    }
    if cache_max_age.is_some() && (method.subject != Subject::None || method.idempotency != Idempotency::NoSideEffects)
    {
        problems.push("has a `cache_max_age`, which needs SUBJECT_NONE and NO_SIDE_EFFECTS".to_owned());
    }
}

fn check_bindings(method: &Method, idempotency: Option<Idempotency>, problems: &mut Vec<String>) {
    for (index, binding) in method.rest.iter().enumerate() {
        if !method.callers.iter().any(|caller| caller == OUTSIDE) {
            problems.push(format!("has the REST path `{binding}` but does not list `outside` among its callers"));
        }
        if method.is_streaming() {
            problems.push(format!("has the REST path `{binding}` but is streaming, which REST does not support"));
        }
        if binding.is_safe() && idempotency.is_some_and(|level| level != Idempotency::NoSideEffects) {
            let safe = &binding.method;
            problems.push(format!("has the REST path `{binding}`, but a {safe} needs NO_SIDE_EFFECTS"));
        }
        if binding.is_reserved() {
            problems.push(format!(
                "has the REST path `{binding}`, which matches `{HEALTH_PATH}`, reserved for the health of the edge"
            ));
        }
        if let Some(other) = method.rest[..index].iter().find(|other| binding.is_ambiguous_with(other)) {
            problems.push(format!("has the REST paths `{other}` and `{binding}`, which match the same requests"));
        }
    }
}

/// Whether the field is marked `debug_redact` inside a oneof, where the generated `Debug` cannot redact it. The synthetic
/// oneof of a proto3 `optional` field does not count.
fn is_secret_in_oneof(field: &FieldDescriptor) -> bool {
    let options = field.options();
    let redacted = options.get_field_by_name("debug_redact");
    redacted.and_then(|value| value.as_bool()).unwrap_or_default()
        && field.containing_oneof().is_some_and(|oneof| !oneof.is_synthetic())
}

/// Names with a special meaning in rules or as labels of metrics, and names of workloads that serve no contract.
fn reserved() -> impl Iterator<Item = &'static str> {
    NON_SERVING_WORKLOADS.into_iter().chain([OUTSIDE, ANY, "other", "none"])
}

/// Whether this is a valid workload name, which is used in the SPIFFE ID, file names and metric labels.
fn is_workload_name(name: &str) -> bool {
    name.len() <= MAX_WORKLOAD_NAME_LENGTH && is_identifier(name) && reserved().all(|other| other != name)
}

/// Whether this is RESOURCE:ACTION or RESOURCE:ACTION:SCOPE, as `drystone.access.v1.Permission` requires.
#[must_use]
pub fn is_permission_name(name: &str) -> bool {
    let mut parts = name.split(':');
    let has_action = parts.next().is_some_and(is_identifier) && parts.next().is_some_and(is_identifier);
    has_action && parts.next().is_none_or(|scope| ["own", "any"].contains(&scope)) && parts.next().is_none()
}

/// Whether a text is not empty and has only lower-case letters, digits, `-` and `_`.
fn is_identifier(text: &str) -> bool {
    let is_valid = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-_".contains(&byte);
    !text.is_empty() && text.bytes().all(is_valid)
}
