//! One request as a future.

use crate::Error;
use crate::core::{Numbers, Request, Ticket};
use crate::shared::{Encode, Shared};
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

/// One request that is under way whether it is awaited or not.
pub(crate) struct Driven {
    shared: Arc<Shared>,
    ticket: Option<Ticket>,
}

impl Driven {
    /// Begins it; it is sent at once if it may be.
    pub(crate) fn new(
        shared: &Arc<Shared>,
        request: Request,
        encode: Encode,
    ) -> Result<Driven, Error> {
        let ticket = shared.drive(request, encode)?;
        Ok(Driven { shared: Arc::clone(shared), ticket: Some(ticket) })
    }
}

impl Future for Driven {
    type Output = Result<Bytes, Error>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let ticket = self.ticket.expect("a future is not polled after its end");
        let polled = self.shared.poll_driven(ticket, context.waker());
        if polled.is_ready() {
            self.ticket = None;
        }
        polled
    }
}

impl Drop for Driven {
    fn drop(&mut self) {
        if let Some(ticket) = self.ticket {
            self.shared.abandon(ticket);
        }
    }
}

impl<E> Drop for Exchange<E> {
    fn drop(&mut self) {
        if let Some(ticket) = self.ticket {
            self.shared.abandon(ticket);
        }
    }
}
