//! `document`: the OpenAPI document of the operations (OpenAPI 3.1.1), and of the public endpoint
//! by which content systems revalidate.

use http::StatusCode;
use schemars::SchemaGenerator;
use schemars::generate::SchemaSettings;
use serde_json::{Map, Value, json};

use super::super::refusal::Message;
use super::operation::{Asks, Kind, Operation, SchemaOf};
use crate::http::{Parameters, REVALIDATE, Told};
use crate::page::Demand;

/// Where it is.
pub(in crate::admin) const PATH: &str = "/api/openapi.json";

/// Statuses and what they mean.
type Statuses = [(StatusCode, &'static str)];

/// What every operation may refuse.
const ALWAYS: [(StatusCode, &str); 4] = [
    (
        StatusCode::BAD_REQUEST,
        "Something is wrong with the request",
    ),
    (StatusCode::UNAUTHORIZED, "The token is wrong or missing"),
    (
        StatusCode::MISDIRECTED_REQUEST,
        "Without a token only requests to localhost are answered",
    ),
    (StatusCode::TOO_MANY_REQUESTS, "Too many wrong tokens"),
];

/// What those that read a body may refuse as well.
const BODIES: [(StatusCode, &str); 4] = [
    (StatusCode::FORBIDDEN, "Another site made the request"),
    (StatusCode::REQUEST_TIMEOUT, "The body took too long"),
    (StatusCode::PAYLOAD_TOO_LARGE, "The body is too large"),
    (StatusCode::UNSUPPORTED_MEDIA_TYPE, "The body is not JSON"),
];

/// What the public endpoint may refuse.
const PUBLIC: [(StatusCode, &str); 6] = [
    (StatusCode::BAD_REQUEST, "Something is wrong with the call"),
    (StatusCode::UNAUTHORIZED, "The token is wrong or missing"),
    (StatusCode::NOT_FOUND, "The server has no token"),
    (StatusCode::REQUEST_TIMEOUT, "The body took too long"),
    (StatusCode::PAYLOAD_TOO_LARGE, "The body is too large"),
    (StatusCode::TOO_MANY_REQUESTS, "Too many wrong tokens"),
];

/// Collects the schemas of what is read, and of what is written.
struct Schemas {
    read: SchemaGenerator,
    written: SchemaGenerator,
}

/// The document.
pub(in crate::admin) fn document(operations: &[Operation]) -> Value {
    let settings = SchemaSettings::draft2020_12().with(|settings| {
        settings.definitions_path = "/components/schemas".into();
        settings.meta_schema = None;
    });
    let mut schemas = Schemas {
        read: settings.clone().for_deserialize().into_generator(),
        written: settings.for_serialize().into_generator(),
    };
    let mut paths = Map::new();
    for operation in operations {
        let method = operation.method.as_str().to_lowercase();
        let told = schemas.operation(operation);
        let path = paths.entry(operation.path).or_insert_with(|| json!({}));
        path[method] = told;
    }
    paths.insert(REVALIDATE.to_owned(), schemas.public());
    let mut all = schemas.read.take_definitions(true);
    all.append(&mut schemas.written.take_definitions(true));
    json!({
        "openapi": "3.1.1",
        "info": {
            "title": "wisr",
            "version": env!("CARGO_PKG_VERSION"),
            "description": "The admin port, and the endpoint of the public port by which content \
                            systems revalidate.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": "/"}],
        "security": [{"token": []}, {}],
        "paths": paths,
        "components": {
            "schemas": all,
            "securitySchemes": {
                "token": {
                    "type": "http",
                    "scheme": "bearer",
                    "description": "`server.admin-token` of wisr.toml, where it is set; for the \
                                    public endpoint `revalidate.token`.",
                },
            },
        },
    })
}

impl Schemas {
    fn operation(&mut self, operation: &Operation) -> Value {
        let answer = match operation.kind {
            Kind::Json(schema) => {
                let schema = schema(&mut self.written);
                json!({"application/json": {"schema": schema}})
            }
            Kind::Text(kind) => json!({kind: {"schema": {"type": "string"}}}),
        };
        let mut responses = self.refusals(&ALWAYS);
        responses.append(&mut self.refusals(operation.refuses));
        let mut told = json!({"summary": operation.summary, "operationId": name(operation)});
        match operation.asks {
            Asks::Parameters(schema) => {
                let parameters = self.parameters(schema, operation.path);
                if !parameters.is_empty() {
                    told["parameters"] = parameters.into();
                }
            }
            Asks::Json(schema, _) => {
                responses.append(&mut self.refusals(&BODIES));
                let schema = schema(&mut self.read);
                told["requestBody"] = json!({
                    "required": true,
                    "content": {"application/json": {"schema": schema}},
                });
            }
        }
        let also = operation.also.iter().copied();
        for (status, meaning) in also.chain([(StatusCode::OK, "Done")]) {
            responses.insert(
                status.as_str().to_owned(),
                json!({"description": meaning, "content": answer}),
            );
        }
        told["responses"] = responses.into();
        told
    }

    /// The endpoint of the public door, which is another server.
    fn public(&mut self) -> Value {
        let parameters = self.parameters(|it| it.subschema_for::<Parameters>(), REVALIDATE);
        let body = self.read.subschema_for::<Demand>();
        let told = self.written.subschema_for::<Told>();
        let message = self.written.subschema_for::<Message<'_>>();
        let mut responses = self.refusals(&PUBLIC);
        let done = [(StatusCode::OK, "Done")];
        for (status, meaning) in Told::STATUSES.into_iter().chain(done) {
            let schema = match responses.contains_key(status.as_str()) {
                true => json!({"anyOf": [told, message]}),
                false => json!(told),
            };
            let content = json!({"application/json": {"schema": schema}});
            let told = json!({"description": meaning, "content": content});
            responses.insert(status.as_str().to_owned(), told);
        }
        let operation = |id, summary| {
            json!({
                "operationId": id,
                "summary": summary,
                "parameters": parameters,
                "security": [{"token": []}],
                "responses": responses,
            })
        };
        let get = operation("revalidateByUrl", "Revalidate pages, as a URL says");
        let mut post = operation("revalidate", "Revalidate pages, as a body says");
        post["requestBody"] = json!({"content": {"application/json": {"schema": body}}});
        json!({
            "servers": [{
                "url": "http://{host}",
                "description": "The public port",
                "variables": {"host": {"default": "127.0.0.1:3000"}},
            }],
            "get": get,
            "post": post,
        })
    }

    /// The parameters that the fields of a type are.
    fn parameters(&self, schema: SchemaOf, path: &str) -> Vec<Value> {
        // On the side: such a type has no place among the schemas, while its fields are shown here.
        let mut aside = self.read.clone();
        let mut schema = schema(&mut aside).to_value();
        if let Some(name) = schema["$ref"].as_str().and_then(|it| it.rsplit('/').next()) {
            schema = aside.definitions()[name].clone();
        }
        let required = schema["required"].as_array().cloned().unwrap_or_default();
        let fields = schema["properties"].as_object().into_iter().flatten();
        let parameter = |(name, field): (&String, &Value)| {
            let is_in_path = path.contains(&format!("{{{name}}}"));
            let mut field = field.clone();
            let description = field
                .as_object_mut()
                .and_then(|it| it.remove("description"));
            never_null(&mut field);
            json!({
                "name": name,
                "in": if is_in_path { "path" } else { "query" },
                "required": is_in_path || required.contains(&json!(name)),
                "description": description,
                "schema": field,
            })
        };
        fields.map(parameter).collect()
    }

    fn refusals(&mut self, statuses: &Statuses) -> Map<String, Value> {
        let schema = self.written.subschema_for::<Message<'_>>();
        let content = json!({"application/json": {"schema": schema}});
        let refusal = |(status, meaning): &(StatusCode, &str)| {
            let told = json!({"description": meaning, "content": content});
            (status.as_str().to_owned(), told)
        };
        statuses.iter().map(refusal).collect()
    }
}

/// A parameter is there or it is not; its absence needs no value.
fn never_null(schema: &mut Value) {
    if let Some(kinds) = schema["type"].as_array_mut() {
        kinds.retain(|kind| kind != "null");
        if let [kind] = &kinds[..] {
            schema["type"] = kind.clone();
        }
    }
    let others = schema["anyOf"].as_array_mut().map(|others| {
        others.retain(|other| other["type"] != "null");
        std::mem::take(others)
    });
    if let Some([only]) = others.as_deref() {
        *schema = only.clone();
    }
    if let Some(schema) = schema.as_object_mut() {
        schema.retain(|name, value| !(value.is_null() && name != "const"));
    }
}

/// `listReleases` is nicer, but nobody could tell it from the path alone.
fn name(operation: &Operation) -> String {
    let words = operation
        .path
        .split(['/', '{', '}'])
        .filter(|word| !word.is_empty());
    let words: Vec<&str> = words.filter(|word| *word != "api").collect();
    let method = operation.method.as_str().to_lowercase();
    std::iter::once(&*method)
        .chain(words)
        .collect::<Vec<_>>()
        .join("_")
}
