//! `wisr config`: what is in force, and where each value comes from.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::ensure;
use clap::Args;
use serde_json::json;

use super::serve::Flags;
use super::terminal;
use crate::config::{Setting, in_force, reference};

/// Show the configuration of a site: each value, and where it comes from.
///
/// A value comes from the command line, else from the environment, else from wisr.toml, else it is
/// the default. Secrets are not shown. What `wisr serve` would refuse is refused here, too.
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
    /// Print JSON: `{"settings":[{"key":…,"value":…,"origin":…}],"warnings":[…]}`.
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
    let (mut settings, warnings) = in_force(&args.site, &args.flags.over_environment())?;
    if args.set {
        settings.retain(Setting::is_set);
    }
    if args.json {
        let found = json!({ "settings": settings, "warnings": warnings });
        terminal::data(serde_json::to_string_pretty(&found)?);
        return Ok(ExitCode::SUCCESS);
    }
    let row = |setting: &Setting| {
        let Setting {
            key, value, origin, ..
        } = setting;
        [key.clone(), value.clone(), origin.to_string()]
    };
    let rows: Vec<_> = settings.iter().map(row).collect();
    terminal::data(terminal::table(["key", "value", "from"], &rows));
    for warning in warnings {
        terminal::say(format!("warning: {warning}"));
    }
    Ok(ExitCode::SUCCESS)
}
