//! What is to run: a payload is checked, stored, and what it asks for installed and started.

use zlh_api::{Config, ErrorCode, OperationKind, Problem};
use zlh_catalog::compare_versions;

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

    /// An older server may destroy a world that a newer one has opened.
    pub(super) fn check_downgrade(&self, config: &Config) -> Result<(), Problem> {
        let Some(installed) = self.installed.as_ref().filter(|_| self.payload.as_ref() != Some(config))
        else {
            return Ok(());
        };
        let request = payload::check(config)?;
        let root =
            |game: &str, variant: &str, world: &str| self.context.paths.game_root(game, variant, world);
        let here = root(&request.game, &request.variant, &request.world);
        let opened = here == root(&installed.game, &installed.variant, &installed.world) && here.exists();
        if !opened || compare_versions(&request.version, &installed.version).is_ge() {
            return Ok(());
        }
        let detail = format!(
            "{} is older than {}, which this world was opened with: an older server may destroy it. Go back with \
             POST /game/version/rollback, which brings the world of then; or send POST /game/version with \
             \"force\": true; or configure another world",
            request.version, installed.version
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
            Phase::Idle | Phase::Error { alive: false, .. } if self.operation.is_none() => {}
            _ => return Err(self.refuse(Refusal::Busy)),
        }
        self.context.shelf.store_installed(&installed).map_err(|error| {
            let detail = format!("what is installed cannot be recorded: {error}; free some disk space");
            Problem::new(ErrorCode::Internal, detail)
        })?;
        self.installed = Some(installed);
        self.adopt_payload(config, request)?;
        self.machine = Machine::new(true, self.is_in_place(), Policy::default());
        self.command(Command::Start, OperationKind::Start)
    }
}
