//! `drystone.user.v1.UserService`.

use std::time::Duration;

use drystone::user::v1::{
    GetMeRequest, GetUserRequest, ListUsersRequest, ListUsersResponse, LookUpForSignInRequest, LookUpForSignInResponse,
    ProvisionUserRequest, SetUserRolesRequest, UpdateUserRequest, User, look_up_for_sign_in_request::Key,
    user_service_server::UserService,
};
use drystone_mesh::{
    call::{self, Call},
    error::Error as MeshError,
    etag, id, mask,
    page::{self, Page},
    time::to_proto,
};
use drystone_store::outbox::Outcome;
use tonic::{Request, Response, Status};

use crate::{Account, DisplayName, Email, Error, NewAccount, Role, Roles, Service, permission};

/// The list that page tokens are bound to.
const LIST: &str = "users";

/// How long a change of roles waits until the tokens with the previous ones are void.
const VOIDING_TIMEOUT: Duration = Duration::from_secs(2);

/// The fields of an account that can be changed.
const MUTABLE_FIELDS: [&str; 1] = ["display_name"];

type RpcResult<T> = Result<Response<T>, Status>;

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
        let new = NewAccount { id, email, display_name, roles: Role::Member.into() };
        let account = self.store.create(new, self.clock.now()).await?;
        Ok(Response::new(account.into()))
    }

    async fn look_up_for_sign_in(
        &self,
        request: Request<LookUpForSignInRequest>,
    ) -> RpcResult<LookUpForSignInResponse> {
        let found = match request.into_inner().key {
            // An invalid e-mail address gets the same response as an unknown one.
            Some(Key::Email(text)) => match Email::parse(&text) {
                Ok(email) => self.store.find_by_email(&email).await?,
                Err(_) => None,
            },
            Some(Key::UserId(text)) => self.store.find(id::parse("user_id", &text)?).await?,
            None => None,
        };
        let account = found.ok_or(Error::NotFound)?;
        call::record_user(account.id);
        Ok(Response::new(LookUpForSignInResponse {
            user_id: account.id.to_string(),
            roles: account.roles.names(),
            permissions: account.roles.permissions(&self.permissions),
        }))
    }

    async fn get_me(&self, request: Request<GetMeRequest>) -> RpcResult<User> {
        let call = Call::of(&request)?;
        let account = self.store.find(call.principal()?.user_id).await?.ok_or(Error::NotFound)?;
        Ok(Response::new(account.into()))
    }

    async fn get_user(&self, request: Request<GetUserRequest>) -> RpcResult<User> {
        let call = Call::of(&request)?;
        let id = id::parse("id", &request.get_ref().id)?;
        permission::may_read(call.principal()?, id)?;
        let account = self.store.find(id).await?.ok_or(Error::NotFound)?;
        Ok(Response::new(account.into()))
    }

    async fn update_user(&self, request: Request<UpdateUserRequest>) -> RpcResult<User> {
        let call = Call::of(&request)?;
        let UpdateUserRequest { user, update_mask } = request.into_inner();
        let user = user.unwrap_or_default();
        let id = id::parse("user.id", &user.id)?;
        permission::may_write(call.principal()?, id)?;
        let wanted = mask::paths(update_mask.as_ref(), &MUTABLE_FIELDS)?;
        if wanted.is_empty() && user.display_name.is_empty() {
            return Err(mask::no_changes(&MUTABLE_FIELDS).into());
        }
        let name = parse_name("user.display_name", &user.display_name)?;
        let version = etag::parse(&user.etag)?;
        let account = self.store.rename(id, &name, version, self.clock.now()).await?.ok_or(Error::NotFound)?;
        Ok(Response::new(account.into()))
    }

    async fn list_users(&self, request: Request<ListUsersRequest>) -> RpcResult<ListUsersResponse> {
        let message = request.into_inner();
        let page = Page::parse(LIST, message.page_size, &message.page_token)?;
        let accounts = self.store.list(&page).await?;
        let (users, next_page_token) = page::paginate(LIST, accounts, page.size, |account| account.id, User::from);
        Ok(Response::new(ListUsersResponse { users, next_page_token }))
    }

    /// The roles are saved together with the message that voids the tokens with the previous roles: a token issued in between
    /// already has the new roles. The call waits for that, so that its success means that old tokens are refused.
    async fn set_user_roles(&self, request: Request<SetUserRolesRequest>) -> RpcResult<User> {
        let message = request.into_inner();
        let id = id::parse("id", &message.id)?;
        call::record_user(id);
        let roles = parse_roles("roles", &message.roles)?;
        let (account, voiding) = self.store.set_roles(id, roles, self.clock.now()).await?.ok_or(Error::NotFound)?;
        if self.relay.outcome(voiding, VOIDING_TIMEOUT).await.map_err(Error::Store)? != Outcome::Delivered {
            return Err(Error::TokensNotVoided.into());
        }
        Ok(Response::new(account.into()))
    }
}

fn parse_name(field: &'static str, text: &str) -> Result<DisplayName, MeshError> {
    DisplayName::parse(text).map_err(|error| invalid(field, &error))
}

fn parse_roles(field: &'static str, names: &[String]) -> Result<Roles, MeshError> {
    names.iter().map(|name| name.parse::<Role>()).collect::<Result<_, _>>().map_err(|error| invalid(field, &error))
}

fn invalid(field: &'static str, error: &impl ToString) -> MeshError {
    MeshError::invalid_field(field, error.to_string())
}

impl From<Account> for User {
    fn from(account: Account) -> Self {
        Self {
            id: account.id.to_string(),
            email: account.email.into_string(),
            display_name: account.display_name.into_string(),
            roles: account.roles.names(),
            etag: etag::format(account.version),
            create_time: Some(to_proto(account.created_at)),
            update_time: Some(to_proto(account.updated_at)),
        }
    }
}
