//! One decision from all that was found, in the order of precedence: a stop that was asked
//! for, the kernel's counters, the JVM's own error log, then causes by rank; exit evidence
//! alone where the text says nothing.

use crate::culprit::{self, Names, Ticked};
use crate::finding::{self, Finding};
use crate::known::KnownAddons;
use crate::log::{Kind, Log};
use crate::platform;
use crate::rules::{Rules, Severity};
use crate::trace::{self, Trace};
use crate::words::{Values, Words};
use crate::{
    Action, Analysis, Cause, Class, Contributing, Culprit, Dependency, Evidence, EvidenceLine, Exit, Java,
    Place, RemedyStep, Source, fingerprint, redact,
};

/// Longest line of evidence, bytes.
const MAX_EVIDENCE: usize = 500;

/// Lines of evidence, culprits, dependencies, and other findings that are told.
const MAX_LINES: usize = 12;
const MAX_NAMES: usize = 32;
const MAX_CONTRIBUTING: usize = 8;

struct Case<'a> {
    evidence: &'a Evidence<'a>,
    log: Log,
    words: Words,
    traces: Vec<Trace>,
    findings: Vec<Finding>,
    known: KnownAddons,
    ticked: Option<Ticked>,
}

pub(crate) fn decide(evidence: &Evidence<'_>) -> Analysis {
    let log = Log::read(&evidence.console, &evidence.reports, evidence.hs_err.as_ref());
    let (rules, words) = (Rules::builtin(), Words::builtin());
    let matches = rules.matches(&log);
    let traces = trace::traces(&log);
    let findings = finding::findings(evidence.exit.as_ref(), &log, &rules, &matches, &traces, &words);
    let known = KnownAddons::read(&log);
    let ticked = culprit::ticked(&log);
    Case { evidence, log, words, traces, findings, known, ticked }.conclude()
}

impl Case<'_> {
    fn conclude(&self) -> Analysis {
        let exit = self.evidence.exit.as_ref();
        if exit.is_some_and(|exit| exit.requested) {
            return self.healthy("It was stopped as asked");
        }
        if exit.is_some_and(|exit| exit.oom_kills > 0 && killed(exit)) {
            return self.by_exit(Cause::ContainerMemory);
        }
        let fatal = self.best(Severity::Fatal);
        if let Some(best) = fatal {
            return self.by_text(best);
        }
        if let Some(disk) = &self.evidence.disk
            && exit.is_some_and(|exit| exit.code != Some(0))
            && (disk.free_bytes == 0 || disk.free_inodes == Some(0))
        {
            return self.by_exit(Cause::DiskFull);
        }
        match exit {
            Some(exit) => self.exit_alone(exit),
            None => match self.best(Severity::Degraded) {
                Some(best) => self.by_text(best),
                None => self.healthy("Nothing is wrong in it"),
            },
        }
    }

    fn exit_alone(&self, exit: &Exit) -> Analysis {
        if killed(exit) {
            return self.by_exit(Cause::Killed);
        }
        if exit.signal == Some(15) || exit.code == Some(143) {
            return self.by_exit(Cause::Terminated);
        }
        let clean = exit.code.is_none_or(|code| code == 0) && exit.signal.is_none();
        if clean && self.log.stopped_inside {
            return self.healthy("It was stopped from inside");
        }
        if clean && self.log.stopping.is_some() {
            return self.by_exit(Cause::CleanUnrequested);
        }
        match exit.signal {
            Some(6 | 7 | 11 | 4 | 8) => self.by_exit(Cause::NativeCrash),
            _ => self.by_exit(Cause::Silent),
        }
    }

    /// The finding that decides, of those with this severity.
    fn best(&self, severity: Severity) -> Option<&Finding> {
        let rank = |one: &Finding| self.words.entry(one.cause).rank + if one.generic { 30 } else { 0 };
        let of = |one: &&Finding| one.severity == severity;
        let best = self.findings.iter().filter(of).min_by_key(|one| (rank(one), one.line))?;
        // A crash hangs the rest of the server, and its watchdog reports that.
        if matches!(best.cause, Cause::Watchdog | Cause::Deadlock) {
            let before = self.findings.iter().filter(of).find(|one| {
                matches!(one.cause, Cause::Ticking | Cause::LoopCrash)
                    && one.line < best.line
                    && !self.is_watchdogs(one)
            });
            return before.or(Some(best));
        }
        Some(best)
    }

    /// Whether a finding only tells of the watchdog.
    fn is_watchdogs(&self, one: &Finding) -> bool {
        one.id == "report-saved"
            || self
                .findings
                .iter()
                .any(|other| matches!(other.cause, Cause::Watchdog) && other.line.abs_diff(one.line) <= 3)
    }

    fn by_text(&self, best: &Finding) -> Analysis {
        let names = Names { known: &self.known, index: self.evidence.addons };
        let exit = self.evidence.exit.as_ref();
        let mut cause = best.cause;
        let (mut culprits, mut sure) = self.culprits(best, &names);
        let trace = self.fatal_trace(best);
        if matches!(cause, Cause::LoopCrash | Cause::ModLoad | Cause::ApiMismatch)
            && let Some(root) = trace.and_then(Trace::root)
        {
            cause = self.finer(cause, &root.class, &root.message, !culprits.is_empty());
        }
        let nobody = culprits.is_empty()
            && trace.is_some_and(|trace| names.of_trace(trace).or_else(|| names.of_victim(trace)).is_none());
        let missing =
            trace.filter(|_| cause == Cause::ApiMismatch && nobody).and_then(|trace| names.missing(trace));
        let mut dependencies = self.dependencies(best, cause, &names);
        if let Some(missing) = missing {
            // Loaders load a class by name, and it could not be linked: what it needs is not there.
            cause = Cause::Dependency;
            sure = false;
            dependencies = vec![missing];
        }
        if culprits.is_empty()
            && let Some(trace) = trace
            && BLAME_BY_TRACE.contains(&cause)
            && let Some((one, certain)) = names.of_trace(trace).or_else(|| names.of_victim(trace))
        {
            sure &= certain;
            culprits.push(one);
        }
        culprits.retain(|one| !platform::is_platform_id(&one.id) || PLATFORM_CULPRITS.contains(&cause));
        culprits.truncate(MAX_NAMES);
        let foreign = !culprits.is_empty() || self.foreign_ticked();
        let blamed = matches!(
            cause,
            Cause::LoopCrash | Cause::Ticking | Cause::Watchdog | Cause::Deadlock | Cause::StackOverflow
        );
        let classification =
            if best.addon || (blamed && foreign) { Class::ModOrPluginError } else { cause.class(exit) };
        let java = self.java(best, cause);
        let values = self.values(best, &culprits, &dependencies, java, trace);
        let entry = self.words.entry(cause);
        let certain = best.certain
            && best.severity == Severity::Fatal
            && !(CERTAIN_BY_NAME.contains(&cause) && (!sure || culprits.is_empty()));
        let mut analysis = Analysis {
            healthy: false,
            classification: Some(classification),
            cause: Some(cause),
            certain,
            restart_useless: best.severity == Severity::Fatal
                && (best.useless || entry.useless)
                && !matches!(cause, Cause::LoopCrash),
            title: entry.title(&values),
            explanation: entry.explanation(&values),
            remedy: self.remedy(cause, &values, java, &culprits),
            culprit: culprits,
            dependency: dependencies,
            java,
            place: self.place(cause, best),
            evidence: self.lines(best, cause, trace),
            contributing: self.contributing(cause, best),
            fingerprint: String::new(),
        };
        analysis.fingerprint = fingerprint::of(&analysis, trace);
        analysis
    }

    /// A crash in the loop whose exception says more.
    fn finer(&self, cause: Cause, class: &str, message: &str, named: bool) -> Cause {
        let linkage = [
            "NoSuchMethodError",
            "NoSuchFieldError",
            "NoClassDefFoundError",
            "AbstractMethodError",
            "IncompatibleClassChangeError",
            "ClassNotFoundException",
        ];
        let client = |text: &str| {
            text.contains("net/minecraft/client/")
                || text.contains("net.minecraft.client.")
                || text.contains("org/lwjgl/")
                || text.contains("for invalid dist DEDICATED_SERVER")
                || text.contains("for invalid side SERVER")
        };
        if client(message) {
            return Cause::ClientOnly;
        }
        if linkage.iter().any(|end| class.ends_with(end)) && cause == Cause::LoopCrash && !named {
            return Cause::ApiMismatch;
        }
        cause
    }

    /// The trace that the decision is about: of a fatal head, else the one it stands in.
    fn fatal_trace(&self, best: &Finding) -> Option<&Trace> {
        let holds = |trace: &&Trace| {
            trace.head == Some(best.line) || trace.exceptions.iter().any(|e| e.line == best.line)
        };
        let own = self.traces.iter().find(holds);
        if own.is_some() {
            return own;
        }
        self.traces
            .iter()
            .filter(|trace| finding::is_fatal(&self.log, trace))
            .find(|trace| trace.first_line() >= best.line)
            .or_else(|| self.traces.iter().rfind(|trace| finding::is_fatal(&self.log, trace)))
    }

    /// Who the loader's lines name, and what else points at somebody; whether it is sure.
    fn culprits(&self, best: &Finding, names: &Names<'_>) -> (Vec<Culprit>, bool) {
        let mut found: Vec<Culprit> = Vec::new();
        let mut sure = true;
        let family = family(best.cause);
        for one in &self.findings {
            let related = one.cause == best.cause || family.contains(&one.cause);
            if !related
                || (one.severity < best.severity
                    && !(one.severity == Severity::Hint && family.contains(&one.cause)))
            {
                continue;
            }
            for key in ["requested", "culprit", "id"] {
                if let Some(id) = one.groups.get(key) {
                    let mut culprit = names.by_id(id, "the loader names it");
                    culprit.name = culprit.name.or_else(|| one.groups.get("name").cloned());
                    culprit.version = culprit.version.or_else(|| one.groups.get("version").cloned());
                    if culprit.file.is_none() {
                        culprit.file = one.groups.get("file").filter(|file| file.ends_with(".jar")).cloned();
                    }
                    add(&mut found, culprit);
                    break;
                }
            }
            if !["requested", "culprit", "id"].iter().any(|key| one.groups.contains_key(*key))
                && (one.addon || ADDON_FILES.contains(&one.cause))
            {
                let file = one.groups.get("file").cloned().or_else(|| self.announced_file(one.line));
                if let Some(file) = file {
                    add(&mut found, names.by_file(&file, "the loader names its file"));
                }
            }
            if let Some(other) = one.groups.get("other").filter(|_| best.cause == Cause::IncompatibleMods) {
                add(&mut found, names.by_id(other, "the loader names it"));
            }
        }
        if best.cause == Cause::Dependency
            && found.is_empty()
            && let Some(file) = self.announced_file(best.line)
        {
            add(&mut found, names.by_file(&file, "the loader names its file"));
        }
        if found.is_empty() && BLAME_BY_TRACE.contains(&best.cause) {
            let (named, certain) = self.by_trace(best, names);
            sure = certain;
            found = named;
        }
        (found, sure)
    }

    /// Frame annotations, the report's suspects, the id of what ticked, packages.
    fn by_trace(&self, best: &Finding, names: &Names<'_>) -> (Vec<Culprit>, bool) {
        let own = self.fatal_trace(best).and_then(|trace| names.of_trace(trace));
        if let Some((one, true)) = &own
            && best.cause != Cause::Ticking
        {
            return (vec![one.clone()], true);
        }
        let suspected = self.log.lines.iter().filter(|line| line.kind == Kind::Report).find_map(|line| {
            let text = line.message().trim();
            let list =
                text.strip_prefix("Suspected Mods: ").or_else(|| text.strip_prefix("Suspected Mod: "))?;
            Some(culprit::suspects(names, list)).filter(|found| !found.is_empty())
        });
        if let Some(found) = suspected {
            let sure = found.len() == 1;
            return (found, sure);
        }
        if best.cause == Cause::Ticking
            && let Some(ticked) = &self.ticked
        {
            if let Some((space, _)) = ticked.what.as_deref().and_then(|what| what.split_once(':'))
                && !platform::is_platform_id(space)
                && space.chars().all(|c| c.is_ascii_alphanumeric() || "_-.".contains(c))
            {
                let ticked = names.by_id(space, "what ticked is its");
                return match own {
                    // The trace ends in somebody else's code: both are worth a look.
                    Some((one, _)) if !one.id.eq_ignore_ascii_case(&ticked.id) => (vec![ticked, one], false),
                    _ => (vec![ticked], true),
                };
            }
            if own.is_none()
                && let Some(class) = ticked.class.as_deref().filter(|class| !platform::is_platform(class))
            {
                let frame = trace::Exception {
                    frames: vec![trace::Frame { class: class.to_owned(), ..trace::Frame::default() }],
                    ..trace::Exception::default()
                };
                if let Some((one, _)) = names.of_exception(&frame) {
                    return (vec![one], false);
                }
            }
        }
        match own {
            Some((one, certain)) => (vec![one], certain),
            None => (Vec::new(), true),
        }
    }

    fn foreign_ticked(&self) -> bool {
        self.ticked.as_ref().is_some_and(|ticked| {
            ticked
                .what
                .as_deref()
                .and_then(|what| what.split_once(':'))
                .is_some_and(|(space, _)| !platform::is_platform_id(space))
                || ticked.class.as_deref().is_some_and(|class| !platform::is_platform(class))
        })
    }

    /// `Could not load 'plugins/x.jar'` above a line.
    fn announced_file(&self, line: usize) -> Option<String> {
        self.findings
            .iter()
            .rfind(|one| one.id == "plugin-file" && one.line <= line && line - one.line <= 12)?
            .groups
            .get("file")
            .cloned()
    }

    fn dependencies(&self, best: &Finding, cause: Cause, names: &Names<'_>) -> Vec<Dependency> {
        let mut found: Vec<Dependency> = Vec::new();
        let versions = [Cause::Dependency, Cause::WrongGameVersion];
        if cause == Cause::PluginStoppedServer {
            return self.missing_anyway();
        }
        if !versions.contains(&cause)
            && !matches!(cause, Cause::Datapack | Cause::WorldMissingMod | Cause::ApiMismatch)
        {
            return found;
        }
        for one in &self.findings {
            let hint = one.id == "datapack-missing" && cause == Cause::Datapack;
            if !(hint
                || one.severity >= best.severity
                    && (one.cause == cause || (cause == Cause::Dependency && versions.contains(&one.cause))))
            {
                continue;
            }
            let requested = one.groups.get("requested").or_else(|| one.groups.get("culprit")).cloned();
            let listed = one.groups.get("deps").map(|deps| finding::dependencies(deps));
            let single =
                one.groups.get("dep").map(|dep| vec![(dep.clone(), one.groups.get("wanted").cloned())]);
            for (id, wanted) in listed.or(single).unwrap_or_default() {
                let id = today(id.trim_matches(['\'', '"', '[', ']', ' '])).to_owned();
                if found.len() < MAX_NAMES
                    && !found.iter().any(|known| known.id == id && known.requested_by == requested)
                {
                    let installed = one
                        .groups
                        .get("installed")
                        .filter(|text| !text.contains("MISSING") && !text.contains("not installed"))
                        .cloned();
                    found.push(Dependency { id, wanted, installed, requested_by: requested.clone() });
                }
            }
        }
        for one in self.findings.iter().filter(|one| one.id == "forge-currently") {
            let Some(installed) = one.groups.get("installed").filter(|text| !text.contains("not installed"))
            else {
                continue;
            };
            for known in found.iter_mut().filter(|known| Some(&known.id) == one.groups.get("dep")) {
                known.installed.get_or_insert_with(|| installed.trim_end_matches([',', '.']).to_owned());
            }
        }
        if cause == Cause::ApiMismatch
            && let Some(root) = self.fatal_trace(best).and_then(Trace::root)
            && names.owner_of_missing(&root.message).is_none_or(|owner| owner.file.is_none())
            && root.class.ends_with("NoClassDefFoundError")
            && let Some(class) =
                culprit::missing_class(&root.message).filter(|class| !platform::is_platform(class))
        {
            if let Some(owner) = names.owner_of_missing(&root.message) {
                found.push(Dependency { id: owner.id, ..Dependency::default() });
            } else {
                found.push(Dependency { id: class, ..Dependency::default() });
            }
        }
        found
    }

    /// Dependencies that are missing, whatever ended the server.
    fn missing_anyway(&self) -> Vec<Dependency> {
        let of =
            |one: &Finding| Some(Dependency { id: one.groups.get("dep")?.clone(), ..Dependency::default() });
        let named = |one: &&Finding| one.cause == Cause::Dependency && one.severity >= Severity::Degraded;
        let mut found: Vec<Dependency> = self.findings.iter().filter(named).filter_map(of).collect();
        found.dedup();
        found.truncate(MAX_NAMES);
        found
    }

    fn java(&self, best: &Finding, cause: Cause) -> Option<Java> {
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

    fn place(&self, cause: Cause, best: &Finding) -> Option<Place> {
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

    fn values(
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
        if let Some(port) = facts.port {
            values.entry("port").or_insert_with(|| port.to_string());
        }
        let size = |bytes: u64| match bytes >> 20 {
            mib if mib >= 10 << 10 => format!("{} GiB", mib >> 10),
            mib => format!("{mib} MiB"),
        };
        for (key, text) in [
            ("heap", facts.heap_bytes.map(size)),
            ("limit", facts.memory_limit_bytes.map(size)),
            ("port_owner", facts.port_owner.clone()),
            ("world_owner", facts.world_owner.clone()),
            ("free", self.evidence.disk.map(|disk| size(disk.free_bytes))),
            ("total", self.evidence.disk.map(|disk| size(disk.total_bytes))),
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

    fn remedy(
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
    fn lines(&self, best: &Finding, cause: Cause, trace: Option<&Trace>) -> Vec<EvidenceLine> {
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

    fn line(&self, index: usize) -> EvidenceLine {
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
    fn contributing(&self, cause: Cause, best: &Finding) -> Vec<Contributing> {
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

    fn by_exit(&self, cause: Cause) -> Analysis {
        let exit = self.evidence.exit.as_ref();
        let entry = self.words.entry(cause);
        let mut values = Values::new();
        let facts = &self.evidence.facts;
        let size = |bytes: u64| format!("{} MiB", bytes >> 20);
        for (key, text) in [
            ("heap", facts.heap_bytes.map(size)),
            ("limit", facts.memory_limit_bytes.map(size)),
            ("free", self.evidence.disk.map(|disk| size(disk.free_bytes))),
            ("total", self.evidence.disk.map(|disk| size(disk.total_bytes))),
        ] {
            if let Some(text) = text {
                values.insert(key, text);
            }
        }
        let counted = |source, text: String| EvidenceLine { source, file: None, line: None, text };
        let mut evidence = Vec::new();
        if let Some(exit) = exit {
            if cause == Cause::ContainerMemory {
                evidence.push(counted(Source::Cgroup, format!("oom_kill rose by {}", exit.oom_kills)));
            }
            let text = match (exit.code, exit.signal) {
                (_, Some(signal)) => format!("ended by signal {signal}"),
                (Some(code), _) => format!("exit code {code}"),
                _ => "how it ended is not known".to_owned(),
            };
            evidence.push(counted(Source::Exit, text));
        }
        if cause == Cause::DiskFull
            && let Some(disk) = &self.evidence.disk
        {
            evidence.push(counted(
                Source::Disk,
                format!("{} bytes free, inodes free: {:?}", disk.free_bytes, disk.free_inodes),
            ));
        }
        // The last thing that was wrong is possible, and no more.
        if cause == Cause::Silent
            && let Some(index) = self.log.lines.iter().rposition(|line| line.kind == Kind::Error)
        {
            evidence.push(self.line(index));
        }
        let nothing = Finding {
            id: String::new(),
            cause,
            severity: Severity::Fatal,
            generic: false,
            certain: false,
            useless: false,
            addon: false,
            line: 0,
            groups: std::collections::HashMap::new(),
        };
        let mut analysis = Analysis {
            healthy: false,
            classification: Some(cause.class(exit)),
            cause: Some(cause),
            certain: entry.certain,
            restart_useless: entry.useless,
            title: entry.title(&values),
            explanation: entry.explanation(&values),
            remedy: self.remedy(cause, &values, None, &[]),
            evidence,
            contributing: self.contributing(cause, &nothing),
            ..Analysis::default()
        };
        analysis.fingerprint = fingerprint::of(&analysis, None);
        analysis
    }

    fn healthy(&self, title: &str) -> Analysis {
        Analysis { healthy: true, title: title.to_owned(), ..Analysis::default() }
    }
}

fn add(found: &mut Vec<Culprit>, culprit: Culprit) {
    if !found.iter().any(|known| known.id.eq_ignore_ascii_case(&culprit.id)) && found.len() < MAX_NAMES {
        found.push(culprit);
    }
}

fn killed(exit: &Exit) -> bool {
    exit.signal == Some(9) || exit.code == Some(137)
}

/// Fabric API had another id once.
fn today(id: &str) -> &str {
    if id == "fabric" { "fabric-api" } else { id }
}

/// Causes that name the same fault from different sides.
fn family(cause: Cause) -> &'static [Cause] {
    const LOADING: &[Cause] = &[Cause::ModLoad, Cause::Mixin, Cause::ClientOnly, Cause::ApiMismatch];
    const VERSIONS: &[Cause] = &[Cause::Dependency, Cause::WrongGameVersion];
    match cause {
        Cause::ModLoad | Cause::Mixin | Cause::ClientOnly | Cause::ApiMismatch => LOADING,
        Cause::Dependency => VERSIONS,
        _ => &[],
    }
}

/// A trace can name who is at fault.
const BLAME_BY_TRACE: [Cause; 11] = [
    Cause::LoopCrash,
    Cause::Ticking,
    Cause::Watchdog,
    Cause::Deadlock,
    Cause::ModLoad,
    Cause::Mixin,
    Cause::ClientOnly,
    Cause::ApiMismatch,
    Cause::StackOverflow,
    Cause::IdsExhausted,
    Cause::AddonJava,
];

/// Causes whose subject is a file of a mod or plugin.
const ADDON_FILES: [Cause; 5] =
    [Cause::WrongGameVersion, Cause::WrongLoader, Cause::Dependency, Cause::AddonJava, Cause::PluginProblem];

/// Fabric API and the like can be what is missing or wrong.
const PLATFORM_CULPRITS: [Cause; 5] = [
    Cause::Dependency,
    Cause::WrongGameVersion,
    Cause::Duplicate,
    Cause::IncompatibleMods,
    Cause::JarCorrupt,
];

/// Certain only with a name that stands out.
const CERTAIN_BY_NAME: [Cause; 4] = [Cause::ModLoad, Cause::Mixin, Cause::ClientOnly, Cause::ApiMismatch];
