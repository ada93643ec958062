//! Reads the custom options of a contract from its descriptor pool.

use std::time::Duration;

use prost_reflect::{
    DescriptorPool, DynamicMessage, ExtensionDescriptor, MethodDescriptor, ReflectMessage, ServiceDescriptor,
};

use crate::method::{Audit, Deadline, Factors, Idempotency, Permission, Policy, Subject};

/// The known options; `None` for one that the contract does not import, and so does not use.
pub(crate) struct Options {
    rule: Option<ExtensionDescriptor>,
    policy: Option<ExtensionDescriptor>,
    permissions: Option<ExtensionDescriptor>,
    workload: Option<ExtensionDescriptor>,
    clients: Option<ExtensionDescriptor>,
    http: Option<ExtensionDescriptor>,
}

/// A `drystone.access.v1.Rule`, possibly incomplete.
pub(crate) struct Rule {
    pub(crate) callers: Vec<String>,
    pub(crate) subject: Option<Subject>,
    pub(crate) permission: Option<String>,
    pub(crate) factors: Option<Factors>,
    pub(crate) max_auth_age: Option<Duration>,
    pub(crate) fresh_revocations: bool,
    pub(crate) audit: Option<Audit>,
}

impl Options {
    pub(crate) fn of(pool: &DescriptorPool) -> Self {
        let extension = |name: &str| pool.get_extension_by_name(name);
        Self {
            rule: extension("drystone.access.v1.rule"),
            policy: extension("drystone.access.v1.policy"),
            permissions: extension("drystone.access.v1.permissions"),
            workload: extension("drystone.access.v1.workload"),
            clients: extension("drystone.access.v1.clients"),
            http: extension("google.api.http"),
        }
    }

    /// The rule of an RPC, if it has one.
    ///
    /// # Errors
    /// The error, to follow the RPC's name.
    pub(crate) fn rule(&self, method: &MethodDescriptor) -> Result<Option<Rule>, String> {
        let Some(rule) = message(self.rule.as_ref(), &method.options()) else { return Ok(None) };
        let max_auth_age =
            duration(&rule, "max_auth_age").ok_or("has a `max_auth_age` that is not a positive duration")?;
        Ok(Some(Rule {
            callers: strings(&rule, "callers"),
            subject: match enum_name(&rule, "subject").as_str() {
                "SUBJECT_USER" => Some(Subject::User),
                "SUBJECT_USER_OR_OPERATOR" => Some(Subject::UserOrOperator),
                "SUBJECT_NONE" => Some(Subject::None),
                _ => None,
            },
            permission: Some(string(&rule, "permission")).filter(|name| !name.is_empty()),
            factors: factors(&rule)?,
            max_auth_age,
            fresh_revocations: boolean(&rule, "fresh_revocations"),
            audit: match enum_name(&rule, "audit").as_str() {
                "AUDIT_LOG" => Some(Audit::Log),
                "AUDIT_TRAIL" => Some(Audit::Trail),
                _ => None,
            },
        }))
    }

    /// The policy of an RPC; the default if it has none.
    ///
    /// # Errors
    /// The error, to follow the RPC's name.
    pub(crate) fn policy(&self, method: &MethodDescriptor) -> Result<Policy, String> {
        let Some(policy) = message(self.policy.as_ref(), &method.options()) else { return Ok(Policy::default()) };
        let invalid = |field: &str| format!("has a `{field}` that is not a positive duration");
        let mut deadline = Deadline::default();
        if let Some(given) = policy.get_field_by_name("deadline").filter(|_| policy.has_field_by_name("deadline"))
            && let Some(given) = given.as_message()
        {
            deadline.default = duration(given, "default").ok_or_else(|| invalid("deadline.default"))?;
            deadline.max = duration(given, "max").ok_or_else(|| invalid("deadline.max"))?;
        }
        Ok(Policy {
            deadline,
            limit: Some(string(&policy, "limit")).filter(|name| !name.is_empty()),
            cache_max_age: duration(&policy, "cache_max_age").ok_or_else(|| invalid("cache_max_age"))?,
        })
    }

    /// The idempotency level; `None` if the contract has none.
    pub(crate) fn idempotency(method: &MethodDescriptor) -> Option<Idempotency> {
        let options = method.options();
        options.has_field_by_name("idempotency_level").then(|| {
            match enum_name(&options, "idempotency_level").as_str() {
                "NO_SIDE_EFFECTS" => Idempotency::NoSideEffects,
                "IDEMPOTENT" => Idempotency::Idempotent,
                _ => Idempotency::Unknown,
            }
        })
    }

    /// The `google.api.HttpRule`s of an RPC, additional ones included.
    pub(crate) fn bindings(&self, method: &MethodDescriptor) -> Vec<DynamicMessage> {
        let Some(first) = message(self.http.as_ref(), &method.options()) else { return Vec::new() };
        let additional = first.get_field_by_name("additional_bindings");
        let additional = additional.as_deref().and_then(|value| value.as_list()).unwrap_or_default();
        let additional: Vec<_> = additional.iter().filter_map(|item| item.as_message().cloned()).collect();
        std::iter::once(first).chain(additional).collect()
    }

    /// The workload that serves a service, if the contract has it.
    pub(crate) fn workload(&self, service: &ServiceDescriptor) -> Option<String> {
        let options = service.options();
        let extension = self.workload.as_ref().filter(|extension| options.has_extension(extension))?;
        options.get_extension(extension).as_str().map(str::to_owned)
    }

    /// Workloads that only call, and that rules can list.
    pub(crate) fn clients(&self, service: &ServiceDescriptor) -> Vec<String> {
        let Some(extension) = &self.clients else { return Vec::new() };
        let options = service.options();
        let value = options.get_extension(extension);
        value.as_list().unwrap_or_default().iter().filter_map(|item| item.as_str().map(str::to_owned)).collect()
    }

    /// The permissions that a service declares.
    pub(crate) fn permissions(&self, service: &ServiceDescriptor) -> Vec<Permission> {
        let Some(extension) = &self.permissions else { return Vec::new() };
        let options = service.options();
        let value = options.get_extension(extension);
        let declared = value.as_list().unwrap_or_default().iter().filter_map(|item| item.as_message());
        let permission =
            |item: &DynamicMessage| Permission { name: string(item, "name"), description: string(item, "description") };
        declared.map(permission).collect()
    }
}

fn message(extension: Option<&ExtensionDescriptor>, options: &DynamicMessage) -> Option<DynamicMessage> {
    let extension = extension.filter(|extension| options.has_extension(extension))?;
    options.get_extension(extension).as_message().cloned()
}

pub(crate) fn string(message: &DynamicMessage, field: &str) -> String {
    message.get_field_by_name(field).and_then(|value| value.as_str().map(str::to_owned)).unwrap_or_default()
}

fn strings(message: &DynamicMessage, field: &str) -> Vec<String> {
    let value = message.get_field_by_name(field);
    let items = value.as_deref().and_then(|value| value.as_list()).unwrap_or_default();
    items.iter().filter_map(|item| item.as_str().map(str::to_owned)).collect()
}

/// `false` for a field that an older access.proto does not have.
fn boolean(message: &DynamicMessage, field: &str) -> bool {
    message.get_field_by_name(field).is_some_and(|value| value.as_bool().unwrap_or_default())
}

fn enum_name(message: &DynamicMessage, field: &str) -> String {
    let Some(descriptor) = message.descriptor().get_field_by_name(field) else { return String::new() };
    let number = message.get_field(&descriptor).as_enum_number().unwrap_or_default();
    let kind = descriptor.kind();
    let value = kind.as_enum().and_then(|kind| kind.get_value(number));
    value.map(|value| value.name().to_owned()).unwrap_or_default()
}

/// The factors of a rule. An unknown number is an error: the rule would be enforced without it.
fn factors(rule: &DynamicMessage) -> Result<Option<Factors>, String> {
    if !rule.has_field_by_name("factors") {
        return Ok(None);
    }
    match enum_name(rule, "factors").as_str() {
        "FACTORS_TWO" => Ok(Some(Factors::Two)),
        "FACTORS_PHISHING_RESISTANT" => Ok(Some(Factors::PhishingResistant)),
        _ => Err("requires unknown `factors`: use FACTORS_TWO or FACTORS_PHISHING_RESISTANT".to_owned()),
    }
}

/// A `google.protobuf.Duration`: `Some(None)` if absent, `None` if not positive.
#[expect(clippy::option_option, reason = "distinguishes absent from invalid")]
fn duration(message: &DynamicMessage, field: &str) -> Option<Option<Duration>> {
    if !message.has_field_by_name(field) {
        return Some(None);
    }
    let value = message.get_field_by_name(field)?;
    let value = value.as_message()?;
    let seconds = u64::try_from(value.get_field_by_name("seconds")?.as_i64()?).ok()?;
    let nanos = u32::try_from(value.get_field_by_name("nanos")?.as_i32()?).ok()?;
    let duration = Duration::from_secs(seconds).checked_add(Duration::from_nanos(u64::from(nanos)))?;
    (!duration.is_zero()).then_some(Some(duration))
}
