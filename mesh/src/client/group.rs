//! Groups of endpoints: which one a call goes to.
//!
//! The group is chosen once per call: by a metadata entry, else at random by the shares. If it has no endpoint that can take the
//! call or its retry, the default group takes it: a group is a trial, and its failure must not cost calls.

use std::sync::Arc;

use http::{HeaderMap, HeaderName, HeaderValue};

use super::peer::PeerGroup;

/// A group of endpoints of one service.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct GroupId(usize);

impl GroupId {
    /// The endpoints without a group.
    pub(super) const DEFAULT: Self = Self(0);
}

/// The name of the default group.
const DEFAULT_NAME: &str = "default";

/// The groups of one service.
#[derive(Debug)]
pub(super) struct Groups {
    default_name: Arc<str>,
    named: Vec<Group>,
}

#[derive(Debug)]
struct Group {
    name: Arc<str>,
    percent: u8,
    header: Option<(HeaderName, HeaderValue)>,
}

impl Groups {
    pub(super) fn new(groups: &[PeerGroup]) -> Self {
        let group = |PeerGroup { name, percent, header, .. }: &PeerGroup| Group {
            name: name.as_str().into(),
            percent: *percent,
            header: header.clone(),
        };
        Self { default_name: DEFAULT_NAME.into(), named: groups.iter().map(group).collect() }
    }

    /// The group with this position among those of the peer.
    pub(super) fn id(position: usize) -> GroupId {
        GroupId(position + 1)
    }

    /// All groups, the default one first.
    pub(super) fn all(&self) -> impl Iterator<Item = GroupId> + use<> {
        (0..=self.named.len()).map(GroupId)
    }

    pub(super) fn name(&self, id: GroupId) -> &Arc<str> {
        id.0.checked_sub(1)
            .and_then(|position| self.named.get(position))
            .map_or(&self.default_name, |group| &group.name)
    }

    /// The group of a call with this metadata.
    pub(super) fn choose(&self, metadata: &HeaderMap) -> GroupId {
        // The common case.
        if self.named.is_empty() {
            return GroupId::DEFAULT;
        }
        self.by_header(metadata).unwrap_or_else(|| self.by_share(fastrand::u8(..100)))
    }

    fn by_header(&self, metadata: &HeaderMap) -> Option<GroupId> {
        let matches = |group: &Group| {
            let (name, value) = group.header.as_ref()?;
            metadata.get_all(name).iter().any(|actual| actual == value).then_some(())
        };
        self.named.iter().position(|group| matches(group).is_some()).map(Self::id)
    }

    /// `drawn` is from 0 to 99.
    fn by_share(&self, drawn: u8) -> GroupId {
        let mut end = 0_u8;
        let position = self.named.iter().position(|group| {
            end = end.saturating_add(group.percent);
            drawn < end
        });
        position.map_or(GroupId::DEFAULT, Self::id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn groups() -> Groups {
        let group = |name: &str, percent, header: Option<(&'static str, &'static str)>| PeerGroup {
            name: name.to_owned(),
            addresses: Vec::new(),
            percent,
            header: header.map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value))),
        };
        Groups::new(&[group("canary", 5, Some(("x-release", "next"))), group("trial", 10, None)])
    }

    #[test]
    fn shares_divide_all_calls() {
        let groups = groups();
        let mut calls = [0; 3];
        for drawn in 0..100 {
            calls[groups.by_share(drawn).0] += 1;
        }
        assert_eq!(calls, [85, 5, 10]);
        assert_eq!(Groups::new(&[]).choose(&HeaderMap::new()), GroupId::DEFAULT);
    }

    #[test]
    fn a_header_matches_exactly() {
        let groups = groups();
        let by_header = |lines: &[(&'static str, &'static str)]| {
            let lines =
                lines.iter().map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)));
            groups.by_header(&lines.collect())
        };
        assert_eq!(by_header(&[("x-release", "next")]), Some(Groups::id(0)));
        for other in ["nextt", "Next", "", "next "] {
            assert_eq!(by_header(&[("x-release", other)]), None, "{other}");
        }
        assert_eq!(by_header(&[("x-other", "next")]), None);
    }

    #[test]
    fn groups_have_names() {
        let groups = groups();
        let names: Vec<&str> = groups.all().map(|id| &**groups.name(id)).collect();
        assert_eq!(names, ["default", "canary", "trial"]);
    }
}
