//! Java, Node and Go.

use anyhow::{Context, Result, anyhow};
use serde::Deserialize;
use serde_json::Value;

use super::checksum::{Algorithm, Checksum};
use super::{Found, Wanted, Web, runtime};
use crate::exit::Hint;

#[derive(Deserialize)]
struct JavaReleases {
    available_releases: Vec<u32>,
    most_recent_lts: u32,
}

#[derive(Deserialize)]
struct JavaRelease {
    binaries: Vec<JavaBinary>,
    version_data: JavaVersion,
}

#[derive(Deserialize)]
struct JavaBinary {
    package: JavaPackage,
}

#[derive(Deserialize)]
struct JavaPackage {
    checksum: String,
    link: String,
    name: String,
    size: u64,
}

#[derive(Deserialize)]
struct JavaVersion {
    semver: String,
}

impl JavaRelease {
    /// `21.0.8` of `21.0.8+9.0.LTS`.
    fn version(&self) -> &str {
        self.version_data.semver.split('+').next().unwrap_or_default()
    }
}

/// Temurin's JDK, by Adoptium's v3 API; without a version, the newest one with long support.
pub(super) async fn java(web: &Web, wanted: Wanted<'_>) -> Result<Found> {
    let releases: JavaReleases = web.json("java", &web.url("java", "v3/info/available_releases")?).await?;
    let major = match wanted.version {
        None => releases.most_recent_lts,
        Some(version) => {
            let major = version.split(['.', '+']).next().and_then(|major| major.parse().ok());
            let known = major.filter(|major| releases.available_releases.contains(major));
            let all: Vec<String> = releases.available_releases.iter().map(u32::to_string).collect();
            known
                .ok_or_else(|| anyhow!("the publisher has no such version"))
                .hint(format!("there are {}", all.join(", ")))?
        }
    };
    let query = "architecture=x64&image_type=jdk&jvm_impl=hotspot&os=linux&vendor=eclipse&page_size=20";
    let url = web.url("java", &format!("v3/assets/feature_releases/{major}/ga?{query}"))?;
    let all: Vec<JavaRelease> = web.json("java", &url).await?;
    let version = wanted.choose(all.iter().map(JavaRelease::version))?;
    // The first of several builds of one version is the newest.
    let release = all.iter().find(|one| one.version() == version).context("it was just there")?;
    let package = release
        .binaries
        .iter()
        .map(|binary| &binary.package)
        .find(|package| package.name.ends_with(".tar.gz"))
        .ok_or_else(|| anyhow!("Java {version} has no .tar.gz for Linux on x86-64"))?;
    Ok(Found {
        item: runtime("java", 1)?,
        version: version.to_owned(),
        url: package.link.clone(),
        file_name: package.name.clone(),
        size: Some(package.size),
        checksum: Some(Checksum::new(Algorithm::Sha256, &package.checksum)?),
    })
}

#[derive(Deserialize)]
struct NodeVersion {
    version: String,
    files: Vec<String>,
    /// The name of its long-term support, or `false`.
    lts: Value,
}

/// Node's dist folder; without a version, the newest one with long support.
pub(super) async fn node(web: &Web, wanted: Wanted<'_>) -> Result<Found> {
    let all: Vec<NodeVersion> = web.json("node", &web.url("node", "dist/index.json")?).await?;
    let fits = |one: &&NodeVersion| {
        one.files.iter().any(|file| file == "linux-x64")
            && (wanted.unstable || wanted.version.is_some() || one.lts.is_string())
    };
    let bare = |one: &'_ NodeVersion| one.version.trim_start_matches('v').to_owned();
    let versions: Vec<String> = all.iter().filter(fits).map(bare).collect();
    let version = wanted.choose(versions.iter().map(String::as_str))?;
    let file_name = format!("node-v{version}-linux-x64.tar.gz");
    let sums = web.text("node", &web.url("node", &format!("dist/v{version}/SHASUMS256.txt"))?).await?;
    Ok(Found {
        item: runtime("node", 1)?,
        version: version.to_owned(),
        url: web.url("node", &format!("dist/v{version}/{file_name}"))?,
        checksum: Some(Checksum::in_list(Algorithm::Sha256, &sums, &file_name)?),
        file_name,
        size: None,
    })
}

#[derive(Deserialize)]
struct GoVersion {
    version: String,
    stable: bool,
    files: Vec<GoFile>,
}

#[derive(Deserialize)]
struct GoFile {
    filename: String,
    os: String,
    arch: String,
    kind: String,
    sha256: String,
    size: u64,
}

/// Go's download list.
pub(super) async fn go(web: &Web, wanted: Wanted<'_>) -> Result<Found> {
    let all: Vec<GoVersion> = web.json("go", &web.url("go", "dl/?mode=json&include=all")?).await?;
    let bare = |one: &GoVersion| one.version.trim_start_matches("go").to_owned();
    let named = |one: &GoVersion| wanted.version == Some(bare(one).as_str());
    let fits = |one: &&GoVersion| wanted.unstable || one.stable || named(one);
    let versions: Vec<String> = all.iter().filter(fits).map(bare).collect();
    let version = wanted.choose(versions.iter().map(String::as_str))?;
    let file = all
        .iter()
        .filter(|one| bare(one) == version)
        .flat_map(|one| &one.files)
        .find(|file| {
            (file.os.as_str(), file.arch.as_str(), file.kind.as_str()) == ("linux", "amd64", "archive")
        })
        .ok_or_else(|| anyhow!("Go {version} has no archive for Linux on x86-64"))?;
    Ok(Found {
        item: runtime("go", 1)?,
        version: version.to_owned(),
        url: web.url("go", &format!("dl/{}", file.filename))?,
        file_name: file.filename.clone(),
        size: Some(file.size),
        checksum: Some(Checksum::new(Algorithm::Sha256, &file.sha256)?),
    })
}
