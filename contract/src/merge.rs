//! Merges contracts, for servers, the edge, reflection, metrics and commands.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
};

use crate::{
    Contract, ContractError, EncodedContract, files,
    method::{ANY, Method, NON_SERVING_WORKLOADS, OUTSIDE, Permission},
    rest::Binding,
};

/// All contracts of a process. Clones share them.
#[derive(Debug, Clone, Default)]
pub struct Contracts(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    contracts: Vec<Contract>,
    methods: Vec<Arc<Method>>,
    by_path: HashMap<Arc<str>, Arc<Method>>,
    permissions: Vec<Permission>,
    served: BTreeSet<String>,
    workloads: BTreeSet<String>,
}

impl Contracts {
    /// Decodes and merges contracts.
    ///
    /// # Errors
    /// [`ContractError`] for the first invalid contract, or with every conflict between them.
    pub fn load(contracts: impl IntoIterator<Item = EncodedContract>) -> Result<Self, ContractError> {
        let contracts = contracts.into_iter().map(Contract::decode).collect::<Result<Vec<_>, _>>()?;
        Self::merge(contracts)
    }

    /// Merges contracts without conflicts.
    ///
    /// # Errors
    /// [`ContractError`] with every conflict, which names both contracts, and every unknown name in a rule.
    pub fn merge(contracts: Vec<Contract>) -> Result<Self, ContractError> {
        let findings = findings(&contracts);
        if !findings.is_empty() {
            let names: Vec<&str> = contracts.iter().map(Contract::name).collect();
            return Err(ContractError { contract: names.join(" with "), findings });
        }
        let methods: Vec<_> = contracts.iter().flat_map(Contract::methods).cloned().collect();
        let by_path = methods.iter().map(|method| (Arc::clone(&method.path), Arc::clone(method))).collect();
        let permissions = contracts.iter().flat_map(Contract::permissions).cloned().collect();
        let served: BTreeSet<String> = contracts.iter().flat_map(Contract::workloads).cloned().collect();
        let workloads = known_workloads(&contracts).map(str::to_owned).collect();
        Ok(Self(Arc::new(Inner { contracts, methods, by_path, permissions, served, workloads })))
    }

    /// The contracts.
    #[must_use]
    pub fn contracts(&self) -> &[Contract] {
        &self.0.contracts
    }

    /// Every RPC.
    #[must_use]
    pub fn methods(&self) -> &[Arc<Method>] {
        &self.0.methods
    }

    /// The RPC of a path `/package.Service/Method`.
    #[must_use]
    pub fn method(&self, path: &str) -> Option<&Arc<Method>> {
        self.0.by_path.get(path)
    }

    /// The workload that serves a gRPC service, by its full name `package.Service`.
    #[must_use]
    pub fn workload_of(&self, service: &str) -> Option<&str> {
        self.0.methods.iter().find(|method| method.service() == service).map(|method| &*method.workload)
    }

    /// Every permission.
    #[must_use]
    pub fn permissions(&self) -> &[Permission] {
        &self.0.permissions
    }

    /// The workloads that serve an RPC.
    #[must_use]
    pub fn served_workloads(&self) -> &BTreeSet<String> {
        &self.0.served
    }

    /// All workloads of a mesh with these contracts: those that serve an RPC, those that only call, and
    /// [`NON_SERVING_WORKLOADS`].
    #[must_use]
    pub fn workloads(&self) -> &BTreeSet<String> {
        &self.0.workloads
    }

    /// One descriptor set with the files of all contracts, for tools. Files that several contracts import are included
    /// once, from the first contract.
    ///
    /// # Errors
    /// [`ContractError`] if two contracts have different files of the same name.
    pub fn descriptor_set(&self) -> Result<Vec<u8>, ContractError> {
        let mut seen: HashMap<&str, (Vec<u8>, &str)> = HashMap::new();
        let mut set = Vec::new();
        for contract in self.contracts() {
            let name = contract.name();
            let invalid = |finding: String| ContractError { contract: name.to_owned(), findings: vec![finding] };
            for file in files::files(contract.descriptor_set()).map_err(|error| invalid(error.to_string()))? {
                let stripped = files::without_source_info(file.bytes).map_err(|error| invalid(error.to_string()))?;
                match seen.get(file.name) {
                    Some((other, owner)) if *other != stripped && !is_shared(file.name) => {
                        let advice = "export each from its own binary, or rename one";
                        return Err(invalid(format!("its file {} differs from that of {owner}; {advice}", file.name)));
                    }
                    Some(_) => {}
                    None => {
                        seen.insert(file.name, (stripped, name));
                        files::append(&mut set, file.bytes);
                    }
                }
            }
        }
        Ok(set)
    }

    /// The names of the rate limits in policies.
    #[must_use]
    pub fn limits(&self) -> BTreeSet<&str> {
        self.0.methods.iter().filter_map(|method| method.policy.limit.as_deref()).collect()
    }
}

/// Files that every contract imports, possibly from different releases.
fn is_shared(file: &str) -> bool {
    ["drystone/", "google/", "buf/"].iter().any(|folder| file.starts_with(folder))
}

fn known_workloads(contracts: &[Contract]) -> impl Iterator<Item = &str> {
    let own = contracts.iter().flat_map(|contract| contract.workloads().iter().chain(contract.clients()));
    own.map(String::as_str).chain(NON_SERVING_WORKLOADS)
}

fn findings(contracts: &[Contract]) -> Vec<String> {
    let mut findings = Vec::new();
    let names_of = |names: fn(&Contract) -> Vec<&str>| -> Vec<(&str, &str)> {
        contracts.iter().flat_map(|contract| names(contract).into_iter().map(|name| (name, contract.name()))).collect()
    };
    let services = names_of(|contract| contract.services().iter().map(String::as_str).collect());
    let workloads = names_of(|contract| contract.workloads().iter().map(String::as_str).collect());
    let permissions = names_of(|contract| contract.permissions().iter().map(|item| item.name.as_str()).collect());
    for (kind, names) in [("service", services), ("workload", workloads), ("permission", permissions)] {
        check_duplicates(kind, names, &mut findings);
    }
    check_routes(contracts, &mut findings);
    check_rule_names(contracts, &mut findings);
    findings
}

/// Reports names that are in several contracts.
fn check_duplicates(kind: &str, names: Vec<(&str, &str)>, findings: &mut Vec<String>) {
    let mut seen = BTreeMap::new();
    for (name, contract) in names {
        if let Some(first) = seen.insert(name, contract) {
            findings.push(format!(
                "the {kind} `{name}` is in {first} and in {contract}; leave one of them out, or rename it"
            ));
        }
    }
}

/// Reports REST paths of different RPCs that match the same requests. Within a contract the more specific path is used;
/// paths of different contracts must not overlap at all.
fn check_routes(contracts: &[Contract], findings: &mut Vec<String>) {
    let mut seen: Vec<(usize, &Method, &Binding)> = Vec::new();
    for (number, contract) in contracts.iter().enumerate() {
        for method in contract.methods() {
            for binding in &method.rest {
                for (owner, other, existing) in &seen {
                    let (path, other_path) = (&method.path[1..], &other.path[1..]);
                    if *owner == number {
                        if path != other_path && binding.is_ambiguous_with(existing) {
                            findings.push(format!(
                                "{path}: the REST path `{binding}` matches requests of `{existing}`, which is {other_path}"
                            ));
                        }
                    // Duplicate services are reported already.
                    } else if method.service() != other.service() && binding.conflicts_with(existing) {
                        let (name, owner) = (contract.name(), contracts[*owner].name());
                        findings.push(format!(
                            "{path}: the REST path `{binding}` of {name} overlaps `{existing}`, which is {other_path} of \
                             {owner}; paths of different contracts must not overlap"
                        ));
                    }
                }
                seen.push((number, method, binding));
            }
        }
    }
}

/// Reports unknown workloads and permissions in rules.
fn check_rule_names(contracts: &[Contract], findings: &mut Vec<String>) {
    let workloads: BTreeSet<&str> = known_workloads(contracts).chain([OUTSIDE, ANY]).collect();
    let declared = contracts.iter().flat_map(Contract::permissions).map(|permission| permission.name.as_str());
    let permissions: BTreeSet<&str> = declared.collect();
    for method in contracts.iter().flat_map(Contract::methods) {
        let name = &method.path[1..];
        for caller in method.callers.iter().filter(|caller| !workloads.contains(caller.as_str())) {
            findings.push(format!("{name}: names the unknown caller `{caller}`; known are {}", list(&workloads)));
        }
        if let Some(permission) = method.permission.as_deref().filter(|name| !permissions.contains(name)) {
            let declared = list(&permissions);
            findings.push(format!("{name}: names the unknown permission `{permission}`; declared are {declared}"));
        }
    }
}

fn list(names: &BTreeSet<&str>) -> String {
    if names.is_empty() { "none".to_owned() } else { names.iter().copied().collect::<Vec<_>>().join(", ") }
}
