//! [`Process`]: a server that ends with its owner; [`nginx`], [`varnish`] and the bare loop, set up
//! to serve the same bytes.

use std::fs;
use std::io::ErrorKind;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, geteuid, kill_process};

use crate::cpu::pinned;

/// How long a server may take to listen, or to end when it is told to.
const PATIENCE: Duration = Duration::from_secs(10);

/// A running server. Dropping it ends it.
pub(crate) struct Process(Child);

/// One way of serving the page.
pub(crate) struct Target {
    pub(crate) name: &'static str,
    pub(crate) pid: u32,
    pub(crate) addr: SocketAddr,
    pub(crate) path: &'static str,
    /// Further header lines of its requests.
    pub(crate) headers: &'static str,
}

impl Process {
    /// Starts `command` on `cores`.
    pub(crate) fn start(name: &str, mut command: Command, cores: &[usize]) -> Result<Self> {
        command.stdin(Stdio::null());
        // A process is born on the cores of the thread that starts it.
        let child = pinned(cores, || Ok(command.spawn()));
        Ok(Self(child?.with_context(|| format!("starting {name}"))?))
    }

    /// Ends it as a machine that fails does.
    pub(crate) fn kill(&mut self) -> Result<()> {
        self.0.kill()?;
        self.0.wait()?;
        Ok(())
    }

    pub(crate) fn pid(&self) -> u32 {
        self.0.id()
    }

    pub(crate) fn stdout(&mut self) -> Option<ChildStdout> {
        self.0.stdout.take()
    }

    /// Waits until something answers at `addr`.
    pub(crate) fn listens(&mut self, addr: SocketAddr) -> Result<()> {
        let until = Instant::now() + PATIENCE;
        while TcpStream::connect(addr).is_err() {
            if let Some(status) = self.0.try_wait()? {
                bail!("ended with {status} before it listened");
            }
            if Instant::now() > until {
                bail!("does not listen after {PATIENCE:?}");
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        Ok(())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // A master takes its workers along when it is asked to end, not when it is killed.
        if let Some(pid) = i32::try_from(self.pid()).ok().and_then(Pid::from_raw) {
            let _ = kill_process(pid, Signal::TERM);
        }
        let until = Instant::now() + PATIENCE;
        while Instant::now() < until {
            if !matches!(self.0.try_wait(), Ok(None)) {
                return;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// What keeps an opponent away: told, never an error.
fn absent(error: &anyhow::Error, name: &str, package: &str) -> String {
    let io = error.root_cause().downcast_ref::<std::io::Error>();
    match io.map(std::io::Error::kind) {
        Some(ErrorKind::NotFound) => format!("{name}: not installed: apt-get install {package}"),
        _ => format!("{name}: {error:#}"),
    }
}

/// An address that is free now.
pub(crate) fn free() -> Result<SocketAddr> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?)
}

/// The bare loop: hyper with nothing behind it. It is the origin of the others too.
pub(crate) fn bare(folder: &Path, cores: &[usize]) -> Result<(Process, Target)> {
    let addr = free()?;
    let mut command = Command::new(std::env::current_exe()?);
    command
        .arg("--bare")
        .arg(addr.to_string())
        .arg(folder)
        .arg(cores.len().to_string());
    let mut process = Process::start("the bare hyper loop", command, cores)?;
    process.listens(addr).context("the bare hyper loop")?;
    let pid = process.pid();
    Ok((
        process,
        Target {
            name: "bare hyper",
            pid,
            addr,
            path: "/page",
            headers: "",
        },
    ))
}

/// nginx, four ways: the file and the proxied page, each with and without a cache of open files.
/// `folder` holds the body as `page`.
pub(crate) fn nginx(
    folder: &Path,
    headers: &[(String, String)],
    origin: SocketAddr,
    cores: &[usize],
) -> Result<(Process, [Target; 4]), String> {
    let start = || -> Result<_> {
        let addrs = [free()?, free()?, free()?, free()?];
        let config = nginx_config(folder, headers, origin, addrs, cores.len());
        fs::write(folder.join("nginx.conf"), config)?;
        let mut command = Command::new("nginx");
        command
            .arg("-p")
            .arg(folder)
            .args(["-c", "nginx.conf", "-e", "error.log"]);
        let mut process = Process::start("nginx", command, cores)?;
        process.listens(addrs[3])?;
        let pid = process.pid();
        let target = |name, addr| Target {
            name,
            pid,
            addr,
            path: "/page",
            headers: "",
        };
        let targets = [
            target("nginx static", addrs[0]),
            target("nginx static, open_file_cache", addrs[1]),
            target("nginx proxy_cache", addrs[2]),
            target("nginx proxy_cache, open_file_cache", addrs[3]),
        ];
        Ok((process, targets))
    };
    start().map_err(|error| absent(&error, "nginx", "nginx-light"))
}

fn nginx_config(
    folder: &Path,
    headers: &[(String, String)],
    origin: SocketAddr,
    [file, open_file, proxied, open_proxied]: [SocketAddr; 4],
    workers: usize,
) -> String {
    let added = headers
        .iter()
        .map(|(name, value)| format!("add_header {name} '{value}';\n"));
    let added: String = added.collect();
    // Workers of root would become somebody who may not read a private folder.
    let user = if geteuid().is_root() {
        "user root;"
    } else {
        ""
    };
    let open = "open_file_cache max=100 inactive=10m; open_file_cache_valid 10m;";
    let temp = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"];
    let temp: String = temp
        .map(|kind| format!("{kind}_temp_path temp;\n"))
        .concat();
    let file_server = |addr, more: &str| {
        format!(
            "server {{ listen {addr}; root {}; {more}\n{added} }}\n",
            folder.display()
        )
    };
    let proxy_server = |addr, more: &str| {
        format!(
            "server {{ listen {addr}; {more} location / {{ proxy_pass http://{origin}; \
             proxy_cache pages; proxy_cache_valid 200 1h; proxy_ignore_headers Vary; }} }}\n"
        )
    };
    let servers = [
        file_server(file, ""),
        file_server(open_file, open),
        proxy_server(proxied, ""),
        proxy_server(open_proxied, open),
    ];
    format!(
        "{user} daemon off; pid nginx.pid; worker_processes {workers};\n\
         events {{ worker_connections 1024; }}\n\
         http {{\naccess_log off; sendfile on; tcp_nopush on; tcp_nodelay on;\n\
         keepalive_requests 1000000000; keepalive_timeout 1h;\n\
         default_type 'text/html; charset=utf-8';\n{temp}\
         proxy_cache_path cache keys_zone=pages:1m;\nproxy_http_version 1.1;\n{}}}\n",
        servers.concat()
    )
}

/// Varnish in front of `origin`.
pub(crate) fn varnish(
    folder: &Path,
    origin: SocketAddr,
    cores: &[usize],
) -> Result<(Process, Target), String> {
    let start = || -> Result<_> {
        let addr = free()?;
        let mut command = Command::new("varnishd");
        command
            .args([
                "-F",
                "-j",
                "none",
                "-T",
                "none",
                "-s",
                "malloc,64m",
                "-p",
                "thread_pools=2",
            ])
            .args(["-a", &addr.to_string(), "-b", &origin.to_string()])
            .arg("-n")
            .arg(folder.join("varnish"))
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        let mut process = Process::start("varnishd", command, cores)?;
        process.listens(addr)?;
        let pid = process.pid();
        Ok((
            process,
            Target {
                name: "Varnish",
                pid,
                addr,
                path: "/page",
                headers: "",
            },
        ))
    };
    start().map_err(|error| absent(&error, "Varnish", "varnish"))
}
