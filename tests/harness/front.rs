//! What stands before several edges: hands each call to the next of them, and past one that is not there.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use crate::{Answer, Call, Rest};

/// The edges. Clones take turns together.
#[derive(Debug, Clone)]
pub struct Front {
    edges: Arc<[Rest]>,
    turn: Arc<AtomicUsize>,
}

impl Front {
    /// Before these.
    #[must_use]
    pub fn new(edges: impl IntoIterator<Item = Rest>) -> Self {
        Self { edges: edges.into_iter().collect(), turn: Arc::default() }
    }

    /// The edge whose turn it is.
    #[must_use]
    pub fn next(&self) -> Rest {
        self.edge(self.turn.fetch_add(1, Ordering::Relaxed))
    }

    fn edge(&self, turn: usize) -> Rest {
        self.edges[turn % self.edges.len()]
    }

    /// Makes a call at the edge whose turn it is, or at the next where nobody listens.
    ///
    /// # Errors
    /// If there is no whole answer.
    pub async fn try_send(&self, call: Call) -> Result<Answer, Box<dyn std::error::Error + Send + Sync>> {
        let first = self.turn.fetch_add(1, Ordering::Relaxed);
        let others = self.edges.len() - 1;
        for turn in first..first + others {
            let answer = call.clone().at(self.edge(turn)).try_send().await;
            if !answer.as_ref().is_err_and(|error| is_nobody(error.as_ref())) {
                return answer;
            }
        }
        call.at(self.edge(first + others)).try_send().await
    }

    /// The same.
    ///
    /// # Panics
    /// If there is no whole answer.
    pub async fn send(&self, call: Call) -> Answer {
        let what = format!("{call:?}");
        self.try_send(call).await.unwrap_or_else(|error| panic!("{what} was not answered: {error}"))
    }
}

fn is_nobody(error: &(dyn std::error::Error + 'static)) -> bool {
    error.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::ConnectionRefused)
}
