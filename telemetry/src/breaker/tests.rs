//! The layer around real services. Waiting is never a part of it: an open circuit stays so for an hour or for no time.

use super::*;
use axum::{Router, body::Body, extract::Path, http::StatusCode, response::Response, routing::any};
use bytes::Bytes;
use http::{HeaderMap, Request};
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use std::{
    convert::Infallible,
    future::{pending, poll_fn},
    pin::pin,
    sync::atomic::{AtomicUsize, Ordering},
    task::Poll,
};
use tokio::net::TcpListener;
use tonic::{Code, Status, transport::Channel};
use tonic_health::pb::{HealthCheckRequest, health_client::HealthClient};
use tower_layer::Layer;
use tower_service::Service;

const HOUR: Duration = Duration::from_secs(3600);

fn number(n: u32) -> NonZeroU32 {
    NonZeroU32::new(n).unwrap()
}

/// Opens after two failures in a row.
fn breaker(open: Duration, patience: Duration) -> Arc<Breaker> {
    let policy = Policy { consecutive: number(2), probes: number(1), open, patience, ..Policy::default() };
    Breaker::new("it", policy)
}

/// A service that answers `/503` with 503 and so on, and counts what reaches it.
fn statuses(breaker: &Arc<Breaker>) -> (Router, Arc<AtomicUsize>) {
    let reached = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&reached);
    let answer = move |Path(status): Path<u16>| {
        counted.fetch_add(1, Ordering::Relaxed);
        async move {
            if status == 0 {
                pending::<()>().await;
            }
            StatusCode::from_u16(status).unwrap()
        }
    };
    let router = Router::new().route("/{status}", any(answer)).layer(BreakerLayer::new(Arc::clone(breaker)));
    (router, reached)
}

async fn ask(router: &mut Router, status: u16) -> Response {
    let request = Request::get(format!("/{status}")).body(Body::empty()).unwrap();
    Service::<Request<Body>>::call(router, request).await.unwrap()
}

#[tokio::test]
async fn an_axum_service_is_left_alone_when_it_fails_too_often() {
    let breaker = breaker(HOUR, HOUR);
    let (mut router, reached) = statuses(&breaker);
    for status in [500, 404, 503, 200, 502, 504, 429] {
        assert_eq!(ask(&mut router, status).await.status(), status);
        assert_eq!(breaker.state(), State::Closed);
    }
    for status in [500, 503] {
        assert_eq!(ask(&mut router, status).await.status(), status);
    }
    assert_eq!((breaker.state(), reached.load(Ordering::Relaxed)), (State::Open, 9));
    let refused = ask(&mut router, 200).await;
    assert_eq!(
        (refused.status().as_u16(), &refused.headers()["retry-after"]),
        (503, &"3600".parse().unwrap())
    );
    let text = refused.into_body().collect().await.unwrap().to_bytes();
    assert_eq!(text, "left alone for a while after too many failures; try again later");
    assert_eq!(reached.load(Ordering::Relaxed), 9);
}

#[tokio::test]
async fn a_few_requests_say_whether_it_is_well_again() {
    let breaker = breaker(Duration::ZERO, HOUR);
    let (mut router, reached) = statuses(&breaker);
    // The last one finds it half-open, and opens it again.
    for status in [500, 500, 500] {
        assert_eq!(ask(&mut router, status).await.status(), status);
    }
    assert_eq!(breaker.state(), State::Open);
    // One that takes its time is the only one.
    let mut slow = router.clone();
    let mut slow = Box::pin(ask(&mut slow, 0));
    assert!(poll_fn(|context| Poll::Ready(pin!(&mut slow).poll(context))).await.is_pending());
    assert_eq!(breaker.state(), State::HalfOpen);
    let before = reached.load(Ordering::Relaxed);
    let refused = ask(&mut router, 200).await;
    assert_eq!((refused.status().as_u16(), &refused.headers()["retry-after"]), (503, &"1".parse().unwrap()));
    assert_eq!(reached.load(Ordering::Relaxed), before);
    // It leaves, which says nothing; the next one succeeds.
    drop(slow);
    assert_eq!(breaker.state(), State::HalfOpen);
    assert_eq!(ask(&mut router, 200).await.status(), 200);
    assert_eq!(breaker.state(), State::Closed);
}

#[tokio::test]
async fn running_out_of_time_counts_when_there_was_enough_of_it() {
    for (patience, expected) in [(HOUR, State::Closed), (Duration::ZERO, State::Open)] {
        let breaker = breaker(HOUR, patience);
        let (mut router, _) = statuses(&breaker);
        ask(&mut router, 504).await;
        // Who leaves before the answer.
        let mut left = Box::pin(ask(&mut router, 0));
        assert!(poll_fn(|context| Poll::Ready(pin!(&mut left).poll(context))).await.is_pending());
        drop(left);
        assert_eq!(breaker.state(), expected);
    }
}

/// Serves on a port of its own; says which.
async fn serve(router: Router) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(axum::serve(listener, router).into_future());
    format!("http://{address}")
}

async fn check<S>(service: S) -> Result<(), Status>
where
    S: tonic::client::GrpcService<tonic::body::Body, Error: Into<tonic::codegen::StdError>>,
    S::ResponseBody:
        http_body::Body<Data = Bytes, Error: Into<tonic::codegen::StdError> + Send> + Send + 'static,
{
    let request = HealthCheckRequest { service: "nobody".into() };
    HealthClient::new(service).check(request).await.map(|_| ())
}

/// A server of gRPC that breaks off in the middle of an answer, or ends it so.
fn ends(trailers: Option<&'static str>) -> Router {
    let answer = async move || {
        // A whole message, of no bytes.
        let message = Ok(Frame::data(Bytes::from_static(&[0; 5])));
        let end = match trailers {
            Some(status) => {
                Ok(Frame::trailers(HeaderMap::from_iter([(Status::GRPC_STATUS, status.parse().unwrap())])))
            }
            None => Err("broken"),
        };
        let body = Body::new(StreamBody::new(tokio_stream::iter([message, end])));
        Response::builder().header("content-type", "application/grpc").body(body).unwrap()
    };
    Router::new().fallback(answer)
}

#[tokio::test]
async fn a_tonic_channel_sees_the_status_in_the_trailers() {
    for (trailers, code, is_failure) in [
        (Some("0"), Code::Ok, false),
        (Some("13"), Code::Internal, true),
        (Some("2"), Code::Unknown, true),
        (Some("14"), Code::Unavailable, true),
        (Some("5"), Code::NotFound, false),
        (Some("8"), Code::ResourceExhausted, false),
        // It ran out of time sooner than that would say anything.
        (Some("4"), Code::DeadlineExceeded, false),
        (None, Code::Internal, true),
    ] {
        let url = serve(ends(trailers)).await;
        let breaker = breaker(HOUR, HOUR);
        let channel = Channel::from_shared(url).unwrap().connect_lazy();
        let service = BreakerLayer::new(Arc::clone(&breaker)).layer(channel);
        for _ in 0..2 {
            assert_eq!(breaker.state(), State::Closed);
            assert_eq!(check(service.clone()).await.err().map_or(Code::Ok, |status| status.code()), code);
        }
        let expected = if is_failure { State::Open } else { State::Closed };
        assert_eq!(breaker.state(), expected, "{trailers:?}");
    }
}

#[tokio::test]
async fn a_tonic_channel_to_nowhere_is_refused_at_once() {
    let breaker = breaker(HOUR, HOUR);
    // A port that was free a moment ago.
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let channel = Channel::from_shared(format!("http://{free}")).unwrap().connect_lazy();
    let service = BreakerLayer::new(Arc::clone(&breaker)).layer(channel);
    for _ in 0..2 {
        assert_eq!(check(service.clone()).await.unwrap_err().code(), Code::Unavailable);
    }
    assert_eq!(breaker.state(), State::Open);
    let refused = check(service).await.unwrap_err();
    assert_eq!(refused.code(), Code::Unavailable);
    assert_eq!(refused.message(), "left alone for a while after too many failures; try again later");
    assert_eq!(refused.metadata().get("retry-after").unwrap(), "3600");
    assert_eq!(refused.metadata().get("grpc-retry-pushback-ms").unwrap(), "3600000");
}

#[tokio::test]
async fn a_tonic_server_is_left_alone_too() {
    let breaker = breaker(HOUR, HOUR);
    let (_, health) = tonic_health::server::health_reporter();
    let incoming = tonic::transport::server::TcpIncoming::bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let url = format!("http://{}", incoming.local_addr().unwrap());
    let server = tonic::transport::Server::builder()
        .layer(BreakerLayer::new(Arc::clone(&breaker)))
        .add_service(health)
        .serve_with_incoming(incoming);
    tokio::spawn(server);
    let channel = Channel::from_shared(url).unwrap().connect_lazy();
    // Answers that the service gives, in heads and in trailers, are no failures.
    for _ in 0..3 {
        assert_eq!(check(channel.clone()).await.unwrap_err().code(), Code::NotFound);
    }
    for _ in 0..2 {
        breaker.enter().unwrap().finish(Outcome::Error);
    }
    let refused = check(channel).await.unwrap_err();
    assert_eq!(
        (refused.code(), refused.message()),
        (Code::Unavailable, "left alone for a while after too many failures; try again later")
    );
}

#[tokio::test]
async fn errors_of_the_service_are_failures() {
    #[derive(Clone)]
    struct Fails(Status);
    impl Service<Request<()>> for Fails {
        type Response = http::Response<http_body_util::Empty<Bytes>>;
        type Error = Status;
        type Future = std::future::Ready<Result<Self::Response, Status>>;
        fn poll_ready(&mut self, _: &mut std::task::Context<'_>) -> Poll<Result<(), Status>> {
            Poll::Ready(Ok(()))
        }
        fn call(&mut self, _: Request<()>) -> Self::Future {
            std::future::ready(Err(self.0.clone()))
        }
    }
    for (status, expected) in
        [(Status::unavailable("gone"), State::Open), (Status::deadline_exceeded("late"), State::Closed)]
    {
        let breaker = breaker(HOUR, HOUR);
        let mut service = BreakerLayer::new(Arc::clone(&breaker)).layer(Fails(status.clone()));
        for _ in 0..2 {
            assert_eq!(service.call(Request::new(())).await.map(|_| ()).unwrap_err().code(), status.code());
        }
        assert_eq!(breaker.state(), expected);
    }
}

#[test]
fn an_infallible_service_stays_so() {
    fn is_infallible<S: Service<Request<Body>, Error = Infallible>>(_: &S) {}
    is_infallible(&BreakerLayer::new(breaker(HOUR, HOUR)).layer(Router::<()>::new()));
}
