//! kill -9 in the middle of fetching, unpacking and switching: afterwards every version is
//! whole or absent, and the next try succeeds.

#![allow(clippy::unwrap_used, reason = "a failed step is a failed test")]

mod support;

use std::ops::ControlFlow;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use support::*;
use zlh_artifacts::{Fetcher, Install, Limits, Store};
use zlh_catalog::{Artifact, RelPath};

/// Says to the child where to work.
const PLACE: &str = "ZLH_KILL_TEST_PLACE";

/// Enough to be in the middle of something for a while.
fn archive() -> Vec<u8> {
    let body: Vec<u8> =
        (0..40_000_u32).flat_map(|number| number.wrapping_mul(2_654_435_761).to_le_bytes()).collect();
    let mut entries = vec![file("bin/tool", "#!/bin/sh\n").mode(0o755)];
    entries.extend(
        (0..60).map(|nth| file(format!("lib/{}/{nth}", nth % 7), &body[nth * 997..nth * 997 + 60_000])),
    );
    entries.push(link(b'2', "bin/alias", "tool"));
    gz(&tar(&entries))
}

fn wanted(place: &Path) -> Artifact {
    artifact("tool.tar.gz", &std::fs::read(place.join("source/tool.tar.gz")).unwrap())
}

/// Fetches, installs and chooses, as an agent does.
fn work(place: &Path, version: &str) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let fetcher =
        Fetcher::new(&format!("file://{}", place.join("source").display()), place.join("cache")).unwrap();
    let artifact = wanted(place);
    let archive = runtime.block_on(fetcher.fetch(&artifact, |_| ())).unwrap().path;
    let store = Store::open(place.join("store")).unwrap();
    let program = RelPath::new("bin/tool").unwrap();
    let install = Install {
        name: "tool",
        version,
        artifact: &artifact,
        archive: &archive,
        strip_components: 0,
        executables: &[&program],
        limits: Limits::default(),
    };
    store.install(&install, &mut |_| ControlFlow::Continue(())).unwrap();
    let tree = store.list().unwrap().into_iter().find(|tree| tree.version == version).unwrap();
    store.activate(&tree).unwrap();
}

/// Whether every point is tried (`make test`), not only each fifth (the inner loop).
fn thorough() -> bool {
    std::env::var_os("ZLH_TEST_THOROUGH").is_some_and(|value| value == "1")
}

/// Not a test of its own: what is killed.
#[test]
fn the_child_that_is_killed() {
    if let Some(place) = std::env::var_os(PLACE) {
        work(Path::new(&place), &std::env::var("ZLH_KILL_TEST_VERSION").unwrap());
    }
}

#[test]
fn whole_or_absent_after_kill_9_at_200_points() {
    let temp = tempfile::tempdir().unwrap();
    let place = temp.path();
    std::fs::create_dir(place.join("source")).unwrap();
    std::fs::write(place.join("source/tool.tar.gz"), archive()).unwrap();
    let child = |version: &str| {
        Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "the_child_that_is_killed", "--test-threads=1"])
            .env(PLACE, place)
            .env("ZLH_KILL_TEST_VERSION", version)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap()
    };
    let clear = || {
        for part in ["cache", "store"] {
            let _ = std::fs::remove_dir_all(place.join(part));
        }
    };
    let begun = Instant::now();
    let mut whole = Duration::ZERO;
    let (mut complete, mut absent) = (0, 0);
    let step = if thorough() { 1 } else { 5 };
    for point in (0..200_u32).step_by(step) {
        // How long all of it takes, now and then: a busy machine is not always as busy.
        if point % 50 == 0 {
            clear();
            let begun = Instant::now();
            assert!(child("1.0").wait().unwrap().success());
            whole = begun.elapsed();
            clear();
        }
        let fresh = point % 4 == 0 || step > 1 && point % 20 == 0;
        if fresh {
            clear();
        }
        let version = format!("1.{point}");
        let mut killed = child(&version);
        std::thread::sleep(whole.mul_f64(f64::from(point % 50) / 45.0));
        killed.kill().unwrap();
        killed.wait().unwrap();
        let store = Store::open(place.join("store")).unwrap();
        let trees = store.list().unwrap();
        for tree in &trees {
            assert_eq!(store.verify(tree).unwrap(), [], "point {point}: {} is not whole", tree.version);
        }
        match trees.iter().any(|tree| tree.version == version) {
            true => complete += 1,
            false => absent += 1,
        }
        let debris = listing(&place.join("store/.store"));
        assert!(!debris.iter().any(|path| path.starts_with(".staging")), "point {point}: {debris:?}");
        // What was chosen is one of those that are there.
        if let Ok(current) = std::fs::canonicalize(place.join("store/tool/current")) {
            assert!(
                trees.iter().any(|tree| std::fs::canonicalize(&tree.dir).unwrap() == current),
                "point {point}"
            );
        }
        if point % 20 == 19 || step > 1 && point % 20 == 15 {
            work(place, &version);
            assert!(Store::open(place.join("store")).unwrap().list().unwrap().iter().any(|tree| tree.active));
        }
    }
    assert!(complete > 0 && absent > 0, "{complete} complete, {absent} absent: no point was inside");
    assert!(begun.elapsed() < Duration::from_secs(550));
}
