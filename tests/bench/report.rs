//! `Report`: what was measured, what was expected of it, and what could not be measured.

use std::io::Write as _;
use std::process::Command;

use crate::cpu::Cores;

/// All rows, in the order in which they were measured.
#[derive(Default)]
pub(crate) struct Report {
    rows: Vec<Row>,
    missing: Vec<String>,
}

struct Row {
    what: String,
    values: Vec<f64>,
    unit: &'static str,
    at_most: Option<f64>,
}

impl Report {
    /// A ratio, once for each round; below `at_most` is as expected.
    pub(crate) fn ratio(
        &mut self,
        what: impl Into<String>,
        values: Vec<f64>,
        at_most: Option<f64>,
    ) {
        self.row(what, values, "x", at_most);
    }

    /// A quantity, once for each round.
    pub(crate) fn row(
        &mut self,
        what: impl Into<String>,
        mut values: Vec<f64>,
        unit: &'static str,
        at_most: Option<f64>,
    ) {
        values.retain(|value| value.is_finite());
        values.sort_by(f64::total_cmp);
        let what = what.into();
        if values.is_empty() {
            return self.missing(format!("{what}: no figures"));
        }
        self.rows.push(Row {
            what,
            values,
            unit,
            at_most,
        });
    }

    /// Something that could not be measured, and what would help.
    pub(crate) fn missing(&mut self, what: impl Into<String>) {
        self.missing.push(what.into());
    }

    /// A headline between rows.
    pub(crate) fn section(&mut self, title: &str) {
        self.rows.push(Row {
            what: title.to_owned(),
            values: Vec::new(),
            unit: "",
            at_most: None,
        });
    }

    /// Prints everything to stdout.
    pub(crate) fn print(&self, cores: &Cores) -> std::io::Result<()> {
        let mut out = std::io::stdout().lock();
        writeln!(out, "\n{}\n", machine(cores))?;
        writeln!(
            out,
            "{:<58} {:>10} {:>10} {:>10}  {:<8} {:>8}",
            "", "min", "median", "max", "unit", "at most"
        )?;
        for row in &self.rows {
            if row.values.is_empty() {
                writeln!(out, "\n{}", row.what)?;
                continue;
            }
            let [low, middle, high] = [0.0, 0.5, 1.0].map(|share| figure(at(&row.values, share)));
            write!(
                out,
                "{:<58} {low:>10} {middle:>10} {high:>10}  {:<8}",
                row.what, row.unit
            )?;
            match row.at_most {
                None => writeln!(out)?,
                Some(most) => {
                    let verdict = if at(&row.values, 0.5) <= most {
                        "within"
                    } else {
                        "missed"
                    };
                    writeln!(out, " {:>8}  {verdict}", figure(most))?;
                }
            }
        }
        if !self.missing.is_empty() {
            writeln!(out, "\nnot measured")?;
        }
        self.missing
            .iter()
            .try_for_each(|what| writeln!(out, "  {what}"))?;
        out.flush()
    }
}

/// The value below which this share of the sorted `values` lies.
fn at(values: &[f64], share: f64) -> f64 {
    values[((values.len() - 1) as f64 * share).round() as usize]
}

/// The median of `values`.
pub(crate) fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    if values.is_empty() {
        f64::NAN
    } else {
        at(&values, 0.5)
    }
}

fn figure(value: f64) -> String {
    match value.abs() {
        0.0..10.0 => format!("{value:.2}"),
        10.0..1000.0 => format!("{value:.1}"),
        _ => format!("{value:.0}"),
    }
}

/// What the run was on: figures of different machines do not compare.
fn machine(cores: &Cores) -> String {
    let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let place = match cores.apart() {
        true => format!(
            "servers on cores {:?}, load on {:?}",
            cores.servers, cores.load
        ),
        false => format!(
            "servers and load share cores {:?}: figures are worth less",
            cores.load
        ),
    };
    let versions =
        [("nginx", "-v"), ("varnishd", "-V")].map(|(program, flag)| version(program, flag));
    format!("Linux {}; {place}; {}", kernel.trim(), versions.join(", "))
}

fn version(program: &str, flag: &str) -> String {
    let Ok(output) = Command::new(program).arg(flag).output() else {
        return format!("no {program}");
    };
    let said = [output.stdout, output.stderr].concat();
    let first = String::from_utf8_lossy(&said)
        .lines()
        .next()
        .unwrap_or_default()
        .to_owned();
    first
        .split(" revision")
        .next()
        .unwrap_or_default()
        .replace(['(', ')'], "")
}

/// Says on stderr what goes on: a run takes minutes.
pub(crate) fn progress(what: &str) {
    // Nobody listening is no reason to stop.
    let _ = writeln!(std::io::stderr(), "versus: {what}");
}
