//! The body of a response that came through a circuit breaker.

use super::Ticket;
use crate::outcome::{Outcome, code_in, status_of};
use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;
use std::{
    pin::Pin,
    task::{Context, Poll, ready},
};

pin_project! {
    /// The body of a response that came through a circuit breaker: the service's, or what the breaker says instead.
    #[derive(Debug)]
    pub struct BreakerBody<B> {
        // The service's.
        #[pin]
        body: Option<B>,
        // Told how the request went at the end of the service's body, unless that was known before.
        ticket: Option<Ticket>,
        // What the breaker says.
        text: Option<Bytes>,
    }
}

impl<B> BreakerBody<B> {
    pub(super) fn of_service(body: B, ticket: Option<Ticket>) -> Self {
        Self { body: Some(body), ticket, text: None }
    }

    pub(super) fn of_breaker(text: Option<Bytes>) -> Self {
        Self { body: None, ticket: None, text }
    }
}

impl<B: Body<Data = Bytes>> Body for BreakerBody<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        let this = self.project();
        let Some(body) = this.body.as_pin_mut() else {
            return Poll::Ready(this.text.take().map(|text| Ok(Frame::data(text))));
        };
        let frame = ready!(body.poll_frame(context));
        // What ends without a code was cut off.
        let outcome = match &frame {
            Some(Ok(frame)) => frame.trailers_ref().map(|trailers| {
                code_in(trailers).map_or(Outcome::Error, |code| Outcome::of(status_of(code)))
            }),
            Some(Err(_)) | None => Some(Outcome::Error),
        };
        if let Some(outcome) = outcome
            && let Some(ticket) = this.ticket.take()
        {
            ticket.finish(outcome);
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        match &self.body {
            Some(body) => body.is_end_stream(),
            None => self.text.is_none(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.body {
            Some(body) => body.size_hint(),
            None => SizeHint::with_exact(self.text.as_ref().map_or(0, |text| text.len() as u64)),
        }
    }
}
