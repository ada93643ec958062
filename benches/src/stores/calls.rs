//! The calls that are measured: gRPC over mutual TLS, straight to the service, with the edge's certificate and a user's
//! token.

use std::{sync::Arc, time::Duration};

use anyhow::{Context, Result, bail, ensure};
use drystone::{
    auth::v1::{RefreshRequest, auth_service_client::AuthServiceClient},
    property::v1::{CreatePropertyRequest, ListPropertiesRequest, property_service_client::PropertyServiceClient},
    session::v1::{ListSessionsRequest, session_service_client::SessionServiceClient},
    user::v1::{GetMeRequest, GetUserRequest, user_service_client::UserServiceClient},
};
use tonic::{Code, Request, Status, transport::Channel};

use super::{
    fleet::Fleet,
    people::{People, Visitor},
};
use crate::load::{self, Figures};

/// How many callers warm tokens up at a time.
const WARMERS: usize = 16;

/// What is called.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Rpc {
    GetMe,
    ListProperties,
    CreateProperty,
    ListSessions,
    /// Auth asks user and property, and then session: the whole chain.
    Refresh,
}

impl Rpc {
    /// Its name.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::GetMe => "GetMe",
            Self::ListProperties => "ListProperties",
            Self::CreateProperty => "CreateProperty",
            Self::ListSessions => "ListSessions",
            Self::Refresh => "Refresh",
        }
    }
}

/// Calls the services of one mesh.
#[derive(Debug, Clone)]
pub(crate) struct Caller {
    people: Arc<People>,
    auth: AuthServiceClient<Channel>,
    user: UserServiceClient<Channel>,
    session: SessionServiceClient<Channel>,
    property: PropertyServiceClient<Channel>,
}

impl Caller {
    pub(crate) fn new(fleet: &Fleet, people: People) -> Result<Self> {
        Ok(Self {
            people: Arc::new(people),
            auth: AuthServiceClient::new(fleet.channel("auth")?),
            user: UserServiceClient::new(fleet.channel("user")?),
            session: SessionServiceClient::new(fleet.channel("session")?),
            property: PropertyServiceClient::new(fleet.channel("property")?),
        })
    }

    /// So many users: see [`People::visitors`].
    pub(crate) fn visitors(&self, count: u64, turn: u64) -> Result<Arc<Vec<Visitor>>> {
        self.people.visitors(count, turn).map(Arc::new)
    }

    /// Lets the service of `rpc` verify their tokens.
    ///
    /// Each token is shown once, in a call that the service refuses for its content after it has verified the token, and
    /// before it asks its store: tokens are warm then, and rows are not.
    pub(crate) async fn warm(&self, rpc: Rpc, visitors: &Arc<Vec<Visitor>>) -> Result<()> {
        let warmers: Vec<_> = (0..WARMERS)
            .map(|first| {
                let (caller, visitors) = (self.clone(), visitors.clone());
                tokio::spawn(async move {
                    for visitor in visitors.iter().skip(first).step_by(WARMERS) {
                        caller.clone().warm_one(rpc, visitor).await?;
                    }
                    Ok::<_, anyhow::Error>(())
                })
            })
            .collect();
        for warmer in warmers {
            warmer.await??;
        }
        Ok(())
    }

    async fn warm_one(mut self, rpc: Rpc, visitor: &Visitor) -> Result<()> {
        let no_id = GetUserRequest { id: "no id".to_owned() };
        let refused = match rpc {
            Rpc::GetMe => self.user.get_user(with_token(no_id, visitor)).await.map(drop),
            Rpc::ListSessions => {
                let request = ListSessionsRequest { page_size: -1, ..ListSessionsRequest::default() };
                self.session.list_sessions(with_token(request, visitor)).await.map(drop)
            }
            Rpc::ListProperties | Rpc::CreateProperty => {
                let request = ListPropertiesRequest { page_size: -1, ..ListPropertiesRequest::default() };
                self.property.list_properties(with_token(request, visitor)).await.map(drop)
            }
            // It is called without one.
            Rpc::Refresh => return Ok(()),
        };
        match refused.map_err(|status: Status| (status.code(), status)) {
            Err((Code::InvalidArgument, _)) => Ok(()),
            Err((_, status)) => Err(status).context("warming a token up"),
            Ok(()) => bail!("a call that should be refused was not"),
        }
    }

    /// Keeps so many calls going for so long, each for the next of the visitors.
    ///
    /// The number of visitors has to be divisible by that of the calls, so that no two callers meet the same one.
    pub(crate) async fn run(
        &self,
        rpc: Rpc,
        visitors: &Arc<Vec<Visitor>>,
        in_flight: usize,
        time: Duration,
    ) -> Result<Figures> {
        ensure!(visitors.len().is_multiple_of(in_flight), "callers would meet the same users");
        let mut first = 0;
        load::closed_loop(in_flight, time, || {
            let (caller, visitors) = (self.clone(), visitors.clone());
            let mut next = first;
            first += 1;
            move || {
                let (caller, visitors, at) = (caller.clone(), visitors.clone(), next % visitors.len());
                next += in_flight;
                async move { caller.call(rpc, visitors.get(at).context("no visitors")?).await }
            }
        })
        .await
        .with_context(|| format!("calling {}", rpc.name()))
    }

    async fn call(mut self, rpc: Rpc, visitor: &Visitor) -> Result<()> {
        match rpc {
            Rpc::GetMe => {
                let answer = self.user.get_me(with_token(GetMeRequest {}, visitor)).await?.into_inner();
                ensure!(!answer.id.is_empty(), "no user");
            }
            Rpc::ListProperties => {
                let request = with_token(ListPropertiesRequest::default(), visitor);
                let answer = self.property.list_properties(request).await?.into_inner();
                ensure!(!answer.properties.is_empty(), "no properties");
            }
            Rpc::CreateProperty => {
                let request = CreatePropertyRequest { display_name: "Shed".to_owned(), ..Default::default() };
                self.property.create_property(with_token(request, visitor)).await?;
            }
            Rpc::ListSessions => {
                let request = with_token(ListSessionsRequest::default(), visitor);
                let answer = self.session.list_sessions(request).await?.into_inner();
                ensure!(answer.sessions.len() == 1, "{} sessions", answer.sessions.len());
            }
            Rpc::Refresh => {
                let refresh_token = self.people.refresh_token(visitor.person)?;
                self.auth.refresh(RefreshRequest { refresh_token }).await?;
                self.people.refreshed(visitor.person)?;
            }
        }
        Ok(())
    }
}

fn with_token<T>(message: T, visitor: &Visitor) -> Request<T> {
    let mut request = Request::new(message);
    request.metadata_mut().insert("authorization", visitor.bearer.clone());
    request
}
