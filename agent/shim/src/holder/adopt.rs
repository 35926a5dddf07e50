//! Taking over a workload whose shim was killed: `zlh-agent shim RUN_DIR --adopt HEAD`.
//!
//! Standard input is a socket with the terminal's master and the dead shim's memory
//! ([`crate::handover`]); HEAD is where the console log ended as far as the agent knows.
//!
//! Invariants: `shim.json` names the workload, and only a process of that pid, start time
//! and container life is held; whoever it names as shim must be gone, and `holder.lock`
//! keeps out every other. Killed at any moment, the next one does the same again: the log
//! goes on before the memory is cleared, the record is replaced last.
//!
//! Refuses: a run that has an exit record, a process that is gone without remains (nobody
//! would learn how it ended), a shim that lives (frozen is not dead).

use std::ffi::OsStr;
use std::path::Path;

use crate::durable::Slot;
use crate::files;
use crate::flight::{self, Flight};
use crate::handover;
use crate::kin::Kin;
use crate::living::Living;
use crate::process::Generation;
use crate::proto;
use crate::record::{self, ExitRecord, ShimRecord};
use crate::spec::{ConsoleLimits, Size, Spec, StopPlan};

use super::child::Child;
use super::oom::Counter;
use super::setup::{Held, Locks, SetupError, io_at, last_console_end, listen, lock, other_end, own_id};

/// Why a workload cannot be adopted.
#[derive(Debug, thiserror::Error)]
pub(super) enum Unfit {
    /// The last argument.
    #[error("`{0}` is not an offset of the console log")]
    Head(String),
    /// The record has no process.
    #[error("it had not started anything yet")]
    NothingRan,
    /// The container was restarted.
    #[error("it belongs to an earlier life of this container")]
    OtherLife,
    /// Its shim is there.
    #[error("its shim (pid {0}) is still there")]
    ShimLives(i32),
    /// It has ended.
    #[error("it has ended")]
    Ended,
}

/// Takes the workload over. The working directory becomes `run_dir`.
pub(super) fn hold(run_dir: &Path, head: &OsStr) -> Result<Held, SetupError> {
    let head = head.to_str().and_then(|text| text.parse::<u64>().ok());
    let head = head.ok_or_else(|| SetupError::Adopt(Unfit::Head("the last argument".to_owned())))?;
    let (master, flight) =
        handover::unpack(std::io::stdin()).map_err(io_at("take the terminal from standard input"))?;
    std::env::set_current_dir(run_dir).map_err(io_at("enter the run directory"))?;
    let here = Path::new(".");
    let holder_lock = lock(here, files::HOLDER_LOCK)?;
    crate::durable::sweep(here);
    let mut record = ShimRecord::read(here)?;
    let main = identify(here, &record).map_err(SetupError::Adopt)?;
    let kin = Kin::foreign(here, Some(main.id()));
    let oom = Counter::of(&main.id().pid.to_string());
    let spec = spec_of(here, &record.instance);

    rustix::io::ioctl_fionbio(&master, true).map_err(|errno| io_at("use the terminal")(errno.into()))?;
    let slave = other_end(&master).map_err(|errno| io_at("open the terminal's other end")(errno.into()))?;
    // Memory of a version we do not know is as good as none.
    let mut left = flight.and_then(|fd| Flight::open(fd).ok());
    let known = head.max(last_console_end(here)).max(record.console_start);
    let (log, lost) = flight::resume(&here.join(files::CONSOLE), spec.console, known, left.as_mut())
        .map_err(io_at("go on with the console log"))?;
    let slot = Slot::reserve(&here.join(files::EXIT_SLOT), record::EXIT_SLOT_BYTES).ok();
    let listener = listen().map_err(io_at("listen on the socket"))?;
    record.shim = own_id().map_err(io_at("read this process's identity"))?;
    crate::VERSION.clone_into(&mut record.version);
    record.protocol = proto::VERSIONS;
    record.adoptions = record.adoptions.saturating_add(1);
    record.lost_bytes = record.lost_bytes.saturating_add(lost);
    // A full disk is no reason to leave the workload alone: the record of the shim before
    // names the same process, and whoever connects learns who we are.
    let _ = record.write(here);
    let locks = Locks { _slot: None, _holder: holder_lock };
    let child = Child::adopt(main, kin);
    let flight = Flight::create().ok();
    Ok(Held { spec, log, slot, listener, master, slave, child, record, oom, flight, _locks: locks })
}

/// The living process that `record` names, or one that ended so recently that its remains
/// still tell how.
fn identify(run_dir: &Path, record: &ShimRecord) -> Result<Living, Unfit> {
    let child = record.child.ok_or(Unfit::NothingRan)?;
    if !Generation::current().is_ok_and(|now| now == record.generation) {
        return Err(Unfit::OtherLife);
    }
    // A shim of an earlier version took no holder's lock.
    if record.shim.is_alive() {
        return Err(Unfit::ShimLives(record.shim.pid));
    }
    if ExitRecord::read(run_dir, &record.instance).is_ok() {
        return Err(Unfit::Ended);
    }
    Living::open(child).ok_or(Unfit::Ended)
}

/// The spec of that run. Without one (damaged, or written for a start that came to nothing)
/// the agent's requests still work; only a stop that nobody asked for needs a plan.
fn spec_of(run_dir: &Path, instance: &str) -> Spec {
    let stop = StopPlan {
        command: Some("stop".to_owned()),
        grace_ms: 90_000,
        term_ms: 20_000,
        ..StopPlan::default()
    };
    let mut spec = Spec::read(run_dir).unwrap_or_else(|_| Spec {
        instance: String::new(),
        argv: Vec::new(),
        env: std::collections::BTreeMap::new(),
        workdir: "/".into(),
        user: None,
        size: Size { rows: 24, cols: 80 },
        controlling_terminal: false,
        new_privileges: false,
        oom_score_adj: 0,
        max_open_files: 0,
        stop,
        shutdown_ms: None,
        console: ConsoleLimits::default(),
    });
    instance.clone_into(&mut spec.instance);
    spec
}
