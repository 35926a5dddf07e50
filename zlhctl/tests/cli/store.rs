//! A store from folder to agents: packed, linted, signed, proved.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, BufReader};

use crate::{Ran, ran, zlhctl};

struct Bench {
    folder: tempfile::TempDir,
    catalog: Value,
}

impl Bench {
    /// A store with a runtime whose program answers, and a server's jar.
    async fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut bench = Self { folder, catalog: Value::Null };
        fs::create_dir_all(bench.path("jre/bin")).unwrap();
        fs::create_dir_all(bench.path("store/java")).unwrap();
        bench.program("#!/bin/sh\necho 21\n", 0o755);
        let archive = bench.pack().await;
        fs::write(bench.path("store/server.jar"), "not really a jar").unwrap();
        let (size, sha256) = zlh_artifacts::hash_file(&bench.path("store/server.jar")).unwrap();
        bench.catalog = json!({
            "schema": 1, "serial": 7, "issued": "2026-01-02T03:04:05Z",
            "runtimes": [{ "id": "java", "versions": [
                { "version": "21.0.3", "archive": archive, "executables": { "java": "bin/java" } }] }],
            "games": [{ "id": "minecraft", "variants": [{ "id": "paper", "versions": [
                { "version": "1.21.7", "requires": { "runtime": "java", "version": "21" }, "files": [
                    { "path": "server.jar", "size": size, "sha256": sha256, "media_type": "application/java-archive" }] }] }] }],
        });
        bench.publish();
        let keys = bench.run(&["catalog", "keygen"]).await;
        fs::write(bench.path("catalog.pub"), keys.out).unwrap();
        let signed = bench.run(&["catalog", "sign", "store/catalog.json"]).await;
        assert_eq!(signed.code, 0, "{}", signed.err);
        bench
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn program(&self, text: &str, mode: u32) {
        let program = self.path("jre/bin/java");
        fs::write(&program, text).unwrap();
        fs::set_permissions(&program, fs::Permissions::from_mode(mode)).unwrap();
    }

    /// The archive as the catalog has to tell it.
    async fn pack(&self) -> Value {
        let packed = self.run(&["artifacts", "pack", "jre", "--out", "store/java/21.tar.zst"]).await;
        assert_eq!(packed.code, 0, "{}", packed.err);
        let mut archive: Value = serde_json::from_str(&packed.out).unwrap();
        archive["path"] = "java/21.tar.zst".into();
        archive
    }

    fn publish(&self) {
        fs::write(self.path("store/catalog.json"), self.catalog.to_string()).unwrap();
    }

    async fn run(&self, args: &[&str]) -> Ran {
        let fleet = self.path("fleet.toml");
        ran(zlhctl(&fleet, args)
            .env("PATH", "/usr/bin:/bin")
            .current_dir(self.folder.path())
            .output()
            .await
            .unwrap())
    }

    /// What is said of each file that an agent would not take.
    async fn defects(&self, more: &[&str]) -> Vec<(String, String)> {
        let all = self.run(&[&["artifacts", "verify", "store", "-o", "json"][..], more].concat()).await;
        let told: Value =
            serde_json::from_str(&all.out).unwrap_or_else(|_| panic!("{} {}", all.out, all.err));
        assert_eq!(told["ok"], all.code == 0, "{told}");
        let bad = told["files"].as_array().unwrap().iter().filter(|one| one["ok"] == false);
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        bad.map(|one| (text(&one["path"]), text(&one["defect"]))).collect()
    }
}

#[tokio::test]
async fn what_was_packed_is_what_is_proved() {
    let bench = Bench::new().await;
    let again = bench.pack().await;
    let archive = &bench.catalog["runtimes"][0]["versions"][0]["archive"];
    assert_eq!(&again, archive, "the same folder gives the same bytes");
    let proved = bench
        .run(&["artifacts", "verify", "store", "--key", "catalog.pub", "--run", "--junit", "r.xml"])
        .await;
    assert_eq!(proved.code, 0, "{} {}", proved.out, proved.err);
    assert!(proved.err.contains("all 2 files") && !proved.err.contains("not checked"), "{}", proved.err);
    assert!(
        proved.out.contains("minecraft/paper 1.21.7") && proved.out.contains("java 21.0.3"),
        "{}",
        proved.out
    );
    let report = fs::read_to_string(bench.path("r.xml")).unwrap();
    assert!(report.contains("tests=\"2\" failures=\"0\""), "{report}");
    let unsigned = bench.run(&["artifacts", "verify", "store"]).await;
    assert!(unsigned.code == 0 && unsigned.err.contains("was not checked"), "{}", unsigned.err);
}

#[tokio::test]
async fn every_way_to_be_wrong_is_named() {
    let mut bench = Bench::new().await;
    let jar = bench.path("store/server.jar");
    fs::write(&jar, "not really a jaR").unwrap();
    assert!(
        matches!(&bench.defects(&[]).await[..], [(path, why)] if path == "server.jar" && why.contains("SHA-256"))
    );
    fs::write(&jar, "short").unwrap();
    assert!(matches!(&bench.defects(&[]).await[..], [(_, why)] if why.contains("5 bytes")));
    fs::remove_file(&jar).unwrap();
    assert!(matches!(&bench.defects(&[]).await[..], [(_, why)] if why.contains("not there")));
    std::os::unix::fs::symlink("/etc/passwd", &jar).unwrap();
    assert!(matches!(&bench.defects(&[]).await[..], [(_, why)] if why.contains("regular file")));
    fs::remove_file(&jar).unwrap();
    fs::write(&jar, "not really a jar").unwrap();
    for (text, mode, more, expected) in [
        ("#!/bin/sh\nexit 3\n", 0o755, &["--run"][..], "bin/java -version` failed"),
        ("#!/bin/sh\n", 0o644, &[], "not marked executable"),
        ("neither", 0o755, &[], "neither a program nor a script"),
    ] {
        bench.program(text, mode);
        bench.catalog["runtimes"][0]["versions"][0]["archive"] = bench.pack().await;
        bench.publish();
        let defects = bench.defects(more).await;
        assert!(
            matches!(&defects[..], [(path, why)] if path == "java/21.tar.zst" && why.contains(expected) && why.contains("java 21.0.3")),
            "{defects:?}"
        );
    }
    // It finds what lies beside it.
    bench.program("#!/bin/sh\ncase $PATH in \"${0%/*}\":*) ;; *) exit 4 ;; esac\n", 0o755);
    bench.catalog["runtimes"][0]["versions"][0]["archive"] = bench.pack().await;
    bench.publish();
    assert_eq!(bench.defects(&["--run"]).await, []);
    bench.program("#!/bin/sh\necho 21\n", 0o755);
    let mut archive = bench.pack().await;
    assert!(archive["tree_sha256"].as_str().is_some_and(|hash| hash.len() == 64), "{archive}");
    archive["tree_sha256"] = "ab".repeat(32).into();
    bench.catalog["runtimes"][0]["versions"][0]["archive"] = archive;
    bench.publish();
    let defects = bench.defects(&[]).await;
    assert!(
        matches!(&defects[..], [(path, why)] if path == "java/21.tar.zst" && why.contains("`tree_sha256` is") && why.contains("says abab")),
        "{defects:?}"
    );
    // The catalog was changed since it was signed.
    let forged = bench.run(&["artifacts", "verify", "store", "--key", "catalog.pub"]).await;
    assert!(forged.code == 1 && forged.err.contains("sign"), "{}", forged.err);
    let nowhere = bench.run(&["artifacts", "verify", "nowhere"]).await;
    assert!(nowhere.code == 1 && nowhere.err.contains("no folder"), "{}", nowhere.err);
}

#[tokio::test]
async fn a_server_is_proved_as_an_agent_would_see_it() {
    let bench = Bench::new().await;
    let mut server =
        zlhctl(&bench.path("fleet.toml"), &["artifacts", "serve", "store", "--listen", "127.0.0.1:0"])
            .current_dir(bench.folder.path())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
    let line = BufReader::new(server.stderr.take().unwrap()).lines().next_line().await.unwrap().unwrap();
    let url = line
        .split_whitespace()
        .find(|word| word.starts_with("http://"))
        .unwrap()
        .trim_end_matches(';')
        .to_owned();
    let proved = bench.run(&["artifacts", "verify", &url, "--key", "catalog.pub", "--run"]).await;
    assert_eq!(proved.code, 0, "{} {}", proved.out, proved.err);
    fs::write(bench.path("store/server.jar"), "not really a jaR").unwrap();
    let bad = bench.run(&["artifacts", "verify", &url]).await;
    assert_eq!(bad.code, 1);
    assert!(bad.out.contains("server.jar") && bad.out.contains("refused"), "{}", bad.out);
    server.kill().await.unwrap();
}

/// Agents refuse everything when they cannot follow the lists of keys.
#[tokio::test]
async fn the_lists_of_keys_are_proved_as_agents_follow_them() {
    let bench = Bench::new().await;
    let run = async |args: &[&str]| bench.run(args).await;
    let verify =
        async |key: &str| run(&["artifacts", "verify", "store", "--key", key, "--junit", "r.xml"]).await;
    let keys = run(&["catalog", "keygen", "--out", "new.key"]).await;
    fs::write(bench.path("new.pub"), &keys.out).unwrap();
    let added = run(&["catalog", "rotate", "store", "--key", "catalog.key", "--add", "new.pub"]).await;
    assert_eq!(added.code, 0, "{}", added.err);
    assert_eq!(run(&["catalog", "sign", "store/catalog.json", "--key", "new.key"]).await.code, 0);
    let proved = verify("catalog.pub").await;
    assert_eq!(proved.code, 0, "the key that agents were given leads to the new one: {}", proved.err);
    let later = verify("new.pub").await;
    assert!(later.code == 1 && later.err.contains("keys/2.json"), "agents begin with list 1: {}", later.err);
    assert!(later.err.contains("hint: is --key the key that agents are configured with?"), "{}", later.err);
    let (list, signature) = (bench.path("store/keys/2.json"), bench.path("store/keys/2.json.minisig"));
    let (right, signed) = (fs::read_to_string(&list).unwrap(), fs::read(&signature).unwrap());
    for broken in ["{}".to_owned(), right.replace('R', "S"), right.replace("\"serial\": 2", "\"serial\": 3")]
    {
        fs::write(&list, broken).unwrap();
        let refused = verify("catalog.pub").await;
        assert!(
            refused.code == 1 && refused.err.contains("refuse the list of keys `keys/2.json`"),
            "{}",
            refused.err
        );
        let report = fs::read_to_string(bench.path("r.xml")).unwrap();
        assert!(report.contains("failures=\"1\"") && report.contains("keys/2.json"), "{report}");
    }
    fs::write(&list, &right).unwrap();
    fs::remove_file(&signature).unwrap();
    for more in [&["--key", "catalog.pub"][..], &[]] {
        let unsigned = run(&[&["artifacts", "verify", "store"][..], more].concat()).await;
        assert!(
            unsigned.code == 1 && unsigned.err.contains("has no `keys/2.json.minisig`"),
            "{}",
            unsigned.err
        );
    }
    fs::write(&signature, signed).unwrap();
    assert_eq!(verify("catalog.pub").await.code, 0);
}

#[tokio::test]
async fn a_catalog_that_is_too_old_does_not_pass_the_gate() {
    let mut bench = Bench::new().await;
    bench.catalog["issued"] = "2020-01-02T03:04:05Z".into();
    let now = jiff::Timestamp::now();
    for (days, fatal) in [(-3, false), (-8, true)] {
        let expires = now.checked_add(jiff::SignedDuration::from_hours(days * 24)).unwrap();
        bench.catalog["expires"] = expires.to_string().into();
        bench.publish();
        let day = format!("expired on {expires:.0}");
        let ran = bench.run(&["artifacts", "verify", "store", "-o", "json", "--junit", "r.xml"]).await;
        let told: Value = serde_json::from_str(&ran.out).unwrap();
        let report = fs::read_to_string(bench.path("r.xml")).unwrap();
        assert!(ran.code == i32::from(fatal) && told["ok"] == !fatal, "{told}");
        assert!(report.contains(&day) && report.contains("<failure") == fatal, "{report}");
        let warned =
            told["warnings"].as_array().unwrap().iter().any(|one| one.as_str().unwrap().contains(&day));
        assert!(
            warned != fatal && ran.err.contains(&format!("the catalog {day}")) != fatal,
            "{told} {}",
            ran.err
        );
        let defects = bench.defects(&[]).await;
        let named = matches!(&defects[..], [(path, why)] if path == "catalog.json" && why.contains(&day));
        assert_eq!(named, fatal, "{defects:?}");
        let lint = bench.run(&["catalog", "lint", "store/catalog.json"]).await;
        assert!(lint.code == i32::from(fatal) && lint.out.contains(&day), "{} {}", lint.out, lint.err);
    }
}

/// A program that says which version it is, as the agent does.
async fn agent(bench: &Bench, says: &str) -> PathBuf {
    let (source, program) = (bench.path("agent.c"), bench.path("zlh-agent"));
    let text = format!("#include <stdio.h>\nint main() {{ puts(\"{says}\"); return 0; }}\n");
    fs::write(&source, text).unwrap();
    let mut cc = tokio::process::Command::new("cc");
    assert!(cc.arg("-o").arg(&program).arg(&source).status().await.unwrap().success());
    program
}

#[tokio::test]
async fn a_release_of_the_agent_is_proved_too() {
    let mut bench = Bench::new().await;
    let right = agent(&bench, "zlh-agent v1.4.0 (x86_64-unknown-linux-gnu)").await;
    let right = fs::read(right).unwrap();
    let other = fs::read(agent(&bench, "zlh-agent v1.3.0 (x86_64-unknown-linux-gnu)").await).unwrap();
    let silent = fs::read(agent(&bench, "hello").await).unwrap();
    let mut arm = right.clone();
    arm[18] = 183;
    let damaged = right[..64].to_vec();
    for (binary, looked_at, run) in [
        (right, None, None),
        (other, None, Some("it says that it is version 1.3.0")),
        (silent, None, Some("does not say which version it is")),
        (damaged, None, Some("cannot be run")),
        (arm, Some("no Linux program for x86-64"), Some("no Linux program for x86-64")),
        (b"#!/bin/sh\necho zlh-agent v1.4.0\n".to_vec(), Some("no Linux program"), Some("no Linux program")),
    ] {
        fs::write(bench.path("store/zlh-agent"), binary).unwrap();
        let (size, sha256) = zlh_artifacts::hash_file(&bench.path("store/zlh-agent")).unwrap();
        bench.catalog["agents"] = json!([{ "version": "1.4.0", "binary": {
            "path": "zlh-agent", "size": size, "sha256": sha256, "media_type": "application/octet-stream" } }]);
        bench.publish();
        for (more, expected) in [(&[][..], looked_at), (&["--run"][..], run)] {
            let defects = bench.defects(more).await;
            match expected {
                None => assert_eq!(defects, []),
                Some(expected) => assert!(
                    matches!(&defects[..], [(path, why)] if path == "zlh-agent" && why.contains("as agent 1.4.0") && why.contains(expected)),
                    "{expected}: {defects:?}"
                ),
            }
        }
    }
}

fn write(path: &Path, catalog: &Value) {
    fs::write(path, catalog.to_string()).unwrap();
}

#[tokio::test]
async fn a_catalog_is_read_by_people_before_it_is_signed() {
    let bench = Bench::new().await;
    let shown = bench.run(&["catalog", "show", "store/catalog.json"]).await;
    assert!(shown.code == 0 && shown.out.contains("minecraft/paper 1.21.7"), "{}", shown.out);
    assert!(shown.err.contains("serial 7") && shown.err.contains("never expires"), "{}", shown.err);
    let lint = bench.run(&["catalog", "lint", "store/catalog.json"]).await;
    assert!(
        lint.code == 0 && lint.out.contains("expires") && lint.err.contains("agents take it"),
        "{}",
        lint.out
    );
    assert_eq!(bench.run(&["catalog", "lint", "store/catalog.json", "--strict"]).await.code, 1);
    let mut typo = bench.catalog.clone();
    typo["games"][0]["variants"][0]["id"] = "papper".into();
    write(&bench.path("typo.json"), &typo);
    let lint = bench.run(&["catalog", "lint", "typo.json"]).await;
    assert!(lint.code == 1 && lint.out.contains("is nearly `paper`"), "{} {}", lint.out, lint.err);
    let mut new = bench.catalog.clone();
    new["serial"] = 8.into();
    new["games"][0]["variants"][0]["versions"][0]["files"][0]["sha256"] = "cd".repeat(32).into();
    write(&bench.path("new.json"), &new);
    let diff = bench.run(&["catalog", "diff", "store/catalog.json", "new.json"]).await;
    assert!(diff.code == 0 && diff.out.contains("is that meant?"), "{}", diff.out);
    let same = bench.run(&["catalog", "diff", "store/catalog.json", "store/catalog.json"]).await;
    assert!(same.out.contains("raise the serial"), "{}", same.out);
}

#[tokio::test]
async fn keys_are_rotated_without_a_gap() {
    let bench = Bench::new().await;
    let run = async |args: &[&str]| bench.run(args).await;
    let keys = run(&["catalog", "keygen", "--out", "new.key"]).await;
    fs::write(bench.path("new.pub"), &keys.out).unwrap();
    let stranger = run(&["catalog", "rotate", "store", "--key", "new.key", "--drop", "new.pub"]).await;
    assert!(stranger.code == 1 && stranger.err.contains("no key would be left"), "{}", stranger.err);
    let added = run(&["catalog", "rotate", "store", "--key", "catalog.key", "--add", "new.pub"]).await;
    assert!(added.code == 0 && added.out.lines().count() == 2, "{} {}", added.out, added.err);
    let drop = ["catalog", "rotate", "store", "--key", "new.key", "--drop", "catalog.pub"];
    let early = run(&drop).await;
    assert!(early.code == 1 && early.err.contains("catalog.json is signed by key"), "{}", early.err);
    assert!(
        early.err.contains("hint: sign it first") && !bench.path("store/keys/3.json").exists(),
        "{}",
        early.err
    );
    let lock = fs::File::open(bench.path("store/.lock")).unwrap();
    rustix::fs::flock(&lock, rustix::fs::FlockOperation::LockExclusive).unwrap();
    let busy = run(&drop).await;
    assert!(busy.code == 1 && busy.err.contains("another zlhctl is editing"), "{}", busy.err);
    std::mem::drop(lock);
    assert_eq!(run(&["catalog", "sign", "store/catalog.json", "--key", "new.key"]).await.code, 0);
    let dropped = run(&drop).await;
    assert!(dropped.code == 0 && dropped.out == keys.out, "{} {}", dropped.out, dropped.err);
    let late = run(&["catalog", "rotate", "store", "--key", "catalog.key", "--add", "catalog.pub"]).await;
    assert!(late.code == 1 && late.err.contains("agents do not trust it"), "{}", late.err);
    let old: zlh_catalog::PublicKey = fs::read_to_string(bench.path("catalog.pub")).unwrap().parse().unwrap();
    let open = |serial: u64, before: &[zlh_catalog::PublicKey]| {
        let path = bench.path("store").join(zlh_catalog::KeyList::path(serial));
        let signature = fs::read_to_string(path.with_extension("json.minisig")).unwrap();
        zlh_catalog::KeyList::open(&fs::read(path).unwrap(), &signature, before, serial).unwrap().keys
    };
    let third = open(3, &open(2, &[old]));
    assert_eq!(third, [keys.out.parse().unwrap()], "as an agent follows them");
}
