//! The document that names each loosened rule, such as `docs/access-changes.md`. Its first lines say how an entry is written.

use std::{fs, path::Path};

use crate::command_line::WrongUsage;

/// What an entry says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Entry {
    /// When it was written, `YYYY-MM-DD`.
    date: String,
    /// The RPC.
    pub(super) rpc: String,
    /// The change, as `drystone access diff` prints it.
    pub(super) what: String,
}

impl Entry {
    /// How the file of `--after` names the entry: its heading, and the change.
    fn record(&self) -> String {
        format!("## {} {}\n- what: {}", self.date, self.rpc, self.what)
    }
}

/// Reads the entries of a document; with `after`, only those above the entry that this file names.
pub(super) fn read(path: &Path, after: Option<&Path>) -> Result<Vec<Entry>, WrongUsage> {
    let shown = path.display();
    let entries = parse(&read_text(path)?).map_err(|fault| WrongUsage(format!("{shown}, {fault}")))?;
    let Some(after) = after else { return Ok(entries) };
    newer(entries, &read_text(after)?).ok_or_else(|| {
        let after = after.display();
        WrongUsage(format!("{shown} does not have the entry that {after} names; restore it, entries are never edited"))
    })
}

fn read_text(path: &Path) -> Result<String, WrongUsage> {
    fs::read_to_string(path).map_err(|error| WrongUsage(format!("{} cannot be read: {error}", path.display())))
}

/// The entries above the recorded one: all of them if the record is empty, `None` if there is no such entry.
fn newer(mut entries: Vec<Entry>, record: &str) -> Option<Vec<Entry>> {
    let record = record.trim();
    if record.is_empty() {
        return Some(entries);
    }
    let position = entries.iter().position(|entry| entry.record() == record)?;
    entries.truncate(position);
    Some(entries)
}

/// Parses the entries after the introduction. An error names the line, and says what it must be.
fn parse(text: &str) -> Result<Vec<Entry>, String> {
    let mut is_code = false;
    let is_introduction = |(_, line): &(usize, &str)| {
        is_code ^= line.starts_with("```");
        is_code || !line.starts_with("## ")
    };
    let lines = text.lines().enumerate().skip_while(is_introduction);
    let lines: Vec<(usize, &str)> = lines.map(|(index, line)| (index + 1, line)).collect();
    let (mut entries, mut rest, mut last_date) = (Vec::new(), &lines[..], None);
    while let [(number, heading), after @ ..] = rest {
        let fault = |number: usize, expected: &str| format!("line {number}: must be {expected}");
        let expected = "`## YYYY-MM-DD package.Service/Method`";
        let (date, rpc) = heading
            .strip_prefix("## ")
            .and_then(|heading| heading.split_once(' '))
            .filter(|(date, rpc)| is_date(date) && is_rpc(rpc))
            .ok_or_else(|| fault(*number, expected))?;
        if last_date.replace(date).is_some_and(|last| last < date) {
            return Err(format!("line {number}: is newer than the entry before it; the newest is first"));
        }
        let [(first, empty), (second, what), (third, why), after @ ..] = after else {
            return Err(fault(*number, "followed by an empty line, `- what: TEXT` and `- why: TEXT`"));
        };
        if !empty.is_empty() {
            return Err(fault(*first, "empty"));
        }
        let what = item(what, "what").ok_or_else(|| fault(*second, "`- what: TEXT`"))?;
        item(why, "why").ok_or_else(|| fault(*third, "`- why: TEXT`"))?;
        entries.push(Entry { date: date.to_owned(), rpc: rpc.to_owned(), what: what.to_owned() });
        rest = match after {
            [(_, ""), after @ ..] => after,
            [] => after,
            [(number, _), ..] => return Err(fault(*number, "empty, before the next entry")),
        };
    }
    Ok(entries)
}

/// The text of `- NAME: TEXT`.
fn item<'l>(line: &'l str, name: &str) -> Option<&'l str> {
    let text = line.strip_prefix("- ")?.strip_prefix(name)?.strip_prefix(": ")?;
    (!text.trim().is_empty()).then_some(text)
}

fn is_date(text: &str) -> bool {
    let parts: Vec<&str> = text.split('-').collect();
    let number = |index: usize, length: usize| {
        let part = parts.get(index).filter(|part| part.len() == length && part.bytes().all(|b| b.is_ascii_digit()));
        part.and_then(|part| part.parse::<u16>().ok())
    };
    let is_day = number(1, 2).is_some_and(|month| (1..=12).contains(&month))
        && number(2, 2).is_some_and(|day| (1..=31).contains(&day));
    parts.len() == 3 && number(0, 4).is_some() && is_day
}

fn is_rpc(text: &str) -> bool {
    let is_name = |name: &str| !name.is_empty() && !name.contains([' ', '/']);
    text.split_once('/').is_some_and(|(service, method)| is_name(service) && is_name(method))
}

#[cfg(test)]
mod tests {
    use super::*;

    const INTRODUCTION: &str = "# Title\n\nText.\n\n```text\n## 2026-11-28 a.S/M\n```\n\nText.\n";
    const ENTRIES: &str = "\n## 2026-11-28 a.S/M\n\n- what: caller added: outside\n- why: customers\n\n\
                           ## 2026-11-27 a.S/N\n\n- what: subject: user -> none\n- why: because\n";

    fn entry(date: &str, rpc: &str, what: &str) -> Entry {
        Entry { date: date.to_owned(), rpc: rpc.to_owned(), what: what.to_owned() }
    }

    #[test]
    fn entries_follow_the_introduction() {
        assert_eq!(parse(INTRODUCTION), Ok(vec![]));
        let expected = vec![
            entry("2026-11-28", "a.S/M", "caller added: outside"),
            entry("2026-11-27", "a.S/N", "subject: user -> none"),
        ];
        assert_eq!(parse(&[INTRODUCTION, ENTRIES].concat()), Ok(expected));
    }

    #[test]
    fn only_entries_above_the_recorded_one_are_newer() {
        let entries = parse(ENTRIES).unwrap();
        let newer = |record: &str| newer(entries.clone(), record);
        assert_eq!(newer("\n").as_ref(), Some(&entries));
        assert_eq!(newer("## 2026-11-27 a.S/N\n- what: subject: user -> none\n").as_deref(), Some(&entries[..1]));
        assert_eq!(newer("## 2026-11-28 a.S/M\n- what: caller added: outside\n").as_deref(), Some(&entries[..0]));
        for unknown in ["## 2026-11-28 a.S/M\n- what: caller added: any\n", "## 2026-11-27 a.S/N\n", "4"] {
            assert_eq!(newer(unknown), None, "{unknown}");
        }
    }

    #[test]
    fn a_line_that_is_not_part_of_an_entry_is_named() {
        let entry = "## 2026-11-28 a.S/M\n\n- what: RPC added\n- why: because\n";
        for (text, fault) in [
            ("## Later\n", "line 1: must be `## YYYY-MM-DD"),
            ("## 2026-13-28 a.S/M\n\n- what: x\n- why: y\n", "line 1: must be `## YYYY-MM-DD"),
            ("## 2026-11-28 a.S\n\n- what: x\n- why: y\n", "line 1: must be `## YYYY-MM-DD"),
            ("## 2026-11-28 a.S/M\n\n- what: x\n", "line 1: must be followed by"),
            ("## 2026-11-28 a.S/M\n- what: x\n- why: y\n- by: z\n", "line 2: must be empty"),
            ("## 2026-11-28 a.S/M\n\n- why: y\n- what: x\n", "line 3: must be `- what: TEXT`"),
            ("## 2026-11-28 a.S/M\n\n- what: x\n- why: \n", "line 4: must be `- why: TEXT`"),
            (&[entry, "More.\n"].concat(), "line 5: must be empty, before the next entry"),
            (&[entry, "\nMore.\n"].concat(), "line 6: must be `## YYYY-MM-DD"),
            (&[entry, "\n", &entry.replace("28", "29")].concat(), "line 6: is newer than the entry before it"),
        ] {
            let error = parse(text).unwrap_err();
            assert!(error.starts_with(fault), "{text:?}: {error}");
        }
    }
}
