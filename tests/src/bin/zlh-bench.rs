//! Measures what is promised, on the binaries beside it, and says how much of each
//! budget is used. Run it with `make bench`; it fails when a budget is exceeded.
//! `make bench ONLY="writer viewers"` measures parts of it.

use std::io::Write;
use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use zlh_tests::harness::agent::Agent;
use zlh_tests::harness::store::{FakePlan, Store};
use zlh_tests::harness::{console_bench, install_bench, measure, paths};

/// One promise.
struct Line {
    what: &'static str,
    value: f64,
    budget: f64,
    unit: &'static str,
}

/// How long an idle agent and its shim are watched.
const WATCHED: Duration = Duration::from_secs(30);

/// Floods of the console, and the size of each. A single pair tells little: where the kernel
/// places the processes decides more than who drains them.
const PAIRS: usize = 31;
const FLOODS: usize = 7;
const FLOOD_MIB: u64 = 64;

/// Keys typed, MiB of a flood that is looked at, lines a crowd waits for.
const KEYS: usize = 400;
const VIEWED_MIB: u64 = 32;
const MARKS: usize = 200;

/// Installations and verifications, each beside its peer.
const INSTALLS: usize = 5;
const VERIFICATIONS: usize = 3;

/// The parts, in the order in which they run.
const PARTS: [&str; 7] = ["size", "start", "idle", "writer", "viewers", "install", "verify"];

fn main() -> Result<ExitCode> {
    let asked: Vec<String> = std::env::args().skip(1).collect();
    if let Some((first, rest)) = asked.split_first()
        && first == install_bench::CHILD
    {
        install_bench::child(rest)?;
        return Ok(ExitCode::SUCCESS);
    }
    if let Some(unknown) = asked.iter().find(|part| !PARTS.contains(&part.as_str())) {
        anyhow::bail!("no part is called {unknown}: there are {}", PARTS.join(", "));
    }
    let wanted = |part: &str| asked.is_empty() || asked.iter().any(|asked| asked == part);
    let mut lines = Vec::new();
    if wanted("size") {
        lines.extend([binary_size()?, crates()?]);
    }
    let mut agent = Agent::prepare(Store::fake(&FakePlan::new(&["--startup-delay", "300ms"]))?)?;
    if wanted("start") {
        let starts = measure::exec_to_listening(&mut agent, 21);
        let what = "exec to listening, median";
        lines.push(Line { what, value: millis(starts[10]), budget: 50.0, unit: "ms" });
    }
    agent.start();
    agent.configure();
    agent.wait_ready();
    if wanted("start") {
        let ready = measure::answer_to_ready(&agent, 11);
        for (what, time) in
            [("answers to ready, median", ready[5]), ("answers to ready, worst of 11", ready[10])]
        {
            lines.push(Line { what, value: millis(time), budget: 250.0, unit: "ms" });
        }
        agent.post("/start", 202);
        agent.wait_ready();
    }
    if wanted("idle") {
        lines.extend(at_rest(&agent)?);
    }
    if wanted("writer") {
        lines.extend(console(&agent)?);
    }
    if wanted("viewers") {
        lines.extend(viewers(&agent)?);
    }
    if wanted("install") {
        lines.extend(installation()?);
    }
    if wanted("verify") {
        lines.extend(verification()?);
    }
    print(&lines)?;
    let kept = lines.iter().all(|line| line.value <= line.budget);
    Ok(if kept { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Memory and wake-ups while nothing happens.
fn at_rest(agent: &Agent) -> Result<Vec<Line>> {
    idle(Duration::from_secs(5));
    let of_agent = agent.process().memory().context("the agent's memory")?;
    let shim = *agent.shims().first().context("a shim")?;
    let of_shim = shim.memory().context("the shim's memory")?;
    let woken = measure::wake_ups_a_minute(&[agent.process(), shim], WATCHED)?;
    Ok(vec![
        Line { what: "agent, idle, RSS", value: mib(of_agent.rss_kib), budget: 8.0, unit: "MiB" },
        Line { what: "agent, idle, PSS", value: mib(of_agent.pss_kib), budget: 8.0, unit: "MiB" },
        Line { what: "shim, idle, PSS", value: mib(of_shim.pss_kib), budget: 1.0, unit: "MiB" },
        Line { what: "agent, idle, wake-ups", value: woken[0], budget: 60.0, unit: "/min" },
        Line { what: "shim, idle, wake-ups", value: woken[1], budget: 1.0, unit: "/min" },
    ])
}

/// The same flood by the same writer, drained by the shim and by `cat >/dev/null`, in turns.
fn console(agent: &Agent) -> Result<Vec<Line>> {
    let dir = tempfile::tempdir()?;
    let mut ratios = Vec::new();
    let mut fastest = Duration::MAX;
    for pair in 0..PAIRS {
        // Whoever comes second finds the machine as the first one left it: in turns, too.
        let mut cat = None;
        if pair % 2 == 1 {
            cat = Some(measure::flood_through_cat(dir.path(), FLOOD_MIB)?);
        }
        let shim = measure::flood_through_shim(agent, FLOOD_MIB)?;
        let cat = match cat {
            Some(cat) => cat,
            None => measure::flood_through_cat(dir.path(), FLOOD_MIB)?,
        };
        ratios.push(shim.as_secs_f64() / cat.as_secs_f64());
        fastest = fastest.min(shim);
    }
    ratios.sort_by(f64::total_cmp);
    let quartile = |nth: usize| ratios[PAIRS * nth / 4];
    let rate = f64::from(u32::try_from(FLOOD_MIB)?) / fastest.as_secs_f64();
    let what = "writer through the shim / cat";
    Ok(vec![
        Line { what, value: quartile(2), budget: 1.10, unit: "times" },
        Line { what: "  its lower quartile", value: quartile(1), budget: f64::INFINITY, unit: "times" },
        Line { what: "  its upper quartile", value: quartile(3), budget: f64::INFINITY, unit: "times" },
        Line { what: "console, time for 1 GiB at best", value: 1024.0 / rate, budget: 60.0, unit: "s" },
    ])
}

/// Keys, floods and crowds, beside a bare terminal and tmux.
fn viewers(agent: &Agent) -> Result<Vec<Line>> {
    let dir = tempfile::tempdir()?;
    let bare = console_bench::echo_of_a_terminal(KEYS)?;
    let ours = console_bench::echo_through_the_agent(agent, KEYS)?;
    let mut lines = Vec::new();
    for (percent, what, ratio) in [
        (50, "echo of a key, p50", "echo p50 / a bare terminal's"),
        (99, "echo of a key, p99", "echo p99 / a bare terminal's"),
    ] {
        let (ours, bare) =
            (console_bench::percentile(&ours, percent)?, console_bench::percentile(&bare, percent)?);
        lines.push(Line { what, value: millis(ours), budget: 20.0, unit: "ms" });
        lines.push(Line {
            what: ratio,
            value: ours.as_secs_f64() / bare.as_secs_f64(),
            budget: f64::INFINITY,
            unit: "times",
        });
    }
    let mut ratios = Vec::new();
    let mut fastest = Duration::MAX;
    for _ in 0..FLOODS {
        let ours = console_bench::flood_to_a_viewer(agent, VIEWED_MIB)?;
        fastest = fastest.min(ours);
        if let Some(tmux) = console_bench::flood_through_tmux(dir.path(), VIEWED_MIB)? {
            ratios.push(ours.as_secs_f64() / tmux.as_secs_f64());
        }
    }
    ratios.sort_by(f64::total_cmp);
    if let Some(ratio) = ratios.get(ratios.len() / 2) {
        lines.push(Line { what: "flood to a viewer / tmux", value: *ratio, budget: 1.0, unit: "times" });
    }
    let rate = f64::from(u32::try_from(VIEWED_MIB)?) / fastest.as_secs_f64();
    lines.push(Line { what: "to a viewer, 1 GiB at best", value: 1024.0 / rate, budget: 60.0, unit: "s" });
    let crowd = console_bench::latency_of_a_crowd(agent, MARKS)?;
    let late = console_bench::percentile(&crowd, 99)?;
    lines.push(Line { what: "a line to one of 200, p99", value: millis(late), budget: 50.0, unit: "ms" });
    Ok(lines)
}

/// A runtime of 185 MB from a server to its place, beside `curl`, `sha256sum`, `tar xzf`.
fn installation() -> Result<Vec<Line>> {
    let published = install_bench::Published::new()?;
    let (mut whole, mut unpacking, mut switches, mut peak, mut ours) =
        (Vec::new(), Vec::new(), Vec::new(), 0, Vec::new());
    for _ in 0..INSTALLS {
        let (by_hand, tar) = published.by_hand()?;
        let cost = published.by_us()?;
        whole.push(cost.whole.as_secs_f64() / by_hand.as_secs_f64());
        unpacking.push(cost.unpacking.as_secs_f64() / tar.as_secs_f64());
        ours.push(cost.whole.as_secs_f64());
        peak = peak.max(cost.peak_kib);
        let (switch, back) = published.switches()?;
        switches.push(millis(switch.max(back)));
    }
    let median = |values: &mut Vec<f64>| {
        values.sort_by(f64::total_cmp);
        values[values.len() / 2]
    };
    let worst = switches.iter().copied().fold(0.0, f64::max);
    Ok(vec![
        Line {
            what: "install / curl, sha256sum, tar",
            value: median(&mut whole),
            budget: 1.0 / 1.3,
            unit: "times",
        },
        Line {
            what: "unpack, tree, sync / tar xzf",
            value: median(&mut unpacking),
            budget: 1.0,
            unit: "times",
        },
        Line { what: "install of 185 MB", value: median(&mut ours), budget: f64::INFINITY, unit: "s" },
        Line { what: "installing, peak RSS", value: mib(peak), budget: 32.0, unit: "MiB" },
        Line { what: "switch and rollback, worst", value: worst, budget: 100.0, unit: "ms" },
    ])
}

/// A store of 2 GiB, beside `sha256sum` over the same files.
fn verification() -> Result<Vec<Line>> {
    let (mut wall, mut cpu) = (Vec::new(), Vec::new());
    for _ in 0..VERIFICATIONS {
        let [ours, theirs] = install_bench::verification(2)?;
        wall.push(ours.0.as_secs_f64() / theirs.0.as_secs_f64());
        cpu.push(ours.1.as_secs_f64() / theirs.1.as_secs_f64());
    }
    wall.sort_by(f64::total_cmp);
    cpu.sort_by(f64::total_cmp);
    let middle = VERIFICATIONS / 2;
    Ok(vec![
        Line { what: "verify 2 GiB / sha256sum, time", value: wall[middle], budget: 1.0, unit: "times" },
        Line { what: "verify 2 GiB / sha256sum, CPU", value: cpu[middle], budget: 1.15, unit: "times" },
    ])
}

/// As it is shipped: without symbols.
fn binary_size() -> Result<Line> {
    let dir = tempfile::tempdir()?;
    let stripped = dir.path().join("stripped");
    let mut strip = Command::new("strip");
    let status = strip.arg("-o").arg(&stripped).arg(paths::binary("zlh-agent")?).status();
    let status = status.context("run strip: apt-get install binutils")?;
    anyhow::ensure!(status.success(), "strip: {status}");
    let kib = u32::try_from(std::fs::metadata(stripped)?.len() >> 10).context("a binary of terabytes")?;
    Ok(Line { what: "binary, stripped", value: f64::from(kib) / 1024.0, budget: 10.0, unit: "MiB" })
}

fn crates() -> Result<Line> {
    let mut command = Command::new("cargo");
    command.args(["tree", "--offline", "-p", "zlh-agent", "-e", "normal", "--prefix", "none"]);
    let output = command.current_dir(paths::workspace()).output().context("run cargo tree")?;
    anyhow::ensure!(output.status.success(), "cargo tree: {}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout)?;
    let mut names: Vec<&str> = text.lines().map(|line| line.trim_end_matches(" (*)")).collect();
    names.sort_unstable();
    names.dedup();
    let count = u32::try_from(names.len())?;
    Ok(Line { what: "crates in the agent's tree", value: f64::from(count), budget: 260.0, unit: "" })
}

/// Lets everything settle that settles by itself.
fn idle(time: Duration) {
    let end = Instant::now() + time;
    while let Some(rest) = end.checked_duration_since(Instant::now()) {
        std::thread::sleep(rest);
    }
}

fn print(lines: &[Line]) -> Result<()> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{:<32} {:>10} {:>10} {:>8}", "", "measured", "budget", "used")?;
    for Line { what, value, budget, unit } in lines {
        let (used, over) = (value / budget * 100.0, if value > budget { "  OVER" } else { "" });
        writeln!(out, "{what:<32} {value:>10.2} {budget:>10.2} {used:>6.0} %  {unit}{over}")?;
    }
    Ok(())
}

fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1_000.0
}

fn mib(kib: u64) -> f64 {
    f64::from(u32::try_from(kib).unwrap_or(u32::MAX)) / 1024.0
}
