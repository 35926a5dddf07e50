//! A valid catalog, damaged at random: parsing never panics, and what it accepts says the
//! same when it is written and read again.
//!
//! More cases with `ZLH_FUZZ_CASES=100000`; a failure prints its smallest input, and its
//! seed is kept in `fuzz.proptest-regressions`.

#![allow(clippy::unwrap_used, reason = "a failed step is a failed test")]

use proptest::prelude::*;
use proptest::sample::Index;
use proptest::test_runner::{Config, FileFailurePersistence};
use serde_json::{Value, json};
use zlh_catalog::{Catalog, lint};

fn document() -> Value {
    let file = |path: &str, media_type: &str| json!({ "path": path, "size": 1000, "sha256": "ab".repeat(32), "media_type": media_type });
    json!({
        "schema": 1, "serial": 7, "issued": "2026-01-02T03:04:05Z", "expires": "2036-01-02T03:04:05Z",
        "games": [{ "id": "minecraft", "name": "Minecraft", "variants": [
            { "id": "paper", "versions": [
                { "version": "1.21.7", "files": [file("paper/server.jar", "application/java-archive")] }
            ] },
            { "id": "flying-squid", "versions": [{
                "version": "1.18.2",
                "files": [file("squid/tree.zip", "application/zip")],
                "requires": { "runtime": "node", "version": ">=22" },
                "launch": {
                    "install": [{ "step": "unpack", "file": "server" }],
                    "argv": ["{exec:node}", "{server}/app.js"],
                    "files": [{ "path": "config/settings.json", "format": "json", "set": { "port": "{port}" } }],
                    "readiness": { "probe": "minecraft_ping" },
                    "stop": { "command": "stop" }
                }
            }] }
        ] }],
        "runtimes": [
            { "id": "java", "versions": [{
                "version": "21.0.10", "strip_components": 1, "executables": { "java": "bin/java" },
                "archive": file("java/21.tar.gz", "application/x-tar+gzip")
            }] },
            { "id": "node", "versions": [{
                "version": "22.23.3", "executables": { "node": "bin/node" },
                "archive": file("node/22.tar.xz", "application/x-tar+xz")
            }] }
        ]
    })
}

/// Values where others are expected: of another type, at the edge, or meant to get out.
fn value() -> impl Strategy<Value = Value> {
    prop_oneof![
        prop::sample::select(vec![
            Value::Null,
            json!(true),
            json!(-1),
            json!(0),
            json!(u64::MAX),
            json!(1e300),
            json!(""),
            json!("../../etc/passwd"),
            json!("/etc/passwd"),
            json!("a\u{202e}b"),
            json!("{port}{"),
            json!("{exec:node}"),
            json!(">=99999999999999999999"),
            json!("application/zip"),
            json!("9999-12-31T23:59:60Z"),
            json!("x".repeat(5000)),
            json!([]),
            json!({}),
            json!([[[[[[[[]]]]]]]]),
            json!(["{server}", "{file:server}"]),
        ]),
        any::<String>().prop_map(Value::String),
        any::<u64>().prop_map(|number| json!(number)),
    ]
}

/// Every place in a document.
fn places(document: &Value) -> Vec<String> {
    fn walk(at: &str, value: &Value, out: &mut Vec<String>) {
        out.push(at.to_owned());
        match value {
            Value::Array(items) => {
                items.iter().enumerate().for_each(|(n, item)| walk(&format!("{at}/{n}"), item, out));
            }
            Value::Object(fields) => {
                fields.iter().for_each(|(key, item)| walk(&format!("{at}/{key}"), item, out));
            }
            _ => {}
        }
    }
    let mut out = Vec::new();
    walk("", document, &mut out);
    out
}

fn check(bytes: &[u8]) {
    let (found, _) = lint(bytes, "2026-06-01T00:00:00Z".parse().unwrap());
    let Ok(catalog) = Catalog::parse(bytes) else { return };
    assert_eq!(found.as_ref(), Some(&catalog));
    let written = serde_json::to_vec(&catalog).unwrap();
    let again = Catalog::parse(&written).expect("what was accepted is accepted again");
    assert_eq!(again, catalog);
}

fn config() -> Config {
    let cases = std::env::var("ZLH_FUZZ_CASES").ok().and_then(|cases| cases.parse().ok()).unwrap_or(1000);
    let kept = FileFailurePersistence::WithSource("proptest-regressions");
    Config { cases, failure_persistence: Some(Box::new(kept)), ..Config::default() }
}

#[test]
fn the_seed_is_good() {
    Catalog::parse(document().to_string().as_bytes()).unwrap();
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn values(changes in prop::collection::vec((any::<Index>(), value(), any::<bool>()), 1..4)) {
        let mut document = document();
        for (at, value, remove) in changes {
            let places = places(&document);
            let place = &places[at.index(places.len())];
            match place.rsplit_once('/') {
                Some((parent, key)) if remove => match document.pointer_mut(parent) {
                    Some(Value::Object(fields)) => drop(fields.remove(key)),
                    // Said twice instead.
                    Some(Value::Array(items)) => items.extend(items.first().cloned()),
                    _ => {}
                },
                _ => *document.pointer_mut(place).unwrap() = value,
            }
        }
        check(document.to_string().as_bytes());
    }

    #[test]
    fn bytes(changes in prop::collection::vec((any::<Index>(), any::<u8>(), 0..3_u8), 1..6)) {
        let mut text = document().to_string().into_bytes();
        for (at, byte, how) in changes {
            let at = at.index(text.len());
            match how {
                0 => text[at] = byte,
                1 => text.insert(at, byte),
                _ => text.truncate(text.len() - at.min(text.len() - 1).min(3)),
            }
        }
        check(&text);
    }

    #[test]
    fn anything(text in ".{0,200}") {
        check(text.as_bytes());
    }
}
