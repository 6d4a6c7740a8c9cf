//! How a site is run: the health check, the unit for systemd, and nginx before two servers.

use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use rustix::process::{Pid, Signal, kill_process};

use crate::client::Client;
use crate::site::{Running, Site, wait_for, wisr};
use crate::tools::tool;

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

/// What a container asks, by exit code: ready, alive, or neither.
#[tokio::test]
async fn a_container_can_ask_for_health() {
    let site = Site::new()
        .pages(&["slow"])
        .config("[defaults]\nwall = \"60s\"\n[server]\nadmin-token = \"operator-of-the-tests\"")
        .start_held("/slow")
        .await;
    site.until_calls("/slow", 1).await;
    let admin = site.admin_url();
    let ask = async |arguments: &[&str]| {
        let arguments = [&["health", "--admin", &admin], arguments].concat();
        wisr(Path::new("/"), &arguments).await.code
    };
    assert_eq!(ask(&["--live"]).await, Some(0));
    assert_eq!(ask(&[]).await, Some(1), "its first page is not made yet");
    site.origin.release("/slow");
    site.until_ready().await;
    assert_eq!(ask(&[]).await, Some(0));
    drop(site);
    assert_eq!(ask(&["--live"]).await, Some(1));
}

/// systemd understands the unit, and finds little that a break-in could use.
#[test]
fn the_unit_is_sound_and_confined() {
    let Some(analyze) = tool("systemd-analyze", "apt-get install systemd") else {
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let unit = std::fs::read_to_string(format!("{ROOT}/.deploy/wisr.service")).unwrap();
    // The program is where the test has it.
    let unit = unit.replace("/usr/local/bin/wisr", env!("CARGO_BIN_EXE_wisr"));
    let path = folder.path().join("wisr.service");
    std::fs::write(&path, unit).unwrap();
    let run = |arguments: &[&str]| {
        let output = Command::new(&analyze)
            .args(arguments)
            .arg(&path)
            .output()
            .unwrap();
        let text = [output.stdout, output.stderr].concat();
        (
            output.status.success(),
            String::from_utf8_lossy(&text).into_owned(),
        )
    };
    let (is_sound, told) = run(&["verify", "--man=no"]);
    assert!(is_sound && told.is_empty(), "{told}");
    // Of 100; a unit without hardening has 96.
    let (is_confined, told) = run(&["security", "--offline=yes", "--threshold=20", "--no-pager"]);
    assert!(is_confined, "{told}");
}

/// nginx in a folder of its own.
pub(crate) struct Nginx {
    process: Child,
    pub(crate) address: SocketAddr,
    folder: tempfile::TempDir,
}

impl Nginx {
    /// The README's configuration with these servers behind it.
    pub(crate) async fn before(program: &Path, servers: &[&Running]) -> Self {
        let upstream: String = servers
            .iter()
            .map(|server| format!("server {} max_fails=0;\n", server.site()))
            .collect();
        Self::start(program, |address, folder| {
            let readme = std::fs::read_to_string(format!("{ROOT}/README.md")).unwrap();
            let (_, block) = readme.split_once("```nginx\n").unwrap();
            let (block, _) = block.split_once("```").unwrap();
            assert!(block.contains("server 127.0.0.1:3000;") && block.contains("listen 80;"));
            let cache = folder.join("cache");
            let block = block
                .replace("server 127.0.0.1:3000;", &upstream)
                .replace("listen 80;", &format!("listen {address};"))
                .replace("/var/cache/nginx/wisr", cache.to_str().unwrap());
            let at = folder.display();
            format!(
                "http {{\naccess_log off;\nclient_body_temp_path {at}/body;\n\
                 proxy_temp_path {at}/proxy;\nfastcgi_temp_path {at}/f;\nuwsgi_temp_path {at}/u;\n\
                 scgi_temp_path {at}/s;\n{block}}}\n"
            )
        })
        .await
    }

    /// Listens on a free address, by the `blocks` that are made for it and its folder.
    pub(crate) async fn start(
        program: &Path,
        blocks: impl FnOnce(SocketAddr, &Path) -> String,
    ) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = free.local_addr().unwrap();
        let (at, blocks) = (folder.path().display(), blocks(address, folder.path()));
        let config = format!(
            "{blocks}daemon off;\nmaster_process off;\npid {at}/pid;\nerror_log {at}/error.log;\n\
             events {{}}\n"
        );
        std::fs::write(folder.path().join("nginx.conf"), config).unwrap();
        drop(free);
        let process = Command::new(program)
            .args(["-p", folder.path().to_str().unwrap(), "-c", "nginx.conf"])
            .args(["-e", folder.path().join("error.log").to_str().unwrap()])
            .stdin(Stdio::null())
            .spawn()
            .unwrap();
        let nginx = Self {
            process,
            address,
            folder,
        };
        wait_for("nginx listens", async || {
            let connected = tokio::net::TcpStream::connect(address).await;
            connected
                .map(drop)
                .map_err(|error| format!("{error}: {}", nginx.errors()))
        })
        .await;
        nginx
    }

    fn errors(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("error.log")).unwrap_or_default()
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        let _ = kill_process(Pid::from_child(&self.process), Signal::TERM);
        let _ = self.process.wait();
    }
}

/// Two servers behind the README's nginx are restarted one after the other, and no reader notices.
#[tokio::test]
async fn two_servers_are_restarted_without_a_failed_request() {
    let Some(program) = tool("nginx", "apt-get install nginx-light") else {
        return;
    };
    let pages = || {
        Site::new()
            .pages(&["index", "posts/[id]"])
            .config("[server]\nconnections-per-address = 1000")
    };
    let mut servers = [pages().start().await, pages().start().await];
    let nginx = Nginx::before(&program, &[&servers[0], &servers[1]]).await;
    let (stop, stopped) = tokio::sync::watch::channel(());
    let (address, answered) = (nginx.address, Arc::new(AtomicUsize::new(0)));
    let count = Arc::clone(&answered);
    let reader = tokio::spawn(async move {
        let (mut client, mut answers) = (Client::new(address), Vec::new());
        let mut page = 0;
        // Each page is a new one: nginx has none of them.
        while matches!(stopped.has_changed(), Ok(false)) {
            page += 1;
            count.store(page, Ordering::Relaxed);
            let answer = client.send("GET", &format!("/posts/{page}"), &[], "").await;
            answers.push(
                answer
                    .map(|answer| answer.status)
                    .map_err(|error| error.to_string()),
            );
        }
        answers
    });
    for server in &mut servers {
        let ports = (server.site(), server.admin_door());
        server.terminate();
        assert!(server.ended().await.success());
        server.restart_on(ports).await;
        server.until_ready().await;
        let before = answered.load(Ordering::Relaxed);
        wait_for("readers who go on", async || {
            let now = answered.load(Ordering::Relaxed);
            if now > before + 10 {
                Ok(())
            } else {
                Err(now.to_string())
            }
        })
        .await;
    }
    stop.send(()).unwrap();
    let answers = reader.await.unwrap();
    let failed: Vec<_> = answers
        .iter()
        .filter(|answer| **answer != Ok(200))
        .collect();
    assert!(
        failed.is_empty(),
        "{} of {}: {failed:?}\n{}",
        failed.len(),
        answers.len(),
        nginx.errors()
    );
}
