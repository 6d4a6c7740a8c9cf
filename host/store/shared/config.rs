//! `Config`: which Redis hosts share, and how they use it.

use std::fmt;
use std::time::Duration;

use super::link::Server;

/// Which Redis, and how it is used.
#[derive(Clone)]
pub struct Config {
    /// Where it is: one server, or some nodes of a Cluster.
    pub urls: Vec<String>,
    /// The ACL user, over that of the URLs.
    pub user: Option<String>,
    /// The password, over that of the URLs.
    pub password: Option<String>,
    /// Root certificates in PEM, in place of those of the system.
    pub roots: Option<Vec<u8>>,
    /// What this host calls itself, to those who operate them.
    pub name: String,
    /// The site whose pages these are: several may use one Redis.
    pub site: String,
    /// How long whoever waits for a page waits for Redis.
    pub timeout: Duration,
    /// After how long a host that makes a page and is not heard of is taken for dead.
    pub lease: Duration,
    /// How long Redis keeps a page that is not made anew.
    pub keep: Duration,
}

impl Config {
    /// Whether the URLs are those of a Redis; nobody is asked.
    ///
    /// # Errors
    /// The first that is not.
    pub fn check(&self) -> Result<(), ConfigError> {
        Server::new(self).map(drop)
    }
}

/// Without what opens Redis.
impl fmt::Debug for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Config")
            .field("site", &self.site)
            .finish_non_exhaustive()
    }
}

/// What is wrong with the settings.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// No URL of a Redis.
    #[error("store.url = {0:?}: {1}; write \"redis://host:6379\" or \"rediss://host:6379\"")]
    Url(String, String),
    /// There is no thread for it.
    #[error("cannot start the thread that talks to Redis: {0}")]
    Thread(#[from] std::io::Error),
}
