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

#[cfg(test)]
mod tests {
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

    #[test]
    fn a_name_with_many_addresses_is_tried_a_few_times() {
        let many: Vec<_> = (1..=20).map(|n| format!("8.8.8.{n}")).collect();
        let many: Vec<_> = many.iter().map(String::as_str).collect();
        let open = judged("http://many.example/", &[], &many);
        assert_eq!(open.split(' ').count(), MAX_ADDRESSES);
    }
}
