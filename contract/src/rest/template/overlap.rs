//! How two templates stand to each other: whether a path can match both, and which of them is then meant.
//!
//! Of two templates that overlap, the more specific one is chosen: a verb beats none, and otherwise the template that
//! matches nothing but what the other matches too, so that `/v1/users/me` is allowed beside `/v1/users/{id}`. Templates of
//! which neither is more specific, such as `/v1/{a}/x` and `/v1/y/{b}`, are ambiguous: no reader could tell which of them a path
//! means. Names of variables make no difference.

use super::{Segment, Template};

impl Template {
    /// Whether some path matches both templates.
    #[must_use]
    pub fn overlaps(&self, other: &Self) -> bool {
        match (&self.verb, &other.verb) {
            (Some(own), Some(others)) if own != others => false,
            (Some(_), None) => self.shapes().iter().any(|shape| meet(shape, &other.pieces())),
            (None, Some(_)) => other.overlaps(self),
            _ => meet(&self.pieces(), &other.pieces()),
        }
    }

    /// Whether this template, and not `other`, is meant by every path that matches both, and there is such a path.
    #[must_use]
    pub fn is_more_specific_than(&self, other: &Self) -> bool {
        match (&self.verb, &other.verb) {
            (Some(_), None) => self.overlaps(other),
            (own, others) => {
                own == others && covers(&other.segments, &self.segments) && !covers(&self.segments, &other.segments)
            }
        }
    }

    /// Whether both match a path that neither is the more specific one for.
    #[must_use]
    pub fn is_ambiguous_with(&self, other: &Self) -> bool {
        self.overlaps(other) && !self.is_more_specific_than(other) && !other.is_more_specific_than(self)
    }

    fn pieces(&self) -> Vec<Piece<'_>> {
        self.segments.iter().map(Piece::of).collect()
    }

    /// What a whole path has to be, where the verb is read as the end of its last segment.
    fn shapes(&self) -> Vec<Vec<Piece<'_>>> {
        let mut pieces = self.pieces();
        if pieces.pop() != Some(Piece::Rest) {
            pieces.push(Piece::WithVerb);
            return vec![pieces];
        }
        // `**` stands for nothing, so that the verb ends the segment before it, or for one segment at least.
        let rest = [pieces.as_slice(), &[Piece::Rest, Piece::WithVerb]].concat();
        if let Some(last) = pieces.last_mut() {
            *last = Piece::WithVerb;
        }
        vec![pieces, rest]
    }
}

/// What a segment of a whole path has to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Piece<'t> {
    Literal(&'t str),
    One,
    Rest,
    /// A text with a colon, which no literal has.
    WithVerb,
}

impl<'t> Piece<'t> {
    fn of(segment: &'t Segment) -> Self {
        match segment {
            Segment::Literal(text) => Self::Literal(text),
            Segment::One => Self::One,
            Segment::Rest => Self::Rest,
        }
    }

    /// Whether one segment can be both. Neither is `Rest`.
    fn fits(self, other: Self) -> bool {
        self == other || self == Self::One || other == Self::One
    }
}

/// Whether some path matches both.
fn meet(left: &[Piece<'_>], right: &[Piece<'_>]) -> bool {
    match (left.split_first(), right.split_first()) {
        (None, None) => true,
        (Some((Piece::Rest, after)), _) => meet(after, right) || (!right.is_empty() && meet(left, &right[1..])),
        (_, Some((Piece::Rest, _))) => meet(right, left),
        (Some((one, left)), Some((other, right))) => one.fits(*other) && meet(left, right),
        (None, Some(_)) | (Some(_), None) => false,
    }
}

/// Whether `wide` matches every path that `narrow` matches.
fn covers(wide: &[Segment], narrow: &[Segment]) -> bool {
    match (wide.split_first(), narrow.split_first()) {
        (Some((Segment::Rest, _)), _) | (None, None) => true,
        (Some((Segment::One, wide)), Some((Segment::One | Segment::Literal(_), narrow))) => covers(wide, narrow),
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

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(100))]

        /// What is said of two templates is what all short paths show.
        #[test]
        fn all_paths_agree(one in template(), other in template()) {
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
