//! Releases of the agent in a store: ones that work, and every kind that does not.

use std::fs;
use std::io::Write;

use anyhow::Result;
use serde_json::json;

use super::paths;
use super::store::Store;

/// What a release does.
#[derive(Debug, Clone, Copy)]
pub enum Release {
    /// It is the agent that is tested, and says that it is another version.
    Good,
    /// A script in its place, which passes the self-test.
    Script(&'static str),
    /// A script that does not.
    Untrue,
}

impl Release {
    fn binary(self, version: &str) -> Result<Vec<u8>> {
        Ok(match self {
            Self::Good => {
                let mut binary = fs::read(paths::binary("zlh-agent")?)?;
                writeln!(binary, "\nzlh-version={version}")?;
                binary
            }
            Self::Script(run) => format!(
                "#!/bin/sh\n[ \"$1\" = self-test ] && echo 'zlh-agent v{version} (script)' && exit 0\n{run}\n"
            )
            .into_bytes(),
            Self::Untrue => b"#!/bin/sh\necho 'no configuration of mine' >&2\nexit 1\n".to_vec(),
        })
    }
}

/// Publishes a catalog that offers these.
pub fn publish(store: &mut Store, releases: &[(&str, Release)]) -> Result<()> {
    let mut agents = Vec::new();
    for (version, release) in releases {
        let path = format!("agents/versions/{version}/zlh-agent-linux-amd64");
        let binary = store.put(&path, &release.binary(version)?, "application/octet-stream")?;
        agents.push(json!({ "version": version, "binary": binary }));
    }
    store.catalog["agents"] = json!(agents);
    store.publish()
}
