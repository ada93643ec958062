//! One contract, read and checked by itself.

use std::{collections::BTreeSet, sync::Arc};

use prost_reflect::{DescriptorPool, FieldDescriptor, MethodDescriptor, ServiceDescriptor};

use crate::{
    ContractError, EncodedContract,
    method::{ANY, Idempotency, LISTED_ONLY, Method, OUTSIDE, Permission, Policy, Subject},
    options::{Options, Rule},
    rest::{Binding, HEALTH_PATH},
};

/// The longest name of a workload: one label of a DNS name, which it often becomes.
const MAX_WORKLOAD_NAME: usize = 63;

/// A contract in a descriptor pool of its own: files of the same name may differ between contracts.
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
    /// Reads a contract and checks every RPC that it offers.
    ///
    /// # Errors
    /// [`ContractError`] with every finding.
    pub fn decode(encoded: EncodedContract) -> Result<Self, ContractError> {
        let refused = |findings| ContractError { contract: encoded.name().to_owned(), findings };
        let pool = DescriptorPool::decode(encoded.descriptor_set()).map_err(|error| {
            let advice = "write it with `protoc --include_imports --descriptor_set_out=FILE`";
            refused(vec![format!("is no descriptor set with all its imports: {error}; {advice}")])
        })?;
        let options = Options::of(&pool);
        let mut reader = Reader { options, findings: Vec::new() };
        let offered: Vec<_> = pool.services().filter(|service| encoded.offers(service.package_name())).collect();
        if offered.is_empty() {
            reader.findings.push("offers no service".to_owned());
        }
        let (mut services, mut methods, mut permissions) = (Vec::new(), Vec::new(), Vec::new());
        let (mut workloads, mut clients) = (BTreeSet::new(), BTreeSet::new());
        for service in &offered {
            services.push(service.full_name().to_owned());
            let workload = reader.workload(service);
            methods.extend(service.methods().filter_map(|method| reader.method(&method, &workload)).map(Arc::new));
            permissions.extend(reader.permissions(service));
            clients.extend(reader.options.clients(service));
            workloads.insert(workload.to_string());
        }
        let messages = pool.all_messages().filter(|message| encoded.offers(message.package_name()));
        for field in messages.flat_map(|message| message.fields().collect::<Vec<_>>()).filter(is_secret_in_oneof) {
            let name = field.full_name();
            let fault = "is marked debug_redact inside a oneof, which cannot be redacted; move it out";
            reader.findings.push(format!("{name}: {fault}"));
        }
        if !reader.findings.is_empty() {
            return Err(refused(reader.findings));
        }
        Ok(Self { encoded, pool, services, workloads, clients, methods, permissions })
    }

    /// What errors call it.
    #[must_use]
    pub fn name(&self) -> &str {
        self.encoded.name()
    }

    /// The encoded `FileDescriptorSet`, as it was read.
    #[must_use]
    pub fn descriptor_set(&self) -> &[u8] {
        self.encoded.descriptor_set()
    }

    /// The same without a lifetime, if the contract is compiled in.
    #[must_use]
    pub fn static_descriptor_set(&self) -> Option<&'static [u8]> {
        self.encoded.static_descriptor_set()
    }

    /// Its descriptors.
    #[must_use]
    pub fn pool(&self) -> &DescriptorPool {
        &self.pool
    }

    /// The full names of the services that it offers.
    #[must_use]
    pub fn services(&self) -> &[String] {
        &self.services
    }

    /// The workloads that serve them.
    #[must_use]
    pub fn workloads(&self) -> &BTreeSet<String> {
        &self.workloads
    }

    /// Workloads that serve nothing, and that rules may name.
    #[must_use]
    pub fn clients(&self) -> &BTreeSet<String> {
        &self.clients
    }

    /// The RPCs that it offers.
    #[must_use]
    pub fn methods(&self) -> &[Arc<Method>] {
        &self.methods
    }

    /// The permissions that it declares.
    #[must_use]
    pub fn permissions(&self) -> &[Permission] {
        &self.permissions
    }
}

struct Reader {
    options: Options,
    findings: Vec<String>,
}

impl Reader {
    fn workload(&mut self, service: &ServiceDescriptor) -> Arc<str> {
        let name = service.full_name();
        let workload = self.options.workload(service).unwrap_or_default();
        if workload.is_empty() {
            self.findings.push(format!(
                "{name}: does not say which workload serves it: add `option (drystone.access.v1.workload) = \"NAME\"`"
            ));
        } else if !is_workload_name(&workload) {
            self.findings.push(format!(
                "{name}: names the workload `{workload}`; a workload has 1 to {MAX_WORKLOAD_NAME} of a-z, 0-9, `-` and `_`, and is none of {}",
                reserved().collect::<Vec<_>>().join(", ")
            ));
        }
        for client in self.options.clients(service) {
            if !is_workload_name(&client) {
                self.findings
                    .push(format!("{name}: names the client workload `{client}`, which no workload can be called"));
            }
        }
        workload.into()
    }

    fn permissions(&mut self, service: &ServiceDescriptor) -> Vec<Permission> {
        let permissions = self.options.permissions(service);
        for permission in permissions.iter().filter(|permission| !is_permission_name(&permission.name)) {
            self.findings.push(format!(
                "{}: declares the permission `{}`; a permission is RESOURCE:ACTION, each of a-z, 0-9, `-` and `_`",
                service.full_name(),
                permission.name
            ));
        }
        permissions
    }

    /// An RPC with its rule; `None` if something about it is wrong, which is then among the findings.
    fn method(&mut self, method: &MethodDescriptor, workload: &Arc<str>) -> Option<Method> {
        let before = self.findings.len();
        let name = method.full_name().to_owned();
        let mut faults = Vec::new();
        let rule = self.options.rule(method).unwrap_or_else(|fault| {
            faults.push(fault);
            None
        });
        let policy = self.options.policy(method).unwrap_or_else(|fault| {
            faults.push(fault);
            Policy::default()
        });
        let idempotency = Options::idempotency(method);
        let mut rest = Vec::new();
        for binding in self.options.bindings(method) {
            match Binding::read(&binding, &method.input()) {
                Ok(binding) => rest.push(binding),
                Err(fault) => faults.push(fault),
            }
        }
        let Some(Rule { callers, subject, permission, max_auth_age, audit }) = rule else {
            if faults.is_empty() {
                faults.push("has no access rule: add `option (drystone.access.v1.rule)`".to_owned());
            }
            self.findings.extend(faults.into_iter().map(|fault| format!("{name}: {fault}")));
            return None;
        };
        if subject.is_none() {
            faults.push("its access rule does not state a subject: SUBJECT_NONE or SUBJECT_USER".to_owned());
        }
        if idempotency.is_none() {
            faults.push(
                "does not say whether it may be sent again: add `option idempotency_level`, as IDEMPOTENCY_UNKNOWN if not"
                    .to_owned(),
            );
        }
        let method = Method {
            path: format!("/{}/{}", method.parent_service().full_name(), method.name()).into(),
            workload: Arc::clone(workload),
            callers,
            subject: subject.unwrap_or(Subject::None),
            permission,
            max_auth_age,
            audit,
            policy,
            idempotency: idempotency.unwrap_or(Idempotency::Unknown),
            client_streaming: method.is_client_streaming(),
            server_streaming: method.is_server_streaming(),
            rest,
        };
        check_rule(&method, subject, &mut faults);
        check_policy(&method, &mut faults);
        check_bindings(&method, idempotency, &mut faults);
        self.findings.extend(faults.into_iter().map(|fault| format!("{name}: {fault}")));
        (self.findings.len() == before).then_some(method)
    }
}

fn check_rule(method: &Method, subject: Option<Subject>, faults: &mut Vec<String>) {
    if method.callers.is_empty() {
        faults.push("its access rule names no callers".to_owned());
    }
    if subject != Some(Subject::User) && (method.permission.is_some() || method.max_auth_age.is_some()) {
        faults.push("asks for a permission or a recent sign-in, which only SUBJECT_USER can have".to_owned());
    }
}

fn check_policy(method: &Method, faults: &mut Vec<String>) {
    let Policy { deadline, limit, cache_max_age } = &method.policy;
    if let (Some(default), Some(max)) = (deadline.default, deadline.max)
        && default > max
    {
        faults.push("has a default deadline that is longer than its maximum".to_owned());
    }
    if let Some(limit) = limit
        && !limit.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_')
    {
        faults.push(format!("names the limit `{limit}`; a limit is written with a-z, 0-9 and `_`"));
    }
    if cache_max_age.is_some() && (method.subject == Subject::User || method.idempotency != Idempotency::NoSideEffects)
    {
        faults.push("lets anybody keep its answer, which takes SUBJECT_NONE and NO_SIDE_EFFECTS".to_owned());
    }
}

fn check_bindings(method: &Method, idempotency: Option<Idempotency>, faults: &mut Vec<String>) {
    for (index, binding) in method.rest.iter().enumerate() {
        if !method.callers.iter().any(|caller| caller == OUTSIDE) {
            faults.push(format!("has the REST path `{binding}` but does not list `outside` among its callers"));
        }
        if method.is_streaming() {
            faults.push(format!("has the REST path `{binding}` but is a stream, which is not carried over REST"));
        }
        if binding.is_read() && idempotency.is_some_and(|level| level != Idempotency::NoSideEffects) {
            let read = &binding.method;
            faults.push(format!("has the REST path `{binding}`, but only what has NO_SIDE_EFFECTS can be a {read}"));
        }
        if binding.is_reserved() {
            faults.push(format!("has the REST path `{binding}`, which matches `{HEALTH_PATH}`, the edge's own health"));
        }
        if let Some(other) = method.rest[..index].iter().find(|other| binding.is_ambiguous_with(other)) {
            faults.push(format!("has the REST paths `{other}` and `{binding}`, which match the same requests"));
        }
    }
}

/// Whether the field is marked `debug_redact` where no generated `Debug` can leave it out. A synthetic oneof is how a proto3
/// `optional` field is described; in code it is a field like others.
fn is_secret_in_oneof(field: &FieldDescriptor) -> bool {
    let options = field.options();
    let redacted = options.get_field_by_name("debug_redact");
    redacted.and_then(|value| value.as_bool()).unwrap_or_default()
        && field.containing_oneof().is_some_and(|oneof| !oneof.is_synthetic())
}

/// Names that stand for others in rules, or for workloads that serve no contract.
fn reserved() -> impl Iterator<Item = &'static str> {
    LISTED_ONLY.into_iter().chain([OUTSIDE, ANY])
}

/// Whether a workload can be called so: the name becomes a segment of its SPIFFE ID, a file and a metric label.
fn is_workload_name(name: &str) -> bool {
    name.len() <= MAX_WORKLOAD_NAME && is_plain(name) && reserved().all(|other| other != name)
}

/// Whether this is RESOURCE:ACTION, as `drystone.access.v1.Permission` promises.
fn is_permission_name(name: &str) -> bool {
    name.split_once(':').is_some_and(|(resource, action)| is_plain(resource) && is_plain(action))
}

/// Whether a text is made of lower-case letters, digits, `-` and `_`, and is not empty.
fn is_plain(text: &str) -> bool {
    let is_valid = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-_".contains(&byte);
    !text.is_empty() && text.bytes().all(is_valid)
}
