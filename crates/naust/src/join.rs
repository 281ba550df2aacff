//! How a node comes into its cluster: whose data directory it makes, and how the others hear of it.
//!
//! ```text
//!   open_data   a new directory, told to join: ask any of the cluster's nodes for the cluster's id
//!               one that belongs to a cluster: is it the one that it is told to join?
//!   announce    once: Control::SetNode, through those nodes; then they invite this one
//!               later: again, if this node has another name or address than the cluster knows
//! ```

use crate::config::Config;
use crate::data::{DataDirectory, Identity};
use crate::wiring::Wiring;
use naust_client::{Client, Error, Options};
use naust_wire::ask::Ask;
use naust_wire::limits::PACKET_HEADER_BYTES;
use naust_wire::packet::{self, Kind};
use naust_wire::reply::Reply;
use naust_wire::{Code, NodeId, RequestId, ShardId};
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
) -> Result<DataDirectory, crate::NaustError> {
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
        return Ok(DataDirectory::open_for(&config.data, Some(search(&config.join, own)?))?);
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
fn search(addresses: &[String], own: Option<SocketAddr>) -> Result<u64, JoinError> {
    let until = Instant::now() + SEARCH_TIME_MAX;
    let mut told = false;
    loop {
        let last = match ask_any(addresses, own, HELLO_TIME_MAX) {
            Ok((_, cluster)) => return Ok(cluster),
            Err(error) => error.to_string(),
        };
        let addresses = addresses.join(", ");
        if Instant::now() >= until {
            return Err(JoinError::NobodyThere { addresses, last });
        }
        if !std::mem::replace(&mut told, true) {
            eprintln!("naust: waiting for a node of the cluster at {addresses}: {last}");
        }
        std::thread::sleep(PAUSE);
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

/// Tells the cluster who this node is, until it knows that, or the node ends. `own` asks this node.
pub fn announce(wiring: &Wiring, me: &Me, own: Client) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(error) => return wiring.life.fail(format!("can't join the cluster: {error}")),
    };
    let ended = Arc::new(tokio::sync::Notify::new());
    let notify = Arc::clone(&ended);
    wiring.life.at_end(move || notify.notify_one());
    let told = runtime.block_on(async {
        let join = &wiring.config.join;
        tokio::select! {
            told = async { match join.is_empty() {
                true => announce_change(me, &own).await,
                false => announce_to(join, me).await,
            }} => told,
            () = ended.notified() => Ok(()),
        }
    });
    if let Err(error) = told {
        wiring.life.fail(format!("can't join the cluster: {}", error.detail));
    }
}

/// A node that was told whom to ask: through them.
async fn announce_to(addresses: &[String], me: &Me) -> Result<(), Error> {
    let addresses: Vec<&String> = addresses.iter().filter(|one| **one != me.address).collect();
    let mut told = String::new();
    loop {
        let options = Options { timeout_ms: ANNOUNCE_MS_MAX, ..Options::default() };
        let tried = async {
            let client = Client::connect_with(addresses.iter().copied(), options).await?;
            set(me, &client, true).await
        };
        let error = match tried.await {
            Err(error) if !is_for_good(&error) => error,
            done => return done,
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
async fn announce_change(me: &Me, own: &Client) -> Result<(), Error> {
    loop {
        match set(me, own, false).await {
            Err(error) if !is_for_good(&error) => tokio::time::sleep(PAUSE).await,
            done => return done,
        }
    }
}

async fn set(me: &Me, client: &Client, even_if_new: bool) -> Result<(), Error> {
    let cluster = client.cluster().await?;
    let known = cluster.nodes.iter().find(|node| node.id == me.node);
    let is_right = match known {
        Some(known) => known.name == me.name && known.address == me.address,
        None => !even_if_new,
    };
    if !is_right {
        client.set_node(me.node, &me.name, &me.address).await?;
    }
    Ok(())
}

/// Asking again would not help.
fn is_for_good(error: &Error) -> bool {
    use Code::{BadArgument, BadName, LimitReached, TooLarge, Unauthorized, UnknownVersion};
    [BadArgument, BadName, LimitReached, TooLarge, Unauthorized, UnknownVersion]
        .contains(&error.code)
}
