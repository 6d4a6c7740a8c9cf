//! Section 9: the OpenAPI document says what the server does. Requests are made from its schemas,
//! right ones and broken ones, and each answer is held against what it says of it.

use std::collections::{BTreeMap, BTreeSet};

use boon::{Compiler, Draft, Schemas};
use proptest::prelude::*;
use proptest::sample::select;
use proptest::strategy::ValueTree;
use proptest::test_runner::{Config, TestRunner};
use serde_json::{Map, Value, json};

use crate::client::{Client, Response};
use crate::modules;
use crate::site::{Running, Site, TOKEN, wait_for};

/// Where the document is in the eyes of its validator.
const DOCUMENT: &str = "http://wisr.test/openapi.json";

/// Requests for each operation.
const CASES: usize = 150;

/// Text that is special to somebody on the way.
const WORDS: [&str; 16] = [
    "",
    "/",
    "/posts/1",
    "/posts/9",
    "/nothing",
    "posts",
    "//",
    "/posts/1?q=1",
    "%",
    "\u{0}",
    "é🦀",
    "null",
    "-1",
    "18446744073709551616",
    "regenerate",
    "purge",
];

/// The document, and what tells whether a value is what it says.
struct Contract {
    document: Value,
    compiler: Compiler,
    schemas: Schemas,
}

/// A request that may or may not be what the document says.
#[derive(Debug, Clone)]
struct Made {
    target: String,
    body: Option<String>,
    is_right: bool,
}

impl Contract {
    async fn of(site: &Running) -> Self {
        let document = site.admin("/api/openapi.json").await.json();
        let mut compiler = Compiler::new();
        compiler.set_default_draft(Draft::V2020_12);
        compiler.add_resource(DOCUMENT, document.clone()).unwrap();
        Self {
            document,
            compiler,
            schemas: Schemas::new(),
        }
    }

    /// What is wrong with a value that should be as the schema at `pointer` says.
    fn wrong(&mut self, pointer: &str, value: &Value) -> Option<String> {
        let place = format!("{DOCUMENT}#{pointer}");
        let schema = self.compiler.compile(&place, &mut self.schemas);
        let schema = schema.unwrap_or_else(|error| panic!("{place}: {error}"));
        let told = self.schemas.validate(value, schema);
        told.err().map(|error| format!("{error:#}"))
    }

    /// Every operation: its path, its method and where it is in the document.
    fn operations(&self) -> Vec<(String, String, String)> {
        let mut all = Vec::new();
        for (path, methods) in self.document["paths"].as_object().unwrap() {
            for method in methods
                .as_object()
                .unwrap()
                .keys()
                .filter(|it| *it != "servers")
            {
                let place = format!("/paths/{}/{method}", escaped(path));
                all.push((path.clone(), method.to_uppercase(), place));
            }
        }
        all
    }

    fn at(&self, pointer: &str) -> &Value {
        self.document.pointer(pointer).unwrap_or(&Value::Null)
    }

    /// Holds an answer against what the document says of it.
    #[track_caller]
    fn holds(&mut self, place: &str, made: &Made, answer: &Response) {
        let seen = format!("{place} {made:?}: {} {}", answer.status, answer.text());
        let told = format!("{place}/responses/{}/content", answer.status);
        let kinds = self
            .at(&told)
            .as_object()
            .unwrap_or_else(|| panic!("not told: {seen}"));
        let kind = answer.header("content-type").to_owned();
        assert!(kinds.contains_key(&kind), "a body of {kind}: {seen}");
        let body = match kind.as_str() {
            "application/json" => answer.json(),
            _ => Value::String(answer.text()),
        };
        let schema = format!("{told}/{}/schema", escaped(&kind));
        if let Some(wrong) = self.wrong(&schema, &body) {
            panic!("{wrong}\n{seen}");
        }
    }

    /// Values of a schema, and others.
    fn values(&self, schema: &Value, depth: usize) -> BoxedStrategy<Value> {
        if let Some(name) = schema["$ref"].as_str() {
            return self.values(self.at(name.trim_start_matches('#')), depth);
        }
        let choices = schema["anyOf"]
            .as_array()
            .or_else(|| schema["oneOf"].as_array());
        if let Some(choices) = choices {
            let choices: Vec<_> = choices.iter().map(|it| self.values(it, depth)).collect();
            return proptest::strategy::Union::new(choices).boxed();
        }
        if let Some(values) = schema["enum"].as_array() {
            return select(values.clone()).boxed();
        }
        if !schema["const"].is_null() {
            return Just(schema["const"].clone()).boxed();
        }
        let kinds: Vec<&str> = match &schema["type"] {
            Value::Array(kinds) => kinds.iter().filter_map(Value::as_str).collect(),
            kind => kind.as_str().into_iter().collect(),
        };
        let of_kind = kinds.iter().map(|kind| self.of_kind(kind, schema, depth));
        proptest::strategy::Union::new(of_kind).boxed()
    }

    fn of_kind(&self, kind: &str, schema: &Value, depth: usize) -> BoxedStrategy<Value> {
        match kind {
            "integer" => {
                let most = schema["maximum"].as_u64().unwrap_or(u64::from(u32::MAX));
                let least = schema["minimum"].as_u64().unwrap_or(0);
                // Small ones name things that are there.
                prop_oneof![1 => Just(least), 1 => Just(most), 1 => least..=most, 4 => 1..=30_u64]
                    .prop_map_into()
                    .boxed()
            }
            "boolean" => any::<bool>().prop_map_into().boxed(),
            "string" => prop_oneof![
                select(&WORDS[..]).prop_map_into(),
                ".{0,12}".prop_map_into()
            ]
            .boxed(),
            "null" => Just(Value::Null).boxed(),
            "array" => {
                let items = self.values(&schema["items"], depth + 1);
                prop::collection::vec(items, 0..4).prop_map_into().boxed()
            }
            "object" => {
                let required = schema["required"].as_array().cloned().unwrap_or_default();
                let fields = schema["properties"].as_object().into_iter().flatten();
                let fields: Vec<_> = fields
                    .map(|(name, field)| {
                        let weight = if required.contains(&json!(name)) {
                            0.95
                        } else {
                            0.5
                        };
                        let value = prop::option::weighted(weight, self.values(field, depth + 1));
                        (Just(name.clone()), value)
                    })
                    .collect();
                fields
                    .prop_map(|fields| {
                        let given = fields
                            .into_iter()
                            .filter_map(|(name, it)| Some((name, it?)));
                        Value::Object(given.collect())
                    })
                    .boxed()
            }
            other => panic!("a type of the document that is not known here: {other}"),
        }
    }

    /// Values of a schema, and now and then something else.
    fn nearly(&self, schema: &Value) -> BoxedStrategy<Value> {
        let other = prop_oneof![
            select(&WORDS[..]).prop_map(Value::from),
            any::<i64>().prop_map_into(),
            Just(Value::Null),
            Just(json!({"unknown": 1})),
            Just(json!([[]])),
        ];
        prop_oneof![6 => self.values(schema, 0), 1 => other].boxed()
    }

    /// Requests for an operation.
    fn requests(&self, place: &str) -> BoxedStrategy<(Map<String, Value>, Option<Value>)> {
        let parameters = self.at(&format!("{place}/parameters")).as_array();
        let parameters: Vec<_> = parameters
            .into_iter()
            .flatten()
            .map(|parameter| {
                let name = parameter["name"].as_str().unwrap().to_owned();
                let value = self.nearly(&parameter["schema"]);
                let value = match parameter["in"] == "path" {
                    true => value.prop_map(Some).boxed(),
                    false => prop::option::weighted(0.6, value).boxed(),
                };
                (Just(name), value)
            })
            .collect();
        let body = format!("{place}/requestBody/content/application~1json/schema");
        let body = match self.at(&body) {
            Value::Null => Just(None).boxed(),
            schema => self.nearly(schema).prop_map(Some).boxed(),
        };
        let given = parameters.prop_map(|all| {
            let given = all
                .into_iter()
                .filter_map(|(name, value)| Some((name, value?)));
            given.collect::<Map<_, _>>()
        });
        (given, body).boxed()
    }

    /// The request as it is sent, and whether it is what the document says.
    fn make(
        &mut self,
        path: &str,
        place: &str,
        given: &Map<String, Value>,
        body: Option<&Value>,
    ) -> Made {
        let (mut target, mut query, mut is_right) = (path.to_owned(), Vec::new(), true);
        let parameters = self.at(&format!("{place}/parameters")).clone();
        for (place_of, parameter) in parameters.as_array().into_iter().flatten().enumerate() {
            let name = parameter["name"].as_str().unwrap();
            let Some(value) = given.get(name) else {
                is_right &= parameter["required"] != true;
                continue;
            };
            let schema = format!("{place}/parameters/{place_of}/schema");
            is_right &= self
                .wrong(&schema, &as_sent(value, &parameter["schema"]))
                .is_none();
            if parameter["in"] == "path" {
                target = target.replace(&format!("{{{name}}}"), &encoded(&plain(value)));
                continue;
            }
            match value {
                Value::Array(values) if parameter["schema"]["type"] == "array" => {
                    query.extend(
                        values
                            .iter()
                            .map(|it| format!("{name}={}", encoded(&plain(it)))),
                    );
                }
                value => query.push(format!("{name}={}", encoded(&plain(value)))),
            }
        }
        let schema = format!("{place}/requestBody/content/application~1json/schema");
        if let Some(body) = body {
            is_right &= self.wrong(&schema, body).is_none();
        }
        Made {
            target: format!("{target}?{}", query.join("&")),
            body: body.map(ToString::to_string),
            is_right,
        }
    }
}

/// What a value says in a URL, where all is text, and what is said once is a list of one.
fn as_sent(value: &Value, schema: &Value) -> Value {
    match (schema["type"].as_str(), value) {
        (Some("array"), Value::Array(values)) => values.iter().map(plain).collect(),
        (Some("array"), one) => json!([plain(one)]),
        (Some("integer"), Value::String(text)) => text
            .parse::<u64>()
            .map_or_else(|_| value.clone(), Value::from),
        (Some("integer"), _) => value.clone(),
        (_, other) => plain(other).into(),
    }
}

fn plain(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

fn encoded(text: &str) -> String {
    percent_encoding::utf8_percent_encode(text, percent_encoding::NON_ALPHANUMERIC).to_string()
}

/// A key as a part of a JSON pointer in a URL fragment.
fn escaped(key: &str) -> String {
    key.replace('~', "~0").replace('/', "~1")
}

async fn site() -> Running {
    let site = Site::new()
        .pages(&["index", "posts/[id]", "404"])
        .start()
        .await;
    site.origin.fail("/posts/9");
    for path in ["/posts/1", "/posts/2", "/posts/9"] {
        site.get(path).await;
    }
    site.swap("posts/[id]", &modules::puppet_version(2));
    wait_for("a release to go back from", async || {
        match site.admin("/api/releases").await.json()["current"].clone() {
            current if current == 2 => Ok(()),
            current => Err(current.to_string()),
        }
    })
    .await;
    site
}

/// Every answer to every kind of request is one that the document tells of, and what it says is not
/// a request is refused.
#[tokio::test]
async fn the_server_does_what_the_document_says() {
    let site = site().await;
    let mut contract = Contract::of(&site).await;
    let mut runner = TestRunner::new_with_rng(Config::default(), same_rng());
    let mut seen: BTreeMap<String, BTreeSet<u16>> = BTreeMap::new();
    let bearer = format!("Bearer {TOKEN}");
    for (path, method, place) in contract.operations() {
        let is_public = !contract
            .at(&format!("/paths/{}/servers", escaped(&path)))
            .is_null();
        let to = if is_public {
            site.site()
        } else {
            site.admin_door()
        };
        let mut client = Client::new(to);
        let requests = contract.requests(&place);
        for _ in 0..CASES {
            let (mut given, body) = requests.new_tree(&mut runner).unwrap().current();
            // The token is in a header; twice is once too often.
            if is_public {
                given.remove("secret");
            }
            let made = contract.make(&path, &place, &given, body.as_ref());
            let mut headers = vec![("content-type", "application/json")];
            if is_public {
                headers.push(("authorization", &bearer));
            }
            let body = made.body.as_deref().unwrap_or("");
            let answer = client
                .send(&method, &made.target, &headers, body)
                .await
                .unwrap();
            contract.holds(&place, &made, &answer);
            let is_refused = (400..500).contains(&answer.status);
            // What else a hook sends along is its own affair.
            assert!(
                made.is_right || is_refused,
                "{place} {made:?}: {}",
                answer.status
            );
            seen.entry(place.clone()).or_default().insert(answer.status);
        }
    }
    for (place, statuses) in &seen {
        assert!(
            statuses.contains(&200),
            "{place} was never done: {statuses:?}"
        );
    }
    // The requests are of all kinds, or this tests nothing.
    let all: BTreeSet<u16> = seen.values().flatten().copied().collect();
    for status in [200, 400, 404, 500] {
        assert!(all.contains(&status), "{status} was never seen: {seen:?}");
    }
}

/// The same for each request, whoever runs the tests.
fn same_rng() -> proptest::test_runner::TestRng {
    proptest::test_runner::TestRng::deterministic_rng(proptest::test_runner::RngAlgorithm::ChaCha)
}

/// Whoever is kept out, and whatever is sent in another form, is told so in the document's words.
#[tokio::test]
async fn refusals_are_told_as_the_document_says() {
    let site = site().await;
    let mut contract = Contract::of(&site).await;
    let act = "/paths/~1api~1entries~1revalidate/post";
    let back = "/paths/~1api~1releases~1rollback/post";
    let list = "/paths/~1api~1routes/get";
    let json = ("content-type", "application/json");
    let large = " ".repeat(65 << 10);
    for (place, method, path, headers, body, status) in [
        (act, "POST", "/api/entries/revalidate", &[][..], "{}", 415),
        (
            act,
            "POST",
            "/api/entries/revalidate",
            &[json, ("origin", "http://a")],
            "{}",
            403,
        ),
        (act, "POST", "/api/entries/revalidate", &[json], &large, 413),
        (act, "POST", "/api/entries/revalidate", &[json], "{", 400),
        (
            back,
            "POST",
            "/api/releases/rollback",
            &[json],
            r#"{"id":2}"#,
            409,
        ),
        (list, "GET", "/api/routes", &[("host", "a")], "", 421),
    ] {
        let answer = Client::new(site.admin_door())
            .send(method, path, headers, body)
            .await;
        let answer = answer.unwrap();
        assert_eq!(answer.status, status, "{}", answer.text());
        let made = Made {
            target: path.to_owned(),
            body: None,
            is_right: false,
        };
        contract.holds(place, &made, &answer);
    }
    for path in contract.document["paths"].as_object().unwrap().keys() {
        let other = site.admin_post(path, &[json], "{}").await;
        let has_post = !contract
            .at(&format!("/paths/{}/post", escaped(path)))
            .is_null();
        assert_eq!(other.status == 405, !has_post, "{path}: {}", other.status);
    }
}

/// With a token, all but the probes want it.
#[tokio::test]
async fn the_document_says_who_is_let_in() {
    let site = Site::new()
        .pages(&["index"])
        .config("[server]\nadmin-token = \"horse-battery-staple\"");
    let site = site.start_unready().await;
    let bearer = [("authorization", "Bearer horse-battery-staple")];
    let mut client = Client::new(site.admin_door());
    let told = client
        .send("GET", "/api/openapi.json", &bearer, "")
        .await
        .unwrap()
        .json();
    assert_eq!(told["openapi"], "3.1.1");
    for (path, methods) in told["paths"].as_object().unwrap() {
        if methods["get"].is_null() || !methods["servers"].is_null() {
            continue;
        }
        let path = path.replace("{id}", "1");
        let answer = site.admin(&path).await;
        let is_open = ["/livez", "/readyz"].contains(&&*path);
        assert_eq!(answer.status == 401, !is_open, "{path}: {}", answer.status);
    }
}
