//! Python, .NET and code-server.

use anyhow::{Context, Result, anyhow};
use serde::Deserialize;
use zlh_catalog::Id;

use super::checksum::{Algorithm, Checksum};
use super::{Found, Wanted, Web, file_name, runtime};
use crate::depot::{Item, known_programs};
use crate::exit::Hint;

/// A release as GitHub's API tells it.
#[derive(Deserialize)]
struct Release {
    tag_name: String,
    #[serde(default)]
    prerelease: bool,
    assets: Vec<Asset>,
}

#[derive(Deserialize)]
struct Asset {
    name: String,
    size: u64,
    browser_download_url: String,
    /// `sha256:…`; of older releases there is none.
    #[serde(default)]
    digest: Option<String>,
}

/// python-build-standalone's `install_only` archives: the newest release that has the version.
pub(super) async fn python(web: &Web, wanted: Wanted<'_>) -> Result<Found> {
    let mut seen: Vec<String> = Vec::new();
    for page in 1..=MAX_PAGES {
        let path = format!("repos/astral-sh/python-build-standalone/releases?per_page=3&page={page}");
        let releases: Vec<Release> = web.json("python", &web.url("python", &path)?).await?;
        let last = releases.is_empty();
        for release in releases.iter().filter(|one| wanted.unstable || !one.prerelease) {
            let here: Vec<(&str, &Asset)> = release
                .assets
                .iter()
                .filter_map(|asset| Some((python_version(&asset.name, &release.tag_name)?, asset)))
                .collect();
            seen.extend(here.iter().map(|(version, _)| (*version).to_owned()));
            let Ok(version) = wanted.choose(here.iter().map(|(version, _)| *version)) else { continue };
            let asset = here.iter().find(|(one, _)| *one == version).context("it was just there")?.1;
            let sums = release.assets.iter().find(|asset| asset.name == "SHA256SUMS");
            let sums = sums.ok_or_else(|| anyhow!("release {} has no SHA256SUMS", release.tag_name))?;
            let sums = web.text("python", &sums.browser_download_url).await?;
            return Ok(Found {
                item: runtime("python", 1)?,
                version: version.to_owned(),
                url: asset.browser_download_url.clone(),
                file_name: asset.name.clone(),
                size: Some(asset.size),
                checksum: Some(Checksum::in_list(Algorithm::Sha256, &sums, &asset.name)?),
            });
        }
        if last {
            break;
        }
    }
    wanted.choose(seen.iter().map(String::as_str))?;
    Err(anyhow!("the publisher has no such version"))
}

/// `3.13.7` of `cpython-3.13.7+20250818-x86_64-unknown-linux-gnu-install_only.tar.gz`.
fn python_version<'a>(name: &'a str, tag: &str) -> Option<&'a str> {
    let version = name
        .strip_prefix("cpython-")?
        .strip_suffix("-x86_64-unknown-linux-gnu-install_only.tar.gz")?
        .strip_suffix(tag)?
        .strip_suffix('+')?;
    // `3.14.0rc2` is none that is stable.
    version.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.').then_some(version)
}

#[derive(Deserialize)]
struct DotnetIndex {
    #[serde(rename = "releases-index")]
    channels: Vec<DotnetChannel>,
}

#[derive(Deserialize)]
struct DotnetChannel {
    #[serde(rename = "channel-version")]
    version: String,
    #[serde(rename = "support-phase")]
    phase: String,
    #[serde(rename = "releases.json")]
    url: String,
}

#[derive(Deserialize)]
struct DotnetReleases {
    releases: Vec<DotnetRelease>,
}

#[derive(Deserialize)]
struct DotnetRelease {
    sdk: DotnetSdk,
    #[serde(default)]
    sdks: Option<Vec<DotnetSdk>>,
}

#[derive(Deserialize)]
struct DotnetSdk {
    version: String,
    files: Vec<DotnetFile>,
}

#[derive(Deserialize)]
struct DotnetFile {
    name: String,
    #[serde(default)]
    rid: Option<String>,
    url: String,
    hash: String,
}

/// The SDK of a channel: `9.0`, or an SDK's own version such as `9.0.304`.
pub(super) async fn dotnet(web: &Web, wanted: Wanted<'_>) -> Result<Found> {
    let url = web.url("dotnet", "dotnet/release-metadata/releases-index.json")?;
    let index: DotnetIndex = web.json("dotnet", &url).await?;
    let channel = match wanted.version {
        None => {
            let stable = |one: &&DotnetChannel| {
                wanted.unstable || matches!(one.phase.as_str(), "active" | "maintenance")
            };
            wanted.choose(index.channels.iter().filter(stable).map(|one| one.version.as_str()))?
        }
        Some(version) => {
            let line: Vec<&str> = version.split('.').take(2).collect();
            let line = line.join(".");
            Wanted { version: Some(&line), ..wanted }
                .choose(index.channels.iter().map(|one| one.version.as_str()))?
        }
    };
    let channel = index.channels.iter().find(|one| one.version == channel).context("it was just there")?;
    let document: DotnetReleases = web.json("dotnet", &channel.url).await?;
    let sdks: Vec<&DotnetSdk> = document
        .releases
        .iter()
        .flat_map(|release| std::iter::once(&release.sdk).chain(release.sdks.iter().flatten()))
        .filter(|sdk| wanted.unstable || !sdk.version.contains('-') || wanted.version == Some(&sdk.version))
        .collect();
    let version = wanted.choose(sdks.iter().map(|sdk| sdk.version.as_str()))?;
    let file = sdks
        .iter()
        .filter(|sdk| sdk.version == version)
        .flat_map(|sdk| &sdk.files)
        .find(|file| file.rid.as_deref() == Some("linux-x64") && file.name.ends_with(".tar.gz"))
        .ok_or_else(|| anyhow!(".NET SDK {version} has no .tar.gz for Linux on x86-64"))?;
    Ok(Found {
        item: runtime("dotnet", 0)?,
        version: version.to_owned(),
        url: file.url.clone(),
        file_name: file_name(&file.url),
        size: None,
        checksum: Some(Checksum::new(Algorithm::Sha512, &file.hash)?),
    })
}

/// code-server's release for Linux on x86-64.
pub(super) async fn code_server(web: &Web, wanted: Wanted<'_>) -> Result<Found> {
    let path = "repos/coder/code-server/releases?per_page=30";
    let all: Vec<Release> = web.json("code-server", &web.url("code-server", path)?).await?;
    let bare = |one: &Release| one.tag_name.trim_start_matches('v').to_owned();
    let versions: Vec<String> =
        all.iter().filter(|one| wanted.unstable || !one.prerelease).map(bare).collect();
    let version = wanted.choose(versions.iter().map(String::as_str))?;
    let name = format!("code-server-{version}-linux-amd64.tar.gz");
    let asset = all
        .iter()
        .filter(|one| bare(one) == version)
        .flat_map(|one| &one.assets)
        .find(|asset| asset.name == name)
        .ok_or_else(|| anyhow!("release {version} has no `{name}`"))?;
    let digest = asset.digest.as_deref().and_then(|digest| digest.strip_prefix("sha256:"));
    let digest = digest
        .ok_or_else(|| anyhow!("release {version} states no SHA-256 of `{name}`"))
        .hint("take a newer one, or fetch it yourself and `zlhctl artifacts add` it")?;
    let id = "code-server";
    Ok(Found {
        item: Item::Addon { id: Id::new(id)?, strip: 1, programs: known_programs(id).into_iter().collect() },
        version: version.to_owned(),
        url: asset.browser_download_url.clone(),
        file_name: name,
        size: Some(asset.size),
        checksum: Some(Checksum::new(Algorithm::Sha256, digest)?),
    })
}

const MAX_PAGES: u32 = 10;
