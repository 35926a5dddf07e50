//! `zlh-agent run`: the daemon, told as a story.

use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::fs::FlockOperation;
use slog::{Logger, error, info, o, warn};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{mpsc, watch};
use zlh_shim::durable;

use crate::change::Changer;
use crate::cli::RunOptions;
use crate::config::{AgentConfig, Environment};
use crate::descriptors;
use crate::errors::chain;
use crate::http;
use crate::journal::What;
use crate::log::{self, Vmid};
use crate::paths::Paths;
use crate::shell::Shells;
use crate::systemd::{Notify, Systemd};
use crate::update::{self, HandOver, Updater};
use crate::workload::{self, Launcher};

/// For the last log lines when the pipe behind them is stuck.
const FLUSH: Duration = Duration::from_secs(2);

/// From the ladder's last rung to the end of what it killed.
const SHUTDOWN_MARGIN: Duration = Duration::from_secs(5);

/// For the connections' end and the rest of our own.
const FAREWELL: Duration = Duration::from_secs(10);
/// How long the first answer may wait for what an earlier agent left behind to be known.
const RECALL: Duration = Duration::from_millis(300);

/// Threads that serve requests and events; work that blocks has threads of its own.
const WORKERS: usize = 2;

/// Threads for work that blocks, at most; they end when idle.
const BLOCKING: usize = 32;

/// Runs until SIGTERM or SIGINT. The game goes on without us, unless the container ends.
pub(crate) fn run(options: &RunOptions) -> ExitCode {
    let began = Instant::now();
    descriptors::raise();
    let environment = Environment::of_process();
    let config = AgentConfig::load(options, &environment);
    let vmid = Vmid::new(config.as_ref().ok().and_then(|c| c.vmid));
    let (log, guard) = log::root(options.log_format, options.log_level, vmid.clone());
    info!(log, "starting ZeroLagHub Agent v{}", crate::version(); "pid" => std::process::id());
    let notify = Arc::new(Notify::of_process());
    let result = config.map_err(|error| chain(&error)).and_then(|config| {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(WORKERS)
            .max_blocking_threads(BLOCKING)
            .enable_all()
            .build()
            .map_err(|error| format!("cannot start the runtime: {error}"))?;
        let done = runtime.block_on(serve(Arc::new(config), vmid, notify.clone(), &log, began));
        // Whatever still blocks is not waited for.
        runtime.shutdown_background();
        done
    });
    let code = match result {
        Ok(None) => ExitCode::SUCCESS,
        Ok(Some((hand_over, signals, paths))) => {
            update::stand_guard(&hand_over, signals, &paths, &notify, &log)
        }
        Err(reason) => {
            error!(log, "{}", reason);
            ExitCode::FAILURE
        }
    };
    drop(log);
    guard.flush(FLUSH);
    code
}

async fn serve(
    config: Arc<AgentConfig>,
    vmid: Vmid,
    notify: Arc<Notify>,
    log: &Logger,
    began: Instant,
) -> Result<Option<(HandOver, [Signal; 2], Paths)>, String> {
    let mut terminate = signal(SignalKind::terminate()).map_err(|e| format!("cannot take signals: {e}"))?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(|e| format!("cannot take signals: {e}"))?;
    // A closed terminal is no reason to leave; the configuration is read at the start only.
    let mut hangup = signal(SignalKind::hangup()).map_err(|e| format!("cannot take signals: {e}"))?;
    let ignore_hangups = async move { while hangup.recv().await.is_some() {} };
    tokio::spawn(ignore_hangups);
    if update::is_to_leave() {
        let _ = rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::TERM);
    }
    let paths = Paths::new(&config.root);
    paths.prepare().map_err(|error| error.to_string())?;
    let _lock = one_agent(&paths)?;
    paths.sweep();
    for warning in &config.warnings {
        warn!(log, "{}", warning);
    }

    let listener = http::bind(config.listen).await.map_err(|error| {
        format!("cannot listen on {}: {error}; choose another address with --listen", config.listen)
    })?;
    let address =
        listener.local_addr().map_err(|error| format!("cannot read the listening address: {error}"))?;
    let launcher = Launcher::new(config.workload_units, paths.is_system(), log);
    let shells = Shells::new(paths.clone(), config.shell.clone(), launcher, log);
    let (driver, handle) = workload::boot(paths.clone(), config.clone(), vmid, log);
    let (recalled, recall) = tokio::sync::oneshot::channel();
    let driver = tokio::spawn(driver.run(recalled));
    // Whoever asks first should see what is already running; but nobody is kept waiting by a
    // shim that does not answer.
    let _ = tokio::time::timeout(RECALL, recall).await;
    let recalled = shells.clone();
    tokio::spawn(async move { recalled.recall().await });
    if let Err(error) = durable::write(&paths.listen_file(), format!("{address}\n").as_bytes(), 0o644) {
        // A full disk is no reason to stay away: stopping and deleting are what it needs now.
        warn!(log, "the address could not be written to a file"; "file" => %paths.listen_file().display(), "error" => %error);
    }
    info!(log, "listening"; "address" => %address, "since_exec_ms" => u64::try_from(began.elapsed().as_millis()).unwrap_or(0));

    let journal = handle.journal().clone();
    notify.ready();
    let (main, is_main) = mpsc::channel(1);
    tokio::spawn(tell_status(handle.changes(), notify.clone(), is_main));
    let (stop, stopped) = watch::channel(false);
    let changer = Changer::new(handle.clone(), paths.clone(), config.clone(), log);
    if !update::is_to_leave() {
        changer.resume();
    }
    let (updater, mut hand_over) = Updater::new(handle.clone(), paths.clone(), config.clone(), log);
    let app = http::App::new(
        handle.clone(),
        shells,
        changer.clone(),
        updater.clone(),
        &config,
        &log.new(o!("component" => "http")),
    );
    let server = tokio::spawn(http::serve(listener, app, stopped));
    {
        let (paths, log) = (paths.clone(), log.clone());
        tokio::task::spawn_blocking(move || {
            if update::announce(address, &paths, &log) {
                let _ = main.try_send(());
            }
        });
    }
    tokio::spawn(updater.watch());
    let (name, hand_over) = tokio::select! {
        _ = terminate.recv() => ("SIGTERM", None),
        _ = interrupt.recv() => ("SIGINT", None),
        Some(hand_over) = hand_over.recv() => ("update", Some(hand_over)),
    };
    changer.leave();
    // A restart of the agent is nobody's business but its own; the end of the container is.
    let container_stops = match Systemd::find() {
        Some(systemd) if hand_over.is_none() => systemd.is_stopping().await,
        _ => false,
    };
    if let Some(hand_over) = &hand_over {
        info!(log, "leaving to a new version; what runs goes on running"; "version" => &hand_over.record.to);
    } else if container_stops {
        info!(log, "leaving, and the container with us: what runs is stopped first"; "signal" => name);
        let within = config.container_shutdown + SHUTDOWN_MARGIN;
        notify.stopping(within + FAREWELL);
        if tokio::time::timeout(within, handle.shut_down()).await.is_err() {
            warn!(log, "the server has not ended in time");
        }
    } else if config.stop_on_agent_shutdown {
        info!(log, "leaving; the server is stopped before, another signal leaves at once"; "signal" => name);
        notify.stopping(zlh_shim::ladder::LONGEST);
        let left = tokio::select! {
            left = handle.leave() => left,
            _ = terminate.recv() => false,
            _ = interrupt.recv() => false,
        };
        if !left {
            // The ladder is not ours: it goes on without us.
            warn!(log, "leaving before the server has ended");
        }
    } else {
        info!(log, "leaving; what runs goes on running"; "signal" => name);
        notify.stopping(FAREWELL);
    }
    stop.send_replace(true);
    // The server ends its connections within its own deadline.
    let _ = server.await;
    driver.abort();
    journal.record(What::AgentLeft { signal: name.to_owned() });
    journal.close(FLUSH);
    // Gone with us: nobody should be sent to a closed port.
    let _ = std::fs::remove_file(paths.listen_file());
    Ok(hand_over.map(|hand_over| (hand_over, [terminate, interrupt], paths)))
}

/// `systemctl status` shows what `GET /status` would say. A manager listens to the main
/// process only: what was said before this one `is_main` is said again.
async fn tell_status(
    mut changes: watch::Receiver<Arc<workload::Snapshot>>,
    notify: Arc<Notify>,
    mut is_main: mpsc::Receiver<()>,
) {
    let mut told = String::new();
    loop {
        let line = changes.borrow_and_update().line();
        if line != told {
            notify.status(&line);
            told = line;
        }
        tokio::select! {
            changed = changes.changed() => if changed.is_err() {
                return;
            },
            Some(()) = is_main.recv() => told.clear(),
        }
    }
}

/// In which a child of a killed agent has executed what it was forked for.
const FORKED: Duration = Duration::from_millis(500);

/// Two agents on one root would fight over everything.
fn one_agent(paths: &Paths) -> Result<std::fs::File, String> {
    let path = paths.lock_file();
    let mut options = std::fs::OpenOptions::new();
    let options = options.read(true).write(true).create(true).truncate(false);
    let opened = options.open(&path).or_else(|error| match error.kind() {
        // On a disk that turned read-only an earlier agent's is as good a lock.
        std::io::ErrorKind::ReadOnlyFilesystem => std::fs::File::open(&path),
        _ => Err(error),
    });
    let file = opened.map_err(|error| format!("cannot open {}: {error}", path.display()))?;
    // What an agent that was killed had forked has the lock until it executes.
    let until = std::time::Instant::now() + FORKED;
    let locked = loop {
        match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Err(rustix::io::Errno::WOULDBLOCK) if std::time::Instant::now() < until => {
                std::thread::sleep(FORKED / 50);
            }
            result => break result,
        }
    };
    match locked {
        Ok(()) => Ok(file),
        Err(rustix::io::Errno::WOULDBLOCK) => Err(format!(
            "another agent already runs on this root ({} is locked); stop it first",
            path.display()
        )),
        Err(errno) => Err(format!("cannot lock {}: {errno}", path.display())),
    }
}
