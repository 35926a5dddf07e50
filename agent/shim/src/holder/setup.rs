//! From a run directory to a held workload: lock, log, socket, terminal, child.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use portable_pty::{PtySize, native_pty_system};
use rustix::fs::{FlockOperation, Mode};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};
use rustix::pty::OpenptFlags;

use crate::console_log::Writer;
use crate::durable::Slot;
use crate::files;
use crate::flight::Flight;
use crate::process::{Generation, ProcessId};
use crate::proto;
use crate::record::{self, ShimRecord};
use crate::spec::{Size, Spec};

use super::child::Child;
use super::oom::Counter;

/// Connections that may wait to be accepted.
const BACKLOG: i32 = 16;

/// How long the slot may still be held by a run that is just ending.
const LOCK_PATIENCE: Duration = Duration::from_secs(1);

/// Between two tries for the slot.
const LOCK_RETRY: Duration = Duration::from_millis(10);

/// Why a workload could not be held. Display names the step and the thing.
#[derive(Debug, thiserror::Error)]
pub(super) enum SetupError {
    /// Somebody else holds the slot.
    #[error("its slot ({}) is locked: this workload is running already", .0.display())]
    Held(PathBuf),
    /// The spec, or the record of what is to be adopted, cannot be read.
    #[error("{0}")]
    Record(#[from] crate::durable::ReadError),
    /// There is nothing to adopt, or it must not be.
    #[error("{0}")]
    Adopt(super::adopt::Unfit),
    /// A system call failed.
    #[error("cannot {step}: {source}")]
    Io {
        /// What was tried.
        step: &'static str,
        /// The cause.
        source: io::Error,
    },
}

/// Everything the loop holds.
pub(super) struct Held {
    pub(super) spec: Spec,
    pub(super) log: Writer,
    pub(super) slot: Option<Slot>,
    pub(super) listener: OwnedFd,
    pub(super) master: OwnedFd,
    pub(super) slave: OwnedFd,
    pub(super) child: Child,
    pub(super) record: ShimRecord,
    pub(super) oom: Counter,
    /// Between terminal and log; none where the kernel refused it.
    pub(super) flight: Option<Flight>,
    /// Held until this process ends.
    pub(super) _locks: Locks,
}

/// What keeps others away.
pub(super) struct Locks {
    /// Shared with the workload. An adopting shim has none: the workload holds it.
    pub(super) _slot: Option<OwnedFd>,
    /// Ours alone: two shims never hold one workload.
    pub(super) _holder: OwnedFd,
}

/// Takes the slot and starts the workload. The working directory becomes `run_dir`.
pub(super) fn hold(run_dir: &Path) -> Result<Held, SetupError> {
    std::env::set_current_dir(run_dir).map_err(io_at("enter the run directory"))?;
    let here = Path::new(".");
    let slot_lock = lock(here, files::LOCK)?;
    // The shim of the run before may have adopted it: then it does not hold the slot's lock.
    let holder_lock = lock(here, files::HOLDER_LOCK)?;
    crate::durable::sweep(here);
    let spec = Spec::read(here)?;
    let _ = crate::faults::point("hold.locked");
    let log = Writer::open(&here.join(files::CONSOLE), spec.console, last_console_end(here))
        .map_err(io_at("open the console log"))?;
    // On a disk too full for the reserve the workload still starts; the record then
    // depends on space being there at the end.
    let slot = Slot::reserve(&here.join(files::EXIT_SLOT), record::EXIT_SLOT_BYTES).ok();
    let listener = listen().map_err(io_at("listen on the socket"))?;
    let (master, slave) = open_terminal(spec.size).map_err(io_at("open a terminal"))?;

    let oom = Counter::own();
    let mut record = ShimRecord {
        instance: spec.instance.clone(),
        shim: own_id().map_err(io_at("read this process's identity"))?,
        child: None,
        generation: Generation::current().map_err(io_at("read the boot id"))?,
        version: crate::VERSION.to_owned(),
        protocol: proto::VERSIONS,
        started_unix_ms: super::unix_ms(),
        started_boot_ms: super::boot_ms(),
        console_start: log.head(),
        oom_before: oom.read(),
        adoptions: 0,
        lost_bytes: 0,
    };
    record.write(here).map_err(io_at("write shim.json"))?;
    let _ = crate::faults::point("hold.recorded");
    let absolute = std::env::current_dir().map_err(io_at("find the run directory"))?;
    let child = Child::spawn(&absolute, &spec, &slave, &slot_lock).map_err(io_at("spawn the exec stage"))?;
    record.started_boot_ms = super::boot_ms();
    let flight = Flight::create().ok();
    let locks = Locks { _slot: Some(slot_lock), _holder: holder_lock };
    Ok(Held { spec, log, slot, listener, master, slave, child, record, oom, flight, _locks: locks })
}

pub(super) fn own_id() -> io::Result<ProcessId> {
    ProcessId::of(i32::try_from(std::process::id()).map_err(io::Error::other)?)
}

/// One of the two locks. The slot's is inherited by the workload: a shim that died leaves it
/// held by the living game.
pub(super) fn lock(run_dir: &Path, name: &str) -> Result<OwnedFd, SetupError> {
    let path = run_dir.join(name);
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(&path)
        .map_err(io_at("open the lock"))?;
    let deadline = Instant::now() + LOCK_PATIENCE;
    loop {
        match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => return Ok(file.into()),
            // The shim of the run before may be on its last instructions.
            Err(rustix::io::Errno::WOULDBLOCK) if Instant::now() < deadline => {
                std::thread::sleep(LOCK_RETRY);
            }
            Err(rustix::io::Errno::WOULDBLOCK) => {
                return Err(SetupError::Held(std::path::absolute(&path).unwrap_or(path)));
            }
            Err(errno) => return Err(io_at("lock the slot")(errno.into())),
        }
    }
}

/// Where the last run's console ended, by its exit record: output that never reached a
/// file still counts.
pub(super) fn last_console_end(run_dir: &Path) -> u64 {
    let end = |file: &str| {
        crate::durable::read_record::<record::ExitRecord>(&run_dir.join(file), record::SCHEMA)
            .map_or(0, |last| last.console_end)
    };
    // On a full disk the record may have gone to its slot.
    end(files::EXIT).max(end(files::EXIT_SLOT))
}

/// Bound by its short name in the working directory, so that no root path is too long for it.
pub(super) fn listen() -> io::Result<OwnedFd> {
    match fs::remove_file(files::SOCKET) {
        // We hold the locks: a socket that lies here is stale.
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let socket = rustix::net::socket_with(
        AddressFamily::UNIX,
        SocketType::STREAM,
        SocketFlags::CLOEXEC | SocketFlags::NONBLOCK,
        None,
    )?;
    let before = rustix::process::umask(Mode::from_raw_mode(0o177));
    let bound = rustix::net::bind(&socket, &SocketAddrUnix::new(files::SOCKET)?);
    rustix::process::umask(before);
    bound?;
    rustix::net::listen(&socket, BACKLOG)?;
    Ok(socket)
}

/// A terminal that controls nobody: `(master, slave)`, the master non-blocking.
///
/// The slave stays open here, so that the master never reports a hang-up while the
/// workload merely reopens its end.
fn open_terminal(size: Size) -> io::Result<(OwnedFd, OwnedFd)> {
    let size = PtySize { rows: size.rows, cols: size.cols, pixel_width: 0, pixel_height: 0 };
    let pair = native_pty_system().openpty(size).map_err(io::Error::other)?;
    let raw = pair.master.as_raw_fd().ok_or_else(|| io::Error::other("the terminal has no descriptor"))?;
    let master = duplicate(raw)?;
    let slave = match other_end(&master) {
        Ok(slave) => slave,
        Err(_) => {
            let name = pair.master.tty_name().ok_or_else(|| io::Error::other("the terminal has no name"))?;
            OpenOptions::new()
                .read(true)
                .write(true)
                .custom_flags(libc::O_NOCTTY | libc::O_CLOEXEC)
                .open(name)?
                .into()
        }
    };
    rustix::io::ioctl_fionbio(&master, true)?;
    Ok((master, slave))
}

/// The workload's end of a terminal.
pub(super) fn other_end(master: &OwnedFd) -> Result<OwnedFd, rustix::io::Errno> {
    let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
    rustix::pty::ioctl_tiocgptpeer(master, flags)
}

#[allow(unsafe_code)] // portable-pty hands out a raw number only
fn duplicate(raw: std::os::fd::RawFd) -> io::Result<OwnedFd> {
    // SAFETY: `raw` belongs to the pair its caller keeps alive during this call.
    let borrowed = unsafe { std::os::fd::BorrowedFd::borrow_raw(raw) };
    Ok(rustix::io::fcntl_dupfd_cloexec(borrowed.as_fd(), 3)?)
}

pub(super) fn io_at(step: &'static str) -> impl FnOnce(io::Error) -> SetupError {
    move |source| SetupError::Io { step, source }
}

/// Random bytes for nobody's use but telling runs apart.
pub fn random_hex() -> io::Result<String> {
    let mut bytes = [0_u8; 16];
    File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    Ok(bytes.iter().map(|b| format!("{b:02x}")).collect())
}
