//! What the index of mods, a snapshot and the gathering cost: 300 mods, 800 classes each,
//! every tenth with twenty jars within, 3,000 configuration files.
//!
//! `cargo bench -p zlh-crash --bench index`

#![allow(clippy::print_stdout, clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::fs;
use std::io::{Cursor, Write};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant, SystemTime};

use zip::ZipWriter;
use zip::write::SimpleFileOptions;
use zlh_crash::changes::{Snapshot, SnapshotLimits};
use zlh_crash::gather::{Run, gather};
use zlh_crash::{AddonIndex, AddonLookup, Limits};

fn main() {
    if let Some(root) = std::env::args().nth(1).filter(|argument| argument.starts_with('/')) {
        return measure(Path::new(&root));
    }
    let dir = tempfile::tempdir().unwrap();
    let bytes = build(dir.path());
    println!("{JARS} jars, {} MiB, and {CONFIGS} configuration files", bytes >> 20);
    // A process of its own, whose memory is that of the index.
    Command::new(std::env::current_exe().unwrap()).arg(dir.path()).status().unwrap();
}

fn measure(root: &Path) {
    let before = resident();
    let mut index = AddonIndex::default();
    forget(&root.join("mods"));
    let (scan, cold) = timed(|| index.rescan(root, &Limits::default()).unwrap());
    println!("index, cold page cache:      {cold:?} ({scan:?})");
    println!("resident memory for it:      {} KiB, peak {} KiB", resident() - before, peak() - before);
    let (_, warm) = timed(|| AddonIndex::default().rescan(root, &Limits::default()).unwrap());
    println!("index, warm page cache:      {warm:?}");
    let (scan, again) = timed(|| index.rescan(root, &Limits::default()).unwrap());
    println!("rescan, nothing changed:     {again:?} ({} opened)", scan.opened);
    fs::write(root.join("mods/7.jar"), jar(7)).unwrap();
    let (scan, one) = timed(|| index.rescan(root, &Limits::default()).unwrap());
    println!("rescan, one jar changed:     {one:?} ({} opened)", scan.opened);
    let (kept, wrote) = timed(|| serde_json::to_vec(&index).unwrap());
    let (_, read) = timed(|| serde_json::from_slice::<AddonIndex>(&kept).unwrap());
    println!("kept as JSON:                {} KiB, written in {wrote:?}, read in {read:?}", kept.len() >> 10);
    let (found, ask) = timed(|| (0..1_000).map(|_| index.owners_of_package("m8.p3.C").len()).sum::<usize>());
    println!("owners of a package:         {:?} ({} found)", ask / 1_000, found / 1_000);
    let take =
        |before| Snapshot::take(root, &index, BTreeMap::new(), before, &SnapshotLimits::default()).unwrap();
    let (first, took) = timed(|| take(None));
    println!("snapshot, the first:         {took:?} ({} files)", first.len());
    let (second, took) = timed(|| take(Some(&first)));
    println!("snapshot, nothing changed:   {took:?}");
    let (kept, _) = timed(|| serde_json::to_vec(&first).unwrap());
    let (changes, took) = timed(|| first.diff(&second));
    println!(
        "diff:                        {took:?} ({} changes), kept as {} KiB",
        changes.changes.len(),
        kept.len() >> 10
    );
    let now = SystemTime::now();
    let run =
        Run { started: now - Duration::from_secs(600), ended: now, pids: &[1], arguments: &[], console: &[] };
    let (gathered, took) = timed(|| gather(root, &run).unwrap());
    println!("gather:                      {took:?} ({} reports of 2,000)", gathered.reports.len());
}

fn timed<T>(work: impl FnOnce() -> T) -> (T, Duration) {
    let started = Instant::now();
    let done = work();
    (done, started.elapsed())
}

fn build(root: &Path) -> usize {
    let mut bytes = 0;
    fs::create_dir_all(root.join("mods")).unwrap();
    for at in 0..JARS {
        let jar = jar(at);
        bytes += jar.len();
        fs::write(root.join(format!("mods/{at}.jar")), jar).unwrap();
    }
    fs::create_dir_all(root.join("config")).unwrap();
    for at in 0..CONFIGS {
        fs::write(root.join(format!("config/{at}.toml")), format!("value = {at}\n").repeat(40)).unwrap();
    }
    fs::create_dir_all(root.join("crash-reports")).unwrap();
    for at in 0..2_000 {
        fs::write(root.join(format!("crash-reports/crash-{at}-server.txt")), "x".repeat(10_000)).unwrap();
    }
    bytes
}

fn jar(at: usize) -> Vec<u8> {
    let mut classes: Vec<(String, Vec<u8>)> = (0..800)
        .map(|class| (format!("m{at}/p{}/Some$Class{class}.class", class / 10), content(class)))
        .collect();
    let manifest = format!(
        "modLoader=\"javafml\"\n[[mods]]\nmodId=\"m{at}\"\nversion=\"1.{at}\"\ndescription='''{}'''\n",
        "words ".repeat(100)
    );
    classes.push(("META-INF/mods.toml".to_owned(), manifest.into_bytes()));
    for nested in 0..if at.is_multiple_of(10) { 20 } else { 0 } {
        let manifest = format!(r#"{{"id":"n{at}x{nested}","version":"1"}}"#).into_bytes();
        let mut inner: Vec<(String, Vec<u8>)> =
            (0..50).map(|class| (format!("n{at}/x{nested}/C{class}.class"), content(class))).collect();
        inner.push(("fabric.mod.json".to_owned(), manifest));
        classes.push((format!("META-INF/jarjar/{nested}.jar"), pack(&inner)));
    }
    pack(&classes)
}

fn content(seed: usize) -> Vec<u8> {
    let mut state = seed as u64 | 1;
    let next = || {
        state = state.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(1);
        (state >> 56) as u8
    };
    std::iter::repeat_with(next).take(600).collect()
}

fn pack(entries: &[(String, Vec<u8>)]) -> Vec<u8> {
    let mut writer = ZipWriter::new(Cursor::new(Vec::new()));
    for (name, content) in entries {
        writer.start_file(name.as_str(), SimpleFileOptions::default()).unwrap();
        writer.write_all(content).unwrap();
    }
    writer.finish().unwrap().into_inner()
}

/// Drops a folder's files from the page cache.
fn forget(dir: &Path) {
    for entry in fs::read_dir(dir).unwrap().flatten() {
        let file = fs::File::open(entry.path()).unwrap();
        file.sync_all().unwrap();
        rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed).unwrap();
    }
}

fn resident() -> usize {
    status("VmRSS:")
}

fn peak() -> usize {
    status("VmHWM:")
}

/// KiB.
fn status(key: &str) -> usize {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(key)).unwrap();
    line.trim_end_matches("kB").trim().parse().unwrap()
}

const JARS: usize = 300;
const CONFIGS: usize = 3_000;
