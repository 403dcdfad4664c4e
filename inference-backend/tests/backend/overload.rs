//! More requests than sessions and queue can hold.

use crate::support::{Server, committed_models, held_out, request};
use reqwest::StatusCode;
use std::sync::{Arc, mpsc};

#[tokio::test]
async fn a_full_queue_refuses_and_recovers() {
    let server = Arc::new(Server::start(&committed_models(), &["digits:2"], 1, 1, 1 << 20).await);
    let model = Arc::clone(server.app.models.find("digits", None).unwrap());

    // The only session is busy until the test lets go.
    let (release, released) = mpsc::channel::<()>();
    let (begin, begun) = tokio::sync::oneshot::channel();
    let busy = tokio::spawn(async move {
        model
            .pool()
            .run(move |_| {
                begin.send(()).unwrap();
                let _ = released.recv();
            })
            .await
    });
    begun.await.unwrap();

    // Of two more, one waits and one is refused; which, the network decides.
    let infer = |server: Arc<Server>| async move {
        server.post("/v2/models/digits/infer", request(&held_out()[..1])).await
    };
    let mut answers = tokio::task::JoinSet::new();
    answers.spawn(infer(Arc::clone(&server)));
    answers.spawn(infer(Arc::clone(&server)));
    let refused = answers.join_next().await.unwrap().unwrap();
    assert_eq!(refused.error(429), "digits:2 is overloaded: its queue is full; try again later");
    assert_eq!(refused.header("retry-after"), "1");
    assert_eq!(refused.header("x-halftone-model"), "digits:2");
    // It still says that it lives: being busy is no reason to be restarted.
    assert_eq!(server.get("/v2/health/ready").await.status, StatusCode::OK);

    drop(release);
    busy.await.unwrap().unwrap();
    let waited = answers.join_next().await.unwrap().unwrap();
    assert_eq!(waited.output("label").len(), 1);
    assert_eq!(infer(server).await.output("label").len(), 1);
}
