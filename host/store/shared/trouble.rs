//! `Trouble`: what is wrong with Redis, and what to do about it.

use redis::{ErrorKind, RedisError, ServerErrorKind};

/// Why Redis was not asked or did not answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Trouble {
    /// It failed of late.
    #[error("Redis failed of late, and is not asked")]
    Open,
    /// It did not answer in time.
    #[error("Redis did not answer in time (`store.timeout`)")]
    Slow,
    /// It took too long to connect.
    #[error("Redis cannot be reached in time")]
    Unreachable,
    /// There is no way to it, or the connection broke.
    #[error("Redis cannot be reached: {0}")]
    Away(String),
    /// Its invalidations are others than those that this host has seen.
    #[error("Redis came back with other invalidations than before")]
    History,
    /// So many hosts that are in touch have not followed.
    #[error("{0} of the hosts that share pages have not taken it in yet")]
    Behind(u64),
    /// It said no.
    #[error("{0}")]
    Redis(String),
}

impl From<RedisError> for Trouble {
    fn from(error: RedisError) -> Self {
        if error.is_timeout() {
            return Trouble::Slow;
        }
        let said = error.to_string();
        if error.is_io_error() {
            return Trouble::Away(said);
        }
        let hint = match error.kind() {
            ErrorKind::AuthenticationFailed => {
                ": set WISR_STORE_USER and WISR_STORE_PASSWORD to those of Redis"
            }
            _ if said.contains("NOAUTH") || said.contains("WRONGPASS") => {
                ": set WISR_STORE_USER and WISR_STORE_PASSWORD to those of Redis"
            }
            ErrorKind::Server(ServerErrorKind::Moved) => {
                ": this is a Cluster, name several of its nodes in store.url"
            }
            ErrorKind::Server(ServerErrorKind::NoPerm) => {
                ": the ACL user needs `~wisr:1:* +@read +@write +@scripting +time +@connection`"
            }
            _ if said.contains("OOM") => {
                ": raise its maxmemory, and set maxmemory-policy to volatile-lfu"
            }
            _ => "",
        };
        Trouble::Redis(format!("Redis says: {error}{hint}"))
    }
}
