//! [`Origin`]: the data source behind the pages of a test, scripted per path.
//!
//! The puppet asks it before each generation and obeys the answer. Without a script a path answers
//! with fresh props every time, whose `n` counts the calls.

use std::collections::HashMap;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;

/// A server in the test's own process. Clones are the same one.
#[derive(Clone)]
pub(crate) struct Origin {
    address: SocketAddr,
    state: Arc<Mutex<State>>,
}

/// One request that a page made.
#[derive(Debug, Clone)]
pub(crate) struct Call {
    /// The page's path.
    pub(crate) path: String,
    /// Why the page was made; `paths` and `shell` for the other two questions.
    pub(crate) cause: String,
    /// When it came.
    pub(crate) at: Instant,
}

/// The path of all pages.
pub(crate) const ANY: &str = "*";

#[derive(Default)]
struct State {
    scripts: HashMap<String, Value>,
    gates: HashMap<String, Arc<Semaphore>>,
    calls: Vec<Call>,
    /// How many of them were for each path.
    counts: HashMap<String, usize>,
    in_flight: usize,
    most_in_flight: usize,
}

impl Origin {
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let state = Arc::new(Mutex::new(State::default()));
        let serving = Arc::clone(&state);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let state = Arc::clone(&serving);
                let service = service_fn(move |request| answer(Arc::clone(&state), request));
                tokio::spawn(
                    hyper::server::conn::http1::Builder::new()
                        .serve_connection(TokioIo::new(stream), service),
                );
            }
        });
        Self { address, state }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    pub(crate) fn port(&self) -> u16 {
        self.address.port()
    }

    /// What the page at `path` is told from now on. Fields: `outcome` (`props`, `not-found`,
    /// `redirect`, `error`, `panic`, or the puppet's misdeeds), `revalidate`, `tags`, `props`,
    /// `location`, `redirect_status`, `fetch`, `huge`, `only` (the version that obeys `outcome`), and
    /// `render` with `outcome`, `status`, `headers`, `body`, `binary`, `pad`, `huge`.
    /// What is said of [`ANY`] holds for all pages of which nothing else is.
    /// `$N` anywhere in it becomes the number of the call.
    /// `/@paths/ROUTE` and `/@shell/PATH` script the other two questions.
    pub(crate) fn script(&self, path: &str, answer: Value) {
        self.state.lock().scripts.insert(path.to_owned(), answer);
    }

    /// The origin itself is broken for `path`: 500.
    pub(crate) fn fail(&self, path: &str) {
        self.script(path, json!({ "http": 500 }));
    }

    /// Back to the default answer.
    pub(crate) fn heal(&self, path: &str) {
        self.state.lock().scripts.remove(path);
    }

    /// Calls for `path` are answered with what was true when they came, but only after
    /// [`Origin::release`].
    pub(crate) fn hold(&self, path: &str) {
        let gate = Arc::new(Semaphore::new(0));
        self.state.lock().gates.insert(path.to_owned(), gate);
    }

    /// Answers the held calls for `path`, and later ones at once.
    pub(crate) fn release(&self, path: &str) {
        let gate = self.state.lock().gates.remove(path);
        gate.expect("it was held").close();
    }

    /// The calls for `path` so far, oldest first.
    pub(crate) fn calls(&self, path: &str) -> Vec<Call> {
        let state = self.state.lock();
        state
            .calls
            .iter()
            .filter(|call| call.path == path)
            .cloned()
            .collect()
    }

    /// How often `path` was asked for.
    pub(crate) fn count(&self, path: &str) -> usize {
        self.state.lock().counts.get(path).copied().unwrap_or(0)
    }

    /// The causes of the calls for `path`, oldest first.
    pub(crate) fn causes(&self, path: &str) -> Vec<String> {
        self.calls(path)
            .into_iter()
            .map(|call| call.cause)
            .collect()
    }

    /// Every call so far, oldest first.
    pub(crate) fn all_calls(&self) -> Vec<Call> {
        self.state.lock().calls.clone()
    }

    /// The most calls that were ever being answered at one time.
    pub(crate) fn most_in_flight(&self) -> usize {
        self.state.lock().most_in_flight
    }
}

async fn answer(
    state: Arc<Mutex<State>>,
    request: Request<Incoming>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    let path = request.uri().path().to_owned();
    let cause = request.uri().query().unwrap_or("").replace("cause=", "");
    let (mut script, n, gate) = {
        let mut state = state.lock();
        state.calls.push(Call {
            path: path.clone(),
            cause,
            at: Instant::now(),
        });
        state.in_flight += 1;
        state.most_in_flight = state.most_in_flight.max(state.in_flight);
        let count = state.counts.entry(path.clone()).or_default();
        *count += 1;
        let n = *count;
        let script = state.scripts.get(&path).or_else(|| state.scripts.get(ANY));
        let mut script = script.cloned().unwrap_or(json!({}));
        if script.get("props").is_none() {
            script["props"] = json!({ "n": n });
        }
        (script, n, state.gates.get(&path).cloned())
    };
    if let Some(gate) = gate {
        // An error says that the gate was opened for good.
        let _ = gate.acquire().await;
    }
    state.lock().in_flight -= 1;
    let status = script["http"].take().as_u64().unwrap_or(200);
    let text = script.to_string().replace("$N", &n.to_string());
    Ok(Response::builder()
        .status(u16::try_from(status).unwrap())
        .header("content-type", "application/json")
        .body(Full::new(Bytes::from(text)))
        .unwrap())
}
