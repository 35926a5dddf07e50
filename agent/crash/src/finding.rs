//! What the signatures found, put right by where it stands: what came before the server was
//! up is no reason for its end; what stands in the trace of a fatal error is more than a
//! warning; a dependency on the game, Java or a loader is a question of versions.

use std::collections::{HashMap, HashSet};

use crate::Cause;
use crate::Exit;
use crate::Source;
use crate::log::{Kind, Log};
use crate::platform::{self, PlatformNeed};
use crate::rules::{Match, Rules, Severity, Signature};
use crate::trace::Trace;
use crate::words::Words;

/// One thing that was found.
#[derive(Debug, Clone)]
pub(crate) struct Finding {
    pub id: String,
    pub cause: Cause,
    pub severity: Severity,
    /// The signature says little by itself.
    pub generic: bool,
    pub certain: bool,
    pub useless: bool,
    pub addon: bool,
    pub line: usize,
    pub groups: HashMap<String, String>,
}

/// Reports that are no crash.
const NO_CRASH: [&str; 5] =
    ["Level dump", "Manually triggered debug crash", "Debug report", "Requested by user", "World dump"];

/// Lines that begin the trace of an end.
const FATAL_HEADS: [&str; 16] = [
    "Encountered an unexpected exception",
    "Exception in server tick loop",
    "Failed to start the minecraft server",
    "Failed to start the Minecraft server",
    "Unable to bootstrap",
    "Failed to load datapacks",
    "Failed to load world data",
    "Error during pre-loading phase",
    "A critical error occurred",
    "Cause of unexpected exception was",
    "Preparing crash report",
    "Crash report",
    "Uncaught exception in server thread",
    "Mod loading has failed",
    "Exception caught during firing event",
    "Minecraft has crashed!",
];

/// All findings of a log.
pub(crate) fn findings(
    exit: Option<&Exit>,
    log: &Log,
    rules: &Rules,
    matches: &[Match],
    traces: &[Trace],
    words: &Words,
) -> Vec<Finding> {
    let fatal = fatal_lines(log, traces);
    let mut found: Vec<Finding> =
        matches.iter().filter_map(|one| finding(log, &rules.signatures[one.signature], one, words)).collect();
    found.extend(uncaught(log, traces, words));
    // The JVM does not say such things and then end well, or by somebody else's signal.
    if exit
        .is_some_and(|exit| matches!(exit.code, Some(0 | 137 | 143)) || matches!(exit.signal, Some(9 | 15)))
    {
        found.retain(|one| !log.lines[one.line].last_word);
    }
    let has = |found: &[Finding], id: &str| found.iter().any(|f| f.id == id);
    let bound =
        ["bind-failed", "bind-in-use-paper", "velocity-bind", "bungee-bind"].iter().any(|id| has(&found, id));
    for one in &mut found {
        let up = log.done.is_some() && log.lines[one.line].source == Source::Console;
        match one.id.as_str() {
            // Other parts of a server bind ports, too, and live without them.
            "bind-in-use" | "bind-address" if (bound && !up) || fatal.contains(&one.line) => {
                one.severity = Severity::Fatal;
            }
            "disk-full" if !fatal.contains(&one.line) && log.lines.len() - one.line > 500 => {
                one.severity = Severity::Hint;
            }
            _ => {}
        }
        if ELEVATED.contains(&one.cause) && one.severity < Severity::Fatal && fatal.contains(&one.line) {
            one.severity = Severity::Fatal;
        }
        if addon_of_a_living_server(log, one) {
            one.severity = one.severity.min(Severity::Degraded);
        }
    }
    found
}

/// What is a warning by itself and a cause in the trace of an end.
const ELEVATED: [Cause; 9] = [
    Cause::Permission,
    Cause::ChunkCorrupt,
    Cause::BadConfig,
    Cause::Mixin,
    Cause::JarCorrupt,
    Cause::ClientOnly,
    Cause::LevelDat,
    Cause::Datapack,
    Cause::WorldNewer,
];

fn finding(log: &Log, signature: &Signature, one: &Match, words: &Words) -> Option<Finding> {
    let line = &log.lines[one.line];
    let mut found = Finding {
        id: signature.id.clone(),
        cause: signature.cause,
        severity: signature.severity,
        generic: signature.certain == Some(false) && signature.severity == Severity::Fatal,
        certain: true,
        useless: true,
        addon: signature.addon,
        line: one.line,
        groups: one.groups.clone(),
    };
    let what = one.groups.get("what").map(String::as_str).unwrap_or_default();
    if found.id == "report-loop"
        && (NO_CRASH.contains(&what)
            || ["Ticking", "Exception ticking", "Watching Server", "Mod loading"]
                .iter()
                .any(|s| what.starts_with(s)))
    {
        return None;
    }
    if found.id == "level-dat" && log.done.is_some() {
        return None;
    }
    if signature.startup && log.done.is_some() && line.source == Source::Console && line.kind != Kind::Report
    {
        found.severity = Severity::Hint;
    }
    version_problem(&mut found);
    java_of_whom(log, &mut found);
    let entry = words.entry(found.cause);
    found.certain = signature.certain.unwrap_or(entry.certain);
    found.useless = signature.useless.unwrap_or(entry.useless);
    Some(found)
}

/// A dependency on the game, Java or a loader is no missing file.
fn version_problem(found: &mut Finding) {
    if found.cause != Cause::Dependency {
        return;
    }
    let list = found.groups.get("deps").map(|deps| dependencies(deps));
    let ids: Vec<String> = match (&list, found.groups.get("dep")) {
        (Some(list), _) => list.iter().map(|(id, _)| id.clone()).collect(),
        (None, Some(dep)) => vec![dep.clone()],
        (None, None) => return,
    };
    let needs: Vec<Option<PlatformNeed>> = ids.iter().map(|id| platform::need(id)).collect();
    if needs.is_empty() || needs.iter().any(Option::is_none) {
        return;
    }
    if needs.contains(&Some(PlatformNeed::Java)) {
        found.cause = Cause::JavaTooOld;
        if let Some(need) = found.groups.get("wanted").and_then(|wanted| first_number(wanted)) {
            found.groups.insert("need".to_owned(), need.to_string());
        }
        if let Some(have) = found.groups.get("installed").and_then(|have| first_number(have)) {
            found.groups.insert("have".to_owned(), have.to_string());
        }
    } else {
        found.cause = Cause::WrongGameVersion;
    }
}

/// A class that Java is too old for belongs to the server, or to a mod or plugin.
fn java_of_whom(log: &Log, found: &mut Finding) {
    if found.cause != Cause::JavaTooOld {
        return;
    }
    let Some(class) = found.groups.get("class") else { return };
    let class = class.replace('/', ".");
    let line = &log.lines[found.line];
    let server = platform::is_platform(&class) || line.kind == Kind::Start;
    if !server {
        found.cause = Cause::AddonJava;
        found.addon = true;
    }
}

/// A plugin that cannot be loaded leaves the server alive.
fn addon_of_a_living_server(log: &Log, one: &Finding) -> bool {
    if !matches!(
        one.cause,
        Cause::AddonJava | Cause::JarCorrupt | Cause::ApiMismatch | Cause::BadConfig | Cause::Permission
    ) {
        return false;
    }
    let line = &log.lines[one.line];
    if line.source != Source::Console || line.kind == Kind::Start {
        return false;
    }
    // The line that announced it.
    log.lines[..=one.line].iter().rev().take(40).find(|line| line.kind == Kind::Error).is_some_and(|head| {
        let message = crate::log::probe(head.message());
        [
            "Could not load '",
            "Could not load plugin '",
            "Error occurred while",
            "Could not pass event",
            "Can't create plugin",
            "Can't load",
            "Error initializing",
        ]
        .iter()
        .any(|start| message.starts_with(start))
    })
}

/// Lines of traces that end a server.
pub(crate) fn fatal_lines(log: &Log, traces: &[Trace]) -> HashSet<usize> {
    let mut lines = HashSet::new();
    for trace in traces.iter().filter(|trace| is_fatal(log, trace)) {
        for exception in &trace.exceptions {
            lines.insert(exception.line);
        }
        lines.extend(trace.head);
    }
    lines
}

/// Whether a trace ended the server.
pub(crate) fn is_fatal(log: &Log, trace: &Trace) -> bool {
    let Some(first) = trace.exceptions.first() else { return false };
    let line = &log.lines[first.line];
    if line.kind == Kind::Report {
        return trace.head.is_some_and(|head| {
            let what = log.lines[head].message().trim().strip_prefix("Description: ").unwrap_or_default();
            !NO_CRASH.contains(&what)
        });
    }
    if is_uncaught(log, trace) {
        return true;
    }
    trace.head.is_some_and(|head| {
        let message = crate::log::probe(log.lines[head].message());
        FATAL_HEADS.iter().any(|start| message.starts_with(start))
    })
}

/// `Exception in thread "main"`: nobody caught it, and the thread is the server's.
fn is_uncaught(log: &Log, trace: &Trace) -> bool {
    trace.exceptions.first().is_some_and(|first| {
        let line = &log.lines[first.line];
        let message = line.message().trim_start();
        let threads = [
            "Exception in thread \"main\"",
            "Exception in thread \"ServerMain\"",
            "Exception in thread \"Server thread\"",
        ];
        line.kind != Kind::Loose && threads.iter().any(|start| message.starts_with(start))
    })
}

fn uncaught(log: &Log, traces: &[Trace], words: &Words) -> Vec<Finding> {
    let entry = words.entry(Cause::LoopCrash);
    traces
        .iter()
        .filter(|trace| is_uncaught(log, trace))
        .map(|trace| Finding {
            id: "uncaught".to_owned(),
            cause: Cause::LoopCrash,
            severity: Severity::Fatal,
            generic: false,
            certain: entry.certain,
            useless: entry.useless,
            addon: false,
            line: trace.first_line(),
            groups: HashMap::new(),
        })
        .collect()
}

/// `a@[1.0,2.0), b, c@*` → ids and ranges.
pub(crate) fn dependencies(list: &str) -> Vec<(String, Option<String>)> {
    let mut found: Vec<(String, Option<String>)> = Vec::new();
    let mut depth = 0_i32;
    let mut start = 0;
    let mut parts = Vec::new();
    for (at, c) in list.char_indices() {
        match c {
            '[' | '(' => depth += 1,
            ']' | ')' => depth -= 1,
            // A range may be open on either side: `[1.0,)`.
            ',' if depth <= 0 => {
                parts.push(&list[start..at]);
                start = at + 1;
            }
            _ => {}
        }
    }
    parts.push(&list[start..]);
    for part in parts {
        let part = part.trim();
        let (id, range) = match part.split_once('@') {
            Some((id, range)) => (id, Some(range.trim().to_owned())),
            None => (part, None),
        };
        let id = id.trim();
        if !id.is_empty() && id.len() < 100 && found.len() < 64 && !found.iter().any(|(known, _)| known == id)
        {
            found.push((id.to_owned(), range.filter(|range| !range.is_empty() && range != "*")));
        }
    }
    found
}

/// The first whole number of a text: a Java version in a range. `1.8` is 8.
pub(crate) fn first_number(text: &str) -> Option<u32> {
    let start = text.find(|c: char| c.is_ascii_digit())?;
    let digits = |text: &str| text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let rest = &text[start..];
    let end = digits(rest);
    let number: u32 = rest[..end].parse().ok()?;
    if number == 1
        && let Some(minor) = rest[end..].strip_prefix('.')
        && let Ok(minor) = minor[..digits(minor)].parse()
    {
        return Some(minor);
    }
    Some(number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_of_dependencies() {
        let found = dependencies("codechickenlib@[3.2.2,), forge@[14.23.5.2768,), llibrary");
        let ids: Vec<_> = found.iter().map(|(id, _)| id.as_str()).collect();
        assert_eq!(ids, ["codechickenlib", "forge", "llibrary"]);
        assert_eq!(found[0].1.as_deref(), Some("[3.2.2,)"));
        assert_eq!(dependencies("redstoneflux@[2.1.0,2.2.0)")[0].1.as_deref(), Some("[2.1.0,2.2.0)"));
    }

    #[test]
    fn versions_of_java() {
        assert_eq!(first_number("version 21 or later"), Some(21));
        assert_eq!(first_number("1.8.0_312"), Some(8));
        assert_eq!(first_number("any"), None);
    }
}
