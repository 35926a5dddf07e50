//! Causes in words: titles, explanations and remedies, as data in `signatures/causes.toml`.

use std::collections::HashMap;

use serde::Deserialize;

use crate::Cause;

/// A cause, as the file has it.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Entry {
    /// The lower decides.
    pub rank: u32,
    #[serde(default)]
    pub certain: bool,
    #[serde(default)]
    pub useless: bool,
    title: Vec<String>,
    explain: Vec<String>,
    remedy: Vec<Vec<String>>,
    /// What the agent can do itself.
    #[serde(default)]
    pub action: Option<String>,
}

/// All causes.
#[derive(Debug, Default)]
pub(crate) struct Words(HashMap<Cause, Entry>);

/// What the {words} of a form stand for.
pub(crate) type Values = HashMap<&'static str, String>;

impl Words {
    pub(crate) fn builtin() -> Self {
        Self(toml::from_str(include_str!("../signatures/causes.toml")).unwrap_or_default())
    }

    pub(crate) fn entry(&self, cause: Cause) -> Entry {
        self.0.get(&cause).cloned().unwrap_or(Entry { rank: 100, ..Entry::default() })
    }
}

impl Entry {
    pub(crate) fn title(&self, values: &Values) -> String {
        first(&self.title, values).unwrap_or_default()
    }

    pub(crate) fn explanation(&self, values: &Values) -> String {
        first(&self.explain, values).unwrap_or_default()
    }

    pub(crate) fn remedy(&self, values: &Values) -> Vec<String> {
        self.remedy.iter().filter_map(|forms| first(forms, values)).collect()
    }
}

/// The first form whose words are all known.
fn first(forms: &[String], values: &Values) -> Option<String> {
    forms.iter().find_map(|form| fill(form, values))
}

/// Values are put in once and never looked at again: a `{word}` inside one stays as it is.
fn fill(form: &str, values: &Values) -> Option<String> {
    let mut out = String::with_capacity(form.len() + 32);
    let mut rest = form;
    while let Some((before, after)) = rest.split_once('{') {
        let (word, behind) = after.split_once('}')?;
        out.push_str(before);
        out.push_str(values.get(word)?);
        rest = behind;
    }
    out.push_str(rest);
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_cause_has_words_without_any_value() {
        let words: HashMap<Cause, Entry> = toml::from_str(include_str!("../signatures/causes.toml")).unwrap();
        let none = Values::new();
        for (cause, entry) in &words {
            assert!(!entry.title(&none).is_empty(), "{cause:?}: title");
            assert!(entry.rank > 0, "{cause:?}");
        }
        for cause in ALL {
            assert!(words.contains_key(cause), "{cause:?} has no words");
        }
        assert_eq!(words.len(), ALL.len());
    }

    #[test]
    fn values_are_never_expanded() {
        let values = Values::from([("who", "{other}".to_owned())]);
        assert_eq!(fill("Update {who}", &values).as_deref(), Some("Update {other}"));
        assert_eq!(fill("Update {other}", &values), None);
    }

    const ALL: &[Cause] = {
        use Cause as C;
        &[
            C::ContainerMemory,
            C::Heap,
            C::Metaspace,
            C::DirectMemory,
            C::NativeThreads,
            C::NativeMemory,
            C::BadLaunchArgs,
            C::JarMissing,
            C::JarCorrupt,
            C::JavaTooOld,
            C::JavaTooNew,
            C::AddonJava,
            C::NativeCrash,
            C::StackOverflow,
            C::DownloadFailed,
            C::DiskFull,
            C::Eula,
            C::PortInUse,
            C::BadAddress,
            C::WorldLock,
            C::Permission,
            C::BadConfig,
            C::LevelDat,
            C::ChunkCorrupt,
            C::WorldNewer,
            C::WorldDuplicate,
            C::WorldMissingMod,
            C::FmlConfirm,
            C::Datapack,
            C::Ticking,
            C::Dependency,
            C::WrongGameVersion,
            C::WrongLoader,
            C::IncompatibleMods,
            C::Duplicate,
            C::ModLoad,
            C::Mixin,
            C::ClientOnly,
            C::ApiMismatch,
            C::IdsExhausted,
            C::LoopCrash,
            C::PluginProblem,
            C::PluginStoppedServer,
            C::Watchdog,
            C::Deadlock,
            C::WatchdogFollowUp,
            C::Killed,
            C::Terminated,
            C::CleanUnrequested,
            C::Silent,
        ]
    };
}
