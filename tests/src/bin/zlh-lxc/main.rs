//! The acceptance test in a real container: Debian with systemd as PID 1 under LXC, the
//! packaged unit, the fake game. `tests/lxc/acceptance.sh` prepares what it needs.
//!
//! `zlh-lxc ROOTFS WORK_DIR`: boots a copy of ROOTFS below WORK_DIR, prints one line for
//! each promise, and exits 1 when one is broken, 4 when this machine starts no containers.

mod container;
mod guest;
mod report;
mod story;
mod update;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result};

use container::{Container, Kind};
use report::{Report, say};

fn main() -> Result<ExitCode> {
    let arguments: Vec<PathBuf> = std::env::args_os().skip(1).map(PathBuf::from).collect();
    let [rootfs, work] = arguments.as_slice() else {
        say("usage: zlh-lxc ROOTFS WORK_DIR (tests/lxc/acceptance.sh calls it)");
        return Ok(ExitCode::from(2));
    };
    let container = Container::create(rootfs, work).context("prepare the container")?;
    let store = guest::furnish(&container).context("furnish the container")?;
    match container.begin() {
        Ok(Kind::Unprivileged) => say("an unprivileged container with unified control groups, as deployed"),
        Ok(Kind::Privileged) => say("a privileged container: this machine starts no unprivileged one"),
        Err(error) => {
            say(&format!("this machine starts no containers: {error:#}"));
            return Ok(ExitCode::from(CANNOT));
        }
    }
    let mut report = Report::default();
    let told = story::tell(&container, &mut report);
    if let Err(error) = &told {
        report.broken("the rest of the story", &format!("{error:#}"));
    }
    if !report.is_clean() {
        say(&guest::last_words(&container));
    }
    drop(store);
    Ok(report.end())
}

const CANNOT: u8 = 4;
