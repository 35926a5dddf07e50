//! What is installed in the container, and what can be asked of it.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};
use zlh_api::{State, Status};
use zlh_tests::fake::events::{self, Event, What};
use zlh_tests::harness::paths;
use zlh_tests::harness::releases;
use zlh_tests::harness::store::{FakePlan, Store, VARIANT, VERSION};

use super::container::{Container, wait_for};
use super::update;

/// A process of the container: its pid in there and when it was started.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Identity {
    pub(crate) pid: i32,
    start: u64,
}

/// Installs the binaries, the packaged unit, a store that is served on loopback, and a
/// configuration; answers the store, whose files are removed with it.
pub(crate) fn furnish(container: &Container) -> Result<Store> {
    let program = |name: &str, to: &str| -> Result<()> {
        let to = container.path(to);
        fs::create_dir_all(to.parent().context("a path with a folder")?)?;
        fs::copy(paths::binary(name)?, &to)?;
        Ok(fs::set_permissions(to, fs::Permissions::from_mode(0o755))?)
    };
    program("zlh-agent", "/opt/zlh-agent/releases/test/zlh-agent")?;
    program("zlhctl", "/usr/local/bin/zlhctl")?;
    symlink("releases/test", container.path("/opt/zlh-agent/current"))?;

    // The last save takes its time, and everybody waits for it.
    let flags = ["--stop-delay", "2s", "--save-time", "500ms"];
    let mut store = Store::fake(&FakePlan { grace_s: 20, term_s: 10, ..FakePlan::new(&flags) })?;
    releases::publish(&mut store, &update::OFFERED)?;
    copy_tree(store.dir(), &container.path("/srv/store"))?;
    container.write("/etc/systemd/system/zlh-store.service", STORE_UNIT)?;
    let unit = paths::workspace().join("packaging/systemd/zlh-agent.service");
    container.write(AGENT_UNIT, &fs::read_to_string(unit)?)?;
    for unit in ["zlh-store.service", "zlh-agent.service"] {
        let wants = container.path("/etc/systemd/system/multi-user.target.wants");
        fs::create_dir_all(&wants)?;
        symlink(format!("/etc/systemd/system/{unit}"), wants.join(unit))?;
    }
    // The journal of one boot is what the next one is asked for.
    fs::create_dir_all(container.path("/var/log/journal"))?;
    container.write("/etc/zlh-test.key", &store.public_key()?)?;
    configure_agent(container, "")?;
    container.write("/root/payload.json", &serde_json::to_string(&payload())?)?;
    Ok(store)
}

/// Writes `agent.toml`, with `more` of it.
pub(crate) fn configure_agent(container: &Container, more: &str) -> Result<()> {
    let key = fs::read_to_string(container.path("/etc/zlh-test.key"))?;
    container.write(
        "/opt/zlh-agent/config/agent.toml",
        &format!(
            "artifacts_url = \"http://127.0.0.1:8090\"\ncatalog_keys = [\"{key}\"]\n\
             container_shutdown_s = {SHUTDOWN_S}\n{more}\n"
        ),
    )
}

/// Sets (or with an empty text removes) a drop-in of the agent's unit.
pub(crate) fn drop_in(container: &Container, text: &str) -> Result<()> {
    container.write("/etc/systemd/system/zlh-agent.service.d/test.conf", text)?;
    container.run(&["systemctl", "daemon-reload"]).map(drop)
}

/// `GET /status`, asked by zlhctl in the container.
pub(crate) fn status(container: &Container) -> Result<Status> {
    let answer = container.run(&["zlhctl", "get", AGENT, "-o", "json"])?;
    let answer: Value = serde_json::from_str(&answer).context("zlhctl's answer")?;
    Ok(serde_json::from_value(answer["status"].clone())?)
}

/// Waits until the game accepts players.
pub(crate) fn wait_ready(container: &Container) -> Result<Status> {
    wait_for("readiness", SOON, || {
        let status = status(container)?;
        ensure!(
            status.ready && status.state == State::Running,
            "it is {} ({})",
            status.state,
            status.error.as_deref().unwrap_or(&status.ready_error)
        );
        Ok(status)
    })
}

/// Waits for a warning that holds `text`.
pub(crate) fn wait_warning(container: &Container, text: &str) -> Result<String> {
    wait_for(text, SOON, || {
        let warnings = status(container)?.warnings;
        warnings.iter().find(|w| w.contains(text)).cloned().with_context(|| format!("{warnings:?}"))
    })
}

/// The game the status names.
pub(crate) fn game(container: &Container) -> Result<Identity> {
    identity(container, status(container)?.pid.context("no game runs")?)
}

/// The process that has this pid now.
pub(crate) fn identity(container: &Container, pid: i32) -> Result<Identity> {
    let stat = container.run(&["cat", &format!("/proc/{pid}/stat")])?;
    // Behind the name, which may hold anything: field 3, then 22.
    let behind = stat.rsplit_once(')').context("a stat line")?.1;
    let fields: Vec<&str> = behind.split_ascii_whitespace().collect();
    ensure!(fields.first().is_some_and(|state| *state != "Z"), "pid {pid} is a zombie");
    let start = fields.get(19).and_then(|field| field.parse().ok()).context("a start time")?;
    Ok(Identity { pid, start })
}

/// The control group systemd keeps a process in.
pub(crate) fn unit_of(container: &Container, pid: i32) -> Result<String> {
    let groups = container.run(&["cat", &format!("/proc/{pid}/cgroup")])?;
    let unit = groups.lines().filter_map(|line| line.rsplit('/').next()).find(|part| part.contains('.'));
    unit.map(str::to_owned).with_context(|| format!("no unit in {groups:?}"))
}

/// The pid of the shim that `shim.json` names.
pub(crate) fn shim(container: &Container) -> Result<i32> {
    let record = record(container, "shim.json")?;
    let pid = record["shim"]["pid"].as_i64().context("a pid")?;
    Ok(i32::try_from(pid)?)
}

/// A record of the run directory.
pub(crate) fn record(container: &Container, file: &str) -> Result<Value> {
    let path = container.path(&format!("/opt/zlh-agent/run/game/{file}"));
    let text = fs::read(&path).with_context(|| format!("read {}", path.display()))?;
    Ok(serde_json::from_slice::<Value>(&text)?["body"].clone())
}

/// What the game did in the run before the last one.
pub(crate) fn run_before(container: &Container) -> Result<Vec<Event>> {
    let events = events::read(&container.path(GAME_ROOT).join("fake-events.jsonl"))?;
    let starts = events.iter().enumerate().filter(|(_, event)| event.what == What::Started);
    let starts: Vec<usize> = starts.map(|(at, _)| at).collect();
    let [.., before, last] = starts.as_slice() else { bail!("it ran {} times", starts.len()) };
    Ok(events[*before..*last].to_vec())
}

/// How often the game was started.
pub(crate) fn runs(container: &Container) -> Result<usize> {
    let events = events::read(&container.path(GAME_ROOT).join("fake-events.jsonl"))?;
    Ok(events.iter().filter(|event| event.what == What::Started).count())
}

/// What the game was asked to do and did, in a few words; an error when it was not stopped by
/// its command and nothing else.
pub(crate) fn was_asked(events: &[Event]) -> Result<String> {
    let asked = events.iter().any(|event| event.what == What::Command && event.detail == "stop");
    let saved = events.iter().any(|event| event.what == What::SaveEnded);
    let signal = events.iter().find(|event| event.what == What::Signal);
    if let Some(signal) = signal {
        bail!("it got {}; everything: {events:?}", signal.detail);
    }
    ensure!(asked && saved, "asked: {asked}, saved: {saved}; everything: {events:?}");
    Ok("stop typed, world saved, no signal".to_owned())
}

/// Tells the game how to behave the next time it starts.
pub(crate) fn behave(container: &Container, settings: &Value) -> Result<()> {
    container.write(&format!("{GAME_ROOT}/fake-game.json"), &settings.to_string())
}

/// For a person who has to find out what went wrong.
pub(crate) fn last_words(container: &Container) -> String {
    let journal = container.run(&["journalctl", "--no-pager", "--lines=80", "--output=short-monotonic"]);
    let units = container.run(&["systemctl", "list-units", "--all", "--no-pager", "zlh-*"]);
    format!(
        "--- journal ---\n{}\n--- units ---\n{}\n--- console ---\n{}",
        journal.unwrap_or_else(|error| error.to_string()),
        units.unwrap_or_else(|error| error.to_string()),
        container.console()
    )
}

fn payload() -> Value {
    json!({
        "vmid": 5001, "container_type": "game", "game": "minecraft", "variant": VARIANT,
        "version": VERSION, "world": "world", "ports": [25565], "memory_mb": 512, "accept_eula": true,
    })
}

fn copy_tree(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let to = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy_tree(&entry.path(), &to)?;
        } else {
            fs::copy(entry.path(), to)?;
        }
    }
    Ok(())
}

const STORE_UNIT: &str = "[Service]\nExecStart=/usr/local/bin/zlhctl artifacts serve /srv/store --listen 127.0.0.1:8090\n\
     [Install]\nWantedBy=multi-user.target\n";
const AGENT_UNIT: &str = "/etc/systemd/system/zlh-agent.service";
const GAME_ROOT: &str = "/opt/zlh/minecraft/fake/world";
/// The agent's address in the container.
pub(crate) const AGENT: &str = "127.0.0.1:18888";
/// `container_shutdown_s` of this container: short, so that its limit is reached soon.
pub(crate) const SHUTDOWN_S: u64 = 10;
/// For what should happen at once, on a loaded machine.
pub(crate) const SOON: Duration = Duration::from_secs(30);
