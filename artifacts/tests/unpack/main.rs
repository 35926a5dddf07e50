//! What an archive may contain, and what makes it refused as a whole.

#![allow(clippy::unwrap_used, reason = "a failed step is a failed test")]

#[path = "../support/mod.rs"]
mod support;

mod bench;
mod damage;
mod hostile;
mod tools;

use std::ops::ControlFlow;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};

use bench::Bench;
use support::zip::{Zipped, zip, zipped, zipped_dir, zipped_link};
use support::*;
use zlh_artifacts::{Limits, UnpackError, Unpacked, unpack};
use zlh_catalog::MediaType;

fn good() -> Vec<Raw> {
    vec![
        dir("node/"),
        file("node/bin/node", "#!/bin/sh\n").mode(0o755),
        file("node/README", "hello").mode(0o664),
        link(b'2', "node/bin/npm", "../lib/npm"),
        file("node/lib/npm", "#!/bin/sh\n").mode(0o555),
        link(b'1', "node/lib/twin", "node/README"),
        dir("node/empty"),
    ]
}

/// The same as a zip, which has no hard links.
fn good_zip() -> Vec<Zipped> {
    vec![
        zipped_dir("node/"),
        zipped("node/bin/node", "#!/bin/sh\n").mode(0o100_755),
        zipped("node/README", "hello").mode(0o100_664).stored(),
        zipped_link("node/bin/npm", "../lib/npm"),
        zipped("node/lib/npm", "#!/bin/sh\n").mode(0o100_555).streamed(),
        zipped("node/lib/twin", "hello").mode(0),
        zipped_dir("node/empty/"),
    ]
}

#[test]
fn a_release_archive_unpacks_the_same_from_every_form() {
    let whole = tar(&good());
    for (data, media_type) in [
        (gz(&whole), MediaType::TarGz),
        (zst(&whole), MediaType::TarZst),
        (xz(&whole), MediaType::TarXz),
        (zip(&good_zip()), MediaType::Zip),
        (zip::Zip::new(&good_zip()).wide_bytes(), MediaType::Zip),
    ] {
        let bench = Bench::new();
        let done = bench.unpack(&data, media_type, 1, &Limits::default()).unwrap();
        let is_zip = media_type == MediaType::Zip;
        assert_eq!(done, Unpacked { entries: 7, bytes: if is_zip { 30 } else { 25 } });
        let root = bench.dest();
        let names =
            ["README", "bin/", "bin/node", "bin/npm -> ../lib/npm", "empty/", "lib/", "lib/npm", "lib/twin"];
        assert_eq!(listing(&root), names);
        for (path, mode) in
            [("README", 0o644), ("bin/node", 0o755), ("lib/npm", 0o755), ("bin", 0o755), ("empty", 0o755)]
        {
            assert_eq!(root.join(path).metadata().unwrap().permissions().mode() & 0o7777, mode, "{path}");
        }
        let (twin, readme) =
            (root.join("lib/twin").metadata().unwrap(), root.join("README").metadata().unwrap());
        assert_eq!(twin.ino() == readme.ino(), !is_zip, "a hard link");
        assert!(twin.mtime() > 1_700_000_000, "a time of now");
        bench.assert_contained("good", true);
    }
}

/// What is accepted because it changes nothing: modes, owners and times are not applied, and
/// names that only look alike are two names on this file system.
#[test]
fn what_does_not_matter_is_made_plain() {
    let composed = "caf\u{e9}";
    let decomposed = "cafe\u{301}";
    let tar = vec![
        dir("./").mode(0o777),
        dir("d").mode(0),
        file("d/secret", "x").mode(0),
        file("d/open", "x").mode(0o666),
        file("d/run", "x").mode(0o111),
        file("A", "upper"),
        file("a", "lower"),
        file(composed, "one"),
        file(decomposed, "two"),
    ];
    let zip = vec![
        zipped_dir("d/").mode(0o040_000),
        zipped("d/secret", "x").mode(0o100_000),
        zipped("d/open", "x").mode(0o100_666),
        zipped("d/run", "x").mode(0o111),
        zipped("A", "upper").extras(&support::zip::extra(0x5455, &[3, 0, 0, 0, 0])),
        zipped("a", "lower").extras(&support::zip::extra(0x7875, &[1, 4, 0, 0, 0, 0, 4, 0, 0, 0, 0])),
        zipped(composed, "one"),
        zipped(decomposed, "two"),
    ];
    for (data, media_type) in
        [(gz(&support::tar(&tar)), MediaType::TarGz), (support::zip::zip(&zip), MediaType::Zip)]
    {
        let bench = Bench::new();
        bench.unpack(&data, media_type, 0, &Limits::default()).unwrap();
        let mode = |path| bench.dest().join(path).metadata().unwrap().permissions().mode() & 0o7777;
        let modes = ["d", "d/secret", "d/open", "d/run"].map(mode);
        assert_eq!(modes, [0o755, 0o644, 0o644, 0o755], "{media_type:?}");
        let read = |path| std::fs::read_to_string(bench.dest().join(path)).unwrap();
        assert_eq!(["A", "a", composed, decomposed].map(read), ["upper", "lower", "one", "two"]);
        bench.assert_contained("plain", true);
    }
}

#[test]
fn long_names_come_in_two_forms_and_dot_slash_is_only_spelling() {
    let long = format!("{}/{}", "d".repeat(120), "f".repeat(200));
    let gnu =
        |kind, name: &str| Raw { content: [name.as_bytes(), b"\0"].concat(), ..raw(kind, "././@LongLink") };
    let bench = Bench::new();
    let entries = [
        dir("./"),
        file("./a", "1"),
        pax(b'g', &[("comment", "0123")]),
        pax(b'x', &[("path", &long), ("mtime", "1700000000.123"), ("size", "3")]),
        file("short", "pax"),
        gnu(b'L', &format!("{long}2")),
        file("short", "gnu"),
        gnu(b'K', &format!("./{}/../a", "d".repeat(120))),
        link(b'2', "link", "short"),
    ];
    bench.gz(&entries, 0).unwrap();
    assert_eq!(std::fs::read_to_string(bench.dest().join(&long)).unwrap(), "pax");
    assert_eq!(std::fs::read_to_string(bench.dest().join(format!("{long}2"))).unwrap(), "gnu");
    assert_eq!(std::fs::read_to_string(bench.dest().join("link")).unwrap(), "1");
}

#[test]
fn stripping_never_mixes_trees() {
    for (entries, expected) in [
        (vec![file("a/x", "1"), file("b/y", "2")], "same stripped components"),
        (vec![file("x", "1")], "fewer components"),
        (vec![file("a/x", "1"), link(b'1', "a/h", "x")], "hard link leads out"),
    ] {
        let bench = Bench::new();
        let error = bench.gz(&entries, 1).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }
    let bench = Bench::new();
    let two = zip(&[zipped("a/x", "1"), zipped("b/y", "2")]);
    let error = bench.unpack(&two, MediaType::Zip, 1, &Limits::default()).unwrap_err().to_string();
    assert!(error.contains("same stripped components"), "{error}");
}

#[test]
fn a_jar_is_no_archive_and_a_link_is_no_directory() {
    let bench = Bench::new();
    let error = bench.unpack(b"PK", MediaType::Jar, 0, &Limits::default()).unwrap_err();
    assert!(matches!(error, UnpackError::NotAnArchive(_)));
    let linked = bench.temp.path().join("linked");
    symlink(bench.dest(), &linked).unwrap();
    std::fs::write(bench.temp.path().join("archive"), gz(&tar(&good()))).unwrap();
    let archive = bench.temp.path().join("archive");
    let result =
        unpack(
            &archive,
            MediaType::TarGz,
            &linked,
            1,
            &Limits::default(),
            &mut |_| ControlFlow::Continue(()),
        );
    assert!(matches!(result, Err(UnpackError::Write { .. })), "{result:?}");
    assert_eq!(listing(&bench.dest()), [""; 0]);
}

#[test]
fn progress_rises_to_the_size_and_can_end_it() {
    let whole = tar(&good());
    let limits = Limits::default();
    for (data, media_type) in [
        (gz(&whole), MediaType::TarGz),
        (zst(&whole), MediaType::TarZst),
        (xz(&whole), MediaType::TarXz),
        (zip(&good_zip()), MediaType::Zip),
    ] {
        let bench = Bench::new();
        let archive = bench.temp.path().join("archive");
        std::fs::write(&archive, &data).unwrap();
        let mut seen = Vec::new();
        unpack(&archive, media_type, &bench.dest(), 1, &limits, &mut |read| {
            seen.push(read);
            ControlFlow::Continue(())
        })
        .unwrap();
        assert!(seen.is_sorted() && seen.last() == Some(&(data.len() as u64)), "{media_type:?}: {seen:?}");

        for after in [0, 3] {
            let bench = Bench::new();
            let archive = bench.temp.path().join("archive");
            std::fs::write(&archive, &data).unwrap();
            let mut left = after;
            let result = unpack(&archive, media_type, &bench.dest(), 1, &limits, &mut |_| {
                left -= 1;
                if left < 0 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
            });
            assert!(matches!(result, Err(UnpackError::Cancelled)), "{media_type:?}: {result:?}");
            bench.assert_contained("cancelled", false);
        }
    }
}

/// The decoder's thread ends with the call, however it ends.
#[test]
fn no_thread_outlives_the_call() {
    let threads = || std::fs::read_dir("/proc/self/task").unwrap().count();
    let before = threads();
    let large = tar(&[file("zeros", vec![0; 60 << 20]), file("zeros", "twice")]);
    let archive = gz(&large);
    for (limits, strip) in [
        (Limits::default(), 0),
        (Limits::default(), 3),
        (Limits { file_bytes: 1, ..Limits::default() }, 0),
        (Limits { total_bytes: 5 << 20, ..Limits::default() }, 0),
    ] {
        let bench = Bench::new();
        bench.unpack(&archive, MediaType::TarGz, strip, &limits).unwrap_err();
        // Others of this process may come and go; nextest gives each test its own. The kernel
        // takes a thread off its list a moment after it was joined.
        let end = std::time::Instant::now() + std::time::Duration::from_secs(20);
        while threads() > before {
            assert!(std::time::Instant::now() < end, "{before} threads before, {} after", threads());
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
    }
}

/// A file system of its own, unmounted in the end: also when the test fails.
struct Disk(tempfile::TempDir);

impl Disk {
    fn mounted(size: &str) -> Option<Self> {
        let dir = tempfile::tempdir().unwrap();
        let options = format!("size={size},mode=0755");
        let mount = ["-t", "tmpfs", "-o", &options, "tmpfs"];
        let done = std::process::Command::new("mount").args(mount).arg(dir.path()).output().ok()?;
        done.status.success().then_some(Self(dir))
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = std::process::Command::new("umount").arg(self.0.path()).status();
    }
}

#[test]
fn room_is_left_for_others() {
    let Some(disk) = Disk::mounted("80m") else {
        #[allow(clippy::print_stderr, reason = "a test that cannot run says so")]
        {
            eprintln!("skipped: no file system can be mounted here");
        }
        return;
    };
    let bytes = vec![7; 2 << 20];
    let files: Vec<Raw> = (0..60).map(|n| file(format!("tree/{n}"), bytes.clone())).collect();
    let archive = tempfile::tempdir().unwrap();
    let path = archive.path().join("archive");
    std::fs::write(&path, zst(&tar(&files))).unwrap();
    let dest = disk.0.path().join("dest");
    std::fs::create_dir(&dest).unwrap();
    let done = unpack(
        &path,
        MediaType::TarZst,
        &dest,
        1,
        &Limits { ratio: u64::MAX, ..Limits::default() },
        &mut |_| ControlFlow::Continue(()),
    );
    let error = done.unwrap_err();
    assert!(
        matches!(error, UnpackError::NoSpace { free, needed, .. } if free < needed && free > 0),
        "{error:?}"
    );
    let stat = rustix::fs::statvfs(&dest).unwrap();
    assert!(stat.f_bavail * stat.f_frsize >= 4 << 20, "a twentieth is left");
    assert!(dest.join("20").exists(), "it was not refused from the first");
}
