//! From where something was done, as mails show it.

use drystone_mesh::{call::Client, clock::Timestamp, text::is_default_ignorable};
use serde::{Deserialize, Serialize};

/// The longest device and address that templates accept, in bytes.
const MAX_DEVICE: usize = 200;
const MAX_ADDRESS: usize = 64;

/// From where something was done, for the mail about it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Origin {
    at: Timestamp,
    device: String,
    address: String,
}

impl Origin {
    /// The client of a call.
    pub(crate) fn of(client: &Client, at: Timestamp) -> Self {
        Self { at, device: shown(&client.agent, MAX_DEVICE), address: shown(&client.address, MAX_ADDRESS) }
    }

    /// The parameters of templates.
    pub(super) fn parameters(self) -> [(&'static str, String); 3] {
        let time = self.at.format("%Y-%m-%dT%H:%M:%SZ").to_string();
        [("time", time), ("device", self.device), ("address", self.address)]
    }
}

/// A text of the client, as templates accept it. The caller chooses it, so links in it are made unusable.
fn shown(text: &str, max: usize) -> String {
    let mut visible = String::new();
    for c in text.chars().filter(|c| !is_hidden(*c)) {
        if c.is_alphabetic() && visible.ends_with('.') || c == '/' && visible.ends_with(['/', ':']) {
            visible.push(' ');
        }
        visible.push(c);
    }
    let end = visible.char_indices().map(|(start, c)| start + c.len_utf8()).take_while(|end| *end <= max).last();
    match visible[..end.unwrap_or(0)].trim() {
        "" => "unknown".to_owned(),
        shown => shown.to_owned(),
    }
}

/// Invisible characters, and those that could change how the rest of a mail reads.
fn is_hidden(c: char) -> bool {
    c.is_control() || matches!(c, '\u{2028}' | '\u{2029}') || is_default_ignorable(c)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_of_clients_are_made_safe_for_mails() {
        assert_eq!(shown("Firefox", 200), "Firefox");
        assert_eq!(shown("", 200), "unknown");
        assert_eq!(shown(" \u{202e}\r\n\u{2028}", 200), "unknown");
        assert_eq!(shown("a\r\nBcc: b", 200), "aBcc: b");
        let link = "see https://evil.example or //evil.example";
        assert_eq!(shown(link, 200), "see https: / /evil. example or / /evil. example");
        assert_eq!(shown("curl/8.5.0 (X11; Linux) Gecko/20100101", 200), "curl/8.5.0 (X11; Linux) Gecko/20100101");
        assert_eq!(shown(&"ä".repeat(200), 201), "ä".repeat(100));
    }
}
