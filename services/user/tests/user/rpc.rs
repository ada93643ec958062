//! The RPCs of the user service, called as a given user.

mod sessions;

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use drystone::{
    Reason,
    auth::v1::auth_service_client::AuthServiceClient,
    notification::v1::notification_service_client::NotificationServiceClient,
    property::v1::property_service_client::PropertyServiceClient,
    session::v1::session_service_client::SessionServiceClient,
    user::v1::{
        AuthorizeFactorResetRequest, GetMeRequest, GetUserRequest, ListUsersRequest, ListUsersResponse,
        LookUpForSignInRequest, LookUpForSignInResponse, ProvisionUserRequest, SetUserRolesRequest, UpdateUserRequest,
        User, look_up_for_sign_in_request::Key, user_service_server::UserService,
    },
};
use drystone_mesh::{
    call::{self, Call, CallFields, Client},
    clock::Clock,
    error::reason_of,
    telemetry::{Metrics, TraceContext},
    token::Principal,
};
use drystone_store::Db;
use drystone_testing::wait;
use drystone_user::{Config, Deps, MIGRATIONS, Service, UserStore, role::Permission};
use sessions::FakeSessionService;
use tempfile::TempDir;
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tonic::{Request, Response, Status};
use uuid::Uuid;

/// The service with an empty store and a manual clock.
struct Fixture {
    service: Service,
    sessions: FakeSessionService,
    clock: Clock,
    _directory: TempDir,
}

impl Fixture {
    async fn new() -> Self {
        let directory = TempDir::new().unwrap();
        let db = Db::open(&directory.path().join("user.db"), MIGRATIONS).await.unwrap();
        let clock = Clock::manual(Clock::system().now());
        let sessions = FakeSessionService::unavailable();
        let service = Service::new(Deps {
            store: UserStore::new(db, declared()),
            sessions: SessionServiceClient::new(sessions.channel("session")),
            auth: AuthServiceClient::new(sessions.channel("auth")),
            properties: PropertyServiceClient::new(sessions.channel("property")),
            notifications: NotificationServiceClient::new(sessions.channel("notification")),
            config: Config::default(),
            clock: clock.clone(),
            metrics: Metrics::default(),
            tasks: TaskTracker::new(),
            stop: CancellationToken::new(),
        });
        Self { service, sessions, clock, _directory: directory }
    }

    async fn create(&self, email: &str) -> User {
        let request = create(Uuid::now_v7(), email);
        self.service.provision_user(Request::new(request)).await.unwrap().into_inner()
    }

    async fn update(&self, by: Request<UpdateUserRequest>) -> Result<User, Reason> {
        outcome(self.service.update_user(by).await)
    }

    async fn list(&self, reader: &str, request: ListUsersRequest) -> Result<ListUsersResponse, Reason> {
        outcome(self.service.list_users(as_user(reader, &["users:read"], request)).await)
    }

    async fn look_up(&self, key: Key) -> Result<LookUpForSignInResponse, Reason> {
        outcome(self.service.look_up_for_sign_in(Request::new(LookUpForSignInRequest { key: Some(key) })).await)
    }

    async fn set_roles(&self, id: &str, roles: &[&str]) -> Result<User, Reason> {
        let roles = roles.iter().map(ToString::to_string).collect();
        let request = request_of(None, SetUserRolesRequest { id: id.to_owned(), roles });
        outcome(self.service.set_user_roles(request).await)
    }
}

/// The permissions of our contracts.
fn declared() -> Vec<Permission> {
    let permission = |permission: &drystone::contract::Permission| Permission {
        name: permission.name.clone(),
        description: permission.description.clone(),
        registered_by: None,
    };
    drystone::contracts().unwrap().permissions().iter().map(permission).collect()
}

fn create(id: Uuid, email: &str) -> ProvisionUserRequest {
    ProvisionUserRequest { user_id: id.to_string(), email: email.to_owned(), display_name: "Ada".to_owned() }
}

/// A request after the server stack: of this user, or without a user.
fn request_of<T>(principal: Option<Principal>, message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.extensions_mut().insert(Call::new(CallFields {
        request_id: call::new_request_id(),
        trace: TraceContext::new_root(),
        deadline: None,
        caller: None,
        principal: principal.map(Arc::new),
        authorization: None,
        client: Client::default(),
    }));
    request
}

/// A request of a user with this id and these permissions.
fn as_user<T>(id: &str, permissions: &[&str], message: T) -> Request<T> {
    let now = Clock::system().now();
    let principal = Principal {
        user_id: id.parse().unwrap(),
        session_id: Uuid::now_v7(),
        token_id: Uuid::now_v7(),
        key_id: "key-1".into(),
        issued_at: now,
        expires_at: now + Duration::from_mins(5),
        auth_time: now,
        amr: Vec::new(),
        roles: Vec::new(),
        permissions: permissions.iter().map(ToString::to_string).collect(),
        properties: BTreeMap::new(),
    };
    request_of(Some(principal), message)
}

fn rename(id: &str, name: &str, etag: &str, mask: &[&str]) -> UpdateUserRequest {
    let user = User { id: id.to_owned(), display_name: name.to_owned(), etag: etag.to_owned(), ..User::default() };
    let paths = mask.iter().map(ToString::to_string).collect();
    UpdateUserRequest { user: Some(user), update_mask: Some(prost_types::FieldMask { paths }) }
}

/// The response, or the reason of the error.
fn outcome<T>(result: Result<Response<T>, Status>) -> Result<T, Reason> {
    result.map(Response::into_inner).map_err(|status| reason_of(&status).expect("every error has a reason"))
}

#[tokio::test]
async fn an_account_is_created_with_the_role_member() {
    let fixture = Fixture::new().await;
    let user = fixture.create("Ada@Example.com").await;
    assert_eq!((user.email.as_str(), user.display_name.as_str()), ("Ada@Example.com", "Ada"));
    assert_eq!(user.roles, ["member"]);
    assert!(!user.etag.is_empty());
    assert_eq!(user.create_time, user.update_time);
    assert_eq!(user.create_time.unwrap().seconds, fixture.clock.now().timestamp());
}

#[tokio::test]
async fn creating_an_account_is_idempotent() {
    let fixture = Fixture::new().await;
    let user = fixture.create("ada@example.com").await;
    let provision =
        async |id: Uuid, email: &str| outcome(fixture.service.provision_user(Request::new(create(id, email))).await);
    let id: Uuid = user.id.parse().unwrap();
    assert_eq!(provision(id, "ADA@example.com").await, Ok(user));
    assert_eq!(provision(id, "eve@example.com").await, Err(Reason::RequestIdReused));
    assert_eq!(provision(Uuid::now_v7(), "ADA@example.com").await, Err(Reason::EmailTaken));
}

#[tokio::test]
async fn an_invalid_account_is_rejected() {
    let fixture = Fixture::new().await;
    let valid = create(Uuid::now_v7(), "ada@example.com");
    for request in [
        create(Uuid::from_u128(7), "ada@example.com"),
        ProvisionUserRequest { email: "ada".to_owned(), ..valid.clone() },
        ProvisionUserRequest { display_name: "   ".to_owned(), ..valid.clone() },
        ProvisionUserRequest { display_name: "\u{200b}".to_owned(), ..valid.clone() },
        ProvisionUserRequest { display_name: "Ada\u{202e}".to_owned(), ..valid.clone() },
        ProvisionUserRequest { user_id: "ada".to_owned(), ..valid },
    ] {
        assert_eq!(outcome(fixture.service.provision_user(Request::new(request)).await), Err(Reason::InvalidRequest));
    }
}

#[tokio::test]
async fn a_user_is_looked_up_by_email_case_insensitively_and_by_id() {
    let fixture = Fixture::new().await;
    let user = fixture.create("Ada@example.com").await;
    let expected = LookUpForSignInResponse {
        user_id: user.id.clone(),
        roles: vec!["member".to_owned()],
        permissions: vec![],
        expire_time: None,
        status: 1,
        email_verified: false,
    };
    for key in [Key::Email(" ada@EXAMPLE.com ".to_owned()), Key::UserId(user.id)] {
        assert_eq!(fixture.look_up(key).await.as_ref(), Ok(&expected));
    }
}

#[tokio::test]
async fn unknown_and_invalid_emails_get_the_same_response() {
    let fixture = Fixture::new().await;
    for text in ["eve@example.com", "eve", ""] {
        assert_eq!(fixture.look_up(Key::Email(text.to_owned())).await, Err(Reason::UserNotFound));
    }
    assert_eq!(fixture.look_up(Key::UserId(Uuid::now_v7().to_string())).await, Err(Reason::UserNotFound));
}

#[tokio::test]
async fn a_user_reads_their_own_account() {
    let fixture = Fixture::new().await;
    let user = fixture.create("ada@example.com").await;
    let me = outcome(fixture.service.get_me(as_user(&user.id, &[], GetMeRequest {})).await);
    assert_eq!(me.unwrap(), user);
    let same = outcome(fixture.service.get_user(as_user(&user.id, &[], GetUserRequest { id: user.id.clone() })).await);
    assert_eq!(same.unwrap(), user);
}

#[tokio::test]
async fn get_me_requires_a_user() {
    let fixture = Fixture::new().await;
    let without_user = outcome(fixture.service.get_me(request_of(None, GetMeRequest {})).await);
    assert_eq!(without_user, Err(Reason::TokenMissing));
    let deleted = as_user(&Uuid::now_v7().to_string(), &[], GetMeRequest {});
    assert_eq!(outcome(fixture.service.get_me(deleted).await), Err(Reason::UserNotFound));
}

#[tokio::test]
async fn the_account_of_another_user_is_found_only_with_users_read() {
    let fixture = Fixture::new().await;
    let (ada, eve) = (fixture.create("ada@example.com").await, fixture.create("eve@example.com").await);
    let read = async |permissions: &[&str], id: &str| {
        outcome(fixture.service.get_user(as_user(&eve.id, permissions, GetUserRequest { id: id.to_owned() })).await)
    };
    assert_eq!(read(&[], &ada.id).await, Err(Reason::UserNotFound));
    assert_eq!(read(&["users:read"], &ada.id).await.unwrap(), ada);
    assert_eq!(read(&["users:read"], &Uuid::now_v7().to_string()).await, Err(Reason::UserNotFound));
}

#[tokio::test]
async fn a_user_changes_their_name_with_and_without_a_mask() {
    let fixture = Fixture::new().await;
    let user = fixture.create("ada@example.com").await;
    fixture.clock.advance(Duration::from_secs(1));
    for (name, mask) in [("Countess", vec![]), ("Lady", vec!["display_name"]), ("Ada", vec!["*", "etag", "id"])] {
        let renamed = fixture.update(as_user(&user.id, &[], rename(&user.id, name, "", &mask))).await.unwrap();
        assert_eq!(renamed.display_name, name);
        assert_ne!(renamed.etag, user.etag);
        assert_ne!(renamed.update_time, user.update_time);
        assert_eq!(renamed.create_time, user.create_time);
    }
}

#[tokio::test]
async fn only_the_profile_can_be_changed_and_the_name_not_to_an_empty_one() {
    let fixture = Fixture::new().await;
    let user = fixture.create("ada@example.com").await;
    for (name, mask) in [
        ("A", vec!["email"]),
        ("A", vec!["display_name", "roles"]),
        ("A", vec!["etag"]),
        ("", vec!["display_name"]),
        ("", vec![]),
        (" ", vec![]),
    ] {
        let result = fixture.update(as_user(&user.id, &[], rename(&user.id, name, "", &mask))).await;
        assert_eq!(result, Err(Reason::InvalidRequest), "{name:?} {mask:?}");
    }
    let without_id = as_user(&user.id, &[], rename("", "Ada", "", &[]));
    assert_eq!(fixture.update(without_id).await, Err(Reason::InvalidRequest));
}

#[tokio::test]
async fn a_change_with_a_stale_etag_is_rejected() {
    let fixture = Fixture::new().await;
    let user = fixture.create("ada@example.com").await;
    let change = |etag: &str| as_user(&user.id, &[], rename(&user.id, "Countess", etag, &[]));
    assert!(fixture.update(change(&user.etag)).await.is_ok());
    assert_eq!(fixture.update(change(&user.etag)).await, Err(Reason::StaleEtag));
    assert_eq!(fixture.update(change("invalid")).await, Err(Reason::StaleEtag));
}

#[tokio::test]
async fn the_account_of_another_user_is_changed_only_with_users_write_and_from_above() {
    let mut fixture = Fixture::new().await;
    fixture.sessions.start();
    let (ada, eve) = (fixture.create("ada@example.com").await, fixture.create("eve@example.com").await);
    let change =
        async |permissions: &[&str]| fixture.update(as_user(&eve.id, permissions, rename(&ada.id, "A", "", &[]))).await;
    assert_eq!(change(&[]).await, Err(Reason::UserNotFound));
    assert_eq!(change(&["users:read"]).await, Err(Reason::PermissionMissing));
    // A token is not enough: the account has lost the permission since.
    assert_eq!(change(&["users:write"]).await, Err(Reason::PermissionMissing));
    fixture.set_roles(&eve.id, &["manager"]).await.unwrap();
    assert_eq!(change(&["users:write"]).await.unwrap().display_name, "A");
    fixture.set_roles(&ada.id, &["manager"]).await.unwrap();
    assert_eq!(change(&["users:write"]).await, Err(Reason::AuthorityExceeded));
}

#[tokio::test]
async fn second_factors_are_reset_from_above_whatever_the_token_says_and_never_ones_own() {
    let mut fixture = Fixture::new().await;
    fixture.sessions.start();
    let (ada, eve) = (fixture.create("ada@example.com").await, fixture.create("eve@example.com").await);
    let authorize = async |by: &User, user_id: &str| {
        let request = AuthorizeFactorResetRequest { user_id: user_id.to_owned() };
        let request = as_user(&by.id, &["factors:reset"], request);
        outcome(fixture.service.authorize_factor_reset(request).await).map(drop)
    };
    assert_eq!(authorize(&eve, &ada.id).await, Err(Reason::PermissionMissing));
    fixture.set_roles(&eve.id, &["manager"]).await.unwrap();
    assert_eq!(authorize(&eve, &ada.id).await, Err(Reason::PermissionMissing), "`admin` alone has it at first");
    fixture.set_roles(&eve.id, &["admin"]).await.unwrap();
    assert_eq!(authorize(&eve, &ada.id).await, Ok(()));
    assert_eq!(authorize(&eve, &eve.id).await, Err(Reason::AuthorityExceeded));
    assert_eq!(authorize(&eve, &Uuid::now_v7().to_string()).await, Err(Reason::UserNotFound));
    assert_eq!(authorize(&ada, &eve.id).await, Err(Reason::PermissionMissing));
    let gone = User { id: Uuid::now_v7().to_string(), ..User::default() };
    assert_eq!(authorize(&gone, &eve.id).await, Err(Reason::PermissionMissing));
}

#[tokio::test]
async fn accounts_are_listed_in_pages() {
    let fixture = Fixture::new().await;
    let reader = Uuid::now_v7().to_string();
    let mut expected = Vec::new();
    for number in 0..7 {
        expected.push(fixture.create(&format!("user{number}@example.com")).await);
    }
    let (mut seen, mut page_token) = (Vec::new(), String::new());
    loop {
        let request = ListUsersRequest { page_size: 3, page_token, ..ListUsersRequest::default() };
        let page = fixture.list(&reader, request).await.unwrap();
        seen.extend(page.users);
        page_token = page.next_page_token;
        if page_token.is_empty() {
            break;
        }
        // An account created during the listing is last.
        expected.push(fixture.create(&format!("late{}@example.com", seen.len())).await);
    }
    assert_eq!(seen, expected);

    let page = |page_token: &str| ListUsersRequest {
        page_size: 3,
        page_token: page_token.to_owned(),
        ..ListUsersRequest::default()
    };
    let token = fixture.list(&reader, page("")).await.unwrap().next_page_token;
    let ordered = ListUsersRequest { order_by: "create_time desc".to_owned(), ..page(&token) };
    let filtered = ListUsersRequest { filter: "status = active".to_owned(), ..page(&token) };
    let searched = ListUsersRequest { search: "ada".to_owned(), ..page(&token) };
    for invalid in [page("invalid"), page(&token[1..]), ordered, filtered, searched] {
        assert_eq!(fixture.list(&reader, invalid).await, Err(Reason::InvalidPageToken));
    }
    let of_another = fixture.list(&Uuid::now_v7().to_string(), page(&token)).await;
    assert_eq!(of_another, Err(Reason::InvalidPageToken));
}

#[tokio::test]
async fn changing_roles_voids_the_tokens_with_the_previous_roles() {
    let mut fixture = Fixture::new().await;
    fixture.sessions.start();
    let user = fixture.create("ada@example.com").await;
    assert_eq!(fixture.set_roles(&user.id, &["member", "admin"]).await.unwrap().roles, ["admin", "member"]);
    assert_eq!(*fixture.sessions.voided.lock().unwrap(), std::slice::from_ref(&user.id));
    let found = fixture.look_up(Key::UserId(user.id.clone())).await.unwrap();
    let all = [
        "factors:reset",
        "notifications:read",
        "notifications:write",
        "roles:grant",
        "roles:read",
        "roles:write",
        "users:read",
        "users:write",
    ];
    assert_eq!(found.permissions, all);

    let other = fixture.create("bob@example.com").await;
    assert_eq!(fixture.set_roles(&user.id, &[]).await, Err(Reason::LastAdministrator));
    fixture.set_roles(&other.id, &["admin"]).await.unwrap();
    assert_eq!(fixture.set_roles(&user.id, &[]).await.unwrap().roles, ["member"]);
    assert_eq!(fixture.set_roles(&user.id, &["owner"]).await, Err(Reason::RoleNotFound));
    assert_eq!(fixture.set_roles(&user.id, &["Owner"]).await, Err(Reason::InvalidRequest));
    assert_eq!(fixture.set_roles(&Uuid::now_v7().to_string(), &[]).await, Err(Reason::UserNotFound));
    assert_eq!(fixture.sessions.voided.lock().unwrap().len(), 3);
}

#[tokio::test]
async fn tokens_are_voided_even_if_nobody_repeats_a_change_of_roles_that_failed_to() {
    let mut fixture = Fixture::new().await;
    let user = fixture.create("ada@example.com").await;
    assert_eq!(fixture.set_roles(&user.id, &["admin"]).await, Err(Reason::Unavailable));
    assert_eq!(fixture.look_up(Key::UserId(user.id.clone())).await.unwrap().roles, ["admin", "member"]);
    assert_eq!(*fixture.sessions.voided.lock().unwrap(), [""; 0]);

    fixture.sessions.start();
    let voided = fixture.sessions.voided.clone();
    wait::until("the tokens are void", async || {
        fixture.clock.advance(Duration::from_secs(1));
        (*voided.lock().unwrap() == [user.id.clone()]).then_some(())
    })
    .await;
    // Who does repeat it waits for it.
    assert_eq!(fixture.set_roles(&user.id, &["admin"]).await.unwrap().roles, ["admin", "member"]);
    assert_eq!(fixture.sessions.voided.lock().unwrap().len(), 2);
}
