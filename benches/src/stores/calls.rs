//! The measured calls: gRPC over mutual TLS directly to the service, with the edge's certificate and a user's token.

use std::{sync::Arc, time::Duration};

use anyhow::{Context, Result, bail, ensure};
use drystone::{
    auth::v1::{RefreshRequest, auth_service_client::AuthServiceClient},
    property::v1::{CreatePropertyRequest, ListPropertiesRequest, property_service_client::PropertyServiceClient},
    session::v1::{ListSessionsRequest, session_service_client::SessionServiceClient},
    user::v1::{
        BatchCheckRequest, CheckPermissionRequest, GetMeRequest, GetUserRequest, ListUsersRequest,
        LookUpForSignInRequest, look_up_for_sign_in_request::Key, role_service_client::RoleServiceClient,
        user_service_client::UserServiceClient,
    },
};
use drystone_mesh::page::{self, List};
use tonic::{Code, Request, Status, transport::Channel};

use super::{
    processes::MeshProcesses,
    users::{ActiveUser, SeedUsers},
};
use crate::load::{self, LoadResult};

/// The concurrency of the warm-up.
const WARM_UP_TASKS: usize = 16;

/// A measured RPC.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum BenchRpc {
    GetMe,
    ListProperties,
    CreateProperty,
    ListSessions,
    /// Auth calls user and property, then session.
    Refresh,
    /// As auth, by id.
    LookUpForSignIn,
    /// As a service, of a hundred users.
    BatchCheck,
    /// As the operator, a page of 50 from this user on: far from the first one.
    ListUsersDeepPage,
    /// As the operator, the first page of those of whom a word begins with two digits.
    SearchUsers,
}

impl BenchRpc {
    /// The name of the RPC.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::GetMe => "GetMe",
            Self::ListProperties => "ListProperties",
            Self::CreateProperty => "CreateProperty",
            Self::ListSessions => "ListSessions",
            Self::Refresh => "Refresh",
            Self::LookUpForSignIn => "LookUpForSignIn",
            Self::BatchCheck => "BatchCheck of 100",
            Self::ListUsersDeepPage => "ListUsers, a deep page of 50",
            Self::SearchUsers => "ListUsers, a search by prefix",
        }
    }
}

/// Calls the services of one mesh.
#[derive(Debug, Clone)]
pub(crate) struct RpcClient {
    users: Arc<SeedUsers>,
    auth: AuthServiceClient<Channel>,
    user: UserServiceClient<Channel>,
    user_as_auth: UserServiceClient<Channel>,
    user_as_operator: UserServiceClient<Channel>,
    roles_as_property: RoleServiceClient<Channel>,
    session: SessionServiceClient<Channel>,
    property: PropertyServiceClient<Channel>,
}

impl RpcClient {
    pub(crate) fn new(processes: &MeshProcesses, users: SeedUsers) -> Result<Self> {
        Ok(Self {
            users: Arc::new(users),
            auth: AuthServiceClient::new(processes.channel("auth")?),
            user: UserServiceClient::new(processes.channel("user")?),
            user_as_auth: UserServiceClient::new(processes.channel_as("auth", "user")?),
            user_as_operator: UserServiceClient::new(processes.channel_as("operator", "user")?),
            roles_as_property: RoleServiceClient::new(processes.channel_as("property", "user")?),
            session: SessionServiceClient::new(processes.channel("session")?),
            property: PropertyServiceClient::new(processes.channel("property")?),
        })
    }

    /// See [`SeedUsers::active_users`].
    pub(crate) fn active_users(&self, count: u64, round: u64) -> Result<Arc<Vec<ActiveUser>>> {
        self.users.active_users(count, round).map(Arc::new)
    }

    /// Puts the users' tokens into the token cache of the service of `rpc`.
    ///
    /// Each token is sent once, in an invalid request: the service verifies the token, then rejects the request before
    /// it reads the store. So tokens are cached, and rows are not.
    pub(crate) async fn warm_up(&self, rpc: BenchRpc, active_users: &Arc<Vec<ActiveUser>>) -> Result<()> {
        let tasks: Vec<_> = (0..WARM_UP_TASKS)
            .map(|first| {
                let (client, active_users) = (self.clone(), active_users.clone());
                tokio::spawn(async move {
                    for active_user in active_users.iter().skip(first).step_by(WARM_UP_TASKS) {
                        client.clone().warm_up_one(rpc, active_user).await?;
                    }
                    Ok::<_, anyhow::Error>(())
                })
            })
            .collect();
        for task in tasks {
            task.await??;
        }
        Ok(())
    }

    async fn warm_up_one(mut self, rpc: BenchRpc, active_user: &ActiveUser) -> Result<()> {
        let invalid_id = GetUserRequest { id: "no id".to_owned() };
        let result = match rpc {
            BenchRpc::GetMe => self.user.get_user(with_token(invalid_id, active_user)).await.map(drop),
            BenchRpc::ListSessions => {
                let request = ListSessionsRequest { page_size: -1, ..ListSessionsRequest::default() };
                self.session.list_sessions(with_token(request, active_user)).await.map(drop)
            }
            BenchRpc::ListProperties | BenchRpc::CreateProperty => {
                let request = ListPropertiesRequest { page_size: -1, ..ListPropertiesRequest::default() };
                self.property.list_properties(with_token(request, active_user)).await.map(drop)
            }
            // Have no access token.
            BenchRpc::Refresh
            | BenchRpc::LookUpForSignIn
            | BenchRpc::BatchCheck
            | BenchRpc::ListUsersDeepPage
            | BenchRpc::SearchUsers => return Ok(()),
        };
        match result.map_err(|status: Status| (status.code(), status)) {
            Err((Code::InvalidArgument, _)) => Ok(()),
            Err((_, status)) => Err(status).context("warming up a token"),
            Ok(()) => bail!("an invalid request succeeded"),
        }
    }

    /// Runs `in_flight` concurrent calls for `time`, iterating over the users.
    ///
    /// The number of users must be divisible by `in_flight`, so that no two concurrent calls have the same user.
    pub(crate) async fn run(
        &self,
        rpc: BenchRpc,
        active_users: &Arc<Vec<ActiveUser>>,
        in_flight: usize,
        time: Duration,
    ) -> Result<LoadResult> {
        ensure!(active_users.len().is_multiple_of(in_flight), "concurrent calls would have the same user");
        let mut first = 0;
        load::closed_loop(in_flight, time, || {
            let (client, active_users) = (self.clone(), active_users.clone());
            let mut next = first;
            first += 1;
            move || {
                let (client, active_users, at) = (client.clone(), active_users.clone(), next % active_users.len());
                next += in_flight;
                async move { client.call(rpc, &active_users, at).await }
            }
        })
        .await
        .with_context(|| format!("calling {}", rpc.name()))
    }

    async fn call(mut self, rpc: BenchRpc, active_users: &[ActiveUser], at: usize) -> Result<()> {
        let active_user = active_users.get(at).context("no users")?;
        match rpc {
            BenchRpc::GetMe => {
                let response = self.user.get_me(with_token(GetMeRequest {}, active_user)).await?.into_inner();
                ensure!(!response.id.is_empty(), "no user");
            }
            BenchRpc::ListProperties => {
                let request = with_token(ListPropertiesRequest::default(), active_user);
                let response = self.property.list_properties(request).await?.into_inner();
                ensure!(!response.properties.is_empty(), "no properties");
            }
            BenchRpc::CreateProperty => {
                let request = CreatePropertyRequest { display_name: "Shed".to_owned(), ..Default::default() };
                self.property.create_property(with_token(request, active_user)).await?;
            }
            BenchRpc::ListSessions => {
                let request = with_token(ListSessionsRequest::default(), active_user);
                let response = self.session.list_sessions(request).await?.into_inner();
                ensure!(response.sessions.len() == 1, "{} sessions", response.sessions.len());
            }
            BenchRpc::Refresh => {
                let refresh_token = self.users.refresh_token(active_user.user)?;
                self.auth.refresh(RefreshRequest { refresh_token }).await?;
                self.users.refreshed(active_user.user)?;
            }
            BenchRpc::LookUpForSignIn => {
                let key = Some(Key::UserId(active_user.user.user_id().to_string()));
                let response =
                    self.user_as_auth.look_up_for_sign_in(LookUpForSignInRequest { key }).await?.into_inner();
                ensure!(!response.roles.is_empty(), "no roles");
            }
            BenchRpc::BatchCheck => {
                // Anywhere among all users, as those of a request are: not beside each other in an index.
                let stride = active_users.len() / 100;
                let users = active_users.iter().cycle().skip(at).step_by(stride.max(1)).take(100);
                let checks = users.map(|active_user| CheckPermissionRequest {
                    user_id: active_user.user.user_id().to_string(),
                    permission: "users:read".to_owned(),
                });
                let request = BatchCheckRequest { checks: checks.collect() };
                let response = self.roles_as_property.batch_check(request).await?.into_inner();
                ensure!(response.allowed.len() == 100, "{} results", response.allowed.len());
            }
            BenchRpc::ListUsersDeepPage => {
                let page_token = page::token(&operators_list(), &(String::new(), active_user.user.user_id()));
                let request = ListUsersRequest { page_token, ..ListUsersRequest::default() };
                self.user_as_operator.list_users(request).await?;
            }
            BenchRpc::SearchUsers => {
                let search = (10 + active_user.user.0 % 90).to_string();
                let request = ListUsersRequest { search, ..ListUsersRequest::default() };
                let response = self.user_as_operator.list_users(request).await?.into_inner();
                ensure!(!response.users.is_empty(), "nobody found");
            }
        }
        Ok(())
    }
}

/// The list of all users in their default order, as the service binds its page tokens.
pub(super) fn operators_list() -> List {
    ["", "", "", "operator"].into_iter().fold(List::new("users"), List::bound_to)
}

fn with_token<T>(message: T, active_user: &ActiveUser) -> Request<T> {
    let mut request = Request::new(message);
    request.metadata_mut().insert("authorization", active_user.bearer.clone());
    request
}
