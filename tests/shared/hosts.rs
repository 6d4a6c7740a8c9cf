//! [`Hosts`]: several servers of one site, which read from one origin and share one Redis.

use serde_json::Value;

use super::redis::Redis;
use crate::origin::Origin;
use crate::site::{Running, Site, wait_for};

/// How a host of the site `/`, `/posts/[id]` is configured that shares what is at `url`. It is
/// patient: the machine may be busy with other tests.
pub(crate) fn site(url: &str) -> Site {
    Site::new()
        .pages(&["index", "posts/[id]"])
        .config(&format!("[store]\nurl = {url:?}\ntimeout = \"1s\""))
}

/// One that gives Redis up as soon as it does by default.
pub(crate) fn hasty(url: &str) -> Site {
    site(url).config("[store]\ntimeout = \"200ms\"")
}

/// A host that shares, once it does.
pub(crate) async fn host(url: &str, origin: &Origin) -> Running {
    let host = site(url).start_on(origin.clone()).await;
    host.until_ready().await;
    until_breaker(&host, "closed").await;
    host
}

/// Two hosts of one origin that share a server of their own; none where there is no Redis.
pub(crate) async fn pair() -> Option<(Redis, Origin, Running, Running)> {
    let redis = Redis::start().await?;
    let origin = Origin::start().await;
    let (a, b) = (
        host(&redis.url(), &origin).await,
        host(&redis.url(), &origin).await,
    );
    Some((redis, origin, a, b))
}

/// Waits until the breaker is in this state; why it is.
pub(crate) async fn until_breaker(host: &Running, state: &str) -> Value {
    wait_for(&format!("the breaker {state}"), async || {
        let shared = host.admin("/readyz").await.json()["shared"].clone();
        if shared["breaker"] == state {
            Ok(shared)
        } else {
            Err(shared.to_string())
        }
    })
    .await
}
