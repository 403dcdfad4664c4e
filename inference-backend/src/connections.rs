//! Takes connections, of HTTP/1.1 and HTTP/2 alike, and bounds what each may hold.

pub mod idle;

use self::idle::{Attended, Roll, Seat};
use anyhow::bail;
use axum::Router;
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    server::{conn::auto::Builder, graceful::GracefulShutdown},
    service::TowerToHyperService,
};
use std::{io, num::NonZeroUsize, sync::Arc, time::Duration};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{sleep, timeout},
};

/// Most that is read of a connection over HTTP/1.1 ahead of who asks for it; so large may the head of a request be.
const READ_AHEAD: usize = 64 << 10;
/// Most that a connection over HTTP/2 may send ahead of who reads it, on all its streams together.
const WINDOW: u32 = 1 << 20;
/// Most requests at once on a connection over HTTP/2.
const STREAMS: u32 = 256;
/// How long a connection must have had nothing to do before it gives way to others. What is left of an answer by then, its
/// client does not read.
const IDLE: Duration = Duration::from_secs(5);
/// How often it is looked for one that can give way, while there is no place.
const LOOK: Duration = Duration::from_millis(100);
/// How long to wait when the system has no more connections to give.
const OUT_OF_FILES: Duration = Duration::from_millis(500);

/// How connections are taken.
#[derive(Clone, Copy, Debug)]
pub struct Connections {
    /// Most at once; when there are more, those give way that have nothing to do, or else they wait.
    pub most: NonZeroUsize,
    /// How long requests that have begun may take to finish at the end.
    pub finish: Duration,
}

impl Connections {
    /// Serves until `stop` is done; then takes no more connections and finishes what has begun.
    ///
    /// # Errors
    /// When requests in flight do not finish in time.
    pub async fn serve(
        self,
        listener: TcpListener,
        router: Router,
        stop: impl Future<Output = ()>,
    ) -> anyhow::Result<()> {
        let http = builder();
        let open = GracefulShutdown::new();
        let places = Arc::new(Semaphore::new(self.most.get().min(Semaphore::MAX_PERMITS)));
        let roll = Arc::new(Roll::default());
        let mut stop = std::pin::pin!(stop);
        loop {
            let (stream, place) = tokio::select! {
                taken = take(&listener, &places, &roll) => taken,
                () = &mut stop => break,
            };
            let seat = Seat::new(&roll);
            let service =
                TowerToHyperService::new(Attended { router: router.clone(), seat: Arc::clone(&seat) });
            let connection = http.serve_connection(TokioIo::new(stream), service).into_owned();
            let connection = open.watch(connection);
            tokio::spawn(async move {
                tokio::select! {
                    // A client that breaks off is no news.
                    ended = connection => if let Err(error) = ended {
                        tracing::debug!(error, "a connection ended");
                    },
                    () = seat.dismissed() => tracing::debug!("a connection that had nothing to do was closed"),
                }
                drop(place);
            });
        }
        drop(listener);
        // Who has sent half a request would hold up the end.
        let dismissal = async {
            loop {
                while roll.dismiss(IDLE) {}
                sleep(LOOK).await;
            }
        };
        let finished = async {
            tokio::select! {
                () = open.shutdown() => {}
                () = dismissal => {}
            }
        };
        if timeout(self.finish, finished).await.is_err() {
            bail!("requests did not finish within {} s", self.finish.as_secs());
        }
        Ok(())
    }
}

fn builder() -> Builder<TokioExecutor> {
    let mut http = Builder::new(TokioExecutor::new());
    http.http1().max_buf_size(READ_AHEAD);
    http.http2()
        .initial_connection_window_size(WINDOW)
        .initial_stream_window_size(WINDOW)
        .max_concurrent_streams(STREAMS);
    http
}

/// The next connection, once there is a place for it.
async fn take(
    listener: &TcpListener,
    places: &Arc<Semaphore>,
    roll: &Roll,
) -> (TcpStream, Option<OwnedSemaphorePermit>) {
    let stream = accept(listener).await;
    let mut free = std::pin::pin!(Arc::clone(places).acquire_owned());
    loop {
        if let Ok(place) = timeout(LOOK, &mut free).await {
            // It is never closed.
            return (stream, place.ok());
        }
        roll.dismiss(IDLE);
    }
}

async fn accept(listener: &TcpListener) -> TcpStream {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                // Small answers are not to wait for a full packet.
                if let Err(error) = stream.set_nodelay(true) {
                    tracing::debug!(%error, "cannot set TCP_NODELAY");
                }
                return stream;
            }
            Err(error) if is_the_clients(&error) => {}
            Err(error) => {
                tracing::warn!(%error, "cannot take a connection");
                sleep(OUT_OF_FILES).await;
            }
        }
    }
}

/// Whether it was the client that gave up before it was taken.
fn is_the_clients(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset)
}
