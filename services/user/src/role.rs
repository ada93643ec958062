//! Roles, and the permissions that each brings.

use std::{collections::BTreeSet, fmt, str::FromStr};

use crate::permission::{USERS_READ, USERS_WRITE};

/// What an account is to the whole. The permissions follow from it, and only from it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Role {
    /// Looks after the accounts of others.
    Admin,
    /// Has an account.
    Member,
}

impl Role {
    /// Every role there is.
    pub const ALL: [Self; 2] = [Self::Admin, Self::Member];

    /// The name, as in messages and tokens.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Admin => "admin",
            Self::Member => "member",
        }
    }

    /// The permissions that the role brings, by the names that the contract gives them.
    #[must_use]
    pub const fn permissions(self) -> &'static [&'static str] {
        match self {
            Self::Admin => &[USERS_READ, USERS_WRITE],
            Self::Member => &[],
        }
    }

    const fn bit(self) -> u8 {
        1 << self as u8
    }
}

/// There is no role of this name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("there is no role `{0}`")]
pub struct UnknownRole(pub String);

impl FromStr for Role {
    type Err = UnknownRole;

    fn from_str(name: &str) -> Result<Self, UnknownRole> {
        Self::ALL.into_iter().find(|role| role.name() == name).ok_or_else(|| UnknownRole(name.to_owned()))
    }
}

/// The roles of one account: a set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Roles(u8);

impl Roles {
    /// The roles, in the order of [`Role::ALL`].
    pub fn iter(self) -> impl Iterator<Item = Role> {
        Role::ALL.into_iter().filter(move |role| self.contains(*role))
    }

    /// Whether this role is among them.
    #[must_use]
    pub const fn contains(self, role: Role) -> bool {
        self.0 & role.bit() != 0
    }

    /// The roles' names.
    #[must_use]
    pub fn names(self) -> Vec<String> {
        self.iter().map(|role| role.name().to_owned()).collect()
    }

    /// The names of all permissions that the roles bring, each once, sorted.
    #[must_use]
    pub fn permissions(self) -> Vec<String> {
        let names: BTreeSet<_> = self.iter().flat_map(Role::permissions).collect();
        names.into_iter().map(ToString::to_string).collect()
    }
}

impl FromIterator<Role> for Roles {
    fn from_iter<I: IntoIterator<Item = Role>>(roles: I) -> Self {
        Self(roles.into_iter().fold(0, |bits, role| bits | role.bit()))
    }
}

impl From<Role> for Roles {
    fn from(role: Role) -> Self {
        Self(role.bit())
    }
}

/// The names with single spaces between them, as OAuth writes scopes: how a store keeps them.
impl fmt::Display for Roles {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (place, role) in self.iter().enumerate() {
            if place > 0 {
                f.write_str(" ")?;
            }
            f.write_str(role.name())?;
        }
        Ok(())
    }
}

impl FromStr for Roles {
    type Err = UnknownRole;

    fn from_str(names: &str) -> Result<Self, UnknownRole> {
        names.split_ascii_whitespace().map(Role::from_str).collect()
    }
}

#[cfg(test)]
mod tests {
    use drystone::contract::PERMISSIONS;

    use super::*;

    #[test]
    fn every_permission_of_a_role_stands_in_the_contract() {
        for name in Role::ALL.into_iter().flat_map(Role::permissions) {
            assert!(PERMISSIONS.iter().any(|permission| permission.name == *name), "{name}");
        }
    }

    #[test]
    fn roles_come_back_as_they_were_written() {
        for roles in [vec![], vec![Role::Member], vec![Role::Member, Role::Admin]] {
            let roles: Roles = roles.into_iter().collect();
            assert_eq!(roles.to_string().parse(), Ok(roles));
        }
        assert_eq!("admin  owner".parse::<Roles>(), Err(UnknownRole("owner".to_owned())));
    }

    #[test]
    fn a_role_counts_once() {
        let roles: Roles = [Role::Member, Role::Admin, Role::Member].into_iter().collect();
        assert_eq!(roles.names(), ["admin", "member"]);
        assert_eq!(roles.permissions(), ["users:read", "users:write"]);
        assert_eq!(Roles::from(Role::Member).permissions(), [""; 0]);
    }
}
