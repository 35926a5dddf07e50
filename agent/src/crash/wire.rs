//! From an analysis to the wire.

use zlh_api::{
    CrashAction, CrashActionId, CrashChange, CrashContributing, CrashCulprit, CrashDependency, CrashEvidence,
    CrashJava, CrashPlace, CrashRecord, CrashRemedy,
};
use zlh_crash::changes::{Change, ChangeKind, Changes};
use zlh_crash::{Action, Analysis, Cause, Class, Source};

/// Fills in what was found; the facts of the exit stay as they are.
///
/// `java`: whether the server runs with a Java that the agent installed.
pub(super) fn fill(record: &mut CrashRecord, analysis: Analysis, changes: Option<Changes>, java: bool) {
    record.explained = true;
    if let Some(class) = analysis.classification {
        record.classification = class_word(class).to_owned();
    }
    record.cause = analysis.cause.map(cause_word);
    record.certain = analysis.certain;
    record.restart_useless = analysis.restart_useless;
    record.title = analysis.title;
    record.explanation = analysis.explanation;
    record.remedy = analysis
        .remedy
        .into_iter()
        .map(|step| CrashRemedy { text: step.text, action: step.action.map(|one| action(one, java)) })
        .collect();
    record.culprit = analysis
        .culprit
        .into_iter()
        .map(|one| CrashCulprit {
            id: one.id,
            name: one.name,
            file: one.file,
            version: one.version,
            why: one.why,
        })
        .collect();
    record.dependency = analysis
        .dependency
        .into_iter()
        .map(|one| CrashDependency {
            id: one.id,
            wanted: one.wanted,
            installed: one.installed,
            requested_by: one.requested_by,
        })
        .collect();
    record.java = analysis.java.map(|java| CrashJava { need: java.need, have: java.have });
    record.place = analysis.place.map(|place| CrashPlace {
        dimension: place.dimension,
        block: place.block.map(Vec::from),
        chunk: place.chunk.map(Vec::from),
        what: place.what,
    });
    record.evidence = analysis
        .evidence
        .into_iter()
        .map(|one| CrashEvidence {
            source: source_word(one.source).to_owned(),
            file: one.file,
            line: one.line,
            text: one.text,
        })
        .collect();
    record.contributing = analysis
        .contributing
        .into_iter()
        .map(|one| CrashContributing { cause: cause_word(one.cause), title: one.title })
        .collect();
    record.fingerprint = analysis.fingerprint;
    record.changed_since_last_good =
        changes.map(|changes| changes.changes.into_iter().map(change).collect()).unwrap_or_default();
}

/// The text form of a cause.
pub(super) fn cause_word(cause: Cause) -> String {
    serde_json::to_value(cause).ok().and_then(|value| value.as_str().map(str::to_owned)).unwrap_or_default()
}

fn class_word(class: Class) -> &'static str {
    match class {
        Class::Oom => "oom",
        Class::ModOrPluginError => "mod_or_plugin_error",
        Class::MissingDependency => "missing_dependency",
        Class::NonzeroExit => "nonzero_exit",
        Class::UnexpectedExit => "unexpected_exit",
    }
}

fn source_word(source: Source) -> &'static str {
    match source {
        Source::Console => "console",
        Source::Report => "report",
        Source::HsErr => "hs_err",
        Source::Cgroup => "cgroup",
        Source::Exit => "exit",
        Source::Disk => "disk",
    }
}

fn action(action: Action, java: bool) -> CrashAction {
    let plain = |id, available| CrashAction { id, available, version: None, file: None, port: None };
    match action {
        Action::ReinstallServer => plain(CrashActionId::ReinstallServer, true),
        Action::SwitchJava { version } => {
            CrashAction { version: Some(version), ..plain(CrashActionId::SwitchJava, java) }
        }
        Action::AcceptEula => plain(CrashActionId::AcceptEula, true),
        Action::DisableAddon { file } => {
            CrashAction { file: Some(file), ..plain(CrashActionId::DisableAddon, true) }
        }
        // There are no backups yet to take it from.
        Action::RestoreRegion { file } => {
            CrashAction { file: Some(file), ..plain(CrashActionId::RestoreRegion, false) }
        }
        Action::FreePort { port } => CrashAction { port: Some(port), ..plain(CrashActionId::FreePort, true) },
    }
}

fn change(one: Change) -> CrashChange {
    let kind = match one.kind {
        ChangeKind::Added => "added",
        ChangeKind::Updated => "updated",
        ChangeKind::Removed => "removed",
    };
    let when = one.when_ms.and_then(|ms| jiff::Timestamp::from_millisecond(i64::try_from(ms).ok()?).ok());
    CrashChange {
        path: one.path,
        kind: kind.to_owned(),
        when: when.map(crate::clock::rfc3339),
        name: one.name,
        before: one.before,
        after: one.after,
    }
}
