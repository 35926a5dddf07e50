use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::time::{Duration, SystemTime};

use proptest::prelude::*;
use rustix::fs::{CWD, Mode};

use super::*;
use crate::addons::fixtures::{bukkit, cpu_time, fabric, jar, put, while_swapping};
use crate::{AddonIndex, Limits};

struct Server {
    dir: tempfile::TempDir,
    index: AddonIndex,
    facts: BTreeMap<String, String>,
}

impl Server {
    fn new() -> Self {
        Self { dir: tempfile::tempdir().unwrap(), index: AddonIndex::default(), facts: BTreeMap::new() }
    }

    fn root(&self) -> &Path {
        self.dir.path()
    }

    fn put(&self, name: &str, bytes: impl AsRef<[u8]>) {
        put(self.root(), name, bytes.as_ref());
    }

    fn remove(&self, name: &str) {
        fs::remove_file(self.root().join(name)).unwrap();
    }

    fn touch(&self, name: &str, time: SystemTime) {
        fs::File::options().write(true).open(self.root().join(name)).unwrap().set_modified(time).unwrap();
    }

    fn take(&mut self, before: Option<&Snapshot>) -> Snapshot {
        self.take_with(before, &SnapshotLimits::default())
    }

    fn take_with(&mut self, before: Option<&Snapshot>, limits: &SnapshotLimits) -> Snapshot {
        self.index.rescan(self.dir.path(), &Limits::default()).unwrap();
        Snapshot::take(self.dir.path(), &self.index, self.facts.clone(), before, limits).unwrap()
    }
}

fn mod_jar(id: &str, version: &str) -> Vec<u8> {
    jar(&[("fabric.mod.json", &fabric(id, version))])
}

/// `kind what path` of each change.
fn listed(changes: &Changes) -> Vec<String> {
    let one = |change: &Change| format!("{:?} {:?} {}", change.kind, change.what, change.path);
    changes.changes.iter().map(one).collect()
}

#[test]
fn what_matters_most_comes_first() {
    let mut server = Server::new();
    server.facts.insert("Java".to_owned(), "17".to_owned());
    server.put("mods/old-1.0.jar", mod_jar("old", "1.0"));
    server.put("mods/gone.jar", mod_jar("gone", "1"));
    server.put("plugins/Same.jar", jar(&[("plugin.yml", &bukkit("Same", "1"))]));
    server.put("plugins/Same/config.yml", "a: 1");
    server.put("config/deep/er/x.toml", "a=1");
    server.put("server.jar", "one");
    server.put("server.properties", "#Mon\nmotd=x\n");
    server.put("world/datapacks/pack.zip", "zip");
    server.put("world/level.dat", "level");
    server.put("world/playerdata/x.json", "{}");
    server.put("plugins/Same/userdata/deep/player.yml", "a: 1");
    server.put("logs/latest.txt", "log");
    server.put("usercache.json", "[]");
    let before = server.take(None);
    assert_eq!(before.len(), 8);
    assert_eq!(listed(&before.diff(&before)), [""; 0]);
    // Nothing that a server does by itself is a change.
    server.put("server.properties", "#Tue\nmotd=x\n");
    server.put("plugins/Same/config.yml", "a: 1");
    server.put("usercache.json", "[1]");
    server.put("plugins/Same/userdata/deep/player.yml", "a: 2");
    server.put("world/level.dat", "level2");
    let idle = server.take(Some(&before));
    assert_eq!(listed(&before.diff(&idle)), [""; 0]);

    server.remove("mods/old-1.0.jar");
    server.put("mods/old-1.1.jar", mod_jar("old", "1.1"));
    server.put("mods/new.jar", mod_jar("new", "2"));
    server.remove("mods/gone.jar");
    server.put("config/deep/er/x.toml", "a=2");
    server.put("plugins/Same/config.yml", "a: 2");
    server.touch("plugins/Same/config.yml", SystemTime::now() + Duration::from_millis(20));
    server.put("server.jar", "two");
    server.put("server.properties", "#Wed\nmotd=y\n");
    server.put("world/datapacks/more/pack.mcmeta", "{}");
    server.facts.insert("Java".to_owned(), "21".to_owned());
    let after = server.take(Some(&idle));
    let changes = before.diff(&after);
    assert_eq!(
        listed(&changes),
        [
            "Added Addon mods/new.jar",
            "Updated Addon mods/old-1.1.jar",
            "Removed Addon mods/gone.jar",
            "Updated Fact Java",
            "Updated Server server.jar",
            "Added DataPack world/datapacks/more/pack.mcmeta",
            "Updated Settings server.properties",
            "Updated Config plugins/Same/config.yml",
            "Updated Config config/deep/er/x.toml",
        ]
    );
    assert!(changes.complete && changes.left_out == 0 && changes.since_ms == before.taken_ms);
    let old = &changes.changes[1];
    assert_eq!(old.old_path.as_deref(), Some("mods/old-1.0.jar"));
    assert_eq!(
        (old.name.as_deref(), old.before.as_deref(), old.after.as_deref()),
        (Some("old"), Some("1.0"), Some("1.1"))
    );
    assert_eq!(
        (changes.changes[3].before.as_deref(), changes.changes[3].after.as_deref()),
        (Some("17"), Some("21"))
    );
    let gone = &changes.changes[2];
    assert_eq!((gone.before.as_deref(), gone.after.as_deref(), gone.when_ms), (Some("1"), None, None));
    // Kept over a restart.
    let kept: Snapshot = serde_json::from_str(&serde_json::to_string(&before).unwrap()).unwrap();
    assert_eq!(kept.diff(&after), changes);
    assert_eq!(Snapshot::default().diff(&after).changes, []);
}

#[test]
fn a_copy_that_kept_its_time_still_says_when_it_came() {
    let mut server = Server::new();
    let before = server.take(None);
    server.put("mods/new.jar", mod_jar("new", "2"));
    let old = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000_000);
    server.touch("mods/new.jar", old);
    let after = server.take(Some(&before));
    let when = before.diff(&after).changes[0].when_ms.unwrap();
    assert!(when + 1_000 >= before.taken_ms && when <= after.taken_ms + 1_000);
    assert_eq!(before.since_ms("mods/new.jar"), None);
    assert_eq!(after.since_ms("mods/new.jar"), Some(after.taken_ms));
}

#[test]
fn since_when_a_file_is_as_it_is_is_remembered() {
    let mut server = Server::new();
    server.put("mods/a.jar", mod_jar("a", "1"));
    let mut first = server.take(None);
    first.taken_ms = 5;
    first.files.values_mut().for_each(|file| file.since_ms = 5);
    let second = server.take(Some(&first));
    assert_eq!(second.since_ms("mods/a.jar"), Some(5));
    // Touched is not changed; written anew is.
    server.touch("mods/a.jar", SystemTime::UNIX_EPOCH);
    assert_eq!(server.take(Some(&second)).since_ms("mods/a.jar"), Some(5));
    server.put("mods/a.jar", mod_jar("a", "2"));
    let third = server.take(Some(&second));
    assert_eq!(third.since_ms("mods/a.jar"), Some(third.taken_ms));
    // Renamed is not changed either.
    fs::rename(server.root().join("mods/a.jar"), server.root().join("mods/b.jar")).unwrap();
    let renamed = server.take(Some(&third));
    assert_eq!(listed(&third.diff(&renamed)), [""; 0]);
}

#[test]
fn a_large_jar_is_told_by_its_directory() {
    let mut server = Server::new();
    let mut bytes = vec![7; 1 << 20];
    server.put("server.jar", &bytes);
    let before = server.take(None);
    let time = fs::metadata(server.root().join("server.jar")).unwrap().modified().unwrap();
    *bytes.last_mut().unwrap() = 8;
    server.put("server.jar", &bytes);
    server.touch("server.jar", time + Duration::from_secs(1));
    let after = server.take(Some(&before));
    assert_eq!(listed(&before.diff(&after)), ["Updated Server server.jar"]);
}

#[test]
fn ceilings_cut_and_never_lie() {
    let mut server = Server::new();
    for at in 0..60 {
        server.put(&format!("config/{at:02}.toml"), format!("a={at}"));
    }
    let whole = server.take(None);
    assert!(!whole.cut);
    for limits in [
        SnapshotLimits { files: 20, ..SnapshotLimits::default() },
        SnapshotLimits { names: 20, ..SnapshotLimits::default() },
        SnapshotLimits { time: Duration::ZERO, ..SnapshotLimits::default() },
    ] {
        let cut = server.take_with(None, &limits);
        assert!(cut.cut && cut.len() <= 20, "{limits:?}: {}", cut.len());
        let changes = whole.diff(&cut);
        assert!(!changes.complete && changes.changes.is_empty(), "{limits:?}");
    }
    let blind = server.take_with(None, &SnapshotLimits { bytes: 0, ..SnapshotLimits::default() });
    assert_eq!(blind.len(), 60);
    assert_eq!(listed(&whole.diff(&blind)), [""; 0], "size and time tell it then");
    for at in 0..60 {
        server.put(&format!("config/{at:02}.toml"), "changed");
    }
    let after = server.take(None);
    let changes = whole.diff(&after);
    assert_eq!((changes.changes.len(), changes.left_out), (MAX_CHANGES, 60 - MAX_CHANGES));
}

#[test]
fn a_hostile_tree_is_walked_around() {
    let mut server = Server::new();
    let outside = tempfile::tempdir().unwrap();
    fs::write(outside.path().join("secret.yml"), "x").unwrap();
    fs::create_dir_all(server.root().join("plugins/A")).unwrap();
    fs::create_dir_all(server.root().join("config")).unwrap();
    symlink(outside.path(), server.root().join("mods")).unwrap();
    symlink(outside.path(), server.root().join("plugins/A/link")).unwrap();
    symlink(outside.path().join("secret.yml"), server.root().join("plugins/A/config.yml")).unwrap();
    symlink("..", server.root().join("config/loop")).unwrap();
    rustix::fs::mkfifoat(CWD, server.root().join("config/pipe.toml"), Mode::RWXU).unwrap();
    fs::File::create(server.root().join("server.jar")).unwrap().set_len(1 << 40).unwrap();
    server.put("config/bad\u{1b}[2Jname.toml", "x");
    let deep: String = "config/".to_owned() + &"d/".repeat(300);
    server.put(&format!("{deep}x.toml"), "x");
    let started = cpu_time();
    let snapshot = server.take(None);
    assert!(cpu_time() - started < Duration::from_secs(3));
    let paths: Vec<&str> = snapshot.files.keys().map(String::as_str).collect();
    assert_eq!(paths, ["config/bad\u{fffd}[2Jname.toml", "server.jar"]);
}

#[test]
fn swaps_while_it_is_read_do_no_harm() {
    let mut server = Server::new();
    let outside = tempfile::tempdir().unwrap();
    fs::write(outside.path().join("secret.toml"), "secret").unwrap();
    fs::create_dir_all(server.root().join("config/a")).unwrap();
    server.put("config/a/x.toml", "mine");
    symlink(outside.path(), server.root().join("config/b")).unwrap();
    let (a, b) = (server.root().join("config/a"), server.root().join("config/b"));
    while_swapping(&a, &b, || {
        for _ in 0..300 {
            let snapshot = server.take(None);
            assert!(!snapshot.files.keys().any(|path| path.contains("secret")));
        }
    });
}

#[test]
fn a_folder_full_of_players_hides_only_itself() {
    let mut server = Server::new();
    for at in 0..4_100 {
        server.put(&format!("plugins/Homes/{at}.yml"), "home: x");
    }
    server.put("plugins/Homes.jar", jar(&[("plugin.yml", &bukkit("Homes", "1"))]));
    server.put("config/x.toml", "a=1");
    let before = server.take(None);
    assert!(!before.cut);
    assert_eq!(before.partial, ["plugins/Homes/"]);
    fs::remove_dir_all(server.root().join("plugins/Homes")).unwrap();
    server.put("plugins/Homes/old.yml", "x");
    server.touch("plugins/Homes/old.yml", SystemTime::UNIX_EPOCH);
    server.remove("plugins/Homes.jar");
    server.remove("config/x.toml");
    let after = server.take(Some(&before));
    let changes = before.diff(&after);
    assert_eq!(listed(&changes)[0], "Removed Addon plugins/Homes.jar");
    assert!(listed(&changes).contains(&"Removed Config config/x.toml".to_owned()));
    assert!(!changes.complete);
    // The other way about, nothing in there is said to be gone.
    let hidden = after.diff(&before);
    assert!(!listed(&hidden).iter().any(|line| line.starts_with("Removed")), "{:?}", listed(&hidden));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    /// A model of a folder: what the diff says is what was done.
    #[test]
    fn the_diff_is_what_was_done(
        first in prop::collection::btree_map(0_u8..12, 0_u8..4, 0..12),
        second in prop::collection::btree_map(0_u8..12, 0_u8..4, 0..12),
    ) {
        let mut server = Server::new();
        let name = |at: &u8| format!("config/{at:02}.toml");
        for (at, content) in &first {
            server.put(&name(at), [*content]);
        }
        let before = server.take(None);
        for at in first.keys() {
            server.remove(&name(at));
        }
        for (at, content) in &second {
            server.put(&name(at), [*content]);
        }
        let after = server.take(Some(&before));
        let mut expected: Vec<(ChangeKind, String)> = Vec::new();
        for at in 0..12 {
            let kind = match (first.get(&at), second.get(&at)) {
                (None, Some(_)) => ChangeKind::Added,
                (Some(_), None) => ChangeKind::Removed,
                (Some(a), Some(b)) if a != b => ChangeKind::Updated,
                _ => continue,
            };
            expected.push((kind, name(&at)));
        }
        let mut found: Vec<(ChangeKind, String)> =
            before.diff(&after).changes.into_iter().map(|change| (change.kind, change.path)).collect();
        found.sort();
        expected.sort();
        prop_assert_eq!(found, expected);
    }
}
