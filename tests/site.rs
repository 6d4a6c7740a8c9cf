//! [`Site`]: a folder of pages with a server on it, as a test lays it out; [`Running`] is the same
//! site once it serves.

use std::io::{BufRead, BufReader};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use rustix::process::{Pid, Signal};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::client::{Client, Response};
use crate::modules;
use crate::origin::Origin;

/// The token of every site's `/api/revalidate`.
pub(crate) const TOKEN: &str = "a-secret-of-the-tests";

/// Stands for the origin's port in a test's configuration.
pub(crate) const ORIGIN_PORT: &str = "ORIGIN-PORT";

/// In the server's environment, where no page may find it.
pub(crate) const CANARY: (&str, &str) = ("WISR_TEST_CANARY", "canary-in-the-environment");

/// Any free port for either door.
const ANY_PORTS: (SocketAddr, SocketAddr) = {
    let any = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0);
    (any, any)
};

/// What a server logs, unless a test says otherwise.
const LOG: &str = "info";

/// How long a condition may take to come true: generous, for machines with noisy neighbours.
const DEADLINE: Duration = Duration::from_secs(60);

/// How long a server may take to listen: a cold start may compile.
const START: Duration = Duration::from_secs(120);

/// A site that is not running yet.
pub(crate) struct Site {
    files: Vec<(PathBuf, Vec<u8>)>,
    scripts: Vec<(String, Value)>,
    config: toml::Table,
    under: Vec<String>,
    log: &'static str,
    environment: Vec<(String, String)>,
}

/// A running site. Dropping it kills the server and removes the folder.
pub(crate) struct Running {
    server: Option<Server>,
    folder: TempDir,
    under: Vec<String>,
    log: &'static str,
    environment: Vec<(String, String)>,
    pub(crate) origin: Origin,
}

struct Server {
    process: Child,
    site: SocketAddr,
    admin: SocketAddr,
    stderr: Arc<Mutex<String>>,
}

impl Site {
    pub(crate) fn new() -> Self {
        Self {
            files: Vec::new(),
            scripts: Vec::new(),
            config: toml::Table::new(),
            under: Vec::new(),
            log: LOG,
            environment: Vec::new(),
        }
    }

    /// A variable in the server's environment.
    pub(crate) fn env(mut self, name: &str, value: &str) -> Self {
        self.environment.push((name.to_owned(), value.to_owned()));
        self
    }

    /// What the server logs, as `WISR_LOG` says it.
    pub(crate) fn logging(self, log: &'static str) -> Self {
        Self { log, ..self }
    }

    /// The puppet at `pages/NAME.wasm`, for each name.
    pub(crate) fn pages(self, names: &[&str]) -> Self {
        names
            .iter()
            .fold(self, |site, name| site.module(name, modules::puppet()))
    }

    /// Any bytes at `pages/NAME.wasm`.
    pub(crate) fn module(self, name: &str, bytes: &[u8]) -> Self {
        self.file(&format!("pages/{name}.wasm"), bytes)
    }

    /// Any bytes anywhere in the site's folder.
    pub(crate) fn file(mut self, path: &str, bytes: &[u8]) -> Self {
        self.files.push((path.into(), bytes.to_vec()));
        self
    }

    /// What the origin says about a path from before the start on.
    pub(crate) fn script(mut self, path: &str, answer: Value) -> Self {
        self.scripts.push((path.to_owned(), answer));
        self
    }

    /// What `static-paths` of `route` answers. `name` has no slashes.
    pub(crate) fn listed(self, route: &str, name: &str, answer: Value) -> Self {
        self.config(&format!(
            "[routes.{route:?}]\nsettings = {{ paths = {name:?} }}"
        ))
        .script(&format!("/@paths/{name}"), answer)
    }

    /// More of `wisr.toml`, merged into what there is.
    pub(crate) fn config(mut self, text: &str) -> Self {
        merge(&mut self.config, text.parse().unwrap());
        self
    }

    /// Runs the server under another program, which gets the site's folder and then the server's
    /// own command line as its last arguments.
    pub(crate) fn under(mut self, program: Vec<String>) -> Self {
        self.under = program;
        self
    }

    /// Starts the server and waits until everything that is made ahead of time is made.
    pub(crate) async fn start(self) -> Running {
        let running = self.start_unready().await;
        running.until_ready().await;
        running
    }

    /// Starts the server and waits only until it listens.
    pub(crate) async fn start_unready(self) -> Running {
        self.start_on(Origin::start().await).await
    }

    /// Starts the server while the origin holds back the answer for `path`.
    pub(crate) async fn start_held(self, path: &str) -> Running {
        let origin = Origin::start().await;
        origin.hold(path);
        self.start_on(origin).await
    }

    /// Starts the server on an origin that others may read from as well, and waits only until it
    /// listens.
    pub(crate) async fn start_on(self, origin: Origin) -> Running {
        let (under, log) = (self.under.clone(), self.log);
        let environment = self.environment.clone();
        let mut running = Running::idle(self.lay_out(&origin), origin);
        running.under = under;
        running.log = log;
        running.environment = environment;
        running.launch().await;
        running
    }

    /// The site's folder, which nobody serves yet.
    pub(crate) fn lay_out(self, origin: &Origin) -> TempDir {
        for (path, answer) in self.scripts {
            origin.script(&path, answer);
        }
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("pages")).unwrap();
        for (path, bytes) in &self.files {
            let path = folder.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, bytes).unwrap();
        }
        let mut config = base_config(&origin.url());
        merge(&mut config, self.config);
        let text = config
            .to_string()
            .replace(ORIGIN_PORT, &origin.port().to_string());
        std::fs::write(folder.path().join("wisr.toml"), text).unwrap();
        folder
    }
}

fn base_config(origin: &str) -> toml::Table {
    let artifacts = modules::artifacts();
    std::fs::create_dir_all(&artifacts).unwrap();
    let text = format!(
        "[server]\nartifacts = {artifacts:?}\ndrain = \"5s\"\n[revalidate]\ntoken = {TOKEN:?}\n\
         [defaults]\noutbound = [{origin:?}]\n[settings]\norigin = {origin:?}\n"
    );
    text.parse().unwrap()
}

fn merge(into: &mut toml::Table, from: toml::Table) {
    for (key, value) in from {
        match (into.get_mut(&key), value) {
            (Some(toml::Value::Table(old)), toml::Value::Table(new)) => merge(old, new),
            (_, value) => {
                into.insert(key, value);
            }
        }
    }
}

/// Looks again and again until `look` finds what it wants; the error is what it saw instead.
pub(crate) async fn wait_for<T>(what: &str, look: impl AsyncFnMut() -> Result<T, String>) -> T {
    wait_longer(DEADLINE, what, look).await
}

/// The same for what may take longer than others.
pub(crate) async fn wait_longer<T>(
    limit: Duration,
    what: &str,
    mut look: impl AsyncFnMut() -> Result<T, String>,
) -> T {
    let deadline = Instant::now() + limit;
    loop {
        match look().await {
            Ok(found) => return found,
            Err(seen) if Instant::now() > deadline => {
                panic!("{what}: not within {limit:?}; last seen: {seen}")
            }
            Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
        }
    }
}

/// How a command ended and what it said.
#[derive(Debug)]
pub(crate) struct Finished {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

/// Runs `wisr` with `arguments` in `folder` to its end.
pub(crate) async fn wisr(folder: &Path, arguments: &[&str]) -> Finished {
    let output = tokio::process::Command::new(env!("CARGO_BIN_EXE_wisr"))
        .args(arguments)
        .current_dir(folder)
        .env("WISR_TOKEN", TOKEN)
        .env("WISR_LOG_FORMAT", "human")
        // A module of Python's size takes a busy machine long, and the limit has a test of its own.
        .env("WISR_COMPILE_WALL", "20min")
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output()
        .await
        .unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    Finished {
        code: output.status.code(),
        stdout: text(&output.stdout),
        stderr: text(&output.stderr),
    }
}

impl Server {
    async fn start(folder: &Path, mut command: Command, ports: (SocketAddr, SocketAddr)) -> Self {
        let mut process = command
            .arg("serve")
            .arg(folder)
            .args(["--listen", &ports.0.to_string()])
            .args(["--admin", &ports.1.to_string()])
            .env(CANARY.0, CANARY.1)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let stderr = Arc::new(Mutex::new(String::new()));
        collect(process.stderr.take().unwrap(), Arc::clone(&stderr));
        let (sender, mut addresses) = tokio::sync::mpsc::unbounded_channel();
        let stdout = BufReader::new(process.stdout.take().unwrap());
        std::thread::spawn(move || {
            for line in stdout.lines().map_while(Result::ok) {
                if let Some((_, address)) = line.split_once(" on http://") {
                    let _ = sender.send(address.trim().parse().unwrap());
                }
            }
        });
        let mut next = async || {
            let told = tokio::time::timeout(START, addresses.recv()).await;
            told.ok()
                .flatten()
                .unwrap_or_else(|| panic!("the server did not start:\n{}", stderr.lock()))
        };
        let (site, admin) = (next().await, next().await);
        Self {
            process,
            site,
            admin,
            stderr,
        }
    }
}

/// The server's program, under another one if need be.
pub(crate) fn command(folder: &Path, under: &[String]) -> Command {
    let wisr = env!("CARGO_BIN_EXE_wisr");
    match under {
        [] => Command::new(wisr),
        [program, arguments @ ..] => {
            let mut command = Command::new(program);
            command.args(arguments).arg(folder).arg(wisr);
            command
        }
    }
}

/// Reads a pipe to its end, so that the server never waits for a test to read.
fn collect(mut pipe: impl std::io::Read + Send + 'static, into: Arc<Mutex<String>>) {
    std::thread::spawn(move || {
        let mut chunk = [0; 8192];
        while let Ok(length @ 1..) = pipe.read(&mut chunk) {
            into.lock()
                .push_str(&String::from_utf8_lossy(&chunk[..length]));
        }
    });
}

impl Running {
    /// Serves a folder that is a site already.
    pub(crate) async fn on(folder: TempDir, origin: Origin) -> Self {
        let mut running = Self::idle(folder, origin);
        running.launch().await;
        running
    }

    fn idle(folder: TempDir, origin: Origin) -> Self {
        Self {
            server: None,
            folder,
            under: Vec::new(),
            log: LOG,
            environment: Vec::new(),
            origin,
        }
    }

    async fn launch(&mut self) {
        self.launch_on(ANY_PORTS).await;
    }

    async fn launch_on(&mut self, ports: (SocketAddr, SocketAddr)) {
        let mut command = command(self.folder.path(), &self.under);
        command.env("WISR_LOG", self.log);
        command.env("WISR_LOG_FORMAT", "human");
        command.envs(self.environment.iter().cloned());
        let server = Server::start(self.folder.path(), command, ports).await;
        self.server = Some(server);
    }

    fn server(&self) -> &Server {
        self.server.as_ref().expect("the test stopped the server")
    }

    /// The public address.
    pub(crate) fn site(&self) -> SocketAddr {
        self.server().site
    }

    /// Bytes of memory that the server has (`proc(5)`, VmRSS).
    pub(crate) fn resident(&self) -> u64 {
        self.memory("VmRSS:")
    }

    /// Bytes of that which are no file's.
    pub(crate) fn own(&self) -> u64 {
        self.memory("RssAnon:")
    }

    /// The most that it had since it began, or since that was set back.
    pub(crate) fn peak(&self) -> u64 {
        self.memory("VmHWM:")
    }

    fn memory(&self, which: &str) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix(which));
        let kib = line.and_then(|line| line.trim().strip_suffix(" kB"));
        kib.unwrap().trim().parse::<u64>().unwrap() * 1024
    }

    /// The address for operators.
    pub(crate) fn admin_door(&self) -> SocketAddr {
        self.server().admin
    }

    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// What the server logged so far.
    pub(crate) fn log(&self) -> String {
        self.server().stderr.lock().clone()
    }

    /// A reader with a connection of its own.
    pub(crate) fn reader(&self) -> Client {
        Client::new(self.site())
    }

    pub(crate) async fn get(&self, path: &str) -> Response {
        self.get_with(path, &[]).await
    }

    pub(crate) async fn get_with(&self, path: &str, headers: &[(&str, &str)]) -> Response {
        self.send("GET", path, headers, "").await
    }

    pub(crate) async fn send(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &str,
    ) -> Response {
        let answer = self.reader().send(method, path, headers, body).await;
        answer.unwrap_or_else(|error| panic!("{method} {path}: {error}"))
    }

    pub(crate) async fn raw(&self, bytes: &[u8]) -> String {
        crate::client::raw(self.site(), bytes).await
    }

    /// Asks the admin listener.
    pub(crate) async fn admin(&self, path: &str) -> Response {
        let answer = Client::new(self.server().admin)
            .send("GET", path, &[], "")
            .await;
        answer.unwrap_or_else(|error| panic!("admin {path}: {error}"))
    }

    /// Where commands find the admin listener.
    pub(crate) fn admin_url(&self) -> String {
        format!("http://{}", self.server().admin)
    }

    /// Posts to the admin listener.
    pub(crate) async fn admin_post(
        &self,
        path: &str,
        headers: &[(&str, &str)],
        body: &str,
    ) -> Response {
        let answer = Client::new(self.server().admin)
            .send("POST", path, headers, body)
            .await;
        answer.unwrap_or_else(|error| panic!("admin {path}: {error}"))
    }

    /// Calls `/api/revalidate` with the token.
    pub(crate) async fn revalidate(&self, body: Value) -> Response {
        let headers = [
            ("authorization", &*format!("Bearer {TOKEN}")),
            ("content-type", "application/json"),
        ];
        self.send("POST", "/api/revalidate", &headers, &body.to_string())
            .await
    }

    /// Revalidates one path and expects it to work.
    #[track_caller]
    pub(crate) fn renew(&self, path: &str) -> impl Future<Output = ()> {
        let path = path.to_owned();
        async move {
            let answer = self.revalidate(json!({ "paths": [path] })).await;
            assert_eq!(answer.status, 200, "{path}: {}", answer.text());
        }
    }

    /// The incidents, newest first.
    pub(crate) async fn incidents(&self) -> Vec<Value> {
        let body = self.admin("/api/incidents").await.json();
        let list = body.as_array().or_else(|| body["incidents"].as_array());
        list.unwrap_or_else(|| panic!("no list of incidents: {body}"))
            .clone()
    }

    /// Waits for an incident of this kind whose JSON contains `words`.
    pub(crate) async fn until_incident(&self, kind: &str, words: &str) -> Value {
        wait_for(
            &format!("an incident of kind {kind} about {words:?}"),
            async || {
                let incidents = self.incidents().await;
                let found = incidents.iter().find(|incident| {
                    incident["kind"] == kind && incident.to_string().contains(words)
                });
                found.cloned().ok_or_else(|| format!("{incidents:#?}"))
            },
        )
        .await
    }

    /// The latest incident of a page.
    pub(crate) async fn incident_of(&self, path: &str) -> Value {
        let incidents = self.incidents().await;
        let found = incidents.iter().find(|incident| incident["path"] == path);
        found
            .unwrap_or_else(|| panic!("no incident of {path}: {incidents:#?}"))
            .clone()
    }

    /// Waits until the server has logged `words`.
    pub(crate) async fn until_log(&self, words: &str) {
        wait_for(&format!("{words:?} in the log"), async || {
            let log = self.log();
            if log.contains(words) {
                Ok(())
            } else {
                Err(log)
            }
        })
        .await;
    }

    pub(crate) async fn until_ready(&self) {
        wait_for("ready", async || {
            let answer = self.admin("/readyz").await;
            if answer.status == 200 {
                Ok(())
            } else {
                Err(answer.text())
            }
        })
        .await;
    }

    /// Reads `path` until the answer is as wanted, and returns that answer.
    pub(crate) async fn until(&self, path: &str, wanted: impl Fn(&Response) -> bool) -> Response {
        wait_for(&format!("GET {path}"), async || {
            let answer = self.get(path).await;
            if wanted(&answer) {
                return Ok(answer);
            }
            Err(format!(
                "{} {:?} {}",
                answer.status,
                answer.headers,
                answer.text()
            ))
        })
        .await
    }

    /// Waits until the origin was asked for `path` this often, without reading the page.
    pub(crate) async fn until_calls(&self, path: &str, count: usize) {
        wait_for(&format!("{count} calls for {path}"), async || {
            let calls = self.origin.calls(path);
            if calls.len() >= count {
                Ok(())
            } else {
                Err(format!("{calls:?}"))
            }
        })
        .await;
    }

    /// Puts a module into the folder the way a careful deployment does: written aside, then renamed.
    pub(crate) fn swap(&self, name: &str, bytes: &[u8]) {
        let aside = self.folder().join("aside.tmp");
        std::fs::write(&aside, bytes).unwrap();
        let target = self.folder().join(format!("pages/{name}.wasm"));
        std::fs::create_dir_all(target.parent().unwrap()).unwrap();
        std::fs::rename(aside, target).unwrap();
    }

    pub(crate) fn remove(&self, name: &str) {
        std::fs::remove_file(self.folder().join(format!("pages/{name}.wasm"))).unwrap();
    }

    /// `kill -9`: nothing is flushed, nothing is said.
    pub(crate) fn kill(&mut self) {
        if let Some(mut server) = self.server.take() {
            let _ = server.process.kill();
            let _ = server.process.wait();
            show(&server);
        }
    }

    /// Starts the server again on the same folder.
    pub(crate) async fn restart(&mut self) {
        self.kill();
        self.launch().await;
        self.until_ready().await;
    }

    /// As [`Running::restart`], and waits only until it listens.
    pub(crate) async fn restart_unready(&mut self) {
        self.kill();
        self.launch().await;
    }

    /// Starts a server that has ended again, on the ports that it had.
    pub(crate) async fn restart_on(&mut self, ports: (SocketAddr, SocketAddr)) {
        self.kill();
        self.launch_on(ports).await;
    }

    /// SIGTERM: asks the server to stop.
    pub(crate) fn terminate(&self) {
        self.signal(Signal::TERM);
    }

    /// `kill -9` under those who still talk to the server; [`Running::restart`] buries it.
    pub(crate) fn strike(&self) {
        self.signal(Signal::KILL);
    }

    /// Sends the server a signal.
    pub(crate) fn signal(&self, signal: Signal) {
        rustix::process::kill_process(self.pid(), signal).unwrap();
    }

    /// Replaces `wisr.toml` by what it says now with `text` merged into it.
    pub(crate) fn configure(&self, text: &str) {
        let file = self.folder().join("wisr.toml");
        let mut config = std::fs::read_to_string(&file).unwrap().parse().unwrap();
        merge(&mut config, text.parse().unwrap());
        let aside = self.folder().join("aside.tmp");
        std::fs::write(&aside, config.to_string()).unwrap();
        std::fs::rename(aside, file).unwrap();
    }

    /// The server's process.
    pub(crate) fn pid(&self) -> Pid {
        let pid = i32::try_from(self.server().process.id()).unwrap();
        Pid::from_raw(pid).unwrap()
    }

    /// Waits for the server's end.
    pub(crate) async fn ended(&mut self) -> ExitStatus {
        let process = &mut self.server.as_mut().expect("it was started").process;
        let process = Mutex::new(process);
        wait_for("the end of the server", async || {
            process
                .lock()
                .try_wait()
                .unwrap()
                .ok_or("it still runs".to_owned())
        })
        .await
    }

    /// The value of a metric without labels.
    pub(crate) async fn metric(&self, name: &str) -> f64 {
        let text = self.admin("/metrics").await.text();
        let line = text
            .lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        let line = line.unwrap_or_else(|| panic!("no metric {name} in\n{text}"));
        line.trim().parse().unwrap()
    }

    /// The value of a metric, with its labels; 0 while there is none.
    pub(crate) async fn metric_or_zero(&self, name: &str) -> f64 {
        let text = self.admin("/metrics").await.text();
        let line = text
            .lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        line.map_or(0.0, |line| line.trim().parse().unwrap())
    }

    /// Waits until a metric has this value.
    pub(crate) async fn until_metric(&self, name: &str, wanted: f64) {
        wait_for(&format!("{name} {wanted}"), async || {
            let value = self.metric(name).await;
            if value >= wanted {
                Ok(())
            } else {
                Err(value.to_string())
            }
        })
        .await;
    }

    /// A reader who waits on a connection of its own while the test goes on.
    pub(crate) fn waiting(&self, path: &str) -> JoinHandle<Response> {
        let (mut reader, path) = (self.reader(), path.to_owned());
        tokio::spawn(async move { reader.send("GET", &path, &[], "").await.unwrap() })
    }

    /// Many readers at once; returns when all of them are connected.
    pub(crate) async fn crowd(&self, paths: &[&str]) -> Vec<JoinHandle<Response>> {
        let readers = paths.iter().map(|path| self.waiting(path)).collect();
        self.until_metric("wisr_connections", paths.len() as f64)
            .await;
        readers
    }
}

/// What everybody in a crowd got.
pub(crate) async fn all(readers: Vec<JoinHandle<Response>>) -> Vec<Response> {
    let mut answers = Vec::new();
    for reader in readers {
        answers.push(reader.await.unwrap());
    }
    answers
}

fn show(server: &Server) {
    if std::thread::panicking() {
        eprintln!("--- the server said:\n{}---", server.stderr.lock());
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.kill();
    }
}
