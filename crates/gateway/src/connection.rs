//! Connections, and how many there may be: those that are served, and a few beyond them that are
//! told that there is no room, so that nobody waits in the system's queue for an answer, and probes
//! have theirs.

use axum::extract::connect_info::Connected;
use axum::serve::IncomingStream;
use naust_wire::limits::{
    HTTP_CONNECTIONS_MAX, HTTP_FOLLOWERS_MAX, HTTP_RESERVE_MAX, HTTP_RESERVE_MS_MAX,
    HTTP_SILENCE_MS_MAX,
};
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, Sleep, sleep};

/// How long silence may last.
const SILENCE: Duration = Duration::from_millis(HTTP_SILENCE_MS_MAX);
/// How long a connection of the reserve may last.
const RESERVED: Duration = Duration::from_millis(HTTP_RESERVE_MS_MAX);
/// The pause after an error of the listener, such as too many open files.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// How many connections there may be.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// Those that are served.
    pub connections: usize,
    /// Those beyond them: each has one request answered, probes as ever and others with
    /// `Overloaded`, and is closed.
    pub reserve: usize,
    /// Those of the first that may follow a stream.
    pub followers: usize,
}

impl Default for Bounds {
    fn default() -> Bounds {
        Bounds {
            connections: HTTP_CONNECTIONS_MAX,
            reserve: HTTP_RESERVE_MAX,
            followers: HTTP_FOLLOWERS_MAX,
        }
    }
}

/// What a connection may ask for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Seat {
    /// Anything, again and again.
    Served,
    /// Whether the node lives, once: all other places are taken.
    Reserve,
}

impl Connected<IncomingStream<'_, Bounded>> for Seat {
    fn connect_info(stream: IncomingStream<'_, Bounded>) -> Seat {
        stream.io().seat
    }
}

/// A listener that holds a bounded number of connections. When the reserve is taken, too, further
/// ones wait until one of its few seconds are over.
pub struct Bounded {
    listener: TcpListener,
    served: Arc<Semaphore>,
    reserve: Arc<Semaphore>,
}

impl Bounded {
    /// A listener with its places.
    #[must_use]
    pub fn new(listener: TcpListener, bounds: Bounds) -> Bounded {
        let served = Arc::new(Semaphore::new(bounds.connections));
        Bounded { listener, served, reserve: Arc::new(Semaphore::new(bounds.reserve)) }
    }

    /// A place, as good as there is one.
    async fn seat(&self) -> (Seat, OwnedSemaphorePermit) {
        let (seat, place) = tokio::select! {
            biased;
            place = Arc::clone(&self.served).acquire_owned() => (Seat::Served, place),
            place = Arc::clone(&self.reserve).acquire_owned() => (Seat::Reserve, place),
        };
        (seat, place.expect("the semaphores are never closed"))
    }
}

impl axum::serve::Listener for Bounded {
    type Io = Connection;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Connection, SocketAddr) {
        loop {
            match self.listener.accept().await {
                Ok((stream, address)) => {
                    // Answers are written whole; waiting for more would only cost time.
                    let _ = stream.set_nodelay(true);
                    let (seat, place) = self.seat().await;
                    return (Connection::new(stream, seat, place), address);
                }
                Err(_) => sleep(ACCEPT_PAUSE).await,
            }
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }
}

/// A socket that is closed after too long a silence: between two requests, from the first byte of a
/// request to the first of its reply however slowly its bytes drip, or while nobody takes the
/// reply. One of the reserve is closed after a few seconds whatever happens.
pub struct Connection {
    stream: TcpStream,
    seat: Seat,
    deadline: Pin<Box<Sleep>>,
    in_request: bool,
    _place: OwnedSemaphorePermit,
}

impl Connection {
    fn new(stream: TcpStream, seat: Seat, place: OwnedSemaphorePermit) -> Connection {
        let time = match seat {
            Seat::Served => SILENCE,
            Seat::Reserve => RESERVED,
        };
        let deadline = Box::pin(sleep(time));
        Connection { stream, seat, deadline, in_request: false, _place: place }
    }

    fn extend(&mut self) {
        if self.seat == Seat::Served {
            self.deadline.as_mut().reset(Instant::now() + SILENCE);
        }
    }

    /// Pending, unless the silence has lasted too long.
    fn silence<T>(&mut self, context: &mut Context<'_>) -> Poll<io::Result<T>> {
        ready!(self.deadline.as_mut().poll(context));
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }

    fn wrote(
        &mut self,
        context: &mut Context<'_>,
        written: Poll<io::Result<usize>>,
    ) -> Poll<io::Result<usize>> {
        match written {
            Poll::Pending => self.silence(context),
            Poll::Ready(result) => {
                self.in_request = false;
                self.extend();
                Poll::Ready(result)
            }
        }
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        match Pin::new(&mut self.stream).poll_read(context, buffer) {
            Poll::Pending => self.silence(context),
            Poll::Ready(result) => {
                if buffer.filled().len() > before && !self.in_request {
                    self.in_request = true;
                    self.extend();
                }
                Poll::Ready(result)
            }
        }
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.wrote(context, written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(context, slices);
        self.wrote(context, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    /// A connection and its peer; time passes whenever nothing else happens.
    fn connected(seat: Seat, story: impl AsyncFnOnce(Connection, TcpStream)) {
        let mut builder = tokio::runtime::Builder::new_current_thread();
        let runtime = builder.enable_all().start_paused(true).build().unwrap();
        runtime.block_on(async {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let address = listener.local_addr().unwrap();
            let (peer, accepted) = tokio::join!(TcpStream::connect(address), listener.accept());
            let place = Arc::new(Semaphore::new(1)).try_acquire_owned().unwrap();
            story(Connection::new(accepted.unwrap().0, seat, place), peer.unwrap()).await;
        });
    }

    #[test]
    fn a_silent_connection_is_closed() {
        connected(Seat::Served, async |mut connection, _peer| {
            let started = Instant::now();
            let error = connection.read_u8().await.unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::TimedOut);
            assert!(started.elapsed() >= SILENCE);
        });
    }

    #[test]
    fn drips_do_not_extend_a_request_but_replies_do() {
        connected(Seat::Served, async |mut connection, mut peer| {
            let started = Instant::now();
            let mut drips = 0;
            let error = loop {
                peer.write_all(b"x").await.unwrap();
                match connection.read_u8().await {
                    Ok(_) => drips += 1,
                    Err(error) => break error,
                }
                let quiet = tokio::time::timeout(SILENCE / 4, connection.read_u8()).await;
                match quiet {
                    Ok(Err(error)) => break error,
                    other => assert!(other.is_err(), "nothing was sent"),
                }
            };
            assert_eq!((error.kind(), drips), (io::ErrorKind::TimedOut, 4));
            assert!(started.elapsed() < 2 * SILENCE);
        });
        connected(Seat::Served, async |mut connection, mut peer| {
            for _ in 0..8 {
                peer.write_all(b"x").await.unwrap();
                assert_eq!(connection.read_u8().await.unwrap(), b'x');
                connection.write_all(b"y").await.unwrap();
                assert!(tokio::time::timeout(SILENCE / 4, connection.read_u8()).await.is_err());
            }
        });
    }

    #[test]
    fn a_reader_that_takes_nothing_is_closed() {
        connected(Seat::Served, async |mut connection, _peer| {
            let error = connection.write_all(&vec![0; 64 << 20]).await.unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        });
    }

    #[test]
    fn a_place_of_the_reserve_is_free_after_a_while_whatever_happens() {
        connected(Seat::Reserve, async |mut connection, mut peer| {
            let started = Instant::now();
            let error = loop {
                peer.write_all(b"x").await.unwrap();
                match connection.read_u8().await {
                    Ok(_) => connection.write_all(b"y").await.unwrap(),
                    Err(error) => break error,
                }
                match tokio::time::timeout(RESERVED / 4, connection.read_u8()).await {
                    Ok(Err(error)) => break error,
                    other => assert!(other.is_err(), "nothing was sent"),
                }
            };
            assert_eq!(error.kind(), io::ErrorKind::TimedOut);
            assert!(started.elapsed() < 2 * RESERVED);
        });
    }
}
