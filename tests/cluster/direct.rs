//! Straight to the services, past the edges.

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

/// Straight to each instance of each service, as an edge would call it.
pub(crate) struct Direct(Vec<[Channel; 4]>);

impl Direct {
    pub(crate) fn to(cluster: &Cluster) -> Self {
        let instances = 0..cluster.instances();
        let services = ["auth", "user", "session", "property"];
        Self(instances.map(|number| services.map(|service| cluster.channel(service, number, "edge"))).collect())
    }

    /// Each instance takes the token, and remembers that it did.
    pub(crate) async fn takes(&self, tokens: &Tokens) {
        for [_, user, session, property] in &self.0 {
            for answer in asked(user, session, property, tokens).await {
                answer.unwrap();
            }
        }
    }

    /// Each instance refuses the token as revoked.
    pub(crate) async fn refuses(&self, tokens: &Tokens) {
        for [auth, user, session, property] in &self.0 {
            for answer in asked(user, session, property, tokens).await {
                assert_refused(answer, Reason::TokenRevoked);
            }
            let sign_out = with_token(SignOutRequest::default(), &tokens.access);
            assert_refused(AuthServiceClient::new(auth.clone()).sign_out(sign_out).await, Reason::TokenRevoked);
        }
    }

    /// Whether each instance refuses the token as revoked by now.
    pub(crate) async fn has_refused(&self, tokens: &Tokens) -> bool {
        for [_, user, session, property] in &self.0 {
            for answer in asked(user, session, property, tokens).await {
                if answer.is_ok() {
                    return false;
                }
            }
        }
        true
    }
}

async fn asked(user: &Channel, session: &Channel, property: &Channel, tokens: &Tokens) -> [Result<(), Status>; 3] {
    let (mut user, mut session) = (UserServiceClient::new(user.clone()), SessionServiceClient::new(session.clone()));
    let mut property = PropertyServiceClient::new(property.clone());
    let token = &tokens.access;
    [
        user.get_me(with_token(GetMeRequest::default(), token)).await.map(drop),
        session.list_sessions(with_token(ListSessionsRequest::default(), token)).await.map(drop),
        property.list_properties(with_token(ListPropertiesRequest::default(), token)).await.map(drop),
    ]
}
