//! `Crawlers`: who waits for the page instead of getting its shell, which they would index.

use http::HeaderMap;
use http::header::USER_AGENT;

/// Search engines and link previews, by a part of their `user-agent`: those that Next.js knows,
/// and the ones that its users found missing.
pub const CRAWLERS: [&str; 39] = [
    "googlebot",
    "-google",
    "google-",
    "googleweblight",
    "chrome-lighthouse",
    "slurp",
    "duckduckbot",
    "baiduspider",
    "yandex",
    "sogou",
    "bitlybot",
    "tumblr",
    "vkshare",
    "quora link preview",
    "redditbot",
    "ia_archiver",
    "archive.org_bot",
    "bingbot",
    "bingpreview",
    "applebot",
    "facebookexternalhit",
    "facebookcatalog",
    "meta-externalagent",
    "twitterbot",
    "linkedinbot",
    "slackbot",
    "discordbot",
    "telegrambot",
    "whatsapp",
    "skypeuripreview",
    "pinterestbot",
    "mastodon",
    "yeti",
    "petalbot",
    "gptbot",
    "oai-searchbot",
    "claudebot",
    "perplexitybot",
    "ccbot",
];

/// Parts of a `user-agent` that mark a crawler; matched without regard to case.
#[derive(Debug, Clone)]
pub struct Crawlers(Box<[Box<str>]>);

impl Crawlers {
    /// The parts given; empty ones, which everybody would match, are left out.
    pub fn new(parts: &[String]) -> Self {
        Self(
            parts
                .iter()
                .map(|part| part.trim().to_ascii_lowercase())
                .filter(|part| !part.is_empty())
                .map(String::into_boxed_str)
                .collect(),
        )
    }

    /// Whether the request comes from one.
    pub fn sent(&self, headers: &HeaderMap) -> bool {
        let Some(agent) = headers.get(USER_AGENT) else {
            return false;
        };
        let agent = agent.as_bytes().to_ascii_lowercase();
        self.0.iter().any(|part| contains(&agent, part.as_bytes()))
    }
}

impl Default for Crawlers {
    fn default() -> Self {
        Self::new(&CRAWLERS.map(str::to_owned))
    }
}

fn contains(text: &[u8], part: &[u8]) -> bool {
    text.windows(part.len()).any(|window| window == part)
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn crawlers_are_told_from_people() {
        let sent = |crawlers: &Crawlers, agent: &'static str| {
            let headers = HeaderMap::from_iter([(USER_AGENT, HeaderValue::from_static(agent))]);
            crawlers.sent(&headers)
        };
        let known = Crawlers::default();
        for (agent, expected) in [
            (
                "Mozilla/5.0 (compatible; Googlebot/2.1; +http://www.google.com/bot.html)",
                true,
            ),
            ("FacebookExternalHit/1.1", true),
            ("AdsBot-Google (+http://www.google.com/adsbot.html)", true),
            (
                "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Firefox/140.0",
                false,
            ),
            ("curl/8.5.0", false),
            ("", false),
        ] {
            assert_eq!(sent(&known, agent), expected, "{agent}");
        }
        let own = Crawlers::new(&["MyBot".to_owned(), "  ".to_owned()]);
        assert!(sent(&own, "xx-mybot/3"));
        assert!(!sent(&own, "Googlebot/2.1"));
        assert!(!own.sent(&HeaderMap::new()));
    }
}
