//! What a user may do: a pure function of their grants and overrides.

use drystone_mesh::clock::Timestamp;

use super::{ADMIN, Definitions, Level, MEMBER, PermissionSet, RoleName, permission_set::PermissionId};

/// A role of a user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Grant {
    /// The role.
    pub role: RoleName,
    /// Until when.
    pub expires_at: Option<Timestamp>,
}

/// A grant, and who made it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GrantRecord {
    /// The grant.
    pub grant: Grant,
    /// Who granted it: the id of a user, or `operator`.
    pub granted_by: String,
    /// When.
    pub granted_at: Timestamp,
}

/// An exception for one user and permission.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Override {
    /// The permission.
    pub permission: String,
    /// What it does.
    pub effect: Effect,
    /// Until when.
    pub expires_at: Option<Timestamp>,
}

/// An override, and who set it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OverrideRecord {
    /// The override.
    pub exception: Override,
    /// Why.
    pub reason: String,
    /// Who set it: the id of a user, or `operator`.
    pub set_by: String,
    /// When.
    pub set_at: Timestamp,
}

/// What an override does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effect {
    /// The user has the permission.
    Grant,
    /// The user does not have it, nor one that implies it.
    Deny,
}

/// What a user may do now. The default is nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Effective {
    /// The permissions, with all that they imply.
    pub permissions: PermissionSet,
    /// The highest level of the user's roles.
    pub level: Level,
    /// Whether the user has the role `admin`.
    pub is_admin: bool,
    /// When the first of the grants and overrides expires: this is valid until then.
    pub expires_at: Option<Timestamp>,
}

impl Grant {
    /// Whether it has not expired.
    #[must_use]
    pub fn is_active(&self, now: Timestamp) -> bool {
        self.expires_at.is_none_or(|end| now < end)
    }
}

impl Override {
    /// Whether it has not expired.
    #[must_use]
    pub fn is_active(&self, now: Timestamp) -> bool {
        self.expires_at.is_none_or(|end| now < end)
    }
}

/// The names of the roles of a user now, sorted, with `member`.
#[must_use]
pub fn active_roles(grants: &[Grant], now: Timestamp) -> Vec<String> {
    let active = grants.iter().filter(|grant| grant.is_active(now)).map(|grant| grant.role.to_string());
    let mut roles: Vec<_> = active.chain([MEMBER.to_owned()]).collect();
    roles.sort_unstable();
    roles.dedup();
    roles
}

/// Evaluates grants and overrides. A denial beats every grant; what has expired does not count; the order does not matter.
#[must_use]
pub fn evaluate(definitions: &Definitions, grants: &[Grant], overrides: &[Override], now: Timestamp) -> Effective {
    let mut effective = Effective {
        permissions: definitions.of_everybody().clone(),
        level: definitions.role(MEMBER).map_or(0, |member| member.role.level),
        is_admin: false,
        expires_at: None,
    };
    let grants = grants.iter().filter(|grant| grant.is_active(now));
    for (grant, role) in grants.filter_map(|grant| Some((grant, definitions.role(grant.role.as_str())?))) {
        effective.permissions.insert_all(&role.permissions);
        effective.level = effective.level.max(role.role.level);
        effective.is_admin |= grant.role.as_str() == ADMIN;
        effective.expires_at = earliest(effective.expires_at, grant.expires_at);
    }
    let active = |effect| overrides.iter().filter(move |one| one.effect == effect && one.is_active(now));
    for (granted, id) in active(Effect::Grant).filter_map(|one| Some((one, definitions.id(&one.permission)?))) {
        effective.permissions.insert(id);
        if let Some(implied) = definitions.implied(id) {
            effective.permissions.insert(implied);
        }
        effective.expires_at = earliest(effective.expires_at, granted.expires_at);
    }
    for (denied, id) in active(Effect::Deny).filter_map(|one| Some((one, definitions.id(&one.permission)?))) {
        effective.permissions.remove(id);
        if let Some(stronger) = definitions.implied_by(id) {
            effective.permissions.remove(stronger);
        }
        effective.expires_at = earliest(effective.expires_at, denied.expires_at);
    }
    effective
}

impl Effective {
    /// Whether the user has this permission.
    #[must_use]
    pub fn has(&self, definitions: &Definitions, permission: &str) -> bool {
        definitions.id(permission).is_some_and(|id| self.permissions.contains(id))
    }

    /// The permissions for a token, by name: without those that others imply.
    #[must_use]
    pub fn token_permissions(&self, definitions: &Definitions) -> Vec<String> {
        let is_implied = |id| definitions.implied_by(id).is_some_and(|stronger| self.permissions.contains(stronger));
        let strongest = self.permissions.iter().filter(|id| !is_implied(*id));
        strongest.map(|id| definitions.name(id).to_owned()).collect()
    }
}

/// Where a permission comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Derivation {
    /// The permission.
    pub permission: String,
    /// Whether the user has it.
    pub is_granted: bool,
    /// The grants and overrides that name it, as sentences.
    pub sources: Vec<String>,
}

/// Where each permission comes from that a role or an override of the user names.
#[must_use]
pub fn derive(
    definitions: &Definitions,
    grants: &[GrantRecord],
    overrides: &[OverrideRecord],
    now: Timestamp,
) -> Vec<Derivation> {
    let (of_user, exceptions): (Vec<_>, Vec<_>) = (
        grants.iter().map(|record| record.grant.clone()).collect(),
        overrides.iter().map(|record| record.exception.clone()).collect(),
    );
    let effective = evaluate(definitions, &of_user, &exceptions, now);
    let mut sources: Vec<(PermissionId, String)> = Vec::new();
    let mut of_role = |name: &RoleName, origin: &str| {
        let Some(granted) = definitions.role(name.as_str()) else { return };
        for role in granted.closure.iter().filter_map(|name| definitions.role(name.as_str())) {
            let via = if role.role.name == *name { String::new() } else { format!(", inherited by {name}") };
            for id in definitions.own_permissions(&role.role) {
                sources.push((id, format!("{}{via}, {origin}", role.role.name)));
            }
        }
    };
    of_role(&RoleName::from_stored(MEMBER), "which everybody has");
    for GrantRecord { grant, granted_by, granted_at } in grants {
        of_role(&grant.role, &by("granted", granted_by, *granted_at, grant.expires_at, now));
    }
    for OverrideRecord { exception, reason, set_by, set_at } in overrides {
        let Some(id) = definitions.id(&exception.permission) else { continue };
        let verb = match exception.effect {
            Effect::Grant => "granted by an override, set",
            Effect::Deny => "denied by an override, set",
        };
        let mut text = by(verb, set_by, *set_at, exception.expires_at, now);
        if !reason.is_empty() {
            text = format!("{text}: {reason}");
        }
        sources.push((id, text));
    }
    // What is implied, and what a denial takes as well.
    let named: Vec<_> = sources.iter().map(|(id, _)| *id).collect();
    for id in named {
        if let Some(implied) = definitions.implied(id) {
            sources.push((implied, format!("`{}`, which implies it", definitions.name(id))));
        }
    }
    sources.sort();
    sources.dedup();
    let mut derivations: Vec<Derivation> = Vec::new();
    for (id, text) in sources {
        let permission = definitions.name(id);
        match derivations.last_mut().filter(|last| last.permission == permission) {
            Some(last) => last.sources.push(text),
            None => derivations.push(Derivation {
                permission: permission.to_owned(),
                is_granted: effective.permissions.contains(id),
                sources: vec![text],
            }),
        }
    }
    derivations
}

fn by(verb: &str, who: &str, at: Timestamp, expires_at: Option<Timestamp>, now: Timestamp) -> String {
    let day = |time: Timestamp| time.format("%Y-%m-%d");
    let end = match expires_at {
        None => String::new(),
        Some(end) if end <= now => format!(", expired on {}", day(end)),
        Some(end) => format!(", until {}", day(end)),
    };
    format!("{verb} by {who} on {}{end}", day(at))
}

fn earliest(one: Option<Timestamp>, other: Option<Timestamp>) -> Option<Timestamp> {
    match (one, other) {
        (Some(one), Some(other)) => Some(one.min(other)),
        (one, other) => one.or(other),
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use chrono::TimeDelta;
    use proptest::prelude::*;

    use super::*;
    use crate::role::definitions::tests::{permissions, role};

    const NAMES: [&str; 6] = ["a:r:any", "a:r:own", "b:w", "c:w:any", "c:w:own", "d:x"];
    const ROLES: [&str; 4] = ["admin", "upper", "lower", "other"];

    pub(crate) fn now() -> Timestamp {
        Timestamp::UNIX_EPOCH + TimeDelta::days(20_000)
    }

    pub(crate) fn grant(role: &str, expires_in: Option<i64>) -> Grant {
        Grant { role: role.parse().unwrap(), expires_at: expires_in.map(|seconds| now() + TimeDelta::seconds(seconds)) }
    }

    pub(crate) fn exception(permission: &str, effect: Effect, expires_in: Option<i64>) -> Override {
        Override {
            permission: permission.to_owned(),
            effect,
            expires_at: expires_in.map(|seconds| now() + TimeDelta::seconds(seconds)),
        }
    }

    fn definitions() -> Definitions {
        Definitions::new(
            1,
            permissions(&NAMES.join(" ")),
            vec![
                role("admin", 1000, "", ""),
                role("upper", 200, "c:w:any", "lower"),
                role("lower", 100, "a:r:own b:w", ""),
                role("other", 50, "a:r:any", ""),
                role("member", 1, "d:x", ""),
            ],
        )
    }

    fn held(effective: &Effective, definitions: &Definitions) -> Vec<&'static str> {
        NAMES.into_iter().filter(|name| effective.has(definitions, name)).collect()
    }

    #[test]
    fn grants_are_united_and_denials_taken_away() {
        let definitions = definitions();
        let of = |grants: &[Grant], overrides: &[Override]| {
            held(&evaluate(&definitions, grants, overrides, now()), &definitions)
        };
        assert_eq!(of(&[], &[]), ["d:x"]);
        assert_eq!(of(&[grant("lower", None)], &[]), ["a:r:own", "b:w", "d:x"]);
        assert_eq!(of(&[grant("upper", None)], &[]), ["a:r:own", "b:w", "c:w:any", "c:w:own", "d:x"]);
        assert_eq!(of(&[grant("admin", None)], &[]), NAMES);
        // What has expired does not count, and neither does what does not exist.
        assert_eq!(of(&[grant("lower", Some(0)), grant("gone", None)], &[]), ["d:x"]);
        let other = [grant("other", None)];
        assert_eq!(of(&other, &[exception("a:r:any", Effect::Deny, None)]), ["a:r:own", "d:x"]);
        assert_eq!(of(&other, &[exception("a:r:own", Effect::Deny, None)]), ["d:x"], "who has any would have own");
        assert_eq!(of(&other, &[exception("a:r:own", Effect::Deny, Some(0))]), ["a:r:any", "a:r:own", "d:x"]);
        assert_eq!(of(&[], &[exception("c:w:any", Effect::Grant, Some(1))]), ["c:w:any", "c:w:own", "d:x"]);
        assert_eq!(of(&[grant("admin", None)], &[exception("d:x", Effect::Deny, None)]), NAMES[..5]);
    }

    #[test]
    fn a_token_has_the_strongest_permissions_and_is_valid_until_the_first_expiry() {
        let definitions = definitions();
        let grants = [grant("upper", Some(60)), grant("other", None), grant("admin", Some(-5))];
        let overrides = [exception("b:w", Effect::Deny, Some(30)), exception("gone:gone", Effect::Grant, Some(5))];
        let effective = evaluate(&definitions, &grants, &overrides, now());
        assert_eq!(effective.token_permissions(&definitions), ["a:r:any", "c:w:any", "d:x"]);
        assert_eq!(effective.expires_at, Some(now() + TimeDelta::seconds(30)));
        assert_eq!((effective.level, effective.is_admin), (200, false));
    }

    #[test]
    fn each_permission_says_where_it_comes_from() {
        let definitions = definitions();
        let record = |grant| GrantRecord { grant, granted_by: "operator".to_owned(), granted_at: now() };
        let grants = [grant("upper", None), grant("other", Some(-1))].map(record);
        let overrides = [OverrideRecord {
            exception: exception("b:w", Effect::Deny, Some(86_400)),
            reason: "because".to_owned(),
            set_by: "operator".to_owned(),
            set_at: now(),
        }];
        let derived = derive(&definitions, &grants, &overrides, now());
        let of = |name: &str| derived.iter().find(|one| one.permission == name).unwrap();
        assert_eq!(
            of("b:w").sources,
            [
                "denied by an override, set by operator on 2024-10-04, until 2024-10-05: because",
                "lower, inherited by upper, granted by operator on 2024-10-04"
            ]
        );
        assert!(!of("b:w").is_granted && of("c:w:own").is_granted && !of("a:r:any").is_granted);
        assert_eq!(of("c:w:own").sources, ["`c:w:any`, which implies it"]);
        assert_eq!(of("a:r:any").sources, ["other, granted by operator on 2024-10-04, expired on 2024-10-03"]);
        assert_eq!(of("d:x").sources, ["member, which everybody has"]);
    }

    fn grants() -> impl Strategy<Value = Vec<Grant>> {
        let one = (0..ROLES.len(), prop_oneof![Just(None), (-60_i64..60).prop_map(Some)]);
        proptest::collection::vec(one.prop_map(|(role, expiry)| grant(ROLES[role], expiry)), 0..5)
    }

    fn overrides() -> impl Strategy<Value = Vec<Override>> {
        let effect = prop_oneof![Just(Effect::Grant), Just(Effect::Deny)];
        let one = (0..NAMES.len(), effect, prop_oneof![Just(None), (-60_i64..60).prop_map(Some)]);
        proptest::collection::vec(one.prop_map(|(name, effect, expiry)| exception(NAMES[name], effect, expiry)), 0..5)
    }

    /// The same in another way: a permission at a time, from its definition.
    fn has(definitions: &Definitions, grants: &[Grant], overrides: &[Override], permission: &str) -> bool {
        let stronger = permission.strip_suffix("own").map(|base| format!("{base}any"));
        let weaker = permission.strip_suffix("any").map(|base| format!("{base}own"));
        let names = |one: &Override, wanted: &str| one.is_active(now()) && one.permission == wanted;
        let is_denied = overrides.iter().any(|one| {
            one.effect == Effect::Deny
                && (names(one, permission) || weaker.as_ref().is_some_and(|weaker| names(one, weaker)))
        });
        let by_override = overrides.iter().any(|one| {
            one.effect == Effect::Grant
                && (names(one, permission) || stronger.as_ref().is_some_and(|stronger| names(one, stronger)))
        });
        let active = grants.iter().filter(|grant| grant.is_active(now())).map(|grant| grant.role.as_str());
        let by_role = active.chain([MEMBER]).any(|role| {
            let id = definitions.id(permission).unwrap();
            definitions.role(role).unwrap().permissions.contains(id)
        });
        (by_override || by_role) && !is_denied
    }

    proptest! {
        #[test]
        fn evaluation_matches_its_definition(grants in grants(), overrides in overrides()) {
            let definitions = definitions();
            let effective = evaluate(&definitions, &grants, &overrides, now());
            for name in NAMES {
                prop_assert_eq!(effective.has(&definitions, name), has(&definitions, &grants, &overrides, name), "{}", name);
            }
        }

        #[test]
        fn a_denial_never_widens(grants in grants(), overrides in overrides(), denied in 0..NAMES.len()) {
            let definitions = definitions();
            let before = evaluate(&definitions, &grants, &overrides, now());
            let with = [&overrides[..], &[exception(NAMES[denied], Effect::Deny, None)]].concat();
            let after = evaluate(&definitions, &grants, &with, now());
            prop_assert_eq!(after.permissions.without(&before.permissions).count(), 0);
            prop_assert!(!after.has(&definitions, NAMES[denied]));
        }

        #[test]
        fn removing_a_grant_never_widens(grants in grants(), overrides in overrides(), index in any::<prop::sample::Index>()) {
            prop_assume!(!grants.is_empty());
            let definitions = definitions();
            let before = evaluate(&definitions, &grants, &overrides, now());
            let mut fewer = grants;
            fewer.remove(index.index(fewer.len()));
            let after = evaluate(&definitions, &fewer, &overrides, now());
            prop_assert_eq!(after.permissions.without(&before.permissions).count(), 0);
            prop_assert!(after.level <= before.level);
        }

        #[test]
        fn the_order_does_not_matter(grants in grants(), overrides in overrides()) {
            let definitions = definitions();
            let (mut other_grants, mut other_overrides) = (grants.clone(), overrides.clone());
            other_grants.reverse();
            other_overrides.reverse();
            prop_assert_eq!(
                evaluate(&definitions, &grants, &overrides, now()),
                evaluate(&definitions, &other_grants, &other_overrides, now())
            );
        }

        /// A service that asks the token gets the same answer as one that asks this service.
        #[test]
        fn a_token_says_the_same(grants in grants(), overrides in overrides()) {
            let definitions = definitions();
            let effective = evaluate(&definitions, &grants, &overrides, now());
            let in_token = effective.token_permissions(&definitions);
            for name in NAMES {
                let stronger = name.strip_suffix("own").map(|base| format!("{base}any"));
                let by_token = in_token.iter().any(|held| held == name || Some(held) == stronger.as_ref());
                prop_assert_eq!(by_token, effective.has(&definitions, name));
            }
        }
    }
}
