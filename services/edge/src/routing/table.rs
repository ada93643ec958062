//! The route table: built once, at the start, and only if every route of the contract can be served.

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
        router::{RouteMatch, Router},
    },
};

/// All routes, each with a channel to the service that owns its RPC.
pub(crate) struct RouteTable<C> {
    router: Router<Destination>,
    routes: Vec<(Route, C)>,
}

/// The destination of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Destination {
    /// The edge's own health.
    Health,
    /// The route of this index.
    Route(usize),
}

impl<C: Clone> RouteTable<C> {
    /// Reads the contracts; `connect` is called once for each workload.
    ///
    /// # Errors
    /// A contract that cannot be served, or the error of `connect`.
    pub(crate) fn build(
        contracts: &Contracts,
        mut connect: impl FnMut(&str) -> Result<C, StartError>,
    ) -> Result<Self, StartError> {
        let mut table = Self { router: Router::new(), routes: Vec::new() };
        table
            .add(Method::GET, &health_path()?, Destination::Health)
            .map_err(|fault| route_error(HEALTH_PATH, fault))?;
        let mut channels: HashMap<Arc<str>, C> = HashMap::new();
        for route in route::read(contracts)? {
            let destination = Destination::Route(table.routes.len());
            table
                .add(route.method.clone(), &route.template, destination)
                .map_err(|fault| route_error(&route.rpc.path, fault))?;
            let workload = &route.rpc.workload;
            let channel = match channels.get(workload) {
                Some(channel) => channel.clone(),
                None => channels.entry(Arc::clone(workload)).or_insert(connect(workload)?).clone(),
            };
            table.routes.push((route, channel));
        }
        Ok(table)
    }

    /// Adds a route; the error names the existing one.
    fn add(&mut self, method: Method, path: &Template, destination: Destination) -> Result<(), String> {
        let label = format!("{method} {path}");
        self.router.add(method, path, destination).map_err(|existing| match existing {
            Destination::Health => format!("`{label}` is used by the health of the edge"),
            Destination::Route(index) => format!("`{label}` is used by {}", self.routes[index].0.rpc.path),
        })
    }

    /// Finds the destination of `method` and `path`.
    pub(crate) fn find(&self, method: &Method, path: &str) -> RouteMatch<Destination> {
        self.router.find(method, path)
    }

    /// The methods of all routes, in alphabetical order.
    pub(crate) fn methods(&self) -> BTreeSet<String> {
        self.router.all_methods()
    }

    /// The route of an index that [`Self::find`] returned.
    pub(crate) fn route(&self, index: usize) -> &(Route, C) {
        &self.routes[index]
    }
}

fn health_path() -> Result<Template, RouteError> {
    HEALTH_PATH.parse().map_err(|error: TemplateError| route_error(HEALTH_PATH, error.to_string()))
}

fn route_error(rpc: &str, fault: String) -> RouteError {
    RouteError { rpc: rpc.to_owned(), fault }
}
