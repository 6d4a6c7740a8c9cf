//! `Keys`: the keys of `wisr.toml`, as the structs that read it know them.
//!
//! Serde asks a deserializer for all that a struct wants; one that answers with nothing learns the
//! keys from the questions. So the reference, the names of the environment variables and the
//! report of `wisr config` cannot know other keys than the file does.

use std::fmt::Display;
use std::sync::LazyLock;

use serde::de::value::{SeqDeserializer, StrDeserializer};
use serde::de::{self, Deserialize, DeserializeSeed, Deserializer, IntoDeserializer, Visitor};

use super::file::File;
use super::secret::SECRET;

/// Stands for names that the person chooses.
pub(super) const ANY: &str = "*";

/// One place in the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Key {
    /// The tables that lead to it, and its own name: `["routes", "*", "cpu"]`.
    pub(super) path: Vec<String>,
    pub(super) kind: Kind,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// More keys stand below it.
    Table,
    /// A value.
    Value,
    /// A value that nothing may show.
    Secret,
}

/// All keys, tables before what stands in them, in the order of the structs.
pub(super) static KEYS: LazyLock<Vec<Key>> = LazyLock::new(|| {
    let mut found = Vec::new();
    let asked = File::deserialize(Probe {
        path: Vec::new(),
        found: &mut found,
    });
    debug_assert!(asked.is_ok(), "{asked:?}");
    found
});

impl Key {
    pub(super) fn name(&self) -> String {
        self.path.join(".")
    }
}

/// A deserializer that has nothing and writes down what it is asked for.
struct Probe<'a> {
    path: Vec<String>,
    found: &'a mut Vec<Key>,
}

#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Unanswered(String);

impl de::Error for Unanswered {
    fn custom<T: Display>(message: T) -> Self {
        Self(message.to_string())
    }
}

impl Probe<'_> {
    fn note(&mut self, kind: Kind) {
        // A secret is asked for as an option first.
        let path = self.path.clone();
        self.found.retain(|key| key.path != path);
        if !path.is_empty() {
            self.found.push(Key { path, kind });
        }
    }
}

impl<'de> Deserializer<'de> for Probe<'_> {
    type Error = Unanswered;

    fn deserialize_struct<V: Visitor<'de>>(
        mut self,
        _: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Unanswered> {
        self.note(Kind::Table);
        visitor.visit_map(Questions {
            names: fields.iter(),
            asked: "",
            probe: self,
        })
    }

    fn deserialize_map<V: Visitor<'de>>(mut self, visitor: V) -> Result<V::Value, Unanswered> {
        self.note(Kind::Table);
        visitor.visit_map(Questions {
            names: [ANY].iter(),
            asked: "",
            probe: self,
        })
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        mut self,
        name: &'static str,
        visitor: V,
    ) -> Result<V::Value, Unanswered> {
        if name == SECRET {
            self.note(Kind::Secret);
            return visitor.visit_str("");
        }
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_option<V: Visitor<'de>>(mut self, visitor: V) -> Result<V::Value, Unanswered> {
        self.note(Kind::Value);
        visitor.visit_none()
    }

    fn deserialize_seq<V: Visitor<'de>>(mut self, visitor: V) -> Result<V::Value, Unanswered> {
        self.note(Kind::Value);
        visitor.visit_seq(SeqDeserializer::<_, Unanswered>::new(
            std::iter::empty::<()>(),
        ))
    }

    fn deserialize_bool<V: Visitor<'de>>(mut self, visitor: V) -> Result<V::Value, Unanswered> {
        self.note(Kind::Value);
        visitor.visit_bool(false)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        mut self,
        _: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Unanswered> {
        self.note(Kind::Value);
        let first: StrDeserializer<'_, Unanswered> = variants
            .first()
            .copied()
            .unwrap_or_default()
            .into_deserializer();
        visitor.visit_enum(first)
    }

    fn deserialize_any<V: Visitor<'de>>(mut self, visitor: V) -> Result<V::Value, Unanswered> {
        self.note(Kind::Value);
        visitor.visit_str("")
    }

    serde::forward_to_deserialize_any! {
        i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf unit
        unit_struct tuple tuple_struct identifier ignored_any
    }
}

/// The names of a table, each with the question what stands there.
struct Questions<'a> {
    names: std::slice::Iter<'a, &'static str>,
    asked: &'static str,
    probe: Probe<'a>,
}

impl<'de> de::MapAccess<'de> for Questions<'_> {
    type Error = Unanswered;

    fn next_key_seed<K: DeserializeSeed<'de>>(
        &mut self,
        seed: K,
    ) -> Result<Option<K::Value>, Unanswered> {
        let Some(name) = self.names.next() else {
            return Ok(None);
        };
        self.asked = name;
        let name: StrDeserializer<'_, Unanswered> = (*name).into_deserializer();
        seed.deserialize(name).map(Some)
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(
        &mut self,
        seed: V,
    ) -> Result<V::Value, Unanswered> {
        let mut path = self.probe.path.clone();
        path.push(self.asked.to_owned());
        seed.deserialize(Probe {
            path,
            found: self.probe.found,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kind(name: &str) -> Option<Kind> {
        let mut keys = KEYS.iter();
        keys.find(|key| key.name() == name).map(|key| key.kind)
    }

    #[test]
    fn the_structs_are_asked_for_their_keys() {
        assert_eq!(kind("server"), Some(Kind::Table));
        assert_eq!(kind("server.connections-per-address"), Some(Kind::Value));
        assert_eq!(kind("server.admin-token"), Some(Kind::Secret));
        assert_eq!(kind("settings.*"), Some(Kind::Secret));
        assert_eq!(kind("routes.*.query"), Some(Kind::Value));
        assert_eq!(kind("routes.*.settings.*"), Some(Kind::Secret));
        assert_eq!(kind("server.nonsense"), None);
    }

    #[test]
    fn no_key_is_found_twice() {
        let mut names: Vec<_> = KEYS.iter().map(Key::name).collect();
        let all = names.len();
        names.sort();
        names.dedup();
        assert_eq!(names.len(), all);
    }
}
