//! Mod loaders: Fabric's launcher, and the installers of Forge and NeoForge.

use anyhow::{Context, Result, anyhow};
use serde::Deserialize;
use zlh_catalog::compare_versions;

use super::checksum::{Algorithm, Checksum};
use super::{Found, Wanted, Web, server};
use crate::exit::Hint;

#[derive(Deserialize)]
struct FabricVersion {
    version: String,
    stable: bool,
}

/// The launcher for a Minecraft version, with the newest stable loader and installer. It is
/// made on demand, and there is no checksum of it.
pub(super) async fn fabric(web: &Web, wanted: Wanted<'_>) -> Result<Found> {
    let list = async |what: &str| -> Result<Vec<FabricVersion>> {
        web.json("fabric", &web.url("fabric", &format!("v2/versions/{what}"))?).await
    };
    let games = list("game").await?;
    let named = |one: &&FabricVersion| wanted.version == Some(one.version.as_str());
    let games = games.iter().filter(|one| wanted.unstable || one.stable || named(one));
    let version = wanted.choose(games.map(|one| one.version.as_str()))?;
    let newest = async |what: &str| -> Result<String> {
        let all = list(what).await?;
        let stable = all.into_iter().filter(|one| one.stable).map(|one| one.version);
        stable.max_by(|a, b| compare_versions(a, b)).with_context(|| format!("Fabric has no stable {what}"))
    };
    let (loader, installer) = (newest("loader").await?, newest("installer").await?);
    Ok(Found {
        item: server("fabric")?,
        version: version.to_owned(),
        url: web.url("fabric", &format!("v2/versions/loader/{version}/{loader}/{installer}/server/jar"))?,
        file_name: format!("fabric-server-mc.{version}-loader.{loader}-launcher.{installer}.jar"),
        size: None,
        checksum: None,
    })
}

/// Forge's and NeoForge's Maven repositories. A Minecraft version means its newest loader;
/// the catalog's version is the loader's full one, by which the installer names its files.
pub(super) async fn maven(web: &Web, wanted: Wanted<'_>) -> Result<Found> {
    let name = wanted.name;
    let (group, artifact) = match name {
        "forge" => ("net/minecraftforge/forge", "forge"),
        _ => ("net/neoforged/neoforge", "neoforge"),
    };
    let url = web.url(name, &format!("{group}/maven-metadata.xml"))?;
    let all = versions(&web.text(name, &url).await?).with_context(|| format!("`{url}`"))?;
    let is_stable = |version: &&String| {
        wanted.unstable || wanted.version == Some(version.as_str()) || !is_preview(version)
    };
    let all: Vec<&str> = all.iter().filter(is_stable).map(String::as_str).collect();
    let version = match (name, wanted.version) {
        ("forge", Some(minecraft)) if !all.contains(&minecraft) => {
            let line = format!("{minecraft}-");
            let of_it: Vec<&str> = all.iter().filter(|one| one.starts_with(&line)).copied().collect();
            match of_it.is_empty() {
                true => wanted.choose(all)?,
                false => Wanted { version: None, ..wanted }.choose(of_it)?,
            }
        }
        ("neoforge", Some(minecraft)) if !all.contains(&minecraft) => {
            // 1.21.1 is the line 21.1, 1.21 is 21.0; since 26.1 Minecraft's number is its own.
            let line = match minecraft.strip_prefix("1.") {
                Some(line) if line.contains('.') => line.to_owned(),
                Some(line) => format!("{line}.0"),
                None => minecraft.to_owned(),
            };
            Wanted { version: Some(&line), ..wanted }.choose(all)?
        }
        _ => wanted.choose(all)?,
    };
    let file_name = format!("{artifact}-{version}-installer.jar");
    let url = web.url(name, &format!("{group}/{version}/{file_name}"))?;
    let checksum = match web.text_if_any(name, &format!("{url}.sha256")).await? {
        Some(text) => Checksum::new(Algorithm::Sha256, &text)?,
        None => {
            let text = web.text_if_any(name, &format!("{url}.sha1")).await?;
            let text = text
                .ok_or_else(|| anyhow!("there is no installer of {name} {version}, or no checksum of it"))
                .hint("versions for Minecraft 1.16 and older had other files; take a newer one")?;
            Checksum::new(Algorithm::Sha1, &text)?
        }
    };
    Ok(Found {
        item: server(name)?,
        version: version.to_owned(),
        url,
        file_name,
        size: None,
        checksum: Some(checksum),
    })
}

fn is_preview(version: &str) -> bool {
    ["-beta", "-alpha", "-snapshot", "-pre", "-rc", "craftmine"].iter().any(|word| version.contains(word))
}

/// The versions of a maven-metadata.xml, which is flat and has no attributes.
fn versions(xml: &str) -> Result<Vec<String>> {
    let body = xml
        .split_once("<metadata")
        .and_then(|(_, rest)| rest.split_once("</metadata>"))
        .map(|(body, _)| body)
        .context("it is no maven-metadata.xml, or only a part of one")?;
    let versions = body.split("<version>").skip(1).filter_map(|part| part.split_once("</version>"));
    let versions: Vec<String> = versions.map(|(version, _)| version.trim().to_owned()).collect();
    anyhow::ensure!(!versions.is_empty(), "it lists no versions");
    Ok(versions)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metadata() {
        let xml = "<?xml version=\"1.0\"?><metadata>\n<versioning><latest>2</latest><versions>\
                   <version>1</version>\n<version>2</version></versions></versioning></metadata>";
        assert_eq!(versions(xml).unwrap(), ["1", "2"]);
        for bad in ["", "<html><version>1</version></html>", &xml[..80], "<metadata></metadata>"] {
            assert!(versions(bad).is_err(), "{bad}");
        }
    }
}
