//! Login shells that outlive their viewers and this agent.
//!
//! ```text
//! Shells ──► Session ──► shim ──► bash -l      one run directory each: run/shell.NAME
//!            │   └─ screen: what its terminal would show
//!            └─ keeper: counts viewers, ends it when nobody looks for long, tidies up
//! ```
//!
//! A shell is held by a shim as a game is, but its terminal controls it, so that job control
//! works and a hang-up is one. It runs as the user of the dev container, never as root unless an
//! operator said so.

mod screen;
mod session;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use slog::{Logger, info, o, warn};
use zlh_api::{ErrorCode, NewShell, Problem, Shell};
use zlh_shim::process::INSTANCE_VARIABLE;
use zlh_shim::spec::{ConsoleLimits, Size, Spec, StopPlan};

use crate::config::ShellConfig;
use crate::errors::chain;
use crate::paths::{self, Paths};
use crate::users::Login;
use crate::workload::{Launcher, Order, sweep_slot};

pub(crate) use session::{Session, Viewing};

/// What the run directories of shells begin with.
const PREFIX: &str = "shell.";

/// Terminal of a shell whose first viewer said nothing of its own.
const SIZE: (u16, u16) = (80, 24);

/// Smallest and largest terminal: a model of it is kept.
const SMALLEST: (u16, u16) = (2, 2);
const LARGEST: (u16, u16) = (500, 200);

/// Kept of what one printed: 4 MiB.
const LOG: ConsoleLimits = ConsoleLimits { segment_bytes: 1 << 20, segments: 4 };

const MAX_OPEN_FILES: u64 = 65_536;
const OOM_SCORE_ADJ: i32 = 200;
const MAX_NAME: usize = 32;

/// After SIGTERM, milliseconds; what minds a hang-up has ended before.
const TERM_MS: u64 = 2000;

/// All of this agent's shells. Clones share them.
#[derive(Clone)]
pub(crate) struct Shells(Arc<Inner>);

struct Inner {
    paths: Paths,
    config: ShellConfig,
    launcher: Launcher,
    log: Logger,
    sessions: Mutex<BTreeMap<String, Arc<Session>>>,
    /// One is opened at a time: names and their number are decided before a process exists.
    opening: tokio::sync::Mutex<()>,
}

impl Shells {
    pub(crate) fn new(paths: Paths, config: ShellConfig, launcher: Launcher, log: &Logger) -> Self {
        let log = log.new(o!("component" => "shell"));
        let inner = Inner {
            paths,
            config,
            launcher,
            log,
            sessions: Mutex::default(),
            opening: tokio::sync::Mutex::default(),
        };
        Self(Arc::new(inner))
    }

    /// Finds the shells of an earlier agent, and removes what is left of those that ended.
    pub(crate) async fn recall(&self) {
        let runs = self.0.paths.runs();
        let entries = std::fs::read_dir(&runs).into_iter().flatten().flatten();
        let names: Vec<String> = entries
            .filter_map(|entry| Some(entry.file_name().to_str()?.strip_prefix(PREFIX)?.to_owned()))
            .filter(|name| is_name(name))
            .collect();
        for name in names {
            match self.attach(&name).await {
                Ok(session) => {
                    info!(self.0.log, "a shell of an earlier agent goes on"; "shell" => &name, "pid" => session.pid());
                }
                Err(why) => {
                    info!(self.0.log, "a shell of an earlier agent is gone"; "shell" => &name, "why" => why);
                    self.tidy(&name).await;
                }
            }
        }
    }

    /// Every session, by name.
    pub(crate) fn list(&self) -> Vec<Shell> {
        self.sessions().values().map(|session| session.told()).collect()
    }

    /// One of them.
    pub(crate) fn get(&self, name: &str) -> Result<Arc<Session>, Problem> {
        self.sessions().get(name).cloned().ok_or_else(|| {
            Problem::new(
                ErrorCode::NotFound,
                format!("there is no shell `{}`; GET /shells lists them", name.escape_debug()),
            )
        })
    }

    /// Starts one.
    pub(crate) async fn open(&self, wanted: NewShell) -> Result<Arc<Session>, Problem> {
        let inner = &*self.0;
        let _one = inner.opening.lock().await;
        let name = self.name(wanted.name)?;
        let login = Login::find(inner.config.user.as_deref(), &inner.paths.passwd())
            .map_err(|error| Problem::new(ErrorCode::WrongState, error.to_string()))?;
        let size = clamp((wanted.columns.unwrap_or(SIZE.0), wanted.rows.unwrap_or(SIZE.1)));
        let failed = |step: &str, why: String| {
            Problem::new(ErrorCode::Internal, format!("the shell could not be started: {step}: {why}"))
        };
        let instance = zlh_shim::holder::random_hex().map_err(|e| failed("random numbers", e.to_string()))?;
        let run_dir = self.run_dir(&name);
        // What a shell of that name left behind that ended without an agent.
        self.tidy(&name).await;
        paths::make_dir(&run_dir, 0o700).map_err(|e| failed("its folder", e.to_string()))?;
        let spec = spec(&login, size, instance);
        spec.write(&run_dir).map_err(|e| failed("its spec", e.to_string()))?;
        let shutdown = std::time::Duration::from_millis(2 * TERM_MS);
        let order = Order { run_dir: &run_dir, arguments: &[], stdin: None, shutdown };
        if let Err(error) = inner.launcher.launch(order).await {
            self.tidy(&name).await;
            return Err(failed("its shim", chain(&error)));
        }
        match self.attach(&name).await {
            Ok(session) => {
                info!(inner.log, "a shell was opened"; "shell" => &name, "user" => &login.name, "pid" => session.pid());
                Ok(session)
            }
            Err(why) => {
                self.tidy(&name).await;
                Err(failed("it ended at once", why))
            }
        }
    }

    /// Ends one, and waits until nothing of it is left.
    pub(crate) async fn close(&self, name: &str) -> Result<(), Problem> {
        let session = self.get(name)?;
        session.close().await;
        Ok(())
    }

    fn name(&self, wanted: Option<String>) -> Result<String, Problem> {
        let sessions = self.sessions();
        let limit = self.0.config.sessions;
        let name = match wanted {
            Some(name) if !is_name(&name) => {
                let detail = format!(
                    "`{}` is no name of a shell: lower-case letters, digits and `-`, at most {MAX_NAME}",
                    name.chars().take(MAX_NAME).collect::<String>().escape_debug()
                );
                return Err(Problem::new(ErrorCode::InvalidRequest, detail));
            }
            Some(name) if sessions.contains_key(&name) => {
                let detail =
                    format!("there is a shell `{name}` already; attach to it, or choose another name");
                return Err(Problem::new(ErrorCode::WrongState, detail));
            }
            Some(name) => name,
            None => (1..)
                .map(|number| format!("shell-{number}"))
                .find(|name| !sessions.contains_key(name))
                .unwrap_or_default(),
        };
        if limit == 0 {
            return Err(Problem::new(
                ErrorCode::Forbidden,
                "shells are forbidden here (sessions = 0 in [shell])",
            ));
        }
        if sessions.len() >= limit {
            let detail = format!(
                "there are {} shells, and no more are allowed; close one (DELETE /shells/NAME), or raise `sessions` in [shell]",
                sessions.len()
            );
            return Err(Problem::new(ErrorCode::WrongState, detail));
        }
        Ok(name)
    }

    async fn attach(&self, name: &str) -> Result<Arc<Session>, String> {
        let run_dir = self.run_dir(name);
        let session = Session::attach(name, &run_dir, self.0.config.detached).await?;
        let session = Arc::new(session);
        self.sessions().insert(name.to_owned(), Arc::clone(&session));
        tokio::spawn(self.clone().keep(Arc::clone(&session)));
        Ok(session)
    }

    /// Until it has ended, whoever ends it.
    async fn keep(self, session: Arc<Session>) {
        let how = session.follow().await;
        info!(self.0.log, "a shell has ended"; "shell" => session.name(), "how" => &how);
        session.take_leave(how).await;
        self.tidy(session.name()).await;
        self.sessions().remove(session.name());
        session.is_gone();
    }

    /// Ends what is left of a run, and removes its folder.
    async fn tidy(&self, name: &str) {
        let run_dir = self.run_dir(name);
        if !run_dir.exists() {
            return;
        }
        sweep_slot(&run_dir).await;
        if let Err(error) = std::fs::remove_dir_all(&run_dir) {
            warn!(self.0.log, "what a shell left behind cannot be removed"; "shell" => name, "error" => %error);
        }
    }

    fn run_dir(&self, name: &str) -> std::path::PathBuf {
        self.0.paths.run(&format!("{PREFIX}{name}"))
    }

    fn sessions(&self) -> MutexGuard<'_, BTreeMap<String, Arc<Session>>> {
        self.0.sessions.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn spec(login: &Login, (cols, rows): (u16, u16), instance: String) -> Spec {
    let mut env = login.environment();
    env.insert(INSTANCE_VARIABLE.to_owned(), instance.clone());
    Spec {
        instance,
        argv: vec![login.shell.display().to_string(), "-l".to_owned()],
        env,
        workdir: login.workdir(),
        user: login.ids.clone(),
        size: Size { rows, cols },
        controlling_terminal: true,
        new_privileges: true,
        oom_score_adj: OOM_SCORE_ADJ,
        max_open_files: MAX_OPEN_FILES,
        stop: end_plan(),
        shutdown_ms: None,
        console: LOG,
    }
}

/// After the hang-up.
fn end_plan() -> StopPlan {
    StopPlan { command: None, grace_ms: 0, term_ms: TERM_MS, cap_ms: Some(0), warn: Vec::new() }
}

fn is_name(name: &str) -> bool {
    let good = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    (1..=MAX_NAME).contains(&name.len()) && !name.starts_with('-') && name.bytes().all(good)
}

fn clamp((columns, rows): (u16, u16)) -> (u16, u16) {
    (columns.clamp(SMALLEST.0, LARGEST.0), rows.clamp(SMALLEST.1, LARGEST.1))
}

/// Whom a spec logs in.
fn user_of(run_dir: &Path) -> String {
    Spec::read(run_dir).ok().and_then(|mut spec| spec.env.remove("USER")).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_harmless() {
        for good in ["a", "shell-1", "0", &"x".repeat(32)] {
            assert!(is_name(good), "{good}");
        }
        for bad in ["", "-a", "A", "a/b", "..", "a.b", "ä", "a b", &"x".repeat(33)] {
            assert!(!is_name(bad), "{bad}");
        }
    }

    #[test]
    fn a_terminal_is_neither_nothing_nor_endless() {
        assert_eq!(clamp((0, 0)), SMALLEST);
        assert_eq!(clamp((u16::MAX, u16::MAX)), LARGEST);
        assert_eq!(clamp((120, 40)), (120, 40));
    }
}
