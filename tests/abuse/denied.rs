//! Denied calls: any number of them leaves the connection and its other calls alone.

use std::sync::Arc;

use bytes::Bytes;
use drystone::{Reason, user::v1::GetMeRequest, user::v1::user_service_client::UserServiceClient};
use drystone_tests::{Mesh, User, attacks::raw, bad_tokens, grpc};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::sync::Semaphore;

use crate::beside_load;

/// Concurrent calls of the attacker.
const IN_FLIGHT: usize = 64;

/// A token that was right and has expired.
async fn expired_token(mesh: &Mesh) -> Arc<str> {
    let good = bad_tokens::GoodToken::of(mesh).await;
    let bad = bad_tokens::bad_claims(&good).into_iter().find(|bad| bad.name.contains("expired a minute ago")).unwrap();
    bad.token.into()
}

/// Without a token, through one connection of the edge: the connection stays open, and the edge's own connections too.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn anonymous_requests_with_bodies_end_no_connection() {
    const REQUESTS: usize = 10_000;
    let mesh = Mesh::start();
    let address = mesh.rest().address();
    beside_load(&mesh, async || {
        let stream = TokioIo::new(raw::connect(address).await);
        let (sender, connection) = http2::handshake(TokioExecutor::new(), stream).await.unwrap();
        let connection = tokio::spawn(connection);
        let slots = Arc::new(Semaphore::new(IN_FLIGHT));
        let body = Bytes::from(vec![b'x'; 2000]);
        for _ in 0..REQUESTS {
            let slot = slots.clone().acquire_owned().await.unwrap();
            let (mut sender, body) = (sender.clone(), body.clone());
            tokio::spawn(async move {
                let request = http::Request::post("http://edge/v1/properties").body(Full::new(body)).unwrap();
                let response = sender.send_request(request).await.expect("the connection is kept");
                assert_eq!(response.status(), 401);
                response.into_body().collect().await.unwrap();
                drop(slot);
            });
        }
        let _all = slots.acquire_many(u32::try_from(IN_FLIGHT).unwrap()).await.unwrap();
        assert!(!connection.is_finished());
    })
    .await;
}

/// A hundred times as many calls without a token, or with an expired one, as reset streams would end a connection: as a workload, through
/// the connection on which another call is made before and after.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn denied_calls_of_a_workload_end_no_connection() {
    const CALLS: usize = 100_000;
    let mesh = Mesh::start();
    let (_, tokens) = User::signed_in(&mesh).await;
    let client = UserServiceClient::new(mesh.channel("user", "edge"));
    let me = || client.clone();
    let own = me().get_me(grpc::with_token(GetMeRequest {}, &tokens.access)).await.unwrap().into_inner();
    let expired = expired_token(&mesh).await;
    beside_load(&mesh, async || {
        let slots = Arc::new(Semaphore::new(IN_FLIGHT));
        for number in 0..CALLS {
            let slot = slots.clone().acquire_owned().await.unwrap();
            let (mut client, expired) = (me(), Arc::clone(&expired));
            tokio::spawn(async move {
                if number % 2 == 0 {
                    grpc::assert_refused(client.get_me(GetMeRequest {}).await, Reason::TokenMissing);
                } else {
                    let request = grpc::with_token(GetMeRequest {}, &expired);
                    grpc::assert_refused(client.get_me(request).await, Reason::TokenExpired);
                }
                drop(slot);
            });
        }
        let _all = slots.acquire_many(u32::try_from(IN_FLIGHT).unwrap()).await.unwrap();
    })
    .await;
    let again = me().get_me(grpc::with_token(GetMeRequest {}, &tokens.access)).await.unwrap().into_inner();
    assert_eq!(own, again);
}
