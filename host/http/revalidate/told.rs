//! `Told`: how a caller is told what became of a demand. The words are those of Next.js, and more.

use http::StatusCode;
use schemars::JsonSchema;
use serde::Serialize;

use crate::page::{Count, Effect, Fate, Report, Target};

/// What became of a demand.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "Revalidated")]
pub struct Told {
    /// Whether all of it was done.
    revalidated: bool,
    /// What became of each path and tag.
    results: Vec<Single>,
    /// What went wrong.
    #[serde(skip_serializing_if = "Option::is_none")]
    message: Option<&'static str>,
    /// False if what was done ends with the process: the disk does not take it.
    #[serde(skip_serializing_if = "Option::is_none")]
    stored: Option<bool>,
    /// Whether the hosts that share pages know of it, where there are any. If not, they are told
    /// later: the status is 202.
    #[serde(skip_serializing_if = "Option::is_none")]
    propagated: Option<bool>,
    /// Why it is not stored, or not propagated.
    #[serde(skip_serializing_if = "Option::is_none")]
    warning: Option<String>,
}

/// What became of one path or tag.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "Result")]
struct Single {
    #[serde(skip_serializing_if = "Option::is_none")]
    path: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tag: Option<String>,
    status: Effect,
    /// Of a tag: how many pages this host knew that had it, whatever they are by now.
    #[serde(skip_serializing_if = "Option::is_none")]
    pages: Option<u64>,
    /// The same where there are so many pages that not all were looked at.
    #[serde(rename = "pagesAtLeast", skip_serializing_if = "Option::is_none")]
    pages_at_least: Option<u64>,
    /// Of a path whose route allows query parameters: how many pages with such parameters this host
    /// knew, which the call is about as well.
    #[serde(skip_serializing_if = "Option::is_none")]
    variants: Option<u64>,
    /// The same where there are so many that not all were looked at.
    #[serde(rename = "variantsAtLeast", skip_serializing_if = "Option::is_none")]
    variants_at_least: Option<u64>,
    /// Why it was not done.
    #[serde(skip_serializing_if = "Option::is_none")]
    message: Option<String>,
}

impl Told {
    /// The statuses beside 200 that it comes with: the first three of what is not done, the last of
    /// what is done here and not yet on the other hosts.
    pub const STATUSES: [(StatusCode, &'static str); 4] = [
        (StatusCode::INTERNAL_SERVER_ERROR, "Error revalidating"),
        (
            StatusCode::SERVICE_UNAVAILABLE,
            "Too many pages are being made",
        ),
        (StatusCode::NOT_FOUND, "No route has this path"),
        (
            StatusCode::ACCEPTED,
            "Done here, and told to the other hosts later",
        ),
    ];

    /// The answer. A failure outweighs an unknown route, and both outweigh what went well. What
    /// holds but is not on disk is told: it ends with the process, unless the disk recovers before.
    pub fn of(report: &Report) -> (StatusCode, Self) {
        let [failed, overloaded, unknown, (later, _)] = Self::STATUSES;
        let trouble = if report.has(Effect::Failed) {
            Some(failed)
        } else if report.has(Effect::Overloaded) {
            Some(overloaded)
        } else if report.has(Effect::UnknownRoute) {
            Some(unknown)
        } else {
            None
        };
        let told = Self {
            revalidated: trouble.is_none(),
            results: report.fates.iter().map(Single::of).collect(),
            message: trouble.map(|(_, message)| message),
            stored: report.unkept.is_some().then_some(false),
            propagated: report.is_propagated(),
            warning: report.warning(),
        };
        let done = match told.propagated {
            Some(false) => later,
            _ => StatusCode::OK,
        };
        (trouble.map_or(done, |(status, _)| status), told)
    }
}

impl Single {
    fn of(fate: &Fate) -> Self {
        let (path, tag) = match &fate.target {
            Target::Path(path) => (Some(path.clone()), None),
            Target::Tag(tag) => (None, Some(tag.clone())),
        };
        let exact = fate.count.filter(|count| count.is_whole);
        let at_least = fate.count.filter(|count| !count.is_whole);
        let of = |wanted: &Option<String>, count: Option<Count>| {
            let count = count.filter(|_| wanted.is_some());
            count.map(|count| count.pages)
        };
        Self {
            pages: of(&tag, exact),
            pages_at_least: of(&tag, at_least),
            variants: of(&path, exact),
            variants_at_least: of(&path, at_least),
            path,
            tag,
            status: fate.effect,
            message: fate.message.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;
    use crate::page::Spread;

    fn report(effects: &[Effect]) -> Report {
        let why = |effect: Effect| (!effect.is_done()).then(|| "out of cheese".to_owned());
        let fate = |effect: &Effect| Fate {
            target: Target::Path("/posts/1".to_owned()),
            effect: *effect,
            message: why(*effect),
            count: None,
        };
        Report {
            fates: effects.iter().map(fate).collect(),
            ..Report::default()
        }
    }

    fn told(report: &Report) -> (u16, Value) {
        let (status, told) = Told::of(report);
        (status.as_u16(), serde_json::to_value(told).unwrap())
    }

    #[test]
    fn the_worst_outcome_decides_the_status() {
        use Effect::*;
        for (effects, status) in [
            (&[Regenerated, Stale, Purged][..], 200),
            (&[Absent, NotGenerated], 200),
            (&[], 200),
            (&[Regenerated, UnknownRoute], 404),
            (&[Overloaded, UnknownRoute], 503),
            (&[UnknownRoute, Failed, Overloaded], 500),
        ] {
            let (was, told) = told(&report(effects));
            assert_eq!(was, status);
            assert_eq!(told["revalidated"], status == 200);
        }
    }

    #[test]
    fn what_other_hosts_do_not_know_yet_is_told() {
        let mut report = report(&[Effect::Purged]);
        assert!(told(&report).1.get("propagated").is_none());
        report.spread = Spread::Told;
        let (status, full) = told(&report);
        assert_eq!((status, &full["propagated"]), (200, &true.into()));
        report.spread = Spread::Untold("Redis does not answer".to_owned());
        let (status, full) = told(&report);
        assert_eq!((status, &full["propagated"]), (202, &false.into()));
        assert_eq!(full["revalidated"], true);
        let warning = full["warning"].as_str().unwrap();
        assert!(warning.starts_with("Redis does not answer"), "{warning}");
    }

    #[test]
    fn what_is_done_but_not_on_disk_is_told() {
        let mut report = report(&[Effect::Purged]);
        assert!(told(&report).1.get("stored").is_none());
        report.unkept = Some("no space left on device".to_owned());
        let (status, full) = told(&report);
        assert_eq!(status, 200);
        assert_eq!(
            (&full["revalidated"], &full["stored"]),
            (&true.into(), &false.into())
        );
        let warning = full["warning"].as_str().unwrap();
        assert!(warning.starts_with("no space left on device"), "{warning}");
    }

    #[test]
    fn a_failure_is_told_as_next_tells_it_and_with_its_reason() {
        let (_, told) = told(&report(&[Effect::Failed]));
        assert_eq!(told["revalidated"], false);
        assert_eq!(told["message"], "Error revalidating");
        assert_eq!(told["results"][0]["path"], "/posts/1");
        assert_eq!(told["results"][0]["status"], "failed");
        assert_eq!(told["results"][0]["message"], "out of cheese");
        assert!(told["results"][0].get("tag").is_none());
    }
}
