//! From a method and a path to a route: a tree of segments, walked once per request without copying.
//!
//! Of several matching templates, literals have precedence over `*`, and `*` over `**`, segment by segment; a verb
//! (`:revokeAll`) has precedence over none. Templates that do not serve the method are skipped, so that
//! `PATCH /v1/users/{id}` is not hidden by `GET /v1/users/me`.
//!
//! A path that ends in the verb of a matching template denotes that custom method only: `GET /v1/users/7:block` is not the
//! user `7:block`. Any other colon is part of a variable's value.

use std::{borrow::Cow, collections::BTreeSet};

use drystone::contract::rest::{Segment, Template};
use http::Method;

use crate::routing::percent::{self, UriComponent};

/// Finds the route of a method and a path.
#[derive(Debug)]
pub(crate) struct Router<T> {
    root: SegmentNode<T>,
    /// The methods of all routes.
    all_methods: BTreeSet<String>,
}

/// The result of a lookup.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum RouteMatch<T> {
    Found(T),
    /// The path has these methods only, in alphabetical order.
    MethodNotAllowed(BTreeSet<String>),
    /// No template matches the path.
    NotFound,
}

#[derive(Debug)]
struct SegmentNode<T> {
    /// In alphabetical order.
    literals: Vec<(String, SegmentNode<T>)>,
    /// `*`.
    wildcard: Option<Box<SegmentNode<T>>>,
    /// The routes of paths that end here.
    exact: Routes<T>,
    /// The routes whose last segment is `**`, here and below.
    multi_wildcard: Routes<T>,
}

/// Routes by verb and method. There are few of both, so that a list is the fastest map.
type Routes<T> = Vec<(Option<String>, Method, T)>;

impl<T> SegmentNode<T> {
    const fn new() -> Self {
        Self { literals: Vec::new(), wildcard: None, exact: Vec::new(), multi_wildcard: Vec::new() }
    }

    fn child(&mut self, segment: &str) -> &mut Self {
        let index = match self.literals.binary_search_by(|(text, _)| text.as_str().cmp(segment)) {
            Ok(index) => index,
            Err(index) => {
                self.literals.insert(index, (segment.to_owned(), Self::new()));
                index
            }
        };
        &mut self.literals[index].1
    }

    /// Calls `visit` with the routes of `path` and `verb`, in order of precedence, until it returns a value.
    fn walk<'n, R>(
        &'n self,
        path: Option<&str>,
        verb: Option<&str>,
        visit: &mut impl FnMut(&'n Method, &'n T) -> Option<R>,
    ) -> Option<R> {
        let Some(path) = path else {
            return visit_routes(&self.exact, verb, visit).or_else(|| visit_routes(&self.multi_wildcard, verb, visit));
        };
        let (segment, next) = match path.split_once('/') {
            Some((segment, next)) => (segment, Some(next)),
            None => (path, None),
        };
        if let Some(child) = self.literal(segment)
            && let Some(found) = child.walk(next, verb, visit)
        {
            return Some(found);
        }
        if let Some(child) = &self.wildcard
            && !segment.is_empty()
            && let Some(found) = child.walk(next, verb, visit)
        {
            return Some(found);
        }
        visit_routes(&self.multi_wildcard, verb, visit)
    }

    fn literal(&self, segment: &str) -> Option<&Self> {
        if self.literals.is_empty() {
            return None;
        }
        let segment = if segment.contains('%') {
            percent::decode(segment, UriComponent::Segment).ok()?
        } else {
            Cow::Borrowed(segment)
        };
        let index = self.literals.binary_search_by(|(text, _)| text.as_str().cmp(&segment)).ok()?;
        Some(&self.literals[index].1)
    }
}

fn visit_routes<'n, T, R>(
    routes: &'n Routes<T>,
    verb: Option<&str>,
    visit: &mut impl FnMut(&'n Method, &'n T) -> Option<R>,
) -> Option<R> {
    routes.iter().filter(|(own, ..)| own.as_deref() == verb).find_map(|(_, method, route)| visit(method, route))
}

impl<T: Copy> Router<T> {
    /// A router without routes.
    pub(crate) const fn new() -> Self {
        Self { root: SegmentNode::new(), all_methods: BTreeSet::new() }
    }

    /// Adds a route.
    ///
    /// # Errors
    /// The route that has the same method and paths.
    pub(crate) fn add(&mut self, method: Method, template: &Template, route: T) -> Result<(), T> {
        let mut node = &mut self.root;
        let mut is_multi_wildcard = false;
        for segment in &template.segments {
            match segment {
                Segment::Literal(text) => node = node.child(text),
                Segment::Wildcard => node = node.wildcard.get_or_insert_with(|| Box::new(SegmentNode::new())),
                Segment::MultiWildcard => is_multi_wildcard = true,
            }
        }
        let routes = if is_multi_wildcard { &mut node.multi_wildcard } else { &mut node.exact };
        let is_same = |own: &(Option<String>, Method, T)| own.0 == template.verb && own.1 == method;
        if let Some((.., existing)) = routes.iter().find(|own| is_same(own)) {
            return Err(*existing);
        }
        self.all_methods.insert(method.as_str().to_owned());
        routes.push((template.verb.clone(), method, route));
        Ok(())
    }

    /// Finds the route of `method` and `path`. HEAD is served by the route of GET.
    pub(crate) fn find(&self, method: &Method, path: &str) -> RouteMatch<T> {
        let Some(target) = &self.split_verb(path) else { return RouteMatch::NotFound };
        let route_of = |method: &Method| self.walk(target, &mut |own, route| (own == method).then_some(*route));
        let found = route_of(method).or_else(|| if method == Method::HEAD { route_of(&Method::GET) } else { None });
        found.map_or_else(|| self.methods(target), RouteMatch::Found)
    }

    /// The methods of all routes, with those that the edge answers itself.
    pub(crate) fn all_methods(&self) -> BTreeSet<String> {
        with_implied(self.all_methods.clone())
    }

    /// The methods of a path.
    fn methods(&self, target: &PathAndVerb<'_>) -> RouteMatch<T> {
        let mut methods = BTreeSet::new();
        self.walk::<()>(target, &mut |method, _| {
            methods.insert(method.as_str().to_owned());
            None
        });
        if methods.is_empty() { RouteMatch::NotFound } else { RouteMatch::MethodNotAllowed(with_implied(methods)) }
    }

    /// Splits a path into path and verb if a matching template has the verb; else the whole is the path.
    fn split_verb<'p>(&self, path: &'p str) -> Option<PathAndVerb<'p>> {
        let path = path.strip_prefix('/')?;
        let last = path.rfind('/').map_or(0, |slash| slash + 1);
        if let Some(colon) = path[last..].rfind(':') {
            let (path, verb) = (&path[..last + colon], &path[last + colon + 1..]);
            if let Ok(verb) = percent::decode(verb, UriComponent::Segment)
                && self.root.walk(Some(path), Some(&*verb), &mut |_, _| Some(())).is_some()
            {
                return Some(PathAndVerb { path, verb: Some(verb) });
            }
        }
        Some(PathAndVerb { path, verb: None })
    }

    fn walk<'n, R>(
        &'n self,
        target: &PathAndVerb<'_>,
        visit: &mut impl FnMut(&'n Method, &'n T) -> Option<R>,
    ) -> Option<R> {
        self.root.walk(Some(target.path), target.verb.as_deref(), visit)
    }
}

/// A path without its leading slash and verb, and the verb.
struct PathAndVerb<'p> {
    path: &'p str,
    verb: Option<Cow<'p, str>>,
}

/// Adds HEAD where there is GET, and OPTIONS.
fn with_implied(mut methods: BTreeSet<String>) -> BTreeSet<String> {
    if methods.contains("GET") {
        methods.insert("HEAD".to_owned());
    }
    methods.insert("OPTIONS".to_owned());
    methods
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn router(routes: &[&'static str]) -> Router<&'static str> {
        let mut table = Router::new();
        for route in routes {
            let (method, template) = route.split_once(' ').unwrap();
            table.add(method.parse().unwrap(), &template.parse().unwrap(), *route).unwrap();
        }
        table
    }

    fn find(router: &Router<&'static str>, request: &str) -> String {
        let (method, path) = request.split_once(' ').unwrap();
        match router.find(&method.parse().unwrap(), path) {
            RouteMatch::Found(route) => route.to_owned(),
            RouteMatch::MethodNotAllowed(methods) => methods.into_iter().collect::<Vec<_>>().join(", "),
            RouteMatch::NotFound => "nothing".to_owned(),
        }
    }

    const ROUTES: &[&str] = &[
        "GET /v1/users",
        "GET /v1/users/me",
        "GET /v1/users/{id}",
        "PATCH /v1/users/{user.id}",
        "GET /v1/sessions",
        "POST /v1/sessions:revokeAll",
        "DELETE /v1/sessions/{id}",
        "POST /v1/{name=shelves/*}/books",
        "GET /v1/shelves/{shelf}/{rest=**}",
        "POST /v1/users/{id}:block",
    ];

    #[test]
    fn a_literal_has_precedence_over_a_variable() {
        let router = router(ROUTES);
        assert_eq!(find(&router, "GET /v1/users/me"), "GET /v1/users/me");
        assert_eq!(find(&router, "GET /v1/users/you"), "GET /v1/users/{id}");
        assert_eq!(find(&router, "GET /v1/users"), "GET /v1/users");
    }

    #[test]
    fn a_literal_that_does_not_serve_the_method_is_skipped() {
        let router = router(ROUTES);
        assert_eq!(find(&router, "PATCH /v1/users/me"), "PATCH /v1/users/{user.id}");
        assert_eq!(find(&router, "DELETE /v1/users/me"), "GET, HEAD, OPTIONS, PATCH");
        assert_eq!(find(&router, "POST /v1/shelves/3/books"), "POST /v1/{name=shelves/*}/books");
        assert_eq!(find(&router, "GET /v1/shelves/3/books"), "GET /v1/shelves/{shelf}/{rest=**}");
    }

    #[test]
    fn a_verb_ends_the_last_segment_and_has_precedence_over_none() {
        let router = router(ROUTES);
        assert_eq!(find(&router, "POST /v1/sessions:revokeAll"), "POST /v1/sessions:revokeAll");
        assert_eq!(find(&router, "GET /v1/sessions:revokeAll"), "OPTIONS, POST");
        assert_eq!(find(&router, "POST /v1/sessions:other"), "nothing");
        assert_eq!(find(&router, "POST /v1/sessions/:revokeAll"), "DELETE, OPTIONS");
        assert_eq!(find(&router, "POST /v1/users/7:block"), "POST /v1/users/{id}:block");
        assert_eq!(find(&router, "GET /v1/users/a:b"), "GET /v1/users/{id}");
    }

    #[test]
    fn a_custom_method_is_not_part_of_a_variable() {
        let router = router(ROUTES);
        for method in ["GET", "HEAD", "PATCH", "OPTIONS"] {
            assert_eq!(find(&router, &format!("{method} /v1/users/7:block")), "OPTIONS, POST", "{method}");
            assert_eq!(find(&router, &format!("{method} /v1/users/7:bl%6Fck")), "OPTIONS, POST", "{method}");
        }
        assert_eq!(find(&router, "POST /v1/users/7:bl%6Fck"), "POST /v1/users/{id}:block");
        assert_eq!(find(&router, "POST /v1/users/a:b:block"), "POST /v1/users/{id}:block");
        // The verb of another path, an unknown verb, and colons that are data.
        for path in ["7:revokeAll", "7:Block", "7:block:", "7:", ":", "7%3Ablock"] {
            assert_eq!(find(&router, &format!("GET /v1/users/{path}")), "GET /v1/users/{id}", "{path}");
        }
        assert_eq!(find(&router, "DELETE /v1/sessions/7:block"), "DELETE /v1/sessions/{id}");
    }

    #[test]
    fn head_is_served_by_get_only() {
        let router = router(ROUTES);
        assert_eq!(find(&router, "HEAD /v1/users/me"), "GET /v1/users/me");
        assert_eq!(find(&router, "HEAD /v1/sessions:revokeAll"), "OPTIONS, POST");
        assert_eq!(find(&router, "OPTIONS /v1/users"), "GET, HEAD, OPTIONS");
    }

    #[test]
    fn paths_are_matched_literally() {
        let router = router(ROUTES);
        for path in ["/", "//", "/v1", "/v1/", "/v1/users/", "/v1//users", "/V1/users", "/v1/users/me/", "*", ""] {
            assert_eq!(find(&router, &format!("GET {path}")), "nothing", "{path}");
        }
        assert_eq!(find(&router, "GET /v1/%75sers"), "GET /v1/users");
        assert_eq!(find(&router, "GET /v1/users/%6De"), "GET /v1/users/me");
        assert_eq!(find(&router, "GET /v1/users%2Fme"), "nothing");
        assert_eq!(find(&router, "GET /v1/users/a%2Fb"), "GET /v1/users/{id}");
    }

    #[test]
    fn a_multi_wildcard_matches_any_number_of_segments() {
        let router = router(ROUTES);
        for path in ["/v1/shelves/3", "/v1/shelves/3/", "/v1/shelves/3/a", "/v1/shelves/3/a//b/c"] {
            assert_eq!(find(&router, &format!("GET {path}")), "GET /v1/shelves/{shelf}/{rest=**}", "{path}");
        }
    }

    #[test]
    fn a_duplicate_route_is_refused() {
        let mut router = router(ROUTES);
        let again = router.add(Method::GET, &"/v1/users/{other}".parse().unwrap(), "again");
        assert_eq!(again, Err("GET /v1/users/{id}"));
        assert_eq!(router.add(Method::GET, &"/v1/users/{id}:show".parse().unwrap(), "verb"), Ok(()));
    }

    proptest! {
        /// The tree finds the same as a linear search through all templates.
        #[test]
        fn the_tree_agrees_with_a_linear_search(path in "(/(v1|users|me|shelves|books|sessions|7|)){0,5}(:block|:revokeAll)?") {
            let router = router(ROUTES);
            let parsed = |route: &str| {
                let (method, template) = route.split_once(' ').unwrap();
                (method.to_owned(), template.parse::<Template>().unwrap())
            };
            let matching: Vec<&&str> = ROUTES.iter().filter(|route| matches_linearly(&parsed(route).1, &path)).collect();
            let is_custom = matching.iter().any(|route| parsed(route).1.verb.is_some());
            let is_expected = |route: &&&str| {
                let (method, template) = parsed(route);
                method == "GET" && template.verb.is_some() == is_custom
            };
            let found = find(&router, &format!("GET {path}"));
            let expected: Vec<&&str> = matching.iter().copied().filter(is_expected).collect();
            prop_assert_eq!(found == "nothing", matching.is_empty());
            prop_assert_eq!(found.starts_with("GET /"), !expected.is_empty(), "{} {:?}", found, expected);
            prop_assert!(expected.is_empty() || expected.contains(&&found.as_str()));
        }
    }

    fn matches_linearly(template: &Template, path: &str) -> bool {
        let path = match (&template.verb, path) {
            (Some(verb), path) => match path.strip_suffix(&format!(":{verb}")) {
                Some(path) => path,
                None => return false,
            },
            (None, path) => path,
        };
        let Some(path) = path.strip_prefix('/') else { return false };
        let mut given = path.split('/');
        for segment in &template.segments {
            let is_match = match segment {
                Segment::MultiWildcard => return true,
                Segment::Literal(text) => given.next() == Some(text),
                Segment::Wildcard => given.next().is_some_and(|text| !text.is_empty()),
            };
            if !is_match {
                return false;
            }
        }
        given.next().is_none()
    }
}
