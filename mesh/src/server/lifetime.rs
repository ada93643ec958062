//! The end of a connection: graceful when it is to be replaced, at once when it must not go on.

use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::acceptor::PeerConnection;
use crate::{
    connections::Usage,
    identity::{ConnectionEnd, ConnectionLifetime},
    node::Node,
};

/// How long the last messages of streams may take.
const FLUSH_TIMEOUT: Duration = Duration::from_millis(100);

/// Within which time connections are replaced after a root has been removed, at random: not all at once.
const MAX_DISTRUST_DELAY: Duration = Duration::from_secs(10);

/// The lifetime of a new connection.
pub(super) fn of(connection: &PeerConnection, node: &Node, max_age: Option<Duration>) -> ConnectionLifetime {
    let (own, peer) = (connection.own(), connection.peer().svid);
    let lifetime = ConnectionLifetime::new(node.identity.clone(), &own.svid, own.generation, peer, node.clock.clone());
    match max_age {
        // At random, so that connections opened at once are not replaced at once.
        Some(age) => lifetime.with_max_age(age.mul_f64(1.0 - fastrand::f64() / 10.0)),
        None => lifetime,
    }
}

/// Waits until the connection must be dropped, and returns the cause. Before that, it is closed gracefully when it is to be
/// replaced: calls complete, and streams go on until it must end. Then they end with a status.
pub(super) async fn limit(lifetime: ConnectionLifetime, usage: &Usage, streams: &CancellationToken) -> ConnectionEnd {
    let replace = async {
        let distrusted = async {
            lifetime.distrusted().await;
            tokio::time::sleep(MAX_DISTRUST_DELAY.mul_f64(fastrand::f64())).await;
        };
        tokio::select! {
            () = lifetime.old() => {}
            () = distrusted => {}
        }
        usage.close();
    };
    let end = tokio::select! {
        end = lifetime.ended() => end,
        // Its calls complete, and its streams go on.
        end = async { replace.await; lifetime.ended().await } => end,
    };
    streams.cancel();
    if end != ConnectionEnd::Denied {
        tokio::time::sleep(FLUSH_TIMEOUT).await;
    }
    end
}
