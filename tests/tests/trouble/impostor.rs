//! What is on the control plane's port and is no control plane.

use anyhow::Result;
use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};
use tokio::{
    io::AsyncWriteExt,
    net::{TcpListener, TcpStream},
    sync::mpsc,
    task::JoinHandle,
};

/// What it does with a connection.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Conduct {
    /// Nothing at all.
    Silent,
    /// Sends bytes that mean nothing, and closes every other connection then.
    Noisy,
}

/// It accepts connections and keeps them, even when it has closed its port.
pub(crate) struct Impostor {
    accepted: Arc<AtomicUsize>,
    listening: JoinHandle<()>,
    /// The connections, open for as long as this is.
    _kept: mpsc::UnboundedReceiver<TcpStream>,
}

impl Impostor {
    pub(crate) async fn start(address: SocketAddr, conduct: Conduct) -> Result<Self> {
        let listener = TcpListener::bind(address).await?;
        let accepted = Arc::new(AtomicUsize::new(0));
        let (keep, kept) = mpsc::unbounded_channel();
        let count = accepted.clone();
        let listening = tokio::spawn(async move {
            while let Ok((mut connection, _)) = listener.accept().await {
                let number = count.fetch_add(1, Ordering::SeqCst);
                if conduct == Conduct::Noisy {
                    // Whoever is at the other end may be gone already.
                    let _ = connection.write_all(&noise(number)).await;
                    if number.is_multiple_of(2) {
                        continue;
                    }
                }
                let _ = keep.send(connection);
            }
        });
        Ok(Self { accepted, listening, _kept: kept })
    }

    /// Connections so far.
    pub(crate) fn connections(&self) -> usize {
        self.accepted.load(Ordering::SeqCst)
    }

    /// Leaves the port to another. What was accepted stays open.
    pub(crate) async fn close(&mut self) {
        self.listening.abort();
        // The port is free when the task is gone.
        let _ = (&mut self.listening).await;
    }
}

/// 4 KB that look like chance; for odd numbers, after what an HTTP/2 server says first.
fn noise(seed: usize) -> Vec<u8> {
    let settings = [0, 0, 0, 4, 0, 0, 0, 0, 0];
    let mut state = seed as u64 ^ 0x9e37_79b9_7f4a_7c15;
    let random = std::iter::repeat_with(|| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()[3]
    });
    let begin = if seed % 4 < 2 { &settings[..] } else { &[] };
    begin.iter().copied().chain(random.take(4_096)).collect()
}
