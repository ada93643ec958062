//! Who is on another machine, as it were: all share the cores of this one, and have priorities accordingly.

use std::{future::Future, thread};

use anyhow::{Result, anyhow};
use tokio::runtime::{Builder, Runtime};

const ATTACKER_NICENESS: i32 = 19;
/// Takes privileges.
const CALLER_NICENESS: i32 = -15;

/// Where attackers run: they take what the mesh leaves.
pub(crate) fn attackers() -> Result<Runtime> {
    let mut runtime = Builder::new_multi_thread();
    runtime.enable_all().worker_threads(2).on_thread_start(|| {
        // Nobody needs a right to be nice.
        set_priority(ATTACKER_NICENESS);
    });
    Ok(runtime.build()?)
}

/// Runs a caller whose times are measured, on a thread of its own: it does not wait for a core, nor for other clients.
pub(crate) async fn caller<T, F>(work: impl FnOnce() -> F + Send + 'static) -> Result<T>
where
    T: Send + 'static,
    F: Future<Output = Result<T>>,
{
    let caller = thread::spawn(move || {
        if !set_priority(CALLER_NICENESS) {
            eprintln!(
                "the caller may not have a high priority, and waits for a core like all others: its times are longer"
            );
        }
        Builder::new_current_thread().enable_all().build()?.block_on(work())
    });
    let result = tokio::task::spawn_blocking(move || caller.join()).await?;
    result.map_err(|_| anyhow!("the caller panicked"))?
}

/// Sets the priority of this thread; returns false if that is not allowed.
fn set_priority(niceness: i32) -> bool {
    rustix::process::setpriority_process(Some(rustix::thread::gettid()), niceness).is_ok()
}
