use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::time::{Duration, Instant};

use ::zip::CompressionMethod;
use rustix::fs::{CWD, Mode};

use super::fixtures::{bukkit, cpu_time, fabric, jar, jar_by, put};
use super::*;
use crate::{AddonLoader, AddonLookup};

fn scan(root: &Path) -> AddonIndex {
    let mut index = AddonIndex::default();
    index.rescan(root, &Limits::default()).unwrap();
    index
}

fn owners(index: &AddonIndex, class: &str) -> Vec<String> {
    index.owners_of_package(class).into_iter().map(|addon| addon.id.clone()).collect()
}

fn why(index: &AddonIndex, file: &str) -> String {
    let notes = index.notes();
    notes
        .iter()
        .find(|note| note.file == file)
        .map_or_else(String::new, |note| format!("{} {}", note.broken, note.why))
}

#[test]
fn packages_have_owners_unless_two_jars_carry_them() {
    let dir = tempfile::tempdir().unwrap();
    let nested = jar(&[("fabric.mod.json", &fabric("inner", "3")), ("org/inner/A.class", b"")]);
    let library = jar(&[("org/library/A.class", b"")]);
    put(
        dir.path(),
        "mods/one-1.0.jar",
        &jar(&[
            ("fabric.mod.json", &fabric("one", "1.0")),
            ("com/one/One.class", b""),
            ("com/one/deep/Deep.class", b""),
            ("shaded/gson/Gson.class", b""),
            ("META-INF/versions/9/com/mr/X.class", b""),
            ("META-INF/jars/inner-3.jar", &nested),
            ("META-INF/jars/library.jar", &library),
        ]),
    );
    put(
        dir.path(),
        "mods/two.jar",
        &jar(&[
            ("fabric.mod.json", &fabric("two", "2")),
            ("com/two/Two.class", b""),
            ("shaded/gson/Gson.class", b""),
        ]),
    );
    put(
        dir.path(),
        "plugins/Three.jar",
        &jar(&[("plugin.yml", &bukkit("Three", "3")), ("com/three/T.class", b"")]),
    );
    put(dir.path(), "mods/unnamed-7.jar", &jar(&[("com/unnamed/U.class", b"")]));
    put(dir.path(), "mods/off.jar.disabled", &jar(&[("fabric.mod.json", &fabric("off", "1"))]));
    let index = scan(dir.path());
    assert_eq!(owners(&index, "com.one.One"), ["one"]);
    assert_eq!(owners(&index, "com.one.One$Inner"), ["one"]);
    assert_eq!(owners(&index, "com/one/deep/Deep$$Lambda/0x00007f"), ["one"]);
    assert_eq!(owners(&index, "com.one.deep.unknown.X"), [""; 0]);
    assert_eq!(owners(&index, "com.X"), [""; 0]);
    assert_eq!(owners(&index, "NoPackage"), [""; 0]);
    assert_eq!(owners(&index, "shaded.gson.Gson"), ["one", "two"]);
    assert_eq!(owners(&index, "org.inner.A"), ["inner"]);
    assert_eq!(owners(&index, "org.library.A"), [""; 0], "a library is nobody");
    assert_eq!(owners(&index, "com.mr.X"), [""; 0]);
    assert_eq!(owners(&index, "com.three.T"), ["Three"]);
    assert_eq!(owners(&index, "com.unnamed.U"), ["unnamed-7"]);
    let inner = &index.by_id("INNER")[0];
    assert_eq!(
        (inner.file.as_str(), inner.nested.as_deref()),
        ("mods/one-1.0.jar", Some("META-INF/jars/inner-3.jar"))
    );
    assert_eq!(index.by_id("The one")[0].id, "one", "by the name where no id fits");
    assert!(index.by_id("off").is_empty());
    assert_eq!(index.by_file("one-1.0.jar")[0].id, "one");
    assert_eq!(index.by_file("plugins/three.jar")[0].version.as_deref(), Some("3"));
    assert_eq!(index.by_file("inner-3.jar")[0].id, "inner");
    assert!(index.by_file("none.jar").is_empty());
    assert_eq!(index.main_of("mods/two.jar").unwrap().version.as_deref(), Some("2"));
    assert!(index.notes().is_empty(), "{:?}", index.notes());
}

#[test]
fn what_the_server_carries_itself_is_nobodys() {
    let dir = tempfile::tempdir().unwrap();
    let classes: &[(&str, &[u8])] = &[("com/google/gson/Gson.class", b""), ("io/netty/Netty.class", b"")];
    let mut mine = vec![("com/mine/A.class", &b""[..])];
    mine.extend(classes);
    put(dir.path(), "plugins/mine.jar", &jar(&mine));
    assert_eq!(owners(&scan(dir.path()), "com.google.gson.Gson"), ["mine"]);
    put(dir.path(), "libraries/com/google/code/gson/gson/2.10/gson-2.10.jar", &jar(&classes[..1]));
    put(dir.path(), "server.jar", &jar(&classes[1..]));
    let mut index = scan(dir.path());
    assert_eq!(owners(&index, "com.google.gson.Gson"), [""; 0]);
    assert_eq!(owners(&index, "io.netty.Netty"), [""; 0]);
    assert_eq!(owners(&index, "com.mine.A"), ["mine"]);
    assert_eq!(index.addons().count(), 1);
    assert!(index.by_file("gson-2.10.jar").is_empty() && index.by_file("server.jar").is_empty());
    assert_eq!(
        index.rescan(dir.path(), &Limits::default()).unwrap(),
        Scan { jars: 1, opened: 0, cut: false }
    );
}

#[test]
fn old_forge_keeps_mods_by_version() {
    let dir = tempfile::tempdir().unwrap();
    put(dir.path(), "mods/1.12.2/old.jar", &jar(&[("mcmod.info", br#"[{"modid":"old","version":"1"}]"#)]));
    put(dir.path(), "mods/other/no.jar", &jar(&[("mcmod.info", br#"[{"modid":"no","version":"1"}]"#)]));
    let index = scan(dir.path());
    assert_eq!(index.by_id("old")[0].file, "mods/1.12.2/old.jar");
    assert!(index.by_id("no").is_empty());
}

#[test]
fn a_jar_that_was_not_read_in_time_is_tried_again() {
    let dir = tempfile::tempdir().unwrap();
    let names: Vec<String> = (0..2_000).map(|at| format!("p{at}/A.class")).collect();
    let entries: Vec<(&str, &[u8])> = names.iter().map(|name| (name.as_str(), &b""[..])).collect();
    put(dir.path(), "mods/slow.jar", &jar(&entries));
    let mut index = AddonIndex::default();
    index.rescan(dir.path(), &Limits { jar_time: Duration::ZERO, ..Limits::default() }).unwrap();
    assert_eq!(why(&index, "mods/slow.jar"), "false it could not be read in time");
    assert_eq!(index.rescan(dir.path(), &Limits::default()).unwrap().opened, 1);
    assert_eq!(why(&index, "mods/slow.jar"), "");
    assert_eq!(owners(&index, "p7.A"), ["slow"]);
}

#[test]
fn of_several_manifests_the_one_of_the_loader_in_use_counts_and_once() {
    let dir = tempfile::tempdir().unwrap();
    let toml = b"[[mods]]\nmodId='both'\nversion='1-forge'\n";
    let multi = jar(&[("fabric.mod.json", &fabric("both", "1-fabric")), ("META-INF/mods.toml", toml)]);
    put(dir.path(), "mods/multi.jar", &multi);
    assert_eq!(scan(dir.path()).by_id("both")[0].loader, AddonLoader::Forge);
    put(dir.path(), "mods/a.jar", &jar(&[("fabric.mod.json", &fabric("a", "1"))]));
    let index = scan(dir.path());
    assert_eq!(index.by_id("both").len(), 1);
    assert_eq!(index.by_id("both")[0].version.as_deref(), Some("1-fabric"));
    put(dir.path(), "mods/copy.jar", &multi);
    assert_eq!(scan(dir.path()).by_id("both").len(), 2, "two jars are two answers");
}

#[test]
fn a_package_in_a_jar_of_several_mods_is_the_nearest_ones() {
    let dir = tempfile::tempdir().unwrap();
    let paper = b"name: A\nversion: 1\nmain: com.a.Main\n";
    let velocity = br#"{"id":"b","version":"1","main":"com.b.Main"}"#;
    let all = jar(&[
        ("plugin.yml", paper),
        ("velocity-plugin.json", velocity),
        ("com/a/Main.class", b""),
        ("com/b/x/Y.class", b""),
    ]);
    put(dir.path(), "plugins/all.jar", &all);
    let index = scan(dir.path());
    assert_eq!(owners(&index, "com.b.x.Y"), ["b"]);
    assert_eq!(owners(&index, "com.a.Z"), ["A"]);
}

#[test]
fn a_rescan_opens_only_what_changed_and_survives_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    for at in 0..5 {
        let id = format!("m{at}");
        put(dir.path(), &format!("mods/{id}.jar"), &jar(&[("fabric.mod.json", &fabric(&id, "1"))]));
    }
    let mut index = AddonIndex::default();
    assert_eq!(
        index.rescan(dir.path(), &Limits::default()).unwrap(),
        Scan { jars: 5, opened: 5, cut: false }
    );
    let kept = serde_json::to_string(&index).unwrap();
    let mut again: AddonIndex = serde_json::from_str(&kept).unwrap();
    assert_eq!(again, index);
    assert_eq!(again.rescan(dir.path(), &Limits::default()).unwrap().opened, 0);
    assert_eq!(again, index);
    put(dir.path(), "mods/m1.jar", &jar(&[("fabric.mod.json", &fabric("m1", "1.0.1"))]));
    fs::remove_file(dir.path().join("mods/m2.jar")).unwrap();
    assert_eq!(
        index.rescan(dir.path(), &Limits::default()).unwrap(),
        Scan { jars: 4, opened: 1, cut: false }
    );
    assert_eq!(index.by_id("m1")[0].version.as_deref(), Some("1.0.1"));
    assert!(index.by_id("m2").is_empty());
    let foreign = kept.replace("\"format\":1", "\"format\":0");
    assert_ne!(foreign, kept);
    let mut foreign: AddonIndex = serde_json::from_str(&foreign).unwrap();
    assert_eq!(foreign.rescan(dir.path(), &Limits::default()).unwrap().opened, 4);
}

#[test]
fn damaged_jars_are_facts() {
    let dir = tempfile::tempdir().unwrap();
    let good = jar(&[("plugin.yml", &bukkit("Good", "1")), ("a/B.class", &[7; 2_000])]);
    put(dir.path(), "plugins/good.jar", &good);
    put(dir.path(), "plugins/half.jar", &good[..good.len() / 2]);
    put(dir.path(), "plugins/empty.jar", b"");
    put(dir.path(), "plugins/text.jar", b"<html>404 not found</html>");
    let mut crc = jar_by(&[("plugin.yml", &bukkit("Flipped", "1"))], CompressionMethod::Stored);
    let at = crc.windows(7).position(|part| part == b"Flipped").unwrap();
    crc[at] ^= 1;
    put(dir.path(), "plugins/flipped.jar", &crc);
    put(dir.path(), "plugins/yml.jar", &jar(&[("plugin.yml", b"version: 1\n")]));
    let mut prefixed = b"#!/bin/sh\nexec java -jar \"$0\"\n".to_vec();
    prefixed.extend(&good);
    put(dir.path(), "plugins/prefixed.jar", &prefixed);
    put(dir.path(), "mods/old.jar", &jar(&[("mcmod.info", br#"[{"modid": "old" "name": "Old"}]"#)]));
    let two: &[(&str, &[u8])] = &[("plugin.yml", b"name: Two\nversion: 1\n"), ("velocity-plugin.json", b"{")];
    put(dir.path(), "plugins/two.jar", &jar(two));
    let index = scan(dir.path());
    assert!(why(&index, "mods/old.jar").starts_with("false mcmod.info: it is no JSON"));
    assert_eq!(index.by_id("old").len(), 1);
    assert!(why(&index, "plugins/two.jar").starts_with("false velocity-plugin.json: it is no JSON"));
    assert_eq!(why(&index, "plugins/half.jar").split(" (").next(), Some("true it is not a complete jar"));
    assert!(why(&index, "plugins/empty.jar").contains("(0 bytes)"));
    assert!(why(&index, "plugins/text.jar").starts_with("true it is not a complete jar"));
    assert_eq!(
        why(&index, "plugins/flipped.jar"),
        "true entry plugin.yml cannot be read: its checksum is wrong"
    );
    assert_eq!(why(&index, "plugins/yml.jar"), "true plugin.yml: it names no id");
    assert_eq!(why(&index, "plugins/good.jar") + &why(&index, "plugins/prefixed.jar"), "");
    assert_eq!(index.by_id("Good").len(), 2);
    assert_eq!(index.by_file("half.jar")[0].id, "half", "a name to speak of it");
}

#[test]
fn bombs_cost_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let zeros = vec![b' '; 64 << 20];
    put(dir.path(), "mods/manifest.jar", &jar(&[("fabric.mod.json", &zeros)]));
    put(
        dir.path(),
        "mods/nested.jar",
        &jar(&[("fabric.mod.json", &fabric("outer", "1")), ("META-INF/jars/x.jar", &zeros)]),
    );
    // It says that it is small, and is not.
    let mut liar = jar(&[("fabric.mod.json", &zeros)]);
    let directory = liar.windows(4).rposition(|part| part == b"PK\x01\x02").unwrap();
    liar[directory + 24..directory + 28].copy_from_slice(&100_u32.to_le_bytes());
    put(dir.path(), "mods/liar.jar", &liar);
    let many: Vec<String> = (0..200).map(|at| format!("META-INF/jars/{at}.jar")).collect();
    let inner = jar(&[("fabric.mod.json", &fabric("inner", "1"))]);
    let many: Vec<(&str, &[u8])> = many.iter().map(|name| (name.as_str(), inner.as_slice())).collect();
    put(dir.path(), "mods/many.jar", &jar(&many));
    drop(zeros);
    let started = cpu_time();
    let index = scan(dir.path());
    let took = cpu_time() - started;
    assert!(took < Duration::from_secs(5), "{took:?}");
    for bomb in ["mods/manifest.jar", "mods/liar.jar"] {
        assert_eq!(
            why(&index, bomb),
            "true entry fabric.mod.json cannot be read: it is larger than 65536 bytes"
        );
    }
    assert!(why(&index, "mods/nested.jar").contains("larger than 8388608 bytes"));
    assert_eq!(index.by_id("outer").len(), 1);
    assert_eq!(why(&index, "mods/many.jar"), "false more than 128 jars are in it");
}

#[test]
fn entries_packages_jars_time_and_memory_have_ceilings() {
    let dir = tempfile::tempdir().unwrap();
    let names: Vec<String> = (0..3_000).map(|at| format!("p{at}/A.class")).collect();
    let mut entries: Vec<(&str, &[u8])> = names.iter().map(|name| (name.as_str(), &b""[..])).collect();
    let manifest = fabric("big", "1");
    entries.push(("fabric.mod.json", &manifest));
    let big = jar(&entries);
    for at in 0..4 {
        put(dir.path(), &format!("mods/{at}.jar"), &big);
    }
    let with = |limits: Limits| {
        let mut index = AddonIndex::default();
        let scan = index.rescan(dir.path(), &limits).unwrap();
        (index, scan)
    };
    let default = Limits::default();
    let (index, _) = with(Limits { entries: 1_000, ..default });
    assert_eq!(why(&index, "mods/0.jar"), "false it has more than 1000 entries");
    let (index, _) = with(Limits { packages: 1_000, ..default });
    assert_eq!(why(&index, "mods/0.jar"), "false more than 1000 packages are in it");
    assert_eq!(index.by_id("big").len(), 4);
    let (index, scan) = with(Limits { jars: 2, ..default });
    assert!(scan.cut && scan.jars == 2);
    assert_eq!(why(&index, ""), "false there is more than is looked at");
    let (_, scan) = with(Limits { time: Duration::ZERO, ..default });
    assert_eq!(scan, Scan { jars: 0, opened: 0, cut: true });
    let (index, _) = with(Limits { memory: 60_000, ..default });
    assert_eq!(owners(&index, "p7.A").len(), 2);
    assert_eq!(index.by_id("big").len(), 4, "the names stay");
    assert!(why(&index, "mods/3.jar").contains("the index is full"));
}

#[test]
fn what_is_no_file_is_not_opened() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("server");
    fs::create_dir_all(root.join("mods")).unwrap();
    let outside = dir.path().join("outside.jar");
    fs::write(&outside, jar(&[("fabric.mod.json", &fabric("outside", "1"))])).unwrap();
    symlink(&outside, root.join("mods/link.jar")).unwrap();
    rustix::fs::mkfifoat(CWD, root.join("mods/pipe.jar"), Mode::RWXU).unwrap();
    fs::create_dir(root.join("mods/folder.jar")).unwrap();
    fs::create_dir(dir.path().join("plugins")).unwrap();
    fs::copy(&outside, dir.path().join("plugins/x.jar")).unwrap();
    symlink("../plugins", root.join("plugins")).unwrap();
    let huge = fs::File::create(root.join("mods/huge.jar")).unwrap();
    huge.set_len(3 << 30).unwrap();
    let started = cpu_time();
    let index = scan(&root);
    assert!(cpu_time() - started < Duration::from_secs(5));
    assert!(index.by_id("outside").is_empty());
    assert!(why(&index, "mods/link.jar").contains("no regular file"));
    assert!(why(&index, "mods/pipe.jar").contains("no regular file"));
    assert!(why(&index, "plugins").contains("no directory"));
    assert!(why(&index, "mods/huge.jar").contains("not a complete jar"));
}

#[test]
fn a_large_zip64_jar_is_read_and_a_nonsensical_one_is_not() {
    let dir = tempfile::tempdir().unwrap();
    let names: Vec<String> = (0..66_000).map(|at| format!("p{}/A{at}.class", at % 50)).collect();
    let mut entries: Vec<(&str, &[u8])> = names.iter().map(|name| (name.as_str(), &b""[..])).collect();
    let manifest = fabric("big", "1");
    entries.push(("fabric.mod.json", &manifest));
    let big = jar_by(&entries, CompressionMethod::Stored);
    put(dir.path(), "mods/big.jar", &big);
    let locator = big.windows(4).rposition(|part| part == b"PK\x06\x07").expect("zip64 was written");
    let mut nonsense = big;
    nonsense[locator + 8..locator + 16].copy_from_slice(&u64::MAX.to_le_bytes());
    put(dir.path(), "mods/nonsense.jar", &nonsense);
    let index = scan(dir.path());
    assert_eq!(index.by_id("big")[0].file, "mods/big.jar");
    assert_eq!(owners(&index, "p7.A"), ["big"]);
    assert!(why(&index, "mods/nonsense.jar").starts_with("true "), "{}", why(&index, "mods/nonsense.jar"));
}

mod hostile {
    use proptest::prelude::*;

    use super::super::jar::Jar;
    use super::super::manifest::Kind;
    use super::super::zip::Source;
    use super::*;

    fn read(bytes: &[u8]) -> Jar {
        let deadline = Instant::now() + Duration::from_secs(2);
        Jar::read(Source::Bytes(bytes), "mods/x.jar", &Limits::default(), deadline)
    }

    proptest! {
        /// Bytes of a good jar changed, cut and moved: never a panic, never much time, and
        /// nothing longer than it may be.
        #[test]
        fn a_mangled_jar(changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..12),
                         cut: prop::sample::Index, whole: bool) {
            let inner = jar(&[("fabric.mod.json", &fabric("inner", "1")), ("i/I.class", b"")]);
            let mut bytes = jar(&[
                ("META-INF/MANIFEST.MF", b"Implementation-Version: 1\n"),
                ("META-INF/mods.toml", b"[[mods]]\nmodId='t'\nversion='${file.jarVersion}'"),
                ("plugin.yml", &bukkit("P", "1")),
                ("META-INF/jars/inner.jar", &inner),
                ("a/b/C.class", b"x"),
            ]);
            for (at, value) in changes {
                let at = at.index(bytes.len());
                bytes[at] = value;
            }
            if !whole {
                bytes.truncate(cut.index(bytes.len()));
            }
            let started = cpu_time();
            let jar = read(&bytes);
            prop_assert!(cpu_time() - started < Duration::from_secs(2));
            prop_assert!(jar.weight() < 1 << 20);
        }

        #[test]
        fn bytes_that_are_no_manifest(bytes in prop::collection::vec(any::<u8>(), 0..2_000), kind in 0_usize..9) {
            let (kind, _) = Kind::ALL[kind];
            kind.parse(&bytes, None);
        }

        /// Punctuation of the formats in any order.
        #[test]
        fn text_that_is_almost_a_manifest(
            parts in prop::collection::vec(prop::sample::select(vec![
                "{", "}", "[", "]", "[[", "]]", ":", ": ", ",", "\"", "'", "\n", "\n  ", "- ", "#", "//", "/*", "*/",
                "|", ">", "=", "\\", "name", "id", "mods", "modId", "dependencies", "depend", "quilt_loader", "1",
                "true", "\t", "é", "''", "\u{feff}",
            ]), 0..300),
            kind in 0_usize..9,
        ) {
            let (kind, _) = Kind::ALL[kind];
            kind.parse(parts.concat().as_bytes(), Some("1"));
        }
    }

    #[test]
    fn the_largest_manifests_of_nothing_but_punctuation_are_quick() {
        let patterns = [
            "[",
            "{",
            "{\"a\":",
            "[[a]]\n",
            "a: [",
            "- ",
            "-\n",
            "\"",
            "'",
            "''",
            ",\"",
            "a:\n ",
            "a.",
            "[a.b]\n",
            "\"\\\"",
            "{a: {",
            "[',",
            "# ",
            "/*",
            "a: |\n",
            "a: 'x\n  ",
            "a = [",
            "a: {b: '",
            "[\"\\\",",
            ", ",
            "depend: [\n",
        ];
        for (kind, name) in Kind::ALL {
            for pattern in patterns {
                let text = pattern.repeat((64 << 10) / pattern.len());
                let started = cpu_time();
                kind.parse(text.as_bytes(), None);
                let took = cpu_time() - started;
                assert!(took < Duration::from_millis(500), "{name} of {pattern:?}: {took:?}");
            }
            let text: String = (0..8_000).map(|at| format!("{}a:\n", " ".repeat(at % 60))).collect();
            kind.parse(text.as_bytes(), None);
        }
    }
}
