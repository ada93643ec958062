//! `drystone.user.v1.UserService`.

use drystone::user::v1::{
    DisableUserRequest, EnableUserRequest, GetMeRequest, GetUserByEmailRequest, GetUserRequest, ListUsersRequest,
    ListUsersResponse, LookUpForSignInRequest, LookUpForSignInResponse, ProvisionUserRequest, SetUserRolesRequest,
    UpdateUserRequest, User, UserStatus, look_up_for_sign_in_request::Key, user_service_server::UserService,
};
use drystone_mesh::{
    call::{self, Call},
    clock::Timestamp,
    error::Error as MeshError,
    etag, id, mask,
    page::{self, Page},
    time::to_proto,
};
use tonic::{Request, Response};

use super::{invalid, parse_role};
use crate::{
    Account, DisplayName, Email, Error, NewAccount, Service, Status, permission, role::evaluation::active_roles,
    store::ActorId,
};

/// The list that page tokens are bound to.
const LIST: &str = "users";

/// The fields of an account that can be changed.
const MUTABLE_FIELDS: [&str; 1] = ["display_name"];

type RpcResult<T> = Result<Response<T>, tonic::Status>;

#[tonic::async_trait]
impl UserService for Service {
    async fn provision_user(&self, request: Request<ProvisionUserRequest>) -> RpcResult<User> {
        let message = request.into_inner();
        let id = id::parse("user_id", &message.user_id)?;
        // Lists are sorted by id, and their order must be that of creation.
        if id.get_version_num() != 7 {
            return Err(MeshError::invalid_field("user_id", "must be a UUID of version 7").into());
        }
        let email = Email::parse(&message.email).map_err(|error| invalid("email", &error))?;
        let display_name = parse_name("display_name", &message.display_name)?;
        call::record_user(id);
        let now = self.0.clock.now();
        let account = self.0.store.create(NewAccount { id, email, display_name }, now).await?;
        Ok(Response::new(to_message(account, now)))
    }

    async fn look_up_for_sign_in(
        &self,
        request: Request<LookUpForSignInRequest>,
    ) -> RpcResult<LookUpForSignInResponse> {
        let found = match request.into_inner().key {
            // An invalid e-mail address gets the same response as an unknown one.
            Some(Key::Email(text)) => match Email::parse(&text) {
                Ok(email) => self.0.store.rights_by_email(&email).await?,
                Err(_) => None,
            },
            Some(Key::UserId(text)) => self.0.store.rights(id::parse("user_id", &text)?).await?,
            None => None,
        };
        let rights = found.ok_or(Error::NotFound)?;
        call::record_user(rights.user_id);
        let now = self.0.clock.now();
        let effective = rights.evaluate(now);
        Ok(Response::new(LookUpForSignInResponse {
            user_id: rights.user_id.to_string(),
            roles: active_roles(&rights.grants, now),
            permissions: effective.token_permissions(&rights.definitions),
            expire_time: effective.expires_at.map(to_proto),
            status: to_status(rights.status).into(),
        }))
    }

    async fn get_me(&self, request: Request<GetMeRequest>) -> RpcResult<User> {
        let call = Call::of(&request)?;
        let account = self.0.store.find(call.principal()?.user_id).await?.ok_or(Error::NotFound)?;
        Ok(Response::new(to_message(account, self.0.clock.now())))
    }

    async fn get_user(&self, request: Request<GetUserRequest>) -> RpcResult<User> {
        let call = Call::of(&request)?;
        let id = id::parse("id", &request.get_ref().id)?;
        permission::may_read(call.actor()?, id)?;
        let account = self.0.store.find(id).await?.ok_or(Error::NotFound)?;
        Ok(Response::new(to_message(account, self.0.clock.now())))
    }

    async fn get_user_by_email(&self, request: Request<GetUserByEmailRequest>) -> RpcResult<User> {
        let email = Email::parse(&request.into_inner().email).map_err(|error| invalid("email", &error))?;
        let account = self.0.store.find_by_email(&email).await?.ok_or(Error::NotFound)?;
        call::record_target(account.id);
        Ok(Response::new(to_message(account, self.0.clock.now())))
    }

    async fn update_user(&self, request: Request<UpdateUserRequest>) -> RpcResult<User> {
        let call = Call::of(&request)?;
        let UpdateUserRequest { user, update_mask } = request.into_inner();
        let user = user.unwrap_or_default();
        let id = id::parse("user.id", &user.id)?;
        permission::may_write(call.actor()?, id)?;
        let wanted = mask::paths(update_mask.as_ref(), &MUTABLE_FIELDS)?;
        if wanted.is_empty() && user.display_name.is_empty() {
            return Err(mask::no_changes(&MUTABLE_FIELDS).into());
        }
        let name = parse_name("user.display_name", &user.display_name)?;
        let version = etag::parse(&user.etag)?;
        let now = self.0.clock.now();
        let account = self.0.store.rename(id, &name, version, now).await?.ok_or(Error::NotFound)?;
        Ok(Response::new(to_message(account, now)))
    }

    async fn list_users(&self, request: Request<ListUsersRequest>) -> RpcResult<ListUsersResponse> {
        let message = request.into_inner();
        let page = Page::parse(LIST, message.page_size, &message.page_token)?;
        let accounts = self.0.store.list(&page).await?;
        let now = self.0.clock.now();
        let to_message = |account| to_message(account, now);
        let (users, next_page_token) = page::paginate(LIST, accounts, page.size, |account| account.id, to_message);
        Ok(Response::new(ListUsersResponse { users, next_page_token }))
    }

    async fn disable_user(&self, request: Request<DisableUserRequest>) -> RpcResult<User> {
        let by = super::actor(&request)?;
        self.set_status(by, &request.into_inner().id, Status::Disabled).await
    }

    async fn enable_user(&self, request: Request<EnableUserRequest>) -> RpcResult<User> {
        let by = super::actor(&request)?;
        self.set_status(by, &request.into_inner().id, Status::Active).await
    }

    async fn set_user_roles(&self, request: Request<SetUserRolesRequest>) -> RpcResult<User> {
        let message = request.into_inner();
        let id = id::parse("id", &message.id)?;
        call::record_user(id);
        let roles = message.roles.iter().map(|name| parse_role("roles", name)).collect::<Result<Vec<_>, _>>()?;
        let now = self.0.clock.now();
        let saved = self.0.store.set_roles(id, &roles, now).await?;
        self.voided(saved).await?;
        let account = self.0.store.find(id).await?.ok_or(Error::NotFound)?;
        Ok(Response::new(to_message(account, now)))
    }
}

impl Service {
    async fn set_status(&self, by: ActorId, id: &str, status: Status) -> RpcResult<User> {
        let (id, now) = (id::parse("id", id)?, self.0.clock.now());
        call::record_target(id);
        let saved = self.0.store.set_status(by, id, status, now).await?;
        Ok(Response::new(to_message(self.voided(saved).await?, now)))
    }
}

fn parse_name(field: &'static str, text: &str) -> Result<DisplayName, MeshError> {
    DisplayName::parse(text).map_err(|error| invalid(field, &error))
}

fn to_message(account: Account, now: Timestamp) -> User {
    User {
        roles: active_roles(&account.grants, now),
        id: account.id.to_string(),
        email: account.email.into_string(),
        display_name: account.display_name.into_string(),
        etag: etag::format(account.version),
        create_time: Some(to_proto(account.created_at)),
        update_time: Some(to_proto(account.updated_at)),
        status: to_status(account.status).into(),
    }
}

fn to_status(status: Status) -> UserStatus {
    match status {
        Status::Active => UserStatus::Active,
        Status::Disabled => UserStatus::Disabled,
    }
}
