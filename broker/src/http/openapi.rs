//! The routes as an `OpenAPI` 3.1 document, made from the same tables that answer: [`Route`], `Reason`
//! and [`Refusal`]. A route without a description does not compile.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};
use weft_proto::Reason;

use super::follow;
use super::problem::{Refusal, uri};
use super::route::Route;

/// What one route is for, beside what the table says.
struct About {
    summary: &'static str,
    parameters: Vec<Value>,
    body: Option<Value>,
    /// Status, description, content.
    success: (&'static str, &'static str, Value),
}

/// The document.
pub(super) fn document() -> String {
    let mut paths: BTreeMap<&str, Map<String, Value>> = BTreeMap::new();
    for &route in Route::ALL {
        let method = route.method().to_lowercase();
        paths.entry(route.template()).or_default().insert(method, operation(route));
    }
    let document = json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Weft",
            "version": env!("CARGO_PKG_VERSION"),
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
            "description": "CloudEvents over HTTP. A name in a path is `name` or `namespace/name`; the \
                slash may be written `%2F`.",
        },
        "paths": paths,
        "components": {
            "schemas": schemas(),
            "responses": {"Problem": problem()},
            "securitySchemes": {
                "bearer": {"type": "http", "scheme": "bearer",
                    "description": "An API key, or a token of an identity provider."},
                "sharedAccessKey": {"type": "apiKey", "in": "header", "name": "Authorization",
                    "description": "`SharedAccessKey KEY`, as clients of Event Grid send an API key."},
            },
        },
        "x-reasons": reasons(),
    });
    format!("{document:#}\n")
}

/// Every reason of an error, with its status.
fn reasons() -> Value {
    let all = all_reasons().into_iter();
    all.map(|(name, status)| json!({"reason": name, "status": status, "type": uri(name)})).collect()
}

fn all_reasons() -> Vec<(&'static str, u16)> {
    let reasons = Reason::ALL.iter().map(|reason| (reason.as_str(), reason.http_status()));
    let refusals = Refusal::ALL.iter().map(|refusal| (refusal.as_str(), refusal.status()));
    reasons.chain(refusals).collect()
}

fn operation(route: Route) -> Value {
    let About { summary, parameters, body, success } = about(route);
    let names = route.parameters().map(|name| {
        json!({"name": name, "in": "path", "required": true,
            "description": "`name`, or `namespace/name`", "schema": {"$ref": "#/components/schemas/Name"}})
    });
    let parameters: Vec<Value> = names.chain(parameters).collect();
    let (status, description, content) = success;
    let mut responses = Map::new();
    responses.insert(status.to_owned(), json!({"description": description, "content": content}));
    for (status, reasons) in by_status(route) {
        let description = format!("{}.", reasons.join(", "));
        let content = json!({"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}});
        responses.insert(
            status.to_string(),
            json!({"description": description, "content": content, "headers": headers(status)}),
        );
    }
    let mut operation = json!({
        "operationId": route.name(),
        "summary": summary,
        "tags": [if route.is_pull() { "pull" } else if route.needs().is_empty() { "health" } else { "events" }],
        "parameters": parameters,
        "responses": responses,
    });
    let Some(members) = operation.as_object_mut() else { return operation };
    if let Some(body) = body {
        members.insert("requestBody".to_owned(), body);
    }
    let security = match (route.needs().is_empty(), route.is_pull()) {
        (true, _) => json!([]),
        (false, false) => json!([{"bearer": []}]),
        (false, true) => json!([{"bearer": []}, {"sharedAccessKey": []}]),
    };
    members.insert("security".to_owned(), security);
    let needs: Vec<&str> = route.needs().iter().map(|verb| verb.as_str()).collect();
    members.insert("x-needs".to_owned(), json!(needs));
    operation
}

/// Which reasons a route may have, by status.
fn by_status(route: Route) -> BTreeMap<u16, Vec<&'static str>> {
    let mut by_status: BTreeMap<u16, Vec<&'static str>> = BTreeMap::new();
    let is_open = route.needs().is_empty();
    for (name, status) in all_reasons() {
        // What everybody is answered needs nothing that could be missing.
        let is_possible = !is_open || matches!(status, 405 | 408 | 413 | 503);
        if is_possible && name != Refusal::UnknownRoute.as_str() {
            by_status.entry(status).or_default().push(name);
        }
    }
    by_status
}

fn headers(status: u16) -> Value {
    let of = |text: &str| json!({"description": text, "schema": {"type": "string"}});
    match status {
        401 => json!({"WWW-Authenticate": of("What to authenticate with.")}),
        405 => json!({"Allow": of("The methods that there are.")}),
        429 | 503 | 504 => json!({"Retry-After": of("Seconds after which to try again.")}),
        _ => json!({}),
    }
}

fn query(name: &str, description: &str, schema: &Value) -> Value {
    json!({"name": name, "in": "query", "required": false, "description": description, "schema": schema})
}

fn version() -> Value {
    json!({"name": "api-version", "in": "query", "required": true,
        "description": "Any; `2024-06-01` is what clients send.",
        "schema": {"type": "string", "minLength": 1, "default": "2024-06-01"}})
}

fn text(media: &str) -> Value {
    json!({media: {"schema": {"type": "string"}}})
}

fn of_schema(name: &str) -> Value {
    json!({"application/json": {"schema": {"$ref": format!("#/components/schemas/{name}")}}})
}

fn events_in() -> Value {
    let event = json!({"$ref": "#/components/schemas/CloudEvent"});
    json!({
        "required": true,
        "description": "Structured, as a batch, or with any other media type in binary mode: the \
            attributes in `ce-` headers, the payload in the body.",
        "content": {
            "application/cloudevents+json": {"schema": event},
            "application/cloudevents-batch+json": {"schema": {"type": "array", "items": event, "maxItems": 4096}},
            "application/cloudevents+protobuf": {"schema": {"type": "string", "format": "binary"}},
            "application/cloudevents-batch+protobuf": {"schema": {"type": "string", "format": "binary"}},
        },
    })
}

fn locks_in() -> Value {
    json!({"required": true, "content": of_schema("Locks")})
}

fn about(route: Route) -> About {
    let plain = |summary, success| About { summary, parameters: Vec::new(), body: None, success };
    let number = |least: u64, most: u64, default: u64| json!({"type": "integer", "minimum": least, "maximum": most, "default": default});
    let settles = |summary| About {
        summary,
        parameters: vec![version()],
        body: Some(locks_in()),
        success: ("200", "What became of each lock.", of_schema("Settled")),
    };
    match route {
        Route::Live => plain("Whether the process lives", ("200", "It does.", text("text/plain"))),
        Route::Ready => plain("Whether the node can serve", ("200", "It can.", text("text/plain"))),
        Route::Metrics => plain(
            "Metrics of the node",
            ("200", "In the format of Prometheus.", text("text/plain")),
        ),
        Route::OpenApi => plain(
            "This document",
            ("200", "OpenAPI 3.1.", json!({"application/json": {"schema": {"type": "object"}}})),
        ),
        Route::PublishEvents => About {
            summary: "Appends events to a stream, all or none",
            parameters: Vec::new(),
            body: Some(events_in()),
            success: ("202", "How each event was stored, in order.", of_schema("Receipts")),
        },
        Route::FollowEvents => About {
            summary: "Reads a stream as server-sent events",
            parameters: follow_parameters(),
            body: None,
            success: (
                "200",
                "Events: `id` is a cursor, `event` the type, `data` the CloudEvent.",
                text("text/event-stream"),
            ),
        },
        Route::PullPublish => About {
            summary: "Appends events to a stream, all or none",
            parameters: vec![version()],
            body: Some(events_in()),
            success: (
                "200",
                "They are stored.",
                json!({"application/json": {"schema": {"type": "object"}}}),
            ),
        },
        Route::PullReceive => About {
            summary: "Lends events, as soon as there are some",
            parameters: vec![
                version(),
                query("maxEvents", "Events at most.", &number(1, 100, 1)),
                query("maxWaitTime", "Seconds to wait for the first event.", &number(0, 120, 60)),
            ],
            body: None,
            success: (
                "200",
                "Events, each with its lock; none if none came in time.",
                of_schema("Received"),
            ),
        },
        Route::PullAcknowledge => settles("Settles events for good"),
        Route::PullRelease => {
            let mut about = settles("Gives events back, as failed deliveries");
            let delay = number(0, 3_600, 0);
            about.parameters.push(query("releaseDelayInSeconds", "When they come again.", &delay));
            about
        }
        Route::PullReject => settles("Makes dead letters of events"),
        Route::PullRenewLock => settles("Keeps events for as long as a new lease"),
    }
}

fn follow_parameters() -> Vec<Value> {
    let text = json!({"type": "string"});
    let several = json!({"type": "array", "items": {"type": "string"}});
    let about = |name| match name {
        "filter" => Some(("CESQL expression; of several, all must be true.", &several)),
        "from" => Some((
            "`latest` (default), `earliest`, an offset, offsets by partition as in `0:17,1:4`, or a time.",
            &text,
        )),
        "to" => {
            Some(("`latest`: ends with what is stored now. Without it, the stream goes on.", &text))
        }
        "limit" => Some(("Ends after so many events.", &text)),
        "partitions" => Some(("Numbers, as in `0,2`; all, if it is not there.", &text)),
        "lastEventId" => {
            Some(("A cursor, for clients that cannot send the header `Last-Event-ID`.", &text))
        }
        "rebind" => Some(("`true`: the cursor may be of another filter.", &text)),
        _ => None,
    };
    let described = follow::PARAMETERS.iter().filter_map(|&name| {
        about(name).map(|(description, schema)| query(name, description, schema))
    });
    let header = json!({"name": "Last-Event-ID", "in": "header", "required": false,
        "description": "The `id` of the last event that came: the stream goes on behind it.",
        "schema": {"type": "string"}});
    described.chain([header]).collect()
}

fn problem() -> Value {
    json!({"description": "RFC 9457.", "content": {"application/problem+json":
        {"schema": {"$ref": "#/components/schemas/Problem"}}}})
}

fn schemas() -> Value {
    let reasons: Vec<&str> = all_reasons().into_iter().map(|(name, _)| name).collect();
    let tokens = json!({"type": "array", "items": {"type": "string"}, "maxItems": 1000});
    let error = json!({"type": "object", "required": ["code", "message"], "properties": {
        "code": {"type": "string"}, "message": {"type": "string"}, "target": {"type": "string"},
        "details": {"type": "array", "items": {"type": "object"}}}});
    json!({
        "Name": {"type": "string", "pattern": "^([a-z0-9-]{1,63}/)?[a-z0-9-]{1,63}$"},
        "CloudEvent": {"type": "object", "required": ["specversion", "id", "source", "type"], "properties": {
            "specversion": {"const": "1.0"},
            "id": {"type": "string", "minLength": 1},
            "source": {"type": "string", "minLength": 1},
            "type": {"type": "string", "minLength": 1},
            "subject": {"type": "string", "minLength": 1},
            "time": {"type": "string", "format": "date-time"},
            "datacontenttype": {"type": "string", "minLength": 1},
            "dataschema": {"type": "string"},
            "data": {},
            "data_base64": {"type": "string", "contentEncoding": "base64"},
        }},
        "Schema": {"type": "object", "required": ["id", "name", "version"], "properties": {
            "id": {"type": "integer"}, "name": {"type": "string"}, "version": {"type": "integer"}}},
        "Receipt": {"type": "object", "required": ["partition", "offset", "time", "duplicate"], "properties": {
            "partition": {"type": "integer", "minimum": 0},
            "offset": {"type": "integer", "minimum": 0},
            "time": {"type": ["string", "null"], "format": "date-time"},
            "duplicate": {"type": "boolean", "description": "The event was there already."},
            "delayed": {"type": "boolean", "description": "It waits for its time; the offset is its place there."},
            "schema": {"$ref": "#/components/schemas/Schema"}}},
        "Receipts": {"type": "array", "items": {"$ref": "#/components/schemas/Receipt"}},
        "Locks": {"type": "object", "required": ["lockTokens"], "properties": {"lockTokens": tokens}},
        "Received": {"type": "object", "required": ["value"], "properties": {"value": {"type": "array", "items": {
            "type": "object", "required": ["brokerProperties", "event"], "properties": {
                "brokerProperties": {"type": "object", "required": ["lockToken", "deliveryCount"], "properties": {
                    "lockToken": {"type": "string"}, "deliveryCount": {"type": "integer", "minimum": 1}}},
                "event": {"$ref": "#/components/schemas/CloudEvent"}}}}}},
        "Settled": {"type": "object", "required": ["succeededLockTokens", "failedLockTokens"], "properties": {
            "succeededLockTokens": tokens,
            "failedLockTokens": {"type": "array", "items": {"type": "object", "required": ["lockToken", "error"],
                "properties": {"lockToken": {"type": "string"}, "error": error}}}}},
        "Problem": {"type": "object", "required": ["type", "title", "status", "detail", "reason", "kind", "not_applied"],
            "properties": {
                "type": {"type": "string", "format": "uri-reference"},
                "title": {"type": "string"},
                "status": {"type": "integer"},
                "detail": {"type": "string"},
                "reason": {"enum": reasons},
                "kind": {"enum": ["invalid", "denied", "not_found", "conflict", "overloaded", "unavailable", "internal"]},
                "field": {"type": "string", "description": "What is wrong: a parameter, an attribute, a path."},
                "pointer": {"type": "string", "description": "Where the payload breaks its schema: a JSON pointer."},
                "schema": {"$ref": "#/components/schemas/Schema"},
                "offset": {"type": "integer"},
                "unmet": {"type": "array", "items": {"type": "object"}},
                "retry_after_ms": {"type": "integer"},
                "not_applied": {"type": "boolean", "description": "It is certain that nothing was written."},
                "leader": {"type": "string"},
                "errors": {"type": "array", "items": {"type": "object", "required": ["index", "reason", "detail"]}},
                "results": {"type": "array", "items": {"type": "object"}},
                "error": error}},
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed() -> Value {
        serde_json::from_str(&document()).unwrap()
    }

    #[test]
    fn every_route_is_there_once_under_its_method() {
        let document = parsed();
        let mut found = 0;
        for (path, operations) in document["paths"].as_object().unwrap() {
            for (method, operation) in operations.as_object().unwrap() {
                let route = Route::ALL.iter().find(|route| {
                    route.template() == path && route.method().eq_ignore_ascii_case(method)
                });
                assert_eq!(operation["operationId"], route.unwrap().name());
                found += 1;
            }
        }
        assert_eq!(found, Route::ALL.len());
    }

    #[test]
    fn every_reason_is_there_with_its_status_wherever_it_may_come() {
        let document = parsed();
        let told = &document["paths"]["/v1/streams/{stream}/events"]["post"]["responses"];
        for reason in Reason::ALL {
            let response = &told[reason.http_status().to_string()]["description"];
            assert!(response.as_str().unwrap().contains(reason.as_str()), "{reason}");
        }
        for refusal in Refusal::ALL.iter().filter(|one| **one != Refusal::UnknownRoute) {
            let response = &told[refusal.status().to_string()]["description"];
            assert!(response.as_str().unwrap().contains(refusal.as_str()), "{refusal:?}");
        }
        let all = document["x-reasons"].as_array().unwrap().len();
        assert_eq!(all, Reason::ALL.len() + Refusal::ALL.len());
    }

    #[test]
    fn every_reference_leads_somewhere() {
        fn check(document: &Value, value: &Value) {
            match value {
                Value::Object(members) => {
                    if let Some(Value::String(to)) = members.get("$ref") {
                        assert!(document.pointer(&to[1..]).is_some(), "{to}");
                    }
                    members.values().for_each(|value| check(document, value));
                }
                Value::Array(items) => items.iter().for_each(|item| check(document, item)),
                _ => {}
            }
        }
        check(&parsed(), &parsed());
    }

    #[test]
    fn every_parameter_is_described() {
        let document = parsed();
        let parameters = &document["paths"]["/v1/streams/{stream}/events"]["get"]["parameters"];
        let names: Vec<_> = parameters.as_array().unwrap().iter().map(|one| &one["name"]).collect();
        for name in follow::PARAMETERS {
            assert!(names.iter().any(|own| **own == name), "{name}");
        }
    }
}
