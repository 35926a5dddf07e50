//! Launch plans for the deployed Minecraft variants, for catalogs that bring none; and how the
//! programs of usual runtimes are tried.
//!
//! File names are those of the deployed artifact server. Paper, purpur, fabric, forge
//! and neoforge fetch further files by themselves unless a catalog entry was prepared
//! (`fetches_upstream` says which). The forge plans need installers of Minecraft 1.17
//! or later, and an entry whose version is the loader's full one (`1.20.1-47.4.0`,
//! `21.1.77`), because that is how the installer names the directory of its arguments
//! file; entries that are labelled otherwise bring their own plan.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use crate::version::is_snapshot;
use crate::{Id, LaunchPlan, Requirement, VersionRange, compare_versions};

/// How a program is asked for its version, by which it shows that it runs at all.
pub fn version_arguments(program: &str) -> &'static [&'static str] {
    match program {
        // What Java 8 understands, too.
        "java" | "javac" => &["-version"],
        "go" => &["version"],
        // It knows none; without input it has nothing to format.
        "gofmt" => &["-l"],
        _ => &["--version"],
    }
}

/// The built-in plan of a variant.
pub(crate) fn plan(variant: &str) -> Option<&'static LaunchPlan> {
    PLANS.get(variant)
}

/// What a built-in plan needs to run: Java, as the Minecraft version asks for it.
///
/// From the `javaVersion` that the launcher's version files name: 8 up to 1.16, 16 for
/// 1.17, 17 from 1.18, 21 from 1.20.5, 25 from 26.1. Versions up to 1.16 run on 17,
/// which is what is deployed for them.
pub(crate) fn requirement(variant: &str, version: &str) -> Option<Requirement> {
    plan(variant)?;
    let minecraft = minecraft_version(variant, version);
    let range = JAVA_BY_MINECRAFT
        .iter()
        .find(|(release, snapshot, _)| {
            let since = if is_snapshot(&minecraft) { snapshot } else { release };
            compare_versions(&minecraft, since).is_ge()
        })
        .map_or(OLDEST_JAVA, |(_, _, range)| range);
    Some(Requirement { runtime: Id::new("java").ok()?, version: VersionRange::parse(range).ok()? })
}

/// The Minecraft version behind a loader's: forge writes it first, neoforge leaves out
/// the leading `1.` as long as Minecraft has one.
fn minecraft_version(variant: &str, version: &str) -> String {
    match variant {
        "neoforge" => {
            let major: u32 = version.split('.').next().and_then(|part| part.parse().ok()).unwrap_or(0);
            if (20..26).contains(&major) { format!("1.{version}") } else { version.to_owned() }
        }
        "forge" => version.split('-').next().unwrap_or(version).to_owned(),
        _ => version.to_owned(),
    }
}

static PLANS: LazyLock<BTreeMap<&'static str, LaunchPlan>> = LazyLock::new(|| {
    SOURCES
        .iter()
        .map(|(variant, source)| {
            let plan = serde_json::from_str(source)
                .unwrap_or_else(|error| unreachable!("the built-in plan of {variant}: {error}"));
            (*variant, plan)
        })
        .collect()
});

const SOURCES: [(&str, &str); 6] = [
    ("vanilla", include_str!("builtin/jar.json")),
    ("paper", include_str!("builtin/jar.json")),
    ("purpur", include_str!("builtin/jar.json")),
    ("fabric", include_str!("builtin/fabric.json")),
    ("forge", include_str!("builtin/forge.json")),
    ("neoforge", include_str!("builtin/neoforge.json")),
];

/// Newest first: from this release or this weekly snapshot on, this Java. There are no
/// weekly snapshots since 26.1.
const JAVA_BY_MINECRAFT: [(&str, &str, &str); 3] =
    [("26", "99w", ">=25"), ("1.20.5-experimental", "24w14a", "21"), ("1.17-experimental", "21w19a", "17")];
const OLDEST_JAVA: &str = ">=8 <18";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check_plan::{Context, check_plan};
    use crate::{Artifact, FileFormat, InstallStep, MediaType, RelPath, RuntimeVersion, Sha256, Values};

    const VARIANTS: [&str; 6] = ["vanilla", "paper", "purpur", "fabric", "forge", "neoforge"];

    fn file(name: &str, media_type: MediaType) -> Artifact {
        Artifact {
            name: Id::new(name).unwrap(),
            path: RelPath::new("x").unwrap(),
            size: 1,
            sha256: Sha256::from_bytes([0; 32]),
            media_type,
            tree_sha256: None,
        }
    }

    fn argv(variant: &str, version: &str) -> Vec<String> {
        let values = Values {
            executables: [(Id::new("java").unwrap(), "/rt/java/bin/java".into())].into(),
            root: Some("/game".into()),
            version: Some(version.into()),
            port: Some(25565),
            heap_mb: Some(1536),
            ..Values::default()
        };
        plan(variant).unwrap().argv.iter().map(|template| template.expand(&values).unwrap()).collect()
    }

    #[test]
    fn every_variant_has_a_plan_that_works_with_a_single_file_and_java() {
        let runtime = RuntimeVersion {
            version: "21".into(),
            archive: file("server", MediaType::TarGz),
            strip_components: 1,
            executables: [(Id::new("java").unwrap(), RelPath::new("bin/java").unwrap())].into(),
            release: crate::Release::default(),
        };
        let files = [file("server", MediaType::Jar)];
        for variant in VARIANTS {
            let context = Context { files: &files, runtime: Some(&runtime) };
            assert_eq!(check_plan(plan(variant).unwrap(), &context), [""; 0], "{variant}");
        }
        assert_eq!(PLANS.len(), VARIANTS.len());
        assert_eq!(plan("spigot"), None);
    }

    #[test]
    fn commands() {
        for variant in ["vanilla", "paper", "purpur"] {
            assert_eq!(
                argv(variant, "1.21.7"),
                ["/rt/java/bin/java", "-Xms256M", "-Xmx1536M", "-jar", "server.jar", "nogui"]
            );
        }
        assert_eq!(argv("fabric", "1.21.7")[4], "fabric-server.jar");
        let args = "@libraries/net/minecraftforge/forge/1.20.1-47.4.0/unix_args.txt";
        assert_eq!(
            argv("forge", "1.20.1-47.4.0")[1..],
            ["@user_jvm_args.txt", "-Xms256M", "-Xmx1536M", args, "nogui"]
        );
        let args = "@libraries/net/neoforged/neoforge/21.1.77/unix_args.txt";
        assert_eq!(argv("neoforge", "21.1.77")[4], args);
    }

    #[test]
    fn all_of_them_stop_save_and_answer_alike() {
        for variant in VARIANTS {
            let plan = plan(variant).unwrap();
            assert_eq!(plan.stop.command.as_deref(), Some("stop"), "{variant}");
            let save = plan.save.as_ref().unwrap();
            assert_eq!(
                (save.off.as_str(), save.flush.as_str(), save.on.as_str()),
                ("save-off", "save-all flush", "save-on")
            );
            let eula = plan.files.iter().find(|rule| rule.path == "eula.txt").unwrap();
            assert!(eula.needs_eula, "{variant} must not accept the EULA for the operator");
            let properties = plan.files.iter().find(|rule| rule.path == "server.properties").unwrap();
            assert_eq!(properties.format, FileFormat::Properties);
            assert_eq!(properties.set["server-port"].as_str(), "{port}");
            let modded = matches!(variant, "fabric" | "forge" | "neoforge");
            assert_eq!(plan.readiness.timeout_s, if modded { 600 } else { 60 }, "{variant}");
            let runs = plan.install.iter().any(|step| matches!(step, InstallStep::Run { .. }));
            assert_eq!(runs, matches!(variant, "forge" | "neoforge"), "{variant}");
        }
    }

    #[test]
    fn each_family_has_the_time_it_needs_to_save() {
        let table = [
            ("vanilla", 90, 20, 600),
            ("paper", 90, 20, 600),
            ("purpur", 90, 20, 600),
            ("fabric", 90, 20, 600),
            ("forge", 120, 30, 900),
            ("neoforge", 120, 30, 900),
        ];
        for (variant, grace, term, cap) in table {
            let stop = &plan(variant).unwrap().stop;
            assert_eq!((stop.grace_s, stop.term_s, stop.cap_s), (grace, term, cap), "{variant}");
            assert!(stop.warn.is_empty(), "{variant}: a deployed stop does not wait for words");
        }
    }

    #[test]
    fn java_follows_minecraft() {
        let table = [
            ("vanilla", "1.8.9", ">=8 <18"),
            ("paper", "1.16.5", ">=8 <18"),
            ("vanilla", "1.17", "17"),
            ("paper", "1.17.1", "17"),
            ("vanilla", "1.18-pre1", "17"),
            ("paper", "1.20.4", "17"),
            ("paper", "1.20.5", "21"),
            ("vanilla", "1.20.5-rc1", "21"),
            ("paper", "1.20.6", "21"),
            ("purpur", "1.21.10", "21"),
            ("vanilla", "26.1", ">=25"),
            ("vanilla", "26.1-snapshot-1", ">=25"),
            ("forge", "1.20.1-47.4.0", "17"),
            ("forge", "1.21.1-52.0.1", "21"),
            ("neoforge", "20.4.237", "17"),
            ("neoforge", "20.6.119", "21"),
            ("neoforge", "21.1.77", "21"),
            ("neoforge", "26.1.0.3", ">=25"),
            ("neoforge", "1.21.1", "21"),
            ("vanilla", "24w14a", "21"),
            ("vanilla", "24w13a", "17"),
            ("vanilla", "20w51a", ">=8 <18"),
            ("vanilla", "25w46a", "21"),
        ];
        for (variant, version, expected) in table {
            assert_eq!(
                requirement(variant, version).unwrap().version.as_str(),
                expected,
                "{variant} {version}"
            );
        }
        assert_eq!(requirement("flying-squid", "1.18.2"), None);
    }
}
