//! `Bound`: one port, served by one thread for each core. Both doors use it.
//!
//! Each thread has its own accept queue (`SO_REUSEPORT`) and its own single-threaded runtime: a
//! request is read, answered and written without waking another core.

use std::convert::Infallible;
use std::io;
use std::net::{SocketAddr, TcpListener as StdListener};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use rustix::thread::CpuSet;
use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::{Builder, Runtime};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::address::{Counted, PerAddress};
use super::connection::{self, Manner, Service};
use super::gate::Gate;
use super::in_flight::InFlight;
use super::proxies::Proxies;
use super::timed::Patience;
use super::visit::Watch;
use crate::cores;

/// Connections that may wait to be accepted, in each thread's queue: a burst of new readers
/// should find room, and the kernel caps it anyway (`net.core.somaxconn`).
const BACKLOG: i32 = 1024;

/// Bytes that the kernel takes of a response beyond what it has sent: a client that lags is noticed,
/// and what it does not take is not kept twice.
const UNSENT: u32 = 32 * 1024;

/// The pause after an accept that failed for want of something (descriptors, memory): long enough
/// not to spin, short enough not to be noticed once there is room again.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// How often a shortage that goes on is told: each failed accept would fill the log.
const SHORTAGE_TOLD: Duration = Duration::from_secs(60);

/// Threads for blocking work (reading static files) beside each serving thread.
const BLOCKING_THREADS: usize = 8;

/// How long they are kept, once they were needed: as long as the server. One that could not be
/// started again, for want of threads in its cgroup, would fail whoever needs it.
const THREADS_STAY: Duration = Duration::from_secs(u32::MAX as u64);

/// A stop signal: true, or a dropped sender, means stop.
pub type Stop = watch::Receiver<bool>;

/// What a listener is told.
#[derive(Debug, Clone)]
pub struct Config {
    /// The address; port 0 takes any free one.
    pub listen: SocketAddr,
    /// Threads that serve; at least one.
    pub threads: usize,
    /// Open connections, over all threads; further ones wait in the accept queue.
    pub max_connections: usize,
    /// Open connections of one address; further ones are closed at once.
    pub per_address: PerAddress,
    /// Who may speak for others.
    pub proxies: Arc<Proxies>,
    /// How long requests in flight may go on after the stop signal.
    pub drain: Duration,
    /// How long a client may dawdle.
    pub patience: Patience,
    /// Bytes that requests and responses may hold while they are under way.
    pub in_flight: usize,
    /// What is done with requests besides answering them.
    pub watch: Option<Watch>,
    /// Counts open connections.
    pub open: Gauge,
    /// Counts connections that were closed at once.
    pub refused: Counter,
    /// Counts the bytes that requests and responses hold.
    pub in_flight_bytes: Gauge,
    /// Counts readers who were broken off because they lagged.
    pub slow: Counter,
    /// Counts readers who were broken off because too much was under way.
    pub displaced: Counter,
}

/// Why a listener could not start.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    /// Something else listens there.
    #[error(
        "{0} is in use: stop the program that listens there (`ss -ltnp` names it), or choose another address"
    )]
    InUse(SocketAddr),
    /// The port needs a privilege.
    #[error("{0} is not allowed: ports below 1024 need CAP_NET_BIND_SERVICE; choose a higher port")]
    NotAllowed(SocketAddr),
    /// The address belongs to another machine.
    #[error("{0} is not an address of this machine: use 127.0.0.1, 0.0.0.0 or one of its own")]
    NotHere(SocketAddr),
    /// Anything else.
    #[error("{0}: {1}")]
    Io(SocketAddr, #[source] io::Error),
}

impl ListenError {
    fn new(addr: SocketAddr, error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::AddrInUse => Self::InUse(addr),
            io::ErrorKind::PermissionDenied => Self::NotAllowed(addr),
            io::ErrorKind::AddrNotAvailable => Self::NotHere(addr),
            _ => Self::Io(addr, error),
        }
    }
}

/// A port that is held, but not served yet.
#[derive(Debug)]
pub struct Bound {
    addr: SocketAddr,
    listeners: Vec<(StdListener, Runtime)>,
    config: Config,
}

fn socket(addr: SocketAddr, shared: bool) -> io::Result<StdListener> {
    let socket = Socket::new(Domain::for_address(addr), Type::STREAM, Some(Protocol::TCP))?;
    // Connections of a previous process linger in TIME_WAIT; they must not keep the port.
    socket.set_reuse_address(true)?;
    if shared {
        socket.set_reuse_port(true)?;
    }
    socket.set_nonblocking(true)?;
    // Accepted connections inherit it.
    socket.set_tcp_notsent_lowat(UNSENT)?;
    socket.bind(&addr.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

impl Bound {
    /// Takes the port. Whoever connects from now on waits until it is served.
    ///
    /// # Errors
    /// When it cannot be had; the message says what to do.
    pub fn bind(config: Config) -> Result<Self, ListenError> {
        let wanted = config.listen;
        let failed = |error| ListenError::new(wanted, error);
        if wanted.port() != 0 {
            // With SO_REUSEPORT alone, a second wisr of the same user would silently take half of
            // the connections.
            drop(socket(wanted, false).map_err(failed)?);
        }
        let first = socket(wanted, true).map_err(failed)?;
        let addr = first.local_addr().map_err(failed)?;
        let mut bound = Self {
            addr,
            listeners: vec![(first, runtime().map_err(failed)?)],
            config,
        };
        for _ in 1..bound.config.threads {
            let another = socket(addr, true).map_err(failed)?;
            bound.listeners.push((another, runtime().map_err(failed)?));
        }
        Ok(bound)
    }

    /// The address, with the port that was found for port 0.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Serves until `stop`, then lets requests in flight finish.
    pub fn serve<S: Service>(mut self, service: Arc<S>, stop: Stop) -> Serving {
        let slots = Arc::new(Semaphore::new(self.config.max_connections.max(1)));
        let gate = Gate::new(&self.config);
        let Config {
            in_flight,
            in_flight_bytes,
            displaced,
            ..
        } = self.config.clone();
        let in_flight = InFlight::new(in_flight, in_flight_bytes, displaced);
        let (alive, ended) = mpsc::channel(1);
        let mut cores = cores::each_its_own(self.listeners.len()).into_iter();
        let start = |(listener, runtime)| {
            let thread = Thread {
                core: cores.next(),
                service: Arc::clone(&service),
                stop: stop.clone(),
                slots: Arc::clone(&slots),
                gate: Arc::clone(&gate),
                in_flight: Arc::clone(&in_flight),
                config: self.config.clone(),
                _alive: alive.clone(),
            };
            std::thread::Builder::new()
                .name("serve".to_owned())
                .spawn(move || thread.run(runtime, listener))
        };
        let listeners = std::mem::take(&mut self.listeners);
        let threads = listeners.into_iter().map(start).collect();
        Serving { threads, ended }
    }
}

impl Drop for Bound {
    /// A port that is given back unserved, because something else keeps the server from starting:
    /// a runtime that is merely dropped waits for its threads, which async code may not do.
    fn drop(&mut self) {
        for (_, runtime) in self.listeners.drain(..) {
            runtime.shutdown_background();
        }
    }
}

fn runtime() -> io::Result<Runtime> {
    let all = cores::all();
    let runtime = Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(BLOCKING_THREADS)
        .thread_keep_alive(THREADS_STAY)
        // They wait for disks: what they inherit of a serving thread would only hold both up.
        .on_thread_start(move || cores::stay_on(&all))
        .build()?;
    // There is one from now on, also when no more can be had.
    runtime.spawn_blocking(|| ());
    Ok(runtime)
}

/// A port that is being served.
#[derive(Debug)]
pub struct Serving {
    threads: Vec<io::Result<JoinHandle<io::Result<()>>>>,
    ended: mpsc::Receiver<Infallible>,
}

impl Serving {
    /// Waits until the stop signal was given and every thread has drained.
    ///
    /// # Errors
    /// When a thread could not be started, or ended before its time.
    pub async fn join(mut self) -> io::Result<()> {
        // Nothing is ever sent: the channel closes when the last thread lets go of its end.
        let _ = self.ended.recv().await;
        self.threads.into_iter().try_for_each(|thread| {
            let panicked = |_| Err(io::Error::other("it panicked"));
            thread?.join().unwrap_or_else(panicked)
        })
    }
}

/// Waits for the stop signal.
pub async fn stopped(mut stop: Stop) {
    told(&mut stop).await;
}

/// Waits for the stop signal without giving up the receiver.
pub(super) async fn told(stop: &mut Stop) {
    // A sender that is gone can never say stop: nobody owns the server any more.
    let _ = stop.wait_for(|stop| *stop).await;
}

struct Thread<S> {
    /// Its own; none where it shares all.
    core: Option<CpuSet>,
    service: Arc<S>,
    stop: Stop,
    slots: Arc<Semaphore>,
    gate: Arc<Gate>,
    in_flight: Arc<InFlight>,
    config: Config,
    _alive: mpsc::Sender<Infallible>,
}

impl<S: Service> Thread<S> {
    fn run(self, runtime: Runtime, listener: StdListener) -> io::Result<()> {
        self.core.iter().for_each(cores::stay_on);
        let ended = runtime.block_on(self.accept(listener));
        // A file that is still being read must not hold up the end.
        runtime.shutdown_background();
        ended
    }

    async fn accept(&self, listener: StdListener) -> io::Result<()> {
        let listener = TcpListener::from_std(listener)?;
        let mut stop = self.stop.clone();
        let mut connections = JoinSet::new();
        let mut shortage = None;
        loop {
            tokio::select! {
                () = told(&mut stop) => break,
                accepted = listener.accept() => match accepted {
                    Ok((stream, peer)) => self.admit(stream, peer, &mut connections).await,
                    Err(error) => recover(&error, &mut shortage).await,
                },
                Some(_) = connections.join_next() => {}
            }
        }
        drop(listener);
        let drained = async { while connections.join_next().await.is_some() {} };
        if tokio::time::timeout(self.config.drain, drained)
            .await
            .is_err()
        {
            tracing::warn!(
                cut_off = connections.len(),
                "requests were still running when the drain time was over"
            );
            connections.shutdown().await;
        }
        Ok(())
    }

    async fn admit(&self, stream: TcpStream, peer: SocketAddr, connections: &mut JoinSet<()>) {
        let counted = match self.gate.meet(peer) {
            Ok(counted) => counted,
            Err(closed) => return self.gate.refuse(peer, &closed),
        };
        let mut stop = self.stop.clone();
        // Accepted first and admitted then: were it the other way round, a thread without readers
        // would sit on a place that another thread needs.
        let place = tokio::select! {
            place = Arc::clone(&self.slots).acquire_owned() => place.ok(),
            () = told(&mut stop) => return,
        };
        let open = Open::new(&self.config.open, place, counted);
        let (service, gate) = (Arc::clone(&self.service), Arc::clone(&self.gate));
        let manner = Manner {
            patience: self.config.patience,
            watch: self.config.watch.clone().map(Arc::new),
            in_flight: Arc::clone(&self.in_flight),
            slow: self.config.slow.clone(),
        };
        connections.spawn(async move {
            let (_open, mut stream) = (open, stream);
            let heard = tokio::select! {
                biased;
                heard = gate.hear(&mut stream, peer) => heard,
                () = told(&mut stop) => return,
            };
            match heard {
                Ok((peer, _counted)) => {
                    connection::serve(stream, peer, service, stop, manner).await;
                }
                Err(closed) => gate.refuse(peer, &closed),
            }
        });
    }
}

/// What an open connection holds, and gives back however it ends.
struct Open {
    gauge: Gauge,
    _place: Option<OwnedSemaphorePermit>,
    _counted: Option<Counted>,
}

impl Open {
    fn new(gauge: &Gauge, place: Option<OwnedSemaphorePermit>, counted: Option<Counted>) -> Self {
        gauge.inc();
        Self {
            gauge: gauge.clone(),
            _place: place,
            _counted: counted,
        }
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.gauge.dec();
    }
}

/// The client's fault costs nothing; a shortage of ours is waited out. Neither ends the loop.
/// `shortage` is when the last one was told.
async fn recover(error: &io::Error, shortage: &mut Option<Instant>) {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset, Interrupted};
    if matches!(
        error.kind(),
        ConnectionAborted | ConnectionRefused | ConnectionReset | Interrupted
    ) {
        return;
    }
    if shortage.is_none_or(|told| told.elapsed() >= SHORTAGE_TOLD) {
        *shortage = Some(Instant::now());
        tracing::warn!(%error, "cannot accept connections: raise the limit of open files (ulimit -n)");
    }
    tokio::time::sleep(ACCEPT_PAUSE).await;
}

#[cfg(test)]
#[path = "listen_tests.rs"]
mod tests;
