//! Whose fault it is, and what is missing: the loader's lines first, then what else points at
//! somebody.

use crate::culprit::{self, Names};
use crate::decide::{BLAME_BY_TRACE, Case, family};
use crate::finding::{self, Finding};
use crate::log::Kind;
use crate::platform;
use crate::rules::Severity;
use crate::trace::{self, Trace};
use crate::{Cause, Culprit, Dependency};

/// Names that are told.
pub(crate) const MAX_NAMES: usize = 32;

impl Case<'_> {
    /// Who the loader's lines name, and what else points at somebody; whether it is sure.
    pub(crate) fn culprits(&self, best: &Finding, names: &Names<'_>) -> (Vec<Culprit>, bool) {
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

    pub(crate) fn foreign_ticked(&self) -> bool {
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

    pub(crate) fn dependencies(&self, best: &Finding, cause: Cause, names: &Names<'_>) -> Vec<Dependency> {
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
}

fn add(found: &mut Vec<Culprit>, culprit: Culprit) {
    if !found.iter().any(|known| known.id.eq_ignore_ascii_case(&culprit.id)) && found.len() < MAX_NAMES {
        found.push(culprit);
    }
}

/// Fabric API had another id once.
fn today(id: &str) -> &str {
    if id == "fabric" { "fabric-api" } else { id }
}

/// Causes whose subject is a file of a mod or plugin.
const ADDON_FILES: [Cause; 5] =
    [Cause::WrongGameVersion, Cause::WrongLoader, Cause::Dependency, Cause::AddonJava, Cause::PluginProblem];
