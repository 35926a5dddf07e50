//! The artifact servers that were there before the catalog: which paths their files have, and
//! the list `_catalog.json`, which names versions and pins nothing.

use serde::Deserialize;

use crate::validate::{MAX_BYTES, SCHEMA};
use crate::{
    Artifact, Catalog, CatalogError, Game, GameVersion, Id, MediaType, RelPath, Release, Runtime,
    RuntimeVersion, Sha256, Variant,
};

/// Where the list lies.
pub const LIST: &str = "_catalog.json";

/// The name of a variant's file.
pub fn server_file(variant: &str) -> Option<&'static str> {
    match variant {
        "vanilla" | "paper" | "purpur" => Some("server.jar"),
        "fabric" => Some("fabric-server.jar"),
        "forge" => Some("forge-installer.jar"),
        "neoforge" => Some("neoforge-installer.jar"),
        _ => None,
    }
}

/// Variants whose launchers and installers fetch further files by themselves.
pub fn fetches_upstream(variant: &str) -> bool {
    matches!(variant, "paper" | "purpur" | "fabric" | "forge" | "neoforge")
}

/// Path of a Java, by its version or its major version.
pub fn java_archive(version: &str) -> String {
    format!("java/{version}/OpenJDK{version}.tar.gz")
}

#[derive(Deserialize)]
struct List {
    games: Vec<ListedGame>,
}

#[derive(Deserialize)]
struct ListedGame {
    id: Id,
    variants: Vec<ListedVariant>,
}

#[derive(Deserialize)]
struct ListedVariant {
    id: Id,
    versions: Vec<String>,
}

impl Catalog {
    /// What a list offers, at the paths it has there. **It pins nothing**: all sizes and
    /// hashes are placeholders that no file matches, and serial and date say nothing.
    /// Variants without a built-in launch plan are left out: nobody says how they are run.
    pub fn from_list(bytes: &[u8]) -> Result<Self, CatalogError> {
        if bytes.len() > MAX_BYTES {
            return Err(CatalogError::TooLarge { bytes: bytes.len() });
        }
        let list: List = serde_json::from_slice(bytes).map_err(CatalogError::Malformed)?;
        let games = list.games.into_iter().map(|game| {
            let variants = game.variants.into_iter().filter_map(|variant| {
                let name = server_file(variant.id.as_str())?;
                let versions = variant.versions.into_iter().filter_map(|version| {
                    let path = format!("{}/{}/{version}/{name}", game.id, variant.id);
                    Some(GameVersion {
                        files: vec![placeholder(&path, MediaType::Jar)?],
                        requires: None,
                        launch: None,
                        stop: None,
                        fetches_upstream: fetches_upstream(variant.id.as_str()),
                        release: Release::default(),
                        version,
                    })
                });
                Some(Variant { versions: versions.collect(), id: variant.id, name: None })
            });
            Game { variants: variants.collect(), id: game.id, name: None }
        });
        let catalog = Self {
            schema: SCHEMA,
            serial: 0,
            issued: jiff::Timestamp::UNIX_EPOCH,
            expires: None,
            games: games.collect(),
            runtimes: java().into_iter().collect(),
            addons: Vec::new(),
            agents: Vec::new(),
        };
        catalog.validate()?;
        Ok(catalog)
    }
}

/// The list names no Java; which of them are there shows when one is fetched.
fn java() -> Option<Runtime> {
    let versions = JAVA.iter().filter_map(|version| {
        Some(RuntimeVersion {
            version: (*version).to_owned(),
            archive: placeholder(&java_archive(version), MediaType::TarGz)?,
            strip_components: 1,
            executables: [(Id::new("java").ok()?, RelPath::new("bin/java").ok()?)].into(),
            release: Release::default(),
        })
    });
    Some(Runtime { id: Id::new("java").ok()?, name: None, versions: versions.collect() })
}

/// `None` for what cannot be a path: such a version is none.
fn placeholder(path: &str, media_type: MediaType) -> Option<Artifact> {
    Some(Artifact {
        name: Id::new("server").ok()?,
        path: RelPath::new(path).ok()?,
        size: 1,
        sha256: Sha256::from_bytes([0; 32]),
        media_type,
        tree_sha256: None,
    })
}

/// Major versions that Minecraft wants or people configure.
const JAVA: [&str; 6] = ["8", "11", "16", "17", "21", "25"];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Audience;

    const DEPLOYED: &str = r#"{"games":[{"id":"minecraft","variants":[
        {"id":"paper","versions":["1.21.7","1.16.5"]},
        {"id":"vanilla","versions":["26.1"]},
        {"id":"terraria","versions":["1"]}]}]}"#;

    #[test]
    fn a_deployed_list_offers_what_lies_at_the_deployed_paths() {
        let catalog = Catalog::from_list(DEPLOYED.as_bytes()).unwrap();
        for (variant, version, java) in
            [("paper", "1.21.7", "21"), ("paper", "1.16.5", "17"), ("vanilla", "26.1", "25")]
        {
            let entry = catalog.game_version("minecraft", variant, version).unwrap();
            assert_eq!(entry.files[0].path.as_str(), format!("minecraft/{variant}/{version}/server.jar"));
            let wanted = catalog.requirement_for(&Id::new(variant).unwrap(), entry).unwrap();
            let (_, found) = catalog.runtime_for(&wanted, &Audience::default()).unwrap();
            assert_eq!(found.archive.path.as_str(), format!("java/{java}/OpenJDK{java}.tar.gz"));
        }
        let error = catalog.game_version("minecraft", "terraria", "1").unwrap_err().to_string();
        assert!(error.contains("unknown variant `terraria`"), "{error}");
    }

    #[test]
    fn a_list_that_says_nothing_or_too_much_is_refused() {
        for (bad, why) in [
            ("[]", "could not be read"),
            (r#"{"games":[{"id":"../x","variants":[]}]}"#, "could not be read"),
            (
                r#"{"games":[{"id":"minecraft","variants":[{"id":"paper","versions":["latest"]}]}]}"#,
                "`latest` is not a version",
            ),
            (
                r#"{"games":[{"id":"minecraft","variants":[{"id":"paper","versions":["1","1"]}]}]}"#,
                "there twice",
            ),
        ] {
            let error = Catalog::from_list(bad.as_bytes()).unwrap_err().to_string();
            assert!(error.contains(why), "{bad}: {error}");
        }
        let odd = r#"{"games":[{"id":"minecraft","variants":[{"id":"paper","versions":["../../x"]}]}]}"#;
        let catalog = Catalog::from_list(odd.as_bytes()).unwrap();
        assert!(catalog.game_version("minecraft", "paper", "../../x").is_err(), "it is no version");
        assert!(Catalog::from_list(&vec![b' '; MAX_BYTES + 1]).is_err());
    }
}
