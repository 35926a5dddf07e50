//! One decision from all that was found (`blame` says who, `tell` in which words), in the
//! order of precedence: a stop that was asked
//! for, the kernel's counters, the JVM's own error log, then causes by rank; exit evidence
//! alone where the text says nothing.

use crate::blame::MAX_NAMES;
use crate::culprit::{self, Names, Ticked};
use crate::finding::{self, Finding};
use crate::known::KnownAddons;
use crate::log::{Kind, Log};
use crate::platform;
use crate::rules::{Rules, Severity};
use crate::trace::{self, Trace};
use crate::words::Words;
use crate::{Analysis, Cause, Class, Evidence, EvidenceLine, Exit, Source, fingerprint};

/// What is known of an end, sorted.
pub(crate) struct Case<'a> {
    pub(crate) evidence: &'a Evidence<'a>,
    pub(crate) log: Log,
    pub(crate) words: Words,
    pub(crate) traces: Vec<Trace>,
    pub(crate) findings: Vec<Finding>,
    pub(crate) known: KnownAddons,
    pub(crate) ticked: Option<Ticked>,
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
                None => self.healthy("Nothing in it tells of a crash"),
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
    pub(crate) fn fatal_trace(&self, best: &Finding) -> Option<&Trace> {
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

    fn by_exit(&self, cause: Cause) -> Analysis {
        let exit = self.evidence.exit.as_ref();
        let entry = self.words.entry(cause);
        let values = self.facts();
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

fn killed(exit: &Exit) -> bool {
    exit.signal == Some(9) || exit.code == Some(137)
}

/// Causes that name the same fault from different sides.
pub(crate) fn family(cause: Cause) -> &'static [Cause] {
    const LOADING: &[Cause] = &[Cause::ModLoad, Cause::Mixin, Cause::ClientOnly, Cause::ApiMismatch];
    const VERSIONS: &[Cause] = &[Cause::Dependency, Cause::WrongGameVersion];
    match cause {
        Cause::ModLoad | Cause::Mixin | Cause::ClientOnly | Cause::ApiMismatch => LOADING,
        Cause::Dependency => VERSIONS,
        _ => &[],
    }
}

/// A trace can name who is at fault.
pub(crate) const BLAME_BY_TRACE: [Cause; 11] = [
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
