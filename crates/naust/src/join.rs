//! How a node comes into its cluster: whose data directory it makes, and how the others hear of it.
//!
//! ```text
//!   open_data   a new directory, told to join: ask any of the cluster's nodes for the cluster's id
//!               one that belongs to a cluster: is it the one that it is told to join?
//!   announce    once: Control::SetNode, through those nodes; then they invite this one
//!               later: again, if this node has another name or address than the cluster knows
//!               and of a node that served before: does the cluster still have it?
//! ```

use crate::NaustError;
use crate::config::Config;
use crate::data::{DataDirectory, Identity};
use crate::life::Life;
use crate::wiring::Wiring;
use naust_client::{Client, Error, Options};
use naust_wire::ask::Ask;
use naust_wire::limits::PACKET_HEADER_BYTES;
use naust_wire::packet::{self, Kind};
use naust_wire::reply::Reply;
use naust_wire::{Code, NodeId, RequestId, ShardId};
use std::collections::BTreeSet;
use std::io::{self, ErrorKind, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream, ToSocketAddrs as _};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How long a node on a new directory looks for the cluster that it is to join.
const SEARCH_TIME_MAX: Duration = Duration::from_secs(60);
/// How long one node may take to say of which cluster it is.
const HELLO_TIME_MAX: Duration = Duration::from_secs(2);
/// The same, for a node that is in the cluster already and only makes sure.
const CHECK_TIME_MAX: Duration = Duration::from_millis(500);
/// Between two rounds.
const PAUSE: Duration = Duration::from_millis(200);
/// Milliseconds that one attempt to be announced may take.
const ANNOUNCE_MS_MAX: u64 = 5_000;
/// Before the cluster is asked whether it still has this node, and before it is asked again: twice
/// as long each time.
const MEMBER_PAUSE_MIN: Duration = Duration::from_secs(1);
/// So long at most.
const MEMBER_PAUSE_MAX: Duration = Duration::from_secs(30);

/// Why a node can't take part in the cluster that it was told to, in a sentence for the operator.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum JoinError {
    /// None of the nodes answers.
    #[error("no node of the cluster to join answers at {addresses}: {last}")]
    NobodyThere {
        /// Where they should be.
        addresses: String,
        /// What went wrong with the last.
        last: String,
    },
    /// The directory belongs to another cluster.
    #[error(
        "the data directory {path} belongs to cluster {ours:016x}, but {address} to cluster \
         {theirs:016x}: join with an empty directory"
    )]
    AnotherCluster {
        /// The directory.
        path: PathBuf,
        /// Its cluster.
        ours: u64,
        /// Who was asked.
        address: String,
        /// Its cluster.
        theirs: u64,
    },
    /// Nothing says what an empty directory is for.
    #[error(
        "the data directory {path} is empty: start the node with --bootstrap for a new cluster, or \
         with --join HOST:PORT of a node of its cluster. If it had data before, see whether its \
         disk is mounted"
    )]
    NotTold {
        /// The directory.
        path: PathBuf,
    },
    /// A cluster is to be started on the directory of a node that joined one.
    #[error(
        "the data directory {path} belongs to a node that joined cluster {cluster:016x}: leave out \
         --bootstrap, or start the new cluster in an empty directory"
    )]
    HasJoined {
        /// The directory.
        path: PathBuf,
        /// Its cluster.
        cluster: u64,
    },
}

/// Who a node is, for others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Me {
    /// Its id.
    pub node: NodeId,
    /// Its name.
    pub name: String,
    /// Where others reach it; empty: nowhere.
    pub address: String,
}

/// Opens the data directory that was set, or makes it, for the cluster that was set. `own` is where
/// this node listens, so that it does not ask itself. Blocking.
///
/// # Errors
/// [`JoinError`] or [`DataError`](crate::data::DataError), as one of the node's.
pub fn open_data(
    config: &Config,
    own: Option<SocketAddr>,
    life: &Life,
) -> Result<DataDirectory, NaustError> {
    let identity = DataDirectory::peek(&config.data)?;
    if let Some(Identity { cluster, founder: false, .. }) = identity
        && config.bootstrap
    {
        return Err(JoinError::HasJoined { path: config.data.clone(), cluster }.into());
    }
    if config.join.is_empty() {
        return Ok(DataDirectory::open(&config.data)?);
    }
    let Some(identity) = identity else {
        // Nobody needs to be found for a directory that can't be used.
        DataDirectory::has_node(&config.data)?;
        let cluster = search(&config.join, own, life)?;
        return Ok(DataDirectory::open_for(&config.data, Some(cluster))?);
    };
    // Nobody may be there yet: a whole cluster that starts again.
    if let Ok((address, theirs)) = ask_any(&config.join, own, CHECK_TIME_MAX)
        && theirs != identity.cluster
    {
        let (path, ours) = (config.data.clone(), identity.cluster);
        return Err(JoinError::AnotherCluster { path, ours, address, theirs }.into());
    }
    Ok(DataDirectory::open(&config.data)?)
}

/// The cluster of the first node that answers.
fn search(addresses: &[String], own: Option<SocketAddr>, life: &Life) -> Result<u64, NaustError> {
    let until = Instant::now() + SEARCH_TIME_MAX;
    loop {
        let last = match ask_any(addresses, own, HELLO_TIME_MAX) {
            Ok((_, cluster)) => return Ok(cluster),
            Err(error) => error.to_string(),
        };
        let addresses = addresses.join(", ");
        if Instant::now() >= until {
            return Err(JoinError::NobodyThere { addresses, last }.into());
        }
        life.waits_for(format!("it waits for a node of the cluster at {addresses}: {last}"));
        if life.wait_start(PAUSE).is_some() {
            return Err(NaustError::GivenUp);
        }
    }
}

/// Asks one node after the other; who answered first, and with which cluster.
fn ask_any(
    addresses: &[String],
    own: Option<SocketAddr>,
    time_max: Duration,
) -> io::Result<(String, u64)> {
    let mut last = io::Error::new(ErrorKind::AddrNotAvailable, "that is this node itself");
    for address in addresses {
        match ask(address, own, time_max) {
            Ok(Some(cluster)) => return Ok((address.clone(), cluster)),
            Ok(None) => {}
            Err(error) => last = error,
        }
    }
    Err(last)
}

/// The cluster of the node at an address; `None`: that is this node.
fn ask(address: &str, own: Option<SocketAddr>, time_max: Duration) -> io::Result<Option<u64>> {
    let mut found = address.to_socket_addrs()?.peekable();
    if found.peek().is_some() && found.peek().copied() == own {
        return Ok(None);
    }
    let mut last = io::Error::new(ErrorKind::AddrNotAvailable, "the name stands for no address");
    for address in found {
        match hello(address, time_max) {
            Ok(cluster) => return Ok(Some(cluster)),
            Err(error) if [ErrorKind::WouldBlock, ErrorKind::TimedOut].contains(&error.kind()) => {
                let silent = format!("nobody answers within {} ms", time_max.as_millis());
                last = io::Error::new(ErrorKind::TimedOut, silent);
            }
            Err(error) => last = error,
        }
    }
    Err(last)
}

fn hello(address: SocketAddr, time_max: Duration) -> io::Result<u64> {
    let mut stream = TcpStream::connect_timeout(&address, time_max)?;
    stream.set_read_timeout(Some(time_max))?;
    let (mut body, mut packets) = (Vec::new(), Vec::new());
    Ask::Hello { token: String::new(), client: "naust".to_owned() }.encode(&mut body);
    packet::write(Kind::Ask, RequestId(1), ShardId::DIRECTORY, &body, &mut packets);
    stream.write_all(&packets)?;
    let no_node = |why: String| io::Error::new(ErrorKind::InvalidData, why);
    let mut reply = vec![0; PACKET_HEADER_BYTES];
    stream.read_exact(&mut reply)?;
    if reply[0] != packet::MAGIC {
        return Err(no_node("no Naust node answers there".to_owned()));
    }
    let wanted = packet::wanted(&reply);
    if wanted > HELLO_BYTES_MAX {
        return Err(no_node("its answer is no greeting".to_owned()));
    }
    reply.resize(wanted, 0);
    stream.read_exact(&mut reply[PACKET_HEADER_BYTES..])?;
    match packet::read(&reply) {
        Ok(Some((packet, _))) => match Reply::decode(packet.body) {
            Ok(Reply::Hello { cluster, .. }) => Ok(cluster),
            Ok(Reply::Error(failure)) => Err(no_node(failure.detail)),
            _ => Err(no_node("its answer is no greeting".to_owned())),
        },
        Ok(None) => Err(no_node("its answer is cut off".to_owned())),
        Err(bad) => Err(no_node(bad.to_string())),
    }
}

/// Longest answer to a greeting.
const HELLO_BYTES_MAX: usize = 64 * 1024;

/// Why a node does not come into its cluster.
enum Refused {
    /// The cluster has it no more.
    Removed,
    /// The cluster will not have it.
    Error(Error),
}

impl From<Error> for Refused {
    fn from(error: Error) -> Refused {
        Refused::Error(error)
    }
}

/// Tells the cluster who this node is, until it knows that, or the node ends. `own` asks this node.
/// Of one that `was_made` it is asked whether it still has it.
pub fn announce(wiring: &Wiring, me: &Me, was_made: bool, own: Client) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(error) => return wiring.life.fail(format!("can't join the cluster: {error}")),
    };
    let ended = Arc::new(tokio::sync::Notify::new());
    let notify = Arc::clone(&ended);
    wiring.life.at_end(move || notify.notify_one());
    let told = runtime.block_on(async {
        let announce = async {
            match wiring.config.join.is_empty() {
                true => announce_change(me, &own).await?,
                false => announce_to(&wiring.config.join, me, was_made).await?,
            }
            // Now that the cluster knows the name.
            if let Err(error) = wiring.data.set_name(&me.name) {
                eprintln!("naust: the next start needs --name {} again: {error}", me.name);
            }
            Ok(())
        };
        let ask = async {
            match was_made {
                true => ask_for_removal(wiring, me).await,
                false => Ok(()),
            }
        };
        tokio::select! {
            told = async { tokio::try_join!(announce, ask).map(drop) } => told,
            () = ended.notified() => Ok(()),
        }
    });
    // A name that is still looked up would hold up the node's end.
    runtime.shutdown_background();
    match told {
        Ok(()) => {}
        Err(Refused::Removed) => wiring.life.fail(format!(
            "this node was removed from its cluster, or another took its place, while it was down: \
             it serves no more. To have the machine back, start a new node on an empty directory \
             with --join; {} is needed no more",
            wiring.data.path().display()
        )),
        Err(Refused::Error(error)) => {
            wiring.life.fail(format!("can't join the cluster: {}", error.detail));
        }
    }
}

/// A node that was told whom to ask: through them.
async fn announce_to(addresses: &[String], me: &Me, was_made: bool) -> Result<(), Refused> {
    let addresses: Vec<&String> = addresses.iter().filter(|one| **one != me.address).collect();
    let mut told = String::new();
    loop {
        let options = Options { timeout_ms: ANNOUNCE_MS_MAX, ..Options::default() };
        let tried = async {
            let client = Client::connect_with(addresses.iter().copied(), options).await?;
            // Whether one that served before was removed is asked aside, with more care: it does
            // not come back by itself.
            set(me, &client, !was_made).await
        };
        let error = match tried.await {
            Ok(true) => return Ok(()),
            Ok(false) => Error::new(Code::Unavailable, "who was asked does not list it"),
            Err(error) if is_for_good(&error) => return Err(error.into()),
            Err(error) => error,
        };
        if error.detail != told {
            eprintln!("naust: the cluster does not know this node yet: {}", error.detail);
            told = error.detail;
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// A node that was not: through itself, and only if the cluster knows it under another name or
/// address.
async fn announce_change(me: &Me, own: &Client) -> Result<(), Refused> {
    loop {
        match set(me, own, false).await {
            Err(error) if !is_for_good(&error) => tokio::time::sleep(PAUSE).await,
            done => return Ok(done.map(drop)?),
        }
    }
}

/// Has the cluster know this node as it is; whether it knows it then.
async fn set(me: &Me, client: &Client, even_if_new: bool) -> Result<bool, Error> {
    let cluster = client.cluster().await?;
    match cluster.nodes.iter().find(|node| node.id == me.node) {
        Some(known) if known.name == me.name && known.address == me.address => Ok(true),
        None if !even_if_new => Ok(false),
        _ => client.set_node(me.node, &me.name, &me.address).await.map(|_| true),
    }
}

/// Asks other nodes whether the cluster still has this one, until one of them says so while this
/// one serves: without the others it may know of its removal never.
async fn ask_for_removal(wiring: &Wiring, me: &Me) -> Result<(), Refused> {
    let mut pause = MEMBER_PAUSE_MIN;
    loop {
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(MEMBER_PAUSE_MAX);
        let mut addresses: BTreeSet<String> = wiring.config.join.iter().cloned().collect();
        addresses.extend(wiring.catalog.addresses());
        for address in addresses.into_iter().filter(|address| *address != me.address) {
            // Who can't be asked says nothing; another may.
            match is_member(wiring.data.identity().cluster, me, address).await {
                Some(false) => return Err(Refused::Removed),
                Some(true) if wiring.life.ready().is_ok() => return Ok(()),
                _ => {}
            }
        }
    }
}

/// Whether the cluster has this node, by the node at an address; `None`: it does not say.
async fn is_member(cluster: u64, me: &Me, address: String) -> Option<bool> {
    let there = address.clone();
    let asked = tokio::task::spawn_blocking(move || ask(&there, None, HELLO_TIME_MAX)).await;
    if asked.ok()?.ok()? != Some(cluster) {
        return None;
    }
    let options = Options { timeout_ms: ANNOUNCE_MS_MAX, stays: true, ..Options::default() };
    let client = Client::connect_with([address], options).await.ok()?;
    let lists_me = async || {
        let seen = client.cluster_page("", 1).await.ok()?;
        Some(seen.nodes.iter().any(|node| node.id == me.node))
    };
    if lists_me().await? {
        return Some(true);
    }
    // It may be behind: once it has an entry that a quorum took now, it has all that were before.
    let now = client.note_digests().await.ok()?;
    client.digests(now).await.ok()?;
    lists_me().await
}

/// Asking again would not help.
fn is_for_good(error: &Error) -> bool {
    use Code::{BadArgument, BadName, LimitReached, TooLarge, Unauthorized, UnknownVersion};
    [BadArgument, BadName, LimitReached, TooLarge, Unauthorized, UnknownVersion]
        .contains(&error.code)
}
