//! [`Moon`]: what the moon looked like on a date. Every article carries the moon it appeared under.

use std::f64::consts::TAU;

use maud::{Markup, html};

use crate::Date;

/// Days from one new moon to the next, on average; the true length varies by some hours.
const SYNODIC_MONTH_DAYS: f64 = 29.530_588_853;
/// A new moon to count from: 6 January 2000, 18:14 UTC, in days since 1970.
const FIRST_NEW_MOON: f64 = 10_962.76;
/// Dates have no time of day: noon is wrong by half a day at most.
const NOON: f64 = 0.5;

const NAMES: [&str; 8] = [
    "new moon",
    "waxing crescent",
    "first quarter",
    "waxing gibbous",
    "full moon",
    "waning gibbous",
    "last quarter",
    "waning crescent",
];

/// The phase of the moon: 0 is new, 0.5 is full, and 1 would be new again.
#[derive(Clone, Copy, Debug)]
pub struct Moon(f64);

impl Moon {
    /// The moon at noon of a day.
    #[must_use]
    pub fn on(day: Date) -> Self {
        let days = f64::from(day.days()) + NOON - FIRST_NEW_MOON;
        Self((days / SYNODIC_MONTH_DAYS).rem_euclid(1.0))
    }

    /// Its name in English, such as "waxing gibbous".
    #[must_use]
    pub fn name(self) -> &'static str {
        NAMES[(self.0 * 8.0).round() as usize % 8]
    }

    /// A drawing of it. It decorates a date, so it is hidden from screen readers.
    #[must_use]
    pub fn draw(self) -> Markup {
        let waxing = u8::from(self.0 < 0.5);
        // The edge of the shadow is half an ellipse; past the quarters it bulges the other way.
        let width = (self.0 * TAU).cos() * 10.0;
        let bulge = u8::from((self.0 > 0.25 && self.0 < 0.5) || self.0 > 0.75);
        let lit = format!(
            "M0-10A10 10 0 0 {waxing} 0 10A{:.2} 10 0 0 {bulge} 0-10Z",
            width.abs()
        );
        html! {
            svg.moon viewBox="-11 -11 22 22" width="22" height="22" aria-hidden="true" {
                circle r="10" {}
                path d=(lit) {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(day: &str) -> &'static str {
        Moon::on(Date::try_from(day.to_owned()).unwrap()).name()
    }

    // From published almanacs; all fall far enough from midnight for noon to be the same phase.
    #[test]
    fn the_moon_of_known_days() {
        assert_eq!(name("2024-04-08"), "new moon");
        assert_eq!(name("2022-11-08"), "full moon");
        assert_eq!(name("1999-08-11"), "new moon");
        assert_eq!(name("2019-07-09"), "first quarter");
    }

    #[test]
    fn the_lit_side_is_on_the_right_while_it_grows() {
        assert!(
            Moon(0.1)
                .draw()
                .into_string()
                .contains("M0-10A10 10 0 0 1 0 10")
        );
        assert!(
            Moon(0.9)
                .draw()
                .into_string()
                .contains("M0-10A10 10 0 0 0 0 10")
        );
    }
}
