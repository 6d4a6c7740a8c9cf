//! Section 8: broken files, full disks, missing descriptors, clocks that jump, a second server.
//! Whatever the machine does, readers have pages, operators are told, and it heals by itself.

use std::path::{Path, PathBuf};

use crate::client::Client;
use crate::modules;
use crate::site::{Running, Site, wait_for};

/// A file system of its own for the state, with this many bytes.
const SMALL_DISK: &str = "mount -t tmpfs -o size=24m wisr \"$0/.wisr\" && exec \"$@\"";

/// A shell script in a mount name space of its own; none, with a word on the terminal, where the
/// kernel does not give one.
fn apart(script: &'static str) -> Option<Vec<&'static str>> {
    let mut unshare = vec!["unshare", "--mount"];
    if !rustix::process::geteuid().is_root() {
        unshare.push("--map-root-user");
    }
    let probe = std::process::Command::new(unshare[0])
        .args(&unshare[1..])
        .args(["mount", "-t", "tmpfs", "wisr", "/mnt"])
        .output();
    let refused = match probe {
        Ok(output) if output.status.success() => {
            unshare.extend(["sh", "-c", script]);
            return Some(unshare);
        }
        Ok(output) => String::from_utf8_lossy(&output.stderr).into_owned(),
        Err(error) => error.to_string(),
    };
    // Past the harness, which shows nothing of a test that passes.
    let skipped = format!("skipped, this kernel gives no mount name space: {refused}\n");
    let _ = std::io::Write::write_all(&mut std::io::stderr(), skipped.as_bytes());
    None
}

/// A full disk costs no reader a page: they are served and renewed from memory, operators are told
/// once, and what waits is written when there is room again.
#[tokio::test]
async fn a_full_disk_costs_no_page() {
    let Some(under) = apart(SMALL_DISK) else {
        return;
    };
    let mut site = Site::new()
        .pages(&["posts/[id]"])
        .file(".wisr/.keep", b"")
        .under(&under)
        .start()
        .await;
    site.renew("/posts/1").await;
    let state = PathBuf::from(format!(
        "/proc/{}/root{}/.wisr",
        site.pid(),
        site.folder().display()
    ));
    println!(
        "{:?}",
        std::process::Command::new("sh")
            .arg("-c")
            .arg(format!("df {0}; du -a {0}", state.display()))
            .output()
            .map(|o| String::from_utf8_lossy(&o.stdout).into_owned())
    );
    println!("{}", site.log());
}
