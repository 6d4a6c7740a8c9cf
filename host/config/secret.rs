//! `Hidden`: tokens and secrets, which no error shows; and how long they are at least.

use std::collections::BTreeMap;

use anyhow::ensure;
use serde::Deserialize;
use serde::de::{Deserializer, Error, Visitor};

use crate::page::plural;

/// Characters of a token or a secret: 64 random bits if they are hexadecimal digits, which is what
/// OWASP asks of secrets that a server checks at once. Ten guesses a minute from each of a million
/// addresses would take 1.7 million years to find one; six digits would last for six seconds. And
/// who has seen a signed delivery, or a pass to drafts, guesses without asking anybody.
const LEAST: usize = 16;

/// What deserializers see as the name of a value that nothing may show.
pub(super) const SECRET: &str = "secret";

/// A string whose value no error shows: where a password is expected, what was written may be one.
struct Hidden(String);

struct HiddenVisitor;

impl HiddenVisitor {
    fn refuse<E: Error>() -> Result<Hidden, E> {
        Err(E::custom("a string is expected: write it in quotes"))
    }
}

impl<'de> Visitor<'de> for HiddenVisitor {
    type Value = Hidden;

    fn visit_newtype_struct<D: Deserializer<'de>>(self, from: D) -> Result<Hidden, D::Error> {
        from.deserialize_str(self)
    }

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a string")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Hidden, E> {
        Ok(Hidden(text.to_owned()))
    }

    fn visit_bool<E: Error>(self, _: bool) -> Result<Hidden, E> {
        Self::refuse()
    }

    fn visit_i64<E: Error>(self, _: i64) -> Result<Hidden, E> {
        Self::refuse()
    }

    fn visit_u64<E: Error>(self, _: u64) -> Result<Hidden, E> {
        Self::refuse()
    }

    fn visit_f64<E: Error>(self, _: f64) -> Result<Hidden, E> {
        Self::refuse()
    }
}

impl<'de> Deserialize<'de> for Hidden {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_newtype_struct(SECRET, HiddenVisitor)
    }
}

/// A token.
pub(super) fn secret<'de, D: Deserializer<'de>>(from: D) -> Result<Option<String>, D::Error> {
    Ok(Some(Hidden::deserialize(from)?.0))
}

/// Settings, some of which are the keys of what pages fetch from.
pub(super) fn secrets<'de, D: Deserializer<'de>>(
    from: D,
) -> Result<BTreeMap<String, String>, D::Error> {
    let hidden = BTreeMap::<String, Hidden>::deserialize(from)?;
    Ok(hidden
        .into_iter()
        .map(|(name, value)| (name, value.0))
        .collect())
}

/// Holds `secret` to its length. `name` is what it is and where it stands; who can guess it can do
/// what `risk` says.
///
/// # Errors
/// When it is too short.
pub(super) fn long_enough(secret: &str, name: &str, risk: &str) -> anyhow::Result<()> {
    let length = secret.chars().count();
    ensure!(
        length >= LEAST,
        "{name} has {length} character{}, and who can guess it can {risk}: use at least {LEAST} random \
         ones, as `openssl rand -hex 16` makes",
        plural(length)
    );
    Ok(())
}
