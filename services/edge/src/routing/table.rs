//! The table of routes: made once, at the start, and only if every route of the contract can be served.

use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
};

use drystone::contract::{
    Contracts,
    rest::{HEALTH_PATH, Template, TemplateError},
};
use http::Method;

use crate::{
    StartError,
    routing::{
        route::{self, Route, RouteError},
        router::{Found, Router},
    },
};

/// All routes, each with a channel to the service that owns its RPC.
pub(crate) struct Table<C> {
    router: Router<Target>,
    routes: Vec<(Route, C)>,
}

/// What a path leads to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Target {
    /// The edge's own health.
    Health,
    /// The route of this number.
    Route(usize),
}

impl<C: Clone> Table<C> {
    /// Reads the contract; `connect` is asked once for each workload.
    ///
    /// # Errors
    /// For a contract that cannot be served, or whatever `connect` fails with.
    pub(crate) fn build(
        contracts: &Contracts,
        mut connect: impl FnMut(&str) -> Result<C, StartError>,
    ) -> Result<Self, StartError> {
        let mut table = Self { router: Router::new(), routes: Vec::new() };
        table.add(Method::GET, &health_path()?, Target::Health).map_err(|fault| fault_of(HEALTH_PATH, fault))?;
        let mut channels: HashMap<Arc<str>, C> = HashMap::new();
        for route in route::read(contracts)? {
            let target = Target::Route(table.routes.len());
            table
                .add(route.method.clone(), &route.template, target)
                .map_err(|fault| fault_of(&route.rpc.path, fault))?;
            let workload = &route.rpc.workload;
            let channel = match channels.get(workload) {
                Some(channel) => channel.clone(),
                None => channels.entry(Arc::clone(workload)).or_insert(connect(workload)?).clone(),
            };
            table.routes.push((route, channel));
        }
        Ok(table)
    }

    /// Adds a route; the error says what is there already.
    fn add(&mut self, method: Method, path: &Template, target: Target) -> Result<(), String> {
        let label = format!("{method} {path}");
        self.router.add(method, path, target).map_err(|taken| match taken {
            Target::Health => format!("`{label}` is taken by the health of the edge"),
            Target::Route(number) => format!("`{label}` is taken by {}", self.routes[number].0.rpc.path),
        })
    }

    /// Finds what serves `method` at `path`.
    pub(crate) fn find(&self, method: &Method, path: &str) -> Found<Target> {
        self.router.find(method, path)
    }

    /// The methods that are served at any path, in alphabetical order.
    pub(crate) fn methods(&self) -> BTreeSet<String> {
        self.router.all_methods()
    }

    /// The route of a number that [`Self::find`] answered.
    pub(crate) fn route(&self, number: usize) -> &(Route, C) {
        &self.routes[number]
    }
}

fn health_path() -> Result<Template, RouteError> {
    HEALTH_PATH.parse().map_err(|error: TemplateError| fault_of(HEALTH_PATH, error.to_string()))
}

fn fault_of(rpc: &str, fault: String) -> RouteError {
    RouteError { rpc: rpc.to_owned(), fault }
}
