//! Groups of instances with a share of the calls, such as those of a new release.

use drystone_mesh::client::PeerGroup;
use http::{HeaderName, HeaderValue};
use serde::{Deserialize, Serialize};

use super::address::PeerAddresses;

/// The maximum length of a name.
const MAX_NAME_LENGTH: usize = 32;

/// The name of the instances without a group.
const DEFAULT: &str = "default";

/// Metadata that gRPC uses, or that an outside client chooses, since the edge passes it on.
const RESERVED: [&str; 6] = ["authorization", "content-type", "te", "traceparent", "user-agent", "x-request-id"];

/// Prefixes of such metadata.
const RESERVED_PREFIXES: [&str; 2] = ["grpc-", "x-drystone-"];

/// One entry of `groups`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct GroupConfig {
    /// How metrics and health reports call it.
    name: String,
    /// Where its instances are.
    addresses: PeerAddresses,
    /// Its share of the calls, in percent.
    percent: u8,
    /// The metadata of calls that go to the group.
    #[serde(skip_serializing_if = "Option::is_none")]
    header: Option<HeaderConfig>,
}

/// A metadata entry.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct HeaderConfig {
    /// Its name.
    name: String,
    /// The whole value.
    value: String,
}

impl GroupConfig {
    /// The group. `None` if the header is invalid, which [`check`] refuses.
    pub(super) fn group(&self) -> Option<PeerGroup> {
        let header = self.header.as_ref().map(HeaderConfig::parse).transpose().ok()?;
        let (name, addresses) = (self.name.clone(), self.addresses.to_strings());
        Some(PeerGroup { name, addresses, percent: self.percent, header })
    }
}

impl HeaderConfig {
    fn parse(&self) -> Result<(HeaderName, HeaderValue), &'static str> {
        let name: HeaderName =
            self.name.parse().map_err(|_| "header.name must be the name of a metadata entry, such as `x-release`")?;
        let text = name.as_str();
        let is_reserved = RESERVED.contains(&text) || RESERVED_PREFIXES.iter().any(|prefix| text.starts_with(*prefix));
        if text.ends_with("-bin") || is_reserved {
            return Err(
                "header.name must be an entry of text that neither gRPC nor the edge sets, such as `x-release`",
            );
        }
        let is_valid = !self.value.is_empty() && self.value.bytes().all(|byte| (0x20..0x7f).contains(&byte));
        let value = HeaderValue::from_str(&self.value).ok().filter(|_| is_valid);
        Ok((name, value.ok_or("header.value must be printable ASCII, such as `next`")?))
    }
}

/// Checks the groups of the service `peer`, whose other instances are at `others`.
pub(super) fn check(groups: &[GroupConfig], others: &PeerAddresses, peer: &str) -> Result<(), String> {
    let mut percent = 0;
    for (position, group) in groups.iter().enumerate() {
        let GroupConfig { name, addresses, .. } = group;
        let is_valid = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
        if name.is_empty() || name.len() > MAX_NAME_LENGTH || !name.bytes().all(is_valid) || name == DEFAULT {
            return Err(format!(
                "the name of each of peers.{peer}.groups must be 1 to {MAX_NAME_LENGTH} characters of a-z, 0-9 and `-`, and not `{DEFAULT}`; \
                 correct `{name}`"
            ));
        }
        let fault = |what: &str| Err(format!("peers.{peer}.groups: of `{name}`, {what}; correct it"));
        let before = &groups[..position];
        if before.iter().any(|other| other.name == *name) {
            return fault("the name must be its own");
        }
        if addresses.is_empty() {
            return fault("addresses must not be empty");
        }
        let mut lists = before.iter().map(|other| &other.addresses).chain([others]);
        if let Some(address) = lists.find_map(|list| addresses.common_with(list)) {
            return fault(&format!("the address {address} must be in one group only"));
        }
        if let Some(header) = &group.header
            && let Err(what) = header.parse()
        {
            return fault(what);
        }
        if group.percent > 100 {
            return fault(&format!("percent must be from 0 to 100, not {}", group.percent));
        }
        if group.percent == 0 && group.header.is_none() {
            return fault("percent must be from 1 to 100, or a header must be set: no call would go there");
        }
        percent += u32::from(group.percent);
    }
    if percent > 100 {
        return Err(format!(
            "the shares of all peers.{peer}.groups must be at most 100 percent together, not {percent}"
        ));
    }
    Ok(())
}
