//! One entry of the journal, and the line it stands in.
//!
//! A line is one JSON object whose last member is a checksum of every byte before it, as
//! they stand, so that a tool can read the file and a flipped bit is noticed:
//!
//! ```text
//! {"v":1,"seq":7,"at":"2026-01-02T03:04:05.678Z","boot":123456,"life":"1f3c9a2b44d1.88","what":{"ready":{…}},"sum":"0123456789abcdef"}
//! ```
//!
//! `at` is wall time, to show. `boot` (CLOCK_BOOTTIME, milliseconds) and `life` (which
//! boot of the host, and which start of the container on it) are what is measured with.

use serde::de::IgnoredAny;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use zlh_api::{OperationKind, OperationState};
use zlh_shim::process::Generation;

/// A moment: to show, and to measure with.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Stamp {
    /// Wall time, Unix milliseconds.
    #[serde(with = "rfc3339")]
    pub at: i64,
    /// CLOCK_BOOTTIME, milliseconds.
    pub boot: u64,
    /// The container's life; see [`life_of`].
    pub life: String,
}

/// Why a start was begun.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Why {
    /// Somebody asked.
    Operation,
    /// It is meant to run, and the agent found nothing running.
    Boot,
    /// The pause after a crash was over.
    Backoff,
}

/// Who wanted an end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum By {
    /// A stop or restart through the agent.
    Operation,
    /// Somebody in the game or at its console.
    Inside,
    /// Whoever told the shim: a container that shuts down.
    Outside,
}

/// How a process ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Exit {
    /// Its run.
    pub instance: String,
    /// When; the entry's own stamp is when it was seen.
    pub ended: Stamp,
    /// None on a signal and when it was lost.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<i32>,
    /// 0 when none.
    #[serde(default)]
    pub signal: i32,
    /// For example `SIGKILL`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signal_name: Option<String>,
    /// Milliseconds it lived.
    pub uptime_ms: u64,
    /// Whether it had accepted users.
    #[serde(default)]
    pub was_ready: bool,
    /// Who wanted it; nobody: a crash.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by: Option<By>,
    /// Why the status is not known, or why it never ran.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lost: Option<String>,
    /// Whether the kernel killed it for memory.
    #[serde(default)]
    pub oom: bool,
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum What {
    /// This agent began. `held`: in maintenance, whatever was written of that before.
    AgentStarted {
        version: String,
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        held: bool,
    },
    /// This agent ends in order.
    AgentLeft { signal: String },
    /// A start was begun.
    Start { instance: String, attempt: u32, why: Why },
    /// A living process of an earlier agent, started at `boot` of this life.
    Found { instance: String, boot: u64 },
    /// An agent began and found nothing running; `wanted`: though it is meant to run.
    Absent { wanted: bool },
    /// It accepts users.
    Ready {
        instance: String,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        after_ms: Option<u64>,
    },
    /// It does not any more.
    Silent { why: String },
    /// It does again.
    Answers {},
    /// It was not ready in time, and runs on.
    NotReady { why: String },
    /// A stop was asked for.
    Stop { operation: String, restart: bool },
    /// Nothing is started from now on, and what is down is meant to be.
    Maintenance {
        #[serde(default, skip_serializing_if = "Option::is_none")]
        reason: Option<String>,
    },
    /// That is over.
    MaintenanceOver {},
    /// The main process has ended.
    Exit(Box<Exit>),
    /// A crash was counted: restart after this pause, or give up.
    Crash {
        count: u32,
        total: u32,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        restart_after_s: Option<u64>,
    },
    /// What ended a run, as far as the evidence tells; of several for one run the last counts.
    Explained {
        instance: String,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        cause: Option<String>,
        title: String,
    },
    /// Nothing runs, and a person has to look.
    GaveUp { why: String },
    /// A start that nobody asked for came to nothing; the next one follows after this pause.
    StartFailed {
        why: String,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        restart_after_s: Option<u64>,
    },
    /// The container was restarted under the workload.
    Swept {},
    /// An operation began.
    OperationBegan { id: String, kind: OperationKind },
    /// An operation ended.
    OperationEnded {
        id: String,
        kind: OperationKind,
        state: OperationState,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        error: Option<String>,
    },
    /// Files were put in place.
    Installed { what: String },
    /// Somebody typed a line; `unnoted`: so many before it had no room here.
    Command {
        who: String,
        line: String,
        #[serde(default)]
        unnoted: u64,
    },
    /// Part of the supervision was lost.
    Degraded { why: String },
    /// It is whole again.
    Recovered {},
    /// It still runs: so that a host that loses power leaves a recent trace.
    Alive { ready: bool },
    /// So many entries since `boot` had no room, neither on disk nor in memory.
    Gap { lost: u64, boot: u64 },
    /// A newer agent's entry.
    #[serde(skip)]
    Foreign,
}

/// An entry with its place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Entry {
    /// Ascending.
    pub seq: u64,
    /// When it was made.
    pub stamp: Stamp,
    /// What happened.
    pub what: What,
}

impl Stamp {
    /// Now, in `life`.
    pub(crate) fn now(life: &str) -> Self {
        Self {
            at: crate::clock::now().as_millisecond(),
            boot: zlh_shim::holder::boot_ms(),
            life: life.to_owned(),
        }
    }

    /// The boot of the host: within one, `boot` goes on across restarts of the container.
    pub(crate) fn host(&self) -> &str {
        self.life.split_once('.').map_or(self.life.as_str(), |(host, _)| host)
    }

    /// When the container's life began, CLOCK_BOOTTIME milliseconds.
    pub(crate) fn life_began(&self) -> u64 {
        self.life
            .split_once('.')
            .and_then(|(_, ticks)| ticks.parse::<u64>().ok())
            .map_or(self.boot, |ticks| ticks.saturating_mul(MS_PER_TICK))
            .min(self.boot)
    }
}

impl What {
    /// Whether it has to reach the disk before the next loss of power.
    pub(super) fn is_durable(&self) -> bool {
        matches!(
            self,
            Self::Exit(_)
                | Self::Crash { .. }
                | Self::GaveUp { .. }
                | Self::StartFailed { .. }
                | Self::Stop { .. }
                | Self::Gap { .. }
                | Self::Maintenance { .. }
                | Self::MaintenanceOver {}
        )
    }

    /// Cuts what somebody else wrote to a length that fits a line.
    pub(super) fn cut(&mut self) {
        match self {
            Self::Silent { why }
            | Self::NotReady { why }
            | Self::GaveUp { why }
            | Self::StartFailed { why, .. }
            | Self::Degraded { why } => {
                shorten(why);
            }
            Self::OperationEnded { error: Some(text), .. }
            | Self::Installed { what: text }
            | Self::Maintenance { reason: Some(text) }
            | Self::Explained { title: text, .. }
            | Self::Command { line: text, .. } => shorten(text),
            Self::Exit(exit) => exit.lost.iter_mut().for_each(shorten),
            _ => {}
        }
    }
}

impl Entry {
    /// The entry's line, line feed included.
    pub(super) fn encode(seq: u64, stamp: &Stamp, what: &What) -> std::io::Result<Vec<u8>> {
        let mut line = serde_json::to_vec(&Line { v: VERSION, seq, stamp, what })?;
        line.pop();
        let sum = checksum(&line);
        line.extend_from_slice(SUM.as_bytes());
        line.extend_from_slice(&sum);
        line.extend_from_slice(b"\"}\n");
        Ok(line)
    }

    /// Reads a line without its line feed; nothing when it is not as it was written.
    pub(super) fn decode(line: &[u8]) -> Option<Self> {
        let (body, tail) = line.split_at_checked(line.len().checked_sub(TAIL)?)?;
        let sum = tail.strip_prefix(SUM.as_bytes())?.strip_suffix(b"\"}")?;
        if sum != checksum(body) {
            return None;
        }
        let head: Head<'_> = serde_json::from_slice(line).ok()?;
        if head.seq > MAX_SEQ {
            return None;
        }
        let stamp = Stamp { at: rfc3339::parse(head.at)?, boot: head.boot, life: head.life.to_owned() };
        // What this version does not know was written by a newer one, and is no damage.
        let what = if head.v == VERSION { serde_json::from_str(head.what.get()).ok() } else { None };
        Some(Self { seq: head.seq, stamp, what: what.unwrap_or(What::Foreign) })
    }
}

/// A container's life in one word: the boot of the host, and the start of pid 1 on it.
pub(crate) fn life_of(generation: &Generation) -> String {
    let host: String = generation.boot_id.chars().filter(char::is_ascii_hexdigit).take(HOST_DIGITS).collect();
    format!("{host}.{}", generation.init_start_ticks)
}

#[derive(Serialize)]
struct Line<'a> {
    v: u32,
    seq: u64,
    #[serde(flatten)]
    stamp: &'a Stamp,
    what: &'a What,
}

#[derive(Deserialize)]
struct Head<'a> {
    v: u32,
    seq: u64,
    #[serde(borrow)]
    at: &'a str,
    boot: u64,
    #[serde(borrow)]
    life: &'a str,
    #[serde(borrow)]
    what: &'a serde_json::value::RawValue,
    #[serde(rename = "sum")]
    _sum: IgnoredAny,
}

mod rfc3339 {
    //! Unix milliseconds as text.
    use serde::{Deserialize as _, Deserializer, Serializer, de::Error as _};

    pub(super) fn serialize<S: Serializer>(at: &i64, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&text(*at))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<i64, D::Error> {
        let text = String::deserialize(from)?;
        parse(&text).ok_or_else(|| D::Error::custom("not RFC 3339"))
    }

    pub(super) fn parse(text: &str) -> Option<i64> {
        text.parse::<jiff::Timestamp>().ok().map(jiff::Timestamp::as_millisecond)
    }

    pub(super) fn text(at: i64) -> String {
        let end = if at < 0 { jiff::Timestamp::MIN } else { jiff::Timestamp::MAX };
        crate::clock::rfc3339(jiff::Timestamp::from_millisecond(at).unwrap_or(end))
    }
}

/// Unix milliseconds as RFC 3339.
pub(super) fn show(at: i64) -> String {
    rfc3339::text(at)
}

/// The first half of a SHA-256 is far more than chance damage can forge.
fn checksum(bytes: &[u8]) -> [u8; SUM_DIGITS] {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let digest = Sha256::digest(bytes);
    let mut hex = [0; SUM_DIGITS];
    for (pair, byte) in hex.chunks_exact_mut(2).zip(digest.iter()) {
        pair[0] = DIGITS[usize::from(byte >> 4)];
        pair[1] = DIGITS[usize::from(byte & 15)];
    }
    hex
}

fn shorten(text: &mut String) {
    if let Some((end, _)) = text.char_indices().nth(MAX_TEXT_CHARS) {
        text.truncate(end);
        text.push('…');
    }
}

/// Of the line's form.
const VERSION: u32 = 1;
/// Begins the last member.
const SUM: &str = ",\"sum\":\"";
const SUM_DIGITS: usize = 16;
/// Bytes from the end of what is summed to the end of the line.
const TAIL: usize = SUM.len() + SUM_DIGITS + 2;
/// Of a boot id: enough to tell one host's boots apart.
const HOST_DIGITS: usize = 12;
/// `/proc` counts in hundredths of a second on every Linux that matters here.
const MS_PER_TICK: u64 = 10;
/// Longest text of somebody else's, characters.
const MAX_TEXT_CHARS: usize = 240;
/// Larger ones were not written by us.
pub(super) const MAX_SEQ: u64 = 1 << 53;

#[cfg(test)]
mod tests {
    use super::*;

    fn stamp() -> Stamp {
        Stamp { at: 1_767_225_600_123, boot: 42_000, life: "0123456789ab.88".to_owned() }
    }

    fn encode(what: &What) -> Vec<u8> {
        let mut line = Entry::encode(7, &stamp(), what).unwrap();
        assert_eq!(line.pop(), Some(b'\n'));
        line
    }

    #[test]
    fn a_line_is_json_and_reads_back() {
        let exit = Exit {
            instance: "a".to_owned(),
            ended: stamp(),
            code: None,
            signal: 9,
            signal_name: Some("SIGKILL".to_owned()),
            uptime_ms: 5,
            was_ready: true,
            by: Some(By::Inside),
            lost: Some("line\nfeed \u{1b}[31m \u{1F600}".to_owned()),
            oom: true,
        };
        for what in [
            What::Exit(Box::new(exit)),
            What::Answers {},
            What::Ready { instance: "a".to_owned(), after_ms: None },
            What::Crash { count: 1, total: 2, restart_after_s: Some(30) },
        ] {
            let line = encode(&what);
            assert!(!line.contains(&b'\n'), "one line");
            let value: serde_json::Value = serde_json::from_slice(&line).unwrap();
            assert_eq!((&value["seq"], &value["at"]), (&7.into(), &"2026-01-01T00:00:00.123Z".into()));
            assert_eq!(Entry::decode(&line), Some(Entry { seq: 7, stamp: stamp(), what }));
        }
    }

    #[test]
    fn every_flipped_bit_and_every_cut_is_noticed() {
        let line = encode(&What::Start { instance: "a".to_owned(), attempt: 1, why: Why::Boot });
        for position in 0..line.len() {
            for bit in 0..8 {
                let mut bad = line.clone();
                bad[position] ^= 1 << bit;
                assert_eq!(Entry::decode(&bad), None, "bit {bit} of byte {position}");
            }
        }
        for length in 0..line.len() {
            assert_eq!(Entry::decode(&line[..length]), None, "cut at {length}");
        }
    }

    #[test]
    fn a_newer_agents_entry_is_no_damage() {
        let resum = |body: &str| {
            let mut line = body.as_bytes().to_vec();
            let sum = checksum(&line);
            line.extend_from_slice(SUM.as_bytes());
            line.extend_from_slice(&sum);
            line.extend_from_slice(b"\"}");
            line
        };
        let of = |v: u32, what: &str| {
            resum(&format!(
                r#"{{"v":{v},"seq":9,"at":"2026-01-01T00:00:00Z","boot":1,"life":"a.1","what":{what},"new":[]"#
            ))
        };
        for line in [of(2, "{\"ready\":7}"), of(1, "{\"moved\":{\"to\":\"b\"}}"), of(1, "\"x\"")] {
            let entry = Entry::decode(&line).unwrap();
            assert_eq!((entry.seq, entry.what), (9, What::Foreign));
        }
        assert_eq!(Entry::decode(&resum(r#"{"v":1,"seq":9"#)), None, "no entry at all");
        assert_eq!(
            Entry::decode(&resum(
                "{\"v\":1,\"seq\":18446744073709551615,\"at\":\"2026-01-01T00:00:00Z\",\"boot\":1,\"life\":\"a.1\",\"what\":1"
            )),
            None
        );
    }

    #[test]
    fn the_longest_entry_fits_a_line() {
        let evil = "\u{1}".repeat(100_000);
        let mut what = What::OperationEnded {
            id: "1".repeat(30),
            kind: OperationKind::Install,
            state: OperationState::Failed,
            error: Some(evil),
        };
        what.cut();
        assert!(encode(&what).len() < super::super::store::MAX_LINE / 2);
    }

    #[test]
    fn a_life_begins_before_its_entries() {
        let stamp = |life: &str| Stamp { at: 0, boot: 5000, life: life.to_owned() };
        assert_eq!(stamp("ab.100").life_began(), 1000);
        assert_eq!(stamp("ab.99999").life_began(), 5000, "never later than the entry");
        assert_eq!((stamp("ab").life_began(), stamp("ab").host().to_owned()), (5000, "ab".to_owned()));
    }
}
