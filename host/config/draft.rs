//! `[draft]`: who may see what is not published yet, and for how long.

use std::time::Duration;

use anyhow::ensure;
use serde::{Deserialize, Serialize};

use super::secret::{long_enough, secret};
use super::units::Span;
use crate::http;

/// The environment variable that holds the draft token, so that it need not be in a file.
const TOKEN_VARIABLE: &str = "WISR_DRAFT_TOKEN";

/// How long an editor sees drafts: a sitting.
const LIFETIME: Duration = Duration::from_secs(3_600);

/// Whoever is meant to see drafts for longer than browsers keep cookies (400 days, RFC 6265bis
/// section 5.5) is not an editor but a reader.
const MAX_LIFETIME: Duration = Duration::from_secs(400 * 86_400);

/// `[draft]`
#[derive(Debug, Clone, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub(super) struct Draft {
    #[serde(deserialize_with = "secret")]
    token: Option<String>,
    lifetime: Option<Span>,
    embed: Option<bool>,
}

impl Draft {
    /// What the table means; without a token there is no draft mode. It is in links that editors
    /// pass on, so it must not be the one that `revalidate` takes.
    pub(super) fn resolve(&self, revalidate: Option<&str>) -> anyhow::Result<Option<http::Draft>> {
        let lifetime = self.lifetime.map_or(LIFETIME, |span| span.0);
        ensure!(
            (Duration::from_secs(1)..=MAX_LIFETIME).contains(&lifetime),
            "[draft] lifetime is from \"1s\" to \"400d\""
        );
        let Some(token) = &self.token else {
            return Ok(None);
        };
        let name = format!("the draft token ({TOKEN_VARIABLE}, or `draft.token`)");
        long_enough(token, &name, "see what is not published")?;
        ensure!(
            revalidate != Some(token),
            "{name} is that of `[revalidate]`: whoever has a link to a draft could have all pages made \
             anew; use another one"
        );
        let embed = self.embed.unwrap_or(false);
        Ok(Some(http::Draft::new(token, lifetime, embed)))
    }
}
