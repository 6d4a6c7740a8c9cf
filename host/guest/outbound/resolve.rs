//! `Resolver`: from a target to the addresses that may be dialled. The one place where names
//! become addresses, so that what was judged and what is dialled cannot differ.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use super::address;
use super::policy::Policy;
use super::refusal::Refusal;
use super::target::{Host, Target};

/// Addresses of one name that are tried; a name with more is served by the first of them.
const MAX_ADDRESSES: usize = 8;

/// Who answers for names.
#[derive(Debug, Clone, Default)]
pub enum Resolver {
    /// The system's resolver, its hosts file included.
    #[default]
    System,
    /// Answers in turn, for tests; nothing once they are used up.
    #[cfg(test)]
    Scripted(Arc<parking_lot::Mutex<std::collections::VecDeque<Vec<IpAddr>>>>),
}

impl Resolver {
    /// The addresses of `host`, unjudged.
    pub(super) async fn lookup(&self, host: &Host) -> io::Result<Vec<IpAddr>> {
        let name = match host {
            Host::Address(address) => return Ok(vec![*address]),
            Host::Name(name) => name,
        };
        match self {
            Self::System => {
                let answers = tokio::net::lookup_host((name.as_str(), 0)).await?;
                Ok(answers.map(|answer| answer.ip()).collect())
            }
            #[cfg(test)]
            Self::Scripted(answers) => Ok(answers.lock().pop_front().unwrap_or_default()),
        }
    }
}

/// Whether the policy lets a connection for `target` go to `address`.
pub(super) fn is_open(address: IpAddr, target: &Target, policy: &Policy) -> bool {
    let address = address.to_canonical();
    address::closed(address).is_none() || policy.names(target.scheme, address, target.port)
}

/// Of a resolver's `answers`, those that may be dialled for `target`, in their order.
pub(super) fn judge(
    answers: &[IpAddr],
    target: &Target,
    policy: &Policy,
    route: &Arc<str>,
) -> Result<Vec<SocketAddr>, Refusal> {
    let open: Vec<_> = answers
        .iter()
        .map(IpAddr::to_canonical)
        .filter(|answer| is_open(*answer, target, policy))
        .map(|answer| SocketAddr::new(answer, target.port))
        .take(MAX_ADDRESSES)
        .collect();
    if !open.is_empty() {
        return Ok(open);
    }
    let Some((address, reason)) = answers
        .iter()
        .find_map(|answer| Some((answer.to_canonical(), address::closed(*answer)?)))
    else {
        return Err(Refusal::Dns {
            host: target.host.clone(),
            error: "it has no address".to_owned(),
        });
    };
    let entry = Target {
        host: Host::Address(address),
        ..target.clone()
    };
    Err(Refusal::Closed {
        host: target.host.clone(),
        address,
        reason,
        entry: entry.to_string(),
        route: Arc::clone(route),
    })
}
