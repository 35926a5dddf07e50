//! The steps of a change, each of which can be taken again.

use std::sync::atomic::Ordering;
use std::time::Duration;

use slog::warn;
use zlh_api::{Config, ErrorCode, OperationSummary, Problem, State};

use super::copies::{Copy, exchange, inode};
use super::copy::{copy, measure};
use super::{Failed, Inner, Record, Stage, version_of};
use crate::errors::chain;
use crate::game::payload::{self, GameRequest};
use crate::game::plan::Installed;
use crate::install::Job;
use crate::workload::{Outcome, Repair, Verb};

/// Copies of a world that are kept.
const KEPT: usize = 2;

/// A runtime that is being repaired or removed is waited for so long.
const IN_THE_WAY: Duration = Duration::from_secs(15 * 60);

const ASK_AGAIN: Duration = Duration::from_millis(500);

/// The game has nothing to say for so long after a verb: something is wrong with us.
const ODD: Duration = Duration::from_secs(3 * 3600);

impl Inner {
    /// From the first step.
    pub(super) async fn carry_out(
        &self,
        operation: &OperationSummary,
        mut record: Record,
    ) -> Result<String, Failed> {
        let request = check(&record.to)?;
        if record.target.is_none() {
            self.prepare(operation, &request).await?;
        }
        self.unless_stopped("nothing was changed")?;
        if let Err(failed) = self.note(&record) {
            self.forget();
            return Err(failed);
        }
        match self.stop_and_copy(operation, &mut record, &request).await {
            Ok(()) => {}
            Err(failed) => return self.give_up(operation, &record, failed).await,
        }
        self.switch(operation, record, &request).await
    }

    /// From where an earlier agent was.
    pub(super) async fn resumed(
        &self,
        operation: &OperationSummary,
        record: Record,
    ) -> Result<String, Failed> {
        let request = check(&record.to)?;
        match record.stage {
            // The folder is as it was; nobody knows how far the copy is.
            Stage::Copying => {
                let why = Failed::Error("the agent was interrupted while it copied the world".to_owned());
                self.give_up(operation, &record, why).await
            }
            Stage::Switching => self.switch(operation, record, &request).await,
            Stage::Returning => {
                let why = "it failed, and the agent was interrupted while it went back".to_owned();
                self.go_back(operation, record, &request, why).await
            }
        }
    }

    /// Everything is fetched, and the runtime stands beside the others, while the old version
    /// still runs.
    async fn prepare(&self, operation: &OperationSummary, request: &GameRequest) -> Result<(), Failed> {
        let (job, report) = (self.job(request), self.reporter(operation));
        job.prepare(report).await.map_err(|error| Failed::error(&error))
    }

    /// An installation of what is asked for.
    pub(super) fn job(&self, request: &GameRequest) -> Job {
        let vmid = self.handle.changes().borrow().config.as_ref().and_then(|config| config.vmid);
        Job {
            paths: self.paths.clone(),
            config: self.config.clone(),
            shelf: self.shelf.clone(),
            request: request.clone(),
            audience: self.config.audience(vmid),
            log: self.log.clone(),
            damaged: None,
        }
    }

    async fn stop_and_copy(
        &self,
        operation: &OperationSummary,
        record: &mut Record,
        request: &GameRequest,
    ) -> Result<(), Failed> {
        let told = self.handle.told();
        told.phase(&operation.id, "stopping: the server saves and ends");
        self.stop(false).await?;
        self.unless_stopped("nothing was changed")?;
        let root = self.paths.game_root(&request.game, &request.variant, &request.world);
        let copies = self.copies(request);
        let to = copies.root(&record.copy);
        if record.rollback {
            record.before = Some(inode(&root).map_err(|error| Failed::error(&error))?);
        } else {
            let phase = format!("copying the world of {}", version_of(&record.from));
            told.phase(&operation.id, &phase);
            let (id, version, world) = (record.copy.clone(), version_of(&record.from), request.world.clone());
            let installed = record.installed.clone();
            let (handle, operation) = (self.handle.clone(), operation.id.clone());
            let copied = tokio::task::spawn_blocking(move || {
                let total = measure(&root).map_err(|error| chain(&error))?;
                let to = copies.begin(&id).map_err(|error| format!("cannot make a copy: {error}"))?;
                let told = handle.told();
                let size = copy(&root, &to, &mut |bytes| {
                    told.progress(&operation, bytes, Some(total.bytes), "bytes");
                    !handle.stop_asked()
                })
                .map_err(|error| chain(&error))?;
                let made_at = crate::clock::now_rfc3339();
                let copy = Copy { world, version, made_at, bytes: size.bytes, failed: false, installed, id };
                copies.describe(&copy).map_err(|error| format!("cannot make a copy: {error}"))
            });
            let copied = copied.await.map_err(|error| error.to_string()).and_then(|done| done);
            // Then it was cancelled.
            self.unless_stopped("nothing was changed")?;
            copied.map_err(Failed::Error)?;
            record.before = Some(inode(&to).map_err(|error| Failed::error(&error))?);
        }
        record.stage = Stage::Switching;
        self.note(record)?;
        // The last moment at which nothing has happened yet.
        self.unless_stopped("nothing was changed")
    }

    /// The new version, until it is ready or is not.
    async fn switch(
        &self,
        operation: &OperationSummary,
        mut record: Record,
        request: &GameRequest,
    ) -> Result<String, Failed> {
        let (from, to) = (version_of(&record.from), version_of(&record.to));
        match self.try_new(operation, &record, request).await {
            Ok(()) => {}
            Err(Failed::Stopped(_)) => {
                self.forget();
                return Err(Failed::Stopped(format!(
                    "stopped before {to} was ready; it is what is configured now, and a rollback brings {from} \
                     and its world back"
                )));
            }
            Err(Failed::Error(why)) => {
                self.unless_leaving().await;
                record.stage = Stage::Returning;
                // An agent that is killed before this is written tries the new version once more.
                if let Err(error) = self.write(&record) {
                    warn!(self.log, "going back without having written it down"; "error" => %error);
                }
                return self.go_back(operation, record, request, why).await;
            }
        }
        if !record.ran {
            self.stop(true).await?;
        }
        let (copies, world) = (self.copies(request), request.world.clone());
        let _ = tokio::task::spawn_blocking(move || copies.prune(&world, KEPT)).await;
        self.forget();
        Ok(match record.rollback {
            true => format!("{to} runs again with its world of then; the world of {from} is kept as a copy"),
            false => format!("{to} is ready; the world as {from} left it is kept as a copy"),
        })
    }

    async fn try_new(
        &self,
        operation: &OperationSummary,
        record: &Record,
        request: &GameRequest,
    ) -> Result<(), Failed> {
        if record.rollback {
            self.take_place(record, request, false).await?;
        }
        self.unless_leaving().await;
        let to = version_of(&record.to);
        self.handle.told().phase(&operation.id, &format!("installing and starting {to}"));
        self.configure(&record.to, record.target.as_deref()).await?;
        self.until_ready(true).await
    }

    /// The folder of before in its place, and the version of before started in it.
    async fn go_back(
        &self,
        operation: &OperationSummary,
        record: Record,
        request: &GameRequest,
        why: String,
    ) -> Result<String, Failed> {
        let (from, to) = (version_of(&record.from), version_of(&record.to));
        self.handle.told().phase(&operation.id, &format!("{to} failed: going back to {from}"));
        let gone_back = async {
            self.stop(true).await?;
            self.unless_leaving().await;
            self.take_place(&record, request, true).await?;
            self.configure(&record.from, record.installed.as_deref()).await?;
            self.until_ready(false).await?;
            if !record.ran {
                self.stop(true).await?;
            }
            Ok::<(), Failed>(())
        };
        let result = gone_back.await;
        if result.is_err() {
            self.unless_leaving().await;
        }
        self.forget();
        let (copies, world) = (self.copies(request), request.world.clone());
        let _ = tokio::task::spawn_blocking(move || copies.prune_failed(&world)).await;
        let kept = "what it made of the world is kept as a copy";
        Err(Failed::Error(match result {
            Ok(()) => format!("{to} did not become ready: {why}; {from} and its world are back, {kept}"),
            Err(Failed::Stopped(_)) => format!(
                "{to} did not become ready: {why}; {from} and its world are in place, and stopped as was asked"
            ),
            Err(Failed::Error(error)) => {
                format!("{to} did not become ready: {why}; going back to {from} failed, too: {error}")
            }
        }))
    }

    /// Lets folder and copy change places, unless they have: into the folder of before, or out
    /// of it.
    async fn take_place(&self, record: &Record, request: &GameRequest, before: bool) -> Result<(), Failed> {
        let root = self.paths.game_root(&request.game, &request.variant, &request.world);
        let (copies, id, wanted) = (self.copies(request), record.copy.clone(), record.before);
        let (other, failed, installed) = match before {
            true => (version_of(&record.to), !record.rollback, record.target.clone()),
            false => (version_of(&record.from), false, record.installed.clone()),
        };
        let world = request.world.clone();
        let moved = tokio::task::spawn_blocking(move || -> Result<(), String> {
            let there = inode(&root).map_err(|error| format!("{}: {error}", root.display()))?;
            if (wanted == Some(there)) != before {
                let copy = copies.root(&id);
                exchange(&root, &copy).map_err(|error| {
                    format!("{} and {} cannot change places: {error}", root.display(), copy.display())
                })?;
                let _ = zlh_shim::faults::point("change.exchanged");
            }
            let made_at = crate::clock::now_rfc3339();
            let bytes = measure(&copies.root(&id)).map_or(0, |size| size.bytes);
            let copy = Copy { world, version: other, made_at, bytes, failed, installed, id };
            copies.describe(&copy).map_err(|error| format!("a copy cannot be described: {error}"))
        });
        moved.await.map_err(|error| error.to_string()).and_then(|done| done).map_err(Failed::Error)
    }

    /// Nothing was changed; what ran runs again.
    async fn give_up(
        &self,
        operation: &OperationSummary,
        record: &Record,
        failed: Failed,
    ) -> Result<String, Failed> {
        self.unless_leaving().await;
        // From here on there may be no copy: nobody must go on with the new version.
        let undone = Record { stage: Stage::Copying, before: None, ..record.clone() };
        let noted = self.write(&undone);
        if !record.rollback
            && noted.is_ok()
            && let Ok(request) = payload::check(&record.from)
        {
            let (copies, id) = (self.copies(&request), record.copy.clone());
            // What stays of it is no copy, and taken away the next time.
            let _ = tokio::task::spawn_blocking(move || copies.remove(&id)).await;
        }
        if record.ran && !self.handle.stop_asked() {
            let from = version_of(&record.from);
            self.handle.told().phase(&operation.id, &format!("starting {from} again"));
            let started = self.when_free(Verb::Start).await;
            if let Err(problem) = started {
                self.unless_leaving().await;
                self.forget();
                let why = match failed {
                    Failed::Stopped(why) | Failed::Error(why) => why,
                };
                return Err(Failed::Error(format!(
                    "{why}; and it could not be started again: {}",
                    problem.detail
                )));
            }
        }
        self.forget();
        Err(match failed {
            Failed::Error(why) => Failed::Error(format!("{why}; nothing was changed")),
            stopped => stopped,
        })
    }

    /// Stops what runs, and waits until nothing does. The ladder always ends.
    async fn stop(&self, now: bool) -> Result<(), Failed> {
        self.handle.request_held(Verb::Stop { now }).await.map_err(refused)?;
        self.until(|state, _| matches!(state, State::Idle).then_some(Ok(()))).await
    }

    /// Asks for a payload, with what is installed of it if that is known; the same as before is put
    /// in place anew.
    async fn configure(&self, config: &Config, installed: Option<&Installed>) -> Result<(), Failed> {
        let (same, state) = {
            let snapshot = self.handle.changes().borrow().clone();
            (snapshot.config.as_ref() == Some(config), snapshot.state)
        };
        // An agent before this one began it, and the server did not wait for us.
        if same && matches!(state, State::Installing | State::Starting | State::Running) {
            return Ok(());
        }
        let verb = if let Some(installed) = installed {
            Verb::TakeBack { config: Box::new(config.clone()), installed: Box::new(installed.clone()) }
        } else if same {
            let server = crate::crash::server_of(&check(config)?);
            Verb::Repair { repair: Repair::Reinstall, server }
        } else {
            Verb::Reconfigure(Box::new(config.clone()))
        };
        self.when_free(verb).await.map(drop).map_err(refused)
    }

    /// Asks until nothing is in the way any more that ends by itself.
    async fn when_free(&self, verb: Verb) -> Result<Outcome, Problem> {
        let until = tokio::time::Instant::now() + IN_THE_WAY;
        loop {
            match self.handle.request_held(verb.clone()).await {
                Err(problem)
                    if problem.error == ErrorCode::OperationInProgress
                        && tokio::time::Instant::now() < until
                        && !self.handle.stop_asked() =>
                {
                    tokio::time::sleep(ASK_AGAIN).await;
                }
                answer => return answer,
            }
        }
    }

    /// Until it accepts users. `strict`: a single crash is a failure.
    async fn until_ready(&self, strict: bool) -> Result<(), Failed> {
        let mut begun = false;
        self.until(|state, snapshot| {
            begun |= !matches!(state, State::Idle);
            match state {
                State::Running if snapshot.ready => Some(Ok(())),
                State::Crashed if strict => {
                    let crash = snapshot.last_crash.as_ref();
                    let why = crash.map(|crash| crash.classification.clone()).unwrap_or_default();
                    // Or it was not even started.
                    let failed = snapshot.error.clone().unwrap_or_else(|| format!("it crashed ({why})"));
                    Some(Err(Failed::Error(failed)))
                }
                State::Error => {
                    Some(Err(Failed::Error(snapshot.error.clone().unwrap_or_else(|| "it failed".to_owned()))))
                }
                State::Idle if begun => Some(Err(if self.handle.stop_asked() {
                    Failed::Stopped(String::new())
                } else {
                    Failed::Error("it ended by itself".to_owned())
                })),
                _ => None,
            }
        })
        .await
    }

    /// Watches the published state.
    async fn until<T>(
        &self,
        mut judge: impl FnMut(State, &crate::workload::Snapshot) -> Option<Result<T, Failed>>,
    ) -> Result<T, Failed> {
        let mut changes = self.handle.changes();
        let watched = async {
            loop {
                let snapshot = changes.borrow_and_update().clone();
                if let Some(judged) = judge(snapshot.state, &snapshot) {
                    return judged;
                }
                if changes.changed().await.is_err() {
                    // Nobody is there to tell any more.
                    std::future::pending::<()>().await;
                }
            }
        };
        let odd = || Failed::Error(format!("nothing happened for {} h", ODD.as_secs() / 3600));
        tokio::time::timeout(ODD, watched).await.unwrap_or_else(|_| Err(odd()))
    }

    /// Never comes back when the agent leaves: what is written down stays for the next one.
    async fn unless_leaving(&self) {
        if self.leaving.load(Ordering::SeqCst) {
            std::future::pending::<()>().await;
        }
    }

    pub(super) fn unless_stopped(&self, so: &str) -> Result<(), Failed> {
        match self.handle.stop_asked() {
            true => Err(Failed::Stopped(format!("stopped as was asked; {so}"))),
            false => Ok(()),
        }
    }

    fn note(&self, record: &Record) -> Result<(), Failed> {
        self.write(record)
            .map_err(|error| Failed::Error(format!("the change cannot be written down: {error}")))
    }
}

fn check(config: &Config) -> Result<GameRequest, Failed> {
    payload::check(config).map_err(refused)
}

fn refused(problem: Problem) -> Failed {
    Failed::Error(problem.detail)
}
