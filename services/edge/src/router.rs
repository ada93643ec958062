//! From a method and a path to a route: a tree of segments, read once per request without copying.
//!
//! Of several templates that match, the one with the earlier literal wins, segment by segment, then `*`, then `**`; a
//! verb (`:revokeAll`) beats none. A template that does not serve the method steps back for one that does, so that
//! `PATCH /v1/users/{id}` is not hidden by `GET /v1/users/me`.

use std::{borrow::Cow, collections::BTreeSet};

use http::Method;

use crate::{
    percent::{self, Rules},
    template::{Segment, Template},
};

/// Finds what serves a method and a path.
#[derive(Debug)]
pub(crate) struct Router<T> {
    root: Node<T>,
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
        Self { root: Node::new() }
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
                Segment::One => node = node.one.get_or_insert_with(|| Box::new(Node::new())),
                Segment::Rest => takes_rest = true,
            }
        }
        let served = if takes_rest { &mut node.rest } else { &mut node.here };
        let is_same = |own: &(Option<String>, Method, T)| own.0 == template.verb && own.1 == method;
        if let Some((.., taken)) = served.iter().find(|own| is_same(own)) {
            return Err(*taken);
        }
        served.push((template.verb.clone(), method, route));
        Ok(())
    }

    /// Finds what serves `method` at `path`. HEAD is served by whatever serves GET.
    pub(crate) fn find(&self, method: &Method, path: &str) -> Found<T> {
        let found = self.walk(path, &mut |own, route| (own == method).then_some(*route)).or_else(|| {
            let is_head = method == Method::HEAD;
            is_head.then(|| self.walk(path, &mut |own, route| (own == Method::GET).then_some(*route)))?
        });
        found.map_or_else(|| self.methods(path), Found::Served)
    }

    /// The methods that serve a path; `Found::Nothing` if there are none.
    fn methods(&self, path: &str) -> Found<T> {
        let mut methods = BTreeSet::new();
        self.walk::<()>(path, &mut |method, _| {
            methods.insert(method.as_str().to_owned());
            None
        });
        if methods.is_empty() {
            return Found::Nothing;
        }
        if methods.contains("GET") {
            methods.insert("HEAD".to_owned());
        }
        methods.insert("OPTIONS".to_owned());
        Found::OtherMethods(methods)
    }

    fn walk<'n, R>(&'n self, path: &str, visit: &mut impl FnMut(&'n Method, &'n T) -> Option<R>) -> Option<R> {
        let path = path.strip_prefix('/')?;
        let last = path.rfind('/').map_or(0, |at| at + 1);
        if let Some(colon) = path[last..].rfind(':') {
            let (before, verb) = (&path[..last + colon], &path[last + colon + 1..]);
            if let Some(found) = self.root.walk(Some(before), Some(verb), visit) {
                return Some(found);
            }
        }
        self.root.walk(Some(path), None, visit)
    }
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
        assert_eq!(find(&router, "GET /v1/users/7:block"), "GET /v1/users/{id}");
        assert_eq!(find(&router, "GET /v1/users/a:b"), "GET /v1/users/{id}");
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
            let matches = |route: &&&str| {
                let (method, template) = route.split_once(' ').unwrap();
                method == "GET" && matches_slowly(&template.parse().unwrap(), &path)
            };
            let found = find(&router, &format!("GET {path}"));
            let expected: Vec<&&str> = ROUTES.iter().filter(matches).collect();
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
                Segment::Rest => return true,
                Segment::Literal(text) => given.next() == Some(text),
                Segment::One => given.next().is_some_and(|text| !text.is_empty()),
            };
            if !is_match {
                return false;
            }
        }
        given.next().is_none()
    }
}
