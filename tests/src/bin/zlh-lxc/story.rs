//! What is promised of a container with systemd, in the order one life of it shows it.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde_json::json;
use zlh_api::State;

use super::container::{Container, wait_for};
use super::guest::{self, AGENT, Identity, SHUTDOWN_S, SOON};
use super::report::Report;
use super::update;

/// Tells it. An error is the end of the story, not only of one promise.
pub(crate) fn tell(c: &Container, report: &mut Report) -> Result<()> {
    first_start(c, report)?;
    the_agent_comes_and_goes(c, report)?;
    shim_lost(c, report)?;
    reboots(c, report)?;
    overtaken(c, report)?;
    systemd_refuses(c, report)?;
    without_a_unit(c, report)?;
    nothing_helps(c, report)?;
    update::tell(c, report)
}

fn first_start(c: &Container, report: &mut Report) -> Result<()> {
    report.check("the packaged unit starts the agent, which says it is ready", || {
        wait_for("the unit", SOON, || {
            let state = c.run(&["systemctl", "show", "--property=ActiveState,StatusText", "zlh-agent"])?;
            ensure!(state.contains("ActiveState=active") && state.contains("StatusText=idle"), "{state}");
            Ok("active, \"idle: nothing is running\"".to_owned())
        })
    });
    c.run(&["zlhctl", "configure", AGENT, "--file", "/root/payload.json"]).context("configure it")?;
    let game = game_when_ready(c)?;
    report.check("the game lives in a unit of its own, whose main process is the shim", || {
        let unit = guest::unit_of(c, game.pid)?;
        ensure!(unit.starts_with("zlh-game-") && unit.ends_with(".service"), "it is in {unit}");
        let main = c.run(&["systemctl", "show", "--property=MainPID", "--value", &unit])?;
        ensure!(main.trim() == guest::shim(c)?.to_string(), "its main process is {}", main.trim());
        Ok(unit)
    });
    report.check("nothing to warn of", || {
        let warnings = guest::status(c)?.warnings;
        ensure!(warnings.is_empty(), "{warnings:?}");
        Ok(String::new())
    });
    Ok(())
}

fn the_agent_comes_and_goes(c: &Container, report: &mut Report) -> Result<()> {
    let game = game_when_ready(c)?;
    report.check("systemctl restart zlh-agent: the same game, ready within 2 s", || {
        // One alone measures the machine.
        let mut seen = Vec::new();
        while seen.last().is_none_or(|took| *took >= Duration::from_secs(2)) {
            ensure!(seen.len() < 3, "{seen:?}");
            c.run(&["systemctl", "restart", "zlh-agent"])?;
            let begun = Instant::now();
            same(game, game_when_ready(c)?)?;
            seen.push(begun.elapsed());
        }
        Ok(format!("{seen:.1?}"))
    });
    report.check("SIGKILL to the agent: back by itself, the same game", || {
        let before = main_pid(c)?;
        c.run(&["systemctl", "kill", "--signal=KILL", "zlh-agent"])?;
        wait_for("another agent", SOON, || {
            let now = main_pid(c)?;
            ensure!(now != before && now != "0", "its pid is {now}");
            Ok(())
        })?;
        same(game, game_when_ready(c)?)
    });
    report.check("systemctl stop zlh-agent: the game goes on", || {
        c.run(&["systemctl", "stop", "zlh-agent"])?;
        same(game, guest::identity(c, game.pid)?)?;
        c.run(&["systemctl", "start", "zlh-agent"])?;
        same(game, game_when_ready(c)?)
    });
    for mode in ["control-group", "mixed"] {
        report.check(&format!("the agent's unit has KillMode={mode}: the game does not care"), || {
            guest::drop_in(c, &format!("[Service]\nKillMode={mode}\n"))?;
            c.run(&["systemctl", "restart", "zlh-agent"])?;
            same(game, game_when_ready(c)?)?;
            c.run(&["systemctl", "kill", "--signal=KILL", "--kill-who=all", "zlh-agent"])?;
            same(game, game_when_ready(c)?)?;
            let warnings = guest::status(c)?.warnings;
            ensure!(warnings.is_empty(), "{warnings:?}");
            Ok(String::new())
        });
    }
    guest::drop_in(c, "")?;
    c.run(&["systemctl", "restart", "zlh-agent"])?;
    game_when_ready(c).map(drop)
}

fn shim_lost(c: &Container, report: &mut Report) -> Result<()> {
    let game = game_when_ready(c)?;
    let shim = guest::shim(c)?;
    report.check("SIGKILL to the shim: systemd leaves the game alone, the agent says so", || {
        c.run(&["kill", "-KILL", &shim.to_string()])?;
        let said = wait_for("degraded, or another shim", SOON, || {
            let degraded = guest::status(c)?.warnings.iter().any(|warning| warning.contains("degraded"));
            let another = guest::shim(c)? != shim;
            ensure!(degraded || another, "neither");
            Ok(if another { "another shim has it" } else { "degraded" })
        })?;
        same(game, guest::game(c)?)?;
        Ok(said.to_owned())
    });
    report.check("then a reboot: asked with its command, saved, back by itself", || {
        let took = c.reboot()?;
        let before = game;
        let after = game_when_ready(c)?;
        ensure!(after != before, "the same process after a reboot");
        Ok(format!("{took:.1?}, {}", run_before(c)?))
    });
    Ok(())
}

fn reboots(c: &Container, report: &mut Report) -> Result<()> {
    let before = guest::record(c, "shim.json")?;
    report.check("systemctl reboot: asked with its command, saved, back by itself", || {
        let took = c.reboot()?;
        game_when_ready(c)?;
        Ok(format!("{took:.1?}, {}", run_before(c)?))
    });
    report.check("its exit was intended, its run is of another life of the container", || {
        let exit = guest::record(c, "exit.json")?;
        let (instance, stop) = (&exit["instance"], &exit["stop"]);
        ensure!(*instance == before["instance"] && stop == "command", "{exit}");
        ensure!(exit["exit"] == json!({ "how": "exited", "code": 0 }), "{exit}");
        let after = guest::record(c, "shim.json")?;
        ensure!(after["generation"] != before["generation"], "both {}", after["generation"]);
        let status = guest::status(c)?;
        ensure!(status.crash_count == 0 && status.crashes_total == 0, "{} crashes", status.crashes_total);
        Ok("exit code 0 after the stop command, no crash counted".to_owned())
    });
    report.check("systemd stopped the game first, and the agent saw it end", || {
        let log = c.run(&["journalctl", "--boot=-1", "--unit=zlh-agent", "--output=cat", "--no-pager"])?;
        let at = |text: &str| log.rfind(text).with_context(|| format!("no {text:?} in the agent's log"));
        ensure!(at("the server has ended")? < at("leaving, and the container with us")?, "{log}");
        Ok(String::new())
    });
    report.check("no process of the new life was touched", || {
        let failed = c.run(&["systemctl", "list-units", "--failed", "--plain", "--no-legend", "zlh-*"])?;
        ensure!(failed.trim().is_empty(), "{failed}");
        Ok("no failed unit".to_owned())
    });
    report.check("a stopped agent is not needed for a graceful shutdown", || {
        c.run(&["systemctl", "stop", "zlh-agent"])?;
        let took = c.shut_down(PROXMOX)?;
        c.start()?;
        game_when_ready(c)?;
        Ok(format!("{took:.1?}, {}", run_before(c)?))
    });
    report.check("what an operator stopped stays stopped after a reboot", || {
        c.run(&["zlhctl", "stop", AGENT])?;
        c.reboot()?;
        wait_for("the agent", SOON, || guest::status(c).map(drop))?;
        let status = guest::status(c)?;
        ensure!(status.state == State::Idle && status.pid.is_none(), "it is {}", status.state);
        Ok("idle".to_owned())
    });
    c.run(&["zlhctl", "start", AGENT]).map(drop)
}

/// A restart, and the container goes down before its second half.
fn overtaken(c: &Container, report: &mut Report) -> Result<()> {
    game_when_ready(c)?;
    let runs = guest::runs(c)?;
    report.check("a restart that a reboot overtakes is finished by the next boot", || {
        c.run(&["zlhctl", "restart", AGENT, "--no-wait"])?;
        let took = c.reboot()?;
        let status = guest::wait_ready(c)?;
        ensure!(status.crashes_total == 0, "{} crashes", status.crashes_total);
        let more = guest::runs(c)? - runs;
        ensure!(more == 1, "{more} starts");
        Ok(format!("{took:.1?}, one start, no crash"))
    });
    Ok(())
}

/// What comes of a systemd that fails, and of one that hangs.
fn systemd_refuses(c: &Container, report: &mut Report) -> Result<()> {
    c.run(&["mv", TOOL, TOOL_ASIDE])?;
    for (what, script) in [
        (
            "systemd refuses a unit: a plain child, and a warning",
            "#!/bin/sh\necho out of units >&2\nexit 1\n",
        ),
        ("systemd hangs: a plain child after 10 s, and a warning", "#!/bin/sh\nexec sleep 600\n"),
    ] {
        c.write(TOOL, script)?;
        c.run(&["chmod", "755", TOOL])?;
        report.check(what, || {
            c.run(&["zlhctl", "restart", AGENT])?;
            let game = game_when_ready(c)?;
            let unit = guest::unit_of(c, game.pid)?;
            ensure!(unit == "zlh-agent.service", "it is in {unit}");
            guest::wait_warning(c, "has no unit of its own").map(|_| String::new())
        });
    }
    c.run(&["mv", TOOL_ASIDE, TOOL])?;
    report.check("the next start has a unit again, and the warning is gone", || {
        c.run(&["zlhctl", "restart", AGENT])?;
        let game = game_when_ready(c)?;
        let unit = guest::unit_of(c, game.pid)?;
        ensure!(unit.starts_with("zlh-game-"), "it is in {unit}");
        let warnings = guest::status(c)?.warnings;
        ensure!(warnings.is_empty(), "{warnings:?}");
        Ok(unit)
    });
    Ok(())
}

/// `workload_units = false` stands for every container whose systemd gives none.
fn without_a_unit(c: &Container, report: &mut Report) -> Result<()> {
    guest::configure_agent(c, "workload_units = false")?;
    guest::drop_in(c, "[Service]\nKillMode=control-group\n")?;
    c.run(&["zlhctl", "stop", AGENT])?;
    report.check("no units, wrong KillMode: a warning before the first start", || {
        c.run(&["systemctl", "restart", "zlh-agent"])?;
        let warning = guest::wait_warning(c, "KillMode must be process")?;
        ensure!(guest::status(c)?.pid.is_none(), "the game runs already");
        ensure!(warning.contains("/etc/systemd/system/zlh-agent.service.d"), "no remedy: {warning}");
        Ok("it names the drop-in".to_owned())
    });
    report.check("the remedy helps: no warning, and a restart spares the game", || {
        guest::drop_in(c, "[Service]\nKillMode=process\n")?;
        c.run(&["systemctl", "restart", "zlh-agent"])?;
        wait_for("the agent", SOON, || guest::status(c).map(drop))?;
        c.run(&["zlhctl", "start", AGENT])?;
        let game = game_when_ready(c)?;
        let unit = guest::unit_of(c, game.pid)?;
        ensure!(unit == "zlh-agent.service", "it is in {unit}");
        c.run(&["systemctl", "restart", "zlh-agent"])?;
        same(game, game_when_ready(c)?)?;
        let warnings = guest::status(c)?.warnings;
        ensure!(!warnings.iter().any(|warning| warning.contains("KillMode")), "{warnings:?}");
        Ok(String::new())
    });
    report.check("the agent itself then stops the game at a shutdown", || {
        let took = c.reboot()?;
        game_when_ready(c)?;
        Ok(format!("{took:.1?}, {}", run_before(c)?))
    });
    guest::configure_agent(c, "")?;
    guest::drop_in(c, "")?;
    c.run(&["systemctl", "restart", "zlh-agent"]).map(drop)
}

fn nothing_helps(c: &Container, report: &mut Report) -> Result<()> {
    guest::behave(c, &json!({ "stop": "ignore", "ignore_sigterm": true }))?;
    wait_for("the agent", SOON, || guest::status(c).map(drop))?;
    c.run(&["zlhctl", "restart", AGENT])?;
    game_when_ready(c)?;
    report.check("a game that ignores everything: down within the limit all the same", || {
        let took = c.shut_down(PROXMOX)?;
        ensure!(took < Duration::from_secs(SHUTDOWN_S + 10), "{took:?}");
        let exit = guest::record(c, "exit.json")?;
        ensure!(exit["stop"] == "kill", "{exit}");
        Ok(format!("{took:.1?} with container_shutdown_s = {SHUTDOWN_S}"))
    });
    guest::behave(c, &json!({}))?;
    report.check("and back at the next boot", || {
        c.start()?;
        let game = game_when_ready(c)?;
        Ok(format!("pid {}", game.pid))
    });
    Ok(())
}

pub(super) fn game_when_ready(c: &Container) -> Result<Identity> {
    let status = guest::wait_ready(c)?;
    guest::identity(c, status.pid.context("a ready game has a pid")?)
}

fn main_pid(c: &Container) -> Result<String> {
    Ok(c.run(&["systemctl", "show", "--property=MainPID", "--value", "zlh-agent"])?.trim().to_owned())
}

pub(super) fn same(before: Identity, after: Identity) -> Result<String> {
    if before != after {
        bail!("{before:?} became {after:?}");
    }
    Ok(format!("pid {}", after.pid))
}

/// How the run before the present one was ended.
fn run_before(c: &Container) -> Result<String> {
    guest::was_asked(&guest::run_before(c)?)
}

const TOOL: &str = "/usr/bin/systemd-run";
const TOOL_ASIDE: &str = "/usr/bin/systemd-run.aside";
/// What Proxmox waits for a container that shuts down, unless told otherwise.
const PROXMOX: Duration = Duration::from_secs(60);
