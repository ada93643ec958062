//! Filters of lists: a subset of [AIP-160](https://google.aip.dev/160).
//!
//! A filter is a conjunction: `status = disabled AND create_time >= "2026-01-31T00:00:00Z"`. Values are words, or text in single or
//! double quotes, with `\` before a quote or a backslash. Everything else of AIP-160 (`OR`, `NOT`, parentheses, functions, `:`, words
//! without a field) is refused. Each error says where.

use chrono::{DateTime, SubsecRound, Utc};
use drystone::status::quote;

use crate::{
    clock::Timestamp,
    error::{Error, Result},
};

/// The name of the field of the filter, in every list request.
const FIELD: &str = "filter";

/// The maximum number of terms.
const MAX_TERMS: usize = 8;

/// A field that a list can be filtered by.
#[derive(Debug, Clone, Copy)]
pub struct Field {
    /// Its name in filters.
    pub name: &'static str,
    /// Its values.
    pub kind: Kind,
}

/// The values of a field.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// One of these words, without regard to case.
    Choice(&'static [&'static str]),
    /// A text.
    Text,
    /// A text; with a `*` at its end all that begin with it.
    Prefix,
    /// A time (RFC 3339), also before and after it.
    Time,
}

/// A condition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Term {
    /// The name of the field.
    pub field: &'static str,
    /// How it is compared. All but [`Kind::Time`] know [`Operator::Equal`] only.
    pub operator: Operator,
    /// With what it is compared.
    pub value: Value,
}

/// How a field is compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operator {
    /// `=`
    Equal,
    /// `<`
    Less,
    /// `<=`
    LessOrEqual,
    /// `>`
    Greater,
    /// `>=`
    GreaterOrEqual,
}

/// A value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Value {
    /// Of [`Kind::Choice`], as it is listed there.
    Choice(&'static str),
    /// Of [`Kind::Text`], or of [`Kind::Prefix`] without a `*`.
    Text(String),
    /// Of [`Kind::Prefix`], without its `*`.
    Prefix(String),
    /// Of [`Kind::Time`], to the microsecond.
    Time(Timestamp),
}

/// Parses a filter. An empty one has no terms. A field is named once, a time as often as needed for a range.
///
/// # Errors
/// `INVALID_REQUEST` for the field `filter`, with what is expected and where.
pub fn parse(filter: &str, fields: &[Field]) -> Result<Vec<Term>> {
    let mut parser = Parser { rest: filter, position: 1 };
    let mut terms: Vec<Term> = Vec::new();
    parser.skip_space();
    while !parser.rest.is_empty() {
        if !terms.is_empty() {
            parser.and()?;
        }
        let start = parser.here();
        let term = parser.term(fields)?;
        let is_repeated = terms.iter().any(|other| other.field == term.field);
        if is_repeated && !matches!(term.value, Value::Time(_)) {
            return Err(start.expected(&format!("one condition on `{}`, and this is another", term.field)));
        }
        if terms.len() == MAX_TERMS {
            return Err(start.expected(&format!("at most {MAX_TERMS} conditions")));
        }
        terms.push(term);
        parser.skip_space();
    }
    Ok(terms)
}

#[derive(Clone, Copy)]
struct Parser<'a> {
    rest: &'a str,
    /// In characters, from 1.
    position: usize,
}

/// A place in the filter.
#[derive(Clone, Copy)]
struct Place<'a>(Parser<'a>);

impl Place<'_> {
    fn expected(self, what: &str) -> Error {
        let Self(Parser { rest, position }) = self;
        let found = if rest.is_empty() { "the end".to_owned() } else { format!("`{}`", quote(first_word(rest))) };
        Error::invalid_field(FIELD, format!("at character {position}, {found}: expected {what}"))
    }
}

impl<'a> Parser<'a> {
    fn here(self) -> Place<'a> {
        Place(self)
    }

    fn take(&mut self, bytes: usize) -> &'a str {
        let (taken, rest) = self.rest.split_at_checked(bytes).unwrap_or((self.rest, ""));
        self.position += taken.chars().count();
        self.rest = rest;
        taken
    }

    fn skip_space(&mut self) {
        self.take(self.rest.len() - self.rest.trim_start().len());
    }

    fn word(&mut self) -> &'a str {
        let end = self.rest.find(|character: char| !is_word(character)).unwrap_or(self.rest.len());
        self.take(end)
    }

    fn and(&mut self) -> Result<()> {
        let start = self.here();
        if self.word() != "AND" {
            return Err(start.expected("`AND`; `OR` and other combinations are not supported"));
        }
        self.skip_space();
        if self.rest.is_empty() { Err(self.here().expected("a condition after `AND`")) } else { Ok(()) }
    }

    fn term(&mut self, fields: &[Field]) -> Result<Term> {
        let start = self.here();
        let name = self.word();
        let field = fields.iter().find(|field| field.name == name).ok_or_else(|| {
            let names = fields.iter().map(|field| format!("`{}`", field.name)).collect::<Vec<_>>().join(", ");
            start.expected(&format!("the name of a field: {names}; `NOT`, `-` and parentheses are not supported"))
        })?;
        self.skip_space();
        let operator = self.operator(field)?;
        self.skip_space();
        let value = self.value(field)?;
        if !self.rest.is_empty() && !self.rest.starts_with(char::is_whitespace) {
            return Err(self.here().expected("a space or the end after the value"));
        }
        Ok(Term { field: field.name, operator, value })
    }

    fn operator(&mut self, field: &Field) -> Result<Operator> {
        const ALL: [(&str, Operator); 5] = [
            ("<=", Operator::LessOrEqual),
            (">=", Operator::GreaterOrEqual),
            ("<", Operator::Less),
            (">", Operator::Greater),
            ("=", Operator::Equal),
        ];
        let start = self.here();
        let found = ALL.into_iter().find(|(text, _)| self.rest.starts_with(text));
        let is_time = field.kind == Kind::Time;
        match found.filter(|(_, operator)| is_time || *operator == Operator::Equal) {
            Some((text, operator)) => {
                self.take(text.len());
                Ok(operator)
            }
            None if is_time => Err(start.expected("`=`, `<`, `<=`, `>` or `>=`")),
            None => Err(start.expected(&format!("`=`, the only operator of `{}`", field.name))),
        }
    }

    fn value(&mut self, field: &Field) -> Result<Value> {
        let start = self.here();
        let text = match self.rest.chars().next() {
            Some(mark @ ('"' | '\'')) => self.quoted(mark)?,
            _ => self.word().to_owned(),
        };
        if text.is_empty() {
            return Err(start.expected("a value: a word, or text in quotes"));
        }
        match field.kind {
            Kind::Choice(all) => {
                let choice = all.iter().find(|choice| choice.eq_ignore_ascii_case(&text));
                choice.map(|choice| Value::Choice(choice)).ok_or_else(|| {
                    let names = all.iter().map(|choice| format!("`{choice}`")).collect::<Vec<_>>().join(", ");
                    start.expected(&format!("one of {names}"))
                })
            }
            Kind::Text => Ok(Value::Text(text)),
            Kind::Prefix => match text.strip_suffix('*') {
                Some("") => Err(start.expected("text before the `*`")),
                Some(prefix) if !prefix.contains('*') => Ok(Value::Prefix(prefix.to_owned())),
                None if !text.contains('*') => Ok(Value::Text(text)),
                _ => Err(start.expected("a `*` only at the end")),
            },
            Kind::Time => {
                let time = DateTime::parse_from_rfc3339(&text).map_err(|_| {
                    start.expected("a time in quotes with its offset from UTC, such as \"2026-01-31T12:00:00Z\"")
                })?;
                Ok(Value::Time(time.with_timezone(&Utc).trunc_subsecs(6)))
            }
        }
    }

    fn quoted(&mut self, mark: char) -> Result<String> {
        let start = self.here();
        self.take(mark.len_utf8());
        let (mut text, mut is_escaped) = (String::new(), false);
        for character in self.rest.chars() {
            self.take(character.len_utf8());
            match character {
                '\\' if !is_escaped => is_escaped = true,
                _ if character == mark && !is_escaped => return Ok(text),
                _ => {
                    is_escaped = false;
                    text.push(character);
                }
            }
        }
        Err(start.expected(&format!("a closing {mark}")))
    }
}

/// Characters of names and of values without quotes.
fn is_word(character: char) -> bool {
    character.is_alphanumeric() || "_.-+@*/~%".contains(character)
}

/// What an error quotes: a word, or the character that begins none.
fn first_word(text: &str) -> &str {
    let end = text.find(|character: char| !is_word(character)).unwrap_or(text.len());
    let first = text.chars().next().map_or(0, char::len_utf8);
    text.split_at_checked(end.max(first)).map_or(text, |(word, _)| word)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const FIELDS: [Field; 4] = [
        Field { name: "status", kind: Kind::Choice(&["active", "disabled"]) },
        Field { name: "role", kind: Kind::Text },
        Field { name: "email", kind: Kind::Prefix },
        Field { name: "create_time", kind: Kind::Time },
    ];

    fn term(field: &'static str, operator: Operator, value: Value) -> Term {
        Term { field, operator, value }
    }

    fn time(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    #[test]
    fn conditions_are_parsed_in_their_order() {
        let filter = r#"status = DISABLED AND email="ada@*"  AND create_time >= "2026-01-31T01:00:00.1234567+01:00" AND create_time<'2026-02-01T00:00:00Z'"#;
        let expected = [
            term("status", Operator::Equal, Value::Choice("disabled")),
            term("email", Operator::Equal, Value::Prefix("ada@".to_owned())),
            term("create_time", Operator::GreaterOrEqual, Value::Time(time("2026-01-31T00:00:00.123456Z"))),
            term("create_time", Operator::Less, Value::Time(time("2026-02-01T00:00:00Z"))),
        ];
        assert_eq!(parse(filter, &FIELDS).unwrap(), expected);
        assert_eq!(parse("  ", &FIELDS).unwrap(), []);
        let quoted = parse(r#"role = "a \"b\" \\ 'c'""#, &FIELDS).unwrap();
        assert_eq!(quoted, [term("role", Operator::Equal, Value::Text(r#"a "b" \ 'c'"#.to_owned()))]);
        assert_eq!(
            parse("email = ada@example.com", &FIELDS).unwrap(),
            [term("email", Operator::Equal, Value::Text("ada@example.com".to_owned()))]
        );
    }

    #[test]
    fn errors_say_what_is_expected_and_where() {
        let too_many = ["create_time > \"2026-01-31T00:00:00Z\""; 9].join(" AND ");
        let table = [
            ("name = x", "at character 1, `name`: expected the name of a field: `status`, `role`"),
            ("status", "at character 7, the end: expected `=`, the only operator of `status`"),
            ("status != active", "at character 8, `!`: expected `=`"),
            ("status > active", "at character 8, `>`: expected `=`"),
            ("status : active", "at character 8, `:`: expected `=`"),
            ("status = gone", "at character 10, `gone`: expected one of `active`, `disabled`"),
            ("status =", "at character 9, the end: expected a value"),
            ("status = active role = x", "at character 17, `role`: expected `AND`"),
            ("status = active OR role = x", "at character 17, `OR`: expected `AND`"),
            ("status = active and role = x", "at character 17, `and`: expected `AND`"),
            ("status = active AND", "at character 20, the end: expected a condition"),
            ("status = active AND status = disabled", "at character 21, `status`: expected one condition"),
            ("NOT status = active", "at character 1, `NOT`: expected the name of a field"),
            ("-status = active", "at character 1, `-status`: expected the name of a field"),
            ("(status = active)", "at character 1, `(`: expected the name of a field"),
            ("status = active)", "at character 16, `)`: expected a space or the end"),
            ("role = \"é\"x", "at character 11, `x`: expected a space or the end"),
            ("role = \"open", "at character 8, `\"`: expected a closing \""),
            ("role = \"\"", "at character 8, `\"`: expected a value"),
            ("email = *", "at character 9, `*`: expected text before the `*`"),
            ("email = a*b", "at character 9, `a*b`: expected a `*` only at the end"),
            ("create_time = 2026-01-31", "at character 15, `2026-01-31`: expected a time"),
            ("create_time ! x", "at character 13, `!`: expected `=`, `<`, `<=`, `>` or `>=`"),
            (too_many.as_str(), "expected at most 8 conditions"),
        ];
        for (filter, expected) in table {
            let error = parse(filter, &FIELDS).unwrap_err();
            assert_eq!(error.reason(), crate::error::Reason::InvalidRequest);
            assert!(error.to_string().contains(expected), "{filter}: {error}");
        }
    }

    #[test]
    fn an_error_quotes_a_bounded_part_of_the_filter() {
        let error = parse(&"x".repeat(100_000), &FIELDS).unwrap_err();
        assert!(error.to_string().len() < 1000);
    }

    proptest! {
        #[test]
        fn parsing_never_panics(filter in "\\PC*") {
            let _ = parse(&filter, &FIELDS);
        }

        #[test]
        fn almost_filters_never_panic(words in proptest::collection::vec(
            prop_oneof!["status", "email", "create_time", "AND", "=", ">=", "\"", "\\\\", "\\*", " ", "é", "active", "'x'"], 0..12,
        )) {
            let _ = parse(&words.concat(), &FIELDS);
        }

        #[test]
        fn any_text_can_be_a_value(text in "\\PC{1,40}") {
            let quoted = text.replace('\\', "\\\\").replace('"', "\\\"");
            let parsed = parse(&format!("role = \"{quoted}\""), &FIELDS).unwrap();
            prop_assert_eq!(parsed, [term("role", Operator::Equal, Value::Text(text))]);
        }
    }
}
