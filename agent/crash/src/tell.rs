//! What a decision is told with: values for the words, the remedy and its actions, the lines
//! it was concluded from, and what else was found.

use crate::culprit;
use crate::decide::{Case, family};
use crate::finding::{self, Finding};
use crate::log::Kind;
use crate::rules::Severity;
use crate::trace::Trace;
use crate::words::Values;
use crate::{
    Action, Cause, Contributing, Culprit, Dependency, EvidenceLine, Java, Place, RemedyStep, Source, redact,
};

/// Longest line of evidence, bytes.
const MAX_EVIDENCE: usize = 500;

/// Lines of evidence, and other findings that are told.
const MAX_LINES: usize = 12;
const MAX_CONTRIBUTING: usize = 8;

impl Case<'_> {
    pub(crate) fn java(&self, best: &Finding, cause: Cause) -> Option<Java> {
        if !matches!(cause, Cause::JavaTooOld | Cause::JavaTooNew | Cause::AddonJava) {
            return None;
        }
        let mut java = Java { need: None, have: self.evidence.facts.java_have };
        for one in std::iter::once(best).chain(self.findings.iter().filter(|one| one.cause == cause)) {
            let number = |key: &str| one.groups.get(key).and_then(|text| finding::first_number(text));
            let class = |key: &str| number(key).filter(|version| *version > 44).map(|version| version - 44);
            java.need = java.need.or(number("need")).or(class("need_class"));
            java.have = java.have.or(number("have")).or(class("have_class"));
        }
        Some(java)
    }

    pub(crate) fn place(&self, cause: Cause, best: &Finding) -> Option<Place> {
        if matches!(cause, Cause::ChunkCorrupt | Cause::WorldNewer) {
            let number = |key: &str| best.groups.get(key)?.parse().ok();
            let of = |one: &Finding| {
                Some([one.groups.get("chunk_x")?.parse().ok()?, one.groups.get("chunk_z")?.parse().ok()?])
            };
            let chunk = number("chunk_x").zip(number("chunk_z")).map(|(x, z)| [x, z]);
            let chunk = chunk.or_else(|| self.findings.iter().find_map(of));
            return chunk.map(|chunk| Place { chunk: Some(chunk), ..Place::default() });
        }
        let ticked = self.ticked.as_ref().filter(|_| cause == Cause::Ticking)?;
        Some(Place {
            dimension: ticked.dimension.clone(),
            block: ticked.block,
            chunk: ticked.block.map(|[x, _, z]| [x.div_euclid(16), z.div_euclid(16)]),
            what: ticked.what.clone(),
        })
    }

    pub(crate) fn values(
        &self,
        best: &Finding,
        culprits: &[Culprit],
        dependencies: &[Dependency],
        java: Option<Java>,
        trace: Option<&Trace>,
    ) -> Values {
        let mut values = Values::new();
        let facts = &self.evidence.facts;
        let group = |key: &str| best.groups.get(key).map(|text| redact::redact(text, 200));
        for key in [
            "option", "file", "files", "port", "seconds", "detail", "wanted", "pack", "other", "frame",
            "lib", "have",
        ] {
            if let Some(text) = group(key) {
                values.insert(key, text);
            }
        }
        let any = |key: &str| {
            self.findings
                .iter()
                .filter(|one| one.cause == best.cause)
                .find_map(|one| one.groups.get(key))
                .map(|text| redact::redact(text, 200))
        };
        for key in ["files", "port", "seconds", "pack", "frame", "lib"] {
            if let Some(text) = any(key) {
                values.entry(key).or_insert(text);
            }
        }
        for one in self.findings.iter().filter(|one| one.id == "hs-err-frame").take(1) {
            if let (Some(frame), Some(lib)) = (one.groups.get("frame"), one.groups.get("lib")) {
                values.insert("frame", frame.clone());
                values.insert("lib", lib.split('+').next().unwrap_or(lib).to_owned());
            }
        }
        // What the server told before what it was configured with: its own files may differ.
        if let Some(port) = self.log.port.or(facts.port) {
            values.entry("port").or_insert_with(|| port.to_string());
        }
        values.extend(self.facts());
        // Who holds the configured port says nothing of another.
        if values.get("port").map(String::as_str) != facts.port.map(|port| port.to_string()).as_deref() {
            values.remove("port_owner");
        }
        for (key, text) in [
            ("need", java.and_then(|java| java.need).map(|n| n.to_string())),
            ("have", java.and_then(|java| java.have).map(|n| n.to_string()).or_else(|| group("have"))),
        ] {
            if let Some(text) = text {
                values.insert(key, text);
            }
        }
        if let Some(first) = culprits.first() {
            let who = match (&first.name, &first.file) {
                (Some(name), Some(file)) => format!("{name} ({file})"),
                (Some(name), None) => name.clone(),
                (None, Some(file)) if first.id != *file => format!("{} ({file})", first.id),
                _ => first.id.clone(),
            };
            values.insert("who", who.clone());
            values.insert("culprit", who);
            values.insert("requested", first.name.clone().unwrap_or_else(|| first.id.clone()));
        }
        if let Some(first) = dependencies.first() {
            values.insert("dependency", first.id.clone());
            if let Some(by) = &first.requested_by {
                let known = culprits.iter().find(|one| one.id.eq_ignore_ascii_case(by));
                values.insert(
                    "requested",
                    known.and_then(|one| one.name.clone()).unwrap_or_else(|| by.clone()),
                );
            }
            for (key, text) in [("wanted", &first.wanted), ("installed", &first.installed)] {
                match text {
                    Some(text) => values.insert(key, text.clone()),
                    None => values.remove(key),
                };
            }
        }
        if let Some(root) = trace.and_then(Trace::root).filter(|root| !root.class.is_empty()) {
            let name = root.class.rsplit('.').next().unwrap_or(&root.class);
            let message = redact::redact(&root.message, 160);
            values.insert(
                "exception",
                if message.is_empty() { name.to_owned() } else { format!("{name}: {message}") },
            );
            if best.cause == Cause::LoopCrash
                && let Some(class) = culprit::missing_class(&root.message)
            {
                values.insert("detail", class);
            }
        }
        if let Some(ticked) = &self.ticked {
            if let Some(what) = &ticked.what {
                values.insert("what", what.clone());
            }
            if let Some([x, y, z]) = ticked.block {
                values.insert("place", format!("{x} {y} {z}"));
            }
        }
        if let Some(Place { chunk: Some([x, z]), .. }) = self.place(best.cause, best) {
            values.insert("chunk", format!("{x}, {z}"));
            values.insert("region", format!("r.{}.{}.mca", x.div_euclid(32), z.div_euclid(32)));
        }
        values
    }

    /// What is known beside the text.
    pub(crate) fn facts(&self) -> Values {
        let facts = &self.evidence.facts;
        let size = |bytes: u64| match bytes >> 20 {
            mib if mib >= 10 << 10 => format!("{} GiB", mib >> 10),
            mib => format!("{mib} MiB"),
        };
        let disk = self.evidence.disk;
        [
            ("heap", facts.heap_bytes.map(size)),
            ("limit", facts.memory_limit_bytes.map(size)),
            ("port_owner", facts.port_owner.clone()),
            ("world_owner", facts.world_owner.clone()),
            ("free", disk.map(|disk| size(disk.free_bytes))),
            ("total", disk.map(|disk| size(disk.total_bytes))),
        ]
        .into_iter()
        .filter_map(|(key, text)| Some((key, text?)))
        .collect()
    }

    pub(crate) fn remedy(
        &self,
        cause: Cause,
        values: &Values,
        java: Option<Java>,
        culprits: &[Culprit],
    ) -> Vec<RemedyStep> {
        let entry = self.words.entry(cause);
        let mut steps: Vec<RemedyStep> =
            entry.remedy(values).into_iter().map(|text| RemedyStep { text, action: None }).collect();
        let action = match entry.action.as_deref() {
            Some("reinstall_server") => Some(Action::ReinstallServer),
            Some("switch_java") => {
                java.and_then(|java| java.need).map(|version| Action::SwitchJava { version })
            }
            Some("accept_eula") => Some(Action::AcceptEula),
            Some("free_port") => {
                values.get("port").and_then(|port| port.parse().ok()).map(|port| Action::FreePort { port })
            }
            _ if cause == Cause::JarCorrupt && culprits.is_empty() => Some(Action::ReinstallServer),
            _ => None,
        };
        if let Some(first) = steps.first_mut() {
            first.action = action;
        }
        let removable = matches!(
            cause,
            Cause::ModLoad
                | Cause::Mixin
                | Cause::ClientOnly
                | Cause::ApiMismatch
                | Cause::WrongGameVersion
                | Cause::WrongLoader
                | Cause::JarCorrupt
                | Cause::LoopCrash
                | Cause::Ticking
                | Cause::AddonJava
        );
        if removable
            && let [one] = culprits
            && let Some(file) = one.file.as_ref().filter(|file| file.ends_with(".jar"))
        {
            steps.push(RemedyStep {
                text: format!("Or go on without it: {file} is renamed to {file}.disabled."),
                action: Some(Action::DisableAddon { file: file.clone() }),
            });
        }
        steps
    }

    /// The lines it was concluded from.
    pub(crate) fn lines(&self, best: &Finding, cause: Cause, trace: Option<&Trace>) -> Vec<EvidenceLine> {
        let mut indexes = vec![best.line];
        let family = family(best.cause);
        let related = |one: &&Finding| {
            one.severity >= best.severity
                && (one.cause == best.cause || one.cause == cause || family.contains(&one.cause))
        };
        indexes.extend(self.findings.iter().filter(related).map(|one| one.line));
        if let Some(trace) = trace {
            indexes.extend(trace.head);
            for exception in &trace.exceptions {
                indexes.push(exception.line);
            }
            if let Some(root) = trace.root() {
                indexes.extend(root.frames.iter().take(3).map(|frame| frame.line));
            }
        }
        if cause == Cause::Ticking
            && let Some(ticked) = &self.ticked
        {
            indexes.push(ticked.line);
        }
        let mut kept = Vec::new();
        for index in indexes {
            if !kept.contains(&index) && kept.len() < MAX_LINES {
                kept.push(index);
            }
        }
        kept.sort_unstable();
        kept.into_iter().map(|index| self.line(index)).collect()
    }

    pub(crate) fn line(&self, index: usize) -> EvidenceLine {
        let line = &self.log.lines[index];
        let source = match line.kind {
            Kind::Report => Source::Report,
            Kind::HsErr => Source::HsErr,
            _ => line.source,
        };
        EvidenceLine {
            source,
            file: Some(self.log.names[line.name].clone()),
            line: Some(line.number),
            text: redact::redact(line.text.trim_end(), MAX_EVIDENCE),
        }
    }

    /// What else was found, each cause once.
    pub(crate) fn contributing(&self, cause: Cause, best: &Finding) -> Vec<Contributing> {
        let mut found: Vec<Contributing> = Vec::new();
        for one in &self.findings {
            let other = if one.cause == Cause::Watchdog
                && matches!(cause, Cause::Ticking | Cause::LoopCrash | Cause::Heap)
                && one.line > best.line
            {
                Cause::WatchdogFollowUp
            } else {
                one.cause
            };
            let told = other != cause
                && other != best.cause
                && !(other == Cause::LoopCrash
                    || family(best.cause).contains(&other) && one.severity == Severity::Hint)
                && !found.iter().any(|known| known.cause == other);
            if told && found.len() < MAX_CONTRIBUTING {
                let mut values = Values::new();
                for (key, group) in [
                    ("who", "culprit"),
                    ("who", "name"),
                    ("file", "file"),
                    ("detail", "detail"),
                    ("dependency", "dep"),
                ] {
                    if let Some(text) = one.groups.get(group) {
                        values.insert(key, redact::redact(text, 120));
                    }
                }
                found.push(Contributing { cause: other, title: self.words.entry(other).title(&values) });
            }
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use crate::{Action, Evidence, Exit, Facts, Text, analyse};

    #[test]
    fn the_port_that_the_server_told_is_the_one_that_is_taken() {
        let told = |port: u16| {
            let log = format!(
                "[12:00:00] [Server thread/INFO]: Starting minecraft server version 1.21\n\
                 [12:00:01] [Server thread/INFO]: Starting Minecraft server on *:{port}\n\
                 [12:00:01] [Server thread/WARN]: **** FAILED TO BIND TO PORT!\n\
                 [12:00:01] [Server thread/WARN]: The exception was: java.net.BindException: Address already in use\n"
            );
            let facts =
                Facts { port: Some(25565), port_owner: Some("java (pid 7)".to_owned()), ..Facts::default() };
            let console = vec![Text { name: "console", bytes: log.as_bytes(), first_line: 1 }];
            let exit = Some(Exit { code: Some(1), ..Exit::default() });
            let found = analyse(&Evidence { exit, console, facts, ..Evidence::default() });
            let action = found.remedy.into_iter().find_map(|step| step.action);
            (found.title, found.explanation, action)
        };
        let (title, explanation, action) = told(25570);
        assert_eq!(title, "Port 25570 is in use");
        assert!(!explanation.contains("pid 7"), "who holds another port: {explanation}");
        assert_eq!(action, Some(Action::FreePort { port: 25570 }));
        let (title, explanation, _) = told(25565);
        assert_eq!(title, "Port 25565 is in use");
        assert!(explanation.contains("java (pid 7)"), "{explanation}");
    }
}
