//! `zlhctl demo`: a real Minecraft server on this machine, the way it runs in production.
//!
//! ```text
//! npm ci ─► pack ─► sign ─► serve ─► agent ─► POST /config ─► ready ─► stay │ story
//!   packages    store (signed catalog)   │      (verified install)        └─► stop, idle, agent ended
//!                                        └─ its own process group, below DIR/root
//! ```
//!
//! Everything lies below one folder; nothing needs root. Whatever was done before is
//! found again and not repeated. However it ends, the server is asked to save and the
//! agent to end; what cannot be helped (this process killed) is cleared up by the next
//! run, which finds the agent by its recorded process.

mod agent;
mod layout;
mod live;
mod npm;
mod ports;
mod signals;
mod store;
mod story;

use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use serde_json::json;
use zlh_api::State;
use zlh_api::client::{Client, Connector};

use crate::cli::Demo;
use crate::commands::status;
use crate::exit::{Exit, Hint};
use crate::fleet::{self, Member};
use crate::printer::Printer;
use crate::serve::Server;
use crate::target::Target;
use crate::terminal::NoEcho;
use crate::ui::progress::Progress;
use crate::wait::{Goal, Wait};
use agent::Agent;
use layout::Layout;
use signals::Signals;

/// A demo whose server accepts players.
struct Running {
    layout: Layout,
    client: Client,
    port: u16,
}

pub(crate) async fn run(options: Demo, printer: Printer) -> Result<Exit> {
    if options.stop {
        return stop(&options, printer).await;
    }
    let stay = !options.once && std::io::stdout().is_terminal() && std::io::stderr().is_terminal();
    let binary = agent_binary(options.agent)?;
    let layout = Layout::create(&options.dir)?;
    let Some(_lock) = layout.lock()? else { return already_running(&layout, stay, printer).await };
    let mut signals = Signals::new()?;
    let _quiet = stay.then(NoEcho::enter);
    let progress = Progress::new(printer).align(["packages"].into_iter());
    printer.note(&format!("demo in `{}`", layout.shown()));

    let mut agent = None;
    let up = tokio::select! {
        up = set_up(&layout, &binary, &mut agent, &progress, printer) => up,
        () = signals.next() => Err(anyhow!("interrupted")),
    };
    let result = match up {
        Ok(running) => show(&running, stay, &mut signals, &progress, printer).await,
        Err(error) => Err(error),
    };
    let ended = match agent {
        Some(agent) => end(agent, &mut signals, &progress).await,
        None => Ok(()),
    };
    // The first thing that went wrong is the reason; the second may only follow from it.
    result.and(ended)?;
    if !stay {
        printer.note("the demo went through");
    }
    Ok(Exit::Ok)
}

/// Ends what an earlier demo left running: its agent, and a server that outlived it.
async fn stop(options: &Demo, printer: Printer) -> Result<Exit> {
    if !options.dir.is_dir() {
        return Ok(Exit::Ok);
    }
    let layout = Layout::create(&options.dir)?;
    let Some(_lock) = layout.lock()? else {
        return Err(anyhow!("a demo runs in `{}`", layout.shown()))
            .hint("end it with ctrl-c in its terminal");
    };
    let progress = Progress::new(printer).align(["earlier"].into_iter());
    Agent::end_earlier(&layout, &progress).await?;
    agent::end_orphan(&layout, &progress).await?;
    Ok(Exit::Ok)
}

/// All the way to a server that accepts players. `agent` is filled as soon as there is one to end.
async fn set_up(
    layout: &Layout,
    binary: &Path,
    agent: &mut Option<Agent>,
    progress: &Progress,
    printer: Printer,
) -> Result<Running> {
    let packages = npm::install(layout, progress.line("packages")).await?;
    let key = store::prepare(layout, &packages, progress.line("store")).await?;

    Agent::end_earlier(layout, progress).await?;
    let server = Server::bind(&layout.artifacts, ([127, 0, 0, 1], 0).into()).await?;
    let artifacts_url = format!("http://{}", server.address());
    tokio::spawn(server.run());

    let port = ports::agent()?;
    if port != AGENT_PORT {
        printer.note(&format!("port {AGENT_PORT} is in use: the agent takes {port}"));
    }
    let line = progress.line("agent");
    let started = agent.insert(Agent::start(layout, binary, port, &artifacts_url, &key)?);
    let url = format!("http://127.0.0.1:{port}");
    let client = Connector::new(CALL_TIMEOUT, None).agent(&url, None)?;
    started.wait_until_healthy(&client, layout).await?;
    line.finish(&format!("{} at {url}, process {}", client.version().await?.version, started.pid()));

    let port = server_up(&client, progress, printer)
        .await
        .hint(format!("the agent's log is `{}`", layout.agent_log.display()))?;
    write_fleet(layout, &url)?;
    Ok(Running { layout: layout.clone(), client, port })
}

/// Has the agent install and start the server; returns the port players join on.
async fn server_up(client: &Client, progress: &Progress, printer: Printer) -> Result<u16> {
    let before = client.status().await?;
    // A server that outlived an agent goes on, on the port it has.
    let running = before.process_running.then(|| before.config.as_ref()?.ports.first().copied()).flatten();
    let port = match running {
        Some(port) => port,
        None => ports::game()?,
    };
    if port != GAME_PORT {
        printer.note(&format!("port {GAME_PORT} is in use: the server takes {port}"));
    }
    let line = progress.line("server");
    let accepted = client
        .configure(&json!({
            "vmid": 5001, "container_type": "game", "game": "minecraft", "variant": "flying-squid",
            "version": store::MINECRAFT_VERSION, "world": "world", "ports": [port], "memory_mb": 1024,
        }))
        .await?;
    let mut operation = accepted.operation;
    if operation.is_none() && !matches!(accepted.state, State::Running | State::Starting) {
        // The same payload as last time: nothing to install, only to start.
        operation = client.start().await?.operation;
    }
    let wait = Wait {
        goal: Goal::Ready,
        operation: operation.map(|operation| operation.id),
        timeout: READY_TIMEOUT,
    };
    wait.run(client, |seen| line.seen(seen)).await?;
    line.finish(&format!("flying-squid, Minecraft {}, ready on port {port}", store::MINECRAFT_VERSION));
    Ok(port)
}

/// What there is to see once it runs.
async fn show(
    running: &Running,
    stay: bool,
    signals: &mut Signals,
    progress: &Progress,
    printer: Printer,
) -> Result<()> {
    introduce(running, printer).await?;
    if stay {
        live::stay(running, signals, progress).await
    } else {
        story::tell(running, signals, progress).await
    }
}

/// The table, and what to type next.
async fn introduce(running: &Running, printer: Printer) -> Result<()> {
    let target = Target {
        name: NAME.to_owned(),
        url: running.client.agent(),
        labels: [].into(),
        client: Ok(running.client.clone()),
    };
    printer.note("");
    status::print(&[status::look(target).await], printer)?;
    printer.note(&format!(
        "\n  join      127.0.0.1:{} (Minecraft {}, offline mode)\n  console   {} console {NAME}\n",
        running.port,
        store::MINECRAFT_VERSION,
        running.layout.wrapper_shown(),
    ));
    Ok(())
}

/// Stops the server, waits until its world is saved, ends the agent.
async fn end(agent: Agent, signals: &mut Signals, progress: &Progress) -> Result<()> {
    let mut ending = std::pin::pin!(agent.end(progress));
    loop {
        tokio::select! {
            result = &mut ending => return result,
            () = signals.next() => progress.note("still waiting for the server to save its world, then for the agent to end"),
        }
    }
}

/// Somebody has the lock: a demo that runs in another terminal.
async fn already_running(layout: &Layout, stay: bool, printer: Printer) -> Result<Exit> {
    let remedy =
        format!("end it with ctrl-c there, or take another folder: zlhctl demo --dir {}-2", layout.shown());
    let in_use = || anyhow!("another demo runs in `{}`", layout.shown());
    if !stay {
        return Err(in_use()).hint(remedy);
    }
    let url = layout.fleet_url().with_context(|| in_use().to_string()).hint(remedy)?;
    let client = Connector::new(CALL_TIMEOUT, None).agent(&url, None)?;
    let status = client.status().await?;
    let port = status.port.or_else(|| status.config.as_ref()?.ports.first().copied()).unwrap_or(GAME_PORT);
    printer.note(&format!("a demo runs in `{}` already", layout.shown()));
    introduce(&Running { layout: layout.clone(), client, port }, printer).await?;
    Ok(Exit::Ok)
}

fn agent_binary(given: Option<PathBuf>) -> Result<PathBuf> {
    let path = match given {
        Some(path) => path,
        None => std::env::current_exe().context("cannot tell where zlhctl lies")?.with_file_name("zlh-agent"),
    };
    if !path.is_file() {
        return Err(anyhow!("there is no agent at `{}`", path.display()))
            .hint("build it (`cargo build -p zlh-agent`) or name it with --agent FILE");
    }
    std::path::absolute(&path).with_context(|| format!("`{}`", path.display()))
}

fn write_fleet(layout: &Layout, url: &str) -> Result<()> {
    fleet::remove(&layout.fleet, NAME)?;
    let labels = [("game".to_owned(), "minecraft".to_owned())].into();
    fleet::add(
        &layout.fleet,
        &Member { name: NAME.to_owned(), url: url.to_owned(), labels, token_file: None, token: None },
    )?;
    layout.write_wrapper()
}

/// What the demo's agent is called in its fleet file.
const NAME: &str = "demo";
const AGENT_PORT: u16 = 18888;
const GAME_PORT: u16 = 25565;
const CALL_TIMEOUT: Duration = Duration::from_secs(10);
const READY_TIMEOUT: Duration = Duration::from_secs(300);
