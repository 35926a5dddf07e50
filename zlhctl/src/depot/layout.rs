//! Where files lie in a store: the paths that deployed callers know, wherever there are any.

use zlh_catalog::deployed::{java_archive, server_file};
use zlh_catalog::{Id, MediaType, RelPath};

/// The agent's binary, as deployed agents look for it.
pub(super) const AGENT_BINARY: &str = "zlh-agent-linux-amd64";

/// Of a runtime. Java has a folder of its own beside those of the workspaces.
pub(super) fn runtime(id: &Id, version: &str, file_name: &str) -> String {
    match id.as_str() {
        // Who asks by that name takes it for what the name says.
        "java" if media_type(file_name) == MediaType::TarGz => java_archive(version),
        "java" => format!("java/{version}/{file_name}"),
        id => format!("devcontainer/{id}/{version}/{file_name}"),
    }
}

/// Of a tool of workspaces.
pub(super) fn addon(id: &Id, version: &str, file_name: &str) -> String {
    format!("addons/{id}/{version}/{file_name}")
}

/// Of a game server.
pub(super) fn game(game: &Id, variant: &Id, version: &str, file_name: &str) -> String {
    let jar = file_name.ends_with(".jar").then(|| server_file(variant.as_str())).flatten();
    format!("{game}/{variant}/{version}/{}", jar.unwrap_or(file_name))
}

/// Of a release of the agent.
pub(super) fn agent(version: &str) -> String {
    format!("agents/versions/{version}/{AGENT_BINARY}")
}

/// Beside the usual path, for other bytes of the same version.
pub(super) fn beside(path: &str, short_hash: &str) -> String {
    match path.rsplit_once('/') {
        Some((folder, name)) => format!("{folder}/{short_hash}/{name}"),
        None => format!("{short_hash}/{path}"),
    }
}

/// What a file is, by the end of its name.
pub(crate) fn media_type(file_name: &str) -> MediaType {
    let ends = |ends: &[&str]| ends.iter().any(|end| file_name.ends_with(end));
    if ends(&[".tar.gz", ".tgz"]) {
        MediaType::TarGz
    } else if ends(&[".tar.zst", ".tzst"]) {
        MediaType::TarZst
    } else if ends(&[".tar.xz", ".txz"]) {
        MediaType::TarXz
    } else if ends(&[".zip"]) {
        MediaType::Zip
    } else if ends(&[".jar"]) {
        MediaType::Jar
    } else {
        MediaType::File
    }
}

/// The programs that a runtime or tool of that name has in its publisher's archive.
pub(crate) fn known_programs(id: &str) -> Vec<(Id, RelPath)> {
    let known: &[(&str, &str)] = match id {
        "node" => &[("node", "bin/node"), ("npm", "bin/npm"), ("npx", "bin/npx")],
        "python" => &[("python", "bin/python3"), ("python3", "bin/python3"), ("pip", "bin/pip3")],
        "go" => &[("go", "bin/go"), ("gofmt", "bin/gofmt")],
        "java" => &[("java", "bin/java"), ("javac", "bin/javac")],
        "dotnet" => &[("dotnet", "dotnet")],
        "code-server" => &[("code-server", "bin/code-server")],
        _ => &[],
    };
    known.iter().filter_map(|(name, path)| Some((Id::new(*name).ok()?, RelPath::new(*path).ok()?))).collect()
}
