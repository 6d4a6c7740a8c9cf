//! `Cost`: what a generation used of its limits, its outgoing requests among it.

use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What a generation used of its limits.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
pub struct Cost {
    /// CPU time of guest code.
    #[schemars(with = "u64")]
    #[serde(with = "micros", rename = "cpu_us")]
    pub cpu: Duration,
    /// Wall time, waiting for the host included.
    #[schemars(with = "u64")]
    #[serde(with = "micros", rename = "wall_us")]
    pub wall: Duration,
    /// Wall time before its turn came.
    #[schemars(with = "u64")]
    #[serde(
        with = "micros",
        rename = "queue_us",
        default,
        skip_serializing_if = "Duration::is_zero"
    )]
    pub queue: Duration,
    /// Time to make the sandbox and instantiate the module in it.
    #[schemars(with = "u64")]
    #[serde(with = "micros", rename = "instantiate_us")]
    pub instantiate: Duration,
    /// Wall time of `static-props`.
    #[schemars(with = "u64")]
    #[serde(with = "micros", rename = "static_props_us")]
    pub static_props: Duration,
    /// Wall time of `render`.
    #[schemars(with = "u64")]
    #[serde(with = "micros", rename = "render_us")]
    pub render: Duration,
    /// Time to compress the page and its props.
    #[schemars(with = "u64")]
    #[serde(with = "micros", rename = "encode_us")]
    pub encode: Duration,
    /// The most linear memory held at once, in bytes.
    pub memory: u64,
    /// The outgoing requests, in order.
    pub fetches: Vec<Fetch>,
}

/// What the allocator adds to the texts of a request, in bytes.
const TEXTS: usize = 64;

impl Cost {
    /// Bytes that it takes in memory beyond its own size: a page decides how long its URLs are.
    pub fn weight(&self) -> usize {
        let row = |fetch: &Fetch| {
            let reason = fetch.result.as_ref().err().map_or(0, String::len);
            let texts = fetch.method.len() + fetch.url.len() + reason;
            // A quarter more is the allocator's.
            (size_of::<Fetch>() + texts) * 5 / 4 + TEXTS
        };
        self.fetches.iter().map(row).sum()
    }
}

/// One outgoing request of a guest.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct Fetch {
    /// The method.
    pub method: String,
    /// The full URL.
    pub url: String,
    /// The response's status, or why there was none.
    pub result: Result<u16, String>,
    /// When it was made, from the start of the generation.
    #[serde(skip)]
    pub began: Duration,
    /// Time to the response head.
    #[schemars(with = "u64")]
    #[serde(with = "micros", rename = "duration_us")]
    pub duration: Duration,
    /// Bytes of the response body that the guest read.
    pub bytes: u64,
}

/// Spans as whole microseconds.
mod micros {
    use std::time::Duration;

    use serde::{Deserialize, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(
        span: &Duration,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        serializer.serialize_u64(u64::try_from(span.as_micros()).unwrap_or(u64::MAX))
    }

    pub(super) fn deserialize<'a, D: Deserializer<'a>>(
        deserializer: D,
    ) -> Result<Duration, D::Error> {
        u64::deserialize(deserializer).map(Duration::from_micros)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_page_called_weighs() {
        let fetch = |url: &str, result| Fetch {
            method: "GET".to_owned(),
            url: url.to_owned(),
            result,
            began: Duration::ZERO,
            duration: Duration::ZERO,
            bytes: 0,
        };
        let cost = Cost {
            fetches: vec![
                fetch(&"x".repeat(2_000), Ok(200)),
                fetch("x", Err("y".repeat(3_000))),
            ],
            ..Cost::default()
        };
        assert_eq!(Cost::default().weight(), 0);
        assert!((5_000..7_000).contains(&cost.weight()), "{}", cost.weight());
    }
}
