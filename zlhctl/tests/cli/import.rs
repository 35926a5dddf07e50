//! Publishers as they document themselves, from small answers of our own under
//! `tests/data/upstream`, and everything that can be wrong with one.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::http::{StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use serde_json::Value;
use sha1::Digest;
use zlh_catalog::Catalog;

use crate::{Ran, ran, zlhctl};

/// What each publisher has, and what becomes of it.
pub(crate) struct Case {
    pub(crate) name: &'static str,
    pub(crate) ask: &'static str,
    pub(crate) entry: &'static str,
    /// Where the file is, below the publisher.
    at: &'static str,
    /// Where it goes, below the store.
    to: &'static str,
    /// Programs of an archive, below its top folder; a jar has none.
    programs: &'static [&'static str],
    top: &'static str,
    /// The document that has or leads to the checksum.
    document: &'static str,
}

pub(crate) const CASES: &[Case] = &[
    Case {
        name: "java",
        ask: "java@21",
        entry: "java 21.0.8",
        at: "releases/OpenJDK21U-jdk_x64_linux_hotspot_21.0.8_9.tar.gz",
        to: "java/21.0.8/OpenJDK21.0.8.tar.gz",
        programs: &["bin/java", "bin/javac"],
        top: "jdk-21.0.8+9",
        document: "v3/assets/feature_releases/21/ga",
    },
    Case {
        name: "vanilla",
        ask: "vanilla",
        entry: "minecraft/vanilla 1.21.7",
        at: "v1/objects/server.jar",
        to: "minecraft/vanilla/1.21.7/server.jar",
        programs: &[],
        top: "",
        document: "mc/game/version_manifest_v2.json",
    },
    Case {
        name: "paper",
        ask: "paper@1.21.7",
        entry: "minecraft/paper 1.21.7",
        at: "v1/objects/paper-1.21.7-32.jar",
        to: "minecraft/paper/1.21.7/server.jar",
        programs: &[],
        top: "",
        document: "v3/projects/paper/versions/1.21.7/builds",
    },
    Case {
        name: "purpur",
        ask: "purpur",
        entry: "minecraft/purpur 1.21.7",
        at: "v2/purpur/1.21.7/2477/download",
        to: "minecraft/purpur/1.21.7/server.jar",
        programs: &[],
        top: "",
        document: "v2/purpur/1.21.7/latest",
    },
    Case {
        name: "fabric",
        ask: "fabric",
        entry: "minecraft/fabric 1.21.7",
        at: "v2/versions/loader/1.21.7/0.16.14/1.0.3/server/jar",
        to: "minecraft/fabric/1.21.7/fabric-server.jar",
        programs: &[],
        top: "",
        document: "v2/versions/loader",
    },
    Case {
        name: "forge",
        ask: "forge@1.21.7",
        entry: "minecraft/forge 1.21.7-57.0.2",
        at: "net/minecraftforge/forge/1.21.7-57.0.2/forge-1.21.7-57.0.2-installer.jar",
        to: "minecraft/forge/1.21.7-57.0.2/forge-installer.jar",
        programs: &[],
        top: "",
        document: "net/minecraftforge/forge/maven-metadata.xml",
    },
    Case {
        name: "neoforge",
        ask: "neoforge@1.21.1",
        entry: "minecraft/neoforge 21.1.193",
        at: "net/neoforged/neoforge/21.1.193/neoforge-21.1.193-installer.jar",
        to: "minecraft/neoforge/21.1.193/neoforge-installer.jar",
        programs: &[],
        top: "",
        document: "net/neoforged/neoforge/maven-metadata.xml",
    },
    Case {
        name: "node",
        ask: "node",
        entry: "node 22.17.1",
        at: "dist/v22.17.1/node-v22.17.1-linux-x64.tar.gz",
        to: "devcontainer/node/22.17.1/node-v22.17.1-linux-x64.tar.gz",
        programs: &["bin/node", "bin/npm", "bin/npx"],
        top: "node-v22.17.1-linux-x64",
        document: "dist/index.json",
    },
    Case {
        name: "python",
        ask: "python@3.13",
        entry: "python 3.13.5",
        at: "releases/download/20250708/python.tar.gz",
        to: "devcontainer/python/3.13.5/cpython-3.13.5+20250708-x86_64-unknown-linux-gnu-install_only.tar.gz",
        programs: &["bin/python3", "bin/pip3"],
        top: "python",
        document: "repos/astral-sh/python-build-standalone/releases",
    },
    Case {
        name: "go",
        ask: "go",
        entry: "go 1.24.5",
        at: "dl/go1.24.5.linux-amd64.tar.gz",
        to: "devcontainer/go/1.24.5/go1.24.5.linux-amd64.tar.gz",
        programs: &["bin/go", "bin/gofmt"],
        top: "go",
        document: "dl/",
    },
    Case {
        name: "dotnet",
        ask: "dotnet@9.0",
        entry: "dotnet 9.0.303",
        at: "dotnet/Sdk/9.0.303/dotnet-sdk-9.0.303-linux-x64.tar.gz",
        to: "devcontainer/dotnet/9.0.303/dotnet-sdk-9.0.303-linux-x64.tar.gz",
        programs: &["dotnet"],
        top: "",
        document: "dotnet/release-metadata/9.0/releases.json",
    },
    Case {
        name: "code-server",
        ask: "code-server",
        entry: "addon/code-server 4.101.2",
        at: "coder/code-server-4.101.2-linux-amd64.tar.gz",
        to: "addons/code-server/4.101.2/code-server-4.101.2-linux-amd64.tar.gz",
        programs: &["bin/code-server"],
        top: "code-server-4.101.2-linux-amd64",
        document: "repos/coder/code-server/releases",
    },
];

type Answers = Arc<Mutex<BTreeMap<String, Answer>>>;

#[derive(Clone)]
enum Answer {
    Whole(Vec<u8>),
    /// The connection ends in the middle.
    Half(Vec<u8>),
    Status(u16),
    To(String),
}

/// A publisher on this machine.
pub(crate) struct Publisher {
    url: String,
    answers: Answers,
    file: Vec<u8>,
}

impl Publisher {
    pub(crate) async fn start(case: &Case) -> Self {
        Self::with(case, file(case)).await
    }

    /// With this file.
    pub(crate) async fn with(case: &Case, file: Vec<u8>) -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let mut answers = BTreeMap::new();
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/upstream").join(case.name);
        let mut texts = BTreeMap::new();
        walk(&root, &root, &mut texts);
        for pass in 0..2 {
            for (path, text) in &mut texts {
                *text = text
                    .replace("@BASE@", &url)
                    .replace("@SIZE@", &file.len().to_string())
                    .replace("@MD5@", &hex::<md5::Md5>(&file))
                    .replace("@SHA1@", &hex::<sha1::Sha1>(&file))
                    .replace("@SHA256@", &hex::<sha2::Sha256>(&file))
                    .replace("@SHA512@", &hex::<sha2::Sha512>(&file));
                if let (1, Some((head, rest))) = (pass, text.clone().split_once("@SHA1:")) {
                    let (other, tail) = rest.split_once('@').unwrap();
                    let Some(Answer::Whole(other)) = answers.get(other) else { panic!("{path}: {other}") };
                    *text = format!("{head}{}{tail}", hex::<sha1::Sha1>(other));
                }
                answers.insert(path.clone(), Answer::Whole(text.clone().into_bytes()));
            }
        }
        answers.insert(case.at.to_owned(), Answer::Whole(file.clone()));
        let answers: Answers = Arc::new(Mutex::new(answers));
        let router = Router::new().fallback(answer).with_state(Arc::clone(&answers));
        tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        Self { url, answers, file }
    }

    fn set(&self, path: &str, answer: Answer) {
        let mut answers = self.answers.lock().unwrap();
        let key = key(&answers, path);
        assert!(answers.insert(key, answer).is_some(), "{path} was never there");
    }

    fn get(&self, path: &str) -> Vec<u8> {
        let answers = self.answers.lock().unwrap();
        let Answer::Whole(bytes) = answers[&key(&answers, path)].clone() else { panic!() };
        bytes
    }
}

/// Documents without an end to their name lie there as `.json`.
fn key(answers: &BTreeMap<String, Answer>, path: &str) -> String {
    let path = path.trim_matches('/');
    let json = format!("{path}.json");
    if answers.contains_key(&json) { json } else { path.to_owned() }
}

async fn answer(State(answers): State<Answers>, uri: Uri) -> Response {
    let found = {
        let answers = answers.lock().unwrap();
        answers.get(&key(&answers, uri.path())).cloned()
    };
    match found {
        None => StatusCode::NOT_FOUND.into_response(),
        Some(Answer::Whole(bytes)) => bytes.into_response(),
        Some(Answer::Half(bytes)) => {
            let half = bytes::Bytes::copy_from_slice(&bytes[..bytes.len() / 2]);
            let parts = [Ok(half), Err(std::io::Error::other("cut"))];
            Body::from_stream(futures_util::stream::iter(parts)).into_response()
        }
        Some(Answer::Status(code)) => StatusCode::from_u16(code).unwrap().into_response(),
        Some(Answer::To(url)) => (StatusCode::FOUND, [("location", url)]).into_response(),
    }
}

fn walk(root: &Path, folder: &Path, out: &mut BTreeMap<String, String>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            walk(root, &path, out);
        } else {
            let name = path.strip_prefix(root).unwrap().to_str().unwrap().to_owned();
            out.insert(name, fs::read_to_string(&path).unwrap());
        }
    }
}

fn hex<D: Digest>(bytes: &[u8]) -> String {
    D::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A jar that says whose it is, or an archive whose programs do.
fn file(case: &Case) -> Vec<u8> {
    if case.programs.is_empty() {
        return format!("PK\u{3}\u{4} a jar of {}", case.name).into_bytes();
    }
    let folder = tempfile::tempdir().unwrap();
    for program in case.programs {
        let path = folder.path().join("tree").join(case.top).join(program);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, format!("#!/bin/sh\necho {}\n", case.name)).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    }
    let out = folder.path().join("out.tar.gz");
    let pack = zlh_artifacts::Pack {
        src: &folder.path().join("tree"),
        out: &out,
        media_type: zlh_catalog::MediaType::TarGz,
        level: None,
        exclude: &|_| false,
    };
    zlh_artifacts::pack_dir(&pack).unwrap();
    fs::read(out).unwrap()
}

pub(crate) struct Bench {
    folder: tempfile::TempDir,
    pub(crate) java: Publisher,
}

impl Bench {
    pub(crate) async fn new() -> Self {
        Self { folder: tempfile::tempdir().unwrap(), java: Publisher::start(&CASES[0]).await }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(crate) async fn run(&self, args: &[&str]) -> Ran {
        let mut command = zlhctl(&self.path("fleet.toml"), args);
        command.env("PATH", "/usr/bin:/bin").current_dir(self.folder.path());
        ran(command.output().await.unwrap())
    }

    pub(crate) async fn import(&self, case: &Case, publisher: &Publisher, what: &[&str]) -> Ran {
        let url = format!("{}={}", case.name, publisher.url);
        let java = format!("java={}", self.java.url);
        let mut args = vec!["artifacts", "import", "store", "--base-url", &java, "--base-url", &url];
        args.extend(what);
        self.run(&args).await
    }

    pub(crate) fn catalog(&self) -> Catalog {
        Catalog::parse(&fs::read(self.path("store/catalog.json")).unwrap()).unwrap()
    }

    /// Every file of the store with its bytes, but for what is hidden.
    pub(crate) fn store(&self) -> BTreeMap<String, Vec<u8>> {
        fn walk(root: &Path, folder: &Path, out: &mut BTreeMap<String, Vec<u8>>) {
            for entry in fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                if path.file_name().unwrap().as_encoded_bytes().starts_with(b".") {
                    continue;
                }
                if path.is_dir() {
                    walk(root, &path, out);
                } else {
                    let name = path.strip_prefix(root).unwrap().display().to_string();
                    out.insert(name, fs::read(&path).unwrap());
                }
            }
        }
        let mut out = BTreeMap::new();
        walk(&self.path("store"), &self.path("store"), &mut out);
        out
    }
}

#[tokio::test]
async fn each_publisher_is_read_as_it_documents_itself() {
    for case in CASES {
        let bench = Bench::new().await;
        let publisher = Publisher::start(case).await;
        let ran = bench.import(case, &publisher, &["java@21", case.ask]).await;
        if case.name == "java" {
            assert!(ran.code == 0 && ran.out.contains("unchanged"), "{} {}", ran.out, ran.err);
            continue;
        }
        assert_eq!(ran.code, 0, "{}: {}", case.name, ran.err);
        assert!(ran.out.contains(case.entry), "{}", ran.out);
        let catalog = bench.catalog();
        let entries = catalog.entries();
        let entry = entries.iter().find(|entry| entry.name == case.entry).unwrap();
        let [one] = entry.files.as_slice() else { panic!("{entry:?}") };
        assert_eq!(one.artifact.path.as_str(), case.to);
        assert_eq!(one.artifact.size, publisher.file.len() as u64);
        assert_eq!(one.artifact.sha256.to_string(), hex::<sha2::Sha256>(&publisher.file));
        assert_eq!(one.artifact.tree_sha256.is_some(), !case.programs.is_empty(), "{}", case.name);
        assert_eq!(fs::read(bench.path("store").join(case.to)).unwrap(), publisher.file);
        let unpinned = matches!(case.name, "paper" | "purpur" | "fabric" | "forge" | "neoforge");
        let marked = catalog.games.iter().flat_map(|game| &game.variants).flat_map(|one| &one.versions);
        assert_eq!(marked.filter(|one| one.fetches_upstream).count(), usize::from(unpinned), "{}", case.name);
        assert_eq!(ran.err.contains("states no checksum"), case.name == "fabric", "{}", ran.err);
        let verified = bench.run(&["artifacts", "verify", "store", "--run"]).await;
        assert_eq!(verified.code, 0, "{} {}", verified.out, verified.err);
    }
}

#[tokio::test]
async fn whatever_is_wrong_the_store_stays_as_it_was() {
    for case in CASES {
        let bench = Bench::new().await;
        let publisher = Publisher::start(case).await;
        let first = bench.import(&CASES[0], &bench.java, &["java@21.0.7"]).await;
        assert_eq!(first.code, 1, "its file is not there");
        // Java is there in the cases of others, so that servers have something to run on.
        if case.name != "java" {
            assert_eq!(bench.import(&CASES[0], &bench.java, &["java@21"]).await.code, 0);
        }
        let before = bench.store();
        let document = publisher.get(case.document);
        let page = Answer::Whole(b"<!doctype html><title>502</title>".to_vec());
        let other = Answer::Whole([publisher.file.as_slice(), b"!"].concat());
        let mut flipped = publisher.file.clone();
        *flipped.last_mut().unwrap() ^= 1;
        let faults = [
            ("page", case.document, page.clone(), "a page instead of JSON|no maven-metadata.xml"),
            (
                "half a document",
                case.document,
                Answer::Whole(document[..document.len() / 2].to_vec()),
                "form that is documented|only a part",
            ),
            ("cut document", case.document, Answer::Half(document.clone()), "broke off|connection closed"),
            ("no document", case.document, Answer::Status(404), "(404)"),
            ("busy", case.document, Answer::Status(429), "429"),
            (
                "elsewhere",
                case.document,
                Answer::To("http://127.0.0.1:9/x".to_owned()),
                "not known to be its host",
            ),
            ("cut file", case.at, Answer::Half(publisher.file.clone()), "broke off|connection closed"),
            ("longer file", case.at, other, "more bytes than|its publisher says"),
            ("other file", case.at, Answer::Whole(flipped), "its publisher says"),
            (
                "page for a file",
                case.at,
                page,
                "its publisher says|ended after|more bytes than|is not a Java archive",
            ),
            ("no file", case.at, Answer::Status(404), "(404)"),
        ];
        for (fault, path, answer, expected) in faults {
            if case.name == "fabric" && matches!(fault, "longer file" | "other file") {
                continue; // It states neither size nor checksum.
            }
            let right = publisher.get(path);
            publisher.set(path, answer);
            let ran = bench.import(case, &publisher, &[case.ask]).await;
            assert_eq!(ran.code, 1, "{} {fault}: {}", case.name, ran.out);
            assert!(
                expected.split('|').any(|words| ran.err.contains(words)) && ran.err.contains("error: "),
                "{} {fault}: {}",
                case.name,
                ran.err
            );
            assert_eq!(bench.store(), before, "{} {fault}", case.name);
            publisher.set(path, Answer::Whole(right));
        }
        let missing = bench.import(case, &publisher, &[&format!("{}@99.99.99", case.name)]).await;
        assert!(
            missing.code == 1 && missing.err.contains("no such version") && missing.err.contains("hint: "),
            "{}: {}",
            case.name,
            missing.err
        );
        assert_eq!(bench.store(), before);
        if case.name != "java" {
            assert_eq!(bench.import(case, &publisher, &[case.ask]).await.code, 0, "{}", case.name);
        }
    }
}

#[tokio::test]
async fn what_is_not_stable_is_only_taken_when_asked_for() {
    let bench = Bench::new().await;
    for (index, asked, unstable, expected) in [
        (2, "paper@1.21.6", false, "(404)"),
        (7, "node@24", false, "(404)"),
        (9, "go@1.25rc2", false, "no archive for Linux"),
        (11, "code-server@4.16.1", false, "states no SHA-256"),
        (10, "dotnet@10.0", true, "(404)"),
        (6, "neoforge@1.21.7", false, "no such version"),
        (4, "fabrik", false, "did you mean `fabric`?"),
    ] {
        let publisher = Publisher::start(&CASES[index]).await;
        let mut what = vec![asked];
        what.extend(unstable.then_some("--unstable"));
        let ran = bench.import(&CASES[index], &publisher, &what).await;
        assert!(ran.code == 1 && ran.err.contains(expected), "{asked}: {}", ran.err);
    }
}

#[tokio::test]
async fn a_later_build_replaces_when_told() {
    let case = &CASES[2];
    let bench = Bench::new().await;
    let publisher = Publisher::start(case).await;
    let key = bench.run(&["catalog", "keygen"]).await;
    fs::write(bench.path("catalog.pub"), key.out).unwrap();
    let import = async |what: &[&str]| bench.import(case, &publisher, what).await;
    assert_eq!(import(&["java@21", "paper", "--key", "catalog.key"]).await.code, 0);
    let document = String::from_utf8(publisher.get(case.document)).unwrap();
    let newer = b"PK\x03\x04 a later build".to_vec();
    let document = document
        .replace(&hex::<sha2::Sha256>(&publisher.file), &hex::<sha2::Sha256>(&newer))
        .replace(&format!("\"size\": {}", publisher.file.len()), &format!("\"size\": {}", newer.len()));
    publisher.set(case.document, Answer::Whole(document.into_bytes()));
    publisher.set(case.at, Answer::Whole(newer.clone()));
    let refused = import(&["paper", "--key", "catalog.key"]).await;
    assert!(refused.code == 1 && refused.err.contains("--replace"), "{}", refused.err);
    let replaced = import(&["paper", "--replace", "--key", "catalog.key", "-o", "json"]).await;
    assert_eq!(replaced.code, 0, "{}", replaced.err);
    let told: Value = serde_json::from_str(&replaced.out).unwrap();
    assert_eq!(told["entries"][0]["what"], "replaced", "{told}");
    let verified = bench.run(&["artifacts", "verify", "store", "--key", "catalog.pub"]).await;
    assert_eq!(verified.code, 0, "{} {}", verified.out, verified.err);
}
