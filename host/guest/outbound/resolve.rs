//! `Resolver`: from a target to the addresses that may be dialled. The one place where names
//! become addresses, so that what was judged and what is dialled cannot differ.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};

use super::address;
use super::policy::Policy;
use super::refusal::Refusal;
use super::target::{Host, Target};

/// Addresses of one name that are tried; a name with more is served by the first of them.
const MAX_ADDRESSES: usize = 8;

/// Look-ups of one route at once. The system's resolver cannot be interrupted: one whose answer
/// nobody waits for any more holds a thread until it gives up, commonly for 10 to 30 s.
const MAX_LOOKUPS_PER_ROUTE: usize = 16;

/// Look-ups at once, of all routes: a thread each.
const MAX_LOOKUPS: usize = 256;

/// Who answers for names.
#[derive(Debug, Clone, Default)]
pub enum Resolver {
    /// The system's resolver, its hosts file included.
    #[default]
    System,
    /// Answers in turn, for tests; nothing once they are used up.
    #[cfg(test)]
    Scripted(Arc<Mutex<std::collections::VecDeque<Vec<IpAddr>>>>),
    /// Does not answer while the lock is held, for tests; then with nothing.
    #[cfg(test)]
    Hung(Arc<Mutex<()>>),
}

/// The look-ups in flight.
pub(super) struct Lookups {
    resolver: Resolver,
    all: Arc<Semaphore>,
    routes: Mutex<HashMap<Arc<str>, Arc<Semaphore>>>,
}

/// The right to ask, which lasts until the system has answered, whoever still waits.
struct Turn {
    _of_route: OwnedSemaphorePermit,
    _of_all: OwnedSemaphorePermit,
}

impl Lookups {
    pub(super) fn new(resolver: Resolver) -> Self {
        Self {
            resolver,
            all: Arc::new(Semaphore::new(MAX_LOOKUPS)),
            routes: Mutex::default(),
        }
    }

    /// The addresses of `host`, unjudged. Waits for its turn.
    pub(super) async fn lookup(&self, host: &Host, route: &Arc<str>) -> io::Result<Vec<IpAddr>> {
        let name = match host {
            Host::Address(address) => return Ok(vec![*address]),
            Host::Name(name) => name.clone(),
        };
        let turn = self.turn(route).await?;
        let resolver = self.resolver.clone();
        let (answer, answered) = oneshot::channel();
        // A thread of its own: those that the runtime lends out are few, and pages are compressed on
        // them, which must not wait for a name server.
        std::thread::Builder::new()
            .name("look-up".to_owned())
            .spawn(move || {
                let _turn = turn;
                // Nobody may be waiting any more.
                let _ = answer.send(resolver.ask(&name));
            })?;
        answered
            .await
            .unwrap_or_else(|lost| Err(io::Error::other(lost)))
    }

    async fn turn(&self, route: &Arc<str>) -> io::Result<Turn> {
        let of_route = {
            let mut routes = self.routes.lock();
            let fresh = || Arc::new(Semaphore::new(MAX_LOOKUPS_PER_ROUTE));
            Arc::clone(routes.entry(Arc::clone(route)).or_insert_with(fresh))
        };
        // Never closed.
        Ok(Turn {
            _of_route: of_route.acquire_owned().await.map_err(io::Error::other)?,
            _of_all: Arc::clone(&self.all)
                .acquire_owned()
                .await
                .map_err(io::Error::other)?,
        })
    }
}

impl Resolver {
    fn ask(&self, name: &str) -> io::Result<Vec<IpAddr>> {
        match self {
            Self::System => Ok((name, 0).to_socket_addrs()?.map(|a| a.ip()).collect()),
            #[cfg(test)]
            Self::Scripted(answers) => Ok(answers.lock().pop_front().unwrap_or_default()),
            #[cfg(test)]
            Self::Hung(lock) => {
                drop(lock.lock());
                Ok(Vec::new())
            }
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

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    /// What may be dialled, or the refusal's word for logs.
    fn judged(url: &str, entries: &[&str], answers: &[&str]) -> String {
        let target = Target::of(&url.parse().unwrap()).unwrap();
        let entries: Vec<_> = entries.iter().map(ToString::to_string).collect();
        let policy = Policy::parse(&entries).unwrap();
        let answers: Vec<_> = answers.iter().map(|a| a.parse().unwrap()).collect();
        match judge(&answers, &target, &policy, &"/posts/[id]".into()) {
            Ok(open) => open
                .iter()
                .map(ToString::to_string)
                .collect::<Vec<_>>()
                .join(" "),
            Err(refusal) => refusal.as_str().to_owned(),
        }
    }

    #[test]
    fn a_name_leads_to_open_addresses_only() {
        let name = "https://api.example.com";
        let cases: [(&[&str], &[&str], &str); 14] = [
            (&[name], &["8.8.8.8"], "8.8.8.8:443"),
            (&[name], &["10.0.0.1", "8.8.8.8"], "8.8.8.8:443"),
            (
                &[name],
                &["8.8.8.8", "::1", "1.1.1.1"],
                "8.8.8.8:443 1.1.1.1:443",
            ),
            (&[name], &["127.0.0.1"], "address"),
            (&[name], &["::ffff:127.0.0.1"], "address"),
            (&[name], &["64:ff9b::7f00:1"], "address"),
            (&[name], &["2002:7f00:1::1", "2001:0:7f00:1::"], "address"),
            (&[name], &["169.254.169.254", "fd00:ec2::254"], "address"),
            (&[name], &[], "dns"),
            (&[name, "https://10.0.0.0/8"], &["10.0.0.1"], "10.0.0.1:443"),
            (
                &[name, "https://10.0.0.0/8"],
                &["::ffff:10.0.0.1"],
                "10.0.0.1:443",
            ),
            (
                &[name, "https://10.0.0.0/8"],
                &["10.0.0.1", "192.168.0.1"],
                "10.0.0.1:443",
            ),
            // An address is opened for the scheme and port of its entry.
            (&[name, "http://10.0.0.0/8"], &["10.0.0.1"], "address"),
            (&[name, "https://10.0.0.0/8:8443"], &["10.0.0.1"], "address"),
        ];
        for (entries, answers, expected) in cases {
            let url = "https://api.example.com/";
            assert_eq!(
                judged(url, entries, answers),
                expected,
                "{entries:?} {answers:?}"
            );
        }
    }

    #[test]
    fn a_closed_address_says_what_would_open_it() {
        let target = Target::of(&"http://db.example:81/".parse().unwrap()).unwrap();
        let answers = ["fd00::5".parse().unwrap()];
        let refusal = judge(&answers, &target, &Policy::none(), &"/a".into()).unwrap_err();
        assert_eq!(
            refusal.to_string(),
            "`db.example` leads to fd00::5 (private) and to nothing public: \
             add \"http://[fd00::5]:81\" to outbound of /a to open that address"
        );
    }

    #[tokio::test]
    async fn look_ups_that_nobody_waits_for_are_bounded() {
        let lock = Arc::new(Mutex::new(()));
        let held = lock.lock();
        let lookups = Lookups::new(Resolver::Hung(Arc::clone(&lock)));
        let host = Host::Name("slow.example".to_owned());
        let (slow, other): (Arc<str>, Arc<str>) = ("/slow".into(), "/other".into());
        for _ in 0..10 * MAX_LOOKUPS_PER_ROUTE {
            // Begun, or waiting for its turn, and left.
            assert!(lookups.lookup(&host, &slow).now_or_never().is_none());
        }
        let begun = || MAX_LOOKUPS - lookups.all.available_permits();
        assert_eq!(begun(), MAX_LOOKUPS_PER_ROUTE);
        assert!(lookups.lookup(&host, &other).now_or_never().is_none());
        assert_eq!(
            begun(),
            MAX_LOOKUPS_PER_ROUTE + 1,
            "other routes have their turns"
        );
        drop(held);
        assert_eq!(
            lookups.lookup(&host, &slow).await.unwrap(),
            [] as [IpAddr; 0]
        );
    }

    #[test]
    fn a_name_with_many_addresses_is_tried_a_few_times() {
        let many: Vec<_> = (1..=20).map(|n| format!("8.8.8.{n}")).collect();
        let many: Vec<_> = many.iter().map(String::as_str).collect();
        let open = judged("http://many.example/", &[], &many);
        assert_eq!(open.split(' ').count(), MAX_ADDRESSES);
    }
}
