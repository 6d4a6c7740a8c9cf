//! `Link`: a connection to one server or to a Cluster.
//!
//! It is never mended: whoever sees it fail has all of them made anew, together with what was read
//! over them.

use std::time::Duration;

use redis::aio::{ConnectionLike, MultiplexedConnection};
use redis::cluster::ClusterClientBuilder;
use redis::cluster_async::ClusterConnection;
use redis::{
    AsyncConnectionConfig, Client, Cmd, ConnectionInfo, ErrorKind, FromRedisValue,
    IntoConnectionInfo, RedisError, RedisResult, ServerErrorKind, TlsCertificates,
};

use super::script::Script;
use super::{Config, ConfigError};

/// Commands on their way over one connection: beyond it a slow server would fill the memory.
const IN_FLIGHT: usize = 4096;

/// Where the server is, and how to get in.
pub(super) struct Server {
    nodes: Vec<ConnectionInfo>,
    roots: Option<Vec<u8>>,
}

/// A connection. Cloning costs a reference count.
#[derive(Clone)]
pub(super) enum Link {
    One(MultiplexedConnection),
    Cluster(ClusterConnection),
}

impl Server {
    /// Reads what `config` says.
    ///
    /// # Errors
    /// When a URL is none of Redis's.
    pub(super) fn new(config: &Config) -> Result<Self, ConfigError> {
        let nodes = config.urls.iter().map(|url| {
            let wrong = |error: RedisError| ConfigError::Url(hidden(url), error.to_string());
            let info = url.as_str().into_connection_info().map_err(wrong)?;
            let mut settings = info.redis_settings().clone();
            if let Some(user) = &config.user {
                settings = settings.set_username(user);
            }
            if let Some(password) = &config.password {
                settings = settings.set_password(password);
            }
            Ok::<_, ConfigError>(info.set_redis_settings(settings))
        });
        Ok(Self {
            nodes: nodes.collect::<Result<_, _>>()?,
            roots: config.roots.clone(),
        })
    }

    /// Where it is, without what opens it.
    pub(super) fn addresses(&self) -> Vec<String> {
        let addresses = self.nodes.iter().map(|node| node.addr().to_string());
        addresses.collect()
    }

    /// A new connection, whose every answer takes `patience` at most.
    pub(super) async fn connect(&self, patience: Duration) -> RedisResult<Link> {
        let certificates = || TlsCertificates {
            client_tls: None,
            root_cert: self.roots.clone(),
        };
        if let [node] = &self.nodes[..] {
            let client = match &self.roots {
                Some(_) => Client::build_with_tls(node.clone(), certificates())?,
                None => Client::open(node.clone())?,
            };
            let config = AsyncConnectionConfig::new()
                .set_connection_timeout(Some(patience))
                .set_response_timeout(Some(patience))
                .set_concurrency_limit(IN_FLIGHT);
            let one = client.get_multiplexed_async_connection_with_config(&config);
            return one.await.map(Link::One);
        }
        let mut builder = ClusterClientBuilder::new(self.nodes.clone())
            .connection_timeout(patience)
            .response_timeout(patience)
            .retries(3)
            .connection_concurrency_limit(IN_FLIGHT);
        if self.roots.is_some() {
            builder = builder.certs(certificates());
        }
        let cluster = builder.build()?;
        cluster.get_async_connection().await.map(Link::Cluster)
    }
}

/// A URL without what is before its `@`: it may be a password.
fn hidden(url: &str) -> String {
    match (url.split_once("://"), url.rsplit_once('@')) {
        (Some((scheme, _)), Some((_, place))) => format!("{scheme}://…@{place}"),
        _ => url.to_owned(),
    }
}

impl Link {
    pub(super) fn is_cluster(&self) -> bool {
        matches!(self, Link::Cluster(_))
    }

    /// Sends one command.
    pub(super) async fn ask<T: FromRedisValue>(&mut self, command: &Cmd) -> RedisResult<T> {
        let answer = match self {
            Link::One(link) => link.req_packed_command(command).await,
            Link::Cluster(link) => link.req_packed_command(command).await,
        };
        Ok(redis::from_redis_value(answer?.extract_error()?)?)
    }

    /// Runs a script, which the server need not know yet.
    pub(super) async fn run<T: FromRedisValue>(&mut self, call: &Call) -> RedisResult<T> {
        match self.ask(&call.command("EVALSHA", &call.script.name)).await {
            Err(error) if error.kind() == ErrorKind::Server(ServerErrorKind::NoScript) => {
                self.ask(&call.command("EVAL", call.script.text)).await
            }
            answer => answer,
        }
    }
}

/// A script with its keys and arguments.
pub(super) struct Call {
    script: &'static Script,
    keys: Vec<String>,
    args: Vec<Vec<u8>>,
}

impl Call {
    pub(super) fn of(script: &'static Script, keys: &[&String]) -> Self {
        Self {
            script,
            keys: keys.iter().map(|key| (*key).clone()).collect(),
            args: Vec::new(),
        }
    }

    /// What decides in a Cluster which node has its keys (Redis Cluster specification, "Hash tags").
    pub(super) fn tag(&self) -> &[u8] {
        let key = self.keys.first().map_or("", String::as_str);
        let tagged = key.split_once('{').and_then(|(_, tag)| tag.split_once('}'));
        tagged.map_or(key, |(tag, _)| tag).as_bytes()
    }

    pub(super) fn number(self, number: u64) -> Self {
        self.text(&number.to_string())
    }

    pub(super) fn text(self, text: &str) -> Self {
        self.bytes(text.as_bytes().to_vec())
    }

    pub(super) fn bytes(mut self, bytes: Vec<u8>) -> Self {
        self.args.push(bytes);
        self
    }

    fn command(&self, verb: &str, script: &str) -> Cmd {
        let mut command = redis::cmd(verb);
        command.arg(script).arg(self.keys.len());
        for key in &self.keys {
            command.arg(key);
        }
        for arg in &self.args {
            command.arg(&arg[..]);
        }
        command
    }
}
