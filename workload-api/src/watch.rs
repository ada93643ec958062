//! Follows the stream of X.509 contexts of an agent.

use std::{sync::Arc, time::Duration};

use drystone_mesh::backoff::Backoff;
use futures_util::{Stream, StreamExt as _};
use spiffe::{WorkloadApiClient, WorkloadApiError, X509Context};
use tokio::time::{sleep, timeout};
use tracing::{info, warn};

use crate::{context::Credentials, failure::Failure, source::Shared};

/// How long a connection may take to deliver its first context.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);

/// The bounds of the backoff between streams. A new entry is noticed by the next one.
const MIN_BACKOFF: Duration = Duration::from_millis(200);
const MAX_BACKOFF: Duration = Duration::from_secs(5);

/// Follows the agent until the task is aborted.
pub(crate) async fn watch(shared: Arc<Shared>) {
    let mut backoff = Backoff::new(MIN_BACKOFF, MAX_BACKOFF);
    loop {
        let failure = follow(&shared, &mut backoff).await;
        let delay = backoff.failed();
        if backoff.is_lasting() {
            warn!(
                endpoint = %shared.endpoint,
                id = %shared.id,
                loaded = shared.is_loaded(),
                cause = failure.cause(),
                "no stream of certificates"
            );
        }
        shared.publish(Err(failure));
        sleep(delay).await;
    }
}

/// Follows one stream, and returns why it ended.
async fn follow(shared: &Shared, backoff: &mut Backoff) -> Failure {
    let (_client, mut contexts) = match timeout(ANSWER_TIMEOUT, open(shared)).await {
        Ok(Ok(opened)) => opened,
        Ok(Err(error)) => return Failure::of(&error),
        Err(_) => return Failure::Unavailable(format!("no answer within {ANSWER_TIMEOUT:?}")),
    };
    while let Some(context) = contexts.next().await {
        match context {
            Ok(context) => {
                if backoff.succeeded() {
                    info!(endpoint = %shared.endpoint, id = %shared.id, "stream of certificates recovered");
                }
                shared.publish(Credentials::select(&context, &shared.id));
            }
            Err(error) if ends_stream(&error) => return Failure::of(&error),
            Err(error) => shared.publish(Err(Failure::of(&error))),
        }
    }
    Failure::Unavailable("the agent closed the stream".to_owned())
}

/// Whether the error is the status of the call. Any other is of one context.
fn ends_stream(error: &WorkloadApiError) -> bool {
    use WorkloadApiError::{NoIdentityIssued, PermissionDenied, Transport};
    matches!(error, NoIdentityIssued | PermissionDenied(_) | Transport(_))
}

/// Connects, and waits for the first context. The client holds the connection.
async fn open(
    shared: &Shared,
) -> Result<
    (WorkloadApiClient, impl Stream<Item = Result<X509Context, WorkloadApiError>> + Unpin + Send + 'static),
    WorkloadApiError,
> {
    let client = WorkloadApiClient::connect(shared.endpoint.to_client()).await?;
    let mut contexts = client.stream_x509_contexts().await?.peekable();
    std::pin::Pin::new(&mut contexts).peek().await;
    Ok((client, contexts))
}
