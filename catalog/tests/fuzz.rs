//! A valid catalog, damaged at random: parsing never panics, and what it accepts says the
//! same when it is written and read again.
//!
//! `make fuzz` looks for more by coverage. More cases with `ZLH_FUZZ_CASES=100000`; a failure prints
//! its smallest input, and its seed is kept in `fuzz.proptest-regressions`.

#![allow(clippy::unwrap_used, reason = "a failed step is a failed test")]

mod support;

use proptest::prelude::*;
use proptest::sample::Index;
use proptest::test_runner::{Config, FileFailurePersistence};
use serde_json::{Value, json};
use support::document;
use zlh_catalog::{Catalog, lint};

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
