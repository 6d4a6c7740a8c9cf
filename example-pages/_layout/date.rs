//! [`Date`]: a day, as front matter has it. A whole calendar library would weigh more than a page.

use std::fmt;

use serde::{Deserialize, Serialize};

const MONTHS: [&str; 12] = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];

/// A day of the Gregorian calendar, `2026-11-02` in text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Date {
    year: u16,
    month: u8,
    day: u8,
}

impl Date {
    /// The day as people write it: `2 November 2026`.
    #[must_use]
    pub fn in_words(self) -> String {
        let month = MONTHS[usize::from(self.month - 1)];
        format!("{} {month} {}", self.day, self.year)
    }

    /// Days since 1 January 1970; negative before it.
    #[must_use]
    pub fn days(self) -> i32 {
        // Years that begin in March have their leap day at the end, where it disturbs nobody.
        let year = i32::from(self.year) - i32::from(self.month <= 2);
        let month = (i32::from(self.month) + 9) % 12;
        let in_year = (153 * month + 2) / 5 + i32::from(self.day) - 1;
        year * 365 + year / 4 - year / 100 + year / 400 + in_year - 719_468
    }

    fn parse(text: &str) -> Option<Self> {
        let mut parts = text.splitn(3, '-');
        let date = Self {
            year: parts.next()?.parse().ok()?,
            month: parts.next()?.parse().ok()?,
            day: parts.next()?.parse().ok()?,
        };
        let every = |years| date.year.is_multiple_of(years);
        let leap = every(4) && (!every(100) || every(400));
        let length = match date.month {
            2 => 28 + u8::from(leap),
            4 | 6 | 9 | 11 => 30,
            _ => 31,
        };
        let exists = (1..=9999).contains(&date.year)
            && (1..=12).contains(&date.month)
            && (1..=length).contains(&date.day);
        (exists && date.to_string() == text).then_some(date)
    }
}

impl fmt::Display for Date {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{:04}-{:02}-{:02}", self.year, self.month, self.day)
    }
}

impl TryFrom<String> for Date {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        Self::parse(&text).ok_or_else(|| format!("{text:?} is not a date such as 2026-11-02"))
    }
}

impl From<Date> for String {
    fn from(date: Date) -> Self {
        date.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn date(text: &str) -> Date {
        Date::try_from(text.to_owned()).unwrap()
    }

    #[test]
    fn days_are_counted_across_leap_years() {
        for (text, days) in [
            ("1970-01-01", 0),
            ("1969-12-31", -1),
            ("2000-02-29", 11_016),
            ("2000-03-01", 11_017),
            ("2026-11-02", 20_759),
        ] {
            assert_eq!(date(text).days(), days, "{text}");
        }
    }

    #[test]
    fn a_day_that_does_not_exist_is_refused() {
        for text in [
            "2026-02-29",
            "2026-13-01",
            "2026-00-10",
            "2026-1-2",
            "2026-01-32",
            "",
            "soon",
            "2026-01-01Z",
        ] {
            assert!(Date::try_from(text.to_owned()).is_err(), "{text}");
        }
        assert_eq!(date("2024-02-29").in_words(), "29 February 2024");
    }
}
