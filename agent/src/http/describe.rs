//! Writes the description of the whole surface, from the handlers. In tests only: what is shipped
//! has the finished document, and nothing that could make another.

use utoipa::ToSchema;
use utoipa::openapi::Schema;
use utoipa::openapi::header::HeaderBuilder;
use utoipa::openapi::path::Operation;
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityRequirement, SecurityScheme};
use utoipa::openapi::{
    ContentBuilder, InfoBuilder, LicenseBuilder, OpenApi, Ref, RefOr, ResponseBuilder, Type,
    schema::ObjectBuilder,
};
use zlh_api::{ConsoleControl, ConsoleEvent};

use super::problem::MEDIA_TYPE;
use super::routes;

/// The document, pretty-printed, with a line feed at its end.
fn document() -> String {
    let (_, mut api) = routes::described().split_for_parts();
    complete(&mut api);
    api.to_pretty_json().unwrap() + "\n"
}

fn described<T: ToSchema>() -> (String, RefOr<Schema>) {
    (T::name().into_owned(), T::schema())
}

/// Adds what holds for every route.
fn complete(api: &mut OpenApi) {
    api.info = InfoBuilder::new()
        .title("zlh-agent")
        .version(crate::version())
        .description(Some(DESCRIPTION))
        .license(Some(LicenseBuilder::new().name("Apache-2.0").identifier(Some("Apache-2.0")).build()))
        .build();
    api.security =
        Some(vec![SecurityRequirement::default(), SecurityRequirement::new("token", Vec::<String>::new())]);
    let components = api.components.get_or_insert_default();
    let scheme = HttpBuilder::new()
        .scheme(HttpAuthScheme::Bearer)
        .description(Some("`token` of the agent's configuration, if it has one"));
    components.security_schemes.insert("token".to_owned(), RefOr::T(SecurityScheme::Http(scheme.build())));
    // What a WebSocket carries is in no operation's description.
    let mut schemas = vec![described::<ConsoleEvent>(), described::<ConsoleControl>()];
    ConsoleEvent::schemas(&mut schemas);
    components.schemas.extend(schemas);
    for (name, _, description) in COMMON.iter().chain(OF_BODIES) {
        components.responses.insert((*name).to_owned(), RefOr::T(refusal(name, description)));
    }
    for (_, item) in api.paths.paths.iter_mut().filter(|(path, _)| *path != "/health") {
        for operation in
            [&mut item.get, &mut item.put, &mut item.patch, &mut item.delete].into_iter().flatten()
        {
            add_common(operation, &[]);
        }
        if let Some(operation) = &mut item.post {
            add_common(operation, OF_BODIES);
        }
    }
}

fn add_common(operation: &mut Operation, further: &[Refusal]) {
    for (name, status, _) in COMMON.iter().chain(further) {
        let reference = RefOr::Ref(Ref::from_response_name(*name));
        operation.responses.responses.entry((*status).to_owned()).or_insert(reference);
    }
}

fn refusal(name: &str, description: &str) -> utoipa::openapi::Response {
    let content = ContentBuilder::new().schema(Some(Ref::from_schema_name("Problem"))).build();
    let response = ResponseBuilder::new().description(description).content(MEDIA_TYPE, content);
    let number = ObjectBuilder::new().schema_type(Type::Integer);
    match name {
        "TooManyRequests" => response
            .header(
                "retry-after",
                HeaderBuilder::new().schema(Some(number)).description(Some("Seconds")).build(),
            )
            .build(),
        _ => response.build(),
    }
}

/// Name, status, when.
type Refusal = (&'static str, &'static str, &'static str);

/// What a route with a body can answer beside that.
const OF_BODIES: &[Refusal] = &[
    ("BodyLate", "408", "`invalid_request`: the body did not arrive within 10 s"),
    ("BodyTooLarge", "413", "`body_too_large`: more than 65,536 bytes"),
];

/// What any route but `/health` can answer.
const COMMON: &[Refusal] = &[
    ("Unauthorized", "401", "`unauthorized`: a token is set, and none or a wrong one was sent"),
    (
        "Forbidden",
        "403",
        "`forbidden`: this peer, Host or Origin is not let in; `detail` says how it would be",
    ),
    ("TooManyRequests", "429", "`too_many_attempts`: ten wrong tokens from this source within a minute"),
    ("Internal", "500", "`internal`: a fault of the agent or its machine"),
    ("Busy", "503", "`busy`: too many connections or viewers, or no answer in time"),
];

const DESCRIPTION: &str = "\
Runs one game server or dev workspace inside a container. HTTP/1.1 and WebSocket, one agent per container.

**Errors** are `application/problem+json` with a stable `error` code; a 409 names the operation that is in the way.

**Work that outlives its request** is an operation: the answer carries `Location: /operations/{id}`.

**Access.** Without a token the agent obeys root and its own user on its own machine, and configured trusted networks. \
With a token every call but `GET /health` needs `Authorization: Bearer`, except from trusted networks, and \
`POST /config` needs it from there too. `Host` must be an IP literal, `localhost` or a configured name; `Origin`, if sent, a configured one.

**Limits.** Bodies 65,536 bytes, 64 headers of 16 KiB together, 512 connections, 200 console viewers.";

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn the_checked_in_document_is_current() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/api/openapi.json");
        let fresh = document();
        if std::env::var_os("UPDATE_OPENAPI").is_some() {
            std::fs::write(path, &fresh).unwrap();
        }
        let current = std::fs::read_to_string(path).unwrap();
        assert!(current == fresh, "agent/api/openapi.json is stale; refresh it with `make openapi`");
    }

    #[test]
    fn every_route_is_described_and_nothing_else() {
        let value: serde_json::Value = serde_json::from_str(&document()).unwrap();
        let paths = value["paths"].as_object().unwrap();
        let described: BTreeSet<(&str, &str)> = paths
            .iter()
            .flat_map(|(path, item)| {
                item.as_object().unwrap().keys().map(move |method| (method.as_str(), path.as_str()))
            })
            .collect();
        assert_eq!(described, routes::TABLE.iter().copied().collect());
        assert_eq!(described.len(), routes::TABLE.len());
    }

    #[test]
    fn every_reference_leads_somewhere() {
        let text = document();
        let value: serde_json::Value = serde_json::from_str(&text).unwrap();
        let mut references = 0;
        for part in text.split("\"$ref\": \"#").skip(1) {
            let pointer = part.split('"').next().unwrap();
            assert!(value.pointer(pointer).is_some(), "{pointer} is missing");
            references += 1;
        }
        assert!(references > 20, "{references}");
    }

    #[test]
    fn health_needs_no_token_and_the_rest_says_what_it_refuses() {
        let value: serde_json::Value = serde_json::from_str(&document()).unwrap();
        assert!(value["paths"]["/health"]["get"]["responses"].get("401").is_none());
        assert!(value["paths"]["/status"]["get"]["responses"].get("401").is_some());
        assert!(value["paths"]["/config"]["post"]["responses"].get("413").is_some());
    }
}
