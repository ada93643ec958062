//! Reads the contract out of a descriptor set, and refuses one that leaves a question open.

use std::{collections::BTreeSet, fmt, time::Duration};

use prost_reflect::{DescriptorPool, DynamicMessage, ExtensionDescriptor, MethodDescriptor, ReflectMessage};

/// The workloads that are no service of the contract: the edge, an ingress such as Envoy, and the operator.
const FRONTS: [&str; 3] = ["edge", "ingress", "operator"];
/// Stands for every front door.
const OUTSIDE: &str = "outside";
/// The packages that the rules of the house hold for.
const OURS: &str = "drystone.";

/// A contract that has passed every check.
pub struct Contract {
    pub pool: DescriptorPool,
    pub methods: Vec<Method>,
    pub permissions: Vec<Permission>,
    /// Every workload that a rule may name, by name.
    pub workloads: BTreeSet<String>,
}

/// One RPC with its rule.
pub struct Method {
    /// `/package.Service/Method`
    pub path: String,
    pub callers: Vec<String>,
    /// The name of a value of `drystone.access.v1.Subject`.
    pub subject: String,
    pub permission: Option<String>,
    pub max_auth_age: Option<Duration>,
    pub audited: bool,
    /// The name of a value of `google.protobuf.MethodOptions.IdempotencyLevel`.
    pub idempotency: String,
    pub client_streaming: bool,
    pub server_streaming: bool,
    /// The REST calls that reach it, as `VERB path`.
    pub rest: Vec<String>,
}

/// A permission that a service declares.
pub struct Permission {
    pub name: String,
    pub description: String,
}

/// All that is wrong with a contract, one finding a line.
#[derive(Debug)]
pub struct Refused(pub Vec<String>);

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the contract in proto/ breaks the rules of the house:")?;
        self.0.iter().try_for_each(|finding| write!(f, "\n  {finding}"))
    }
}

impl std::error::Error for Refused {}

impl Contract {
    /// Reads an encoded descriptor set and checks every RPC of ours.
    ///
    /// # Errors
    /// [`Refused`] with every finding, each of which names the RPC and what is missing.
    pub fn read(descriptor_set: &[u8]) -> Result<Self, Refused> {
        let pool = DescriptorPool::decode(descriptor_set)
            .map_err(|error| Refused(vec![format!("the descriptor set cannot be read: {error}")]))?;
        let options = Options::of(&pool)?;

        let services: Vec<_> = pool.services().filter(|service| service.package_name().starts_with(OURS)).collect();
        let permissions: Vec<Permission> =
            services.iter().flat_map(|service| options.permissions(&service.options())).collect();
        let servers = services.iter().filter_map(|service| service.package_name().split('.').nth(1));
        let workloads: BTreeSet<String> = servers.chain(FRONTS).map(str::to_owned).collect();
        let vocabulary = Vocabulary {
            callers: workloads.iter().cloned().chain([OUTSIDE.to_owned()]).collect(),
            permissions: permissions.iter().map(|permission| permission.name.clone()).collect(),
        };

        let mut findings = Vec::new();
        let mut routes = BTreeSet::new();
        let mut methods = Vec::new();
        for method in services.iter().flat_map(prost_reflect::ServiceDescriptor::methods) {
            let name = method.full_name().to_owned();
            let Some(rule) = options.rule(&method) else {
                findings.push(format!("{name}: has no access rule: add `option (drystone.access.v1.rule)`"));
                continue;
            };
            findings.extend(vocabulary.complaints(&rule).into_iter().map(|complaint| format!("{name}: {complaint}")));
            for route in &rule.rest {
                if !rule.callers.iter().any(|caller| caller == OUTSIDE) {
                    findings.push(format!(
                        "{name}: has the REST path `{route}` but does not list `outside` among its callers"
                    ));
                }
                if rule.client_streaming || rule.server_streaming {
                    findings.push(format!(
                        "{name}: has the REST path `{route}` but is a stream, which the edge does not carry"
                    ));
                }
                if !routes.insert(route.clone()) {
                    findings.push(format!("{name}: the REST path `{route}` is taken by another RPC"));
                }
            }
            methods.push(rule);
        }
        if findings.is_empty() { Ok(Self { pool, methods, permissions, workloads }) } else { Err(Refused(findings)) }
    }
}

/// The words that rules may use.
struct Vocabulary {
    callers: BTreeSet<String>,
    permissions: BTreeSet<String>,
}

impl Vocabulary {
    fn complaints(&self, rule: &Method) -> Vec<String> {
        let mut complaints = Vec::new();
        if rule.callers.is_empty() {
            complaints.push("its access rule names no callers".to_owned());
        }
        for caller in rule.callers.iter().filter(|caller| !self.callers.contains(*caller)) {
            complaints.push(format!("names the unknown caller `{caller}`; known are {}", list(&self.callers)));
        }
        if rule.subject == "SUBJECT_UNSPECIFIED" {
            complaints.push("its access rule does not state a subject: SUBJECT_NONE or SUBJECT_USER".to_owned());
        }
        if let Some(permission) = rule.permission.as_ref().filter(|name| !self.permissions.contains(*name)) {
            complaints
                .push(format!("names the unknown permission `{permission}`; declared are {}", list(&self.permissions)));
        }
        if rule.subject != "SUBJECT_USER" && (rule.permission.is_some() || rule.max_auth_age.is_some()) {
            complaints.push("asks for a permission or a recent sign-in, which only SUBJECT_USER can have".to_owned());
        }
        complaints
    }
}

fn list(names: &BTreeSet<String>) -> String {
    if names.is_empty() { "none".to_owned() } else { names.iter().cloned().collect::<Vec<_>>().join(", ") }
}

/// The custom options, as this pool knows them.
struct Options {
    rule: ExtensionDescriptor,
    permissions: ExtensionDescriptor,
    http: ExtensionDescriptor,
}

impl Options {
    fn of(pool: &DescriptorPool) -> Result<Self, Refused> {
        let extension = |name: &str| {
            pool.get_extension_by_name(name)
                .ok_or_else(|| Refused(vec![format!("the option `{name}` is not among the contracts")]))
        };
        Ok(Self {
            rule: extension("drystone.access.v1.rule")?,
            permissions: extension("drystone.access.v1.permissions")?,
            http: extension("google.api.http")?,
        })
    }

    fn rule(&self, method: &MethodDescriptor) -> Option<Method> {
        let options = method.options();
        if !options.has_extension(&self.rule) {
            return None;
        }
        let value = options.get_extension(&self.rule);
        let rule = value.as_message()?;
        let permission = text(rule, "permission");
        Some(Method {
            path: format!("/{}/{}", method.parent_service().full_name(), method.name()),
            callers: texts(rule, "callers"),
            subject: enum_name(rule, "subject"),
            permission: (!permission.is_empty()).then_some(permission),
            max_auth_age: rule.has_field_by_name("max_auth_age").then(|| duration(rule, "max_auth_age")),
            audited: rule.get_field_by_name("audited").and_then(|value| value.as_bool()).unwrap_or_default(),
            idempotency: enum_name(&options, "idempotency_level"),
            client_streaming: method.is_client_streaming(),
            server_streaming: method.is_server_streaming(),
            rest: self.routes(&options),
        })
    }

    fn permissions(&self, options: &DynamicMessage) -> Vec<Permission> {
        let value = options.get_extension(&self.permissions);
        let declared = value.as_list().unwrap_or_default().iter().filter_map(|item| item.as_message());
        declared
            .map(|permission| Permission {
                name: text(permission, "name"),
                description: text(permission, "description"),
            })
            .collect()
    }

    fn routes(&self, options: &DynamicMessage) -> Vec<String> {
        if !options.has_extension(&self.http) {
            return Vec::new();
        }
        options.get_extension(&self.http).as_message().map(bindings).unwrap_or_default()
    }
}

fn bindings(rule: &DynamicMessage) -> Vec<String> {
    let own = ["get", "put", "post", "delete", "patch"]
        .into_iter()
        .filter(|verb| rule.has_field_by_name(verb))
        .map(|verb| format!("{} {}", verb.to_uppercase(), text(rule, verb)));
    let additional = rule.get_field_by_name("additional_bindings");
    let additional = additional.as_deref().and_then(|value| value.as_list()).unwrap_or_default();
    own.chain(additional.iter().filter_map(|item| item.as_message()).flat_map(bindings)).collect()
}

fn text(message: &DynamicMessage, field: &str) -> String {
    message.get_field_by_name(field).and_then(|value| value.as_str().map(str::to_owned)).unwrap_or_default()
}

fn texts(message: &DynamicMessage, field: &str) -> Vec<String> {
    let value = message.get_field_by_name(field);
    let items = value.as_deref().and_then(|value| value.as_list()).unwrap_or_default();
    items.iter().filter_map(|item| item.as_str().map(str::to_owned)).collect()
}

fn enum_name(message: &DynamicMessage, field: &str) -> String {
    let Some(descriptor) = message.descriptor().get_field_by_name(field) else { return String::new() };
    let number = message.get_field(&descriptor).as_enum_number().unwrap_or_default();
    let kind = descriptor.kind();
    let value = kind.as_enum().and_then(|kind| kind.get_value(number));
    value.map(|value| value.name().to_owned()).unwrap_or_default()
}

fn duration(message: &DynamicMessage, field: &str) -> Duration {
    let value = message.get_field_by_name(field);
    let seconds = value.as_deref().and_then(|value| value.as_message());
    let seconds = seconds.and_then(|duration| duration.get_field_by_name("seconds")?.as_i64()).unwrap_or_default();
    Duration::from_secs(seconds.unsigned_abs())
}
