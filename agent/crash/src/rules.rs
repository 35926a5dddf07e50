//! Signatures: what a line means, as data.
//!
//! `signatures/*.toml` hold them, one file per family, each with the lines that prove it.
//! One pass of an Aho-Corasick automaton over their literals says which can hold at all;
//! only those are compiled, and matched from the beginning of the message. Patterns run in
//! time linear in the line.

use std::collections::HashMap;
use std::sync::OnceLock;

use aho_corasick::AhoCorasick;
use regex::bytes::{Regex, RegexBuilder};
use serde::Deserialize;

use crate::Cause;
use crate::log::{Kind, Log};

/// How bad it is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Severity {
    /// Only worth a mention beside another.
    Hint,
    /// The server goes on.
    Degraded,
    /// It ends a server.
    #[default]
    Fatal,
}

/// A signature, as it stands in a file.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Signature {
    pub id: String,
    pub cause: Cause,
    /// One of these has to be in the line.
    has: Vec<String>,
    /// From the beginning of the message; groups name what is found.
    pattern: String,
    /// Kinds of lines; see `log.rs`.
    #[serde(rename = "in", default = "usual")]
    places: Vec<Place>,
    #[serde(default)]
    pub severity: Severity,
    /// Means nothing once the server was up.
    #[serde(default)]
    pub startup: bool,
    /// A mod or plugin is at fault, whatever the class of the cause.
    #[serde(default)]
    pub addon: bool,
    pub certain: Option<bool>,
    pub useless: Option<bool>,
    /// Lines that prove it.
    #[allow(dead_code, reason = "the tests read them")]
    samples: Vec<String>,
    /// Lines it must not hold for.
    #[serde(default)]
    #[allow(dead_code, reason = "the tests read them")]
    counter: Vec<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Place {
    Start,
    Info,
    Error,
    Stack,
    Report,
    HsErr,
}

fn usual() -> Vec<Place> {
    vec![Place::Error, Place::Stack, Place::Report, Place::Start]
}

#[derive(Deserialize)]
struct File {
    signature: Vec<Signature>,
}

const FILES: [(&str, &str); 7] = [
    ("jvm", include_str!("../signatures/jvm.toml")),
    ("vanilla", include_str!("../signatures/vanilla.toml")),
    ("world", include_str!("../signatures/world.toml")),
    ("bukkit", include_str!("../signatures/bukkit.toml")),
    ("forge", include_str!("../signatures/forge.toml")),
    ("fabric", include_str!("../signatures/fabric.toml")),
    ("proxy", include_str!("../signatures/proxy.toml")),
];

/// Matches of one signature that are kept.
const MAX_MATCHES: usize = 64;

/// All signatures, ready to match.
pub(crate) struct Rules {
    pub signatures: Vec<Signature>,
    automaton: AhoCorasick,
    /// Which signature a literal belongs to.
    owner: Vec<usize>,
    compiled: Vec<OnceLock<Option<Regex>>>,
}

/// A line that a signature holds for.
#[derive(Debug, Clone)]
pub(crate) struct Match {
    pub signature: usize,
    pub line: usize,
    pub groups: HashMap<String, String>,
}

impl Rules {
    /// Reads the built-in files. They are part of the program: a broken one is left out,
    /// and a test fails.
    pub(crate) fn builtin() -> Self {
        let signatures = FILES
            .iter()
            .filter_map(|(_, text)| toml::from_str::<File>(text).ok())
            .flat_map(|file| file.signature)
            .collect();
        Self::new(signatures)
    }

    fn new(signatures: Vec<Signature>) -> Self {
        let (mut literals, mut owner) = (Vec::new(), Vec::new());
        for (index, signature) in signatures.iter().enumerate() {
            for literal in &signature.has {
                literals.push(literal.as_str());
                owner.push(index);
            }
        }
        let automaton = AhoCorasick::new(&literals)
            .or_else(|_| AhoCorasick::new::<[&str; 0], &str>([]))
            .unwrap_or_else(|_| unreachable!("an automaton of nothing"));
        let compiled = signatures.iter().map(|_| OnceLock::new()).collect();
        Self { signatures, automaton, owner, compiled }
    }

    /// All matches in a log, in its order.
    pub(crate) fn matches(&self, log: &Log) -> Vec<Match> {
        let mut found: Vec<Vec<Match>> = self.signatures.iter().map(|_| Vec::new()).collect();
        let mut candidates = Vec::new();
        for (index, line) in log.lines.iter().enumerate() {
            let probe = line.probe();
            candidates.clear();
            let hits = self.automaton.find_overlapping_iter(probe);
            candidates.extend(hits.map(|hit| self.owner[hit.pattern().as_usize()]));
            candidates.sort_unstable();
            candidates.dedup();
            for &signature in &candidates {
                if self.signatures[signature].stands_in(line.kind)
                    && let Some(groups) = self.hold(signature, probe)
                {
                    let own = &mut found[signature];
                    // The first ones and the last ones: spam in between pushes nothing out.
                    if own.len() == MAX_MATCHES {
                        own.remove(MAX_MATCHES / 2);
                    }
                    own.push(Match { signature, line: index, groups });
                }
            }
        }
        let mut found: Vec<Match> = found.into_iter().flatten().collect();
        found.sort_by_key(|one| (one.line, one.signature));
        found
    }

    fn hold(&self, signature: usize, probe: &str) -> Option<HashMap<String, String>> {
        let regex =
            self.compiled[signature].get_or_init(|| compile(&self.signatures[signature].pattern)).as_ref()?;
        let captures = regex.captures(probe.as_bytes())?;
        let named = regex.capture_names().flatten().filter_map(|name| {
            let value = String::from_utf8_lossy(captures.name(name)?.as_bytes()).trim().to_owned();
            Some((name.trim_end_matches(|c: char| c.is_ascii_digit()).to_owned(), value))
        });
        Some(named.filter(|(_, value)| !value.is_empty()).collect())
    }
}

impl Signature {
    fn stands_in(&self, kind: Kind) -> bool {
        let place = match kind {
            Kind::Start => Place::Start,
            Kind::Info => Place::Info,
            Kind::Error => Place::Error,
            Kind::Stack => Place::Stack,
            Kind::Report => Place::Report,
            Kind::HsErr => Place::HsErr,
            Kind::Loose => return false,
        };
        self.places.contains(&place)
    }
}

fn compile(pattern: &str) -> Option<Regex> {
    RegexBuilder::new(&format!("^(?:{pattern})")).unicode(false).size_limit(1 << 20).build().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Text;

    #[test]
    fn every_file_is_sound() {
        let mut ids = std::collections::HashSet::new();
        for (name, text) in FILES {
            let file: File = toml::from_str(text).unwrap_or_else(|error| panic!("{name}.toml: {error}"));
            for signature in &file.signature {
                assert!(ids.insert(signature.id.clone()), "{}: twice", signature.id);
                assert!(compile(&signature.pattern).is_some(), "{}: pattern", signature.id);
                assert!(!signature.samples.is_empty(), "{}: no sample", signature.id);
                assert!(
                    !signature.has.is_empty() && signature.has.iter().all(|has| has.len() > 1),
                    "{}: literal",
                    signature.id
                );
            }
        }
    }

    /// The lines of a sample, as a log of the kind it may stand in.
    fn log(signature: &Signature, sample: &str) -> String {
        let first = signature.places[0];
        match first {
            Place::Start => sample.to_owned(),
            Place::Info => format!("[12:00:00] [Server thread/INFO]: {sample}"),
            Place::Error => format!("[12:00:00] [Server thread/ERROR]: {sample}"),
            Place::Stack => format!("[12:00:00] [Server thread/ERROR]: something\n{sample}"),
            Place::Report => format!("---- Minecraft Crash Report ----\n{sample}"),
            Place::HsErr => {
                format!("# A fatal error has been detected by the Java Runtime Environment:\n{sample}")
            }
        }
    }

    fn held(rules: &Rules, text: &str) -> Vec<String> {
        let text = Text { name: "console", bytes: text.as_bytes(), first_line: 1 };
        let log = Log::read(&[text], &[], None);
        rules.matches(&log).iter().map(|m| rules.signatures[m.signature].id.clone()).collect()
    }

    #[test]
    fn every_sample_proves_its_signature_and_no_counter_sample_does() {
        let rules = Rules::builtin();
        for signature in &rules.signatures {
            for sample in &signature.samples {
                let found = held(&rules, &log(signature, sample));
                assert!(found.contains(&signature.id), "{}: {sample}: {found:?}", signature.id);
            }
            for sample in &signature.counter {
                let found = held(&rules, &log(signature, sample));
                assert!(!found.contains(&signature.id), "{}: {sample}", signature.id);
            }
        }
    }

    /// A plugin may warn of what a player wrote: what stands behind its own words is nobody's.
    #[test]
    fn what_a_plugin_warns_of_proves_nothing() {
        let rules = Rules::builtin();
        let mut fooled = Vec::new();
        for signature in &rules.signatures {
            for sample in &signature.samples {
                let one = sample.lines().next().unwrap_or_default();
                for words in [
                    "[ChatFilter] Blocked a message of Eve: ",
                    "Eve moved wrongly! She says: ",
                    "[Chat] <Eve> ",
                ] {
                    let line = format!("[12:00:00] [Server thread/WARN]: {words}{one}");
                    for found in held(&rules, &line) {
                        fooled.push(format!("{found}: {line}"));
                    }
                }
            }
        }
        fooled.sort();
        fooled.dedup();
        assert!(fooled.is_empty(), "{}", fooled.join("\n"));
    }

    #[test]
    fn what_players_write_proves_nothing() {
        let rules = Rules::builtin();
        for sample in rules.signatures.iter().flat_map(|signature| &signature.samples) {
            let one = sample.lines().next().unwrap_or_default();
            for shape in [
                format!("<Steve> {one}"),
                format!("[Not Secure] <Steve> {one}"),
                format!("[Server] {one}"),
                format!("[Rcon] {one}"),
                format!("* Steve {one}"),
                format!("Steve: {one}"),
                format!("Steve \u{bb} {one}"),
                format!("Steve issued server command: /say {one}"),
                format!("Steve was slain by Zombie using [{one}]"),
                format!("Steve has made the advancement [{one}]"),
                format!("[SignSpy] Steve placed a sign: {one}"),
                format!("<Steve> hi\n{one}"),
            ] {
                for prefix in [
                    "[12:00:00] [Server thread/INFO]: ",
                    "[12:00:00 INFO]: ",
                    "[12:00:00] [Async Chat Thread - #0/INFO]: ",
                    "2013-08-01 12:00:00 [INFO] ",
                ] {
                    let found = held(
                        &rules,
                        &format!(
                            "{prefix}Done (1.0s)! For help, type \"help\"\n{prefix}{shape}\n{prefix}bye\n"
                        ),
                    );
                    assert!(found.is_empty(), "{prefix}{shape}: {found:?}");
                }
            }
        }
    }
}
