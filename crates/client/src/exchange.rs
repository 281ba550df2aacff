//! One request as a future.

use crate::Error;
use crate::core::{Numbers, Request, Ticket};
use crate::shared::Shared;
use bytes::Bytes;
use naust_wire::message::Refusal;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

/// Sends a request when it is first polled, and gives the body of the reply, which is no `Error`.
///
/// It may be dropped at any time: what was not sent never will be; of what was sent the reply is
/// still consumed, and a commit's sequence settled.
pub(crate) struct Exchange<E> {
    shared: Arc<Shared>,
    request: Request,
    encode: E,
    ticket: Option<Ticket>,
}

impl<E> Exchange<E>
where
    E: FnMut(&Numbers, &mut Vec<u8>) -> Result<(), Refusal> + Unpin,
{
    pub(crate) fn new(shared: &Arc<Shared>, request: Request, encode: E) -> Exchange<E> {
        Exchange { shared: Arc::clone(shared), request, encode, ticket: None }
    }

    /// Sends without waiting, if it can be sent now. What fails at once is told when the future is
    /// polled.
    pub(crate) fn start(&mut self) -> Option<Result<Bytes, Error>> {
        match self.poll_once(Waker::noop()) {
            Poll::Ready(result) => Some(result),
            Poll::Pending => None,
        }
    }

    fn poll_once(&mut self, waker: &Waker) -> Poll<Result<Bytes, Error>> {
        let polled = self.shared.poll(&mut self.ticket, self.request, waker, &mut self.encode);
        if polled.is_ready() {
            self.ticket = None;
        }
        polled
    }
}

impl<E> Future for Exchange<E>
where
    E: FnMut(&Numbers, &mut Vec<u8>) -> Result<(), Refusal> + Unpin,
{
    type Output = Result<Bytes, Error>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        self.poll_once(context.waker())
    }
}

impl<E> Drop for Exchange<E> {
    fn drop(&mut self) {
        if let Some(ticket) = self.ticket {
            self.shared.abandon(ticket);
        }
    }
}
