//! The JSON Schema says of a document by itself what the parser says.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on ends here")]

use serde_json::{Value, json};
use zlh_catalog::Catalog;

fn validator() -> jsonschema::Validator {
    let schema: Value = serde_json::from_str(zlh_catalog::SCHEMA_JSON).unwrap();
    assert!(jsonschema::draft202012::meta::is_valid(&schema));
    jsonschema::draft202012::new(&schema).unwrap()
}

/// One of everything.
fn document() -> Value {
    let file = |path: &str, media_type: &str| json!({ "path": path, "size": 1000, "sha256": "ab".repeat(32), "media_type": media_type });
    json!({
        "schema": 1, "serial": 7, "issued": "2026-01-02T03:04:05Z", "expires": "2036-01-02T03:04:05.123+01:00",
        "games": [{ "id": "minecraft", "name": "Minecraft", "variants": [
            { "id": "paper", "versions": [
                { "version": "1.21.7", "fetches_upstream": true, "channels": { "stable": 10, "beta": 100 },
                  "files": [file("minecraft/paper/1.21.7/server.jar", "application/java-archive")] }] },
            { "id": "flying-squid", "versions": [{
                "version": "1.18.2",
                "files": [file("minecraft/flying-squid/1.18.2/tree.tar.zst", "application/x-tar+zstd")],
                "requires": { "runtime": "node", "version": ">=22" },
                "deprecated": "too old",
                "stop": { "grace_s": 100, "warn": [{ "before_s": 10, "command": "say bye" }] },
                "launch": {
                    "install": [{ "step": "unpack", "file": "server" }],
                    "argv": ["{exec:node}", "{server}/app.js"],
                    "env": { "A": "b" },
                    "files": [{ "path": "config/settings.json", "format": "json", "set": { "port": "{port}" } }],
                    "readiness": { "probe": "minecraft_ping" },
                    "stop": { "command": "stop" },
                    "save": { "off": "save-off", "flush": "save-all", "flushed": "Saved", "on": "save-on" }
                }
            }] }
        ] }],
        "runtimes": [
            { "id": "java", "versions": [{ "version": "21.0.3", "strip_components": 1,
                "executables": { "java": "bin/java" }, "archive": file("java/21.tar.gz", "application/x-tar+gzip") }] },
            { "id": "node", "versions": [{ "version": "22.23.3", "executables": { "node": "bin/node" },
                "archive": { "path": "node/22.tar.xz", "size": 1000, "sha256": "ab".repeat(32),
                    "media_type": "application/x-tar+xz", "tree_sha256": "cd".repeat(32) } }] }
        ],
        "addons": [{ "id": "code-server", "versions": [{ "version": "4.1.0", "withdrawn": "CVE-2026-1",
            "executables": { "code-server": "bin/code-server" }, "archive": file("cs.zip", "application/zip") }] }],
        "agents": [{ "version": "1.4.0", "binary": file("agents/versions/1.4.0/zlh-agent-linux-amd64", "application/octet-stream") }]
    })
}

#[test]
fn good_documents_pass() {
    let validator = validator();
    for good in
        [document(), json!({ "schema": 1, "serial": 0, "issued": "2026-01-02T03:04:05Z", "later": {} })]
    {
        Catalog::parse(good.to_string().as_bytes()).unwrap();
        let problems: Vec<String> =
            validator.iter_errors(&good).map(|e| format!("{} {e}", e.instance_path)).collect();
        assert!(problems.is_empty(), "{problems:?}");
        // What this program writes is of that form, too.
        let written = serde_json::to_value(Catalog::parse(good.to_string().as_bytes()).unwrap()).unwrap();
        assert!(validator.is_valid(&written));
    }
}

#[test]
fn built_in_plans_pass() {
    let validator = validator();
    for plan in [
        include_str!("../src/builtin/jar.json"),
        include_str!("../src/builtin/fabric.json"),
        include_str!("../src/builtin/forge.json"),
        include_str!("../src/builtin/neoforge.json"),
    ] {
        let mut good = document();
        good["games"][0]["variants"][0]["versions"][0]["launch"] = serde_json::from_str(plan).unwrap();
        assert!(validator.is_valid(&good), "{plan}");
    }
}

#[test]
fn what_the_parser_refuses_by_itself_the_schema_refuses() {
    let validator = validator();
    let game = "/games/0/variants/0/versions/0";
    let plan = "/games/0/variants/1/versions/0/launch";
    let table = [
        ("/schema".to_owned(), json!(2)),
        ("/serial".to_owned(), json!(-1)),
        ("/serial".to_owned(), json!("7")),
        ("/serial".to_owned(), json!(1.5)),
        ("/serial".to_owned(), json!(1_u64 << 53)),
        ("/issued".to_owned(), json!("yesterday")),
        ("/issued".to_owned(), Value::Null),
        ("/games".to_owned(), json!({})),
        ("/games/0/id".to_owned(), json!("Minecraft")),
        ("/games/0/id".to_owned(), json!("a..b")),
        (format!("{game}/version"), json!("latest")),
        (format!("{game}/version"), json!("../1")),
        (format!("{game}/version"), json!("-1")),
        (format!("{game}/files"), json!([])),
        (format!("{game}/files/0/path"), json!("/etc/passwd")),
        (format!("{game}/files/0/path"), json!("a/../b")),
        (format!("{game}/files/0/path"), json!("a//b")),
        (format!("{game}/files/0/path"), json!("a/")),
        (format!("{game}/files/0/path"), json!("a/./b")),
        (format!("{game}/files/0/path"), json!("-rf")),
        (format!("{game}/files/0/path"), json!("a/-rf")),
        (format!("{game}/files/0/path"), json!("a\\b")),
        (format!("{game}/files/0/path"), json!("a\nb")),
        (format!("{game}/files/0/path"), json!("")),
        (format!("{game}/files/0/size"), json!(0)),
        (format!("{game}/files/0/size"), Value::Null),
        (format!("{game}/files/0/sha256"), json!("AB".repeat(32))),
        (format!("{game}/files/0/sha256"), json!("ab".repeat(31))),
        (format!("{game}/files/0/sha256"), Value::Null),
        (format!("{game}/files/0/media_type"), json!("application/x-rar")),
        ("/runtimes/1/versions/0/archive/tree_sha256".to_owned(), json!("cd".repeat(31))),
        ("/runtimes/1/versions/0/archive/tree_sha256".to_owned(), json!(7)),
        (format!("{game}/channels"), json!({ "stable": 0 })),
        (format!("{game}/channels"), json!({ "stable": 101 })),
        (format!("{game}/channels"), json!({ "Stable": 1 })),
        (format!("{game}/withdrawn"), json!(" ")),
        (format!("{game}/withdrawn"), json!("a\nb")),
        (format!("{game}/fetches_upstream"), json!("yes")),
        (format!("{plan}/argv"), Value::Null),
        (format!("{plan}/argv"), json!([])),
        (format!("{plan}/readiness/probe"), json!("console_line")),
        (format!("{plan}/install/0"), json!({ "step": "delete", "file": "server" })),
        (format!("{plan}/install/0"), json!({ "step": "place", "file": "server" })),
        (format!("{plan}/files/0/format"), json!("yaml")),
        (format!("{plan}/stop"), Value::Null),
        ("/runtimes/0/versions/0/executables".to_owned(), json!({})),
        ("/runtimes/0/versions/0/executables".to_owned(), json!({ "java": "../java" })),
        ("/runtimes/0/versions/0/strip_components".to_owned(), json!(256)),
        ("/runtimes/0/versions/0/archive/media_type".to_owned(), json!("application/java-archive")),
        ("/addons/0/versions/0/archive".to_owned(), json!([])),
        ("/agents/0/binary/media_type".to_owned(), json!("application/x-tar+gzip")),
    ];
    for (at, value) in table {
        let mut bad = document();
        match bad.pointer_mut(&at) {
            Some(place) => *place = value.clone(),
            None => {
                let (parent, key) = at.rsplit_once('/').unwrap();
                bad.pointer_mut(parent).unwrap()[key] = value.clone();
            }
        }
        assert!(Catalog::parse(bad.to_string().as_bytes()).is_err(), "the parser takes {at} = {value}");
        assert!(!validator.is_valid(&bad), "the schema takes {at} = {value}");
    }
    for at in ["schema", "serial", "issued"] {
        let mut bad = document();
        bad.as_object_mut().unwrap().remove(at);
        assert!(Catalog::parse(bad.to_string().as_bytes()).is_err() && !validator.is_valid(&bad), "{at}");
    }
}
