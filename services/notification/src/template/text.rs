//! Texts of messages: lines, and HTML.

use std::fmt;

use super::parameter::is_break;

const MAX_TITLE_LENGTH: usize = 200;
/// The width that plain text is wrapped at, in characters.
const WIDTH: usize = 76;
/// The maximum length of a line in bytes. RFC 5322 has 998 without the line break.
const MAX_LINE_BYTES: usize = 900;

/// A text as one line, with each run of white space as one space. No-break spaces are kept.
pub fn line(text: &str) -> String {
    let mut line = String::with_capacity(text.len());
    for word in text.split(|character| character == ' ' || is_break(character)).filter(|word| !word.is_empty()) {
        if !line.is_empty() {
            line.push(' ');
        }
        line.push_str(word);
    }
    line
}

/// A text with at most 200 characters.
pub fn truncate(mut text: String) -> String {
    if text.chars().count() > MAX_TITLE_LENGTH {
        text = text.chars().take(MAX_TITLE_LENGTH - 1).collect();
        text.push('…');
    }
    text
}

/// Plain text with long lines wrapped at spaces. A word is broken only if it is longer than a line can be.
pub fn wrap(text: &str) -> String {
    let mut wrapped = String::with_capacity(text.len() + text.len() / WIDTH + 1);
    for line in text.trim().lines() {
        if line.chars().count() <= WIDTH {
            wrapped.push_str(line.trim_end());
        } else {
            wrap_line(line, &mut wrapped);
        }
        wrapped.push('\n');
    }
    wrapped
}

fn wrap_line(line: &str, wrapped: &mut String) {
    let mut width = 0;
    for word in line.split(' ').filter(|word| !word.is_empty()) {
        let length = word.chars().count();
        if width > 0 && width + 1 + length > WIDTH {
            wrapped.push('\n');
            width = 0;
        }
        if width > 0 {
            wrapped.push(' ');
            width += 1;
        }
        let mut rest = word;
        while rest.len() > MAX_LINE_BYTES {
            let (first, then) = rest.split_at(rest.floor_char_boundary(MAX_LINE_BYTES));
            wrapped.push_str(first);
            wrapped.push('\n');
            rest = then;
        }
        wrapped.push_str(rest);
        width += length;
    }
}

/// Escapes for HTML, in text and in quoted attributes. Unlike that of minijinja it keeps `/`, so that links are
/// readable in the source of a mail.
pub fn write_escaped(out: &mut impl fmt::Write, text: &str) -> fmt::Result {
    let mut rest = text;
    while let Some(index) = rest.find(['&', '<', '>', '"', '\'']) {
        let (before, special) = rest.split_at(index);
        out.write_str(before)?;
        out.write_str(match special.as_bytes().first() {
            Some(b'&') => "&amp;",
            Some(b'<') => "&lt;",
            Some(b'>') => "&gt;",
            Some(b'"') => "&quot;",
            _ => "&#39;",
        })?;
        rest = special.get(1..).unwrap_or_default();
    }
    out.write_str(rest)
}
