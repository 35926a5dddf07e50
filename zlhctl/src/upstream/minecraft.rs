//! Servers that are one jar: Mojang's own, Paper, Purpur.

use std::collections::BTreeMap;

use anyhow::{Context, Result, anyhow};
use serde::Deserialize;

use super::checksum::{Algorithm, Checksum};
use super::{Found, Wanted, Web, file_name, server};
use crate::exit::Hint;

#[derive(Deserialize)]
struct Manifest {
    versions: Vec<ManifestVersion>,
}

#[derive(Deserialize)]
struct ManifestVersion {
    id: String,
    #[serde(rename = "type")]
    kind: String,
    url: String,
    sha1: String,
}

#[derive(Deserialize)]
struct Version {
    downloads: BTreeMap<String, VersionFile>,
}

#[derive(Deserialize)]
struct VersionFile {
    sha1: String,
    size: u64,
    url: String,
}

/// The version manifest v2 names a document a version, with its SHA-1; that one names the
/// server, with its own.
pub(super) async fn vanilla(web: &Web, wanted: Wanted<'_>) -> Result<Found> {
    let url = web.url("vanilla", "mc/game/version_manifest_v2.json")?;
    let manifest: Manifest = web.json("vanilla", &url).await?;
    // A snapshot has to be asked for by its name.
    let named = |one: &&ManifestVersion| wanted.version == Some(one.id.as_str());
    let releases =
        manifest.versions.iter().filter(|one| wanted.unstable || one.kind == "release" || named(one));
    let version = wanted.choose(releases.map(|one| one.id.as_str()))?;
    let entry = manifest.versions.iter().find(|one| one.id == version).context("it was just there")?;
    let bytes = web.small("vanilla", &entry.url, MAX_VERSION_BYTES).await?;
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("version.json");
    std::fs::write(&path, &bytes)?;
    Checksum::new(Algorithm::Sha1, &entry.sha1)?.check(&path, &file_name(&entry.url))?;
    let document: Version = serde_json::from_slice(&bytes)
        .with_context(|| format!("`{}` is not in the form that is documented", entry.url))?;
    let file = document
        .downloads
        .get("server")
        .ok_or_else(|| anyhow!("Minecraft {version} has no server to download"))?;
    Ok(Found {
        item: server("vanilla")?,
        version: version.to_owned(),
        url: file.url.clone(),
        file_name: file_name(&file.url),
        size: Some(file.size),
        checksum: Some(Checksum::new(Algorithm::Sha1, &file.sha1)?),
    })
}

#[derive(Deserialize)]
struct PaperProject {
    /// By line: `1.21` has `1.21.8`, `1.21.7`, …
    versions: BTreeMap<String, Vec<String>>,
}

#[derive(Deserialize)]
struct PaperBuild {
    id: u64,
    channel: String,
    downloads: BTreeMap<String, PaperFile>,
}

#[derive(Deserialize)]
struct PaperFile {
    name: String,
    checksums: PaperChecksums,
    size: u64,
    url: String,
}

#[derive(Deserialize)]
struct PaperChecksums {
    sha256: String,
}

/// The newest stable build of the version, by the v3 API.
pub(super) async fn paper(web: &Web, wanted: Wanted<'_>) -> Result<Found> {
    let project: PaperProject = web.json("paper", &web.url("paper", "v3/projects/paper")?).await?;
    let versions = project.versions.values().flatten().map(String::as_str);
    let is_release = |version: &&str| !version.contains('-') || wanted.version == Some(version);
    let version = wanted.choose(versions.filter(|one| wanted.unstable || is_release(one)))?;
    let url = web.url("paper", &format!("v3/projects/paper/versions/{version}/builds"))?;
    let builds: Vec<PaperBuild> = web.json("paper", &url).await?;
    let stable =
        |build: &&PaperBuild| wanted.unstable || matches!(build.channel.as_str(), "STABLE" | "RECOMMENDED");
    let Some(build) = builds.iter().filter(stable).max_by_key(|build| build.id) else {
        let channels: Vec<&str> = builds.iter().map(|build| build.channel.as_str()).collect();
        return Err(anyhow!("Paper {version} has no stable build"))
            .hint(format!("--unstable takes the newest of its {} builds", channels.len()));
    };
    let file = build
        .downloads
        .get("server:default")
        .ok_or_else(|| anyhow!("build {} of Paper {version} has no server to download", build.id))?;
    Ok(Found {
        item: server("paper")?,
        version: version.to_owned(),
        url: file.url.clone(),
        file_name: file.name.clone(),
        size: Some(file.size),
        checksum: Some(Checksum::new(Algorithm::Sha256, &file.checksums.sha256)?),
    })
}

#[derive(Deserialize)]
struct PurpurProject {
    versions: Vec<String>,
}

#[derive(Deserialize)]
struct PurpurBuild {
    build: String,
    result: String,
    md5: String,
}

/// The latest build of the version, by the v2 API.
pub(super) async fn purpur(web: &Web, wanted: Wanted<'_>) -> Result<Found> {
    let project: PurpurProject = web.json("purpur", &web.url("purpur", "v2/purpur")?).await?;
    let version = wanted.choose(project.versions.iter().map(String::as_str))?;
    let url = web.url("purpur", &format!("v2/purpur/{version}/latest"))?;
    let build: PurpurBuild = web.json("purpur", &url).await?;
    anyhow::ensure!(
        build.result == "SUCCESS",
        "the latest build of Purpur {version}, {}, did not succeed ({})",
        build.build,
        build.result
    );
    Ok(Found {
        item: server("purpur")?,
        version: version.to_owned(),
        url: web.url("purpur", &format!("v2/purpur/{version}/{}/download", build.build))?,
        file_name: format!("purpur-{version}-{}.jar", build.build),
        size: None,
        checksum: Some(Checksum::new(Algorithm::Md5, &build.md5)?),
    })
}

const MAX_VERSION_BYTES: usize = 4 << 20;
