//! Faults ordered from the agent and its shims: kills, full disks and wrong clocks at named
//! places. They obey because the suite's agent is built with the feature `faults`.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::agent::Agent;

/// The folder that tells an agent, and everything it starts, what goes wrong.
#[derive(Debug)]
pub struct Faults {
    folder: PathBuf,
}

impl Faults {
    /// For an agent that is not running yet. Nothing goes wrong until told.
    pub fn of(agent: &mut Agent) -> io::Result<Self> {
        let folder = agent.store.path("faults");
        fs::create_dir_all(&folder)?;
        agent.env("ZLH_FAULTS", &folder.display().to_string());
        Ok(Self { folder })
    }

    /// From now on this goes wrong: `kill ROLE N`, `kill-at NAME`, `enospc PREFIX N`, `delay NAME MS`
    /// or `hold NAME`, one a line.
    pub fn plan(&self, plan: &str) -> io::Result<()> {
        // Renamed into place: a reader sees the old plan or the new one.
        let fresh = self.folder.join("plan.new");
        fs::write(&fresh, plan)?;
        fs::rename(fresh, self.folder.join("plan"))
    }

    /// From now on nothing goes wrong.
    pub fn clear(&self) -> io::Result<()> {
        self.plan("")
    }

    /// From now on the wall clock is so many seconds ahead.
    pub fn clock(&self, seconds: i64) -> io::Result<()> {
        fs::write(self.folder.join("clock"), seconds.to_string())
    }

    /// The points that processes of a role reached, in order.
    pub fn reached(&self, role: &str) -> Vec<String> {
        lines(&self.folder.join(format!("trace-{role}")))
    }

    /// The points that were made to fail, in order.
    pub fn refused(&self) -> Vec<String> {
        lines(&self.folder.join("refused"))
    }
}

/// Whether everything is to be tried (`make test`), not only a sample (the inner loop).
pub fn thorough() -> bool {
    std::env::var_os("ZLH_TEST_THOROUGH").is_some_and(|value| value == "1")
}

fn lines(path: &Path) -> Vec<String> {
    let text = fs::read_to_string(path).unwrap_or_default();
    text.lines().map(str::to_owned).collect()
}
