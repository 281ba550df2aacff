//! One client's core behind its lock, with the wakers of those who wait; shared by handles, futures
//! and the link.
//!
//! Nobody is woken and the far side is not notified while the lock is held.

use crate::Error;
use crate::core::{Core, NamespaceKey, Numbers, Request, Ticket};
use crate::transport::Notify;
use bytes::Bytes;
use naust_wire::message::Refusal;
use naust_wire::packet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Poll, Waker};

/// Puts the bytes of a request behind others; see [`Core::poll`].
pub(crate) type Encode = Box<dyn FnMut(&Numbers, &mut Vec<u8>) -> Result<(), Refusal> + Send>;

/// See the module.
pub(crate) struct Shared {
    inner: Mutex<Inner>,
    notify: Arc<dyn Notify>,
    gone: AtomicBool,
    /// Milliseconds that a request may take.
    timeout_ms: u64,
    /// As the option says.
    stays: bool,
}

struct Inner {
    core: Core,
    /// By the index of a ticket.
    wakers: Vec<Option<Waker>>,
    /// Of requests that are sent, and sent again, though nobody awaits them; by the index of their
    /// tickets.
    drivers: Vec<Option<(Ticket, Encode)>>,
    /// The far side knows that there is something to take.
    notified: bool,
}

impl Shared {
    pub(crate) fn new(core: Core, notify: Arc<dyn Notify>) -> Shared {
        let (timeout_ms, stays) = (core.options().timeout_ms, core.options().stays);
        let inner = Inner { core, wakers: Vec::new(), drivers: Vec::new(), notified: false };
        Shared { inner: Mutex::new(inner), notify, gone: AtomicBool::new(false), timeout_ms, stays }
    }

    /// Works on the core, then wakes whoever became ready and notifies the far side.
    fn with<R>(&self, work: impl FnOnce(&mut Inner) -> R) -> R {
        let mut inner = self.inner.lock().expect("the core does not panic under its lock");
        let result = work(&mut inner);
        let woken = inner.move_on();
        let notify = inner.core.has_outgoing() && !std::mem::replace(&mut inner.notified, true);
        if !inner.core.has_outgoing() {
            inner.notified = false;
        }
        drop(inner);
        for waker in woken {
            waker.wake();
        }
        if notify {
            self.notify.notify();
        }
        result
    }

    /// Begins a request that has no ticket yet, and polls it, under one lock. Once it is ready its
    /// ticket has ended.
    pub(crate) fn poll(
        &self,
        ticket: &mut Option<Ticket>,
        request: Request,
        waker: &Waker,
        encode: impl FnMut(&Numbers, &mut Vec<u8>) -> Result<(), Refusal>,
    ) -> Poll<Result<Bytes, Error>> {
        self.with(|inner| {
            let ticket = match *ticket {
                Some(ticket) => ticket,
                None => match inner.core.begin(request) {
                    Ok(begun) => *ticket.insert(begun),
                    Err(error) => return Poll::Ready(Err(error)),
                },
            };
            match inner.core.poll(ticket, encode) {
                Some(result) => Poll::Ready(result),
                None => {
                    inner.register(ticket, waker);
                    Poll::Pending
                }
            }
        })
    }

    /// Begins a request that is sent as soon as it may be, and again if need be, whether anybody
    /// awaits it or not.
    pub(crate) fn drive(&self, request: Request, mut encode: Encode) -> Result<Ticket, Error> {
        self.with(|inner| {
            let ticket = inner.core.begin(request)?;
            inner.core.drive(ticket, &mut encode);
            let index = ticket.index();
            if index >= inner.drivers.len() {
                inner.drivers.resize_with(index + 1, || None);
            }
            inner.drivers[index] = Some((ticket, encode));
            Ok(ticket)
        })
    }

    /// Polls a request that was begun by [`Shared::drive`]. Once it is ready its ticket has ended.
    pub(crate) fn poll_driven(&self, ticket: Ticket, waker: &Waker) -> Poll<Result<Bytes, Error>> {
        self.with(|inner| {
            let driver = inner.drivers[ticket.index()].as_mut();
            let (_, encode) = driver.expect("a ticket has its driver until it ends");
            match inner.core.poll(ticket, encode) {
                Some(result) => {
                    inner.drivers[ticket.index()] = None;
                    Poll::Ready(result)
                }
                None => {
                    inner.register(ticket, waker);
                    Poll::Pending
                }
            }
        })
    }

    pub(crate) fn abandon(&self, ticket: Ticket) {
        self.with(|inner| {
            inner.core.abandon(ticket);
            if let Some(driver) = inner.drivers.get_mut(ticket.index())
                && driver.as_ref().is_some_and(|(of, _)| *of == ticket)
            {
                *driver = None;
            }
            if let Some(waker) = inner.wakers.get_mut(ticket.index()) {
                *waker = None;
            }
        });
    }

    pub(crate) fn hold_namespace(&self, name: &str) -> NamespaceKey {
        self.with(|inner| inner.core.hold_namespace(name))
    }

    pub(crate) fn release_namespace(&self, key: NamespaceKey) {
        self.with(|inner| inner.core.release_namespace(key));
    }

    pub(crate) fn timeout_ms(&self) -> u64 {
        self.timeout_ms
    }

    pub(crate) fn stays(&self) -> bool {
        self.stays
    }

    pub(crate) fn up(&self) {
        self.with(|inner| inner.core.up());
    }

    pub(crate) fn take(&self, bytes: &mut Vec<u8>) -> bool {
        self.with(|inner| inner.core.take_outgoing(bytes))
    }

    pub(crate) fn deliver(&self, bytes: &Bytes) -> Result<(), packet::Bad> {
        self.with(|inner| inner.core.deliver(bytes))
    }

    pub(crate) fn tick(&self, now_ms: u64) {
        self.with(|inner| inner.core.tick(now_ms));
    }

    pub(crate) fn is_busy(&self) -> bool {
        self.with(|inner| inner.core.is_busy())
    }

    pub(crate) fn is_welcome(&self) -> bool {
        self.with(|inner| inner.core.is_welcome())
    }

    pub(crate) fn down(&self, why: &str) {
        self.with(|inner| inner.core.down(why));
    }

    pub(crate) fn close(&self) {
        self.with(|inner| inner.core.close());
    }

    /// The server is none, or none for this client: everything ends, now and later.
    pub(crate) fn refuse(&self, error: Error) {
        self.with(|inner| inner.core.close_for(error));
    }

    pub(crate) fn take_hint(&self) -> Option<String> {
        self.with(|inner| inner.core.take_hint())
    }

    pub(crate) fn take_addresses(&self) -> Option<Vec<String>> {
        self.with(|inner| inner.core.take_addresses())
    }

    pub(crate) fn ask_cluster(&self) {
        self.with(|inner| inner.core.ask_cluster());
    }

    pub(crate) fn is_leaving(&self) -> bool {
        self.with(|inner| inner.core.is_leaving())
    }

    pub(crate) fn may_move(&self) -> bool {
        self.with(|inner| inner.core.may_move())
    }

    /// The last handle was dropped.
    pub(crate) fn leave(&self) {
        self.gone.store(true, Ordering::Release);
        self.notify.notify();
    }

    pub(crate) fn is_gone(&self) -> bool {
        self.gone.load(Ordering::Acquire)
    }
}

impl Inner {
    /// Sends what became ready and is driven; gives those who wait for the rest.
    fn move_on(&mut self) -> Vec<Waker> {
        let mut woken = Vec::new();
        let mut ready: Vec<Ticket> = self.core.take_ready().collect();
        while !ready.is_empty() {
            for ticket in ready.drain(..) {
                if let Some(Some((of, encode))) = self.drivers.get_mut(ticket.index())
                    && *of == ticket
                {
                    self.core.drive(ticket, encode);
                }
                woken.extend(self.wakers.get_mut(ticket.index()).and_then(Option::take));
            }
            ready.extend(self.core.take_ready());
        }
        woken
    }

    fn register(&mut self, ticket: Ticket, waker: &Waker) {
        let index = ticket.index();
        if index >= self.wakers.len() {
            self.wakers.resize_with(index + 1, || None);
        }
        match &mut self.wakers[index] {
            Some(known) => known.clone_from(waker),
            none => *none = Some(waker.clone()),
        }
    }
}
