//! From a method and a path to a route: a tree of segments, read once per request without copying.
//!
//! Of several templates that match, the one with the earlier literal wins, segment by segment, then `*`, then `**`; a
//! verb (`:revokeAll`) beats none. A template that does not serve the method steps back for one that does, so that
//! `PATCH /v1/users/{id}` is not hidden by `GET /v1/users/me`.
//!
//! A path that ends in a verb of a template that matches it stands for that custom method alone: `GET /v1/users/7:block` is
//! not the user `7:block`. Any other colon belongs to the value of a variable.

use std::{borrow::Cow, collections::BTreeSet};

use http::Method;

use crate::routing::percent::{self, Rules};

use drystone::contract::rest::{Segment, Template};

/// Finds what serves a method and a path.
#[derive(Debug)]
pub(crate) struct Router<T> {
    root: Node<T>,
    /// The methods of all routes.
    all_methods: BTreeSet<String>,
}

/// What became of a search.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Found<T> {
    /// Something serves it.
    Served(T),
    /// The path is known, but only with these methods, in alphabetical order.
    OtherMethods(BTreeSet<String>),
    /// No template matches the path.
    Nothing,
}

#[derive(Debug)]
struct Node<T> {
    /// In alphabetical order.
    literals: Vec<(String, Node<T>)>,
    one: Option<Box<Node<T>>>,
    /// What is served where the path ends here.
    here: Served<T>,
    /// What is served here and below.
    rest: Served<T>,
}

/// What is served, by verb and method. There are few of both, so that a list is the fastest map.
type Served<T> = Vec<(Option<String>, Method, T)>;

impl<T> Node<T> {
    const fn new() -> Self {
        Self { literals: Vec::new(), one: None, here: Vec::new(), rest: Vec::new() }
    }

    fn child(&mut self, segment: &str) -> &mut Self {
        let at = match self.literals.binary_search_by(|(text, _)| text.as_str().cmp(segment)) {
            Ok(at) => at,
            Err(at) => {
                self.literals.insert(at, (segment.to_owned(), Self::new()));
                at
            }
        };
        &mut self.literals[at].1
    }

    /// Shows `visit` what is served at `path` with `verb`, the best match first, until it answers something.
    fn walk<'n, R>(
        &'n self,
        path: Option<&str>,
        verb: Option<&str>,
        visit: &mut impl FnMut(&'n Method, &'n T) -> Option<R>,
    ) -> Option<R> {
        let Some(path) = path else {
            return offer(&self.here, verb, visit).or_else(|| offer(&self.rest, verb, visit));
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
        if let Some(child) = &self.one
            && !segment.is_empty()
            && let Some(found) = child.walk(next, verb, visit)
        {
            return Some(found);
        }
        offer(&self.rest, verb, visit)
    }

    fn literal(&self, segment: &str) -> Option<&Self> {
        if self.literals.is_empty() {
            return None;
        }
        let segment =
            if segment.contains('%') { percent::decode(segment, Rules::Segment).ok()? } else { Cow::Borrowed(segment) };
        let at = self.literals.binary_search_by(|(text, _)| text.as_str().cmp(&segment)).ok()?;
        Some(&self.literals[at].1)
    }
}

fn offer<'n, T, R>(
    served: &'n Served<T>,
    verb: Option<&str>,
    visit: &mut impl FnMut(&'n Method, &'n T) -> Option<R>,
) -> Option<R> {
    served.iter().filter(|(own, ..)| own.as_deref() == verb).find_map(|(_, method, route)| visit(method, route))
}

impl<T: Copy> Router<T> {
    /// A router without routes.
    pub(crate) const fn new() -> Self {
        Self { root: Node::new(), all_methods: BTreeSet::new() }
    }

    /// Adds a route.
    ///
    /// # Errors
    /// The route that already serves exactly this.
    pub(crate) fn add(&mut self, method: Method, template: &Template, route: T) -> Result<(), T> {
        let mut node = &mut self.root;
        let mut takes_rest = false;
        for segment in &template.segments {
            match segment {
                Segment::Literal(text) => node = node.child(text),
                Segment::Wildcard => node = node.one.get_or_insert_with(|| Box::new(Node::new())),
                Segment::MultiWildcard => takes_rest = true,
            }
        }
        let served = if takes_rest { &mut node.rest } else { &mut node.here };
        let is_same = |own: &(Option<String>, Method, T)| own.0 == template.verb && own.1 == method;
        if let Some((.., taken)) = served.iter().find(|own| is_same(own)) {
            return Err(*taken);
        }
        self.all_methods.insert(method.as_str().to_owned());
        served.push((template.verb.clone(), method, route));
        Ok(())
    }

    /// Finds what serves `method` at `path`. HEAD is served by whatever serves GET.
    pub(crate) fn find(&self, method: &Method, path: &str) -> Found<T> {
        let Some(target) = &self.target(path) else { return Found::Nothing };
        let serving = |method: &Method| self.walk(target, &mut |own, route| (own == method).then_some(*route));
        let found = serving(method).or_else(|| if method == Method::HEAD { serving(&Method::GET) } else { None });
        found.map_or_else(|| self.methods(target), Found::Served)
    }

    /// The methods of all routes, and those that come with them.
    pub(crate) fn all_methods(&self) -> BTreeSet<String> {
        with_implied(self.all_methods.clone())
    }

    /// The methods that serve a path; `Found::Nothing` if there are none.
    fn methods(&self, target: &Target<'_>) -> Found<T> {
        let mut methods = BTreeSet::new();
        self.walk::<()>(target, &mut |method, _| {
            methods.insert(method.as_str().to_owned());
            None
        });
        if methods.is_empty() { Found::Nothing } else { Found::OtherMethods(with_implied(methods)) }
    }

    /// What a path asks for: a custom method if any template has its verb, else the whole path.
    fn target<'p>(&self, path: &'p str) -> Option<Target<'p>> {
        let path = path.strip_prefix('/')?;
        let last = path.rfind('/').map_or(0, |at| at + 1);
        if let Some(colon) = path[last..].rfind(':') {
            let (path, verb) = (&path[..last + colon], &path[last + colon + 1..]);
            if let Ok(verb) = percent::decode(verb, Rules::Segment)
                && self.root.walk(Some(path), Some(&*verb), &mut |_, _| Some(())).is_some()
            {
                return Some(Target { path, verb: Some(verb) });
            }
        }
        Some(Target { path, verb: None })
    }

    fn walk<'n, R>(&'n self, target: &Target<'_>, visit: &mut impl FnMut(&'n Method, &'n T) -> Option<R>) -> Option<R> {
        self.root.walk(Some(target.path), target.verb.as_deref(), visit)
    }
}

/// A path without its leading slash and verb, and the verb.
struct Target<'p> {
    path: &'p str,
    verb: Option<Cow<'p, str>>,
}

/// HEAD comes with GET, OPTIONS with everything.
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
        let mut made = Router::new();
        for route in routes {
            let (method, template) = route.split_once(' ').unwrap();
            made.add(method.parse().unwrap(), &template.parse().unwrap(), *route).unwrap();
        }
        made
    }

    fn find(router: &Router<&'static str>, request: &str) -> String {
        let (method, path) = request.split_once(' ').unwrap();
        match router.find(&method.parse().unwrap(), path) {
            Found::Served(route) => route.to_owned(),
            Found::OtherMethods(methods) => methods.into_iter().collect::<Vec<_>>().join(", "),
            Found::Nothing => "nothing".to_owned(),
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
    fn a_literal_beats_a_variable() {
        let router = router(ROUTES);
        assert_eq!(find(&router, "GET /v1/users/me"), "GET /v1/users/me");
        assert_eq!(find(&router, "GET /v1/users/you"), "GET /v1/users/{id}");
        assert_eq!(find(&router, "GET /v1/users"), "GET /v1/users");
    }

    #[test]
    fn a_literal_that_does_not_serve_the_method_steps_back() {
        let router = router(ROUTES);
        assert_eq!(find(&router, "PATCH /v1/users/me"), "PATCH /v1/users/{user.id}");
        assert_eq!(find(&router, "DELETE /v1/users/me"), "GET, HEAD, OPTIONS, PATCH");
        assert_eq!(find(&router, "POST /v1/shelves/3/books"), "POST /v1/{name=shelves/*}/books");
        assert_eq!(find(&router, "GET /v1/shelves/3/books"), "GET /v1/shelves/{shelf}/{rest=**}");
    }

    #[test]
    fn a_verb_belongs_to_the_last_segment_and_beats_none() {
        let router = router(ROUTES);
        assert_eq!(find(&router, "POST /v1/sessions:revokeAll"), "POST /v1/sessions:revokeAll");
        assert_eq!(find(&router, "GET /v1/sessions:revokeAll"), "OPTIONS, POST");
        assert_eq!(find(&router, "POST /v1/sessions:other"), "nothing");
        assert_eq!(find(&router, "POST /v1/sessions/:revokeAll"), "DELETE, OPTIONS");
        assert_eq!(find(&router, "POST /v1/users/7:block"), "POST /v1/users/{id}:block");
        assert_eq!(find(&router, "GET /v1/users/a:b"), "GET /v1/users/{id}");
    }

    #[test]
    fn a_custom_method_is_no_value_of_a_variable() {
        let router = router(ROUTES);
        for method in ["GET", "HEAD", "PATCH", "OPTIONS"] {
            assert_eq!(find(&router, &format!("{method} /v1/users/7:block")), "OPTIONS, POST", "{method}");
            assert_eq!(find(&router, &format!("{method} /v1/users/7:bl%6Fck")), "OPTIONS, POST", "{method}");
        }
        assert_eq!(find(&router, "POST /v1/users/7:bl%6Fck"), "POST /v1/users/{id}:block");
        assert_eq!(find(&router, "POST /v1/users/a:b:block"), "POST /v1/users/{id}:block");
        // The verb of another path, one that no route has, and a colon that is data.
        for path in ["7:revokeAll", "7:Block", "7:block:", "7:", ":", "7%3Ablock"] {
            assert_eq!(find(&router, &format!("GET /v1/users/{path}")), "GET /v1/users/{id}", "{path}");
        }
        assert_eq!(find(&router, "DELETE /v1/sessions/7:block"), "DELETE /v1/sessions/{id}");
    }

    #[test]
    fn head_is_served_by_get_and_nothing_else_is() {
        let router = router(ROUTES);
        assert_eq!(find(&router, "HEAD /v1/users/me"), "GET /v1/users/me");
        assert_eq!(find(&router, "HEAD /v1/sessions:revokeAll"), "OPTIONS, POST");
        assert_eq!(find(&router, "OPTIONS /v1/users"), "GET, HEAD, OPTIONS");
    }

    #[test]
    fn paths_are_taken_to_the_letter() {
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
    fn the_rest_may_be_empty_or_long() {
        let router = router(ROUTES);
        for path in ["/v1/shelves/3", "/v1/shelves/3/", "/v1/shelves/3/a", "/v1/shelves/3/a//b/c"] {
            assert_eq!(find(&router, &format!("GET {path}")), "GET /v1/shelves/{shelf}/{rest=**}", "{path}");
        }
    }

    #[test]
    fn one_path_is_served_once() {
        let mut router = router(ROUTES);
        let again = router.add(Method::GET, &"/v1/users/{other}".parse().unwrap(), "again");
        assert_eq!(again, Err("GET /v1/users/{id}"));
        assert_eq!(router.add(Method::GET, &"/v1/users/{id}:show".parse().unwrap(), "verb"), Ok(()));
    }

    proptest! {
        /// What the tree finds is what a search through all templates finds.
        #[test]
        fn the_tree_finds_what_a_list_would(path in "(/(v1|users|me|shelves|books|sessions|7|)){0,5}(:block|:revokeAll)?") {
            let router = router(ROUTES);
            let parsed = |route: &str| {
                let (method, template) = route.split_once(' ').unwrap();
                (method.to_owned(), template.parse::<Template>().unwrap())
            };
            let matching: Vec<&&str> = ROUTES.iter().filter(|route| matches_slowly(&parsed(route).1, &path)).collect();
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

    fn matches_slowly(template: &Template, path: &str) -> bool {
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
