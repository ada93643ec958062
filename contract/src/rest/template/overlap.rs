//! Overlap of two templates: whether a path can match both, and which of them is more specific.
//!
//! Of two overlapping templates the more specific one is used: one with a verb before one without, and otherwise the one
//! whose paths are a subset of the other's, so that `/v1/users/me` is allowed beside `/v1/users/{id}`. If neither is more
//! specific, as with `/v1/{a}/x` and `/v1/y/{b}`, they are ambiguous. Names of variables make no difference.

use super::{Segment, Template};

impl Template {
    /// Whether some path matches both templates.
    #[must_use]
    pub fn overlaps(&self, other: &Self) -> bool {
        match (&self.verb, &other.verb) {
            (Some(own), Some(others)) if own != others => false,
            (Some(_), None) => self.alternatives().iter().any(|alternative| intersects(alternative, &other.matchers())),
            (None, Some(_)) => other.overlaps(self),
            _ => intersects(&self.matchers(), &other.matchers()),
        }
    }

    /// Whether the templates overlap and this one is more specific than `other`.
    #[must_use]
    pub fn is_more_specific_than(&self, other: &Self) -> bool {
        match (&self.verb, &other.verb) {
            (Some(_), None) => self.overlaps(other),
            (own, others) => {
                own == others && covers(&other.segments, &self.segments) && !covers(&self.segments, &other.segments)
            }
        }
    }

    /// Whether the templates overlap and neither is more specific.
    #[must_use]
    pub fn is_ambiguous_with(&self, other: &Self) -> bool {
        self.overlaps(other) && !self.is_more_specific_than(other) && !other.is_more_specific_than(self)
    }

    fn matchers(&self) -> Vec<Matcher<'_>> {
        self.segments.iter().map(Matcher::of).collect()
    }

    /// The alternatives for a whole path, with the verb as part of the last segment.
    fn alternatives(&self) -> Vec<Vec<Matcher<'_>>> {
        let mut matchers = self.matchers();
        if matchers.pop() != Some(Matcher::MultiWildcard) {
            matchers.push(Matcher::WithVerb);
            return vec![matchers];
        }
        // `**` matches no segment, so that the verb is part of the segment before, or at least one segment.
        let rest = [matchers.as_slice(), &[Matcher::MultiWildcard, Matcher::WithVerb]].concat();
        if let Some(last) = matchers.last_mut() {
            *last = Matcher::WithVerb;
        }
        vec![matchers, rest]
    }
}

/// Matches a segment of a whole path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Matcher<'t> {
    Literal(&'t str),
    Wildcard,
    MultiWildcard,
    /// A segment with a colon, which no literal has.
    WithVerb,
}

impl<'t> Matcher<'t> {
    fn of(segment: &'t Segment) -> Self {
        match segment {
            Segment::Literal(text) => Self::Literal(text),
            Segment::Wildcard => Self::Wildcard,
            Segment::MultiWildcard => Self::MultiWildcard,
        }
    }

    /// Whether one segment can match both. Neither is `MultiWildcard`.
    fn intersects(self, other: Self) -> bool {
        self == other || self == Self::Wildcard || other == Self::Wildcard
    }
}

/// Whether some path matches both.
fn intersects(left: &[Matcher<'_>], right: &[Matcher<'_>]) -> bool {
    match (left.split_first(), right.split_first()) {
        (None, None) => true,
        (Some((Matcher::MultiWildcard, after)), _) => {
            intersects(after, right) || (!right.is_empty() && intersects(left, &right[1..]))
        }
        (_, Some((Matcher::MultiWildcard, _))) => intersects(right, left),
        (Some((one, left)), Some((other, right))) => one.intersects(*other) && intersects(left, right),
        (None, Some(_)) | (Some(_), None) => false,
    }
}

/// Whether `wide` matches every path that `narrow` matches.
fn covers(wide: &[Segment], narrow: &[Segment]) -> bool {
    match (wide.split_first(), narrow.split_first()) {
        (Some((Segment::MultiWildcard, _)), _) | (None, None) => true,
        (Some((Segment::Wildcard, wide)), Some((Segment::Wildcard | Segment::Literal(_), narrow))) => {
            covers(wide, narrow)
        }
        (Some((Segment::Literal(one), wide)), Some((Segment::Literal(other), narrow))) => {
            one == other && covers(wide, narrow)
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn parse(text: &str) -> Template {
        text.parse().unwrap()
    }

    #[test]
    fn the_more_specific_template_is_allowed_beside_the_other() {
        for (specific, general) in [
            ("/v1/users/me", "/v1/users/{id}"),
            ("/v1/users/me", "/v1/{rest=**}"),
            ("/v1/users/{id}", "/v1/users/**"),
            ("/v1/users", "/v1/users/**"),
            ("/v1/{name=shelves/*}/books", "/v1/{collection}/{id}/books"),
            ("/v1/users/{id}:block", "/v1/users/{id}"),
            ("/v1/{a}/{b}:block", "/v1/users/{id}"),
            ("/v1/users/me:block", "/v1/users/{id}:block"),
        ] {
            let (specific, general) = (parse(specific), parse(general));
            assert!(specific.overlaps(&general) && general.overlaps(&specific), "{specific} {general}");
            assert!(specific.is_more_specific_than(&general), "{specific} {general}");
            assert!(!general.is_more_specific_than(&specific), "{specific} {general}");
            assert!(!specific.is_ambiguous_with(&general), "{specific} {general}");
        }
    }

    #[test]
    fn templates_of_which_neither_is_more_specific_are_ambiguous() {
        for (one, other) in [
            ("/v1/{a}/x", "/v1/y/{b}"),
            ("/v1/users/{id}", "/v1/users/{name}"),
            ("/v1/users/{id}", "/v1/users/*"),
            ("/v1/{a}/x", "/v1/y/**"),
            ("/v1/{a}/x:go", "/v1/y/{b}:go"),
            ("/v1/{a.b}:go", "/v1/{c}:go"),
        ] {
            let (one, other) = (parse(one), parse(other));
            assert!(one.is_ambiguous_with(&other) && other.is_ambiguous_with(&one), "{one} {other}");
        }
    }

    #[test]
    fn templates_that_share_no_path_do_not_overlap() {
        for (one, other) in [
            ("/v1/users", "/v1/sessions"),
            ("/v1/users", "/v1/users/{id}"),
            ("/v1/users:block", "/v1/users"),
            ("/v1/users:block", "/v1/{id}:unblock"),
            ("/v1/users/{id}:block", "/v1/sessions/{id}"),
            ("/v1/a/**", "/v1/b/**"),
            ("/v1/users/me:block", "/v1/users/me"),
        ] {
            let (one, other) = (parse(one), parse(other));
            assert!(!one.overlaps(&other) && !other.overlaps(&one), "{one} {other}");
            assert!(!one.is_ambiguous_with(&other), "{one} {other}");
        }
    }

    fn template() -> impl Strategy<Value = Template> {
        let segments = prop::collection::vec(prop_oneof![2 => Just("a"), 1 => Just("b"), 2 => Just("*")], 0..4);
        (segments, any::<bool>(), prop_oneof![3 => Just(""), 1 => Just(":x"), 1 => Just(":y")]).prop_filter_map(
            "no segment",
            |(mut segments, takes_rest, verb)| {
                segments.extend(takes_rest.then_some("**"));
                (!segments.is_empty()).then(|| parse(&format!("/{}{verb}", segments.join("/"))))
            },
        )
    }

    /// Every path of up to five of these segments. `c` is in no template.
    fn paths() -> Vec<String> {
        let mut paths = vec![String::new()];
        let mut longest = paths.clone();
        for _ in 0..5 {
            let longer = |path: &String| {
                ["a", "b", "c", "", "a:x", "b:x", "c:x", "a:y", "b:y", "c:y", ":x"]
                    .map(|segment| format!("{path}/{segment}"))
            };
            // A verb that is not at the end is a value like any other.
            longest = longest.iter().filter(|path| !path.contains(':')).flat_map(longer).collect();
            paths.extend(longest.iter().cloned());
        }
        paths.remove(0);
        paths
    }

    fn matches(template: &Template, path: &str) -> bool {
        let path = match &template.verb {
            Some(verb) => match path.rsplit_once(':') {
                Some((before, given)) if given == verb => before,
                _ => return false,
            },
            None => path,
        };
        let mut given = path[1..].split('/');
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

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(100))]

        /// The relations of two templates agree with those of all short paths.
        #[test]
        fn relations_agree_with_all_short_paths(one in template(), other in template()) {
            let paths = paths();
            let (own, others): (Vec<_>, Vec<_>) =
                paths.iter().map(|path| (matches(&one, path), matches(&other, path))).unzip();
            let both = || own.iter().zip(&others);
            let is_shared = both().any(|(own, others)| *own && *others);
            prop_assert_eq!(one.overlaps(&other), is_shared, "{} {}", one, other);

            let is_within = both().all(|(own, others)| !own || *others) && own != others;
            let is_specific = is_shared && if one.verb == other.verb { is_within } else { one.verb.is_some() };
            prop_assert_eq!(one.is_more_specific_than(&other), is_specific, "{} {}", one, other);
        }
    }
}
