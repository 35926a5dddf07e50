//! Kills, races, and what older readers get.

use zlh_catalog::{Id, MediaType, PublicKey, open_signed};

use super::*;

const JAR: &[u8] = b"PK\x03\x04 not more of a jar than that";

fn game(variant: &str) -> Item {
    Item::Game {
        game: Id::new("minecraft").unwrap(),
        variant: Id::new(variant).unwrap(),
        requires: None,
        launch: None,
        prepared: false,
    }
}

/// An archive of a runtime with one program.
fn runtime(folder: &Path, program: &str, text: &str) -> PathBuf {
    let (tree, out) = (folder.join("tree"), folder.join("tree.tar.gz"));
    fs::create_dir_all(tree.join("bin")).unwrap();
    fs::write(tree.join("bin").join(program), text).unwrap();
    fs::set_permissions(tree.join("bin").join(program), fs::Permissions::from_mode(0o755)).unwrap();
    let pack = zlh_artifacts::Pack {
        src: &tree,
        out: &out,
        media_type: MediaType::TarGz,
        level: None,
        exclude: &|_| false,
    };
    zlh_artifacts::pack_dir(&pack).unwrap();
    out
}

fn java(folder: &Path, depot: &mut Depot, version: &str) -> Added {
    let file = runtime(folder, "java", &format!("#!/bin/sh\necho {version}\n"));
    let programs = known_programs("java").into_iter().take(1).collect();
    let item = Item::Runtime { id: Id::new("java").unwrap(), strip: 0, programs };
    let offer = Offer { item, version, file: &file, file_name: "jre.tar.gz", channel: None, replace: false };
    depot.add(&offer).unwrap()
}

/// Deployed agents take what lies under the old name for what the name says.
#[test]
fn only_an_archive_of_that_form_has_the_name_that_deployed_agents_know() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("store");
    let mut depot = Depot::open_or_create(&root).unwrap();
    java(folder.path(), &mut depot, "21.0.3");
    let file = folder.path().join("tree.tar.zst");
    let pack = zlh_artifacts::Pack {
        src: &folder.path().join("tree"),
        out: &file,
        media_type: MediaType::TarZst,
        level: None,
        exclude: &|_| false,
    };
    zlh_artifacts::pack_dir(&pack).unwrap();
    let programs = known_programs("java").into_iter().take(1).collect();
    let item = Item::Runtime { id: Id::new("java").unwrap(), strip: 0, programs };
    let (version, file_name) = ("21.0.9", "jre.tar.zst");
    let offer = Offer { item, version, file: &file, file_name, channel: None, replace: false };
    assert_eq!(depot.add(&offer).unwrap().artifact.path.as_str(), "java/21.0.9/jre.tar.zst");
    depot.publish(&publication(None)).unwrap();
    let old = hash_file(&root.join("java/21/OpenJDK21.tar.gz")).unwrap().1;
    assert_eq!(old, depot.catalog.runtime_version("java", "21.0.3").unwrap().archive.sha256);
}

fn server(folder: &Path, depot: &mut Depot, variant: &str, version: &str, more: &[u8]) -> Result<Added> {
    let file = folder.join("server");
    fs::write(&file, [JAR, more].concat()).unwrap();
    let replace = more == b"replaced";
    depot.add(&Offer {
        item: game(variant),
        version,
        file: &file,
        file_name: "x.jar",
        channel: None,
        replace,
    })
}

fn publication(key: Option<&SecretKey>) -> Publication<'_> {
    Publication { key, lifetime: Duration::from_secs(86_400), publish_agent: false }
}

/// What an agent would say of the store: every file is what the catalog says.
fn is_true(root: &Path, keys: &[PublicKey]) -> Catalog {
    let bytes = fs::read(root.join(CATALOG)).unwrap();
    let catalog = match fs::read_to_string(root.join(SIGNATURE)) {
        Ok(signature) => open_signed(&bytes, &signature, keys).unwrap(),
        Err(_) => Catalog::parse(&bytes).unwrap(),
    };
    for entry in catalog.entries() {
        for file in entry.files {
            let found = hash_file(&root.join(file.artifact.path.as_str())).unwrap();
            assert_eq!(found, (file.artifact.size, file.artifact.sha256), "{}", entry.name);
        }
    }
    catalog
}

#[test]
fn killed_at_any_moment_the_store_is_true() {
    let key = SecretKey::generate().unwrap();
    let keys = [key.public().unwrap()];
    let mut ends = 0;
    for moment in 0.. {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().join("store");
        let mut depot = Depot::open_or_create(&root).unwrap();
        java(folder.path(), &mut depot, "21.0.3");
        server(folder.path(), &mut depot, "paper", "1.21.7", b"").unwrap();
        depot.publish(&publication(Some(&key))).unwrap();
        let first = depot.catalog.serial;

        depot.moments.set(moment);
        let edited = server(folder.path(), &mut depot, "paper", "1.21.7", b"replaced")
            .and_then(|_| depot.publish(&publication(if moment % 2 == 0 { Some(&key) } else { None })));
        drop(depot);
        if edited.is_err() {
            // Catalog and files agree at once; the signature at the latest when it is opened.
            let bytes = fs::read(root.join(CATALOG)).unwrap();
            let on_disk = Catalog::parse(&bytes).unwrap();
            for entry in on_disk.entries() {
                for file in entry.files {
                    let found = hash_file(&root.join(file.artifact.path.as_str())).unwrap();
                    assert_eq!(found, (file.artifact.size, file.artifact.sha256), "{moment}");
                }
            }
        } else {
            ends += 1;
        }
        drop(Depot::open(&root).unwrap());
        let catalog = is_true(&root, &keys);
        assert!(catalog.serial == first || catalog.serial == first + 1);
        for left in [NEXT, DRAFT, INCOMING] {
            assert!(!root.join(left).exists(), "{left} after {moment}");
        }
        if ends == 2 {
            assert!(moment > 6, "{moment} moments");
            return;
        }
    }
}

#[test]
fn one_editor_at_a_time() {
    let folder = tempfile::tempdir().unwrap();
    let first = Depot::open_or_create(folder.path()).unwrap();
    let second = Depot::open_or_create(folder.path()).unwrap_err();
    assert!(second.to_string().contains("another zlhctl"), "{second}");
    drop(first);
    Depot::open_or_create(folder.path()).unwrap();
    let none = Depot::open(&folder.path().join("nowhere")).unwrap_err();
    assert!(none.to_string().contains("no artifact store"), "{none}");
}

/// An interrupted mirror goes on for a week; then somebody else's opening clears it away.
#[test]
fn what_a_mirror_left_goes_after_a_week() {
    let folder = tempfile::tempdir().unwrap();
    let part = folder.path().join(MIRROR).join("tmp/x.part");
    fs::create_dir_all(part.parent().unwrap()).unwrap();
    fs::write(&part, "x").unwrap();
    drop(Depot::open_or_create(folder.path()).unwrap());
    assert!(part.exists());
    let age = |path: &Path, days: u64| {
        let at = std::time::SystemTime::now() - Duration::from_secs(days * 86_400);
        File::open(path).unwrap().set_modified(at).unwrap();
    };
    for path in [folder.path().join(MIRROR), folder.path().join(MIRROR).join("tmp")] {
        age(&path, 8);
    }
    age(&part, 6);
    drop(Depot::open_or_create(folder.path()).unwrap());
    assert!(part.exists());
    age(&part, 8);
    drop(Depot::open_or_create(folder.path()).unwrap());
    assert!(!folder.path().join(MIRROR).exists());
}

#[test]
fn bytes_of_a_version_do_not_change_unasked() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("store");
    let mut depot = Depot::open_or_create(&root).unwrap();
    let early = server(folder.path(), &mut depot, "paper", "1.21.7", b"").unwrap_err();
    assert!(crate::exit::message(&early).contains("it needs java 21"), "{early:?}");
    java(folder.path(), &mut depot, "21.0.3");
    let first = server(folder.path(), &mut depot, "paper", "1.21.7", b"").unwrap();
    assert_eq!((first.what, first.artifact.path.as_str()), ("added", "minecraft/paper/1.21.7/server.jar"));
    depot.publish(&publication(None)).unwrap();
    assert_eq!(server(folder.path(), &mut depot, "paper", "1.21.7", b"").unwrap().what, "unchanged");
    assert!(!depot.is_changed());
    let other = server(folder.path(), &mut depot, "paper", "1.21.7", b"other").unwrap_err();
    assert!(other.to_string().contains("with other bytes"), "{other}");
    assert!(!depot.is_changed());
    let replaced = server(folder.path(), &mut depot, "paper", "1.21.7", b"replaced").unwrap();
    assert_eq!(replaced.what, "replaced");
    depot.publish(&publication(None)).unwrap();
    is_true(&root, &[]);
    // The old path now leads to the new bytes.
    let old = hash_file(&root.join("minecraft/paper/1.21.7/server.jar")).unwrap();
    assert_eq!(old.1, replaced.artifact.sha256);
    assert!(garbage(&depot, Duration::ZERO).unwrap().is_empty());
}

#[test]
fn views_are_the_deployed_forms() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("store");
    let mut depot = Depot::open_or_create(&root).unwrap();
    for version in ["21.0.10", "17.0.9", "21.0.3"] {
        java(folder.path(), &mut depot, version);
    }
    for version in ["1.21.10", "1.20.4", "1.21.7", "1.21.8"] {
        server(folder.path(), &mut depot, "paper", version, version.as_bytes()).unwrap();
    }
    server(folder.path(), &mut depot, "forge", "1.20.1-47.4.0", b"f").unwrap();
    release(&mut depot.catalog, "minecraft/paper 1.21.7").unwrap().withdrawn =
        Some("loses chunks".to_owned());
    release(&mut depot.catalog, "minecraft/paper 1.21.8").unwrap().channels =
        [(Id::new("beta").unwrap(), 100)].into();
    let binary = folder.path().join("agent");
    for (version, wave) in [("1.10.0", 100), ("1.9.0", 100), ("1.11.0", 10)] {
        let mut elf = b"\x7fELF".to_vec();
        elf.resize(18, 0);
        elf.extend([62, 0]);
        elf.extend(version.as_bytes());
        fs::write(&binary, elf).unwrap();
        let offer = Offer {
            item: Item::Agent,
            version,
            file: &binary,
            file_name: "zlh-agent",
            channel: None,
            replace: false,
        };
        depot.add(&offer).unwrap();
        release(&mut depot.catalog, &format!("agent {version}")).unwrap().channels =
            [(Id::new("stable").unwrap(), wave)].into();
    }
    depot.publish(&publication(None)).unwrap();
    let read = |path: &str| fs::read_to_string(root.join(path)).unwrap();
    assert_eq!(read("_catalog.json"), include_str!("../../tests/views/catalog.json"));
    assert_eq!(read("devcontainer/_catalog.json"), include_str!("../../tests/views/devcontainer.json"));
    let sum = read("agents/versions/1.10.0/zlh-agent-linux-amd64.sha256");
    let pinned = depot.catalog.agent_release("1.10.0").unwrap().binary.sha256;
    assert_eq!(sum, format!("{pinned}  zlh-agent-linux-amd64\n"));
    assert!(!root.join("agents/manifest.json").exists(), "deployed agents would update");
    depot.write_views(true).unwrap();
    assert_eq!(read("agents/manifest.json"), include_str!("../../tests/views/manifest.json"));
    assert!(!depot.manifest_is_stale());
    release(&mut depot.catalog, "agent 1.10.0").unwrap().withdrawn = Some("leaks".to_owned());
    assert!(depot.manifest_is_stale());
    let java = hash_file(&root.join("java/21/OpenJDK21.tar.gz")).unwrap().1;
    assert_eq!(java, depot.catalog.runtime_version("java", "21.0.10").unwrap().archive.sha256);
    assert!(root.join("java/17/OpenJDK17.tar.gz").is_file());
    assert!(garbage(&depot, Duration::ZERO).unwrap().is_empty());
}

#[test]
fn garbage_is_what_nothing_names() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("store");
    let mut depot = Depot::open_or_create(&root).unwrap();
    java(folder.path(), &mut depot, "21.0.3");
    depot.publish(&publication(None)).unwrap();
    fs::create_dir_all(root.join("keys")).unwrap();
    fs::create_dir_all(root.join("old/1.0")).unwrap();
    for path in ["keys/2.json", "old/1.0/server.jar", ".gitignore"] {
        fs::write(root.join(path), "x").unwrap();
    }
    assert!(garbage(&depot, Duration::from_secs(3600)).unwrap().is_empty());
    let found = garbage(&depot, Duration::ZERO).unwrap();
    assert!(matches!(&found[..], [one] if one.path == "old/1.0/server.jar"), "{found:?}");
    collect(&depot, &found).unwrap();
    assert!(!root.join("old").exists() && root.join("keys/2.json").exists());
    is_true(&root, &[]);
}

#[test]
fn what_this_program_does_not_know_is_not_lost() {
    let folder = tempfile::tempdir().unwrap();
    let newer = r#"{"schema":1,"serial":7,"issued":"2026-01-02T03:04:05Z","games":[],"mirrors":["x"]}"#;
    fs::write(folder.path().join(CATALOG), newer).unwrap();
    let error = Depot::open(folder.path()).unwrap_err();
    assert!(crate::exit::message(&error).contains("`mirrors`"), "{error:?}");
    fs::write(folder.path().join(CATALOG), newer.replace(r#","mirrors":["x"]"#, "")).unwrap();
    Depot::open(folder.path()).unwrap();
}

#[test]
fn unknown_entries_get_a_hint() {
    let folder = tempfile::tempdir().unwrap();
    let mut depot = Depot::open_or_create(&folder.path().join("store")).unwrap();
    java(folder.path(), &mut depot, "21.0.3");
    let hint = |depot: &mut Depot, name: &str| {
        let error = release(&mut depot.catalog, name).unwrap_err();
        crate::exit::hint(&error).unwrap()
    };
    assert_eq!(hint(&mut depot, "jav 21.0.3"), "did you mean 'java 21.0.3'?");
    assert_eq!(hint(&mut depot, "java 8.0.402.06"), "it has: java 21.0.3");
    assert!(hint(&mut depot, "something else entirely").contains("catalog show"));
}

#[test]
fn archives_are_looked_at() {
    let folder = tempfile::tempdir().unwrap();
    let mut depot = Depot::open_or_create(&folder.path().join("store")).unwrap();
    let file = runtime(folder.path(), "node", "#!/bin/sh\n");
    let mut add = |program: &str, strip: u8, file_name: &str| {
        let programs = [(Id::new("node").unwrap(), RelPath::new(program).unwrap())].into();
        let item = Item::Runtime { id: Id::new("node").unwrap(), strip, programs };
        let offer = Offer { item, version: "22", file: &file, file_name, channel: None, replace: false };
        depot.add(&offer).map(|_| ()).map_err(|error| {
            format!("{} ({})", crate::exit::message(&error), crate::exit::hint(&error).unwrap_or_default())
        })
    };
    let wrong = add("node", 0, "n.tar.gz").unwrap_err();
    assert!(
        wrong.contains("lacks the program `node`") && wrong.contains("it is at `bin/node`: --strip 1"),
        "{wrong}"
    );
    let wrong = add("sbin/node", 0, "n.tar.gz").unwrap_err();
    assert!(wrong.contains("there is `bin/node`"), "{wrong}");
    let wrong = add("bin/node", 0, "n.rar").unwrap_err();
    assert!(wrong.contains("no archive that agents unpack") && wrong.contains(".zip"), "{wrong}");
    add("bin/node", 0, "n.tar.gz").unwrap();
}

#[test]
fn the_tree_of_an_archive_is_pinned_whatever_its_form() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("store");
    let mut depot = Depot::open_or_create(&root).unwrap();
    let gz = runtime(folder.path(), "node", "#!/bin/sh\n");
    let make = |command: &str| {
        let made =
            std::process::Command::new("sh").args(["-ec", command]).current_dir(folder.path()).status();
        made.is_ok_and(|status| status.success())
    };
    let mut forms = vec![("n.tar.gz", gz)];
    for (name, command) in [
        ("n.tar.xz", "tar -C tree -cJf n.tar.xz bin"),
        ("n.txz", "tar -C tree -cJf n.txz bin"),
        ("n.zip", "cd tree && python3 -m zipfile -c ../n.zip bin"),
    ] {
        assert!(make(command), "{command}");
        forms.push((name, folder.path().join(name)));
    }
    let mut trees = Vec::new();
    for (index, (file_name, file)) in forms.iter().enumerate() {
        let programs = [(Id::new("node").unwrap(), RelPath::new("bin/node").unwrap())].into();
        let item = Item::Runtime { id: Id::new("node").unwrap(), strip: 0, programs };
        let version = format!("22.0.{index}");
        let offer = Offer { item, version: &version, file, file_name, channel: None, replace: false };
        let artifact = depot.add(&offer).unwrap().artifact;
        assert!(artifact.media_type.is_archive() && artifact.path.as_str().ends_with(file_name));
        trees.push(artifact.tree_sha256.unwrap());
    }
    assert!(trees.iter().all(|tree| *tree == trees[0]), "the same tree out of each: {trees:?}");
    java(folder.path(), &mut depot, "21.0.3");
    let placed = server(folder.path(), &mut depot, "vanilla", "1.21.7", b"").unwrap();
    assert_eq!(placed.artifact.tree_sha256, None, "a jar is placed as it is");
}

#[test]
fn the_tree_of_a_server_is_that_of_its_plan() {
    let folder = tempfile::tempdir().unwrap();
    let mut depot = Depot::open_or_create(&folder.path().join("store")).unwrap();
    let file = runtime(folder.path(), "server", "x");
    let mut add = |strip: u8| {
        let launch = serde_json::from_value(serde_json::json!({
            "install": [{ "step": "unpack", "file": "server", "strip_components": strip }],
            "argv": ["/bin/sh", "{server}/server"],
            "readiness": { "probe": "tcp_connect" }, "stop": { "command": "stop" },
        }));
        let item = Item::Game {
            game: Id::new("minecraft").unwrap(),
            variant: Id::new("own").unwrap(),
            requires: None,
            launch: Some(Box::new(launch.unwrap())),
            prepared: false,
        };
        let offer =
            Offer { item, version: "1", file: &file, file_name: "x.tgz", channel: None, replace: false };
        depot.add(&offer).unwrap().artifact.tree_sha256.unwrap()
    };
    assert_ne!(add(0), add(1), "an agent unpacks it with so many components less");
}
