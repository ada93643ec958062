//! `drystone.user.v1.RoleService`.

use drystone::user::v1::{
    BatchCheckRequest, BatchCheckResponse, CheckPermissionRequest, CheckPermissionResponse, CreateRoleRequest,
    DeleteRoleRequest, EffectivePermission, EffectivePermissions, GetEffectivePermissionsRequest, GetRoleRequest,
    GrantRoleRequest, ListPermissionsRequest, ListPermissionsResponse, ListRolesRequest, ListRolesResponse,
    OverrideEffect, Permission as PermissionMessage, PermissionOverride, RegisterPermissionsRequest,
    RegisterPermissionsResponse, RemoveOverrideRequest, RevokeRoleRequest, Role as RoleMessage, RoleGrant,
    SetOverrideRequest, UpdateRoleRequest, role_service_server::RoleService,
};
use drystone_mesh::{
    call::{self, Actor, Call},
    clock::Timestamp,
    error::Error as MeshError,
    etag, id, mask,
    text::{self, LineMode},
    time::{from_proto, to_proto},
};
use prost_types::Timestamp as ProtoTimestamp;
use tonic::{Request, Response, Status};
use uuid::Uuid;

use super::{actor, invalid, parse_role};
use crate::{
    Error, Service, Status as AccountStatus,
    permission::ROLES_READ,
    role::{
        Definitions, Effect, Grant, GrantRecord, MEMBER, Override, OverrideRecord, Permission, Role, RoleName,
        evaluation,
    },
    store::RoleChange,
};

/// The fields of a role that can be changed.
const MUTABLE_FIELDS: [&str; 4] = ["description", "level", "inherits", "permissions"];

/// The maximum length of a description or reason, in characters.
const MAX_TEXT: usize = 200;

type RpcResult<T> = Result<Response<T>, Status>;

#[tonic::async_trait]
impl RoleService for Service {
    async fn create_role(&self, request: Request<CreateRoleRequest>) -> RpcResult<RoleMessage> {
        let (by, now) = (actor(&request)?, self.0.clock.now());
        let message = request.into_inner().role.unwrap_or_default();
        let role = Role {
            name: parse_role("role.name", &message.name)?,
            description: parse_text("role.description", &message.description)?,
            level: parse_level(message.level)?,
            inherits: parse_inherits(&message.inherits)?,
            permissions: sorted(message.permissions),
            version: 1,
            created_at: now,
            updated_at: now,
        };
        let saved = self.0.store.create_role(by, &role, now).await?;
        Ok(Response::new(saved.value.into()))
    }

    async fn get_role(&self, request: Request<GetRoleRequest>) -> RpcResult<RoleMessage> {
        let definitions = self.0.store.definitions().await?;
        let name = &request.get_ref().name;
        let role = definitions.roles().find(|role| role.name.as_str() == name).ok_or(Error::RoleNotFound)?;
        Ok(Response::new(role.clone().into()))
    }

    async fn list_roles(&self, _: Request<ListRolesRequest>) -> RpcResult<ListRolesResponse> {
        let definitions = self.0.store.definitions().await?;
        let mut roles: Vec<_> = definitions.roles().cloned().collect();
        roles.sort_by(|one, other| other.level.cmp(&one.level).then_with(|| one.name.cmp(&other.name)));
        Ok(Response::new(ListRolesResponse { roles: roles.into_iter().map(Into::into).collect() }))
    }

    async fn update_role(&self, request: Request<UpdateRoleRequest>) -> RpcResult<RoleMessage> {
        let by = actor(&request)?;
        let UpdateRoleRequest { role, update_mask } = request.into_inner();
        let role = role.unwrap_or_default();
        let name = parse_role("role.name", &role.name)?;
        let wanted = mask::paths(update_mask.as_ref(), &MUTABLE_FIELDS)?;
        if wanted.is_empty() {
            return Err(mask::no_changes(&MUTABLE_FIELDS).into());
        }
        let is_wanted = |field| wanted.contains(field);
        let change = RoleChange {
            description: is_wanted("description")
                .then(|| parse_text("role.description", &role.description))
                .transpose()?,
            level: is_wanted("level").then(|| parse_level(role.level)).transpose()?,
            inherits: is_wanted("inherits").then(|| parse_inherits(&role.inherits)).transpose()?,
            permissions: is_wanted("permissions").then(|| sorted(role.permissions)),
        };
        let version = etag::parse(&role.etag)?;
        let saved = self.0.store.update_role(by, &name, &change, version, self.0.clock.now()).await?;
        Ok(Response::new(self.voided(saved).await?.into()))
    }

    async fn delete_role(&self, request: Request<DeleteRoleRequest>) -> RpcResult<()> {
        let by = actor(&request)?;
        let DeleteRoleRequest { name, etag, force } = request.into_inner();
        let (name, version) = (parse_role("name", &name)?, etag::parse(&etag)?);
        let saved = self.0.store.delete_role(by, &name, version, force, self.0.clock.now()).await?;
        Ok(Response::new(self.voided(saved).await?))
    }

    async fn list_permissions(&self, _: Request<ListPermissionsRequest>) -> RpcResult<ListPermissionsResponse> {
        let definitions = self.0.store.definitions().await?;
        let permissions = definitions.permissions().iter().cloned().map(Into::into).collect();
        Ok(Response::new(ListPermissionsResponse { permissions }))
    }

    async fn register_permissions(
        &self,
        request: Request<RegisterPermissionsRequest>,
    ) -> RpcResult<RegisterPermissionsResponse> {
        let call = Call::of(&request)?;
        let caller = call.fields().caller.as_ref().and_then(|caller| caller.workload());
        let workload = caller.ok_or_else(|| MeshError::internal("the call has no caller"))?.to_owned();
        let mut permissions = Vec::new();
        for (index, message) in request.into_inner().permissions.into_iter().enumerate() {
            let PermissionMessage { name, description, .. } = message;
            if !Permission::is_name(&name) {
                let text = "must be RESOURCE:ACTION, each of `a-z 0-9 - _`, or with `:own` or `:any` after it";
                return Err(MeshError::invalid_field(format!("permissions[{index}].name"), text).into());
            }
            let description = parse_text("permissions.description", &description)?;
            permissions.push(Permission { name, description, registered_by: Some(workload.clone()) });
        }
        self.0.store.register_permissions(&workload, &permissions, self.0.clock.now()).await?;
        Ok(Response::new(RegisterPermissionsResponse {}))
    }

    async fn grant_role(&self, request: Request<GrantRoleRequest>) -> RpcResult<RoleGrant> {
        let (by, now) = (actor(&request)?, self.0.clock.now());
        let GrantRoleRequest { user_id, role, expire_time } = request.into_inner();
        let user_id = parse_user(&user_id)?;
        let expires_at = parse_expiry(expire_time.as_ref(), now)?;
        let grant = Grant { role: parse_role("role", &role)?, expires_at };
        let saved = self.0.store.grant_role(by, user_id, &grant, now).await?;
        Ok(Response::new(self.voided(saved).await?.into()))
    }

    async fn revoke_role(&self, request: Request<RevokeRoleRequest>) -> RpcResult<()> {
        let by = actor(&request)?;
        let RevokeRoleRequest { user_id, role } = request.into_inner();
        let (user_id, role) = (parse_user(&user_id)?, parse_role("role", &role)?);
        let saved = self.0.store.revoke_role(by, user_id, &role, self.0.clock.now()).await?;
        Ok(Response::new(self.voided(saved).await?))
    }

    async fn set_override(&self, request: Request<SetOverrideRequest>) -> RpcResult<PermissionOverride> {
        let (by, now) = (actor(&request)?, self.0.clock.now());
        let message = request.into_inner();
        let effect = match message.effect() {
            OverrideEffect::Grant => Effect::Grant,
            OverrideEffect::Deny => Effect::Deny,
            OverrideEffect::Unspecified => {
                return Err(MeshError::invalid_field(
                    "effect",
                    "must be OVERRIDE_EFFECT_GRANT or OVERRIDE_EFFECT_DENY",
                )
                .into());
            }
        };
        let (user_id, reason) = (parse_user(&message.user_id)?, parse_text("reason", &message.reason)?);
        let expires_at = parse_expiry(message.expire_time.as_ref(), now)?;
        let exception = Override { permission: message.permission, effect, expires_at };
        let saved = self.0.store.set_override(by, user_id, &exception, &reason, now).await?;
        Ok(Response::new(self.voided(saved).await?.into()))
    }

    async fn remove_override(&self, request: Request<RemoveOverrideRequest>) -> RpcResult<()> {
        let by = actor(&request)?;
        let RemoveOverrideRequest { user_id, permission } = request.into_inner();
        let user_id = parse_user(&user_id)?;
        let saved = self.0.store.remove_override(by, user_id, &permission, self.0.clock.now()).await?;
        Ok(Response::new(self.voided(saved).await?))
    }

    async fn get_effective_permissions(
        &self,
        request: Request<GetEffectivePermissionsRequest>,
    ) -> RpcResult<EffectivePermissions> {
        let call = Call::of(&request)?;
        let id = id::parse("user_id", &request.get_ref().user_id)?;
        if let Actor::User(user) = call.actor()?
            && user.user_id != id
            && !user.has_permission(ROLES_READ)
        {
            return Err(Error::NotFound.into());
        }
        let (now, rights) = (self.0.clock.now(), self.0.store.rights(id).await?.ok_or(Error::NotFound)?);
        let (grants, overrides) = self.0.store.records(id).await?;
        let mut effective = effective_permissions(id, &rights.definitions, grants, overrides, now);
        if rights.status == AccountStatus::Disabled {
            for permission in &mut effective.permissions {
                permission.granted = false;
                permission.derivation.push("the account is disabled".to_owned());
            }
        }
        Ok(Response::new(effective))
    }

    async fn check_permission(&self, request: Request<CheckPermissionRequest>) -> RpcResult<CheckPermissionResponse> {
        let CheckPermissionRequest { user_id, permission } = request.into_inner();
        let rights = self.0.store.rights(id::parse("user_id", &user_id)?).await?;
        let now = self.0.clock.now();
        let allowed = rights.is_some_and(|rights| rights.evaluate(now).has(&rights.definitions, &permission));
        Ok(Response::new(CheckPermissionResponse { allowed }))
    }

    async fn batch_check(&self, request: Request<BatchCheckRequest>) -> RpcResult<BatchCheckResponse> {
        let checks = request.into_inner().checks;
        let mut ids = Vec::with_capacity(checks.len());
        for check in &checks {
            ids.push(id::parse("checks.user_id", &check.user_id)?);
        }
        let mut distinct = ids.clone();
        distinct.sort_unstable();
        distinct.dedup();
        let now = self.0.clock.now();
        let rights = self.0.store.rights_of_all(&distinct).await?;
        let mut users: Vec<_> = rights.iter().map(|rights| (rights, rights.evaluate(now))).collect();
        users.sort_unstable_by_key(|(rights, _)| rights.user_id);
        let allowed = ids.iter().zip(&checks).map(|(id, check)| {
            let found = users.binary_search_by_key(id, |(rights, _)| rights.user_id).ok();
            let found = found.and_then(|index| users.get(index));
            found.is_some_and(|(rights, effective)| effective.has(&rights.definitions, &check.permission))
        });
        Ok(Response::new(BatchCheckResponse { allowed: allowed.collect() }))
    }
}

/// The user that a call changes, who is recorded for the audit.
fn parse_user(text: &str) -> Result<Uuid, MeshError> {
    let id = id::parse("user_id", text)?;
    call::record_target(id);
    Ok(id)
}

fn parse_level(level: i32) -> Result<u16, MeshError> {
    let level = u16::try_from(level).ok().filter(|level| (1..=1000).contains(level));
    level.ok_or_else(|| MeshError::invalid_field("role.level", "must be from 1 to 999"))
}

fn parse_inherits(names: &[String]) -> Result<Vec<RoleName>, MeshError> {
    names.iter().map(|name| parse_role("role.inherits", name)).collect::<Result<_, _>>().map(sorted)
}

fn parse_text(field: &'static str, value: &str) -> Result<String, MeshError> {
    match text::normalize(value.trim(), LineMode::Single, MAX_TEXT) {
        Ok(text) => Ok(text.into_owned()),
        Err(error) => Err(invalid(field, &error)),
    }
}

fn parse_expiry(time: Option<&ProtoTimestamp>, now: Timestamp) -> Result<Option<Timestamp>, MeshError> {
    let Some(time) = time else { return Ok(None) };
    let invalid = |text| MeshError::invalid_field("expire_time", text);
    let time = from_proto(time).ok_or_else(|| invalid("must be a valid time"))?;
    if time > now { Ok(Some(time)) } else { Err(invalid("must be in the future")) }
}

fn sorted<T: Ord>(mut values: Vec<T>) -> Vec<T> {
    values.sort_unstable();
    values.dedup();
    values
}

fn effective_permissions(
    user_id: Uuid,
    definitions: &Definitions,
    grants: Vec<GrantRecord>,
    overrides: Vec<OverrideRecord>,
    now: Timestamp,
) -> EffectivePermissions {
    let derived = evaluation::derive(definitions, &grants, &overrides, now).into_iter();
    let permissions = derived.map(|one| EffectivePermission {
        permission: one.permission,
        granted: one.is_granted,
        derivation: one.sources,
    });
    let member = RoleGrant { role: MEMBER.to_owned(), ..RoleGrant::default() };
    EffectivePermissions {
        user_id: user_id.to_string(),
        roles: grants.into_iter().map(Into::into).chain([member]).collect(),
        overrides: overrides.into_iter().map(Into::into).collect(),
        permissions: permissions.collect(),
    }
}

impl From<Role> for RoleMessage {
    fn from(role: Role) -> Self {
        Self {
            built_in: role.is_built_in(),
            name: role.name.to_string(),
            description: role.description,
            level: i32::from(role.level),
            inherits: role.inherits.iter().map(ToString::to_string).collect(),
            permissions: role.permissions,
            etag: etag::format(role.version),
            create_time: Some(to_proto(role.created_at)),
            update_time: Some(to_proto(role.updated_at)),
        }
    }
}

impl From<Permission> for PermissionMessage {
    fn from(Permission { name, description, registered_by }: Permission) -> Self {
        Self { name, description, registered_by: registered_by.unwrap_or_default() }
    }
}

impl From<GrantRecord> for RoleGrant {
    fn from(GrantRecord { grant, granted_by, granted_at }: GrantRecord) -> Self {
        Self {
            role: grant.role.to_string(),
            granted_by,
            grant_time: Some(to_proto(granted_at)),
            expire_time: grant.expires_at.map(to_proto),
        }
    }
}

impl From<OverrideRecord> for PermissionOverride {
    fn from(OverrideRecord { exception, reason, set_by, set_at }: OverrideRecord) -> Self {
        let effect = match exception.effect {
            Effect::Grant => OverrideEffect::Grant,
            Effect::Deny => OverrideEffect::Deny,
        };
        Self {
            permission: exception.permission,
            effect: effect.into(),
            reason,
            set_by,
            set_time: Some(to_proto(set_at)),
            expire_time: exception.expires_at.map(to_proto),
        }
    }
}
