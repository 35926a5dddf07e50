//! A small good catalog for the tests of this crate.

use serde_json::{Value, json};

use crate::Catalog;

pub(crate) fn catalog() -> Catalog {
    Catalog::parse(document().to_string().as_bytes()).expect("the fixture is good")
}

pub(crate) fn document() -> Value {
    let jar = |version: &str| {
        json!({ "version": version, "fetches_upstream": true,
                "files": [file(&format!("minecraft/{version}/server.jar"), "application/java-archive")] })
    };
    let java = |version: &str| {
        json!({ "version": version, "strip_components": 1, "executables": { "java": "bin/java" },
                "archive": file(&format!("java/{version}.tar.gz"), "application/x-tar+gzip") })
    };
    json!({
        "schema": 1, "serial": 7, "issued": "2026-01-02T03:04:05Z", "expires": "2036-01-02T03:04:05Z",
        "games": [{ "id": "minecraft", "name": "Minecraft", "variants": [
            { "id": "paper", "versions": [jar("1.21.7"), jar("1.20.1"), jar("1.21.10")] },
            { "id": "purpur", "versions": [jar("1.21.7")] },
            { "id": "flying-squid", "versions": [{
                "version": "1.18.2",
                "files": [file("minecraft/flying-squid/1.18.2/tree.tar.zst", "application/x-tar+zstd")],
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
            { "id": "java", "versions": [java("17.0.9"), java("21.0.10"), java("21.0.3")] },
            { "id": "node", "versions": [{
                "version": "22.23.3", "executables": { "node": "bin/node" },
                "archive": file("devcontainer/node/22.23.3.tar.zst", "application/x-tar+zstd")
            }] }
        ]
    })
}

fn file(path: &str, media_type: &str) -> Value {
    json!({ "path": path, "size": 1000, "sha256": "ab".repeat(32), "media_type": media_type })
}
