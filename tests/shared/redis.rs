//! [`Redis`]: a real server on a loopback port, started, stopped and asked by a test.

use std::fs::File;
use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU16, Ordering};

use rustix::process::{Pid, Signal};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::site::wait_for;
use crate::tools::tool;

/// Names another program than `redis-server`, such as `valkey-server`.
const PROGRAM: &str = "WISR_TEST_REDIS";

/// A server with nothing in it, which keeps nothing on disk. Dropping it kills it.
pub(crate) struct Redis {
    program: PathBuf,
    pub(crate) address: SocketAddr,
    /// Where the nodes of a Cluster talk to each other.
    pub(crate) bus: SocketAddr,
    folder: TempDir,
    process: Option<Child>,
    arguments: Vec<String>,
}

impl Redis {
    /// Starts one; none where there is no program for it.
    pub(crate) async fn start() -> Option<Self> {
        Self::start_with(&[]).await
    }

    /// The same with more of its configuration, as on its command line.
    pub(crate) async fn start_with(arguments: &[&str]) -> Option<Self> {
        let program = match std::env::var(PROGRAM) {
            Ok(program) => tool(&program, &format!("{PROGRAM} names it"))?,
            Err(_) => tool("redis-server", "apt-get install redis-server")?,
        };
        let [address, bus] = [(); 2].map(|()| free_port());
        let mut arguments: Vec<String> = arguments.iter().map(|it| (*it).to_owned()).collect();
        if arguments.iter().any(|it| it == "--cluster-enabled") {
            // By default it is the port and 10,000 more, which may be no port at all.
            arguments.extend(["--cluster-port".to_owned(), bus.port().to_string()]);
        }
        let mut redis = Self {
            program,
            address,
            bus,
            folder: tempfile::tempdir().unwrap(),
            process: None,
            arguments,
        };
        redis.launch().await;
        Some(redis)
    }

    /// Starts it again on its port.
    pub(crate) async fn launch(&mut self) {
        let port = self.address.port().to_string();
        let log = self.folder.path().join("log");
        let process = Command::new(&self.program)
            .args(["--port", &port, "--bind", "127.0.0.1"])
            .args(["--save", "", "--appendonly", "no", "--dir"])
            .arg(self.folder.path())
            .args(&self.arguments)
            .stdout(File::create(&log).unwrap())
            .stdin(Stdio::null())
            .spawn()
            .unwrap();
        let process = self.process.insert(process);
        let told = || std::fs::read_to_string(&log).unwrap();
        wait_for("a Redis that listens", async || {
            assert!(process.try_wait().unwrap().is_none(), "{}", told());
            match TcpStream::connect(self.address).await {
                Ok(_) => Ok(()),
                Err(error) => Err(error.to_string()),
            }
        })
        .await;
    }

    /// `kill -9`: what it had is gone.
    pub(crate) fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            let _ = process.kill();
            let _ = process.wait();
        }
    }

    pub(crate) fn signal(&self, signal: Signal) {
        let id = self.process.as_ref().unwrap().id();
        let pid = Pid::from_raw(i32::try_from(id).unwrap()).unwrap();
        rustix::process::kill_process(pid, signal).unwrap();
    }

    pub(crate) fn url(&self) -> String {
        format!("redis://{}", self.address)
    }

    /// Asks it something, and gives its answer as it came.
    pub(crate) async fn ask(&self, words: &[&str]) -> String {
        ask(self.address, words).await
    }

    /// The keys that are as `pattern` says.
    pub(crate) async fn keys(&self, pattern: &str) -> Vec<String> {
        let answer = self.ask(&["KEYS", pattern]).await;
        let words = answer.lines().skip(1);
        let keys = words.filter(|word| !word.starts_with('$'));
        keys.map(str::to_owned).collect()
    }
}

/// A port that nobody has, also not a moment later: the kernel hands none below 32768 out by itself.
pub(crate) fn free_port() -> SocketAddr {
    static NEXT: LazyLock<AtomicU16> =
        LazyLock::new(|| AtomicU16::new(fastrand::u16(10_000..30_000)));
    loop {
        let port = NEXT.fetch_add(1, Ordering::Relaxed);
        let free = TcpListener::bind(("127.0.0.1", port));
        if let Ok(free) = free {
            return free.local_addr().unwrap();
        }
    }
}

/// Asks the server at `address`, in its own protocol: words, each with its length.
pub(crate) async fn ask(address: SocketAddr, words: &[&str]) -> String {
    let mut request = format!("*{}\r\n", words.len());
    for word in words {
        request.push_str(&format!("${}\r\n{word}\r\n", word.len()));
    }
    request.push_str("*1\r\n$4\r\nQUIT\r\n");
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.unwrap();
    let answer = String::from_utf8_lossy(&answer).into_owned();
    answer.trim_end_matches("+OK\r\n").to_owned()
}

impl Drop for Redis {
    fn drop(&mut self) {
        self.kill();
    }
}
