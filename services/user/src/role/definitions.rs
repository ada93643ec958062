//! The roles and permissions of a mesh, prepared for evaluation.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
};

use drystone::contract::is_permission_name;

use super::{ADMIN, Level, MAX_ROLES, MEMBER, PermissionSet, Role, RoleName, permission_set::PermissionId};

/// The maximum size of all permissions together, as they are in a token, in bytes.
pub const MAX_TOKEN_PERMISSIONS: usize = 4096;

/// The maximum number of roles that one inherits, directly or not, with itself.
const MAX_INHERITED: usize = 32;

/// The maximum length of the name of a permission.
const MAX_PERMISSION_LENGTH: usize = 100;

/// A permission of the mesh.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Permission {
    /// `RESOURCE:ACTION` or `RESOURCE:ACTION:SCOPE`.
    pub name: String,
    /// What it allows.
    pub description: String,
    /// The workload that registered it; `None` if a contract declares it.
    pub registered_by: Option<String>,
}

impl Permission {
    /// Whether a text can be the name of a permission.
    #[must_use]
    pub fn is_name(text: &str) -> bool {
        text.len() <= MAX_PERMISSION_LENGTH && is_permission_name(text)
    }
}

/// All roles and permissions, at one version.
#[derive(Debug, Default)]
pub struct Definitions {
    /// The version in the store.
    pub version: i64,
    permissions: Vec<Permission>,
    ids: HashMap<Arc<str>, PermissionId>,
    /// Of `RESOURCE:ACTION:any`, `RESOURCE:ACTION:own`.
    implied: Vec<Option<PermissionId>>,
    /// The other way round.
    implied_by: Vec<Option<PermissionId>>,
    roles: BTreeMap<RoleName, PreparedRole>,
    member: PermissionSet,
}

/// A role with what follows from the others.
#[derive(Debug)]
pub(crate) struct PreparedRole {
    pub(crate) role: Role,
    /// Its permissions and those of the roles that it inherits, and all that these imply.
    pub(crate) permissions: PermissionSet,
    /// The role and those that it inherits, directly or not.
    pub(crate) closure: BTreeSet<RoleName>,
    /// The permissions that it names, or a role that it inherits, and that nobody declares as far as this process knows.
    pub(crate) unknown: Vec<String>,
}

/// Why a role cannot be as it is.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidRole {
    /// No such role.
    #[error("there is no role `{0}` to inherit")]
    UnknownRole(RoleName),
    /// It would inherit itself.
    #[error("`{0}` inherits this role, which cannot inherit itself")]
    Cycle(RoleName),
    /// A role of a higher level is inherited.
    #[error("`{inherited}` has the level {inherited_level}, above the level {level} of `{role}`, which inherits it")]
    InheritsHigher {
        /// The role that inherits.
        role: RoleName,
        /// Its level.
        level: Level,
        /// The inherited role.
        inherited: RoleName,
        /// Its level.
        inherited_level: Level,
    },
    /// No such permission.
    #[error("there is no permission `{0}`; `ListPermissions` has them")]
    UnknownPermission(String),
    /// A role would inherit too many others.
    #[error("`{0}` would inherit more than {MAX_INHERITED} roles, directly or not")]
    TooDeep(RoleName),
    /// There are too many roles.
    #[error("there are {MAX_ROLES} roles, and there cannot be more")]
    TooMany,
}

impl Definitions {
    /// Prepares roles and permissions. Permissions that a role names and that do not exist are ignored.
    #[must_use]
    pub fn new(version: i64, permissions: impl IntoIterator<Item = Permission>, roles: Vec<Role>) -> Self {
        let by_name: BTreeMap<_, _> =
            permissions.into_iter().map(|permission| (permission.name.clone(), permission)).collect();
        let permissions: Vec<_> = by_name.into_values().collect();
        let ids: HashMap<Arc<str>, PermissionId> =
            permissions.iter().zip(0..).map(|(permission, id)| (permission.name.as_str().into(), id)).collect();
        let sibling = |name: &str, from: &str, to: &str| {
            name.strip_suffix(from).and_then(|base| ids.get(format!("{base}{to}").as_str()).copied())
        };
        let implied = permissions.iter().map(|permission| sibling(&permission.name, ":any", ":own")).collect();
        let implied_by = permissions.iter().map(|permission| sibling(&permission.name, ":own", ":any")).collect();
        let mut definitions = Self {
            version,
            permissions,
            ids,
            implied,
            implied_by,
            roles: BTreeMap::new(),
            member: PermissionSet::default(),
        };
        let roles: BTreeMap<_, _> = roles.into_iter().map(|role| (role.name.clone(), role)).collect();
        definitions.roles = roles.values().map(|role| (role.name.clone(), definitions.prepare(role, &roles))).collect();
        definitions.member = definitions.role(MEMBER).map(|member| member.permissions.clone()).unwrap_or_default();
        definitions
    }

    fn prepare(&self, role: &Role, roles: &BTreeMap<RoleName, Role>) -> PreparedRole {
        let closure = closure(role, roles);
        let mut permissions = PermissionSet::with_room_for(self.permissions.len());
        for role in closure.iter().filter_map(|name| roles.get(name)) {
            for id in self.own_permissions(role) {
                permissions.insert(id);
                if let Some(implied) = self.implied(id) {
                    permissions.insert(implied);
                }
            }
        }
        let named = closure.iter().filter_map(|name| roles.get(name)).flat_map(|role| &role.permissions);
        let unknown = named.filter(|name| self.id(name).is_none()).cloned().collect();
        PreparedRole { role: role.clone(), permissions, closure, unknown }
    }

    /// The permissions that a role grants itself.
    pub(crate) fn own_permissions<'a>(&'a self, role: &'a Role) -> Box<dyn Iterator<Item = PermissionId> + 'a> {
        if role.name.as_str() == ADMIN {
            Box::new((0..).take(self.permissions.len()))
        } else {
            Box::new(role.permissions.iter().filter_map(|name| self.id(name)))
        }
    }

    /// All permissions, by name.
    #[must_use]
    pub fn permissions(&self) -> &[Permission] {
        &self.permissions
    }

    /// All roles, by name.
    pub fn roles(&self) -> impl Iterator<Item = &Role> {
        self.roles.values().map(|prepared| &prepared.role)
    }

    pub(crate) fn role(&self, name: &str) -> Option<&PreparedRole> {
        self.roles.get(name)
    }

    pub(crate) fn id(&self, permission: &str) -> Option<PermissionId> {
        self.ids.get(permission).copied()
    }

    pub(crate) fn name(&self, id: PermissionId) -> &str {
        self.permissions.get(usize::from(id)).map_or("", |permission| &permission.name)
    }

    /// What who has this permission has as well.
    pub(crate) fn implied(&self, id: PermissionId) -> Option<PermissionId> {
        self.implied.get(usize::from(id)).copied().flatten()
    }

    /// Who has that permission has this one as well.
    pub(crate) fn implied_by(&self, id: PermissionId) -> Option<PermissionId> {
        self.implied_by.get(usize::from(id)).copied().flatten()
    }

    /// The permissions of everybody.
    pub(crate) fn of_everybody(&self) -> &PermissionSet {
        &self.member
    }

    /// The role and those that inherit it, directly or not: whose tokens a change of the role concerns.
    #[must_use]
    pub fn affected_by(&self, role: &str) -> Vec<RoleName> {
        let affected = self.roles.values().filter(|other| other.closure.contains(role));
        affected.map(|other| other.role.name.clone()).collect()
    }

    /// These definitions with one role added or changed.
    ///
    /// # Errors
    /// [`InvalidRole`].
    pub fn with(&self, role: &Role) -> Result<Self, InvalidRole> {
        let mut roles: BTreeMap<_, _> = self.roles().map(|role| (role.name.clone(), role.clone())).collect();
        let before = roles.insert(role.name.clone(), role.clone());
        if roles.len() > MAX_ROLES {
            return Err(InvalidRole::TooMany);
        }
        for name in &role.inherits {
            let inherited = roles.get(name).ok_or_else(|| InvalidRole::UnknownRole(name.clone()))?;
            if closure(inherited, &roles).contains(&role.name) {
                return Err(InvalidRole::Cycle(name.clone()));
            }
        }
        // Also of the roles that inherit this one: its level may have changed.
        for one in roles.values() {
            for inherited in one.inherits.iter().filter_map(|name| roles.get(name)) {
                let concerns = one.name == role.name || inherited.name == role.name;
                if concerns && inherited.level > one.level {
                    return Err(InvalidRole::InheritsHigher {
                        role: one.name.clone(),
                        level: one.level,
                        inherited: inherited.name.clone(),
                        inherited_level: inherited.level,
                    });
                }
            }
        }
        // A permission that nobody declares any more may stay, but not come.
        let had = |name: &String| before.as_ref().is_some_and(|before| before.permissions.contains(name));
        if let Some(unknown) = role.permissions.iter().find(|name| self.id(name).is_none() && !had(name)) {
            return Err(InvalidRole::UnknownPermission(unknown.clone()));
        }
        let after = Self::new(self.version, self.permissions.iter().cloned(), roles.into_values().collect());
        match after.roles.values().find(|prepared| prepared.closure.len() > MAX_INHERITED) {
            Some(deep) => Err(InvalidRole::TooDeep(deep.role.name.clone())),
            None => Ok(after),
        }
    }
}

/// The size of permissions in a token, in bytes.
#[must_use]
pub fn token_size<'a>(names: impl IntoIterator<Item = &'a str>) -> usize {
    names.into_iter().map(|name| name.len() + r#"",""#.len()).sum::<usize>() + 1
}

/// The role and all that it inherits. Also of roles that inherit each other, which no RPC writes.
fn closure(role: &Role, roles: &BTreeMap<RoleName, Role>) -> BTreeSet<RoleName> {
    let (mut closure, mut next) = (BTreeSet::new(), vec![role]);
    while let Some(role) = next.pop() {
        if closure.insert(role.name.clone()) {
            next.extend(role.inherits.iter().filter_map(|name| roles.get(name)));
        }
    }
    closure
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use drystone_mesh::clock::Timestamp;

    /// A role with these permissions and inherited roles, all separated by spaces.
    pub(crate) fn role(name: &str, level: Level, permissions: &str, inherits: &str) -> Role {
        Role {
            name: name.parse().unwrap(),
            description: String::new(),
            level,
            inherits: inherits.split_ascii_whitespace().map(|name| name.parse().unwrap()).collect(),
            permissions: permissions.split_ascii_whitespace().map(str::to_owned).collect(),
            version: 1,
            created_at: Timestamp::UNIX_EPOCH,
            updated_at: Timestamp::UNIX_EPOCH,
        }
    }

    pub(crate) fn permissions(names: &str) -> Vec<Permission> {
        let permission =
            |name: &str| Permission { name: name.to_owned(), description: String::new(), registered_by: None };
        names.split_ascii_whitespace().map(permission).collect()
    }

    fn definitions() -> Definitions {
        Definitions::new(
            1,
            permissions("notes:read:any notes:read:own notes:write shifts:write"),
            vec![
                role("admin", 1000, "", ""),
                role("lead", 300, "shifts:write", "editor"),
                role("editor", 200, "notes:write notes:read:any", "reader"),
                role("reader", 100, "notes:read:own gone:gone", ""),
                role("member", 1, "", ""),
            ],
        )
    }

    fn names(definitions: &Definitions, role: &str) -> Vec<String> {
        definitions.role(role).unwrap().permissions.iter().map(|id| definitions.name(id).to_owned()).collect()
    }

    #[test]
    fn a_role_has_its_own_and_inherited_permissions_and_an_admin_all() {
        let definitions = definitions();
        assert_eq!(names(&definitions, "reader"), ["notes:read:own"]);
        assert_eq!(names(&definitions, "editor"), ["notes:read:any", "notes:read:own", "notes:write"]);
        assert_eq!(names(&definitions, "lead").len(), 4);
        assert_eq!(names(&definitions, "admin").len(), 4);
        assert!(names(&definitions, "member").is_empty());
        let affected: Vec<_> = definitions.affected_by("reader").iter().map(ToString::to_string).collect();
        assert_eq!(affected, ["editor", "lead", "reader"]);
    }

    #[test]
    fn an_invalid_role_is_refused_with_its_reason() {
        let definitions = definitions();
        let refused = |role: Role| definitions.with(&role).unwrap_err();
        let name = |name: &str| name.parse::<RoleName>().unwrap();
        assert_eq!(refused(role("new", 5, "", "gone")), InvalidRole::UnknownRole(name("gone")));
        assert_eq!(refused(role("new", 5, "", "new")), InvalidRole::Cycle(name("new")));
        assert_eq!(refused(role("reader", 300, "", "lead")), InvalidRole::Cycle(name("lead")));
        assert_eq!(refused(role("new", 5, "a:b", "")), InvalidRole::UnknownPermission("a:b".to_owned()));
        // `reader` has it, although nobody declares it any more.
        definitions.with(&role("reader", 100, "gone:gone", "")).unwrap();
        for (changed, text) in [
            (role("new", 99, "", "reader"), "`reader` has the level 100, above the level 99 of `new`"),
            (role("reader", 201, "", ""), "`reader` has the level 201, above the level 200 of `editor`"),
        ] {
            assert!(refused(changed).to_string().starts_with(text));
        }
        let chain = |number: usize| {
            let inherits = if number == 0 { String::new() } else { format!("r{}", number - 1) };
            role(&format!("r{number}"), 1, "", &inherits)
        };
        let deep = Definitions::new(1, [], (0..MAX_INHERITED).map(chain).collect());
        assert_eq!(deep.with(&chain(MAX_INHERITED)).unwrap_err(), InvalidRole::TooDeep(name("r32")));
        let many = (0..MAX_ROLES).map(|number| role(&format!("r{number}"), 1, "", "")).collect();
        assert_eq!(Definitions::new(1, [], many).with(&role("new", 1, "", "")).unwrap_err(), InvalidRole::TooMany);
    }

    #[test]
    fn the_size_in_a_token_is_that_of_its_json() {
        for names in [vec![], vec!["a:b"], vec!["users:read", "roles:write:own"]] {
            let json = serde_json::to_string(&names).unwrap();
            assert!(token_size(names.iter().copied()).abs_diff(json.len()) <= 1, "{json}");
        }
    }
}
