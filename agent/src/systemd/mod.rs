//! The container's init, when it is systemd: asked through its own tools, never waited
//! for without a limit.
//!
//! The tools speak to PID 1 over its private socket, so a container without a D-Bus
//! daemon is served too, and no D-Bus library is linked. Every answer may be "unknown":
//! nothing here is allowed to keep a game from being started or stopped.

mod notify;
mod tool;
mod units;

use std::path::Path;
use std::time::Duration;

pub(crate) use notify::Notify;
use tool::Tool;
pub(crate) use units::{own_unit, unit_of};

/// A systemd that runs this container.
#[derive(Debug, Clone)]
pub(crate) struct Systemd {
    systemctl: Tool,
    run: Tool,
}

/// What systemd does to the processes of a unit that it stops.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum KillMode {
    /// Only its main process, or none, is signalled.
    Spares,
    /// Everything in its control group ends.
    Kills,
}

impl Systemd {
    /// The system's own, if it was booted with one and its tools are there.
    pub(crate) fn find() -> Option<Self> {
        // What sd_booted(3) looks at.
        if !Path::new("/run/systemd/system").is_dir() {
            return None;
        }
        Some(Self { systemctl: Tool::find("systemctl")?, run: Tool::find("systemd-run")? })
    }

    /// `systemd-run`, for the launcher.
    pub(crate) fn run(&self) -> &Tool {
        &self.run
    }

    /// Whether the container is shutting down or rebooting. An init that does not answer is
    /// taken to go on: what runs is then left alone.
    pub(crate) async fn is_stopping(&self) -> bool {
        // It exits with a failure for every state but `running`.
        self.systemctl
            .output(&["is-system-running"], QUESTION)
            .await
            .is_ok_and(|(_, said)| said.trim() == "stopping")
    }

    /// SIGKILL to everything in `unit`, as far as systemd answers.
    pub(crate) async fn kill(&self, unit: &str) {
        let _ = self.systemctl.output(&["kill", "--signal=KILL", "--", unit], QUESTION).await;
    }

    /// What a stop of `unit` does to its processes; none when systemd does not say.
    pub(crate) async fn kill_mode(&self, unit: &str) -> Option<KillMode> {
        let arguments = ["show", "--property=LoadState", "--property=KillMode", "--", unit];
        let (_, said) = self.systemctl.output(&arguments, QUESTION).await.ok()?;
        parse_kill_mode(&said)
    }
}

fn parse_kill_mode(said: &str) -> Option<KillMode> {
    let value = |key: &str| said.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix('='));
    // Of a unit that it does not know it tells the defaults.
    if value("LoadState")? != "loaded" {
        return None;
    }
    match value("KillMode")? {
        "control-group" | "mixed" => Some(KillMode::Kills),
        "process" | "none" => Some(KillMode::Spares),
        _ => None,
    }
}

/// For an answer that takes systemd some milliseconds.
const QUESTION: Duration = Duration::from_secs(3);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kill_modes_of_known_units_only() {
        for (said, expected) in [
            ("LoadState=loaded\nKillMode=control-group\n", Some(KillMode::Kills)),
            ("KillMode=mixed\nLoadState=loaded\n", Some(KillMode::Kills)),
            ("LoadState=loaded\nKillMode=process\n", Some(KillMode::Spares)),
            ("LoadState=loaded\nKillMode=none\n", Some(KillMode::Spares)),
            ("LoadState=not-found\nKillMode=control-group\n", None),
            ("LoadState=loaded\nKillMode=of-the-future\n", None),
            ("KillMode=process\n", None),
            ("", None),
        ] {
            assert_eq!(parse_kill_mode(said), expected, "{said:?}");
        }
    }
}
