//! `Chart`: the last minutes of one thing as a line, drawn here first and then by the script.

use maud::{Markup, html};

use super::super::live::Sample;
use super::format;

/// The size of the drawing; the page scales it.
const WIDTH: f64 = 300.0;
const HEIGHT: f64 = 60.0;

/// Samples that fill the width.
const SAMPLES: usize = 150;

/// A value of a sample, if it has one.
type Value = fn(&Sample) -> Option<f64>;

/// One chart.
pub(super) struct Chart {
    /// What the script knows it by.
    name: &'static str,
    title: &'static str,
    /// What the top stands for, at least.
    least: f64,
    lines: &'static [(&'static str, Value)],
    show: fn(f64) -> String,
}

/// All charts. The script draws the same.
pub(super) const CHARTS: [Chart; 4] = [
    Chart {
        name: "ratio",
        title: "Hit ratio",
        least: 1.0,
        lines: &[("hits", |it| {
            let all = total(it);
            (all > 0).then(|| it.hits as f64 / all as f64)
        })],
        show: |ratio| format!("{:.1} %", ratio * 100.0),
    },
    Chart {
        name: "requests",
        title: "Page requests per second",
        least: 1.0,
        lines: &[("requests", |it| {
            (it.seconds > 0.0).then(|| total(it) as f64 / it.seconds)
        })],
        show: |rate| format!("{rate:.1}"),
    },
    Chart {
        name: "latency",
        title: "Time to answer",
        least: 1_000.0,
        lines: &[
            ("p50", |it| it.p50_us.map(|us| us as f64)),
            ("p99", |it| it.p99_us.map(|us| us as f64)),
        ],
        show: |us| format::span(std::time::Duration::from_micros(us as u64)),
    },
    Chart {
        name: "generations",
        title: "Generations",
        least: 1.0,
        lines: &[
            ("running", |it| Some(it.running as f64)),
            ("waiting", |it| Some(it.waiting as f64)),
        ],
        show: |count| format!("{count:.0}"),
    },
];

fn total(sample: &Sample) -> u64 {
    sample.hits + sample.stale + sample.misses + sample.errors
}

impl Chart {
    /// The chart of these samples.
    pub(super) fn draw(&self, samples: &[Sample]) -> Markup {
        let values = self
            .lines
            .iter()
            .flat_map(|(_, value)| samples.iter().filter_map(value));
        let top = values.fold(self.least, f64::max);
        html! {
            figure.chart data-chart=(self.name) {
                figcaption { (self.title) }
                svg viewBox=(format!("0 0 {WIDTH} {HEIGHT}")) preserveAspectRatio="none"
                    role="img" aria-label={ (self.title) ", the last five minutes" } {
                    @for (name, value) in self.lines {
                        polyline data-line=(name) points=(points(samples, *value, top)) {}
                    }
                }
                p.legend {
                    @for (name, value) in self.lines {
                        @let last = samples.iter().rev().find_map(value);
                        span data-line=(name) {
                            @if self.lines.len() > 1 { (name) " " }
                            strong data-value=(name) {
                                (last.map_or_else(|| "–".to_owned(), self.show))
                            }
                        }
                    }
                }
            }
        }
    }
}

/// The newest at the right; where nothing was measured the line goes on to the next value.
fn points(samples: &[Sample], value: Value, top: f64) -> String {
    let step = WIDTH / (SAMPLES - 1) as f64;
    let missing = SAMPLES.saturating_sub(samples.len());
    let place = |(place, sample): (usize, &Sample)| {
        let x = (missing + place) as f64 * step;
        let y = HEIGHT - 2.0 - (HEIGHT - 4.0) * (value(sample)? / top);
        Some(format!("{x:.1},{y:.1}"))
    };
    let places: Vec<String> = samples.iter().enumerate().filter_map(place).collect();
    places.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::page::Timestamp;

    fn sample(hits: u64, misses: u64) -> Sample {
        Sample {
            at: Timestamp::from_millis(0),
            seconds: 2.0,
            hits,
            stale: 0,
            misses,
            errors: 0,
            p50_us: None,
            p99_us: None,
            running: 0,
            waiting: 0,
            connections: 0,
        }
    }

    #[test]
    fn the_newest_is_at_the_right_and_nothing_is_left_out_of_the_picture() {
        let ratio = CHARTS[0].lines[0].1;
        let samples = [sample(1, 0), sample(0, 0), sample(0, 1)];
        assert_eq!(points(&samples, ratio, 1.0), "296.0,2.0 300.0,58.0");
        assert_eq!(points(&[], ratio, 1.0), "");
        let drawn = CHARTS[0].draw(&samples).into_string();
        assert!(drawn.contains("0.0 %"), "{drawn}");
        let none = CHARTS[2].draw(&samples).into_string();
        assert!(none.contains("p99 <strong data-value=\"p99\">–"), "{none}");
    }
}
