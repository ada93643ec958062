//! `drystone.user.v1.UserService`.

use drystone::user::v1::{
    AuthorizeFactorResetRequest, AuthorizeFactorResetResponse, Contact, CreateUserRequest, DeleteUserRequest,
    DisableUserRequest, EnableUserRequest, ExportUsersRequest, GetContactRequest, GetMeRequest, GetUserByEmailRequest,
    GetUserByTelegramIdRequest, GetUserRequest, LinkTelegramIdRequest, ListUsersRequest, ListUsersResponse,
    LookUpForSignInRequest, LookUpForSignInResponse, LookUpImportedRequest, LookUpImportedResponse,
    ProvisionUserRequest, ProvisionUsersRequest, ProvisionUsersResponse, PurgeUserRequest, SetEmailRequest,
    SetTelegramIdRequest, SetUserRolesRequest, UndeleteUserRequest, UpdateUserRequest, User, UserStatus,
    get_contact_request::Key as ContactKey, look_up_for_sign_in_request::Key, user_service_server::UserService,
};
use drystone_mesh::{
    call::{self, Call},
    error::Error as MeshError,
    etag, id, mask, page,
    time::{from_proto, to_proto},
};
use drystone_store::request_id::Creation;
use tonic::{Request, Response};
use uuid::Uuid;

use super::{
    export, import, invalid, list_query, parse_role,
    user_message::{MUTABLE_FIELDS, parse_change, parse_display_name, parse_new, to_contact, to_message},
};
use crate::{
    Account, Email, Error, NewAccount, Profile, Service, Status,
    account::TelegramId,
    permission,
    role::evaluation::active_roles,
    store::{ActorId, EmailChange, ListPage, Listed},
};

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
        let profile = Profile::new(parse_display_name("display_name", &message.display_name)?);
        call::record_user(id);
        let now = self.0.clock.now();
        let account = self.0.store.create(NewAccount { id, email, profile }, now).await?;
        Ok(Response::new(to_message(account, now)))
    }

    async fn provision_users(&self, request: Request<ProvisionUsersRequest>) -> RpcResult<ProvisionUsersResponse> {
        let ProvisionUsersRequest { source, users } = request.into_inner();
        let results = import::provision(&self.0.store, &source, users, self.0.clock.now()).await?;
        Ok(Response::new(ProvisionUsersResponse { results }))
    }

    async fn look_up_imported(&self, request: Request<LookUpImportedRequest>) -> RpcResult<LookUpImportedResponse> {
        let LookUpImportedRequest { source, external_ids } = request.into_inner();
        let ids: Vec<_> = external_ids.iter().map(String::as_str).collect();
        let found = self.0.store.imported(&source, &ids).await?;
        let user_ids = ids.into_iter().map(|id| found.get(id).map(Uuid::to_string).unwrap_or_default()).collect();
        Ok(Response::new(LookUpImportedResponse { user_ids }))
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
            Some(Key::UserId(text)) => {
                self.0.store.rights(id::parse("user_id", &text)?).await?.map(|rights| (rights, false))
            }
            None => None,
        };
        let (rights, email_verified) = found.ok_or(Error::NotFound)?;
        call::record_user(rights.user_id);
        let now = self.0.clock.now();
        let effective = rights.evaluate(now);
        Ok(Response::new(LookUpForSignInResponse {
            user_id: rights.user_id.to_string(),
            roles: active_roles(&rights.grants, now),
            permissions: effective.token_permissions(&rights.definitions),
            expire_time: effective.expires_at.map(to_proto),
            // Callers of the release before know no others.
            status: if rights.status == Status::Active { UserStatus::Active } else { UserStatus::Disabled }.into(),
            email_verified,
        }))
    }

    async fn get_contact(&self, request: Request<GetContactRequest>) -> RpcResult<Contact> {
        let account = match request.into_inner().key {
            Some(ContactKey::Email(text)) => match Email::parse(&text) {
                Ok(email) => self.0.store.find_by_email(&email).await?,
                Err(_) => None,
            },
            Some(ContactKey::UserId(text)) => self.0.store.find(id::parse("user_id", &text)?).await?,
            None => None,
        };
        let account = account.ok_or(Error::NotFound)?;
        call::record_user(account.id);
        Ok(Response::new(to_contact(account)))
    }

    async fn set_email(&self, request: Request<SetEmailRequest>) -> RpcResult<User> {
        let SetEmailRequest { user_id, email, current_email, keep_previous_until } = request.into_inner();
        let user_id = id::parse("user_id", &user_id)?;
        call::record_user(user_id);
        let parse = |field, text: &str| Email::parse(text).map_err(|error| invalid(field, &error));
        let change = EmailChange {
            user_id,
            email: parse("email", &email)?,
            current: (!current_email.is_empty()).then(|| parse("current_email", &current_email)).transpose()?,
            keep_until: keep_previous_until
                .as_ref()
                .map(|until| from_proto(until).ok_or_else(invalid_time))
                .transpose()?,
        };
        let now = self.0.clock.now();
        Ok(Response::new(to_message(self.0.store.set_email(&change, now).await?, now)))
    }

    async fn authorize_factor_reset(
        &self,
        request: Request<AuthorizeFactorResetRequest>,
    ) -> RpcResult<AuthorizeFactorResetResponse> {
        let call = Call::of(&request)?;
        let id = id::parse("user_id", &request.get_ref().user_id)?;
        call::record_target(id);
        self.0.store.authorize_factor_reset(call.principal()?.user_id, id, self.0.clock.now()).await?;
        Ok(Response::new(AuthorizeFactorResetResponse {}))
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

    async fn get_user_by_telegram_id(&self, request: Request<GetUserByTelegramIdRequest>) -> RpcResult<User> {
        let id = parse_telegram_id(request.get_ref().telegram_id)?.ok_or(Error::NotFound)?;
        let account = self.0.store.find_by_telegram_id(id).await?.ok_or(Error::NotFound)?;
        call::record_user(account.id);
        Ok(Response::new(to_message(account, self.0.clock.now())))
    }

    async fn create_user(&self, request: Request<CreateUserRequest>) -> RpcResult<User> {
        let by = super::actor(&request)?;
        let CreateUserRequest { user, request_id } = request.into_inner();
        let (email, profile) = parse_new(user.unwrap_or_default())?;
        let now = self.0.clock.now();
        let new = NewAccount { id: id::v7_at(now), email, profile };
        let creation = if request_id.is_empty() {
            None
        } else {
            let (owner, request_id) = (by.user_id().unwrap_or_default(), id::parse("request_id", &request_id)?);
            Some(Creation { owner, request_id, resource: new.id, fingerprint: new.fingerprint() })
        };
        let account = self.0.store.create_for(new, creation, now).await?;
        call::record_target(account.id);
        Ok(Response::new(to_message(account, now)))
    }

    async fn update_user(&self, request: Request<UpdateUserRequest>) -> RpcResult<User> {
        let by = super::actor(&request)?;
        let call = Call::of(&request)?;
        let UpdateUserRequest { user, update_mask } = request.into_inner();
        let user = user.unwrap_or_default();
        let id = id::parse("user.id", &user.id)?;
        permission::may_write(call.actor()?, id)?;
        call::record_target(id);
        let version = etag::parse(&user.etag)?;
        self.keeps_email(id, &user.email).await?;
        let change = parse_change(user, &mask::paths(update_mask.as_ref(), &MUTABLE_FIELDS)?)?;
        if change == crate::ProfileChange::default() {
            return Err(mask::no_changes(&MUTABLE_FIELDS).into());
        }
        let now = self.0.clock.now();
        let account = self.0.store.update_profile(by, id, &change, version, now).await?;
        Ok(Response::new(to_message(account, now)))
    }

    async fn list_users(&self, request: Request<ListUsersRequest>) -> RpcResult<ListUsersResponse> {
        let call = Call::of(&request)?;
        let message = request.get_ref();
        let (query, list) = list_query::parse(message, call.actor()?)?;
        let page = ListPage::parse(&list, message.page_size, &message.page_token)?;
        let now = self.0.clock.now();
        let Listed { accounts, ends_at } = self.0.store.list(&query, &page, now).await?;
        let position = |(position, account): &(String, Account)| (position.clone(), account.id);
        let to_message = |(_, account)| to_message(account, now);
        let (users, mut next_page_token) = page::paginate(&list, accounts, page.size, position, to_message);
        if let Some(end) = ends_at.filter(|_| next_page_token.is_empty()) {
            next_page_token = page::token(&list, &end);
        }
        Ok(Response::new(ListUsersResponse { users, next_page_token }))
    }

    async fn disable_user(&self, request: Request<DisableUserRequest>) -> RpcResult<User> {
        let by = super::actor(&request)?;
        self.set_disabled(by, &request.into_inner().id, true).await
    }

    async fn enable_user(&self, request: Request<EnableUserRequest>) -> RpcResult<User> {
        let by = super::actor(&request)?;
        self.set_disabled(by, &request.into_inner().id, false).await
    }

    async fn delete_user(&self, request: Request<DeleteUserRequest>) -> RpcResult<User> {
        let by = super::actor(&request)?;
        let message = request.into_inner();
        let (id, version, now) = (id::parse("id", &message.id)?, etag::parse(&message.etag)?, self.0.clock.now());
        call::record_target(id);
        let saved = self.0.store.delete(by, id, version, self.0.retention, now).await?;
        Ok(Response::new(to_message(self.voided(saved).await?, now)))
    }

    async fn undelete_user(&self, request: Request<UndeleteUserRequest>) -> RpcResult<User> {
        let by = super::actor(&request)?;
        let (id, now) = (id::parse("id", &request.into_inner().id)?, self.0.clock.now());
        call::record_target(id);
        let saved = self.0.store.undelete(by, id, now).await?;
        Ok(Response::new(to_message(self.voided(saved).await?, now)))
    }

    async fn purge_user(&self, request: Request<PurgeUserRequest>) -> RpcResult<()> {
        let by = super::actor(&request)?;
        let id = id::parse("id", &request.into_inner().id)?;
        call::record_target(id);
        let was_removed = self.0.store.purge(by, id, self.0.clock.now()).await?;
        self.0.relay.wake();
        if was_removed { Ok(Response::new(())) } else { Err(Error::NotFound.into()) }
    }

    async fn set_telegram_id(&self, request: Request<SetTelegramIdRequest>) -> RpcResult<User> {
        let by = super::actor(&request)?;
        let SetTelegramIdRequest { id, telegram_id } = request.into_inner();
        let id = id::parse("id", &id)?;
        call::record_target(id);
        self.link(by, id, telegram_id).await
    }

    async fn link_telegram_id(&self, request: Request<LinkTelegramIdRequest>) -> RpcResult<User> {
        let LinkTelegramIdRequest { id, telegram_id } = request.into_inner();
        let id = id::parse("id", &id)?;
        call::record_user(id);
        // Who has proved that the Telegram user is theirs acts for themselves.
        self.link(ActorId::User(id), id, telegram_id).await
    }

    type ExportUsersStream = export::Export;

    async fn export_users(&self, _: Request<ExportUsersRequest>) -> RpcResult<Self::ExportUsersStream> {
        Ok(Response::new(export::start(self.0.store.clone(), self.0.clock.clone())))
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
    async fn set_disabled(&self, by: ActorId, id: &str, is_disabled: bool) -> RpcResult<User> {
        let (id, now) = (id::parse("id", id)?, self.0.clock.now());
        call::record_target(id);
        let saved = self.0.store.set_disabled(by, id, is_disabled, now).await?;
        Ok(Response::new(to_message(self.voided(saved).await?, now)))
    }

    /// Refuses an update with another e-mail address, rather than to ignore that.
    async fn keeps_email(&self, id: Uuid, email: &str) -> Result<(), tonic::Status> {
        if email.is_empty() {
            return Ok(());
        }
        let account = self.0.store.find(id).await?.ok_or(Error::NotFound)?;
        if account.email.as_str() == email {
            return Ok(());
        }
        Err(MeshError::invalid_field("user.email", "cannot be changed").into())
    }

    async fn link(&self, by: ActorId, id: Uuid, telegram_id: i64) -> RpcResult<User> {
        let now = self.0.clock.now();
        let account = self.0.store.set_telegram_id(by, id, parse_telegram_id(telegram_id)?, now).await?;
        Ok(Response::new(to_message(account, now)))
    }
}

fn invalid_time() -> MeshError {
    MeshError::invalid_field("keep_previous_until", "must be a valid time")
}

fn parse_telegram_id(id: i64) -> Result<Option<TelegramId>, MeshError> {
    if id < 0 {
        return Err(MeshError::invalid_field("telegram_id", "must be the positive id of a Telegram user"));
    }
    Ok(TelegramId::new(id))
}
