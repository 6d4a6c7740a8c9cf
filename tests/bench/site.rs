//! `Site`: wisr itself, serving the page of `tests/fixtures/tenk` from a folder of its own.

use std::fs;
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use tempfile::TempDir;

use crate::load::{get, once};
use crate::servers::Process;

/// Where the page of all hits is.
pub(crate) const PAGE: &str = "/page";

const TOKEN: &str = "a-token-of-the-benchmark";

/// Eight generations at once, a route whose generations keep a core busy for 0.9 s each, and one for
/// pages that differ by a number.
pub(crate) const CONFIG: &str = r#"
[server]
drain = "1s"
connections = 15000
[generations]
concurrency = 8
[routes."/busy/[busy]"]
cpu = "30s"
wall = "60s"
settings = { spin = "900" }
[routes."/hostile/[how]"]
query = ["n"]
"#;

/// The folder of a site: pages at `/page`, `/p/[id]` and `/busy/[busy]`.
pub(crate) struct Site {
    folder: TempDir,
}

/// A site that is served.
pub(crate) struct Running {
    pub(crate) process: Process,
    pub(crate) site: SocketAddr,
    admin: SocketAddr,
}

impl Site {
    /// Lays the folder out.
    pub(crate) fn lay_out(module: &[u8]) -> Result<Self> {
        Self::with(CONFIG, &["page", "p/[id]", "busy/[busy]"], module)
    }

    /// A site of these pages, below `target`: where temporary files go may be memory.
    pub(crate) fn with(config: &str, pages: &[&str], module: &[u8]) -> Result<Self> {
        let target = Path::new(env!("CARGO_MANIFEST_DIR")).join("target");
        let folder = tempfile::Builder::new()
            .prefix("site-")
            .tempdir_in(target)?;
        let site = Self { folder };
        site.configure(config)?;
        for page in pages {
            site.put(page, module)?;
        }
        Ok(site)
    }

    /// Changes the configuration, for the next start.
    pub(crate) fn configure(&self, config: &str) -> Result<()> {
        Ok(fs::write(self.folder.path().join("wisr.toml"), config)?)
    }

    /// Where its pages are kept.
    pub(crate) fn store(&self) -> PathBuf {
        self.folder.path().join(".wisr/store")
    }

    /// Puts a module in, whole from the first moment.
    pub(crate) fn put(&self, page: &str, module: &[u8]) -> Result<()> {
        let path = self.folder.path().join(format!("pages/{page}.wasm"));
        fs::create_dir_all(path.parent().context("a page is in a folder")?)?;
        let aside = self.folder.path().join("aside");
        fs::write(&aside, module)?;
        Ok(fs::rename(aside, path)?)
    }

    /// Starts `wisr serve` on `cores` and waits until it says where it listens.
    pub(crate) fn serve(&self, cores: &[usize]) -> Result<Running> {
        let mut command = Command::new(env!("CARGO_BIN_EXE_wisr"));
        command
            .args(["serve", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"])
            .arg(self.folder.path())
            .env("WISR_TOKEN", TOKEN)
            .stdout(Stdio::piped())
            .stderr(Stdio::null());
        let mut process = Process::start("wisr", command, cores)?;
        let stdout = process.stdout().context("stdout is a pipe")?;
        let mut lines = BufReader::new(stdout).lines();
        let mut address = |door: &str| -> Result<SocketAddr> {
            let line = lines.next().context("wisr ended before it listened")??;
            let url = line.strip_prefix(&format!("wisr: {door} on http://"));
            Ok(url
                .with_context(|| format!("wisr said {line:?}"))?
                .parse()?)
        };
        Ok(Running {
            site: address("site")?,
            admin: address("admin")?,
            process,
        })
    }
}

impl Running {
    /// Waits until everything made ahead of time is made.
    pub(crate) fn ready(&self, patience: Duration) -> Result<()> {
        let until = Instant::now() + patience;
        while once(self.admin, &get("/readyz", "")).is_err() {
            ensure!(
                Instant::now() < until,
                "wisr is not ready after {patience:?}"
            );
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }

    /// Waits until the page is there and everything made ahead of time is made.
    pub(crate) fn settle(&self) -> Result<(String, Vec<u8>)> {
        self.ready(Duration::from_secs(60))?;
        once(self.site, &get(PAGE, ""))?;
        once(self.site, &get(PAGE, "")).context("the second request for a page")
    }

    /// A counter of `/metrics`, by the beginning of its line.
    pub(crate) fn metric(&self, line: &str) -> Result<f64> {
        let (_, body) = once(self.admin, &get("/metrics", ""))?;
        let text = String::from_utf8_lossy(&body);
        let found = text.lines().find_map(|found| found.strip_prefix(line));
        Ok(found
            .with_context(|| format!("no metric {line}"))?
            .trim()
            .parse()?)
    }

    /// Waits until a metric is no more than `most`.
    pub(crate) fn until(&self, name: &str, most: f64, patience: Duration) -> Result<()> {
        let until = Instant::now() + patience;
        while self.metric(name)? > most {
            ensure!(
                Instant::now() < until,
                "{name} is above {most} after {patience:?}"
            );
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }

    /// What the admin door says about the entries below a path.
    pub(crate) fn entries(&self, prefix: &str) -> Result<serde_json::Value> {
        let request = get(&format!("/api/entries?prefix={prefix}&limit=1000"), "");
        let (_, body) = once(self.admin, &request).context("the admin door's /api/entries")?;
        Ok(serde_json::from_slice(&body)?)
    }
}

/// A call of the revalidate endpoint that waits for the new page.
pub(crate) fn regenerate(path: &str) -> Vec<u8> {
    call(&format!(r#"{{"paths":["{path}"],"mode":"regenerate"}}"#))
}

/// A call of the revalidate endpoint after which all pages with this tag are stale.
pub(crate) fn invalidate(tag: &str) -> Vec<u8> {
    call(&format!(r#"{{"tags":["{tag}"],"mode":"stale"}}"#))
}

fn call(body: &str) -> Vec<u8> {
    format!(
        "POST /api/revalidate HTTP/1.1\r\nhost: 127.0.0.1\r\nauthorization: Bearer {TOKEN}\r\n\
         content-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    )
    .into_bytes()
}

/// A fixture's module, built on first use.
pub(crate) fn built(name: &str) -> Result<Vec<u8>> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let folder: PathBuf = root.join("target/fixtures");
    let mut cargo = Command::new("cargo");
    cargo
        .args([
            "build",
            "--quiet",
            "--release",
            "--target",
            "wasm32-wasip2",
            "-p",
            name,
        ])
        .arg("--manifest-path")
        .arg(root.join("tests/fixtures/Cargo.toml"))
        .arg("--target-dir")
        .arg(&folder);
    // What was set for this build is not meant for the guest's.
    for foreign in [
        "RUSTFLAGS",
        "CARGO_ENCODED_RUSTFLAGS",
        "CARGO_BUILD_TARGET",
        "RUSTC_WRAPPER",
    ] {
        cargo.env_remove(foreign);
    }
    if !cargo.status().context("running cargo")?.success() {
        bail!("the page does not build; is the target there? `rustup target add wasm32-wasip2`");
    }
    let file = format!("wasm32-wasip2/release/{name}.wasm");
    Ok(fs::read(folder.join(file))?)
}

/// `module` with another version: other bytes, the same page.
pub(crate) fn patched(module: &[u8], version: u32) -> Result<Vec<u8>> {
    const MARKER: &[u8] = b"TENK-VERSION-";
    let at = module
        .windows(MARKER.len())
        .position(|bytes| bytes == MARKER);
    let at = at.context("the module carries no version")? + MARKER.len();
    let mut bytes = module.to_vec();
    bytes[at..at + 4].copy_from_slice(format!("{:04}", version % 10_000).as_bytes());
    Ok(bytes)
}
