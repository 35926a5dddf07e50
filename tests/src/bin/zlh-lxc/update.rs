//! The agent's own updates under a real systemd: whom it takes for the main process, whom it
//! listens to, and what is left when somebody interferes.

use std::fs;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use zlh_api::{UpdateState, UpdateStatus};
use zlh_tests::harness::releases::Release;

use super::container::{Container, wait_for};
use super::guest::{self, AGENT, SOON};
use super::report::Report;
use super::story::{game_when_ready, same};

/// What the container's store offers.
pub(crate) const OFFERED: [(&str, Release); 4] = [
    (ONE, Release::Good),
    (OTHER, Release::Good),
    (DIES, Release::Script("exit 7")),
    (HANGS, Release::Script("exec sleep 600")),
];
const ONE: &str = "99.1.0";
const OTHER: &str = "99.2.0";
const DIES: &str = "99.8.0";
const HANGS: &str = "99.9.0";

/// What systemd says of the agent's unit.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Unit {
    state: String,
    main: String,
    restarts: u32,
    text: String,
}

/// Tells of the updates. An error is the end of the story, not only of one promise.
pub(crate) fn tell(c: &Container, report: &mut Report) -> Result<()> {
    a_good_one(c, report)?;
    bad_ones(c, report)?;
    guardian_killed(c, report)?;
    told_to_leave(c, report)?;
    while_it_is_handed_over(c, report)?;
    report.check("a reboot comes up with the new version", || {
        let before = current(c)?;
        let took = c.reboot()?;
        game_when_ready(c)?;
        settled(c, &before)?;
        Ok(format!("{took:.1?}, {before}"))
    });
    Ok(())
}

fn a_good_one(c: &Container, report: &mut Report) -> Result<()> {
    let game = game_when_ready(c)?;
    let before = unit(c)?;
    report.check("an update: its process is the unit's main one, alone, and no restart", || {
        let begun = Instant::now();
        c.run(&["zlhctl", "agent", "update", AGENT, "--version", ONE])?;
        let took = begun.elapsed();
        let after = settled(c, ONE)?;
        ensure!(after.main != before.main, "its main process is still {}", after.main);
        ensure!(after.restarts == before.restarts, "{} restarts, {} before", after.restarts, before.restarts);
        Ok(format!("{took:.1?}, pid {} after {}, \"{}\"", after.main, before.main, after.text))
    });
    report.check("the game did not notice, and the status says what happened", || {
        let said = same(game, game_when_ready(c)?)?;
        let status = agent_status(c)?;
        ensure!(status.update_status == UpdateState::Succeeded && status.error.is_none(), "{status:?}");
        ensure!(status.previous.as_deref() == Some(env!("CARGO_PKG_VERSION")), "{status:?}");
        Ok(said)
    });
    report.check("systemctl restart: it leaves in order, the same version starts again", || {
        let before = unit(c)?;
        c.run(&["systemctl", "restart", "zlh-agent"])?;
        settled_as(c, ONE, |unit| unit.main != before.main)?;
        let log = c.run(&["journalctl", "--output=cat", "--no-pager", &format!("_PID={}", before.main)])?;
        ensure!(log.contains("\"signal\":\"SIGTERM\""), "it had no time to leave: {log}");
        same(game, game_when_ready(c)?)
    });
    report.check("another one; SIGKILL: systemd sees its end and starts the new version", || {
        c.run(&["zlhctl", "agent", "update", AGENT, "--version", OTHER])?;
        let before = settled(c, OTHER)?;
        c.run(&["systemctl", "kill", "--signal=KILL", "--kill-who=main", "zlh-agent"])?;
        let after = settled_as(c, OTHER, |unit| unit.main != before.main)?;
        ensure!(after.restarts == before.restarts + 1, "{} restarts", after.restarts - before.restarts);
        same(game, game_when_ready(c)?)
    });
    Ok(())
}

fn bad_ones(c: &Container, report: &mut Report) -> Result<()> {
    let game = game_when_ready(c)?;
    for (what, version, why) in
        [("dies", DIES, "ended before it answered"), ("hangs", HANGS, "did not answer within")]
    {
        report.check(&format!("a version that {what}: the same process is back within 10 s"), || {
            let before = settled(c, OTHER)?;
            let begun = Instant::now();
            let Err(error) = c.run(&["zlhctl", "agent", "update", AGENT, "--version", version]) else {
                bail!("it was taken for good");
            };
            let took = begun.elapsed();
            ensure!(format!("{error:#}").contains(why), "zlhctl says {error:#}");
            ensure!(took < Duration::from_secs(10), "{took:?}");
            let after = settled(c, OTHER)?;
            ensure!(after == before, "{before:?} became {after:?}");
            failed(c, version, why)?;
            same(game, game_when_ready(c)?)?;
            Ok(format!("{took:.1?}, \"{why}\""))
        });
    }
    report.check("then SIGKILL to the agent: back by itself, the same game", || {
        let before = unit(c)?;
        c.run(&["systemctl", "kill", "--signal=KILL", "zlh-agent"])?;
        settled_as(c, OTHER, |unit| unit.main != before.main)?;
        same(game, game_when_ready(c)?)
    });
    Ok(())
}

/// Nobody is left who could lead anything back.
fn guardian_killed(c: &Container, report: &mut Report) -> Result<()> {
    let game = game_when_ready(c)?;
    report.check("SIGKILL to all of it while a version is tried: the old one is back", || {
        let before = try_one_that_hangs(c)?;
        c.run(&["systemctl", "kill", "--signal=KILL", "zlh-agent"])?;
        settled_as(c, OTHER, |unit| unit.main != before.main)?;
        failed(c, HANGS, "interrupted")?;
        same(game, game_when_ready(c)?)
    });
    let delay = Delay::at(c, "update.answered")?;
    report.check("SIGKILL to the guardian alone: one agent, and it is systemd's", || {
        let before = unit(c)?;
        begin(c, ONE)?;
        delay.reached(c)?;
        ensure!(processes(c)?.len() == 2, "{:?}", processes(c)?);
        c.run(&["systemctl", "kill", "--signal=KILL", "--kill-who=main", "zlh-agent"])?;
        let after = settled_as(c, &current(c)?, |unit| unit.main != before.main)?;
        same(game, game_when_ready(c)?)?;
        Ok(format!("pid {}, {}", after.main, current(c)?))
    });
    delay.end(c)
}

/// `systemctl stop` and `restart` mean the guardian, too.
fn told_to_leave(c: &Container, report: &mut Report) -> Result<()> {
    let game = game_when_ready(c)?;
    c.run(&["zlhctl", "agent", "update", AGENT, "--version", ONE, "--force"]).context("back to it")?;
    report.check("systemctl restart while a version is tried: at once, the old one", || {
        let before = try_one_that_hangs(c)?;
        let begun = Instant::now();
        c.run(&["systemctl", "restart", "zlh-agent"])?;
        let took = begun.elapsed();
        ensure!(took < Duration::from_secs(5), "{took:?}");
        settled_as(c, ONE, |unit| unit.main != before.main && unit.restarts == 0)?;
        failed(c, HANGS, "told to leave")?;
        same(game, game_when_ready(c)?)?;
        Ok(format!("{took:.1?}"))
    });
    Ok(())
}

/// The new version has answered, and systemd does not know it yet.
fn while_it_is_handed_over(c: &Container, report: &mut Report) -> Result<()> {
    let game = game_when_ready(c)?;
    let delay = Delay::at(c, "update.taken")?;
    report.check("systemctl restart in the moment of handing over: one agent, the new one", || {
        let before = unit(c)?;
        c.run(&["zlhctl", "agent", "update", AGENT, "--version", OTHER])?;
        delay.reached(c)?;
        ensure!(unit(c)?.main == before.main && processes(c)?.len() == 2, "{:?}", unit(c)?);
        let begun = Instant::now();
        c.run(&["systemctl", "restart", "zlh-agent"])?;
        let took = begun.elapsed();
        ensure!(took < Duration::from_secs(20), "{took:?}");
        settled_as(c, OTHER, |unit| unit.main != before.main && unit.restarts == 0)?;
        same(game, game_when_ready(c)?)?;
        Ok(format!("{took:.1?}"))
    });
    report.check("SIGKILL to the guardian in that moment: one agent, and it is systemd's", || {
        let before = unit(c)?;
        begin(c, ONE)?;
        delay.reached(c)?;
        ensure!(processes(c)?.len() == 2, "{:?}", processes(c)?);
        c.run(&["systemctl", "kill", "--signal=KILL", "--kill-who=main", "zlh-agent"])?;
        let after = settled_as(c, ONE, |unit| unit.main != before.main)?;
        same(game, game_when_ready(c)?)?;
        c.run(&["zlhctl", "agent", "update", AGENT, "--version", OTHER])?;
        delay.reached(c)?;
        settled(c, OTHER)?;
        Ok(format!("pid {}", after.main))
    });
    report.check("what the new one said in that moment is what systemctl status shows", || {
        c.run(&["zlhctl", "agent", "update", AGENT, "--version", ONE, "--force"])?;
        delay.reached(c)?;
        let before = unit(c)?;
        c.run(&["zlhctl", "stop", AGENT])?;
        ensure!(unit(c)? == before, "it was handed over before the server had stopped: {before:?}");
        let after = wait_for("another main process, idle", SOON, || {
            let unit = unit(c)?;
            ensure!(unit.main != before.main && unit.text.starts_with("idle"), "{unit:?}");
            Ok(unit)
        })?;
        Ok(format!("\"{}\" after \"{}\"", after.text, before.text))
    });
    c.run(&["zlhctl", "start", AGENT])?;
    game_when_ready(c)?;
    delay.end(c)
}

/// Has the agent try a version that hangs; what the unit was before.
fn try_one_that_hangs(c: &Container) -> Result<Unit> {
    let before = settled(c, &current(c)?)?;
    begin(c, HANGS)?;
    wait_for("a guardian and a new version", SOON, || {
        let processes = processes(c)?;
        let names = c.run(&["ps", "-o", "comm=", "-p", &processes.join(",")])?;
        ensure!(names.contains("sleep") && names.contains("zlh-agent"), "{names}");
        Ok(())
    })?;
    Ok(before)
}

/// Begins an update, and waits for nothing.
fn begin(c: &Container, version: &str) -> Result<()> {
    let wish = ["zlhctl", "agent", "update", AGENT, "--version", version, "--force", "--timeout", "1ms"];
    match c.run(&wish) {
        Ok(said) => bail!("it took no time: {said}"),
        Err(error) if error.to_string().contains("not done yet") => Ok(()),
        Err(error) => Err(error),
    }
}

/// The agent of this release is up, alone in its unit, the unit's main process, and heard.
fn settled(c: &Container, release: &str) -> Result<Unit> {
    settled_as(c, release, |_| true)
}

fn settled_as(c: &Container, release: &str, is: impl Fn(&Unit) -> bool) -> Result<Unit> {
    wait_for("the agent in its place", SOON, || {
        let unit = unit(c)?;
        ensure!(unit.state == "active/running" && unit.text == "running: ready" && is(&unit), "{unit:?}");
        let processes = processes(c)?;
        ensure!(processes == [unit.main.as_str()], "{unit:?} holds {processes:?}");
        let binary = c.run(&["readlink", &format!("/proc/{}/exe", unit.main)])?;
        ensure!(binary.trim() == format!("/opt/zlh-agent/releases/{release}/zlh-agent"), "{binary}");
        let (current, answers) = (current(c)?, agent_status(c)?.current);
        ensure!(current == release && answers == release, "current is {current}, {answers} answers");
        Ok(unit)
    })
}

fn unit(c: &Container) -> Result<Unit> {
    let properties = "--property=ActiveState,SubState,MainPID,NRestarts,StatusText";
    let said = c.run(&["systemctl", "show", properties, "zlh-agent"])?;
    let value = |key: &str| {
        let found = said.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix('='));
        found.with_context(|| format!("no {key} in {said}"))
    };
    Ok(Unit {
        state: format!("{}/{}", value("ActiveState")?, value("SubState")?),
        main: value("MainPID")?.to_owned(),
        restarts: value("NRestarts")?.parse()?,
        text: value("StatusText")?.to_owned(),
    })
}

/// Pids of everything that is in the agent's unit.
fn processes(c: &Container) -> Result<Vec<String>> {
    let all = c.run(&["ps", "-e", "-o", "pid=,cgroup:200="])?;
    let pids = all.lines().filter(|line| line.trim_end().ends_with("/zlh-agent.service"));
    Ok(pids.filter_map(|line| line.split_ascii_whitespace().next()).map(str::to_owned).collect())
}

/// The release that the unit starts.
fn current(c: &Container) -> Result<String> {
    let link = fs::read_link(c.path("/opt/zlh-agent/current"))?;
    let release = link.strip_prefix("releases").with_context(|| format!("it leads to {}", link.display()))?;
    Ok(release.display().to_string())
}

fn agent_status(c: &Container) -> Result<UpdateStatus> {
    let answer = c.run(&["zlhctl", "agent", "status", AGENT, "-o", "json"])?;
    serde_json::from_str(&answer).context("zlhctl's answer")
}

/// `zlhctl agent status` says that the update to this version failed, and why.
fn failed(c: &Container, version: &str, why: &str) -> Result<()> {
    let status = agent_status(c)?;
    let error = status.error.clone().unwrap_or_default();
    ensure!(status.update_status == UpdateState::Failed, "{status:?}");
    ensure!(error.contains(version) && error.contains(why), "{status:?}");
    Ok(())
}

/// Whoever reaches this point takes seconds longer: long enough for a test to interfere.
struct Delay {
    point: &'static str,
}

impl Delay {
    fn at(c: &Container, point: &'static str) -> Result<Self> {
        c.run(&["mkdir", "--parents", FAULTS])?;
        c.write(&format!("{FAULTS}/plan"), &format!("delay {point} 6000\n"))?;
        guest::drop_in(c, &format!("[Service]\nEnvironment=ZLH_FAULTS={FAULTS}\n"))?;
        c.run(&["systemctl", "restart", "zlh-agent"])?;
        game_when_ready(c)?;
        Ok(Self { point })
    }

    /// Waits until somebody does, once for every call.
    fn reached(&self, c: &Container) -> Result<()> {
        let trace = c.path(&format!("{FAULTS}/trace-run"));
        wait_for(self.point, SOON, || {
            let reached = fs::read_to_string(&trace)?;
            ensure!(reached.lines().any(|line| line == self.point), "{reached}");
            Ok(())
        })?;
        Ok(fs::remove_file(trace)?)
    }

    fn end(self, c: &Container) -> Result<()> {
        guest::drop_in(c, "")?;
        c.run(&["rm", "--recursive", FAULTS])?;
        c.run(&["systemctl", "restart", "zlh-agent"])?;
        game_when_ready(c).map(drop)
    }
}

const FAULTS: &str = "/var/lib/zlh-faults";
