//! Finding things in a catalog, with errors that say what would have been right.

use std::borrow::Cow;

use thiserror::Error;

use crate::name::Shown;
use crate::{
    AgentRelease, Audience, Catalog, GameVersion, Id, LaunchPlan, Requirement, Runtime, RuntimeVersion,
    builtin, compare_versions,
};

/// What a catalog does not have.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum LookupError {
    /// No such game, variant, runtime or version.
    #[error("unknown {what} {}{of}: {hint}", Shown(.name))]
    Unknown {
        /// `game`, `variant`, `runtime` or `version`.
        what: &'static str,
        /// What was asked for.
        name: String,
        /// Where it was looked for, for example ` of minecraft paper`; may be empty.
        of: String,
        /// The nearest and the valid ones.
        hint: String,
    },
    /// `latest` is not a version: two containers would run different things.
    #[error("version `latest`{of} is not accepted: name a version, the newest is {}", Shown(.newest))]
    Latest {
        /// Where it was looked for.
        of: String,
        /// The newest version there is.
        newest: String,
    },
    /// The entry brings no launch plan and none is built in.
    #[error("{variant} {version} has no launch plan and none is built in: add `launch` to its catalog entry")]
    NoPlan {
        /// Variant id.
        variant: Id,
        /// Version of the entry.
        version: String,
    },
}

impl Catalog {
    /// The entry of one version of a variant of a game.
    pub fn game_version(
        &self,
        game: &str,
        variant: &str,
        version: &str,
    ) -> Result<&GameVersion, LookupError> {
        let found = find("game", game, String::new(), &self.games, |game| game.id.as_str())?;
        let of = format!(" of {}", found.id);
        let found = find("variant", variant, of, &found.variants, |variant| variant.id.as_str())?;
        find_version(version, format!(" of {game} {}", found.id), &found.versions, |entry| &entry.version)
    }

    /// One version of a runtime.
    pub fn runtime_version(&self, runtime: &str, version: &str) -> Result<&RuntimeVersion, LookupError> {
        let found = find("runtime", runtime, String::new(), &self.runtimes, |runtime| runtime.id.as_str())?;
        find_version(version, format!(" of {}", found.id), &found.versions, |entry| &entry.version)
    }

    /// One version of an addon.
    pub fn addon_version(&self, addon: &str, version: &str) -> Result<&RuntimeVersion, LookupError> {
        let found = find("addon", addon, String::new(), &self.addons, |addon| addon.id.as_str())?;
        find_version(version, format!(" of {}", found.id), &found.versions, |entry| &entry.version)
    }

    /// One release of the agent.
    pub fn agent_release(&self, version: &str) -> Result<&AgentRelease, LookupError> {
        find_version(version, " of the agent".to_owned(), &self.agents, |release| &release.version)
    }

    /// The newest release of the agent that is offered to an audience.
    pub fn newest_agent(&self, audience: &Audience) -> Option<&AgentRelease> {
        let offered = self.agents.iter().filter(|agent| agent.release.is_offered_to(audience));
        offered.max_by(|a, b| compare_versions(&a.version, &b.version))
    }

    /// The version of a runtime that satisfies a requirement: the newest that is offered to
    /// the audience and not deprecated; else the newest that is deprecated or of another
    /// channel, because a server that was put into the catalog has to run. Never one that
    /// was withdrawn.
    pub fn runtime_for(
        &self,
        requirement: &Requirement,
        audience: &Audience,
    ) -> Option<(&Runtime, &RuntimeVersion)> {
        let runtime = self.runtimes.iter().find(|runtime| runtime.id == requirement.runtime)?;
        let version = runtime
            .versions
            .iter()
            .filter(|version| requirement.version.matches(&version.version))
            .filter(|version| version.release.withdrawn.is_none())
            .max_by(|a, b| {
                let rank = |version: &RuntimeVersion| {
                    let release = &version.release;
                    (release.is_offered_to(audience), release.deprecated.is_none())
                };
                rank(a).cmp(&rank(b)).then_with(|| compare_versions(&a.version, &b.version))
            })?;
        Some((runtime, version))
    }

    /// The entry's own plan, or the one that is built in for its variant, with what the
    /// entry changes in it.
    pub fn plan_for<'a>(
        &self,
        variant: &Id,
        entry: &'a GameVersion,
    ) -> Result<Cow<'a, LaunchPlan>, LookupError> {
        let plan = entry.launch.as_ref().or_else(|| builtin::plan(variant.as_str()));
        let plan = plan.ok_or_else(|| LookupError::NoPlan {
            variant: variant.clone(),
            version: entry.version.clone(),
        })?;
        Ok(match &entry.stop {
            None => Cow::Borrowed(plan),
            Some(changes) => Cow::Owned(LaunchPlan { stop: plan.stop.clone().with(changes), ..plan.clone() }),
        })
    }

    /// The runtime the entry asks for; for a built-in plan without one, Java as the
    /// Minecraft version needs it. `None` when the entry runs on nothing.
    pub fn requirement_for<'a>(&self, variant: &Id, entry: &'a GameVersion) -> Option<Cow<'a, Requirement>> {
        match (&entry.requires, &entry.launch) {
            (Some(requirement), _) => Some(Cow::Borrowed(requirement)),
            (None, None) => builtin::requirement(variant.as_str(), &entry.version).map(Cow::Owned),
            (None, Some(_)) => None,
        }
    }
}

fn find<'a, T>(
    what: &'static str,
    name: &str,
    of: String,
    all: &'a [T],
    id: impl Fn(&T) -> &str,
) -> Result<&'a T, LookupError> {
    all.iter().find(|item| id(item) == name).ok_or_else(|| LookupError::Unknown {
        what,
        name: name.to_owned(),
        of,
        hint: hint(name, all.iter().map(&id).collect()),
    })
}

fn find_version<'a, T>(
    name: &str,
    of: String,
    all: &'a [T],
    version: impl Fn(&T) -> &str,
) -> Result<&'a T, LookupError> {
    if let Some(found) = all.iter().find(|item| version(item) == name) {
        return Ok(found);
    }
    let mut versions: Vec<&str> = all.iter().map(&version).collect();
    versions.sort_by(|a, b| compare_versions(b, a));
    match versions.first() {
        Some(newest) if name == "latest" => Err(LookupError::Latest { of, newest: (*newest).to_owned() }),
        _ => Err(LookupError::Unknown {
            what: "version",
            name: name.to_owned(),
            of,
            hint: hint(name, versions),
        }),
    }
}

/// "did you mean `purpur`? available: …", from names in the order they are to be listed.
fn hint(name: &str, all: Vec<&str>) -> String {
    if all.is_empty() {
        return "the catalog has none".to_owned();
    }
    let nearest = all
        .iter()
        .map(|candidate| (distance(name, candidate), *candidate))
        .min_by_key(|(distance, _)| *distance)
        .filter(|(distance, candidate)| *distance <= 1 + candidate.chars().count() / 4);
    let listed = all.iter().take(MAX_LISTED).copied().collect::<Vec<_>>().join(", ");
    let more = match all.len().saturating_sub(MAX_LISTED) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    match nearest {
        Some((_, nearest)) => format!("did you mean `{nearest}`? available: {listed}{more}"),
        None => format!("available: {listed}{more}"),
    }
}

/// Edits (insert, delete, replace) between two short names; long input is cut.
pub(crate) fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().take(MAX_COMPARED_CHARS).collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().take(MAX_COMPARED_CHARS).enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let replaced = diagonal + usize::from(x != *y);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

const MAX_LISTED: usize = 12;
const MAX_COMPARED_CHARS: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures;

    #[test]
    fn what_is_there_is_found() {
        let catalog = fixtures::catalog();
        let entry = catalog.game_version("minecraft", "paper", "1.21.7").unwrap();
        assert_eq!(entry.version, "1.21.7");
        assert_eq!(catalog.runtime_version("java", "21.0.3").unwrap().version, "21.0.3");
    }

    #[test]
    fn an_unknown_name_is_answered_with_the_nearest() {
        let catalog = fixtures::catalog();
        let ask =
            |game, variant, version| catalog.game_version(game, variant, version).unwrap_err().to_string();
        assert_eq!(
            ask("minecraft", "pupur", "1.21.7"),
            "unknown variant `pupur` of minecraft: did you mean `purpur`? available: paper, purpur, flying-squid"
        );
        assert_eq!(
            ask("mindcraft", "paper", "1"),
            "unknown game `mindcraft`: did you mean `minecraft`? available: minecraft"
        );
        assert_eq!(ask("zork", "paper", "1"), "unknown game `zork`: available: minecraft");
        assert_eq!(
            ask("minecraft", "paper", "1.21.9"),
            "unknown version `1.21.9` of minecraft paper: did you mean `1.21.7`? available: 1.21.10, 1.21.7, 1.20.1"
        );
        assert!(ask("minecraft", "paper", "../../x\n").starts_with("unknown version `../../x\\n` of"));
        let long = "x".repeat(100_000);
        assert!(ask("minecraft", &long, "1").len() < 300);
    }

    #[test]
    fn latest_is_refused_with_the_newest() {
        let error = fixtures::catalog().game_version("minecraft", "paper", "latest").unwrap_err();
        assert_eq!(
            error.to_string(),
            "version `latest` of minecraft paper is not accepted: name a version, the newest is `1.21.10`"
        );
    }

    #[test]
    fn the_newest_runtime_that_fits_is_taken() {
        let catalog = fixtures::catalog();
        let newest = |range: &str| {
            let requirement =
                Requirement { runtime: Id::new("java").unwrap(), version: range.parse().unwrap() };
            catalog
                .runtime_for(&requirement, &Audience::default())
                .map(|(_, version)| version.version.clone())
        };
        assert_eq!(newest("21").as_deref(), Some("21.0.10"));
        assert_eq!(newest(">=17 <21").as_deref(), Some("17.0.9"));
        assert_eq!(newest("25"), None);
    }

    #[test]
    fn channels_deprecation_and_withdrawal_decide_first() {
        let mut catalog = fixtures::catalog();
        let java = Requirement { runtime: Id::new("java").unwrap(), version: "21".parse().unwrap() };
        let chosen = |catalog: &Catalog, channel: &str| {
            let audience = Audience { channel: channel.to_owned(), vmid: 7 };
            catalog.runtime_for(&java, &audience).map(|(_, version)| version.version.clone())
        };
        assert_eq!(chosen(&catalog, "stable").as_deref(), Some("21.0.10"));
        catalog.runtimes[0].versions[1].release.channels = [(Id::new("beta").unwrap(), 100)].into();
        assert_eq!(chosen(&catalog, "stable").as_deref(), Some("21.0.3"));
        assert_eq!(chosen(&catalog, "beta").as_deref(), Some("21.0.10"));
        catalog.runtimes[0].versions[1].release = Default::default();
        catalog.runtimes[0].versions[1].release.deprecated = Some("slow".to_owned());
        assert_eq!(chosen(&catalog, "stable").as_deref(), Some("21.0.3"));
        catalog.runtimes[0].versions[2].release.withdrawn = Some("CVE".to_owned());
        assert_eq!(chosen(&catalog, "stable").as_deref(), Some("21.0.10"), "deprecated is better than none");
        catalog.runtimes[0].versions[1].release.withdrawn = Some("CVE".to_owned());
        assert_eq!(chosen(&catalog, "stable"), None);
    }

    #[test]
    fn a_plan_is_the_entrys_own_or_built_in() {
        let catalog = fixtures::catalog();
        let (paper, squid) = (Id::new("paper").unwrap(), Id::new("flying-squid").unwrap());
        let entry = catalog.game_version("minecraft", "paper", "1.21.7").unwrap();
        assert!(
            matches!(catalog.plan_for(&paper, entry), Ok(Cow::Borrowed(plan)) if Some(plan) == builtin::plan("paper"))
        );
        assert_eq!(catalog.requirement_for(&paper, entry).unwrap().version.as_str(), "21");
        let own = catalog.game_version("minecraft", "flying-squid", "1.18.2").unwrap();
        assert_eq!(catalog.plan_for(&squid, own).unwrap().as_ref(), own.launch.as_ref().unwrap());
        let slow = GameVersion {
            stop: Some(crate::StopOverride { grace_s: Some(300), ..Default::default() }),
            ..entry.clone()
        };
        let plan = catalog.plan_for(&paper, &slow).unwrap();
        assert_eq!((plan.stop.grace_s, plan.stop.command.as_deref()), (300, Some("stop")));
        assert_eq!(plan.argv, builtin::plan("paper").unwrap().argv, "and nothing else");
        let error = catalog.plan_for(&squid, entry).unwrap_err();
        assert_eq!(
            error.to_string(),
            "flying-squid 1.21.7 has no launch plan and none is built in: add `launch` to its catalog entry"
        );
    }

    #[test]
    fn distances() {
        for (a, b, expected) in
            [("", "", 0), ("a", "", 1), ("pupur", "purpur", 1), ("paper", "purpur", 3), ("abc", "cba", 2)]
        {
            assert_eq!(distance(a, b), expected, "{a} {b}");
            assert_eq!(distance(b, a), expected, "{b} {a}");
        }
    }
}
