//! A store in an operator's hands: added to, promoted, withdrawn, signed, mirrored, swept.

use std::fs;
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::{Body, Bytes};
use axum::http::{HeaderMap, StatusCode, Uri};
use axum::response::IntoResponse;
use futures_util::StreamExt;
use serde_json::Value;
use tokio::io::{AsyncBufReadExt, BufReader};

use crate::{Ran, ran, zlhctl};

struct Bench {
    folder: tempfile::TempDir,
}

impl Bench {
    /// Two releases of the agent in a signed store; the second one is for `beta`.
    async fn new() -> Self {
        let bench = Self { folder: tempfile::tempdir().unwrap() };
        let keys = bench.run(&["catalog", "keygen"]).await;
        fs::write(bench.path("catalog.pub"), keys.out).unwrap();
        for (version, channel) in [("1.4.0", "stable"), ("1.5.0", "beta")] {
            let mut elf = b"\x7fELF".to_vec();
            elf.resize(18, 0);
            elf.extend([62, 0]);
            elf.extend(version.as_bytes());
            fs::write(bench.path("zlh-agent"), elf).unwrap();
            let add = ["artifacts", "add", "store", "zlh-agent", "--agent", version, "--channel", channel];
            let added = bench.run(&[&add[..], &["--key", "catalog.key"]].concat()).await;
            assert_eq!(added.code, 0, "{}", added.err);
            assert!(
                added.out.contains(&format!("agent {version}")) && added.err.contains("signed by"),
                "{}",
                added.out
            );
        }
        bench
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    async fn run(&self, args: &[&str]) -> Ran {
        let mut command = zlhctl(&self.path("fleet.toml"), args);
        command.env("PATH", "/usr/bin:/bin").current_dir(self.folder.path());
        ran(command.output().await.unwrap())
    }

    async fn verified(&self, store: &str) {
        let verified = self.run(&["artifacts", "verify", store, "--key", "catalog.pub"]).await;
        assert_eq!(verified.code, 0, "{} {}", verified.out, verified.err);
    }

    fn serial(&self) -> u64 {
        let catalog: Value =
            serde_json::from_slice(&fs::read(self.path("store/catalog.json")).unwrap()).unwrap();
        catalog["serial"].as_u64().unwrap()
    }
}

#[tokio::test]
async fn a_release_goes_from_beta_to_everybody() {
    let bench = Bench::new().await;
    bench.verified("store").await;
    let promote = async |more: &[&str]| {
        bench.run(&[&["artifacts", "promote", "store"][..], more, &["--key", "catalog.key"]].concat()).await
    };
    let early = promote(&["agent 1.4.0", "--from", "beta", "--to", "stable"]).await;
    assert!(early.code == 1 && early.err.contains("is not offered in beta"), "{}", early.err);
    let typo = promote(&["agent 1.50", "--to", "stable"]).await;
    assert!(typo.code == 1 && typo.err.contains("did you mean 'agent 1.5.0'?"), "{}", typo.err);
    let serial = bench.serial();
    let wave = promote(&["agent 1.5.0", "--from", "beta", "--to", "stable", "--wave", "10%"]).await;
    assert!(wave.code == 0 && wave.out.contains("beta, stable 10 %"), "{} {}", wave.out, wave.err);
    assert_eq!(bench.serial(), serial + 1);
    let all = promote(&["agent 1.5.0", "--to", "stable", "-o", "json"]).await;
    let told: Value = serde_json::from_str(&all.out).unwrap();
    assert_eq!(told["channels"], serde_json::json!({ "beta": 100, "stable": 100 }));
    let back = promote(&["agent 1.5.0", "--to", "stable", "--wave", "50"]).await;
    assert!(back.code == 0 && back.err.contains("warning: the wave was at 100 %"), "{}", back.err);
    bench.verified("store").await;
}

#[tokio::test]
async fn withdrawn_and_back_and_what_is_unsigned_says_so() {
    let bench = Bench::new().await;
    let withdraw = ["artifacts", "withdraw", "store", "agent 1.4.0"];
    let gone = bench.run(&[&withdraw[..], &["--because", "CVE-2026-1"]].concat()).await;
    assert!(gone.code == 0 && gone.out.contains("withdrawn: CVE-2026-1"), "{} {}", gone.out, gone.err);
    assert!(
        gone.err.contains("is not signed") && gone.err.contains("hint: zlhctl artifacts sign store"),
        "{}",
        gone.err
    );
    assert!(!bench.path("store/catalog.json.minisig").exists());
    let promoted = bench.run(&["artifacts", "promote", "store", "agent 1.4.0", "--to", "beta"]).await;
    assert!(promoted.code == 1 && promoted.err.contains("is withdrawn: CVE-2026-1"), "{}", promoted.err);
    let signed = bench.run(&["artifacts", "sign", "store", "--key", "catalog.key", "--publish-agent"]).await;
    assert!(signed.code == 0 && signed.err.contains("signed by"), "{}", signed.err);
    bench.verified("store").await;
    assert!(!bench.path("store/agents/manifest.json").exists(), "no release is for everybody");
    let back =
        bench.run(&[&withdraw[..], &["--undo", "--key", "catalog.key", "--publish-agent"]].concat()).await;
    assert!(back.code == 0 && !back.out.contains("withdrawn"), "{} {}", back.out, back.err);
    let manifest: Value =
        serde_json::from_slice(&fs::read(bench.path("store/agents/manifest.json")).unwrap()).unwrap();
    assert_eq!(manifest["latest"], "1.4.0");
    fs::remove_file(bench.path("store/agents/versions/1.5.0/zlh-agent-linux-amd64")).unwrap();
    let broken = bench.run(&["artifacts", "sign", "store", "--key", "catalog.key"]).await;
    assert!(broken.code == 1 && broken.err.contains("1 of its files"), "{}", broken.err);
}

#[tokio::test]
async fn a_mirror_goes_on_where_it_stopped() {
    let bench = Bench::new().await;
    let fleet = bench.path("fleet.toml");
    let mut server = zlhctl(&fleet, &["artifacts", "serve", "store", "--listen", "127.0.0.1:0"])
        .current_dir(bench.folder.path())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let line = BufReader::new(server.stderr.take().unwrap()).lines().next_line().await.unwrap().unwrap();
    let url = line.split_whitespace().find(|word| word.starts_with("http://")).unwrap().trim_end_matches(';');
    let mirror = async |source: &str| {
        bench.run(&["artifacts", "mirror", source, "copy", "--key", "catalog.pub", "-o", "json"]).await
    };
    let binary = bench.path("store/agents/versions/1.5.0/zlh-agent-linux-amd64");
    let right = fs::read(&binary).unwrap();
    fs::write(&binary, "x".repeat(right.len())).unwrap();
    let broken = mirror(url).await;
    assert!(broken.code == 1 && broken.err.contains("wrong hash"), "{}", broken.err);
    assert!(!bench.path("copy/catalog.json").exists(), "it would promise what is not there");
    fs::write(&binary, right).unwrap();
    let rest: Value = serde_json::from_str(&mirror(url).await.out).unwrap();
    assert!(rest["files"] == 2 && rest["fetched"].as_u64() <= Some(2), "{rest}");
    bench.verified("copy").await;
    let again: Value = serde_json::from_str(&mirror("store").await.out).unwrap();
    assert_eq!(again["fetched"], 0, "{again}");
    let added = bench.run(&["artifacts", "sign", "copy", "--key", "catalog.key", "--expires", "30d"]).await;
    assert_eq!(added.code, 0, "{}", added.err);
    let older = mirror("store").await;
    assert!(older.code == 1 && older.err.contains("is it an old copy?"), "{}", older.err);
    server.kill().await.unwrap();
}

/// Serves a folder. The first answer to `/big` ends after its half and hangs; what later ones were
/// asked to begin with is noted.
async fn hanging_server(folder: PathBuf, begins: Arc<Mutex<Vec<String>>>) -> String {
    let answer = move |uri: Uri, headers: HeaderMap| {
        let (folder, begins) = (folder.clone(), Arc::clone(&begins));
        async move {
            let Ok(bytes) = fs::read(folder.join(uri.path().trim_start_matches('/'))) else {
                return StatusCode::NOT_FOUND.into_response();
            };
            if uri.path() != "/big" {
                return bytes.into_response();
            }
            let range = headers.get("range").map_or("", |range| range.to_str().unwrap()).to_owned();
            begins.lock().unwrap().push(range.clone());
            if begins.lock().unwrap().len() == 1 {
                let half = Bytes::copy_from_slice(&bytes[..bytes.len() / 2]);
                let half = futures_util::stream::once(async { Ok::<_, std::io::Error>(half) });
                let body = Body::from_stream(half.chain(futures_util::stream::pending()));
                return ([("content-length", bytes.len().to_string())], body).into_response();
            }
            let Some(from) = range.strip_prefix("bytes=").and_then(|range| range.split('-').next()) else {
                return bytes.into_response();
            };
            let (from, all): (usize, usize) = (from.parse().unwrap(), bytes.len());
            let told = [("content-range", format!("bytes {from}-{}/{all}", all - 1))];
            (StatusCode::PARTIAL_CONTENT, told, bytes[from..].to_vec()).into_response()
        }
    };
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, Router::new().fallback(answer)).await.unwrap() });
    url
}

#[tokio::test]
async fn a_mirror_that_was_killed_goes_on_within_the_file() {
    let bench = Bench { folder: tempfile::tempdir().unwrap() };
    fs::create_dir(bench.path("store")).unwrap();
    let mut big: Vec<u8> = b"\x7fELF".to_vec();
    big.extend((4..8 << 20).map(|at: u32| u8::try_from(at.wrapping_mul(2_654_435_761) >> 24).unwrap()));
    fs::write(bench.path("store/big"), &big).unwrap();
    let (size, sha256) = zlh_artifacts::hash_file(&bench.path("store/big")).unwrap();
    let catalog = serde_json::json!({ "schema": 1, "serial": 7, "issued": "2026-01-02T03:04:05Z", "agents": [
        { "version": "1.4.0", "binary":
            { "path": "big", "size": size, "sha256": sha256, "media_type": "application/octet-stream" } }] });
    fs::write(bench.path("store/catalog.json"), catalog.to_string()).unwrap();
    let begins = Arc::new(Mutex::new(Vec::new()));
    let url = hanging_server(bench.path("store"), Arc::clone(&begins)).await;
    let mirror = ["artifacts", "mirror", &url, "copy"];
    let mut first = zlhctl(&bench.path("fleet.toml"), &mirror);
    let mut first = first.current_dir(bench.folder.path()).stderr(Stdio::null()).spawn().unwrap();
    let half_way = || {
        let parts = fs::read_dir(bench.path("copy/.mirror/tmp")).into_iter().flatten().flatten();
        parts
            .filter(|part| part.path().extension().is_some_and(|end| end == "part"))
            .any(|part| part.metadata().unwrap().len() >= 3 << 20)
    };
    for _ in 0..600 {
        if half_way() {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    assert!(half_way(), "half of the file came");
    first.kill().await.unwrap();
    let second = bench.run(&mirror).await;
    assert_eq!(second.code, 0, "{}", second.err);
    let begins = begins.lock().unwrap().clone();
    let from = begins[1].strip_prefix("bytes=").unwrap_or_else(|| panic!("{begins:?}"));
    assert!(from.split('-').next().unwrap().parse::<u64>().unwrap() >= 3 << 20, "{begins:?}");
    assert_eq!(fs::read(bench.path("copy/big")).unwrap(), big);
    assert!(!bench.path("copy/.mirror").exists(), "nothing is left of it");
}

#[tokio::test]
async fn what_nothing_names_is_swept() {
    let bench = Bench::new().await;
    fs::write(bench.path("store/left-over.jar"), "x").unwrap();
    let kept = bench.run(&["artifacts", "gc", "store"]).await;
    assert!(kept.code == 0 && kept.out.is_empty() && kept.err.contains("older than 7d"), "{}", kept.err);
    let dry = bench.run(&["artifacts", "gc", "store", "--grace", "0s", "--dry-run", "-o", "name"]).await;
    assert_eq!(dry.out, "left-over.jar\n", "{}", dry.err);
    assert!(bench.path("store/left-over.jar").exists());
    let swept = bench.run(&["artifacts", "gc", "store", "--grace", "0s"]).await;
    assert!(
        swept.code == 0 && swept.err.contains("1 file (") && swept.err.contains("removed"),
        "{}",
        swept.err
    );
    assert!(!bench.path("store/left-over.jar").exists());
    bench.verified("store").await;
    let nowhere = bench.run(&["artifacts", "gc", "nowhere"]).await;
    assert!(nowhere.code == 1 && nowhere.err.contains("no artifact store"), "{}", nowhere.err);
}
