//! The client itself: what is asked of nodes and of the directory, and the way to namespaces.

use crate::core::{About, Core, Identity, Numbers, Repeat, Request};
use crate::exchange::Exchange;
use crate::shared::Shared;
use crate::transport::{Link, Notify, tcp};
use crate::{Error, Namespace, Options};
use naust_wire::ask::{Ask, Listing};
use naust_wire::control::Control;
use naust_wire::message::Refusal;
use naust_wire::options::NamespaceOptions;
use naust_wire::packet::Kind;
use naust_wire::read::{Level, Query, Read};
use naust_wire::reply::{self, Reply};
use naust_wire::{Code, NodeId, Offset, Outcome, SessionId, ShardId};
use std::hash::{BuildHasher, Hasher, RandomState};
use std::sync::Arc;

/// A connection to Naust, from one program: cheap to clone, used from any thread and any runtime.
///
/// Every future of this crate may be dropped at any await point: a request that was not sent never
/// will be, and the reply of one that was is still consumed. Requests that were begun before the
/// connection stands wait for it. Ordered: of what one task awaits one after the other, each sees
/// the one before. What is under way at once has no order, though it usually keeps the one in which
/// it was first polled.
#[derive(Clone)]
pub struct Client {
    handle: Arc<Handle>,
}

struct Handle {
    shared: Arc<Shared>,
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.shared.leave();
    }
}

/// The nodes of a cluster and its namespaces.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Cluster {
    /// The nodes.
    pub nodes: Vec<reply::Node>,
    /// The namespaces, with where they live.
    pub namespaces: Vec<reply::Namespace>,
    /// The name that the following page of namespaces begins with, if there is one.
    pub next: Option<String>,
}

impl Client {
    /// Connects over TCP to the first of `addrs` (`HOST:PORT`) that answers, and keeps connecting
    /// whenever the connection is lost. It needs a tokio runtime, and its tasks live on it.
    ///
    /// # Errors
    /// `Unavailable` when none of the addresses can be reached now; `BadArgument` when there is
    /// none.
    pub async fn connect<A: Into<String>>(
        addrs: impl IntoIterator<Item = A>,
    ) -> Result<Client, Error> {
        Client::connect_with(addrs, Options::default()).await
    }

    /// The same, with options.
    ///
    /// # Errors
    /// As [`Client::connect`].
    pub async fn connect_with<A: Into<String>>(
        addrs: impl IntoIterator<Item = A>,
        options: Options,
    ) -> Result<Client, Error> {
        let addrs: Vec<String> = addrs.into_iter().map(Into::into).collect();
        let dialer = tcp::Dialer::dial(addrs).await?;
        let bell = Arc::new(tcp::Bell::default());
        let (client, link) = Client::over(Arc::clone(&bell) as Arc<dyn Notify>, options);
        tokio::spawn(dialer.run(link, bell));
        Ok(client)
    }

    /// A client over a link that the caller moves the bytes of. `notify` tells him that there are
    /// some.
    pub fn over(notify: Arc<dyn Notify>, mut options: Options) -> (Client, Link) {
        if options.nonce == 0 {
            options.nonce = draw_nonce();
        }
        let shared = Arc::new(Shared::new(Core::new(options), notify));
        let link = Link { shared: Arc::clone(&shared) };
        (Client { handle: Arc::new(Handle { shared }) }, link)
    }

    /// A namespace. Nothing is asked yet; whether it exists is told by the first request to it.
    #[must_use]
    pub fn namespace(&self, name: &str) -> Namespace {
        Namespace::new(self, name)
    }

    /// All namespaces, read page by page.
    ///
    /// # Errors
    /// `Unavailable`, `TimedOut` and the like.
    pub async fn namespaces(&self) -> Result<Vec<reply::Namespace>, Error> {
        let (mut all, mut from) = (Vec::new(), String::new());
        loop {
            let listing = Listing { from, limit: 0 };
            match self.ask(&Ask::Namespaces(listing)).await? {
                Reply::Namespaces { namespaces, next } => {
                    all.extend(namespaces);
                    match next {
                        Some(next) => from = next,
                        None => return Ok(all),
                    }
                }
                other => return Err(unexpected(&other)),
            }
        }
    }

    /// The nodes, and all namespaces with where they live, as the node at the other end sees them.
    /// The namespaces are read page by page.
    ///
    /// # Errors
    /// `Unavailable`, `TimedOut` and the like.
    pub async fn cluster(&self) -> Result<Cluster, Error> {
        let mut cluster = self.cluster_page("", 0).await?;
        while let Some(from) = cluster.next.take() {
            let page = self.cluster_page(&from, 0).await?;
            cluster.namespaces.extend(page.namespaces);
            cluster.next = page.next;
        }
        Ok(cluster)
    }

    /// The same with a page of the namespaces, in the order of their names: those that are not
    /// before `from`, and at most `limit` of them; 0: the default of 1,000. There may be fewer,
    /// though more follow: [`Cluster::next`] tells it.
    ///
    /// # Errors
    /// `TooLarge` when `limit` is above 10,000, `BadName`, and as [`Client::cluster`].
    pub async fn cluster_page(&self, from: &str, limit: u32) -> Result<Cluster, Error> {
        let listing = Listing { from: from.to_owned(), limit };
        let mut cluster = self.cluster_at(ShardId::DIRECTORY, &listing).await?;
        // Each part of a node knows the leaders and replicas of its own shards.
        for at in 0..cluster.namespaces.len() {
            if !cluster.namespaces[at].replicas.is_empty() {
                continue;
            }
            let seen = self.cluster_at(cluster.namespaces[at].shard, &listing).await?;
            let known = seen.namespaces.into_iter().filter(|seen| !seen.replicas.is_empty());
            for seen in known {
                let same = cluster.namespaces.iter_mut().find(|known| known.shard == seen.shard);
                if let Some(known) = same {
                    *known = seen;
                }
            }
        }
        Ok(cluster)
    }

    async fn cluster_at(&self, shard: ShardId, listing: &Listing) -> Result<Cluster, Error> {
        match self.ask_at(shard, &Ask::Cluster(listing.clone())).await? {
            Reply::Cluster { nodes, namespaces, next } => Ok(Cluster { nodes, namespaces, next }),
            other => Err(unexpected(&other)),
        }
    }

    /// Makes a namespace, exactly once: a retry of the client's own does not meet its own work.
    ///
    /// # Errors
    /// `NamespaceExists`, `BadName`, `BadArgument`, `LimitReached` and the like.
    pub async fn create_namespace(
        &self,
        name: &str,
        options: NamespaceOptions,
    ) -> Result<Offset, Error> {
        self.create_namespace_as(name, options, Identity::Client).await
    }

    /// The same, under an identity of the caller's choice: its session is one of
    /// [`Client::open_session`].
    ///
    /// # Errors
    /// As [`Client::create_namespace`], `SessionExpired` and `SequenceOutOfWindow`.
    pub async fn create_namespace_as(
        &self,
        name: &str,
        options: NamespaceOptions,
        identity: Identity,
    ) -> Result<Offset, Error> {
        let control = Control::CreateNamespace { name: name.to_owned(), options };
        self.set(About::Directory, control, identity).await
    }

    /// Removes a namespace and everything in it, exactly once. First a quorum of its replicas
    /// agrees on its end: nothing is acknowledged behind it, and nothing of it read.
    ///
    /// # Errors
    /// `NamespaceNotFound`, `BadArgument` and the like. While there is no such quorum the removal
    /// waits, whether somebody waits for it or not; it is *unknown* then when it will be done.
    pub async fn delete_namespace(&self, name: &str) -> Result<Offset, Error> {
        self.delete_namespace_as(name, Identity::Client).await
    }

    /// The same, under an identity of the caller's choice: its session is one of
    /// [`Client::open_session`].
    ///
    /// # Errors
    /// As [`Client::delete_namespace`], `SessionExpired` and `SequenceOutOfWindow`.
    pub async fn delete_namespace_as(
        &self,
        name: &str,
        identity: Identity,
    ) -> Result<Offset, Error> {
        self.set(About::Directory, Control::CloseNamespace(name.to_owned()), identity).await
    }

    /// Removes a namespace at once, exactly once, without a quorum of its replicas: if most of them
    /// are lost for good. Those that are left, and do not hear of it, may acknowledge writes until
    /// they do, which are lost with the namespace.
    ///
    /// # Errors
    /// `NamespaceNotFound`, `BadArgument` and the like; with an identity of one's own
    /// `SessionExpired` and `SequenceOutOfWindow`.
    pub async fn force_delete_namespace(
        &self,
        name: &str,
        identity: Identity,
    ) -> Result<Offset, Error> {
        self.set(About::Directory, Control::DeleteNamespace(name.to_owned()), identity).await
    }

    /// Opens a session of the directory, for a caller that counts himself what he makes and removes
    /// there; see [`Identity::Explicit`]. Sessions for commits are
    /// [of namespaces](Namespace::open_session). It ends after `ttl_ms` of log time without use; 0:
    /// after the default.
    ///
    /// # Errors
    /// `BadArgument` when `ttl_ms` is too long, and the like.
    pub async fn open_session(&self, ttl_ms: u64) -> Result<SessionId, Error> {
        self.session(About::Directory, ttl_ms).await
    }

    /// Ends a session of the directory.
    ///
    /// # Errors
    /// `SessionExpired` when there is none, and the like.
    pub async fn close_session(&self, session: SessionId) -> Result<Offset, Error> {
        self.end_session(About::Directory, session).await
    }

    /// Has a node join the cluster, or tells it a new name or address of one. Doing it twice is the
    /// same as doing it once.
    ///
    /// # Errors
    /// `BadArgument` when another node has the name; `LimitReached`, `BadName` and the like.
    pub async fn set_node(&self, node: NodeId, name: &str, address: &str) -> Result<Offset, Error> {
        let (name, address) = (name.to_owned(), address.to_owned());
        let control = Control::SetNode { node, name, address };
        self.set(About::Directory, control, Identity::Client).await
    }

    /// Has a node leave the cluster for good. Its replicas move to others, one after the other.
    ///
    /// # Errors
    /// `BadArgument` when there is no such node, or no quorum without it.
    pub async fn remove_node(&self, node: NodeId) -> Result<Offset, Error> {
        self.set(About::Directory, Control::RemoveNode(node), Identity::Client).await
    }

    /// As [`Namespace::note_digests`], of the directory.
    ///
    /// # Errors
    /// As there.
    pub async fn note_digests(&self) -> Result<Offset, Error> {
        self.note_digests_of(About::Directory).await
    }

    /// As [`Namespace::digests`], of the directory.
    ///
    /// # Errors
    /// As there.
    pub async fn digests(&self, at: Offset) -> Result<Vec<reply::ViewDigest>, Error> {
        self.digests_of(About::Directory, at).await
    }

    /// Has the leadership of a namespace handed over to a node, which takes a moment and may fail:
    /// look with [`Client::cluster`].
    ///
    /// # Errors
    /// `BadArgument` when the node has no vote there; `NamespaceNotFound` and the like.
    pub async fn transfer(&self, namespace: &str, to: NodeId) -> Result<Offset, Error> {
        let ask = Ask::Transfer { namespace: namespace.to_owned(), to };
        let shard = self.shard_of(namespace).await?;
        match self.ask_at(shard, &ask).await? {
            Reply::Done(offset) => Ok(offset),
            other => Err(unexpected(&other)),
        }
    }

    async fn shard_of(&self, namespace: &str) -> Result<ShardId, Error> {
        match self.ask(&Ask::Resolve(namespace.to_owned())).await? {
            Reply::Resolved { shard, .. } => Ok(shard),
            other => Err(unexpected(&other)),
        }
    }

    async fn ask(&self, ask: &Ask) -> Result<Reply, Error> {
        self.ask_at(ShardId::DIRECTORY, ask).await
    }

    /// Asks the part of a node that has a shard.
    async fn ask_at(&self, shard: ShardId, ask: &Ask) -> Result<Reply, Error> {
        ask.check()?;
        let mut request = self.request(Kind::Ask, About::Part(shard), Repeat::Always);
        request.changes = matches!(ask, Ask::Transfer { .. });
        self.exchange(request, |_, out| {
            ask.encode(out);
            Ok(())
        })
        .await
    }

    /// A control entry that is answered with the offset it was applied at.
    pub(crate) async fn set(
        &self,
        about: About,
        control: Control,
        identity: Identity,
    ) -> Result<Offset, Error> {
        let request = self.request(Kind::Control, about, repeat_of(&identity));
        match self.control(Request { identity, ..request }, control).await? {
            Reply::Done(offset) => Ok(offset),
            other => Err(unexpected(&other)),
        }
    }

    pub(crate) async fn session(&self, about: About, ttl_ms: u64) -> Result<SessionId, Error> {
        // A second one, should the reply be lost, is used by nobody and ends by itself.
        let request = self.request(Kind::Control, about, Repeat::Always);
        let open = Control::OpenSession { ttl_ms, nonce: draw_nonce() };
        match self.control(request, open).await? {
            Reply::Session(session) => Ok(session),
            other => Err(unexpected(&other)),
        }
    }

    pub(crate) async fn end_session(
        &self,
        about: About,
        session: SessionId,
    ) -> Result<Offset, Error> {
        let request = self.request(Kind::Control, about, Repeat::Always);
        match self.control(request, Control::CloseSession(session)).await? {
            Reply::Done(offset) => Ok(offset),
            other => Err(unexpected(&other)),
        }
    }

    pub(crate) async fn note_digests_of(&self, about: About) -> Result<Offset, Error> {
        // What is noted twice has two offsets, each of which will do.
        let request = self.request(Kind::Control, about, Repeat::Always);
        match self.control(request, Control::NoteDigests).await? {
            Reply::Done(offset) => Ok(offset),
            other => Err(unexpected(&other)),
        }
    }

    pub(crate) async fn digests_of(
        &self,
        about: About,
        at: Offset,
    ) -> Result<Vec<reply::ViewDigest>, Error> {
        match self.read(about, Level::AtLeast(at), Query::Digests { at }).await? {
            Reply::Digests(views) => Ok(views),
            other => Err(unexpected(&other)),
        }
    }

    pub(crate) async fn read(
        &self,
        about: About,
        level: Level,
        query: Query,
    ) -> Result<Reply, Error> {
        let wait_ms = match &query {
            Query::Records { wait_ms, .. } | Query::Log { wait_ms, .. } => u64::from(*wait_ms),
            _ => 0,
        };
        let read = Read { level, query };
        read.check()?;
        let mut request = self.request(Kind::Read, about, Repeat::Always);
        request.timeout_ms = request.timeout_ms.saturating_add(wait_ms);
        let encode = |_: &_, out: &mut Vec<u8>| {
            read.encode(out);
            Ok(())
        };
        self.exchange(request, encode).await
    }

    async fn control(&self, request: Request, control: Control) -> Result<Reply, Error> {
        control.check()?;
        let encode = |numbers: &Numbers, out: &mut Vec<u8>| {
            control.encode_numbered(numbers, out);
            Ok(())
        };
        self.exchange(request, encode).await
    }

    pub(crate) fn shared(&self) -> &Arc<Shared> {
        &self.handle.shared
    }

    pub(crate) fn request(&self, kind: Kind, about: About, repeat: Repeat) -> Request {
        let timeout_ms = self.shared().timeout_ms();
        let changes = matches!(kind, Kind::Commit | Kind::Control);
        Request { kind, about, repeat, changes, identity: Identity::None, timeout_ms }
    }

    pub(crate) async fn exchange<E>(&self, request: Request, encode: E) -> Result<Reply, Error>
    where
        E: FnMut(&Numbers, &mut Vec<u8>) -> Result<(), Refusal> + Unpin,
    {
        let body = Exchange::new(self.shared(), request, encode).await?;
        decode(&body)
    }
}

/// Whether what is asked under an identity may be asked again when its reply was lost.
pub(crate) fn repeat_of(identity: &Identity) -> Repeat {
    match identity {
        Identity::None | Identity::Explicit { session: SessionId::NONE, .. } => Repeat::WhenNotDone,
        Identity::Client | Identity::Explicit { .. } => Repeat::Always,
    }
}

/// A number that nobody else is likely to draw.
pub(crate) fn draw_nonce() -> u64 {
    RandomState::new().build_hasher().finish()
}

/// Reads a reply. One that can't be read leaves the outcome unknown.
pub(crate) fn decode(body: &[u8]) -> Result<Reply, Error> {
    Reply::decode(body).map_err(|refusal| {
        let detail = format!("the reply can't be read: {}", refusal.detail);
        Error::new(refusal.code, detail).with_outcome(Outcome::Unknown)
    })
}

/// The server answered something else than was asked.
pub(crate) fn unexpected(reply: &Reply) -> Error {
    if let Reply::Refused(refused) = reply {
        return Error::from(*refused);
    }
    let detail = "the server's reply does not fit what was asked";
    Error::new(Code::Malformed, detail).with_outcome(Outcome::Unknown)
}
