//! Files of accounts: one JSON object in each line, as `drystone users import` reads and `drystone users export` writes them.

use std::{
    collections::{BTreeMap, HashMap},
    io::{self, BufRead, Read},
};

use drystone::{
    auth::v1::ImportedUser,
    user::v1::{User, UserStatus},
};
use drystone_mesh::{
    clock::Timestamp,
    time::{from_proto, to_proto},
};
use serde::{Deserialize, Serialize};

use crate::accounts::status_name;

/// The maximum length of a line, in bytes.
const MAX_LINE_LENGTH: u64 = 64 << 10;

/// An account in a file. Members that are empty can be left out.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct Record {
    email: String,
    #[serde(alias = "display_name")]
    display_name: String,
    #[serde(alias = "given_name", skip_serializing_if = "String::is_empty")]
    given_name: String,
    #[serde(alias = "family_name", skip_serializing_if = "String::is_empty")]
    family_name: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    phone: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    locale: String,
    #[serde(alias = "time_zone", skip_serializing_if = "String::is_empty")]
    time_zone: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    avatar: String,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    preferences: BTreeMap<String, String>,
    #[serde(alias = "external_id", skip_serializing_if = "String::is_empty")]
    external_id: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    roles: Vec<String>,
    /// The role in a system with one role for each user.
    #[serde(alias = "role_key", skip_serializing_if = "String::is_empty")]
    role_key: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    status: String,
    #[serde(alias = "create_time", skip_serializing_if = "Option::is_none")]
    create_time: Option<Timestamp>,
    #[serde(alias = "telegram_id", skip_serializing_if = "is_zero")]
    telegram_id: i64,
    #[serde(alias = "email_verified", skip_serializing_if = "std::ops::Not::not")]
    email_verified: bool,
    #[serde(alias = "password_hash", skip_serializing)]
    password_hash: String,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes references")]
fn is_zero(number: &i64) -> bool {
    *number == 0
}

/// The roles of this mesh, by those of another system.
pub(crate) type RoleMap = HashMap<String, String>;

impl Record {
    /// The account as it is imported.
    pub(crate) fn into_message(self, role_map: &RoleMap) -> Result<ImportedUser, String> {
        let status = match self.status.as_str() {
            "" => UserStatus::Unspecified,
            "active" => UserStatus::Active,
            "disabled" => UserStatus::Disabled,
            _ => return Err("status: must be `active` or `disabled`".to_owned()),
        };
        let keys = self.roles.into_iter().chain((!self.role_key.is_empty()).then_some(self.role_key));
        let mut roles: Vec<_> = keys.map(|key| role_map.get(&key).cloned().unwrap_or(key)).collect();
        roles.sort_unstable();
        roles.dedup();
        Ok(ImportedUser {
            user: Some(User {
                email: self.email,
                display_name: self.display_name,
                given_name: self.given_name,
                family_name: self.family_name,
                phone: self.phone,
                locale: self.locale,
                time_zone: self.time_zone,
                avatar: self.avatar,
                preferences: self.preferences.into_iter().collect(),
                ..User::default()
            }),
            external_id: self.external_id,
            roles,
            status: status.into(),
            create_time: self.create_time.map(to_proto),
            telegram_id: self.telegram_id,
            password_hash: self.password_hash,
            email_verified: self.email_verified,
        })
    }
}

/// The account as it is exported: its id is the external one of an import elsewhere. Everybody has `member`.
impl From<User> for Record {
    fn from(user: User) -> Self {
        Self {
            status: status_name(user.status()),
            external_id: user.id,
            email: user.email,
            display_name: user.display_name,
            given_name: user.given_name,
            family_name: user.family_name,
            phone: user.phone,
            locale: user.locale,
            time_zone: user.time_zone,
            avatar: user.avatar,
            preferences: user.preferences.into_iter().collect(),
            roles: user.roles.into_iter().filter(|role| role != "member").collect(),
            create_time: user.create_time.as_ref().and_then(from_proto),
            telegram_id: user.telegram_id,
            email_verified: user.email_verified,
            role_key: String::new(),
            password_hash: String::new(),
        }
    }
}

/// A line of a file: its account, or why it is none.
pub(crate) struct Line {
    /// Its number, from 1.
    pub(crate) number: u64,
    /// Its length, in bytes.
    pub(crate) length: u64,
    pub(crate) record: Result<Record, String>,
}

/// The lines of a file, without empty ones.
pub(crate) struct Lines<R> {
    reader: R,
    number: u64,
}

impl<R: BufRead> Lines<R> {
    pub(crate) fn new(reader: R) -> Self {
        Self { reader, number: 0 }
    }

    /// The next line. `None` at the end of the file.
    ///
    /// # Errors
    /// The file cannot be read.
    pub(crate) fn next(&mut self) -> io::Result<Option<Line>> {
        loop {
            let mut text = Vec::new();
            let mut length = self.reader.by_ref().take(MAX_LINE_LENGTH).read_until(b'\n', &mut text)? as u64;
            if length == 0 {
                return Ok(None);
            }
            self.number += 1;
            let number = self.number;
            if length == MAX_LINE_LENGTH && text.last() != Some(&b'\n') {
                length += skip_line(&mut self.reader)?;
                let record = Err(format!("the line is longer than {MAX_LINE_LENGTH} bytes"));
                return Ok(Some(Line { number, length, record }));
            }
            let text = text.trim_ascii();
            if !text.is_empty() {
                let record = serde_json::from_slice(text).map_err(|error| error.to_string());
                return Ok(Some(Line { number, length, record }));
            }
        }
    }
}

/// Skips the rest of a line. Returns its length.
fn skip_line(reader: &mut impl BufRead) -> io::Result<u64> {
    let mut skipped = 0;
    loop {
        let buffer = reader.fill_buf()?;
        let end = buffer.iter().position(|byte| *byte == b'\n').map(|index| index + 1);
        let (length, is_last) = (end.unwrap_or(buffer.len()), end.is_some() || buffer.is_empty());
        reader.consume(length);
        skipped += length as u64;
        if is_last {
            return Ok(skipped);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Vec<Line> {
        let mut lines = Lines::new(text.as_bytes());
        std::iter::from_fn(|| lines.next().unwrap()).collect()
    }

    #[test]
    fn broken_lines_are_reported_and_those_around_them_read() {
        let long = "x".repeat(200_000);
        let text = format!("{{\"email\":\"a@b\"}}\n\n{{broken\n{long}\n{{\"emial\":\"a@b\"}}\n{{\"email\":\"c@d\"}}");
        let lines = read(&text);
        let numbers: Vec<_> = lines.iter().map(|line| (line.number, line.record.is_ok())).collect();
        assert_eq!(numbers, [(1, true), (3, false), (4, false), (5, false), (6, true)]);
        assert!(lines[2].record.as_ref().unwrap_err().contains("longer than 65536 bytes"));
        assert!(lines[3].record.as_ref().unwrap_err().contains("unknown field `emial`"));
        assert_eq!(lines.iter().map(|line| line.length).sum::<u64>() + 1, text.len() as u64);
    }

    #[test]
    fn roles_of_older_systems_are_mapped() {
        let map = RoleMap::from([("MANAGER".to_owned(), "manager".to_owned())]);
        let record: Record = serde_json::from_str(r#"{"role_key":"MANAGER","roles":["manager","staff"]}"#).unwrap();
        assert_eq!(record.into_message(&map).unwrap().roles, ["manager", "staff"]);
        let record: Record = serde_json::from_str(r#"{"status":"gone"}"#).unwrap();
        assert!(record.into_message(&map).unwrap_err().starts_with("status: "));
    }

    #[test]
    fn an_exported_account_can_be_imported_again() {
        let user = User {
            id: "0197a1b2".to_owned(),
            email: "ada@example.com".to_owned(),
            display_name: "Ada".to_owned(),
            roles: vec!["manager".to_owned(), "member".to_owned()],
            status: UserStatus::Disabled.into(),
            create_time: Some(prost_types::Timestamp { seconds: 1_790_000_000, nanos: 5_000 }),
            telegram_id: 7,
            preferences: HashMap::from([("mail.digest".to_owned(), "weekly".to_owned())]),
            ..User::default()
        };
        let line = serde_json::to_string(&Record::from(user.clone())).unwrap();
        let again: Record = serde_json::from_str(&line).unwrap();
        let message = again.into_message(&RoleMap::new()).unwrap();
        assert_eq!((message.external_id.as_str(), message.telegram_id), ("0197a1b2", 7));
        assert_eq!(
            (message.roles, message.status, message.create_time),
            (vec!["manager".to_owned()], user.status, user.create_time)
        );
        assert_eq!(message.user.unwrap().preferences, user.preferences);
    }
}
