//! From what was typed to the agents that are meant.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use zlh_api::client::{Client, Connector};

use crate::cli::Global;
use crate::exit::Hint;
use crate::fleet::{self, Fleet, Member};

/// The fleet, and the means to reach it.
pub(crate) struct Targets {
    pub(crate) fleet: Fleet,
    pub(crate) path: PathBuf,
    connector: Connector,
    token: Option<String>,
}

/// One agent that a command is about.
pub(crate) struct Target {
    /// What it is called in the output.
    pub(crate) name: String,
    pub(crate) url: String,
    pub(crate) labels: BTreeMap<String, String>,
    /// An agent whose token or address is broken is still a row of the table.
    pub(crate) client: Result<Client>,
}

impl Targets {
    /// Reads the fleet file and the token file.
    pub(crate) fn load(global: &Global) -> Result<Self> {
        let path = fleet_path(global.fleet.as_deref())?;
        if global.fleet.is_some() && !path.exists() {
            return Err(anyhow!("there is no fleet file `{}`", path.display()))
                .hint("`zlhctl --fleet FILE fleet add NAME URL` makes one");
        }
        let fleet = Fleet::load(&path)?;
        let token = global.token_file.as_deref().map(fleet::read_token).transpose()?;
        Ok(Self {
            fleet,
            path,
            connector: Connector::new(CALL_TIMEOUT, Some(Arc::new(zlh_artifacts::SystemResolver::default()))),
            token,
        })
    }

    /// The one agent meant by `name`.
    pub(crate) fn one(&self, name: &str) -> Result<(Target, Client)> {
        let mut target = self.resolve(name)?;
        let client = std::mem::replace(&mut target.client, Err(anyhow!("taken")))?;
        Ok((target, client))
    }

    /// The agents meant by `names` (all of the fleet when there are none) that carry all `labels`.
    pub(crate) fn some(&self, names: &[String], labels: &[(String, String)]) -> Result<Vec<Target>> {
        let mut targets = Vec::new();
        if names.is_empty() {
            targets.extend(self.fleet.agents.iter().map(|member| self.member(member)));
        }
        for name in names {
            let target = self.resolve(name)?;
            // The same agent twice would start twice.
            if !targets.iter().any(|other: &Target| other.url == target.url) {
                targets.push(target);
            }
        }
        targets.retain(|target| labels.iter().all(|(key, value)| target.labels.get(key) == Some(value)));
        if targets.is_empty() && !labels.is_empty() {
            let labels: Vec<_> = labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
            return Err(anyhow!("no agent carries {}", labels.join(" and ")))
                .hint("`zlhctl fleet list -o wide` shows the labels");
        }
        if targets.is_empty() {
            return Err(anyhow!("the fleet is empty: `{}` names no agents", self.path.display()))
                .hint("`zlhctl fleet add NAME URL` adds one");
        }
        Ok(targets)
    }

    /// A client for an address, with the token that was given for all.
    pub(crate) fn client(&self, address: &str) -> Result<Client> {
        Ok(self.connector.agent(address, self.token.as_deref())?)
    }

    fn resolve(&self, name: &str) -> Result<Target> {
        if let Some(member) = self.fleet.get(name) {
            return Ok(self.member(member));
        }
        if is_address(name) {
            let client = self.client(name);
            let shown = client.as_ref().map_or_else(|_| name.to_owned(), Client::agent);
            return Ok(Target { name: shown, url: name.to_owned(), labels: BTreeMap::new(), client });
        }
        let error =
            anyhow!("there is no agent called `{}` in `{}`", name.escape_debug(), self.path.display());
        Err(error).hint(match self.fleet.nearest(name) {
            Some(nearest) => format!("did you mean `{nearest}`?"),
            None => "`zlhctl fleet list` shows the names; an agent outside the fleet is given as HOST:PORT"
                .to_owned(),
        })
    }

    fn member(&self, member: &Member) -> Target {
        let client = match &self.token {
            Some(token) => Ok(Some(token.clone())),
            None => member.token(),
        };
        let client = client
            .map_err(anyhow::Error::from)
            .and_then(|token| Ok(self.connector.agent(&member.url, token.as_deref())?));
        Target { name: member.name.clone(), url: member.url.clone(), labels: member.labels.clone(), client }
    }
}

/// `--fleet`, else `$XDG_CONFIG_HOME` or `$HOME`. The user database is never asked.
pub(crate) fn fleet_path(given: Option<&Path>) -> Result<PathBuf> {
    let folder = |name: &str| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    if let Some(path) = given {
        return Ok(path.to_owned());
    }
    let config = folder("XDG_CONFIG_HOME").or_else(|| Some(folder("HOME")?.join(".config")));
    let config = config
        .context("neither XDG_CONFIG_HOME nor HOME is set")
        .hint("name the fleet file with --fleet FILE")?;
    Ok(config.join("zlhctl/fleet.toml"))
}

/// Names cannot look like this, so nothing is ambiguous.
fn is_address(text: &str) -> bool {
    text.contains(':') || text.parse::<IpAddr>().is_ok()
}

/// Deadline of one call. An agent answers from memory, so this is generous.
const CALL_TIMEOUT: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests {
    use super::*;

    fn targets(text: &str) -> Targets {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("fleet.toml");
        std::fs::write(&path, text).unwrap();
        let fleet = Fleet::load(&path).unwrap();
        Targets { fleet, path, connector: Connector::new(CALL_TIMEOUT, None), token: None }
    }

    const TWO: &str = "\
        [[agents]]\nname = \"lobby\"\nurl = \"10.0.0.1\"\nlabels = { site = \"fra\" }\n\
        [[agents]]\nname = \"survival\"\nurl = \"ftp://10.0.0.2\"\nlabels = { site = \"ams\" }\n";

    fn labels(label: &str) -> Vec<(String, String)> {
        vec![fleet::parse_label(label).unwrap()]
    }

    #[test]
    fn names_addresses_and_labels() {
        let targets = targets(TWO);
        let names = |found: Vec<Target>| found.into_iter().map(|target| target.name).collect::<Vec<_>>();
        assert_eq!(names(targets.some(&[], &[]).unwrap()), ["lobby", "survival"]);
        assert_eq!(names(targets.some(&[], &labels("site=ams")).unwrap()), ["survival"]);
        assert_eq!(
            names(targets.some(&["lobby".into(), "lobby".into(), "10.9.9.9".into()], &[]).unwrap()),
            ["lobby", "10.9.9.9:18888"]
        );
        assert!(targets.some(&[], &labels("site=nyc")).is_err());
    }

    #[test]
    fn a_broken_member_is_a_target_with_a_reason() {
        let found = targets(TWO).some(&[], &labels("site=ams")).unwrap();
        assert!(found[0].client.as_ref().unwrap_err().to_string().contains("ftp"));
    }

    #[test]
    fn an_unknown_name_is_an_error_with_a_suggestion() {
        let error = targets(TWO).one("loby").map(|_| ()).unwrap_err();
        assert_eq!(crate::exit::hint(&error).as_deref(), Some("did you mean `lobby`?"));
        let error = targets(TWO).one("creative").map(|_| ()).unwrap_err();
        assert!(crate::exit::hint(&error).unwrap().contains("HOST:PORT"));
    }
}
