//! A valid catalog with everything that may be in one: where fuzzing begins.

use serde_json::{Value, json};

pub(crate) fn document() -> Value {
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
