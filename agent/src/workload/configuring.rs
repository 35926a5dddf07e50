//! What is to run: a payload is checked, stored, and what it asks for installed and started.

use zlh_api::{Config, ErrorCode, OperationKind, Problem};
use zlh_catalog::{compare_versions, is_snapshot};

use super::driver::Driver;
use super::handle::Outcome;
use super::machine::{Command, Machine, Phase, Refusal};
use super::policy::Policy;
use super::stored::Memory;
use crate::game::payload::{self, GameRequest};
use crate::game::plan::Installed;

impl Driver {
    pub(super) fn configure(&mut self, config: Config) -> Result<Outcome, Problem> {
        let request = payload::check(&config)?;
        let same = self.payload.as_ref() == Some(&config);
        let mut admitted = self.machine.clone();
        let admission =
            admitted.command(Command::Configure { same }).map_err(|refusal| self.refuse(refusal))?;
        if !same {
            self.adopt_payload(config, request)?;
        }
        self.machine = admitted;
        Ok(self.accept(admission, OperationKind::Install))
    }

    /// An older server may destroy a world that a newer one has opened. Of a snapshot and a release
    /// nobody can say which is older.
    pub(super) fn check_downgrade(&self, config: &Config) -> Result<(), Problem> {
        if self.payload.as_ref() == Some(config) {
            return Ok(());
        }
        let request = payload::check(config)?;
        let root = self.context.paths.game_root(&request.game, &request.variant, &request.world);
        let Some(opened) = self.context.shelf.opened_with(&root) else { return Ok(()) };
        if is_snapshot(&opened) != is_snapshot(&request.version)
            || compare_versions(&request.version, &opened).is_ge()
        {
            return Ok(());
        }
        let detail = format!(
            "{} is older than {opened}, which this world was opened with: an older server may destroy it. Go back \
             with POST /game/version/rollback, which brings the world of then; or send POST /game/version with \
             \"force\": true; or configure another world",
            request.version
        );
        Err(Problem::new(ErrorCode::WrongState, detail))
    }

    /// Stores a payload that was checked, and begins anew with it.
    fn adopt_payload(&mut self, config: Config, request: GameRequest) -> Result<(), Problem> {
        self.context.shelf.store_payload(&config).map_err(|error| {
            Problem::new(
                ErrorCode::Internal,
                format!("the payload cannot be stored: {error}; free some disk space"),
            )
        })?;
        if let Some(vmid) = self.context.config.vmid.or(config.vmid) {
            self.context.vmid.set(vmid);
        }
        self.payload = Some(config);
        self.request = Some(request);
        // What was counted of earlier runs stays counted.
        self.memory = Memory { counted: self.memory.counted.take(), ..Memory::default() };
        Ok(())
    }

    /// No artifact server is asked: what was withdrawn or is offered no more still runs where it
    /// ran before. If something of it is gone, it is installed as usual.
    pub(super) fn take_back(&mut self, config: Config, installed: Installed) -> Result<Outcome, Problem> {
        let request = payload::check(&config)?;
        match self.machine.phase() {
            // It was begun already, by an agent before this one or by this one's own start.
            Phase::Installing { cancelled: false }
            | Phase::Spawning
            | Phase::Starting
            | Phase::Running { .. }
                if self.payload.as_ref() == Some(&config) =>
            {
                return Ok(Outcome { state: self.machine.state(), operation: self.operation.clone() });
            }
            Phase::Idle | Phase::Crashed { .. } | Phase::Error { alive: false, .. }
                if self.operation.is_none() => {}
            _ => return Err(self.refuse(Refusal::Busy)),
        }
        self.backoff_due = None;
        self.context.shelf.store_installed(&installed).map_err(|error| {
            let detail = format!("what is installed cannot be recorded: {error}; free some disk space");
            Problem::new(ErrorCode::Internal, detail)
        })?;
        self.installed = Some(installed);
        self.adopt_payload(config, request)?;
        self.machine = Machine::new(true, self.is_in_place(), Policy::default(), self.machine.limits());
        self.command(Command::Start, OperationKind::Start)
    }
}
