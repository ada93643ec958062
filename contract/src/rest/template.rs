//! The path templates of `google.api.http`.
//!
//! ```text
//! Template  = "/" Segments [ ":" LITERAL ]
//! Segments  = Segment { "/" Segment }
//! Segment   = "*" | "**" | LITERAL | Variable
//! Variable  = "{" FieldPath [ "=" Segments ] "}"
//! FieldPath = IDENT { "." IDENT }
//! ```
//!
//! `*` matches one non-empty segment, `**` any number of segments at the end of the path.

mod overlap;

use std::{error::Error, fmt, str::FromStr};

/// A path template.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Template {
    /// The segments.
    pub segments: Vec<Segment>,
    /// The variables, in order.
    pub variables: Vec<Variable>,
    /// The custom verb, after a colon at the end of the path.
    pub verb: Option<String>,
}

/// A segment of a template.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Segment {
    /// Matches this text.
    Literal(String),
    /// `*`: matches one non-empty segment.
    Wildcard,
    /// `**`: matches the rest of the path.
    MultiWildcard,
}

/// A variable, which binds segments to a field.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Variable {
    /// The field path, in proto names: `user.id`.
    pub field: String,
    /// The index of the first segment.
    start: usize,
    /// The index after the last segment.
    end: usize,
    /// Whether it is a single `*`: its value is fully percent-decoded, while longer values keep `%2F`.
    pub is_one_segment: bool,
}

/// The text is not a path template.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TemplateError {
    /// It does not start with a slash.
    NoSlash,
    /// Two consecutive slashes, or one at the end.
    EmptySegment,
    /// A character where it is not allowed.
    Misplaced(char),
    /// A variable without a closing brace.
    Unclosed,
    /// An invalid field path.
    InvalidField(String),
    /// A field that is bound twice.
    Duplicate(String),
    /// A segment after `**`.
    AfterMultiWildcard,
    /// A colon without a verb.
    EmptyVerb,
}

impl Error for TemplateError {}

/// A message that follows the path.
impl fmt::Display for TemplateError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoSlash => f.write_str("does not start with `/`"),
            Self::EmptySegment => f.write_str("has an empty segment"),
            Self::Misplaced(sign) => write!(f, "has an invalid `{sign}`"),
            Self::Unclosed => f.write_str("has a variable that is not closed"),
            Self::InvalidField(field) => write!(f, "names the field `{field}`, which is not a field path"),
            Self::Duplicate(field) => write!(f, "binds the field `{field}` twice"),
            Self::AfterMultiWildcard => f.write_str("has a segment after `**`, which must be last"),
            Self::EmptyVerb => f.write_str("has a `:` without a verb"),
        }
    }
}

impl Template {
    /// The percent-encoded values of the variables in `path`, in order. The template must match the path.
    pub fn captures<'p>(&self, path: &'p str) -> impl Iterator<Item = (&Variable, &'p str)> {
        let path = path.strip_prefix('/').unwrap_or(path);
        // The verb in the path may be percent-encoded, so its length may differ.
        let end = self.verb.as_ref().and_then(|_| path.rfind(':')).unwrap_or(path.len());
        let path = &path[..end];
        self.variables.iter().map(move |variable| {
            let start = nth_segment(path, variable.start);
            let is_last = variable.end == self.segments.len();
            let end = if is_last { path.len() } else { nth_segment(path, variable.end).saturating_sub(1) };
            (variable, path.get(start..end).unwrap_or_default())
        })
    }
}

/// The offset of the segment with this index; the end of the path if there is none.
fn nth_segment(path: &str, number: usize) -> usize {
    match number.checked_sub(1) {
        None => 0,
        Some(before) => path.match_indices('/').nth(before).map_or(path.len(), |(at, _)| at + 1),
    }
}

impl FromStr for Template {
    type Err = TemplateError;

    fn from_str(text: &str) -> Result<Self, TemplateError> {
        let text = text.strip_prefix('/').ok_or(TemplateError::NoSlash)?;
        // A colon inside a variable is rejected with its segment.
        let (path, verb) = match text.rsplit_once(':') {
            Some((path, verb)) if !verb.contains('}') => (path, Some(verb)),
            _ => (text, None),
        };
        let mut template = Self { segments: Vec::new(), variables: Vec::new(), verb: None };
        if let Some(verb) = verb {
            template.verb = Some(literal(verb).ok_or(TemplateError::EmptyVerb)??);
        }
        let mut rest = path;
        loop {
            rest = template.parse_segment(rest)?;
            match rest.strip_prefix('/') {
                Some(next) => rest = next,
                None if rest.is_empty() => return Ok(template),
                None => return Err(TemplateError::Misplaced(rest.chars().next().unwrap_or('}'))),
            }
        }
    }
}

impl Template {
    /// Parses one segment or variable, and returns the rest.
    fn parse_segment<'t>(&mut self, text: &'t str) -> Result<&'t str, TemplateError> {
        let Some(variable) = text.strip_prefix('{') else {
            let end = text.find('/').unwrap_or(text.len());
            self.push(&text[..end])?;
            return Ok(&text[end..]);
        };
        let (inside, after) = variable.split_once('}').ok_or(TemplateError::Unclosed)?;
        let (field, segments) = inside.split_once('=').unwrap_or((inside, "*"));
        if !field.split('.').all(is_identifier) {
            return Err(TemplateError::InvalidField(field.to_owned()));
        }
        if self.variables.iter().any(|other| other.field == field) {
            return Err(TemplateError::Duplicate(field.to_owned()));
        }
        let start = self.segments.len();
        segments.split('/').try_for_each(|segment| self.push(segment))?;
        let is_one_segment = self.segments[start..] == [Segment::Wildcard];
        self.variables.push(Variable { field: field.to_owned(), start, end: self.segments.len(), is_one_segment });
        Ok(after)
    }

    fn push(&mut self, text: &str) -> Result<(), TemplateError> {
        if self.segments.last() == Some(&Segment::MultiWildcard) {
            return Err(TemplateError::AfterMultiWildcard);
        }
        self.segments.push(match text {
            "*" => Segment::Wildcard,
            "**" => Segment::MultiWildcard,
            text => Segment::Literal(literal(text).ok_or(TemplateError::EmptySegment)??),
        });
        Ok(())
    }
}

/// Parses a literal; `None` if it is empty.
fn literal(text: &str) -> Option<Result<String, TemplateError>> {
    if text.is_empty() {
        return None;
    }
    let misplaced = text.chars().find(|&sign| !(sign.is_ascii_alphanumeric() || "-_.~!$&'(),;@".contains(sign)));
    Some(misplaced.map_or_else(|| Ok(text.to_owned()), |sign| Err(TemplateError::Misplaced(sign))))
}

fn is_identifier(text: &str) -> bool {
    text.starts_with(|sign: char| sign.is_ascii_alphabetic() || sign == '_')
        && text.chars().all(|sign| sign.is_ascii_alphanumeric() || sign == '_')
}

impl fmt::Display for Segment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Literal(text) => text,
            Self::Wildcard => "*",
            Self::MultiWildcard => "**",
        })
    }
}

impl fmt::Display for Template {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, segment) in self.segments.iter().enumerate() {
            f.write_str("/")?;
            if let Some(variable) = self.variables.iter().find(|variable| variable.start == index) {
                write!(f, "{{{}", variable.field)?;
                if !variable.is_one_segment {
                    f.write_str("=")?;
                }
            }
            let is_short = |variable: &Variable| variable.is_one_segment && variable.start == index;
            if !self.variables.iter().any(is_short) {
                write!(f, "{segment}")?;
            }
            if self.variables.iter().any(|variable| variable.end == index + 1) {
                f.write_str("}")?;
            }
        }
        self.verb.iter().try_for_each(|verb| write!(f, ":{verb}"))
    }
}

#[cfg(test)]
mod tests {
    use std::fmt::Write;

    use proptest::prelude::*;

    use super::*;

    fn parse(text: &str) -> Template {
        text.parse().unwrap_or_else(|error| panic!("`{text}` {error}"))
    }

    fn captures(template: &str, path: &str) -> Vec<(String, String)> {
        let template = parse(template);
        let captures = template.captures(path);
        captures.map(|(variable, text)| (variable.field.clone(), text.to_owned())).collect()
    }

    #[test]
    fn segments_variables_and_the_verb_are_parsed() {
        let template = parse("/v1/{name=shelves/*/books/**}:move");
        let literal = |text: &str| Segment::Literal(text.to_owned());
        assert_eq!(
            template.segments,
            [literal("v1"), literal("shelves"), Segment::Wildcard, literal("books"), Segment::MultiWildcard]
        );
        assert_eq!((template.variables[0].start, template.variables[0].end), (1, 5));
        assert_eq!(template.verb.as_deref(), Some("move"));
        assert_eq!(parse("/.well-known/jwks.json").segments, [literal(".well-known"), literal("jwks.json")]);
    }

    #[test]
    fn an_invalid_template_is_rejected() {
        use TemplateError::{
            AfterMultiWildcard, Duplicate, EmptySegment, EmptyVerb, InvalidField, Misplaced, NoSlash, Unclosed,
        };
        let cases = [
            ("", NoSlash),
            ("v1/users", NoSlash),
            ("/", EmptySegment),
            ("//", EmptySegment),
            ("/v1/users/", EmptySegment),
            ("/v1//users", EmptySegment),
            ("/v1/{id=}", EmptySegment),
            ("/v1/users:", EmptyVerb),
            ("/v1/users:a:b", Misplaced(':')),
            ("/v1/{id", Unclosed),
            ("/v1/id}", Misplaced('}')),
            ("/v1/a{id}", Misplaced('{')),
            ("/v1/{id}a", Misplaced('a')),
            ("/v1/{a={b}}", Misplaced('{')),
            ("/v1/***", Misplaced('*')),
            ("/v1/a*", Misplaced('*')),
            ("/v1/a b", Misplaced(' ')),
            ("/v1/a%20b", Misplaced('%')),
            ("/v1/{id=a:b}", Misplaced(':')),
            ("/v1/**/users", AfterMultiWildcard),
            ("/v1/{a=**}/{b}", AfterMultiWildcard),
            ("/v1/{}", InvalidField(String::new())),
            ("/v1/{a..b}", InvalidField("a..b".to_owned())),
            ("/v1/{1a}", InvalidField("1a".to_owned())),
            ("/v1/{id}/{id}", Duplicate("id".to_owned())),
        ];
        for (text, error) in cases {
            assert_eq!(text.parse::<Template>(), Err(error), "{text}");
        }
    }

    #[test]
    fn variables_capture_their_segments() {
        assert_eq!(captures("/v1/users/{id}", "/v1/users/7"), [("id".to_owned(), "7".to_owned())]);
        assert_eq!(captures("/v1/{a.b}/x/{c}:go", "/v1/one/x/two:go").len(), 2);
        assert_eq!(captures("/v1/{a.b}/x/{c}:go", "/v1/one/x/two:go")[1].1, "two");
        assert_eq!(captures("/v1/{n=shelves/*}/books", "/v1/shelves/3/books")[0].1, "shelves/3");
        assert_eq!(captures("/v1/{rest=**}", "/v1/a/b/c")[0].1, "a/b/c");
        assert_eq!(captures("/v1/{rest=**}", "/v1")[0].1, "");
    }

    #[test]
    fn is_one_segment_is_true_only_for_a_single_wildcard() {
        let is_one_segment = |text| parse(text).variables[0].is_one_segment;
        assert!(is_one_segment("/v1/{id}") && is_one_segment("/v1/{id=*}/x"));
        assert!(!is_one_segment("/v1/{rest=**}") && !is_one_segment("/v1/{n=x/*}"));
        assert_eq!(captures("/v1/{id}:go", "/v1/a%2Fb:g%6f")[0].1, "a%2Fb", "captures are not decoded");
    }

    fn template() -> impl Strategy<Value = String> {
        let literal = "[a-z][a-zA-Z0-9._~-]{0,6}";
        let segment = prop_oneof![3 => literal, 1 => Just("*".to_owned())];
        let several = prop::collection::vec(segment.clone(), 2..4).prop_map(|segments| segments.join("/"));
        let item = prop_oneof![
            4 => segment.clone().prop_map(|text| (text, false)),
            2 => Just((String::new(), true)),
            1 => several.prop_map(|text| (text, true)),
        ];
        let last = prop_oneof![3 => Just(""), 1 => Just("/**"), 1 => Just("/{rest=**}")];
        let verb = prop::option::of("[a-z][a-zA-Z]{0,6}");
        (prop::collection::vec(item, 1..5), last, verb).prop_map(|(items, last, verb)| {
            let mut text = String::new();
            for (index, (segments, is_variable)) in items.into_iter().enumerate() {
                let written = match (is_variable, segments.as_str()) {
                    (false, segment) => write!(text, "/{segment}"),
                    (true, "") => write!(text, "/{{f{index}.id}}"),
                    (true, segments) => write!(text, "/{{f{index}={segments}}}"),
                };
                written.unwrap();
            }
            text + last + &verb.map(|verb| format!(":{verb}")).unwrap_or_default()
        })
    }

    proptest! {
        #[test]
        fn a_displayed_template_is_unchanged(text in template()) {
            prop_assert_eq!(parse(&text).to_string(), text);
        }

        #[test]
        fn the_parser_never_panics(text in "[/{}*=:.a-c1%]{0,24}") {
            let _ = text.parse::<Template>();
        }
    }
}
