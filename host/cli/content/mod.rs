//! The content API: a folder of Markdown over HTTP, for pages to fetch from while a site is written.

mod item;
mod library;
mod server;
#[cfg(test)]
mod tests;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, ensure};
use clap::Args;
use tokio::net::TcpListener;

use super::serve::stop_signal;
use super::terminal;
use crate::config::address;
use crate::http::hosts::Hosts;

pub use library::Library;
pub use server::serve;

/// Serve a folder of Markdown files as a JSON API on this machine.
///
/// Every folder below DIR is a collection, every `.md` file in it an item:
/// `DIR/docs/guide/start.md` is the item `guide/start` of the collection `docs`.
/// Lines of TOML between two lines `+++` at the head of a file become fields;
/// `draft = true` hides it. Files are read at every request: save, and it is live.
///
///   GET /                the collections
///   GET /COLLECTION      its items without their text: by `order`, else
///                        the newest `date` first
///   GET /COLLECTION/ID   one item with its `body`
///
/// Exit codes: 0 stopped by a signal, 1 failed, 2 usage.
#[derive(Debug, Args)]
#[command(
    verbatim_doc_comment,
    about = "Serve a folder of Markdown files as a JSON API on this machine"
)]
pub struct ContentArgs {
    /// The folder of collections.
    pub dir: PathBuf,
    /// Where to listen: a loopback address and a port (0 picks a free one).
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:3002", value_parser = address)]
    pub listen: SocketAddr,
    /// A name besides `localhost` by which it may be called; may be given several times.
    #[arg(long, value_name = "NAME")]
    pub host: Vec<String>,
}

/// Runs `wisr content` until SIGTERM or Ctrl-C.
///
/// # Errors
/// A folder that cannot be read, or an address that cannot be listened on.
pub async fn run(args: ContentArgs) -> anyhow::Result<ExitCode> {
    let library = Library::open(&args.dir)
        .with_context(|| format!("cannot read the folder `{}`", args.dir.display()))?;
    let listener = bind(args.listen).await?;
    let address = listener.local_addr()?;
    terminal::say(format!(
        "content API of `{}` on http://{address}/ (Ctrl-C stops it)",
        args.dir.display()
    ));
    let hosts = Hosts::new(args.host.iter().map(String::as_str)).context("--host")?;
    serve(library, listener, hosts, stop_signal()?).await;
    Ok(ExitCode::SUCCESS)
}

/// Listens on a loopback address.
///
/// # Errors
/// An address that others can reach, since the API asks nobody who they are; one that is in use.
pub async fn bind(address: SocketAddr) -> anyhow::Result<TcpListener> {
    ensure!(
        address.ip().is_loopback(),
        "the content API has no password, so it listens on loopback only: use 127.0.0.1:{} instead of {address}",
        address.port()
    );
    TcpListener::bind(address).await.with_context(|| {
        format!(
            "the content API cannot listen on {address}: stop what listens there, or choose another port with \
             `--listen`, under `wisr dev` with `settings.content` in wisr.toml"
        )
    })
}
