//! Commits: collecting one, and sending it.

use crate::client::{decode, repeat_of, unexpected};
use crate::core::{Identity, Numbers, Request};
use crate::exchange::{Driven, Exchange};
use crate::shared::Encode;
use crate::{Error, IntoBytes, Namespace};
use bytes::Bytes;
use naust_wire::Offset;
use naust_wire::commit::Draft;
use naust_wire::message::Refusal;
use naust_wire::packet::Kind;
use naust_wire::reply::{Committed, Reply};
use std::borrow::Cow;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

/// A commit being collected, in a chain: `commit.put("users", key, value).append("orders",
/// record)`. All of it happens, or nothing. What is wrong with it (a bad name, too many names) is
/// told when it is sent.
#[derive(Clone, Debug, Default)]
pub struct Commit<'a> {
    draft: Draft<'a>,
    refusal: Option<Refusal>,
}

impl<'a> Commit<'a> {
    /// Nothing yet.
    #[must_use]
    pub fn new() -> Commit<'a> {
        Commit::default()
    }

    /// Puts a row.
    #[must_use]
    pub fn put(
        self,
        keyspace: impl Into<Cow<'a, str>>,
        key: impl IntoBytes<'a>,
        value: impl IntoBytes<'a>,
    ) -> Commit<'a> {
        self.with(|draft| draft.put(keyspace, key.into_bytes(), value.into_bytes()))
    }

    /// Removes a row.
    #[must_use]
    pub fn delete(self, keyspace: impl Into<Cow<'a, str>>, key: impl IntoBytes<'a>) -> Commit<'a> {
        self.with(|draft| draft.delete(keyspace, key.into_bytes()))
    }

    /// Removes the rows in `from` (inclusive) to `to` (exclusive; `None`: to the end), at most
    /// 10,000; the reply says where to go on.
    #[must_use]
    pub fn delete_range(
        self,
        keyspace: impl Into<Cow<'a, str>>,
        from: impl IntoBytes<'a>,
        to: Option<Cow<'a, [u8]>>,
    ) -> Commit<'a> {
        self.with(|draft| draft.delete_range(keyspace, from.into_bytes(), to))
    }

    /// Appends a record to a stream.
    #[must_use]
    pub fn append(self, stream: impl Into<Cow<'a, str>>, value: impl IntoBytes<'a>) -> Commit<'a> {
        self.with(|draft| draft.append(stream, value.into_bytes()))
    }

    /// Moves a cursor of a stream.
    #[must_use]
    pub fn advance(
        self,
        stream: impl Into<Cow<'a, str>>,
        cursor: impl Into<Cow<'a, str>>,
        offset: Offset,
    ) -> Commit<'a> {
        self.with(|draft| draft.advance(stream, cursor, offset))
    }

    /// Only if the row's version is exactly `offset` (zero: the row is absent).
    #[must_use]
    pub fn if_version(
        self,
        keyspace: impl Into<Cow<'a, str>>,
        key: impl IntoBytes<'a>,
        offset: Offset,
    ) -> Commit<'a> {
        self.with(|draft| draft.version(keyspace, key.into_bytes(), offset))
    }

    /// Only if there is no such row.
    #[must_use]
    pub fn if_absent(
        self,
        keyspace: impl Into<Cow<'a, str>>,
        key: impl IntoBytes<'a>,
    ) -> Commit<'a> {
        self.with(|draft| draft.absent(keyspace, key.into_bytes()))
    }

    /// Only if no key in `from` (inclusive) to `to` (exclusive; `None`: to the end) was written
    /// after `since`.
    #[must_use]
    pub fn if_unchanged(
        self,
        keyspace: impl Into<Cow<'a, str>>,
        from: impl IntoBytes<'a>,
        to: Option<Cow<'a, [u8]>>,
        since: Offset,
    ) -> Commit<'a> {
        self.with(|draft| draft.unchanged(keyspace, from.into_bytes(), to, since))
    }

    /// The draft.
    ///
    /// # Errors
    /// What was wrong with the first bad step of the chain.
    pub fn into_draft(self) -> Result<Draft<'a>, Refusal> {
        match self.refusal {
            None => Ok(self.draft),
            Some(refusal) => Err(refusal),
        }
    }

    fn with(mut self, add: impl FnOnce(&mut Draft<'a>) -> Result<(), Refusal>) -> Commit<'a> {
        if self.refusal.is_none() {
            self.refusal = add(&mut self.draft).err();
        }
        self
    }
}

impl Namespace {
    /// Commits what `collect` adds to an empty [`Commit`].
    ///
    /// # Errors
    /// `ConditionFailed` (see [`Error::is_conflict`]), what is wrong with the commit,
    /// `SessionExpired` when the session ended while this commit was in doubt, `TimedOut` and the
    /// like.
    pub async fn commit<'a>(
        &self,
        collect: impl FnOnce(Commit<'a>) -> Commit<'a>,
    ) -> Result<Committed, Error> {
        let draft = collect(Commit::new()).into_draft()?;
        self.commit_draft(&draft, Identity::Client).await
    }

    /// Commits a draft under an identity of the caller's choice.
    ///
    /// # Errors
    /// As [`Namespace::commit`].
    pub async fn commit_draft(
        &self,
        draft: &Draft<'_>,
        identity: Identity,
    ) -> Result<Committed, Error> {
        let request = self.commit_request(identity);
        let encode = |numbers: &Numbers, out: &mut Vec<u8>| encode_commit(draft, numbers, out);
        let body = Exchange::new(self.client().shared(), request, encode).await?;
        committed(&body)
    }

    /// Sends a commit before anybody awaits it: at once, if the connection, the session and its
    /// window allow, else as soon as they do. When a connection is lost, or a server refuses it for
    /// now, it is sent again by itself. So one thread can keep many under way: submit them all,
    /// then await them one by one.
    ///
    /// A session has a window of [`SESSION_WINDOW_MAX`](naust_wire::limits::SESSION_WINDOW_MAX)
    /// commits whose replies were not taken: those beyond are sent as the first ones are awaited.
    /// What is wrong with a commit is told when it is awaited. Dropping what this returns gives up
    /// the reply, not the commit, unless it was not sent yet.
    pub fn submit(&self, commit: Commit<'static>) -> Submitted {
        let draft = match commit.into_draft() {
            Ok(draft) => draft,
            Err(refusal) => return Submitted { state: Progress::Ended(Some(Err(refusal.into()))) },
        };
        let request = self.commit_request(Identity::Client);
        let encode: Encode = Box::new(move |numbers, out| encode_commit(&draft, numbers, out));
        let state = match Driven::new(self.client().shared(), request, encode) {
            Ok(driven) => Progress::Running { driven, _namespace: self.clone() },
            Err(error) => Progress::Ended(Some(Err(error))),
        };
        Submitted { state }
    }

    fn commit_request(&self, identity: Identity) -> Request {
        Request { identity, ..self.request(Kind::Commit, repeat_of(&identity)) }
    }
}

fn encode_commit(draft: &Draft<'_>, numbers: &Numbers, out: &mut Vec<u8>) -> Result<(), Refusal> {
    draft.encode(numbers.session, numbers.sequence, numbers.acked_below, out)
}

pub(crate) fn committed(body: &[u8]) -> Result<Committed, Error> {
    match decode(body)? {
        Reply::Committed(committed) => Ok(committed),
        other => Err(unexpected(&other)),
    }
}

/// A commit that was [submitted](Namespace::submit): the future of its reply.
#[must_use = "the reply says whether it happened"]
pub struct Submitted {
    state: Progress,
}

enum Progress {
    Running { driven: Driven, _namespace: Namespace },
    Ended(Option<Result<Bytes, Error>>),
}

impl Future for Submitted {
    type Output = Result<Committed, Error>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let result = match &mut self.state {
            Progress::Running { driven, .. } => match Pin::new(driven).poll(context) {
                Poll::Ready(result) => result,
                Poll::Pending => return Poll::Pending,
            },
            Progress::Ended(result) => result.take().expect("a future is not polled after its end"),
        };
        self.state = Progress::Ended(None);
        Poll::Ready(result.and_then(|body| committed(&body)))
    }
}
