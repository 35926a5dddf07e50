//! What can end a server, by name: the five classes of the deployed wire, and our causes
//! beneath them.

use serde::{Deserialize, Serialize};

use crate::Exit;

/// A class of the deployed wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Class {
    /// Memory of any kind ran out.
    Oom,
    /// A mod or plugin is at fault.
    ModOrPluginError,
    /// Something that a mod or plugin needs is not there.
    MissingDependency,
    /// It exited with a code other than 0, for any other reason.
    NonzeroExit,
    /// It ended although nobody asked: by a signal, or with code 0.
    UnexpectedExit,
}

/// A cause. The text form (`snake_case`) is part of the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Cause {
    // memory
    /// The kernel ended it: the container's memory limit.
    ContainerMemory,
    /// The Java heap is full.
    Heap,
    /// The class memory is full.
    Metaspace,
    /// Direct (off-heap) buffers are used up.
    DirectMemory,
    /// The system refused another thread.
    NativeThreads,
    /// The machine had no memory for Java itself.
    NativeMemory,
    // Java itself
    /// Java does not know an option, or it makes no sense.
    BadLaunchArgs,
    /// The server's jar or main class is not there.
    JarMissing,
    /// A jar is damaged.
    JarCorrupt,
    /// The server needs a newer Java.
    JavaTooOld,
    /// The server does not run with so new a Java.
    JavaTooNew,
    /// A mod or plugin needs a newer Java than the server runs with.
    AddonJava,
    /// Java or a native library crashed.
    NativeCrash,
    /// Recursion without an end.
    StackOverflow,
    /// The server could not fetch a file it needs.
    DownloadFailed,
    // environment
    /// The disk, a quota or the inodes are used up.
    DiskFull,
    /// Mojang's EULA is not accepted.
    Eula,
    /// Somebody else listens on the port.
    PortInUse,
    /// `server-ip` is no address of this machine.
    BadAddress,
    /// Another process has the world open.
    WorldLock,
    /// The server's user may not read or write a file.
    Permission,
    /// A configuration file cannot be read.
    BadConfig,
    // world and data
    /// `level.dat` is damaged.
    LevelDat,
    /// A chunk or region cannot be read.
    ChunkCorrupt,
    /// The world was saved by a newer version.
    WorldNewer,
    /// Two worlds claim the same identity.
    WorldDuplicate,
    /// The world has content of a mod that is gone.
    WorldMissingMod,
    /// Forge asks before it goes on with a world that lacks something.
    FmlConfirm,
    /// A data pack does not fit.
    Datapack,
    /// An entity, block or world crashes whenever it ticks.
    Ticking,
    // mods and plugins
    /// A mod or plugin needs another that is not there or has the wrong version.
    Dependency,
    /// A mod or plugin is made for another version of the game or loader.
    WrongGameVersion,
    /// A mod or plugin is made for another loader.
    WrongLoader,
    /// Two mods exclude each other.
    IncompatibleMods,
    /// The same mod or plugin is there twice.
    Duplicate,
    /// A mod failed while it was loaded.
    ModLoad,
    /// A mixin could not be applied.
    Mixin,
    /// A mod for players' computers is on the server.
    ClientOnly,
    /// A mod or plugin calls something that another does not have.
    ApiMismatch,
    /// The ids of an old game version are used up.
    IdsExhausted,
    /// An exception in the server's loop.
    LoopCrash,
    /// A plugin failed while the server goes on.
    PluginProblem,
    /// A plugin stopped the server.
    PluginStoppedServer,
    // hangs, kills, the rest
    /// The watchdog ended a server that hung.
    Watchdog,
    /// Threads wait for each other.
    Deadlock,
    /// A watchdog report that belongs to the crash before.
    WatchdogFollowUp,
    /// Something outside killed it.
    Killed,
    /// Something outside told it to end.
    Terminated,
    /// It was stopped properly, and nobody is known who asked.
    CleanUnrequested,
    /// The log ends without a reason.
    Silent,
}

impl Cause {
    /// The class on the wire, given how it ended; without exit evidence by the cause alone.
    #[must_use]
    pub fn class(self, exit: Option<&Exit>) -> Class {
        use Cause as C;
        match self {
            C::ContainerMemory
            | C::Heap
            | C::Metaspace
            | C::DirectMemory
            | C::NativeThreads
            | C::NativeMemory => Class::Oom,
            C::Dependency => Class::MissingDependency,
            C::WrongGameVersion
            | C::WrongLoader
            | C::IncompatibleMods
            | C::Duplicate
            | C::ModLoad
            | C::Mixin
            | C::ClientOnly
            | C::ApiMismatch
            | C::IdsExhausted
            | C::PluginProblem
            | C::PluginStoppedServer
            | C::AddonJava => Class::ModOrPluginError,
            C::Killed | C::Terminated | C::CleanUnrequested => Class::UnexpectedExit,
            _ => Self::by_exit(exit, matches!(self, C::Silent)),
        }
    }

    fn by_exit(exit: Option<&Exit>, silent: bool) -> Class {
        match exit {
            Some(Exit { code: Some(code), .. }) if *code != 0 => Class::NonzeroExit,
            None if !silent => Class::NonzeroExit,
            Some(_) | None => Class::UnexpectedExit,
        }
    }
}
