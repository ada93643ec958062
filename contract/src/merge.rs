//! Several contracts as one: what servers, edge, reflection, metrics and commands read.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
};

use crate::{
    Contract, ContractError, EncodedContract, files,
    method::{ANY, Method, OUTSIDE, Permission},
    rest::Binding,
};

/// The workloads that serve no contract: the edge, an ingress such as Envoy, and the operator.
pub const FRONTS: [&str; 3] = ["edge", "ingress", "operator"];

/// Every contract that a process knows. Clones share them.
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
    /// Decodes these contracts and merges them.
    ///
    /// # Errors
    /// [`ContractError`] for the first that cannot be used by itself, or for all that does not fit together.
    pub fn load(contracts: impl IntoIterator<Item = EncodedContract>) -> Result<Self, ContractError> {
        let contracts = contracts.into_iter().map(Contract::decode).collect::<Result<Vec<_>, _>>()?;
        Self::merge(contracts)
    }

    /// Merges contracts, of which none offers what another does.
    ///
    /// # Errors
    /// [`ContractError`] with every clash, which names both sides, and every rule that names something unknown.
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

    /// Each contract by itself.
    #[must_use]
    pub fn each(&self) -> &[Contract] {
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

    /// Every workload that a mesh of these contracts has: those that serve an RPC, those that only call, and those in
    /// front ([`FRONTS`]).
    #[must_use]
    pub fn workloads(&self) -> &BTreeSet<String> {
        &self.0.workloads
    }

    /// One descriptor set with the files of all contracts, for tools. Files of Drystone and of others that several
    /// contracts import are in it once, as the first contract has them.
    ///
    /// # Errors
    /// [`ContractError`] if two contracts have different files of one name.
    pub fn descriptor_set(&self) -> Result<Vec<u8>, ContractError> {
        let mut seen: HashMap<&str, (Vec<u8>, &str)> = HashMap::new();
        let mut set = Vec::new();
        for contract in self.each() {
            let name = contract.name();
            let fault = |finding: String| ContractError { contract: name.to_owned(), findings: vec![finding] };
            for file in files::files(contract.descriptor_set()).map_err(|error| fault(error.to_string()))? {
                let bare = files::without_source_info(file.bytes).map_err(|error| fault(error.to_string()))?;
                match seen.get(file.name) {
                    Some((other, owner)) if *other != bare && !is_shared(file.name) => {
                        let advice = "export each from its own binary, or rename one";
                        return Err(fault(format!("its file {} differs from that of {owner}; {advice}", file.name)));
                    }
                    Some(_) => {}
                    None => {
                        seen.insert(file.name, (bare, name));
                        files::append(&mut set, file.bytes);
                    }
                }
            }
        }
        Ok(set)
    }

    /// The names of the limits that RPCs count for.
    #[must_use]
    pub fn limits(&self) -> BTreeSet<&str> {
        self.0.methods.iter().filter_map(|method| method.policy.limit.as_deref()).collect()
    }
}

/// Files that every contract imports, in whatever release it was compiled with.
fn is_shared(file: &str) -> bool {
    ["drystone/", "google/", "buf/"].iter().any(|folder| file.starts_with(folder))
}

fn known_workloads(contracts: &[Contract]) -> impl Iterator<Item = &str> {
    let own = contracts.iter().flat_map(|contract| contract.workloads().iter().chain(contract.clients()));
    own.map(String::as_str).chain(FRONTS)
}

fn findings(contracts: &[Contract]) -> Vec<String> {
    let mut findings = Vec::new();
    let each = |names: fn(&Contract) -> Vec<&str>| -> Vec<(&str, &str)> {
        contracts.iter().flat_map(|contract| names(contract).into_iter().map(|name| (name, contract.name()))).collect()
    };
    let services = each(|contract| contract.services().iter().map(String::as_str).collect());
    let workloads = each(|contract| contract.workloads().iter().map(String::as_str).collect());
    let permissions = each(|contract| contract.permissions().iter().map(|item| item.name.as_str()).collect());
    for (kind, names) in [("service", services), ("workload", workloads), ("permission", permissions)] {
        duplicates(kind, names, &mut findings);
    }
    routes(contracts, &mut findings);
    vocabulary(contracts, &mut findings);
    findings
}

/// Each name belongs to one contract.
fn duplicates(kind: &str, names: Vec<(&str, &str)>, findings: &mut Vec<String>) {
    let mut seen = BTreeMap::new();
    for (name, contract) in names {
        if let Some(first) = seen.insert(name, contract) {
            findings.push(format!(
                "the {kind} `{name}` is in {first} and in {contract}; leave one of them out, or rename it"
            ));
        }
    }
}

/// No request is served by two RPCs. Within a contract the more specific route is meant; between two there is no overlap
/// at all, so that none takes requests from another.
fn routes(contracts: &[Contract], findings: &mut Vec<String>) {
    let mut seen: Vec<(usize, &Method, &Binding)> = Vec::new();
    for (number, contract) in contracts.iter().enumerate() {
        for method in contract.methods() {
            for binding in &method.rest {
                for (owner, other, taken) in &seen {
                    let (path, other_path) = (&method.path[1..], &other.path[1..]);
                    if *owner == number {
                        if path != other_path && binding.is_ambiguous_with(taken) {
                            findings.push(format!(
                                "{path}: the REST path `{binding}` matches requests of `{taken}`, which is {other_path}"
                            ));
                        }
                    // A service that two contracts have is a finding already.
                    } else if method.service() != other.service() && binding.takes_from(taken) {
                        let (name, owner) = (contract.name(), contracts[*owner].name());
                        findings.push(format!(
                            "{path}: the REST path `{binding}` of {name} overlaps `{taken}`, which is {other_path} of \
                             {owner}; a contract may not take paths from another"
                        ));
                    }
                }
                seen.push((number, method, binding));
            }
        }
    }
}

/// Rules name only workloads and permissions that there are.
fn vocabulary(contracts: &[Contract], findings: &mut Vec<String>) {
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
