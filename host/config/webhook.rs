//! `[webhooks.NAME]`: who else says what has changed, and which pages that means.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use serde::{Deserialize, Serialize};

use super::units::{Span, secret, unguessable};
use crate::http::{self, RuleText, Seal};
use crate::page::Mode;

/// How old a delivery may be that states its time: what Stripe and the Standard Webhooks
/// specification recommend.
const TOLERANCE: Duration = Duration::from_secs(300);

/// Shorter secrets can be guessed.
const MIN_SECRET: usize = 6;

/// `[webhooks.NAME]`. It is a rule itself, unless it names no pages.
#[derive(Debug, Clone, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub(super) struct Webhook {
    scheme: Scheme,
    header: Option<String>,
    #[serde(deserialize_with = "secret")]
    secret: Option<String>,
    tolerance: Option<Span>,
    when: BTreeMap<String, Words>,
    paths: Vec<String>,
    tags: Vec<String>,
    mode: Option<Mode>,
    on: Vec<Rule>,
}

/// `[[webhooks.NAME.on]]`
#[derive(Debug, Clone, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
struct Rule {
    when: BTreeMap<String, Words>,
    paths: Vec<String>,
    tags: Vec<String>,
    mode: Option<Mode>,
}

/// `scheme = …`
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
enum Scheme {
    #[default]
    Header,
    Github,
    Stripe,
    StandardWebhooks,
}

/// One word, or several of which each will do.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(
    untagged,
    expecting = "a string, a number or a truth value is expected, or a list of them"
)]
enum Words {
    One(Word),
    Several(Vec<Word>),
}

/// A string, a number or a truth value, as payloads have them.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(untagged)]
enum Word {
    Text(String),
    Number(i64),
    Truth(bool),
}

/// What the tables mean.
pub(super) fn resolve(tables: &BTreeMap<String, Webhook>) -> anyhow::Result<http::Webhooks> {
    let resolved = tables.iter().map(|(name, table)| {
        let place = || format!("[webhooks.{name}]");
        let webhook = table.resolve(name).with_context(place)?;
        Ok((name.clone(), Arc::new(webhook)))
    });
    resolved.collect()
}

/// The environment variable that holds the secret of a webhook, so that it need not be in a file.
fn variable(name: &str) -> String {
    let name = name.to_ascii_uppercase().replace('-', "_");
    format!("WISR_WEBHOOK_{name}_SECRET")
}

impl Webhook {
    fn resolve(&self, name: &str) -> anyhow::Result<http::Webhook> {
        let is_named = |byte: u8| byte.is_ascii_alphanumeric() || b"-_".contains(&byte);
        ensure!(
            !name.is_empty() && name.bytes().all(is_named),
            "a name has letters, digits, `-` and `_`: it is part of the address"
        );
        let variable = variable(name);
        let Some(secret) = &self.secret else {
            bail!("it has no secret: set `secret`, or {variable} in the environment");
        };
        unguessable(
            secret,
            MIN_SECRET,
            &format!("the secret ({variable}, or `secret`)"),
        )?;
        let scheme = match self.scheme {
            Scheme::Header => http::Scheme::Header,
            Scheme::Github => http::Scheme::Github,
            Scheme::Stripe => http::Scheme::Stripe,
            Scheme::StandardWebhooks => http::Scheme::StandardWebhooks,
        };
        let tolerance = self.tolerance.map_or(TOLERANCE, |span| span.0);
        let seal = Seal::new(scheme, self.header.as_deref(), secret, tolerance);
        Ok(http::Webhook {
            seal: seal.map_err(anyhow::Error::msg)?,
            rules: self.rules().map_err(anyhow::Error::msg)?,
        })
    }

    fn rules(&self) -> Result<Vec<http::Rule>, String> {
        let own = Rule {
            when: self.when.clone(),
            paths: self.paths.clone(),
            tags: self.tags.clone(),
            mode: self.mode,
        };
        let is_rule = !(own.paths.is_empty() && own.tags.is_empty()) || self.on.is_empty();
        if !is_rule && (!own.when.is_empty() || own.mode.is_some()) {
            return Err(
                "`when` and `mode` belong to `paths` and `tags`: write them into the \
                        `on` that they are for"
                    .to_owned(),
            );
        }
        let all = is_rule.then_some(&own).into_iter().chain(&self.on);
        all.map(Rule::resolve).collect()
    }
}

impl Rule {
    fn resolve(&self) -> Result<http::Rule, String> {
        let when = self.when.iter();
        http::Rule::parse(&RuleText {
            when: when
                .map(|(place, words)| (place.as_str(), words.texts()))
                .collect(),
            paths: &self.paths,
            tags: &self.tags,
            mode: self.mode,
        })
    }
}

impl Words {
    fn texts(&self) -> Vec<String> {
        let words = match self {
            Words::One(word) => std::slice::from_ref(word),
            Words::Several(words) => words,
        };
        let text = |word: &Word| match word {
            Word::Text(text) => text.clone(),
            Word::Number(number) => number.to_string(),
            Word::Truth(truth) => truth.to_string(),
        };
        words.iter().map(text).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resolved(text: &str) -> anyhow::Result<http::Webhooks> {
        let tables: BTreeMap<String, Webhook> = toml::from_str(text)?;
        resolve(&tables)
    }

    #[test]
    fn one_rule_is_short_and_several_are_possible() {
        let count = |text: &str| resolved(text).unwrap()["cms"].rules.len();
        let secret = "[cms]\nsecret = \"s3cret\"";
        assert_eq!(count(&format!("{secret}\ntags = [\"a\"]")), 1);
        let on = "[[cms.on]]\nwhen = { x-event = [\"a\", 1, true], \"/id\" = 7 }\npaths = [\"/a\"]";
        assert_eq!(count(&format!("{secret}\n{on}\n{on}")), 2);
        assert_eq!(count(&format!("{secret}\ntags = [\"a\"]\n{on}")), 2);
    }

    #[test]
    fn mistakes_name_the_webhook_and_the_fix() {
        let secret = "secret = \"s3cret\"";
        for (text, part) in [
            ("tags = [\"a\"]".to_owned(), "WISR_WEBHOOK_MY_CMS_SECRET"),
            ("secret = \"abc\"".to_owned(), "at least 6"),
            (secret.to_owned(), "no `paths` and no `tags`"),
            (format!("{secret}\npaths = [\"a\"]"), "begins with `/`"),
            (
                format!("{secret}\nwhen = {{ a = 1 }}\n[[my-cms.on]]\ntags = [\"a\"]"),
                "belong to",
            ),
            (
                format!("{secret}\nscheme = \"standard-webhooks\"\ntags = [\"a\"]"),
                "whsec_",
            ),
            (format!("{secret}\ntag = [\"a\"]"), "unknown field `tag`"),
            (
                format!("{secret}\nscheme = \"gihub\""),
                "unknown variant `gihub`",
            ),
            (
                format!("{secret}\nwhen = {{ a = 1.5 }}"),
                "or a list of them",
            ),
        ] {
            let told = format!("{:#}", resolved(&format!("[my-cms]\n{text}")).unwrap_err());
            assert!(told.contains(part), "{text}: {told}");
            assert!(!told.contains("s3cret"), "{told}");
        }
        let told = format!(
            "{:#}",
            resolved("[\"a/b\"]\nsecret = \"s3cret\"").unwrap_err()
        );
        assert!(told.contains("part of the address"), "{told}");
    }
}
