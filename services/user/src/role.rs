//! Roles, and the permissions of each.

use std::{collections::BTreeSet, fmt, str::FromStr, sync::Arc};

use drystone::contract::Contracts;

/// A role of an account. Permissions are granted through roles only.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Role {
    /// Has every permission that the contracts declare.
    Admin,
    /// Has no permission.
    Member,
}

impl Role {
    /// All roles.
    pub const ALL: [Self; 2] = [Self::Admin, Self::Member];

    /// The name, as in messages and tokens.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Admin => "admin",
            Self::Member => "member",
        }
    }

    const fn bit(self) -> u8 {
        1 << self as u8
    }
}

/// The name is not that of a role.
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

    /// Whether the set contains this role.
    #[must_use]
    pub const fn contains(self, role: Role) -> bool {
        self.0 & role.bit() != 0
    }

    /// The roles' names.
    #[must_use]
    pub fn names(self) -> Vec<String> {
        self.iter().map(|role| role.name().to_owned()).collect()
    }

    /// The declared permissions that the roles grant.
    #[must_use]
    pub fn permissions(self, declared: &Permissions) -> Vec<String> {
        if self.contains(Role::Admin) { declared.0.to_vec() } else { Vec::new() }
    }
}

/// The permissions that the contracts of the mesh declare, sorted, without duplicates.
#[derive(Debug, Clone, Default)]
pub struct Permissions(Arc<[String]>);

impl Permissions {
    /// The permissions that these contracts declare.
    #[must_use]
    pub fn of(contracts: &Contracts) -> Self {
        let names: BTreeSet<_> = contracts.permissions().iter().map(|permission| permission.name.clone()).collect();
        Self(names.into_iter().collect())
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

/// The names separated by single spaces, like an OAuth `scope`: the format in the store.
impl fmt::Display for Roles {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, role) in self.iter().enumerate() {
            if index > 0 {
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
    use super::*;

    #[test]
    fn an_admin_has_every_declared_permission() {
        let contracts = drystone::contracts().unwrap();
        let declared = Permissions::of(&contracts);
        let granted = Roles::from(Role::Admin).permissions(&declared);
        assert!(granted.is_sorted() && granted.len() == contracts.permissions().len(), "{granted:?}");
        assert!(contracts.permissions().iter().all(|permission| granted.contains(&permission.name)), "{granted:?}");
        assert_eq!(Roles::from(Role::Member).permissions(&declared), [""; 0]);
        assert_eq!(Roles::default().permissions(&declared), [""; 0]);
        assert_eq!(Roles::from(Role::Admin).permissions(&Permissions::default()), [""; 0]);
    }

    #[test]
    fn roles_survive_a_round_trip_through_their_text() {
        for roles in [vec![], vec![Role::Member], vec![Role::Member, Role::Admin]] {
            let roles: Roles = roles.into_iter().collect();
            assert_eq!(roles.to_string().parse(), Ok(roles));
        }
        assert_eq!("admin  owner".parse::<Roles>(), Err(UnknownRole("owner".to_owned())));
    }

    #[test]
    fn a_role_is_contained_once() {
        let roles: Roles = [Role::Member, Role::Admin, Role::Member].into_iter().collect();
        assert_eq!(roles.names(), ["admin", "member"]);
    }
}
