//! Archives made by the programs that publishers use unpack to what these programs give.
//!
//! `tar`, `xz` and `python3` have to be there: a test that passes without them proves
//! nothing.

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use zlh_artifacts::Limits;
use zlh_catalog::MediaType::{self, TarGz, TarXz, TarZst, Zip};

use crate::bench::Bench;

/// Path to type, mode as it is normalised, content or target.
fn tree(root: &Path) -> BTreeMap<String, (char, u32, Vec<u8>)> {
    fn walk(root: &Path, dir: &Path, out: &mut BTreeMap<String, (char, u32, Vec<u8>)>) {
        for entry in std::fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            let meta = path.symlink_metadata().unwrap();
            let mode = if meta.permissions().mode() & 0o111 == 0 { 0o644 } else { 0o755 };
            let what = if meta.is_dir() {
                walk(root, &path, out);
                ('d', 0o755, Vec::new())
            } else if meta.is_symlink() {
                let target = std::fs::read_link(&path).unwrap();
                ('l', 0, target.into_os_string().into_encoded_bytes())
            } else {
                ('f', mode, std::fs::read(&path).unwrap())
            };
            out.insert(path.strip_prefix(root).unwrap().to_str().unwrap().to_owned(), what);
        }
    }
    let mut out = BTreeMap::new();
    walk(root, root, &mut out);
    out
}

/// What a release has, and what is at the edges of the formats.
fn source(root: &Path, links: bool) {
    let long = format!("lib/{}/{}", "d".repeat(120), "f".repeat(200));
    std::fs::create_dir_all(root.join(&long).parent().unwrap()).unwrap();
    std::fs::create_dir_all(root.join("bin")).unwrap();
    std::fs::create_dir_all(root.join("empty/below")).unwrap();
    let noise: Vec<u8> = (0_u32..700_000).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    for (path, content, mode) in [
        ("README", &b"hello"[..], 0o644),
        ("nothing", b"", 0o600),
        ("bin/run", b"#!/bin/sh\n", 0o755),
        ("bin/owner only", b"#!/bin/sh\n", 0o700),
        ("lib/zeros", &[0; 300_000], 0o664),
        ("lib/noise", &noise, 0o444),
        ("lib/README", b"HELLO", 0o644),
        ("lib/readme", b"case", 0o644),
        ("lib/grün ☕.txt", "drei Zeichen".as_bytes(), 0o644),
        (&long, b"long", 0o644),
    ] {
        std::fs::write(root.join(path), content).unwrap();
        std::fs::set_permissions(root.join(path), std::fs::Permissions::from_mode(mode)).unwrap();
    }
    if links {
        std::os::unix::fs::symlink("../bin/run", root.join("lib/run")).unwrap();
        std::os::unix::fs::symlink("lib", root.join("alias")).unwrap();
        std::fs::hard_link(root.join("README"), root.join("README.twin")).unwrap();
    }
}

fn run(program: &str, arguments: &[&str], dir: &Path) {
    let output = Command::new(program).args(arguments).current_dir(dir).env("LC_ALL", "C.UTF-8").output();
    let output = output.unwrap_or_else(|error| panic!("`{program}` is needed for this test: {error}"));
    assert!(output.status.success(), "{program} {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
}

/// Unpacks `archive` both ways and compares.
fn assert_same(case: &str, archive: &Path, media_type: MediaType, theirs: &Path) {
    let bench = Bench::new();
    let data = std::fs::read(archive).unwrap();
    let done = bench
        .unpack(&data, media_type, 0, &Limits::default())
        .unwrap_or_else(|error| panic!("{case}: {}", crate::support::chain(&error)));
    bench.assert_contained(case, true);
    let (ours, theirs) = (tree(&bench.dest()), tree(theirs));
    let names = |tree: &BTreeMap<_, _>| tree.keys().cloned().collect::<Vec<String>>();
    assert_eq!(names(&ours), names(&theirs), "{case}");
    for (path, what) in &ours {
        assert!(*what == theirs[path], "{case}: {path} is not the same");
    }
    let bytes: usize =
        ours.values().filter(|(kind, ..)| *kind == 'f').map(|(.., content)| content.len()).sum();
    assert!(done.bytes <= bytes as u64 && !ours.is_empty(), "{case}: {done:?}, {bytes}");
}

#[test]
fn archives_of_gnu_tar_and_xz() {
    let temp = tempfile::tempdir().unwrap();
    let dir = temp.path();
    std::fs::create_dir(dir.join("src")).unwrap();
    source(&dir.join("src"), true);
    for format in ["gnu", "pax", "posix"] {
        run("tar", &["-C", "src", &format!("--format={format}"), "-cf", "plain.tar", "."], dir);
        run("tar", &["-C", "src", &format!("--format={format}"), "-czf", "a.tar.gz", "."], dir);
        for (how, archive, media_type) in [
            (&["gzip", "-kf9", "plain.tar"][..], "plain.tar.gz", TarGz),
            (&["xz", "-kf", "plain.tar"], "plain.tar.xz", TarXz),
            (&["xz", "-kf9", "--check=sha256", "plain.tar"], "plain.tar.xz", TarXz),
            (&["xz", "-kf0", "--check=crc32", "plain.tar"], "plain.tar.xz", TarXz),
            (&["xz", "-kf0", "-T2", "--block-size=64KiB", "plain.tar"], "plain.tar.xz", TarXz),
            (&["xz", "-kf", "--x86", "--lzma2", "plain.tar"], "plain.tar.xz", TarXz),
            (&["true"], "a.tar.gz", TarGz),
        ] {
            run(how[0], &how[1..], dir);
            let theirs = dir.join("theirs");
            std::fs::create_dir(&theirs).unwrap();
            run("tar", &["-C", "theirs", "-xf", archive], dir);
            assert_same(&format!("{format} {how:?}"), &dir.join(archive), media_type, &theirs);
            std::fs::remove_dir_all(&theirs).unwrap();
        }
    }
    // Our own encoder stands in for a zstd program, which few machines have.
    let data = crate::support::zst(&std::fs::read(dir.join("plain.tar")).unwrap());
    std::fs::write(dir.join("plain.tar.zst"), data).unwrap();
    assert_same("zstd", &dir.join("plain.tar.zst"), TarZst, &dir.join("src"));
}

#[test]
fn zip_archives_of_python() {
    let temp = tempfile::tempdir().unwrap();
    let dir = temp.path();
    std::fs::create_dir(dir.join("src")).unwrap();
    source(&dir.join("src"), false);
    std::fs::write(dir.join("make.py"), MAKE).unwrap();
    for form in ["deflated", "stored", "streamed", "zip64", "streamed zip64", "module"] {
        let theirs = dir.join("theirs");
        run("python3", &["make.py", form], dir);
        // Python gives no modes, so what it was made from is compared as well.
        assert_same(form, &dir.join("a.zip"), Zip, &dir.join("src"));
        let contents = |root: &Path| {
            tree(root).into_iter().map(|(path, (kind, _, content))| (path, kind, content)).collect::<Vec<_>>()
        };
        assert!(contents(&theirs) == contents(&dir.join("src")), "{form}: Python reads it differently");
        std::fs::remove_dir_all(&theirs).unwrap();
    }
}

/// Makes `a.zip` of `src` in one of the forms there are, and unpacks it to `theirs`.
const MAKE: &str = r#"
import io, os, shutil, sys, zipfile

form = sys.argv[1]

class Pipe(io.RawIOBase):
    """A file that cannot seek: sizes come behind the data."""
    def __init__(self, file): self.file = file
    def writable(self): return True
    def write(self, data): return self.file.write(data)

def write(out):
    method = zipfile.ZIP_STORED if form == "stored" else zipfile.ZIP_DEFLATED
    with zipfile.ZipFile(out, "w", method) as archive:
        for top, folders, files in os.walk("src"):
            for name in sorted(folders):
                archive.write(os.path.join(top, name), os.path.relpath(os.path.join(top, name), "src"))
            for name in sorted(files):
                path = os.path.join(top, name)
                info = zipfile.ZipInfo.from_file(path, os.path.relpath(path, "src"))
                info.compress_type = method
                with open(path, "rb") as source:
                    with archive.open(info, "w", force_zip64="zip64" in form) as target:
                        shutil.copyfileobj(source, target)

if form == "module":
    shutil.make_archive("a", "zip", "src")
else:
    with open("a.zip", "wb") as file:
        write(Pipe(file) if "streamed" in form else file)
zipfile.ZipFile("a.zip").extractall("theirs")
"#;
