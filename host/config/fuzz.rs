//! `wisr.toml` as people mistype it.

use std::path::Path;

use proptest::prelude::*;

use super::file::File;
use super::{Config, Overrides, Reload};
use crate::fuzz;

const SEEDS: &[&str] = &[
    "[server]\nlisten = \"127.0.0.1:0\"\nthreads = 2\ndrain = \"5s\"\npoll = \"500ms\"\n",
    "[defaults]\nrevalidate = 60\ncpu = \"2s\"\nwall = \"10s\"\nmemory = \"64MiB\"\nfetches = 3\n",
    "[defaults]\nmemory = \"4GiB\"\n",
    "[routes.\"/posts/[id]\"]\nrevalidate = \"never\"\nquery = [\"lang\"]\nmax-stale = \"365d\"\n",
    "[routes.\"/\"]\noutbound = [\"https://*.example.org:81\", \"http://10.0.0.0/8\"]\nsettings = { a = \"b\" }\n",
    "[revalidate]\ntoken = \"sixteen-or-longer\"\n[shell]\ncrawlers = [\"bot\"]\n[store]\nmemory = 4096\ndurable = false\n",
    "[draft]\ntoken = \"0123456789abcdef\"\nlifetime = \"1h\"\n[routes.\"/api/a\"]\nmay-revalidate = true\n",
    "[webhooks.a]\nsecret = \"0123456789abcdef\"\nscheme = \"github\"\ntolerance = \"5m\"\n[[webhooks.a.on]]\nwhen = { x-b = [\"c\", 1], \"/d/*\" = true }\npaths = [\"/e/{/f}\", \"{+/g}\"]\n",
    "[generations]\nconcurrency = 4\nqueue = 0\nwait = \"1s\"\n[settings]\ncontent = \"http://127.0.0.1:1\"\n",
];

/// What a file means keeps every rule that the sandbox relies on; read again, it is no change; what
/// is refused says why.
#[test]
fn every_file_is_understood_or_refused() {
    let words = [
        "[",
        "]",
        "\n",
        "\"",
        " = ",
        "defaults",
        "routes",
        ".",
        "cpu",
        "memory",
        "-1",
        "0",
        "\"0s\"",
        "\"1GiB\"",
        "\"16EiB\"",
        "18446744073709551615",
        "1e9",
        "\"9999999999999y\"",
        "'",
        "{",
        "}",
        "nan",
    ];
    let overrides = Overrides::default();
    fuzz::run("wisr.toml", &fuzz::text(SEEDS, &words), |text| {
        let parsed = File::parse(&text).and_then(|file| {
            let (fixed, live) = file.parted();
            Config::resolve(&fixed, &live, Path::new("/site"), &overrides)
        });
        let mut config = match parsed {
            Ok(config) => config,
            Err(error) => {
                let message = format!("{error:#}");
                prop_assert!(!message.trim().is_empty());
                return Ok(());
            }
        };
        for route in ["/", "/posts/[id]"] {
            let rules = (config.release.routes)(route);
            prop_assert!(!rules.limits.cpu.is_zero() && !rules.limits.wall.is_zero());
            prop_assert!(rules.limits.memory <= config.engine.max_memory);
            prop_assert!(rules.policy.concurrency >= 1);
        }
        prop_assert!(config.engine.max_memory <= 4 << 30);
        prop_assert!(config.isr.concurrency >= 1 && config.http.threads >= 1);
        match config.reloader.take(Some(text)) {
            Reload::Changed(_, report) => {
                prop_assert!(
                    report.applied.is_empty() && report.restart.is_empty(),
                    "{report:?}"
                );
            }
            Reload::Refused(error) => prop_assert!(false, "{error:#}"),
        }
        Ok(())
    });
}
