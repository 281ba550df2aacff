//! A namespace: everything in it shares one order and can be committed together.

use crate::client::unexpected;
use crate::core::{About, Identity, NamespaceKey, Repeat, Request};
use crate::{Client, Error, Kv, Stream, Transaction};
use naust_wire::control::Control;
use naust_wire::packet::Kind;
use naust_wire::read::{Level, Named, Query};
use naust_wire::reply::{self, Reply};
use naust_wire::{Offset, SessionId};
use std::sync::Arc;

/// A handle of a namespace. Cheap to clone.
#[derive(Clone)]
pub struct Namespace {
    handle: Arc<Handle>,
}

struct Handle {
    client: Client,
    key: NamespaceKey,
    name: String,
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.client.shared().release_namespace(self.key);
    }
}

/// What a namespace has.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Description {
    /// As of this offset.
    pub at: Offset,
    /// The history reaches back to here.
    pub floor: Offset,
    /// Its keyspaces.
    pub keyspaces: Vec<reply::Keyspace>,
    /// Its streams.
    pub streams: Vec<reply::Stream>,
    /// What the following page begins with, if there is one.
    pub next: Option<Named>,
}

/// A piece of the log: whole committed frames.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Frames {
    /// Where `data` begins.
    pub first: Offset,
    /// Raw frames, as `naust_wire::frame` reads them.
    pub data: Vec<u8>,
    /// Where to read on.
    pub next: Offset,
    /// Where the committed log ends.
    pub end: Offset,
}

impl Namespace {
    pub(crate) fn new(client: &Client, name: &str) -> Namespace {
        let key = client.shared().hold_namespace(name);
        let handle = Handle { client: client.clone(), key, name: name.to_owned() };
        Namespace { handle: Arc::new(handle) }
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.handle.name
    }

    /// The client it is reached through.
    #[must_use]
    pub fn client(&self) -> &Client {
        &self.handle.client
    }

    /// A keyspace. It is made by its first put, or by [`Kv::set_options`].
    #[must_use]
    pub fn kv(&self, keyspace: &str) -> Kv {
        Kv::new(self, keyspace)
    }

    /// A stream. It is made by its first append, or by [`Stream::set_options`].
    #[must_use]
    pub fn stream(&self, stream: &str) -> Stream {
        Stream::new(self, stream)
    }

    /// A transaction: reads at one offset, and writes that are committed only if nothing that was
    /// read has changed.
    #[must_use]
    pub fn transaction(&self) -> Transaction {
        Transaction::new(self)
    }

    /// All its keyspaces and streams, read page by page: each as it was when its page was read, and
    /// none is missing that was there before. `at` and `floor` are the last page's.
    ///
    /// # Errors
    /// `NamespaceNotFound` and the like.
    pub async fn describe(&self) -> Result<Description, Error> {
        let mut all = self.describe_page(None, 0).await?;
        while let Some(from) = all.next.take() {
            let page = self.describe_page(Some(from), 0).await?;
            all.keyspaces.extend(page.keyspaces);
            all.streams.extend(page.streams);
            (all.at, all.floor, all.next) = (page.at, page.floor, page.next);
        }
        Ok(all)
    }

    /// A page of its keyspaces and then its streams, each in the order in which they were made:
    /// from `from` on (`None`: from the first), at most `limit` of both together; 0: the default of
    /// 1,000. There may be fewer, though more follow: [`Description::next`] tells it.
    ///
    /// # Errors
    /// `KeyspaceNotFound` or `StreamNotFound` when there is no `from`, `TooLarge` when `limit` is
    /// above 10,000, `NamespaceNotFound` and the like.
    pub async fn describe_page(
        &self,
        from: Option<Named>,
        limit: u32,
    ) -> Result<Description, Error> {
        match self.read(Level::Linearizable, Query::Describe { from, limit }).await? {
            Reply::Described { at, floor, keyspaces, streams, next } => {
                Ok(Description { at, floor, keyspaces, streams, next })
            }
            other => Err(unexpected(&other)),
        }
    }

    /// Whole committed frames of the log from `from` on: at most about `max_bytes` (0: the
    /// default), but at least one frame if there is one; waits up to `wait_ms` for the first.
    ///
    /// # Errors
    /// `OffsetTrimmed` when `from` lies below what is kept, `BadArgument` when no frame begins
    /// there.
    pub async fn log(&self, from: Offset, max_bytes: u32, wait_ms: u32) -> Result<Frames, Error> {
        self.log_at(from, max_bytes, wait_ms, Level::Linearizable).await
    }

    /// The same, as fresh as `level` says: [`Level::Local`] for the log of the replica that is
    /// asked.
    ///
    /// # Errors
    /// As [`Namespace::log`].
    pub async fn log_at(
        &self,
        from: Offset,
        max_bytes: u32,
        wait_ms: u32,
        level: Level,
    ) -> Result<Frames, Error> {
        let query = Query::Log { from, max_bytes, wait_ms };
        match self.read(level, query).await? {
            Reply::Frames { first, data, next, end } => Ok(Frames { first, data, next, end }),
            other => Err(unexpected(&other)),
        }
    }

    /// Has all replicas note the digests of their views as of one entry of the log, at the offset
    /// that is returned. Ask each for them with [`Namespace::digests`]: what differs should not.
    ///
    /// One is under way at a time, and then there is a pause of a second: others wait for their
    /// turn, as the client does whenever a node is overloaded.
    ///
    /// # Errors
    /// `Overloaded`, `Unavailable`, `DiskFull` and the like.
    pub async fn note_digests(&self) -> Result<Offset, Error> {
        self.client().note_digests_of(self.about()).await
    }

    /// What the replica that is asked has noted at `at`, of each of its views. A replica keeps the
    /// last few times, and forgets them when it starts anew.
    ///
    /// # Errors
    /// `OffsetTrimmed` when it has noted nothing there, or not any more; `Unavailable` when the
    /// node that is asked has no replica, or one that is closed.
    pub async fn digests(&self, at: Offset) -> Result<Vec<reply::ViewDigest>, Error> {
        self.client().digests_of(self.about(), at).await
    }

    /// Opens a session for a caller that counts his commits himself; see
    /// [`crate::Identity::Explicit`]. It ends after `ttl_ms` of log time without a commit; 0: after
    /// the default.
    ///
    /// # Errors
    /// `BadArgument` when `ttl_ms` is too long, and the like.
    pub async fn open_session(&self, ttl_ms: u64) -> Result<SessionId, Error> {
        self.client().session(self.about(), ttl_ms).await
    }

    /// Ends a session.
    ///
    /// # Errors
    /// `SessionExpired` when there is none, and the like.
    pub async fn close_session(&self, session: SessionId) -> Result<Offset, Error> {
        self.client().end_session(self.about(), session).await
    }

    /// A control entry that is answered with the offset it was applied at.
    pub(crate) async fn set(&self, control: Control, identity: Identity) -> Result<Offset, Error> {
        self.client().set(self.about(), control, identity).await
    }

    pub(crate) async fn read(&self, level: Level, query: Query) -> Result<Reply, Error> {
        self.client().read(self.about(), level, query).await
    }

    pub(crate) fn request(&self, kind: Kind, repeat: Repeat) -> Request {
        self.client().request(kind, self.about(), repeat)
    }

    fn about(&self) -> About {
        About::Namespace(self.handle.key)
    }
}
