//! `wisr config`: what is in force, and where each value comes from.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::ensure;
use clap::Args;

use super::serve::Flags;
use super::terminal;
use crate::config::{Needs, Part, Setting, in_force, mib, reference};

/// Show the configuration of a site: each value, and where it comes from.
///
/// A value comes from the command line, else from the environment, else from wisr.toml, else it is
/// the default. Secrets are not shown. What `wisr serve` would refuse is refused here, too. Below stands
/// the memory that the server may take at worst, and a warning where there is less.
///
/// Exit codes: 0 it can be used, 1 it cannot, 2 usage.
#[derive(Debug, Args)]
pub struct ConfigArgs {
    /// The site's folder, or a source tree.
    #[arg(default_value = ".")]
    pub site: PathBuf,
    /// What `wisr serve` would be told.
    #[command(flatten)]
    pub flags: Flags,
    /// Show only what somebody has set.
    #[arg(long)]
    pub set: bool,
    /// Print JSON: `{"settings":[{"key":…,"value":…,"origin":…}],"memory":{"parts":[…],"sum":…},"warnings":[…]}`.
    #[arg(long)]
    pub json: bool,
    /// Print every key with its default and what it means, in Markdown.
    #[arg(long)]
    pub reference: bool,
}

/// Runs `wisr config`.
///
/// # Errors
/// What would keep a server from starting.
pub fn run(args: ConfigArgs) -> anyhow::Result<ExitCode> {
    if args.reference {
        terminal::data(reference::markdown().trim_end());
        return Ok(ExitCode::SUCCESS);
    }
    let folder = args.site.display();
    ensure!(
        args.site.is_dir(),
        "no folder `{folder}`: name a site's folder or a source tree, whose wisr.toml may be missing"
    );
    let mut found = in_force(&args.site, &args.flags.over_environment())?;
    if args.set {
        found.settings.retain(Setting::is_set);
    }
    if args.json {
        terminal::data(serde_json::to_string_pretty(&found)?);
        return Ok(ExitCode::SUCCESS);
    }
    let row = |setting: &Setting| {
        let Setting {
            key, value, origin, ..
        } = setting;
        [key.clone(), value.clone(), origin.to_string()]
    };
    let rows: Vec<_> = found.settings.iter().map(row).collect();
    terminal::data(terminal::table(["key", "value", "from"], &rows));
    if !args.set {
        terminal::data(format!("\n{}", memory(&found.memory)));
    }
    for warning in found.warnings {
        terminal::say(format!("warning: {warning}"));
    }
    Ok(ExitCode::SUCCESS)
}

/// What the server may take at worst, part by part.
fn memory(needs: &Needs) -> String {
    let row = |part: &Part| [part.what.to_owned(), mib(part.bytes), part.from.clone()];
    let mut rows: Vec<_> = needs.parts.iter().map(row).collect();
    rows.push(["all of it".to_owned(), mib(needs.sum), String::new()]);
    let beside =
        "compilations and readers of debug information, which the kernel ends first".to_owned();
    rows.push(["beside it".to_owned(), mib(needs.children), beside]);
    terminal::table(["memory at worst", "", "from"], &rows)
}
