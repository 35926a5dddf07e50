//! The table of what must fail: every row is an archive that was built to do harm, the
//! error that it has to meet, and a word of it.

use zlh_artifacts::{Limits, UnpackError};
use zlh_catalog::MediaType;

use crate::bench::Bench;
use crate::support::zip::*;
use crate::support::*;
use Class::{Damage, Limit, Refusal};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Class {
    Refusal,
    Damage,
    Limit,
}

struct Case {
    name: String,
    media_type: MediaType,
    data: Vec<u8>,
    class: Class,
    words: &'static str,
}

impl Case {
    fn check(&self, limits: &Limits) {
        let (bench, name) = (Bench::new(), &self.name);
        let error = match bench.unpack(&self.data, self.media_type, 0, limits) {
            Ok(done) => panic!("{name}: unpacked to {done:?}"),
            Err(error) => error,
        };
        let class = match &error {
            UnpackError::Refused { .. } => Refusal,
            UnpackError::Damaged(_) => Damage,
            UnpackError::Limit(_) => Limit,
            other => panic!("{name}: {other:?}"),
        };
        let shown = chain(&error);
        assert_eq!(class, self.class, "{name}: {shown}");
        assert!(shown.contains(self.words), "{name}: {shown}\nshould contain: {}", self.words);
        assert!(!shown.contains('\n') && shown.len() < 1000, "{name}: {} bytes", shown.len());
        bench.assert_contained(name, false);
    }
}

fn in_tar(name: &str, entries: Vec<Raw>, class: Class, words: &'static str) -> Case {
    let (name, data) = (format!("tar: {name}"), gz(&tar(&entries)));
    Case { name, media_type: MediaType::TarGz, data, class, words }
}

fn in_zip(name: &str, entries: Vec<Zipped>, class: Class, words: &'static str) -> Case {
    of_zip(name, zip(&entries), class, words)
}

fn of_zip(name: &str, data: Vec<u8>, class: Class, words: &'static str) -> Case {
    Case { name: format!("zip: {name}"), media_type: MediaType::Zip, data, class, words }
}

/// A file of that name, in both formats.
fn named(name: &str, path: impl AsRef<[u8]>, words: &'static str) -> [Case; 2] {
    let path = path.as_ref();
    let in_header = path.len() <= 100;
    let long = Raw { content: path.to_vec(), ..raw(b'L', "long") };
    let entries = if in_header { vec![file(path, "x")] } else { vec![long, file("x", "x")] };
    [in_tar(name, entries, Refusal, words), in_zip(name, vec![zipped(path, "x")], Refusal, words)]
}

/// A symbolic link with what may follow it, in both formats.
fn linked(name: &str, path: &str, target: &str, then: Option<&str>, words: &'static str) -> [Case; 2] {
    let mut tar = vec![link(b'2', path, target)];
    let mut zip = vec![zipped_link(path, target)];
    if let Some(then) = then {
        let is_dir = then.ends_with('/');
        tar.push(if is_dir { dir(then).mode(0o777) } else { file(then, "x") });
        zip.push(if is_dir { zipped_dir(then) } else { zipped(then, "x") });
    }
    [in_tar(name, tar, Refusal, words), in_zip(name, zip, Refusal, words)]
}

fn names() -> Vec<Case> {
    let rows: Vec<[Case; 2]> = vec![
        named("parent", "..", "component"),
        named("parent below", "../canary", "component"),
        named("parent in between", "a/../../canary", "component"),
        named("parent at the end", "a/..", "component"),
        named("absolute", "/tmp/x", "absolute"),
        named("two slashes in front", "//tmp/x", "absolute"),
        named("two slashes", "a//b", "empty component"),
        named("drive", "C:\\x", "backslashes"),
        named("backslash", "..\\x", "backslashes"),
        named("no name", "", "empty"),
        named("dot file", ".", "component"),
        named("dot in between", "a/./b", "component"),
        named("newline", "a\nb", "control"),
        named("escape", "a\x1b[2Jb", "control"),
        named("direction", "a\u{202e}b", "direction"),
        named("not UTF-8", b"a\xff", "UTF-8"),
        named("256 bytes", "x".repeat(256), "255 bytes"),
        named("4,096 bytes", "x/".repeat(2047) + "xx", "1,024 bytes"),
        named("depth", "d/".repeat(70) + "x", "64 directories"),
        linked("link absolute", "l", "/etc/shadow", None, "absolute"),
        linked("link out", "l", "../canary", None, "out of the tree"),
        linked("link dangling", "l", "none", None, "nothing in the tree"),
        linked("link to itself", "l", "l", None, "circle"),
        linked("link empty", "l", "", None, "target is empty"),
        linked("link with a control character", "l", "a\nb", None, "control characters"),
        linked("write through a link", "l", ".", Some("l/x"), "below a link"),
        linked("write through a link out", "l", "..", Some("l/canary"), "out of the tree"),
        linked("file over a link", "l", ".", Some("l"), "twice"),
        linked("directory over a link", "l", ".", Some("l/"), "something else"),
    ];
    rows.into_iter().flatten().collect()
}

fn tars() -> Vec<Case> {
    let a = || file("a", "content");
    let long = |kind, name: &[u8]| Raw { content: [name, b"\0"].concat(), ..raw(kind, "././@LongLink") };
    vec![
        in_tar("NUL in an extended name", vec![pax(b'x', &[("path", "a\0b")]), a()], Refusal, "control"),
        in_tar("slash on a file", vec![file("a/", "x")], Refusal, "empty component"),
        // Links.
        in_tar("directory, then link", vec![dir("l"), link(b'2', "l", ".")], Refusal, "directory"),
        in_tar(
            "chain of links that leave together",
            vec![dir("d/s"), link(b'2', "d/s/u", "../.."), link(b'2', "o", "d/s/u/../canary")],
            Refusal,
            "out of the tree",
        ),
        in_tar(
            "chain below a link",
            vec![link(b'2', "a", "."), link(b'2', "a/b", "..")],
            Refusal,
            "below a link",
        ),
        in_tar(
            "extended link target",
            vec![pax(b'x', &[("linkpath", "../x")]), link(b'2', "l", "a")],
            Refusal,
            "out",
        ),
        in_tar(
            "long link target",
            vec![long(b'K', b"/etc/passwd"), link(b'2', "l", "a")],
            Refusal,
            "absolute",
        ),
        in_tar("hard link out", vec![link(b'1', "h", "../canary")], Refusal, "hard link leads out"),
        in_tar("hard link absolute", vec![link(b'1', "h", "/etc/passwd")], Refusal, "hard link leads out"),
        in_tar(
            "hard link to a link",
            vec![a(), link(b'2', "l", "a"), link(b'1', "h", "l")],
            Refusal,
            "before",
        ),
        in_tar("hard link to a directory", vec![dir("d"), link(b'1', "h", "d")], Refusal, "before"),
        in_tar("hard link to what follows", vec![link(b'1', "h", "a"), a()], Refusal, "before"),
        in_tar("hard link to itself", vec![link(b'1', "h", "h")], Refusal, "before"),
        in_tar("hard link to nothing", vec![link(b'1', "h", "none")], Refusal, "before"),
        in_tar(
            "hard link with content",
            vec![a(), Raw { content: b"x".to_vec(), ..link(b'1', "h", "a") }],
            Refusal,
            "only files have content",
        ),
        // Types.
        in_tar("character device", vec![raw(b'3', "dev")], Refusal, "devices"),
        in_tar("block device", vec![raw(b'4', "dev")], Refusal, "devices"),
        in_tar("pipe", vec![raw(b'6', "fifo")], Refusal, "pipes"),
        in_tar("socket", vec![raw(b's', "sock")], Refusal, "type is not known"),
        in_tar("contiguous", vec![raw(b'7', "c")], Refusal, "type is not known"),
        in_tar("GNU dump directory", vec![raw(b'D', "d")], Refusal, "type is not known"),
        in_tar("GNU multi-volume", vec![raw(b'M', "m")], Refusal, "type is not known"),
        in_tar("GNU volume", vec![raw(b'V', "v")], Refusal, "type is not known"),
        // Modes.
        in_tar("setuid", vec![a().mode(0o4755)], Refusal, "setuid"),
        in_tar("setgid", vec![dir("d").mode(0o2755)], Refusal, "setuid"),
        in_tar("sticky", vec![dir("d").mode(0o1777)], Refusal, "setuid"),
        in_tar("setuid on the root", vec![dir("./").mode(0o4777)], Refusal, "setuid"),
        in_tar(
            "capability",
            vec![pax(b'x', &[("SCHILY.xattr.security.capability", "x")]), a()],
            Refusal,
            "attributes",
        ),
        in_tar(
            "access list",
            vec![pax(b'x', &[("SCHILY.acl.access", "u::rwx")]), a()],
            Refusal,
            "access lists",
        ),
        in_tar("character set", vec![pax(b'x', &[("hdrcharset", "BINARY")]), a()], Refusal, "character sets"),
        // Order.
        in_tar("twice", vec![a(), a()], Refusal, "twice"),
        in_tar("twice, spelt differently", vec![a(), file("./a", "x")], Refusal, "twice"),
        in_tar("directory twice", vec![dir("d"), dir("d/")], Refusal, "twice"),
        in_tar("file, then directory", vec![a(), dir("a")], Refusal, "something else"),
        in_tar("directory, then file", vec![dir("a"), a()], Refusal, "directory"),
        in_tar("below a file", vec![a(), file("a/b", "x")], Refusal, "below a file"),
        // Sizes.
        in_tar("sparse", vec![raw(b'S', "s").size(b"\x80\0\0\0\0\0\x01\0\0\0\0\0")], Refusal, "sparse"),
        in_tar(
            "sparse of 1 TiB, extended",
            vec![pax(b'x', &[("GNU.sparse.major", "1"), ("GNU.sparse.realsize", "1099511627776")]), a()],
            Refusal,
            "sparse",
        ),
        in_tar("1 TiB", vec![a().size(b"\x80\0\0\0\0\0\x01\0\0\0\0\0")], Limit, "a file of"),
        in_tar("2^62", vec![a().size(b"\x80\0\0\0\x40\0\0\0\0\0\0\0")], Limit, "a file of"),
        in_tar("beyond 64 bits", vec![a().size(b"\x80\x01\0\0\0\0\0\0\0\0\0\0")], Damage, "impossible size"),
        in_tar("negative", vec![a().size([0xff; 12])], Damage, "impossible size"),
        in_tar("no number", vec![a().size(b"00000000zzz")], Damage, "impossible size"),
        in_tar("directory with content", vec![Raw { content: vec![1], ..dir("d") }], Refusal, "only files"),
        in_tar(
            "content behind a directory's size",
            vec![dir("d").size(b"00000001000"), file("x", "x")],
            Refusal,
            "only files",
        ),
        in_tar(
            "extended size differs",
            vec![pax(b'x', &[("size", "2048")]), a()],
            Refusal,
            "two sizes differ",
        ),
        in_tar(
            "extended size of nothing",
            vec![pax(b'x', &[("size", "0")]), a()],
            Refusal,
            "two sizes differ",
        ),
        in_tar("extended size negative", vec![pax(b'x', &[("size", "-1")]), a()], Damage, "impossible size"),
        in_tar("extended size twice", vec![pax(b'x', &[("size", "7"), ("size", "7")]), a()], Damage, "twice"),
        in_tar(
            "extended size on a long name",
            vec![pax(b'x', &[("size", "2048")]), long(b'L', b"n"), a()],
            Damage,
            "extended size",
        ),
        in_tar(
            "extended size on a long link",
            vec![pax(b'x', &[("size", "2048")]), long(b'K', b"n"), a()],
            Damage,
            "extended size",
        ),
        in_tar("long name of 1 MiB", vec![long(b'L', &[b'x'; 1 << 20]), a()], Limit, "name record"),
        in_tar(
            "long link of 1 MiB",
            vec![long(b'K', &[b'x'; 1 << 20]), link(b'2', "l", "a")],
            Limit,
            "name record",
        ),
        in_tar(
            "extended header of 2^62",
            vec![raw(b'x', "p").size(b"\x80\0\0\0\x40\0\0\0\0\0\0\0")],
            Limit,
            "record",
        ),
        // Records about records.
        in_tar("two long names", vec![long(b'L', b"n"), long(b'L', b"m"), a()], Damage, "two long names"),
        in_tar("header without entry", vec![pax(b'x', &[("path", "n")])], Damage, "has no entry"),
        in_tar("global path", vec![pax(b'g', &[("path", "../x")]), a()], Damage, "global header"),
        in_tar("global size", vec![pax(b'g', &[("size", "9")]), a()], Damage, "global header"),
        in_tar(
            "malformed extended header",
            vec![Raw { content: b"99 path=x\n".to_vec(), ..raw(b'x', "p") }, a()],
            Damage,
            "malformed",
        ),
    ]
}

fn zips() -> Vec<Case> {
    let a = || zipped("a", "content");
    let b = || zipped("b", "more content");
    let wide = |numbers: &[u64]| extra(1, &numbers.iter().flat_map(|n| n.to_le_bytes()).collect::<Vec<_>>());
    let ones = [0xff; 4];
    vec![
        in_zip("name not marked as UTF-8", vec![zipped("ä", "x").flags(0)], Refusal, "not marked"),
        in_zip("NUL in a name", vec![zipped("a\0b", "x")], Refusal, "control"),
        in_zip("second name", vec![a().extras(&extra(0x7075, b"\x01....../x"))], Refusal, "second name"),
        // Types and modes.
        in_zip("character device", vec![a().mode(0o020_644)], Refusal, "devices"),
        in_zip("block device", vec![a().mode(0o060_644)], Refusal, "devices"),
        in_zip("pipe", vec![a().mode(0o010_644)], Refusal, "pipes"),
        in_zip("socket", vec![a().mode(0o140_644)], Refusal, "type is not known"),
        in_zip("setuid", vec![a().mode(0o104_755)], Refusal, "setuid"),
        in_zip("setgid", vec![zipped_dir("d/").mode(0o042_755)], Refusal, "setuid"),
        in_zip("sticky, from another system", vec![a().mode(0o101_777).central(5, [0])], Refusal, "setuid"),
        in_zip("ASi Unix modes", vec![a().extras(&extra(0x756e, &[0; 14]))], Refusal, "second name, mode"),
        in_zip("file with the name of a directory", vec![zipped("a/", "x")], Refusal, "contradict"),
        in_zip("directory with the name of a file", vec![zipped_dir("d")], Refusal, "contradict"),
        in_zip(
            "DOS directory with content",
            vec![Zipped { dos: 0x10, ..a().mode(0) }],
            Refusal,
            "contradict",
        ),
        in_zip("directory with content", vec![zipped("d/", "x").mode(0)], Refusal, "only files have content"),
        in_zip(
            "link of 1 MiB",
            vec![zipped_link("l", &"x".repeat(1 << 20))],
            Refusal,
            "link target is too long",
        ),
        // Order.
        in_zip("twice", vec![a(), a()], Refusal, "twice"),
        in_zip("file, then directory", vec![a(), zipped_dir("a/")], Refusal, "something else"),
        in_zip("directory, then file", vec![zipped_dir("a/"), a()], Refusal, "directory"),
        in_zip("below a file", vec![a(), zipped("a/b", "x")], Refusal, "below a file"),
        // What two records say of one entry.
        in_zip("two names", vec![a().local(30, b"b")], Refusal, "different names"),
        in_zip("two methods", vec![a().local(8, [0, 0])], Refusal, "different methods"),
        in_zip("two sizes", vec![a().local(22, [9])], Refusal, "different sizes"),
        in_zip("two packed sizes", vec![a().local(18, [8])], Refusal, "different sizes"),
        in_zip("two checksums", vec![a().local(14, [0; 4])], Refusal, "different checksums"),
        in_zip("two flags", vec![a().local(6, [8, 8])], Refusal, "different flags"),
        in_zip("encrypted", vec![a().flags(UTF8 | 1)], Refusal, "encrypted"),
        in_zip("encrypted strongly", vec![a().flags(UTF8 | 1 << 6)], Refusal, "encrypted"),
        in_zip("masked", vec![a().flags(UTF8 | 1 << 13)], Refusal, "encrypted"),
        in_zip("patch", vec![a().flags(UTF8 | 1 << 5)], Refusal, "flags"),
        in_zip("AES", vec![a().both(10, [99])], Refusal, "method 99"),
        in_zip("bzip2", vec![a().both(10, [12])], Refusal, "method 12"),
        in_zip("LZMA", vec![a().both(10, [14])], Refusal, "method 14"),
        in_zip("stored in two sizes", vec![a().stored().both(24, [1])], Refusal, "stored"),
        in_zip("on another disk", vec![a().central(34, [1])], Refusal, "another disk"),
        in_zip("comment", vec![Zipped { comment: b"PK".to_vec(), ..a() }], Refusal, "comment"),
        in_zip("half an extra field", vec![a().extras(&[1, 0, 8, 0, 7])], Refusal, "malformed"),
        in_zip("descriptor of another size", vec![patched(a().streamed(), 12)], Refusal, "contradicts"),
        in_zip("descriptor of another checksum", vec![patched(a().streamed(), 4)], Refusal, "contradicts"),
        in_zip("descriptor without signature", vec![patched(a().streamed(), 0)], Refusal, "contradicts"),
        in_zip("flag without descriptor", vec![a().flags(UTF8 | DESCRIPTOR), b()], Refusal, "contradicts"),
        in_zip(
            "descriptor without flag",
            vec![Zipped { flags: UTF8, ..a().streamed() }],
            Refusal,
            "different sizes",
        ),
        // The data.
        in_zip("checksum", vec![Zipped { data: Some(deflate(b"Content")), ..a() }], Damage, "checksum"),
        in_zip(
            "checksum of a stored file",
            vec![Zipped { data: Some(b"Content".to_vec()), ..a().stored() }],
            Damage,
            "checksum",
        ),
        in_zip("no deflate stream", vec![Zipped { data: Some(vec![0xff; 9]), ..a() }], Damage, "no deflate"),
        in_zip("less than it says", vec![a().both(24, [8])], Damage, "less content"),
        in_zip("more than it says", vec![a().both(24, [6])], Damage, "more content"),
        in_zip("nothing by its size", vec![a().both(24, [0])], Damage, "more content"),
        in_zip(
            "more behind the stream",
            vec![Zipped { data: Some([deflate(b"content"), vec![0]].concat()), ..a() }],
            Damage,
            "more content",
        ),
        in_zip("1 KiB that is 64 MiB", vec![bomb().both(24, 1024_u32.to_le_bytes())], Damage, "more content"),
        in_zip("4 GiB", vec![a().both(24, [0xfe, 0xff, 0xff, 0xff])], Limit, "unpacks to more"),
        in_zip("2^62", vec![a().both(24, ones).extras(&wide(&[1 << 62]))], Limit, "unpacks to more"),
        in_zip(
            "beyond the directory",
            vec![a().stored().both(20, [0xff, 0xff]).both(24, [0xff, 0xff])],
            Damage,
            "runs into the directory",
        ),
        in_zip(
            "beyond 64 bits",
            vec![a().both(20, ones).extras(&wide(&[u64::MAX]))],
            Damage,
            "runs into the directory",
        ),
        // Where entries are.
        in_zip("overlapping: the same data", vec![a(), b().central(42, [0])], Damage, "overlap"),
        in_zip("overlapping: a header in a file", vec![nested(), a().central(42, [31])], Damage, "overlap"),
        in_zip("gap", vec![Zipped { after: b"hidden".to_vec(), ..a() }, b()], Damage, "gaps"),
        in_zip(
            "gap at the end",
            vec![Zipped { after: b"hidden".to_vec(), ..a() }],
            Damage,
            "between its entries and",
        ),
        in_zip("no header", vec![a().local(0, b"XX")], Damage, "no header"),
        in_zip("no record", vec![a(), b().central(0, b"XX")], Damage, "no record"),
        // zip64 numbers.
        in_zip("zip64 missing", vec![a().both(24, ones)], Damage, "lacks its zip64"),
        in_zip("zip64 not called for", vec![a().extras(&wide(&[7]))], Damage, "contradict its short"),
        in_zip(
            "zip64 twice",
            vec![a().extras(&[wide(&[]), wide(&[])].concat())],
            Damage,
            "zip64 numbers twice",
        ),
        in_zip(
            "zip64 too short",
            vec![a().both(24, ones).extras(&extra(1, &[0; 7]))],
            Damage,
            "lacks its zip64",
        ),
        in_zip(
            "zip64 of another size here than there",
            vec![Zipped { local_extra: wide(&[8]), central_extra: wide(&[7]), ..a().both(24, ones) }],
            Refusal,
            "different sizes",
        ),
        in_zip(
            "zip64 offset elsewhere",
            vec![Zipped { central_extra: wide(&[1]), ..a().central(42, ones) }],
            Damage,
            "overlap",
        ),
    ]
}

/// The end records of a zip, which say where everything is.
fn ends() -> Vec<Case> {
    let zip = Zip::new(&[zipped("a", "content"), zipped("b", "more")]);
    let whole = zip.bytes();
    let (body, directory) = (size(&zip.body), size(&zip.directory));
    let with_end = |end: Vec<u8>| [&zip.body[..], &zip.directory, &end].concat();
    let patched_end = |at: usize, value: u8| {
        let mut end = zip.end();
        end[at] = value;
        with_end(end)
    };
    let commented = {
        let mut data = patched_end(20, 4);
        data.extend(b"PK\x05\x06");
        data
    };
    // An end record in the comment of an end record: programs take the one or the other.
    let two_ends = {
        let mut end = zip.end();
        end[20] = 22;
        [with_end(end), zip.end()].concat()
    };
    let wide = |at, bytes: &[u8]| zip.wide_lie(at, bytes);
    // Only the locator says zip64; the end record is complete by itself.
    let half = [&zip.body[..], &zip.directory, &zip.wide_end()[56..], &zip.end()].concat();
    let other_count =
        [&zip.body[..], &zip.directory, &zip.wide_end(), &zip.end_with(3, directory, body)].concat();
    let too_few = with_end(zip.end_with(1, directory, body));
    vec![
        of_zip("empty", vec![], Damage, "too short"),
        of_zip("a page", b"<!DOCTYPE html><html>not found</html>".to_vec(), Damage, "end record"),
        of_zip("tar.gz", gz(&tar(&[file("a", "x")])), Damage, "end record"),
        of_zip("something in front", [b"#!/bin/sh\n", &whole[..]].concat(), Damage, "in front of its end"),
        of_zip("something behind", [&whole[..], b"x"].concat(), Damage, "end record"),
        of_zip("a zip behind a zip", [&whole[..], &whole].concat(), Damage, "in front of its end"),
        of_zip("comment", commented, Damage, "end record"),
        of_zip("two end records", two_ends, Damage, "in front of its end"),
        of_zip("disk", patched_end(4, 1), Damage, "part of several"),
        of_zip("disk of the directory", patched_end(6, 1), Damage, "part of several"),
        of_zip("two counts", patched_end(8, 1), Damage, "two counts"),
        of_zip("one entry less", too_few, Damage, "more than it counts"),
        of_zip("one entry more", with_end(zip.end_with(3, directory, body)), Damage, "too early"),
        of_zip(
            "directory elsewhere",
            with_end(zip.end_with(2, directory, body - 1)),
            Damage,
            "in front of its end",
        ),
        of_zip(
            "directory longer",
            with_end(zip.end_with(2, directory + 1, body)),
            Damage,
            "in front of its end",
        ),
        of_zip("all ones", with_end(zip.end_with(2, u32::MAX, u32::MAX)), Damage, "in front of its end"),
        of_zip("locator without a record", half, Damage, "zip64"),
        of_zip("zip64 count against the short one", other_count, Damage, "zip64"),
        of_zip("zip64 of another version", wide(4, &[45]), Damage, "zip64"),
        of_zip("zip64 disk", wide(16, &[1]), Damage, "zip64"),
        of_zip("zip64 disk of the directory", wide(20, &[1]), Damage, "zip64"),
        of_zip("zip64 two counts", wide(24, &[1]), Damage, "zip64"),
        of_zip("zip64 size", wide(40, &[1]), Damage, "in front of its end"),
        of_zip("zip64 start", wide(48, &[0]), Damage, "in front of its end"),
        of_zip("zip64 beyond 64 bits", wide(40, &[0xff; 16]), Damage, "in front of its end"),
        of_zip("locator elsewhere", wide(56 + 8, &[0]), Damage, "zip64"),
        of_zip("locator of several disks", wide(56 + 16, &[2]), Damage, "zip64"),
        of_zip(
            "2^62 entries",
            wide(24, &[2, 0, 0, 0, 0, 0, 0, 0x40, 2, 0, 0, 0, 0, 0, 0, 0x40]),
            Limit,
            "entries",
        ),
    ]
}

/// With a zip of its own as stored content.
fn nested() -> Zipped {
    zipped("n", zip(&[zipped("a", "content")])).stored()
}

fn bomb() -> Zipped {
    zipped("zeros", vec![0; 64 << 20])
}

/// With another byte in its descriptor.
fn patched(mut entry: Zipped, at: usize) -> Zipped {
    entry.after[at] ^= 1;
    entry
}

fn size(bytes: &[u8]) -> u32 {
    u32::try_from(bytes.len()).unwrap()
}

#[test]
fn every_hostile_archive_is_refused_and_nothing_gets_out() {
    let cases = [names(), tars(), zips(), ends()];
    for case in cases.iter().flatten() {
        case.check(&Limits::default());
    }
}

#[test]
fn bombs_end_at_a_ceiling() {
    let zeros = || file("zeros", vec![0; 1 << 20]);
    let small = Limits { total_bytes: 1 << 20, ..Limits::default() };
    let one = Limits { file_bytes: 1000, ..Limits::default() };
    let few = Limits { entries: 3, ..Limits::default() };
    let tiny = Limits { total_bytes: 4096, ..small };
    let dirs = || (0..100).map(|number| dir(&format!("d{number}"))).collect();
    let zipped_dirs = || (0..100).map(|number| zipped_dir(&format!("d{number}/"))).collect();
    let thousand = || (0..1000).map(|number| zipped(format!("{number}"), vec![0; 2000])).collect();
    // In total allowed, refused for their ratio: above 64 MiB no more than a hundredfold.
    let seventy = tar(&[file("zeros", vec![0; 70 << 20])]);
    let whole = |name: &str, media_type, data| Case {
        name: name.to_owned(),
        media_type,
        data,
        class: Limit,
        words: "unpacks to more",
    };
    for (case, limits) in [
        (in_tar("total", vec![zeros()], Limit, "unpacks to more"), small),
        (in_tar("file", vec![zeros()], Limit, "a file of"), one),
        (in_tar("entries", dirs(), Limit, "entries"), few),
        (in_tar("headers count too", dirs(), Limit, "unpacks to more"), tiny),
        (in_zip("total", vec![zipped("zeros", vec![0; 1 << 20])], Limit, "unpacks to more"), small),
        (in_zip("file", vec![zipped("zeros", vec![0; 1 << 20])], Limit, "a file of"), one),
        (in_zip("entries", zipped_dirs(), Limit, "entries"), few),
        (in_zip("headers count too", zipped_dirs(), Limit, "unpacks to more"), tiny),
        (in_zip("many, each below", thousand(), Limit, "unpacks to more"), small),
        (
            in_zip("ratio", vec![bomb(), Zipped { name: b"2".to_vec(), ..bomb() }], Limit, "unpacks to more"),
            Limits::default(),
        ),
        (whole("gzip ratio", MediaType::TarGz, gz(&seventy)), Limits::default()),
        (whole("zstd ratio", MediaType::TarZst, zst(&seventy)), Limits::default()),
        (whole("xz ratio", MediaType::TarXz, xz(&seventy)), Limits::default()),
    ] {
        case.check(&limits);
    }
}

#[test]
fn an_archive_in_an_archive_is_only_a_file() {
    let bench = Bench::new();
    let inner = gz(&tar(&[file("../canary", "x")]));
    bench.gz(&[file("inner.tar.gz", inner)], 0).unwrap();
    assert_eq!(listing(&bench.dest()), ["inner.tar.gz"]);
    bench.assert_contained("nested", true);
}
