//! Shadow rules: those of a coming release of contracts. Servers apply them to the calls that the current rules allow, and log and
//! count what they would deny; they deny nothing.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use drystone::contract::Method;

use super::{AccessRequest, Denial, decide, unknown_method};

/// The shadow rules of a process; none by default. Clones share them.
#[derive(Debug, Clone, Default)]
pub struct ShadowRules(Option<Arc<Inner>>);

#[derive(Debug)]
struct Inner {
    rules: HashMap<Arc<str>, Arc<Method>>,
    /// The services that have shadow rules, by their full names.
    services: HashSet<String>,
}

/// What the coming contracts say about one RPC.
#[derive(Debug, Clone)]
pub enum ShadowRule {
    /// Its rule.
    Rule(Arc<Method>),
    /// They have its service, and not the RPC.
    Removed,
}

impl ShadowRules {
    /// The rules of these RPCs.
    #[must_use]
    pub fn new(methods: &[Arc<Method>]) -> Self {
        let rules = methods.iter().map(|method| (Arc::clone(&method.path), Arc::clone(method))).collect();
        let services = methods.iter().map(|method| method.service().to_owned()).collect();
        Self((!methods.is_empty()).then(|| Arc::new(Inner { rules, services })))
    }

    /// What they say about an RPC; `None` if they do not have its service.
    #[must_use]
    pub fn of(&self, method: &Method) -> Option<ShadowRule> {
        let Inner { rules, services } = &**self.0.as_ref()?;
        match rules.get(&method.path) {
            Some(rule) => Some(ShadowRule::Rule(Arc::clone(rule))),
            None => services.contains(method.service()).then_some(ShadowRule::Removed),
        }
    }
}

impl ShadowRule {
    /// The denial of a call, if it would be denied.
    #[must_use]
    pub fn denial(&self, request: &AccessRequest<'_>) -> Option<Denial> {
        match self {
            Self::Rule(rule) => decide(rule, request, || Ok::<_, Denial>(()), |_| {}).err(),
            Self::Removed => Some(unknown_method()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_service_without_shadow_rules_is_left_alone() {
        let contracts = drystone::contracts().unwrap();
        let find = |path: &str| contracts.method(path).unwrap();
        let (me, list) = (find("/drystone.user.v1.UserService/GetMe"), find("/drystone.user.v1.UserService/ListUsers"));
        let jwks = find("/drystone.auth.v1.KeyService/GetJwks");
        let shadow = ShadowRules::new(std::slice::from_ref(me));
        assert!(matches!(shadow.of(me), Some(ShadowRule::Rule(rule)) if rule.path == me.path));
        assert!(matches!(shadow.of(list), Some(ShadowRule::Removed)));
        assert!(shadow.of(jwks).is_none());
        assert!(ShadowRules::default().of(me).is_none() && ShadowRules::new(&[]).of(me).is_none());
    }
}
