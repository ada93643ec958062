//! Filters of lists: a subset of [AIP-160](https://google.aip.dev/160).
//!
//! A filter is a conjunction: `status = disabled AND create_time >= "2026-01-31T00:00:00Z"`. A value is a word, or text
//! in double or single quotes, where `\` precedes a quote or a backslash. Everything else of AIP-160 (`OR`, `NOT`,
//! parentheses, functions, `:`, `!=`, text without a field, a missing `AND`) is refused. Each error says where.

use chrono::DateTime;
use drystone::status::{MAX_QUOTE_LENGTH, quote};

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
    /// A text; a `*` at its end makes it a prefix.
    Prefix,
    /// A time (RFC 3339), compared with any [`Operator`].
    Time,
}

/// A condition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Term {
    /// The name of the field.
    pub field: &'static str,
    /// How it is compared: by [`Operator::Equal`], unless it is of [`Kind::Time`].
    pub operator: Operator,
    /// What it is compared with. Never empty.
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
    /// Of [`Kind::Time`], truncated to microseconds.
    Time(Timestamp),
}

/// Parses a filter. An empty one has no terms. A field is named once, a time at most twice: a range.
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
        let start = parser;
        if terms.len() == MAX_TERMS {
            return Err(start.expected(&format!("at most {MAX_TERMS} conditions")));
        }
        let term = parser.term(fields)?;
        let max = if matches!(term.value, Value::Time(_)) { 2 } else { 1 };
        if terms.iter().filter(|other| other.field == term.field).count() == max {
            let count = if max == 1 { "one condition" } else { "at most two conditions" };
            return Err(start.expected(&format!("{count} on `{}`, and this is another", term.field)));
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

impl<'a> Parser<'a> {
    fn expected(self, what: &str) -> Error {
        let found = match excerpt(self.rest) {
            "" => "the end".to_owned(),
            text => format!("`{}`", quote(&printable(text))),
        };
        Error::invalid_field(FIELD, format!("at character {}, {found}: expected {what}", self.position))
    }

    /// The error of a missing name, operator or `AND`. It names a construct of AIP-160 that is there instead.
    fn expected_syntax(self, what: &str) -> Error {
        match unsupported(self.rest) {
            Some(construct) => self.expected(&format!("{what}; {construct} not supported")),
            None => self.expected(what),
        }
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
        self.take(first_word(self.rest).len())
    }

    fn and(&mut self) -> Result<()> {
        let start = *self;
        if self.word() != "AND" {
            return Err(start.expected_syntax("`AND`, in upper case"));
        }
        self.skip_space();
        if self.rest.is_empty() { Err(self.expected("a condition after `AND`")) } else { Ok(()) }
    }

    fn term(&mut self, fields: &[Field]) -> Result<Term> {
        let start = *self;
        let name = self.word();
        let field = fields.iter().find(|field| field.name == name).ok_or_else(|| {
            let names = list(fields.iter().map(|field| field.name));
            start.expected_syntax(&format!("the name of a field: {names}"))
        })?;
        self.skip_space();
        let operator = self.operator(field)?;
        self.skip_space();
        let value = self.value(field)?;
        if !self.rest.is_empty() && !self.rest.starts_with(char::is_whitespace) {
            return Err(self.expected_syntax("a space or the end after the value"));
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
        let start = *self;
        let found = ALL.into_iter().find(|(text, _)| self.rest.starts_with(text));
        let is_time = field.kind == Kind::Time;
        match found.filter(|(_, operator)| is_time || *operator == Operator::Equal) {
            Some((text, operator)) => {
                self.take(text.len());
                Ok(operator)
            }
            None if is_time => Err(start.expected_syntax("`=`, `<`, `<=`, `>` or `>=`")),
            None => Err(start.expected_syntax(&format!("`=`, the only operator of `{}`", field.name))),
        }
    }

    fn value(&mut self, field: &Field) -> Result<Value> {
        let start = *self;
        let text = match self.rest.chars().next() {
            Some(mark @ ('"' | '\'')) => self.quoted(mark)?,
            _ => self.word().to_owned(),
        };
        if text.is_empty() {
            return Err(start.expected("a value: a word, or text in quotes"));
        }
        if text.chars().any(char::is_control) {
            return Err(start.expected("a value without control characters"));
        }
        if ["AND", "OR", "NOT"].contains(&first_word(start.rest)) {
            return Err(start.expected("a value; `AND`, `OR` and `NOT` are values only in quotes"));
        }
        match field.kind {
            Kind::Choice(all) => match all.iter().find(|choice| choice.eq_ignore_ascii_case(&text)) {
                Some(choice) => Ok(Value::Choice(choice)),
                None => Err(start.expected(&format!("one of {}", list(all.iter().copied())))),
            },
            Kind::Text => Ok(Value::Text(text)),
            Kind::Prefix => match text.strip_suffix('*') {
                Some("") => Err(start.expected("text before the `*`")),
                Some(prefix) if !prefix.contains('*') => Ok(Value::Prefix(prefix.to_owned())),
                None if !text.contains('*') => Ok(Value::Text(text)),
                _ => Err(start.expected("a `*` only at the end")),
            },
            Kind::Time => {
                let time = DateTime::parse_from_rfc3339(&text).ok();
                // Through microseconds, which know no leap seconds.
                time.and_then(|time| DateTime::from_timestamp_micros(time.timestamp_micros()))
                    .map(Value::Time)
                    .ok_or_else(|| {
                        start.expected("a time in quotes with its offset from UTC, such as \"2026-01-31T12:00:00Z\"")
                    })
            }
        }
    }

    fn quoted(&mut self, mark: char) -> Result<String> {
        let start = *self;
        let mut text = String::new();
        self.take(mark.len_utf8());
        while let Some(end) = self.rest.find([mark, '\\']) {
            text.push_str(self.take(end));
            let special = *self;
            if self.take(1) != "\\" {
                return Ok(text);
            }
            match self.rest.chars().next() {
                Some('"' | '\'' | '\\') => text.push_str(self.take(1)),
                Some(_) => return Err(special.expected("a quote or a backslash after the backslash")),
                None => break,
            }
        }
        Err(start.expected(&format!("a closing {mark}")))
    }
}

/// Characters of names and of values without quotes.
fn is_word(character: char) -> bool {
    character.is_alphanumeric() || "_.-+@*/~%".contains(character)
}

fn first_word(text: &str) -> &str {
    text.split(|character| !is_word(character)).next().unwrap_or_default()
}

/// What an error quotes: a word, text in quotes, or the one character that begins neither.
fn excerpt(text: &str) -> &str {
    let mut characters = text.chars();
    let end = match characters.next() {
        Some(mark @ ('"' | '\'')) => characters.as_str().find(mark).map_or(text.len(), |end| end + 2),
        Some(first) => first_word(text).len().max(first.len_utf8()),
        None => 0,
    };
    text.split_at_checked(end).map_or(text, |(excerpt, _)| excerpt)
}

/// A text without control and format characters, which could change how a terminal or a log shows an error.
fn printable(text: &str) -> String {
    let escape = |character: char| match character {
        '"' | '\'' | '\\' => character.to_string(),
        _ => character.escape_debug().to_string(),
    };
    text.chars().take(MAX_QUOTE_LENGTH + 1).map(escape).collect()
}

/// The construct of AIP-160 at the beginning of a text, if it is none of this subset.
fn unsupported(text: &str) -> Option<&'static str> {
    let word = first_word(text);
    let next = text.strip_prefix(word).unwrap_or_default();
    match word {
        "OR" => Some("`OR` is"),
        "NOT" => Some("`NOT` is"),
        _ if word.starts_with('-') => Some("negation with `-` is"),
        "" if text.starts_with(['(', ')']) => Some("parentheses are"),
        "" if text.starts_with(':') => Some("`:` is"),
        "" if text.starts_with("!=") => Some("`!=` is"),
        "" => None,
        _ if next.starts_with('(') => Some("functions are"),
        _ => None,
    }
}

fn list<'a>(names: impl Iterator<Item = &'a str>) -> String {
    names.map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests;
