//! gRPC clients of every service instance, without the edge.

use drystone::{
    Reason,
    auth::v1::{SignOutRequest, auth_service_client::AuthServiceClient},
    property::v1::{ListPropertiesRequest, property_service_client::PropertyServiceClient},
    session::v1::{ListSessionsRequest, session_service_client::SessionServiceClient},
    user::v1::{GetMeRequest, user_service_client::UserServiceClient},
};
use drystone_tests::{
    Cluster, Tokens,
    grpc::{assert_refused, with_token},
};
use tonic::{Status, transport::Channel};

/// Channels to each instance of each service, with the certificate of the edge.
pub(crate) struct DirectClients(Vec<[Channel; 4]>);

impl DirectClients {
    pub(crate) fn connect(cluster: &Cluster) -> Self {
        let instances = 0..cluster.instances();
        let services = ["auth", "user", "session", "property"];
        Self(instances.map(|number| services.map(|service| cluster.channel(service, number, "edge"))).collect())
    }

    /// Asserts that each instance accepts the token, which also fills its token cache.
    pub(crate) async fn assert_accepted(&self, tokens: &Tokens) {
        for [_, user, session, property] in &self.0 {
            for answer in call_each(user, session, property, tokens).await {
                answer.unwrap();
            }
        }
    }

    /// Whether each instance accepts the token. None says that it is invalid; one that is just fetching its key is unavailable.
    pub(crate) async fn is_accepted_everywhere(&self, tokens: &Tokens) -> bool {
        let mut is_accepted = true;
        for [_, user, session, property] in &self.0 {
            for answer in call_each(user, session, property, tokens).await {
                if answer.is_err() {
                    assert_refused(answer, Reason::Unavailable);
                    is_accepted = false;
                }
            }
        }
        is_accepted
    }

    /// Asserts that each instance refuses the token as revoked.
    pub(crate) async fn assert_revoked(&self, tokens: &Tokens) {
        for [auth, user, session, property] in &self.0 {
            for answer in call_each(user, session, property, tokens).await {
                assert_refused(answer, Reason::TokenRevoked);
            }
            let sign_out = with_token(SignOutRequest::default(), &tokens.access);
            assert_refused(AuthServiceClient::new(auth.clone()).sign_out(sign_out).await, Reason::TokenRevoked);
        }
    }

    /// Whether each instance refuses the token.
    pub(crate) async fn is_refused_everywhere(&self, tokens: &Tokens) -> bool {
        for [_, user, session, property] in &self.0 {
            for answer in call_each(user, session, property, tokens).await {
                if answer.is_ok() {
                    return false;
                }
            }
        }
        true
    }
}

async fn call_each(user: &Channel, session: &Channel, property: &Channel, tokens: &Tokens) -> [Result<(), Status>; 3] {
    let (mut user, mut session) = (UserServiceClient::new(user.clone()), SessionServiceClient::new(session.clone()));
    let mut property = PropertyServiceClient::new(property.clone());
    let token = &tokens.access;
    [
        user.get_me(with_token(GetMeRequest::default(), token)).await.map(drop),
        session.list_sessions(with_token(ListSessionsRequest::default(), token)).await.map(drop),
        property.list_properties(with_token(ListPropertiesRequest::default(), token)).await.map(drop),
    ]
}
