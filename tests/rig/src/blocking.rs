//! Waiting for a future in blocking code, wherever that runs.

use anyhow::{Context, Result};

/// Runs a future to its end on a thread of its own: a runtime cannot be started on a thread that already drives one, and
/// a test may well be async.
pub(crate) fn block_on<T: Send>(future: impl Future<Output = Result<T>> + Send) -> Result<T> {
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.context("cannot start a runtime")?.block_on(future)
        });
        match thread.join() {
            Ok(result) => result,
            Err(panic) => std::panic::resume_unwind(panic),
        }
    })
}
