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
    /// The far side knows that there is something to take.
    notified: bool,
}

impl Shared {
    pub(crate) fn new(core: Core, notify: Arc<dyn Notify>) -> Shared {
        let (timeout_ms, stays) = (core.options().timeout_ms, core.options().stays);
        let inner = Inner { core, wakers: Vec::new(), notified: false };
        Shared { inner: Mutex::new(inner), notify, gone: AtomicBool::new(false), timeout_ms, stays }
    }

    /// Works on the core, then wakes whoever became ready and notifies the far side.
    fn with<R>(&self, work: impl FnOnce(&mut Inner) -> R) -> R {
        let mut inner = self.inner.lock().expect("the core does not panic under its lock");
        let result = work(&mut inner);
        let Inner { core, wakers, .. } = &mut *inner;
        let ready = core.take_ready();
        let woken: Vec<Waker> =
            ready.filter_map(|ticket| wakers.get_mut(ticket.index())?.take()).collect();
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

    pub(crate) fn abandon(&self, ticket: Ticket) {
        self.with(|inner| {
            inner.core.abandon(ticket);
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
