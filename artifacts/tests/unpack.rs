//! What an archive may contain, and what makes it refused as a whole.

#![allow(clippy::unwrap_used, reason = "a failed step is a failed test")]

mod support;

use std::ops::ControlFlow;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::PathBuf;

use support::*;
use tempfile::TempDir;
use zlh_artifacts::{Limits, UnpackError, Unpacked, unpack};
use zlh_catalog::MediaType;

/// A private directory to unpack into, and a canary beside it.
struct Bench {
    temp: TempDir,
}

impl Bench {
    fn new() -> Self {
        let temp = tempfile::tempdir().unwrap();
        std::fs::create_dir(temp.path().join("dest")).unwrap();
        std::fs::write(temp.path().join("canary"), "alive").unwrap();
        Self { temp }
    }

    fn dest(&self) -> PathBuf {
        self.temp.path().join("dest")
    }

    fn unpack(
        &self,
        data: &[u8],
        media_type: MediaType,
        strip: u8,
        limits: &Limits,
    ) -> Result<Unpacked, UnpackError> {
        let archive = self.temp.path().join("archive");
        std::fs::write(&archive, data).unwrap();
        unpack(&archive, media_type, &self.dest(), strip, limits, &mut |_| ControlFlow::Continue(()))
    }

    fn gz(&self, entries: &[Raw], strip: u8) -> Result<Unpacked, UnpackError> {
        self.unpack(&gz(&tar(entries)), MediaType::TarGz, strip, &Limits::default())
    }

    /// Whatever was in the archive, the outside is as it was.
    fn assert_contained(&self, case: &str) {
        let canary = self.temp.path().join("canary");
        assert_eq!(std::fs::read_to_string(&canary).unwrap(), "alive", "{case}");
        assert_eq!(canary.metadata().unwrap().nlink(), 1, "{case}: linked from inside");
        let mut beside: Vec<_> =
            std::fs::read_dir(self.temp.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
        beside.sort();
        assert_eq!(beside, ["archive", "canary", "dest"], "{case}");
    }
}

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

#[test]
fn a_release_archive_unpacks_the_same_from_both_forms() {
    for (data, media_type) in [(gz(&tar(&good())), MediaType::TarGz), (zst(&tar(&good())), MediaType::TarZst)]
    {
        let bench = Bench::new();
        let done = bench.unpack(&data, media_type, 1, &Limits::default()).unwrap();
        assert_eq!(done, Unpacked { entries: 7, bytes: 25 });
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
        assert_eq!(
            (twin.ino(), twin.mtime() > 1_700_000_000),
            (readme.ino(), true),
            "a hard link, and a time of now"
        );
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
fn irregular_entries_fail_the_archive() {
    let a = || file("a", "content");
    let table: Vec<(&str, Vec<Raw>, &str)> = vec![
        ("parent", vec![file("..", "x")], "component"),
        ("parent below", vec![file("../canary", "x")], "component"),
        ("parent in between", vec![file("a/../../canary", "x")], "component"),
        ("absolute", vec![file("/tmp/x", "x")], "absolute"),
        ("two slashes", vec![file("a//b", "x")], "empty component"),
        ("drive", vec![file("C:\\x", "x")], "backslashes"),
        ("backslash", vec![file("..\\x", "x")], "backslashes"),
        ("no name", vec![file("", "x")], "empty"),
        ("dot file", vec![file(".", "x")], "component"),
        ("newline", vec![file("a\nb", "x")], "control"),
        ("direction", vec![file("a\u{202e}b", "x")], "direction"),
        ("not UTF-8", vec![file(b"a\xff", "x")], "UTF-8"),
        ("256 bytes", vec![pax(b'x', &[("path", &"x".repeat(256))]), a()], "255 bytes"),
        ("4096 bytes", vec![pax(b'x', &[("path", &"x/".repeat(2048))]), a()], "1,024 bytes"),
        ("depth", vec![pax(b'x', &[("path", &format!("{}x", "d/".repeat(70)))]), a()], "64 directories"),
        ("slash on a file", vec![file("a/", "x")], "empty component"),
        ("setuid", vec![a().mode(0o4755)], "setuid"),
        ("setgid", vec![dir("d").mode(0o2755)], "setuid"),
        ("sticky", vec![dir("d").mode(0o1777)], "setuid"),
        ("symlink absolute", vec![link(b'2', "l", "/etc/shadow")], "absolute"),
        ("symlink out", vec![link(b'2', "l", "../canary")], "out of the tree"),
        ("symlink dangling", vec![link(b'2', "l", "none")], "nothing in the tree"),
        ("symlink to itself", vec![link(b'2', "l", "l")], "circle"),
        ("symlink empty", vec![raw(b'2', "l")], "target is empty"),
        ("through a symlink", vec![link(b'2', "l", "."), file("l/x", "x")], "below a link"),
        ("through a symlink out", vec![link(b'2', "l", ".."), file("l/canary", "x")], "out of the tree"),
        (
            "chain",
            vec![dir("d/s"), link(b'2', "d/s/u", "../.."), link(b'2', "o", "d/s/u/../canary")],
            "out of the tree",
        ),
        ("link, then directory", vec![link(b'2', "l", "."), dir("l").mode(0o777)], "something else"),
        ("directory, then link", vec![dir("l"), link(b'2', "l", ".")], "directory"),
        ("hard link out", vec![link(b'1', "h", "../canary")], "hard link leads out"),
        ("hard link absolute", vec![link(b'1', "h", "/etc/passwd")], "hard link leads out"),
        ("hard link to a link", vec![a(), link(b'2', "l", "a"), link(b'1', "h", "l")], "was unpacked before"),
        ("hard link to a directory", vec![dir("d"), link(b'1', "h", "d")], "was unpacked before"),
        ("hard link to what follows", vec![link(b'1', "h", "a"), a()], "was unpacked before"),
        ("hard link to itself", vec![link(b'1', "h", "h")], "was unpacked before"),
        (
            "hard link with content",
            vec![a(), Raw { content: b"x".to_vec(), ..link(b'1', "h", "a") }],
            "only files have content",
        ),
        ("character device", vec![raw(b'3', "dev")], "devices"),
        ("block device", vec![raw(b'4', "dev")], "devices"),
        ("pipe", vec![raw(b'6', "fifo")], "pipes"),
        ("socket", vec![raw(b's', "sock")], "type is not known"),
        ("contiguous", vec![raw(b'7', "c")], "type is not known"),
        ("GNU dump directory", vec![raw(b'D', "d")], "type is not known"),
        ("GNU multi-volume", vec![raw(b'M', "m")], "type is not known"),
        ("GNU volume", vec![raw(b'V', "v")], "type is not known"),
        ("GNU sparse", vec![raw(b'S', "s")], "sparse"),
        (
            "PAX sparse",
            vec![pax(b'x', &[("GNU.sparse.major", "1"), ("GNU.sparse.realsize", "1099511627776")]), a()],
            "sparse",
        ),
        ("capability", vec![pax(b'x', &[("SCHILY.xattr.security.capability", "x")]), a()], "attributes"),
        ("access list", vec![pax(b'x', &[("SCHILY.acl.access", "u::rwx")]), a()], "access lists"),
        ("character set", vec![pax(b'x', &[("hdrcharset", "BINARY")]), a()], "character sets"),
        ("twice", vec![a(), a()], "twice"),
        ("directory twice", vec![dir("d"), dir("d")], "twice"),
        ("file, then directory", vec![a(), dir("a")], "something else"),
        ("directory, then file", vec![dir("a"), a()], "directory"),
        ("below a file", vec![a(), file("a/b", "x")], "below a file"),
        ("sizes differ", vec![pax(b'x', &[("size", "2048")]), a()], "two sizes differ"),
        (
            "size on a name",
            vec![pax(b'x', &[("size", "2048")]), Raw { content: b"n\0".to_vec(), ..raw(b'L', "x") }, a()],
            "extended size",
        ),
        ("global path", vec![pax(b'g', &[("path", "../x")]), a()], "global header"),
        (
            "two long names",
            vec![
                Raw { content: b"n\0".to_vec(), ..raw(b'L', "x") },
                Raw { content: b"m\0".to_vec(), ..raw(b'L', "x") },
                a(),
            ],
            "two long names",
        ),
        ("header without entry", vec![pax(b'x', &[("path", "n")])], "has no entry"),
        ("malformed PAX", vec![Raw { content: b"99 path=x\n".to_vec(), ..raw(b'x', "p") }, a()], "malformed"),
        ("name of 1 MiB", vec![Raw { content: vec![b'x'; 1 << 20], ..raw(b'L', "x") }, a()], "name record"),
        ("size of 2^62", vec![a().size(b"\x80\0\0\0\x40\0\0\0\0\0\0\0")], "exceeds a limit"),
        ("size beyond 64 bits", vec![a().size(b"\x80\x01\0\0\0\0\0\0\0\0\0\0")], "impossible size"),
        (
            "negative size",
            vec![a().size(b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff")],
            "impossible size",
        ),
        ("size that is no number", vec![a().size(b"00000000zzz")], "impossible size"),
        ("size of 1 TiB", vec![a().size(b"\x80\0\0\0\0\0\x01\0\0\0\0\0")], "exceeds a limit"),
    ];
    for (case, entries, expected) in table {
        let bench = Bench::new();
        let error = bench.gz(&entries, 0).expect_err(case);
        assert!(chain(&error).contains(expected), "{case}: {}\nshould contain: {expected}", chain(&error));
        assert!(!error.to_string().contains('\n'), "{case}");
        bench.assert_contained(case);
    }
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
}

#[test]
fn damage_to_the_container_is_noticed() {
    let whole = tar(&good());
    let flipped = |at: usize| {
        let mut data = whole.clone();
        data[at] ^= 1;
        gz(&data)
    };
    let mut bad_crc = gz(&whole);
    let crc = bad_crc.len() - 8;
    bad_crc[crc] ^= 1;
    let without_end = &whole[..whole.len() - 1024];
    let second_block_missing = &whole[..whole.len() - 512];
    let table: Vec<(&str, Vec<u8>)> = vec![
        ("empty", vec![]),
        ("not gzip", b"<!DOCTYPE html><html>not found</html>".to_vec()),
        ("zstd", zst(&whole)),
        ("plain tar", whole.clone()),
        ("no end", gz(without_end)),
        ("half an end", gz(second_block_missing)),
        ("cut in an entry", gz(&whole[..700])),
        ("garbage after the end", gz(&[&whole[..], b"garbage"].concat())),
        ("an entry after the end", gz(&[&whole[..], &whole[..]].concat())),
        ("second member", [gz(&whole), gz(&whole)].concat()),
        ("garbage after the member", [gz(&whole), b"garbage".to_vec()].concat()),
        ("checksum of a header", flipped(0)),
        ("checksum of the member", bad_crc),
    ];
    for (case, data) in table {
        let bench = Bench::new();
        let error = bench.unpack(&data, MediaType::TarGz, 1, &Limits::default()).expect_err(case);
        assert!(matches!(error, UnpackError::Damaged(_)), "{case}: {error:?}");
        bench.assert_contained(case);
    }
    for (case, data) in [
        ("gzip", gz(&whole)),
        ("second frame", [zst(&whole), zst(&whole)].concat()),
        ("garbage", [zst(&whole), b"x".to_vec()].concat()),
        ("no end", zst(without_end)),
    ] {
        let bench = Bench::new();
        let error = bench.unpack(&data, MediaType::TarZst, 1, &Limits::default()).expect_err(case);
        assert!(matches!(error, UnpackError::Damaged(_)), "{case}: {error:?}");
    }
}

#[test]
fn a_truncated_archive_fails_wherever_it_ends() {
    for (whole, media_type) in
        [(gz(&tar(&good())), MediaType::TarGz), (zst(&tar(&good())), MediaType::TarZst)]
    {
        for at in (0..100).map(|part| whole.len() * part / 100) {
            let bench = Bench::new();
            let result = bench.unpack(&whole[..at], media_type, 1, &Limits::default());
            assert!(matches!(result, Err(UnpackError::Damaged(_))), "{at} of {}: {result:?}", whole.len());
        }
    }
}

#[test]
fn every_flipped_bit_is_survived() {
    let whole = gz(&tar(&good()));
    for at in 0..whole.len() {
        let bench = Bench::new();
        let mut data = whole.clone();
        data[at] ^= 1 << (at % 8);
        let _ = bench.unpack(&data, MediaType::TarGz, 1, &Limits::default());
        bench.assert_contained("flipped bit");
    }
}

#[test]
fn bombs_end_at_a_ceiling() {
    let zeros = file("zeros", vec![0; 1 << 20]);
    let small = Limits { total_bytes: 1 << 20, ..Limits::default() };
    let one = Limits { file_bytes: 1000, ..Limits::default() };
    let few = Limits { entries: 3, ..Limits::default() };
    let many = (0..100).map(|number| dir(&format!("d{number}"))).collect();
    for (case, entries, limits) in [
        ("total", vec![zeros.clone()], small),
        ("file", vec![zeros], one),
        ("entries", good(), few),
        ("headers count too", many, Limits { total_bytes: 4096, ..small }),
    ] {
        let bench = Bench::new();
        let error = bench.unpack(&gz(&tar(&entries)), MediaType::TarGz, 0, &limits).expect_err(case);
        assert!(matches!(error, UnpackError::Limit(_)), "{case}: {error:?}");
    }
    // 70 MiB of zeros in less than a hundredth: allowed in total, refused for their ratio.
    let bench = Bench::new();
    let bomb = gz(&tar(&[file("zeros", vec![0; 70 << 20])]));
    let error = bench.unpack(&bomb, MediaType::TarGz, 0, &Limits::default()).unwrap_err();
    assert!(matches!(error, UnpackError::Limit(_)), "{error:?}");
}

#[test]
fn a_huge_zstd_window_is_refused() {
    // Magic, a frame header that asks for a window of 2 GiB, an empty last block.
    let frame = [0x28, 0xb5, 0x2f, 0xfd, 0x00, 0xa8, 0x01, 0x00, 0x00];
    let bench = Bench::new();
    let error = bench.unpack(&frame, MediaType::TarZst, 0, &Limits::default()).unwrap_err();
    assert!(error.to_string().contains("memory"), "{error}");
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
    let data = gz(&tar(&good()));
    let bench = Bench::new();
    let archive = bench.temp.path().join("archive");
    std::fs::write(&archive, &data).unwrap();
    let mut seen = Vec::new();
    let limits = Limits::default();
    unpack(&archive, MediaType::TarGz, &bench.dest(), 1, &limits, &mut |read| {
        seen.push(read);
        ControlFlow::Continue(())
    })
    .unwrap();
    assert!(seen.is_sorted() && seen.last() == Some(&(data.len() as u64)), "{seen:?}");

    let bench = Bench::new();
    std::fs::write(bench.temp.path().join("archive"), &data).unwrap();
    let archive = bench.temp.path().join("archive");
    let result =
        unpack(&archive, MediaType::TarGz, &bench.dest(), 1, &limits, &mut |_| ControlFlow::Break(()));
    assert!(matches!(result, Err(UnpackError::Cancelled)), "{result:?}");
}
