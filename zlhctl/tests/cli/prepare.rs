//! `import --prepare` with launchers and installers of our own: a small jar that does what
//! each of them does, or one of the things that can go wrong.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Command;

use zlh_catalog::{Catalog, GameVersion, MediaType};

use crate::import::{Bench, CASES, Case, Publisher};

/// Whether there is a JDK; CI has one.
fn has_jdk() -> bool {
    let there = ["javac", "jar"].iter().all(|tool| Path::new("/usr/bin").join(tool).exists());
    if !there {
        #[allow(clippy::print_stdout, reason = "why it proves nothing here")]
        {
            println!("skipped: no javac and jar in /usr/bin");
        }
    }
    there
}

/// The jar, as it behaves in each mode.
struct Jars {
    folder: tempfile::TempDir,
}

impl Jars {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("Fake.java"), include_str!("../data/Fake.java")).unwrap();
        let jars = Self { folder };
        jars.tool("javac", &["-d", "classes", "Fake.java"]);
        jars
    }

    fn tool(&self, tool: &str, args: &[&str]) {
        let made = Command::new(tool).args(args).current_dir(self.folder.path()).output().unwrap();
        assert!(made.status.success(), "{tool}: {}", String::from_utf8_lossy(&made.stderr));
    }

    fn get(&self, mode: &str) -> Vec<u8> {
        fs::write(self.folder.path().join("mode"), mode).unwrap();
        self.tool("jar", &["cfe", "out.jar", "Fake", "-C", "classes", "Fake.class", "mode"]);
        fs::read(self.folder.path().join("out.jar")).unwrap()
    }
}

fn entry<'a>(catalog: &'a Catalog, case: &Case) -> &'a GameVersion {
    let version = case.entry.split_once(' ').unwrap().1;
    catalog.game_version("minecraft", case.name, version).unwrap()
}

fn argv(entry: &GameVersion) -> Vec<&str> {
    entry.launch.as_ref().unwrap().argv.iter().map(zlh_catalog::Template::as_str).collect()
}

/// The packed tree.
fn unpacked(archive: &Path) -> BTreeMap<String, Vec<u8>> {
    fn walk(root: &Path, folder: &Path, out: &mut BTreeMap<String, Vec<u8>>) {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                walk(root, &path, out);
            } else {
                out.insert(path.strip_prefix(root).unwrap().display().to_string(), fs::read(&path).unwrap());
            }
        }
    }
    let folder = tempfile::tempdir().unwrap();
    let limits = zlh_artifacts::Limits::default();
    let mut go_on = |_| std::ops::ControlFlow::Continue(());
    zlh_artifacts::unpack(archive, MediaType::TarZst, folder.path(), 0, &limits, &mut go_on).unwrap();
    let mut out = BTreeMap::new();
    walk(folder.path(), folder.path(), &mut out);
    out
}

/// What servers of each kind are run from, and how.
fn expected(name: &str) -> (&'static [&'static str], &'static [&'static str]) {
    match name {
        "paper" | "purpur" => (
            &["cache/mojang.jar", "libraries/a/a.jar", "server.jar", "versions/1.21.7/paper.jar"],
            &["-DbundlerRepoDir={server}", "-jar", "{server}/server.jar", "nogui"],
        ),
        "fabric" => (
            &[
                ".fabric/server/1.21.7-server.jar",
                ".fabric/server/launch/META-INF/MANIFEST.MF",
                ".fabric/server/launch/fabric-server-launch.properties",
                ".fabric/server/libraries/a.jar",
                "libraries/a/a.jar",
                "versions/1.21.7/server.jar",
            ],
            &[
                "-DbundlerRepoDir={server}",
                "-Dfabric.gameJarPath={server}/.fabric/server/1.21.7-server.jar",
                "-cp",
                "{server}/.fabric/server/launch:{server}/.fabric/server/libraries/a.jar",
                "net.fabricmc.loader.impl.launch.server.FabricServerLauncher",
                "nogui",
            ],
        ),
        "forge" => (
            &[
                "forge-1.21.7-57.0.2-shim.jar",
                "libraries/a/a.jar",
                "libraries/net/minecraftforge/forge/1.21.7-57.0.2/unix_args.txt",
            ],
            &[
                "-Djava.net.preferIPv6Addresses=system",
                "-cp",
                "{server}/libraries/a/a.jar",
                "net.minecraftforge.bootstrap.ForgeBootstrap",
                "--launchTarget",
                "forge_server",
                "nogui",
            ],
        ),
        _ => (
            &["libraries/a/a.jar", "libraries/net/neoforged/neoforge/21.1.193/unix_args.txt"],
            &[
                "-DlibraryDirectory={server}/libraries",
                "-p",
                "{server}/libraries/a/a.jar",
                "--add-opens",
                "java.base/java.util.jar=x",
                "x.BootstrapLauncher",
                "nogui",
            ],
        ),
    }
}

#[tokio::test]
async fn what_fetches_further_files_is_run_once_and_pinned() {
    if !has_jdk() {
        return;
    }
    let jars = Jars::new();
    for case in &CASES[2..7] {
        let mode = if case.name == "neoforge" { case.name } else { "good" };
        let publisher = Publisher::with(case, jars.get(mode)).await;
        let mut hashes = Vec::new();
        for _ in 0..2 {
            let bench = Bench::new().await;
            let ran = bench.import(case, &publisher, &["java@21", case.ask, "--prepare"]).await;
            assert_eq!(ran.code, 0, "{}: {}", case.name, ran.err);
            let catalog = bench.catalog();
            catalog.validate().unwrap();
            let entry = entry(&catalog, case);
            let [file] = entry.files.as_slice() else { panic!("{entry:?}") };
            assert!(!entry.fetches_upstream && file.media_type == MediaType::TarZst, "{file:?}");
            assert_eq!(entry.requires.as_ref().unwrap().runtime.as_str(), "java");
            let archive = bench.path("store").join(file.path.as_str());
            let (paths, words) = expected(case.name);
            let tree = unpacked(&archive);
            assert_eq!(tree.keys().map(String::as_str).collect::<Vec<_>>(), paths, "{}", case.name);
            let all = [&["{exec:java}", "-Xms256M", "-Xmx{heap_mb}M"][..], words].concat();
            assert_eq!(argv(entry), all, "{}", case.name);
            hashes.push((file.sha256, file.tree_sha256.unwrap()));
            let verified = bench.run(&["artifacts", "verify", "store"]).await;
            assert_eq!(verified.code, 0, "{} {}", verified.out, verified.err);
            let again = bench.import(case, &publisher, &[case.ask, "--prepare"]).await;
            assert!(again.code == 0 && again.out.contains("unchanged"), "{} {}", again.out, again.err);
            // Plain, it is another file.
            let plain = bench.import(case, &publisher, &[case.ask]).await;
            assert!(plain.code == 1 && plain.err.contains("--replace"), "{}", plain.err);
        }
        assert_eq!(hashes[0], hashes[1], "{}: the same files give the same archive", case.name);
    }
}

#[tokio::test]
async fn a_run_that_goes_wrong_leaves_the_store_as_it_was() {
    if !has_jdk() {
        return;
    }
    let jars = Jars::new();
    let bench = Bench::new().await;
    assert_eq!(bench.import(&CASES[0], &bench.java, &["java@21"]).await.code, 0);
    let before = bench.store();
    let forge = &CASES[5];
    for (mode, more, expected) in [
        ("fail", &[][..], "failed with exit status: 3; it said: first words / last words"),
        ("nothing", &[], "made no further files"),
        ("no-args", &[], "made no `libraries/net/minecraftforge/forge/1.21.7-57.0.2/unix_args.txt`"),
        ("missing", &[], "made no `libraries/gone.jar`, which its own arguments name"),
        ("link", &[], "cannot pack"),
        ("hang", &["--prepare-timeout", "20s"], "was not done after 20s; it said: hanging"),
        ("good", &["--java", "/nowhere/java"], "cannot run `/nowhere/java`"),
    ] {
        let publisher = Publisher::with(forge, jars.get(mode)).await;
        let ran = bench.import(forge, &publisher, &[&[forge.ask, "--prepare"][..], more].concat()).await;
        assert!(
            ran.code == 1 && ran.err.contains(expected) && ran.err.contains("cannot prepare"),
            "{mode}: {}",
            ran.err
        );
        assert_eq!(bench.store(), before, "{mode}");
    }
    let nothing = bench.import(forge, &Publisher::start(forge).await, &[forge.ask, "--java", "java"]).await;
    assert_eq!(nothing.code, 2, "--java is for --prepare: {}", nothing.err);
}
