//! Master keys in this process, from a file or an environment variable.

use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
};

use async_trait::async_trait;
use aws_lc_rs::{constant_time::verify_slices_are_equal, rand};
use base64::{Engine, prelude::BASE64_STANDARD};
use zeroize::Zeroizing;

use super::{DataKey, KeyEncryption, SealError};

/// The maximum length of the id of a master key.
const MAX_ID: usize = 64;

/// Master keys: the first one seals, all of them open.
///
/// As text: a key a line, its id, a space, and its 32 bytes in base64. Empty lines and those that begin with `#` are skipped.
#[derive(Debug)]
pub struct MasterKeys {
    first: String,
    keys: BTreeMap<String, DataKey>,
}

/// Why a text has no master keys.
#[derive(Debug, thiserror::Error)]
pub enum MasterKeyError {
    /// The file cannot be read.
    #[error("the master key file {path} cannot be read: {cause}")]
    Unreadable {
        /// The file.
        path: String,
        /// Why.
        cause: String,
    },
    /// Others than its owner may read the file.
    #[error("other users may read the master key file {0}; run: chmod 600 {0}")]
    Exposed(String),
    /// The file exists.
    #[error("the file {0} exists, and a master key is not replaced: what it seals would be lost; name another file")]
    Exists(String),
    /// The file cannot be written.
    #[error("the master key file {path} cannot be written: {cause}")]
    Unwritable {
        /// The file.
        path: String,
        /// Why.
        cause: String,
    },
    /// There is no key.
    #[error("there is no master key; `drystone keys generate FILE` writes one")]
    Empty,
    /// A line is not a key. The line is not shown, since it may be one.
    #[error(
        "line {0} of the master keys is no key; write an id of letters, digits, `.`, `_` and `-`, a space, and 32 bytes in base64"
    )]
    Line(usize),
    /// Two keys have the same id.
    #[error("two master keys have the id `{0}`; ids are never used again")]
    Duplicate(String),
    /// A key has other bytes than before.
    #[error("the master key `{0}` has other bytes than before; ids are never used again: give the new key another one")]
    Changed(String),
    /// The random number generator of the system fails.
    #[error("the system has no random numbers")]
    Random,
}

impl MasterKeys {
    /// These keys, and those of `earlier` that they lack, which open what is not rewrapped yet.
    ///
    /// # Errors
    /// [`MasterKeyError::Changed`].
    pub(super) fn with_earlier(mut self, earlier: &Self) -> Result<Self, MasterKeyError> {
        for (id, key) in &earlier.keys {
            let current = self.keys.entry(id.clone()).or_insert_with(|| key.clone());
            if verify_slices_are_equal(current.expose(), key.expose()).is_err() {
                return Err(MasterKeyError::Changed(id.clone()));
            }
        }
        Ok(self)
    }

    /// Reads keys from a text.
    ///
    /// # Errors
    /// [`MasterKeyError`].
    pub fn parse(text: &str) -> Result<Self, MasterKeyError> {
        let (mut first, mut keys) = (None, BTreeMap::new());
        for (number, line) in (1..).zip(text.lines()).filter(|(_, line)| !line.trim().is_empty()) {
            if line.starts_with('#') {
                continue;
            }
            let (id, key) = parse_line(line).ok_or(MasterKeyError::Line(number))?;
            first.get_or_insert_with(|| id.clone());
            if keys.insert(id.clone(), key).is_some() {
                return Err(MasterKeyError::Duplicate(id));
            }
        }
        Ok(Self { first: first.ok_or(MasterKeyError::Empty)?, keys })
    }

    /// Reads keys from a file that only its owner may read.
    ///
    /// # Errors
    /// [`MasterKeyError`].
    pub fn read(path: &Path) -> Result<Self, MasterKeyError> {
        let name = || path.display().to_string();
        let unreadable = |error: io::Error| MasterKeyError::Unreadable { path: name(), cause: error.to_string() };
        if is_exposed(path).map_err(unreadable)? {
            return Err(MasterKeyError::Exposed(name()));
        }
        Self::parse(&Zeroizing::new(fs::read_to_string(path).map_err(unreadable)?))
    }

    /// Writes a file with a new key, accessible to its owner only.
    ///
    /// # Errors
    /// [`MasterKeyError`]; a file that exists is not changed.
    pub fn generate(path: &Path) -> Result<Self, MasterKeyError> {
        let key = DataKey::generate().map_err(|_| MasterKeyError::Random)?;
        let mut random = [0; 4];
        rand::fill(&mut random).map_err(|_| MasterKeyError::Random)?;
        let id = format!("k-{:08x}", u32::from_be_bytes(random));
        let encoded = Zeroizing::new(BASE64_STANDARD.encode(key.expose()));
        let text = Zeroizing::new(format!(
            "# The master key of Drystone. What it seals is lost with it: keep a copy apart from the databases.\n{id} {}\n",
            *encoded
        ));
        let name = || path.display().to_string();
        write_new(path, &id, text.as_bytes()).map_err(|error| match error.kind() {
            io::ErrorKind::AlreadyExists => MasterKeyError::Exists(name()),
            _ => MasterKeyError::Unwritable { path: name(), cause: error.to_string() },
        })?;
        Ok(Self { keys: BTreeMap::from([(id.clone(), key)]), first: id })
    }
}

#[async_trait]
impl KeyEncryption for MasterKeys {
    fn key_id(&self) -> String {
        self.first.clone()
    }

    async fn encrypt(&self, key: &DataKey, context: &[u8]) -> Result<(String, Vec<u8>), SealError> {
        let master = self.keys.get(&self.first).ok_or_else(|| SealError::UnknownKey(self.first.clone()))?;
        Ok((self.first.clone(), master.encrypt(context, key.expose())?))
    }

    async fn decrypt(&self, key_id: &str, encrypted: &[u8], context: &[u8]) -> Result<DataKey, SealError> {
        let master = self.keys.get(key_id).ok_or_else(|| SealError::UnknownKey(key_id.to_owned()))?;
        let key = master.decrypt(context, encrypted).and_then(|bytes| DataKey::from_bytes(&bytes));
        key.ok_or_else(|| SealError::Invalid(key_id.to_owned()))
    }
}

fn parse_line(line: &str) -> Option<(String, DataKey)> {
    let (id, key) = line.trim_end().split_once(' ')?;
    let is_id = |id: &str| id.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte));
    if !(1..=MAX_ID).contains(&id.len()) || !is_id(id) {
        return None;
    }
    let bytes = Zeroizing::new(BASE64_STANDARD.decode(key.trim()).ok()?);
    Some((id.to_owned(), DataKey::from_bytes(&bytes)?))
}

#[cfg(unix)]
fn is_exposed(path: &Path) -> io::Result<bool> {
    use std::os::unix::fs::PermissionsExt;
    Ok(fs::metadata(path)?.permissions().mode() & 0o077 != 0)
}

#[cfg(not(unix))]
fn is_exposed(path: &Path) -> io::Result<bool> {
    fs::metadata(path).map(|_| false)
}

fn write_new(path: &Path, id: &str, bytes: &[u8]) -> io::Result<()> {
    use std::io::Write;
    let mut options = fs::OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    {
        use std::os::unix::fs::OpenOptionsExt;
        options.mode(0o600);
    }
    // Whole or not at all: under another name first. A link, unlike a rename, never replaces a file.
    let mut unfinished = path.as_os_str().to_owned();
    unfinished.push(format!(".{id}.unfinished"));
    let unfinished = PathBuf::from(unfinished);
    let write = || {
        let mut file = options.open(&unfinished)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::hard_link(&unfinished, path)
    };
    let written = write();
    let removed = fs::remove_file(&unfinished);
    written.and(removed)?;
    // The name is in the directory.
    match path.parent().filter(|directory| !directory.as_os_str().is_empty()) {
        Some(directory) => fs::File::open(directory)?.sync_all(),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";

    #[test]
    fn the_first_key_seals() {
        let other = BASE64_STANDARD.encode([7; 32]);
        let keys = MasterKeys::parse(&format!("# comment\n\nnew {KEY}\nold {other}\n")).unwrap();
        assert_eq!(keys.key_id(), "new");
        assert_eq!(keys.keys.len(), 2);
        assert!(!format!("{keys:?}").contains("AAEC"), "{keys:?}");
    }

    #[test]
    fn a_line_that_is_no_key_is_refused_without_being_shown() {
        for line in [KEY, &format!("a{KEY}"), &format!("a b {KEY}"), &format!("é {KEY}"), "a AAEC", &format!(" {KEY}")]
        {
            let error = MasterKeys::parse(&format!("# x\n{line}\n")).unwrap_err().to_string();
            assert!(error.starts_with("line 2 of the master keys"), "{line}: {error}");
            assert!(!error.contains("AAEC"), "{error}");
        }
        assert!(MasterKeys::parse("# only a comment\n").unwrap_err().to_string().contains("drystone keys generate"));
        let twice = MasterKeys::parse(&format!("a {KEY}\na {KEY}")).unwrap_err();
        assert!(twice.to_string().contains("`a`"), "{twice}");
    }

    #[test]
    fn a_generated_key_is_readable_by_its_owner_only_and_never_replaced() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("master.key");
        let generated = MasterKeys::generate(&path).unwrap();
        let read = MasterKeys::read(&path).unwrap();
        assert_eq!((read.key_id(), read.keys.len()), (generated.key_id(), 1));
        let names: Vec<_> = fs::read_dir(directory.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(names, ["master.key"], "nothing else is left");
        let bytes = |keys: &MasterKeys| keys.keys[&generated.key_id()].expose().to_vec();
        assert_eq!(bytes(&read), bytes(&generated));
        let error = MasterKeys::generate(&path).unwrap_err().to_string();
        assert!(error.contains("master.key exists"), "{error}");
        assert_eq!(bytes(&MasterKeys::read(&path).unwrap()), bytes(&generated));
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
            let error = MasterKeys::read(&path).unwrap_err().to_string();
            assert!(error.contains("chmod 600"), "{error}");
        }
        let missing = MasterKeys::read(&directory.path().join("none")).unwrap_err().to_string();
        assert!(missing.contains("none cannot be read"), "{missing}");
    }
}
