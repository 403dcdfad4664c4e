//! Work that takes longer than others should wait.

use crate::failure::Failure;

/// Bytes that are read or written in about the time that it takes to hand work to another thread.
const SMALL: usize = 32 << 10;

/// Does work on so many bytes: here, or where it keeps nobody waiting when it is much.
///
/// # Errors
/// What the work says, or that it panicked.
pub async fn offload<T: Send + 'static>(
    bytes: usize,
    work: impl FnOnce() -> Result<T, Failure> + Send + 'static,
) -> Result<T, Failure> {
    if bytes <= SMALL {
        return work();
    }
    let panicked = |_| Failure::Internal("a request's reading or writing panicked".into());
    tokio::task::spawn_blocking(work).await.map_err(panicked)?
}
