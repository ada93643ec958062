//! The denylist: workloads and certificates that are refused although they chain to a trusted root.
//!
//! It takes effect on new connections in the handshake, and on open ones at the next request.

use std::{collections::HashSet, path::Path};

use super::{
    error::IdentityError,
    files,
    spiffe::{SpiffeId, SpiffeIdError},
    svid::Svid,
};

/// The longest serial number, in octets (RFC 5280, section 4.1.2.2).
const MAX_SERIAL_OCTETS: usize = 20;

/// What begins the hash of a key.
const KEY_PREFIX: &str = "sha256:";

/// More entries than this are a wrong file: certificates are short-lived, so an entry can be removed when its certificate ends.
const MAX_ENTRIES: usize = 100_000;

/// The denied workloads and certificates.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Denylist {
    ids: HashSet<SpiffeId>,
    /// Lower-case hexadecimal, without leading zeros.
    serials: HashSet<String>,
    /// SHA-256 of public keys, in lower-case hexadecimal.
    keys: HashSet<String>,
}

/// An invalid denylist.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DenylistError {
    /// It is not UTF-8.
    #[error("it is not UTF-8 text")]
    Encoding,
    /// It has too many entries.
    #[error("it has more than {MAX_ENTRIES} entries; remove those whose certificates have ended")]
    TooManyEntries,
    /// A line begins like a SPIFFE ID and is none.
    #[error("line {line} is not a SPIFFE ID: {source}")]
    Id {
        /// The line, from 1.
        line: usize,
        /// The violated rule.
        source: SpiffeIdError,
    },
    /// A line names a trust domain.
    #[error(
        "line {line} names a trust domain and no workload; remove the root of a trust domain from the roots instead"
    )]
    TrustDomain {
        /// The line, from 1.
        line: usize,
    },
    /// A line begins like the hash of a key and is none.
    #[error("line {line} is not `{KEY_PREFIX}` and 64 hexadecimal digits, as `drystone certs show` writes them")]
    Key {
        /// The line, from 1.
        line: usize,
    },
    /// A line is none of the entries.
    #[error(
        "line {line} is neither a SPIFFE ID, nor the hash of a key after `{KEY_PREFIX}`, nor a serial number of at most \
         {MAX_SERIAL_OCTETS} octets in hexadecimal, such as `0a1b2c` or `0A:1B:2C`; a comment begins with `#`"
    )]
    Serial {
        /// The line, from 1.
        line: usize,
    },
}

impl Denylist {
    /// Reads a file; see [`Denylist::parse`].
    ///
    /// # Errors
    /// If the file cannot be read or parsed.
    pub fn read(path: &Path) -> Result<Self, IdentityError> {
        let content = files::read(path).map_err(|source| IdentityError::Read {
            what: "the denylist",
            path: path.to_owned(),
            source,
        })?;
        Self::parse(&content).map_err(|source| IdentityError::Denylist { path: path.to_owned(), source })
    }

    /// Parses one entry a line: the SPIFFE ID of a workload, `sha256:` and the hash of a public key, or the serial number of a
    /// certificate in hexadecimal, with or without colons. Empty lines and comments, which begin with `#`, are ignored.
    ///
    /// # Errors
    /// The first invalid line.
    pub fn parse(text: &[u8]) -> Result<Self, DenylistError> {
        let text = std::str::from_utf8(text).map_err(|_| DenylistError::Encoding)?;
        let mut this = Self::default();
        for (line, entry) in (1..).zip(text.lines()) {
            let entry = entry.split_once('#').map_or(entry, |(entry, _comment)| entry).trim();
            if entry.is_empty() {
                continue;
            }
            if entry.contains("://") {
                let id: SpiffeId = entry.parse().map_err(|source| DenylistError::Id { line, source })?;
                if id.path().is_empty() {
                    return Err(DenylistError::TrustDomain { line });
                }
                this.ids.insert(id);
            } else if let Some(hash) = entry.strip_prefix(KEY_PREFIX) {
                if hash.len() != 64 || !hash.bytes().all(|digit| digit.is_ascii_hexdigit()) {
                    return Err(DenylistError::Key { line });
                }
                this.keys.insert(hash.to_ascii_lowercase());
            } else {
                this.serials.insert(serial(entry).ok_or(DenylistError::Serial { line })?);
            }
            if this.len() > MAX_ENTRIES {
                return Err(DenylistError::TooManyEntries);
            }
        }
        Ok(this)
    }

    /// Whether nothing is denied.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The number of entries.
    #[must_use]
    pub fn len(&self) -> usize {
        self.ids.len() + self.serials.len() + self.keys.len()
    }

    /// Whether the workload, its key or its certificate is denied.
    #[must_use]
    pub fn contains(&self, svid: &Svid) -> bool {
        self.ids.contains(&svid.id)
            || self.keys.contains(&svid.key_sha256)
            || (!self.serials.is_empty() && self.serials.contains(svid.serial.trim_start_matches('0')))
    }
}

/// The normal form of a serial number.
fn serial(text: &str) -> Option<String> {
    let digits: String = if text.contains(':') {
        let octets: Vec<&str> = text.split(':').collect();
        octets.iter().all(|octet| octet.len() == 2).then(|| octets.concat())?
    } else {
        text.to_owned()
    };
    let is_valid = !digits.is_empty() && digits.bytes().all(|digit| digit.is_ascii_hexdigit());
    let significant = digits.trim_start_matches('0');
    (is_valid && significant.len() <= 2 * MAX_SERIAL_OCTETS).then(|| significant.to_ascii_lowercase())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Clock;

    fn svid(id: &str, serial: &str) -> Svid {
        let (id, now, key_sha256) = (id.parse().unwrap(), Clock::system().now(), "ab".repeat(32));
        Svid { id, not_before: now, not_after: now, serial: serial.to_owned(), key_sha256 }
    }

    #[test]
    fn ids_and_serial_numbers_are_denied() {
        let text =
            "# stolen on Monday\nspiffe://drystone.test/service/orders # the whole workload\n\n00:0A:ff\n1B2c\r\n";
        let list = Denylist::parse(text.as_bytes()).unwrap();
        assert_eq!(list.len(), 3);
        assert!(list.contains(&svid("spiffe://drystone.test/service/orders", "77")));
        for serial in ["aff", "0aff", "1b2c"] {
            assert!(list.contains(&svid("spiffe://drystone.test/service/auth", serial)), "{serial}");
        }
        for serial in ["af", "aff0", "1b2c1b2c", ""] {
            assert!(!list.contains(&svid("spiffe://drystone.test/service/auth", serial)), "{serial}");
        }
        assert!(!list.contains(&svid("spiffe://other.test/service/orders", "77")));
    }

    #[test]
    fn a_key_is_denied_in_every_certificate() {
        let certificates =
            [svid("spiffe://drystone.test/service/auth", "1"), svid("spiffe://drystone.test/service/user", "2")];
        let list = Denylist::parse(format!("sha256:{}", "AB".repeat(32)).as_bytes()).unwrap();
        assert!(certificates.iter().all(|certificate| list.contains(certificate)));
        let list = Denylist::parse(format!("sha256:{}", "ac".repeat(32)).as_bytes()).unwrap();
        assert!(!certificates.iter().any(|certificate| list.contains(certificate)));
    }

    #[test]
    fn an_empty_list_denies_nothing() {
        let list = Denylist::parse(b"\n# nothing\n").unwrap();
        assert!(list.is_empty() && !list.contains(&svid("spiffe://drystone.test/service/auth", "")));
    }

    #[test]
    fn an_invalid_line_is_an_error_that_names_it() {
        let of = |text: &str| Denylist::parse(text.as_bytes()).unwrap_err();
        assert_eq!(of("aa\nxyz"), DenylistError::Serial { line: 2 });
        assert_eq!(of("sha256:ab"), DenylistError::Key { line: 1 });
        assert_eq!(of(&format!("sha256:{}", "xy".repeat(32))), DenylistError::Key { line: 1 });
        assert_eq!(of("a:b"), DenylistError::Serial { line: 1 });
        assert_eq!(of(&"f".repeat(41)), DenylistError::Serial { line: 1 });
        assert!(matches!(of("\nspiffe://Drystone.test/x"), DenylistError::Id { line: 2, .. }));
        assert_eq!(of("spiffe://drystone.test"), DenylistError::TrustDomain { line: 1 });
        assert!(matches!(of("https://drystone.test/x"), DenylistError::Id { line: 1, .. }));
        assert_eq!(Denylist::parse(b"\xff"), Err(DenylistError::Encoding));
    }

    #[test]
    fn too_many_entries_are_refused() {
        let text = (0..=MAX_ENTRIES).map(|serial| format!("1{serial:x}")).collect::<Vec<_>>().join("\n");
        assert_eq!(Denylist::parse(text.as_bytes()), Err(DenylistError::TooManyEntries));
    }
}
