//! Messages between an agent (client) and a shim (server). `PROTOCOL.md` is the text.
//!
//! Every body is a CBOR map with small integer keys; unknown keys are skipped
//! and absent ones read as none, which is how versions grow. A message type is
//! never reused for something else.

use minicbor::{Decode, Encode};

use crate::record::Exit;
use crate::spec::StopPlan;

/// Protocol versions this code speaks. Version 2: the welcome carries the shim's
/// [`crate::flight`] memory beside the terminal, and a status says whether it was adopted.
pub const VERSIONS: (u16, u16) = (1, 2);

/// The version from which on a welcome carries the memory.
pub const WITH_FLIGHT: u16 = 2;

/// Message types.
pub mod kind {
    /// Client: [`super::Hello`], the first frame.
    pub const HELLO: u16 = 1;
    /// Client: empty body; answered with [`STATUS_REPLY`].
    pub const STATUS: u16 = 2;
    /// Client: [`super::Watch`]; answered with [`STATUS_REPLY`] once something differs.
    pub const WATCH: u16 = 3;
    /// Client: [`super::Read`]; answered with [`DATA_REPLY`].
    pub const READ: u16 = 4;
    /// Client: [`super::Input`]; answered with [`OK_REPLY`].
    pub const INPUT: u16 = 5;
    /// Client: [`super::Resize`]; answered with [`OK_REPLY`].
    pub const RESIZE: u16 = 6;
    /// Client: [`super::Signal`]; answered with [`OK_REPLY`].
    pub const SIGNAL: u16 = 7;
    /// Client: [`super::Stop`]; answered with [`OK_REPLY`] when the ladder has begun.
    pub const STOP: u16 = 8;
    /// Client: [`super::Extend`]; answered with [`OK_REPLY`].
    pub const EXTEND: u16 = 9;
    /// Client: [`super::Instance`]; the exit was recorded elsewhere, the shim may go.
    pub const ACK_EXIT: u16 = 10;

    /// Shim: [`super::Welcome`], with the terminal's master as ancillary data.
    pub const WELCOME: u16 = 100;
    /// Shim: [`super::Status`].
    pub const STATUS_REPLY: u16 = 101;
    /// Shim: [`super::Data`].
    pub const DATA_REPLY: u16 = 102;
    /// Shim: [`super::Done`].
    pub const OK_REPLY: u16 = 103;
    /// Shim: [`super::Refusal`].
    pub const ERROR_REPLY: u16 = 199;
}

/// First frame of a connection.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Hello {
    /// Lowest protocol version the client speaks.
    #[n(0)]
    pub proto_min: u16,
    /// Highest protocol version the client speaks.
    #[n(1)]
    pub proto_max: u16,
    /// Version of the agent, for logs.
    #[n(2)]
    pub agent_version: String,
    /// The run the client means; empty takes any.
    #[n(3)]
    pub instance: String,
}

/// Answer to [`Hello`].
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Welcome {
    /// The version both will speak.
    #[n(0)]
    pub proto: u16,
    /// Version of the shim.
    #[n(1)]
    pub shim_version: String,
    /// Identity of the run.
    #[n(2)]
    pub instance: String,
    /// The shim's pid.
    #[n(3)]
    pub shim_pid: i32,
    /// What it holds.
    #[n(4)]
    pub status: Status,
}

/// What a shim holds.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Status {
    /// Rises with every change other than new output.
    #[n(0)]
    pub sequence: u64,
    /// Pid of the workload's main process, 0 before it exists.
    #[n(1)]
    pub pid: i32,
    /// Its start time, clock ticks since boot.
    #[n(2)]
    pub start_ticks: u64,
    /// CLOCK_BOOTTIME when it was started, milliseconds.
    #[n(3)]
    pub started_boot_ms: u64,
    /// Unix milliseconds when it was started.
    #[n(4)]
    pub started_unix_ms: u64,
    /// First byte of the console log that can still be read.
    #[n(5)]
    pub log_start: u64,
    /// End of the console log.
    #[n(6)]
    pub log_head: u64,
    /// Bytes of output that are in no file (full disk) and can only be had by [`Read`].
    #[n(7)]
    pub log_unwritten: u64,
    /// How far the stop ladder is: 0 not asked, 1 command, 2 SIGTERM, 3 SIGKILL.
    #[n(8)]
    pub stop_stage: u8,
    /// How it ended; none while it runs.
    #[n(9)]
    pub exit: Option<ExitMessage>,
    /// Console log offset at which this run began.
    #[n(10)]
    pub log_run_start: u64,
    /// This shim took the workload over from one that died; absent when it started it, and
    /// before version 2.
    #[n(11)]
    pub adopted: Option<Adopted>,
}

/// What a change of shims cost.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Adopted {
    /// How often that happened to this run.
    #[n(0)]
    pub times: u32,
    /// Bytes of output that went with dead shims, all in all; each is a gap in the log.
    #[n(1)]
    pub lost_bytes: u64,
}

/// [`Exit`] on the wire.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct ExitMessage {
    /// 0 exited, 1 killed, 2 exec failed, 3 lost.
    #[n(0)]
    pub how: u8,
    /// Exit code, signal or error number.
    #[n(1)]
    pub number: i32,
    /// Whether a core file was written.
    #[n(2)]
    pub core: bool,
    /// The failed step, or why it was lost.
    #[n(3)]
    pub text: String,
    /// How long it lived, milliseconds.
    #[n(4)]
    pub uptime_ms: u64,
    /// Whether the exit record is on disk.
    #[n(5)]
    pub recorded: bool,
}

impl ExitMessage {
    /// From a record.
    pub fn new(exit: &Exit, uptime_ms: u64, recorded: bool) -> Self {
        let (how, number, core, text) = match exit {
            Exit::Exited { code } => (0, *code, false, ""),
            Exit::Killed { signal, core } => (1, *signal, *core, ""),
            Exit::ExecFailed { step, errno } => (2, *errno, false, step.as_str()),
            Exit::Lost { reason } => (3, 0, false, reason.as_str()),
        };
        Self { how, number, core, text: text.to_owned(), uptime_ms, recorded }
    }

    /// To a record's form. A kind from the future is lost, never success.
    pub fn exit(&self) -> Exit {
        match self.how {
            0 => Exit::Exited { code: self.number },
            1 => Exit::Killed { signal: self.number, core: self.core },
            2 => Exit::ExecFailed { step: self.text.clone(), errno: self.number },
            3 => Exit::Lost { reason: self.text.clone() },
            other => Exit::Lost { reason: format!("the shim reports an unknown end ({other})") },
        }
    }
}

/// Asks to be told when something differs from what the client knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Watch {
    /// [`Status::sequence`] the client knows.
    #[n(0)]
    pub sequence: u64,
    /// [`Status::log_head`] the client knows.
    #[n(1)]
    pub log_head: u64,
}

/// Asks for bytes of the console log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Read {
    /// First byte wanted.
    #[n(0)]
    pub offset: u64,
    /// At most this many; the shim may send fewer.
    #[n(1)]
    pub max: u32,
}

/// Bytes of the console log.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Data {
    /// Offset of the first byte; greater than asked when what was asked for is gone.
    #[n(0)]
    pub offset: u64,
    /// The bytes, empty at the head.
    #[cbor(n(1), with = "minicbor::bytes")]
    pub bytes: Vec<u8>,
}

/// Bytes for the workload's terminal.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Input {
    /// The bytes.
    #[cbor(n(0), with = "minicbor::bytes")]
    pub bytes: Vec<u8>,
    /// Whether they are one whole line that must not be cut: a line longer than the
    /// terminal's own limit is passed around it.
    #[n(1)]
    pub line: bool,
}

/// A new terminal size.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Resize {
    /// Lines.
    #[n(0)]
    pub rows: u16,
    /// Columns.
    #[n(1)]
    pub cols: u16,
}

/// A signal for the workload.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Signal {
    /// Signal number.
    #[n(0)]
    pub signal: i32,
    /// Every process of the workload instead of the main one.
    #[n(1)]
    pub all: bool,
    /// The run it is meant for.
    #[n(2)]
    pub instance: String,
}

/// Begins the stop ladder, or shortens the one that runs.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Stop {
    /// Typed first; none begins with SIGTERM.
    #[n(0)]
    pub command: Option<String>,
    /// Time after the command before SIGTERM, milliseconds.
    #[n(1)]
    pub grace_ms: u64,
    /// Time after SIGTERM before SIGKILL, milliseconds.
    #[n(2)]
    pub term_ms: u64,
    /// SIGTERM comes this long after the request at the latest, milliseconds.
    #[n(3)]
    pub cap_ms: Option<u64>,
    /// Lines typed before the command.
    #[n(4)]
    pub warn: Option<Vec<Warning>>,
}

impl From<StopPlan> for Stop {
    fn from(plan: StopPlan) -> Self {
        let warn = |w: crate::spec::Warning| Warning { before_ms: w.before_ms, command: w.command };
        let warn: Vec<Warning> = plan.warn.into_iter().map(warn).collect();
        Self {
            command: plan.command,
            grace_ms: plan.grace_ms,
            term_ms: plan.term_ms,
            cap_ms: plan.cap_ms,
            warn: (!warn.is_empty()).then_some(warn),
        }
    }
}

impl From<Stop> for StopPlan {
    fn from(stop: Stop) -> Self {
        let warn = |w: Warning| crate::spec::Warning { before_ms: w.before_ms, command: w.command };
        Self {
            command: stop.command,
            grace_ms: stop.grace_ms,
            term_ms: stop.term_ms,
            cap_ms: stop.cap_ms,
            warn: stop.warn.unwrap_or_default().into_iter().map(warn).collect(),
        }
    }
}

/// A line typed some time before the stop command.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Warning {
    /// How long before the command, milliseconds.
    #[n(0)]
    pub before_ms: u64,
    /// The line.
    #[n(1)]
    pub command: String,
}

/// Puts off the next rung of a running stop ladder.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Extend {
    /// The next rung comes this much later than now, milliseconds.
    #[n(0)]
    pub from_now_ms: u64,
}

/// Names a run.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Instance {
    /// Identity of the run.
    #[n(0)]
    pub instance: String,
}

/// A request was carried out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Done {
    /// End of the console log before the request took effect.
    #[n(0)]
    pub log_head: u64,
}

/// A request was refused.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode, thiserror::Error)]
#[cbor(map)]
#[error("{message}")]
pub struct Refusal {
    /// Stable code: `version`, `instance`, `stdin_busy`, `ended`, `malformed`, `unsupported`, `running`, `failed`.
    #[n(0)]
    pub code: String,
    /// For people.
    #[n(1)]
    pub message: String,
}

/// The version two peers will speak, if any.
pub fn negotiate(client: (u16, u16), server: (u16, u16)) -> Option<u16> {
    let highest = client.1.min(server.1);
    (highest >= client.0.max(server.0)).then_some(highest)
}

/// Encodes a body. Encoding into memory cannot fail.
pub fn body<T: Encode<()>>(message: &T) -> Vec<u8> {
    minicbor::to_vec(message).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_meet_in_the_highest_common_one() {
        assert_eq!(negotiate((1, 1), (1, 1)), Some(1));
        assert_eq!(negotiate((1, 3), (2, 2)), Some(2));
        assert_eq!(negotiate((2, 5), (1, 9)), Some(5));
        assert_eq!(negotiate((3, 4), (1, 2)), None);
        assert_eq!(negotiate((1, 2), (3, 4)), None);
    }

    #[test]
    fn the_first_version_on_the_wire_stays_what_it_is() {
        // Golden bytes: version 1 has to be spoken for ever.
        let hello =
            Hello { proto_min: 1, proto_max: 1, agent_version: "0.1".to_owned(), instance: String::new() };
        assert_eq!(body(&hello), [0xa4, 0, 1, 1, 1, 2, 0x63, b'0', b'.', b'1', 3, 0x60]);
        let read = Read { offset: 300, max: 16 };
        assert_eq!(body(&read), [0xa2, 0, 0x19, 1, 44, 1, 16]);
        // What was added since is not there unless it says something.
        let plan = StopPlan { grace_ms: 5, term_ms: 6, ..StopPlan::default() };
        assert_eq!(body(&Stop::from(plan.clone())), [0xa2, 1, 5, 2, 6]);
        let old: Stop = minicbor::decode(&[0xa2, 1, 5, 2, 6]).unwrap();
        assert_eq!(StopPlan::from(old), plan);
    }

    #[test]
    fn both_versions_of_a_status_are_these_bytes() {
        let mut status = Status {
            sequence: 1,
            pid: 300,
            start_ticks: 3,
            started_boot_ms: 4,
            started_unix_ms: 5,
            log_start: 6,
            log_head: 7,
            log_unwritten: 8,
            stop_stage: 2,
            exit: None,
            log_run_start: 10,
            adopted: None,
        };
        // Version 1; also what version 2 says as long as no shim was replaced.
        let first: &[u8] = &[0xaa, 0, 1, 1, 0x19, 1, 44, 2, 3, 3, 4, 4, 5, 5, 6, 6, 7, 7, 8, 8, 2, 10, 10];
        assert_eq!(body(&status), first);
        assert_eq!(minicbor::decode::<Status>(first).unwrap(), status);
        status.adopted = Some(Adopted { times: 2, lost_bytes: 256 });
        let mut second = first.to_vec();
        second[0] = 0xab;
        second.extend([11, 0xa2, 0, 2, 1, 0x19, 1, 0]);
        assert_eq!(body(&status), second);
        assert_eq!(minicbor::decode::<Status>(&second).unwrap(), status);
    }

    #[test]
    fn the_second_version_says_hello_in_these_bytes() {
        let hello = Hello {
            proto_min: VERSIONS.0,
            proto_max: VERSIONS.1,
            agent_version: String::new(),
            instance: "a".to_owned(),
        };
        assert_eq!(body(&hello), [0xa4, 0, 1, 1, 2, 2, 0x60, 3, 0x61, b'a']);
    }

    #[test]
    fn unknown_keys_from_a_newer_peer_are_skipped() {
        #[derive(Encode)]
        #[cbor(map)]
        struct Newer {
            #[n(0)]
            offset: u64,
            #[n(1)]
            max: u32,
            #[n(9)]
            wish: Option<String>,
        }
        let bytes = body(&Newer { offset: 5, max: 6, wish: Some("soon".to_owned()) });
        assert_eq!(minicbor::decode::<Read>(&bytes).unwrap(), Read { offset: 5, max: 6 });
    }

    #[test]
    fn an_end_from_the_future_is_lost_not_success() {
        let message =
            ExitMessage { how: 9, number: 0, core: false, text: String::new(), uptime_ms: 0, recorded: true };
        assert!(matches!(message.exit(), Exit::Lost { .. }));
    }
}
