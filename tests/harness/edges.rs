//! Client-side load balancing over several edges.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use crate::{RestClient, RestRequest, RestResponse};

/// Sends each call to the next edge, round robin. Clones share the position.
#[derive(Debug, Clone)]
pub struct Edges {
    edges: Arc<[RestClient]>,
    next: Arc<AtomicUsize>,
}

impl Edges {
    /// Balances over these edges.
    #[must_use]
    pub fn new(edges: impl IntoIterator<Item = RestClient>) -> Self {
        Self { edges: edges.into_iter().collect(), next: Arc::default() }
    }

    /// The next edge.
    #[must_use]
    pub fn next(&self) -> RestClient {
        self.edge(self.next.fetch_add(1, Ordering::Relaxed))
    }

    fn edge(&self, index: usize) -> RestClient {
        self.edges[index % self.edges.len()]
    }

    /// Sends a call to the next edge, or to the one after it where the connection is refused.
    ///
    /// # Errors
    /// If there is no complete response.
    pub async fn try_send(&self, call: RestRequest) -> Result<RestResponse, Box<dyn std::error::Error + Send + Sync>> {
        let first = self.next.fetch_add(1, Ordering::Relaxed);
        let last = first + self.edges.len() - 1;
        for index in first..last {
            let answer = call.clone().to_server(self.edge(index)).try_send().await;
            if !answer.as_ref().is_err_and(|error| is_connection_refused(error.as_ref())) {
                return answer;
            }
        }
        call.to_server(self.edge(last)).try_send().await
    }

    /// Sends a call like [`Self::try_send`].
    ///
    /// # Panics
    /// If there is no complete response.
    pub async fn send(&self, call: RestRequest) -> RestResponse {
        let text = format!("{call:?}");
        self.try_send(call).await.unwrap_or_else(|error| panic!("no response to {text}: {error}"))
    }
}

fn is_connection_refused(error: &(dyn std::error::Error + 'static)) -> bool {
    error.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::ConnectionRefused)
}
