//! What is installed, and was withdrawn since: it goes on running, and says so.

use zlh_catalog::{Catalog, Release};

use crate::game::plan::Installed;
use crate::workload::Withdrawn;

/// What a catalog says against the server that is installed, and its runtime.
pub(super) fn of(catalog: &Catalog, installed: &Installed) -> Vec<Withdrawn> {
    let server = format!("{}/{} {}", installed.game, installed.variant, installed.version);
    let why = |release: &Release| release.withdrawn.clone();
    let mut found = Vec::new();
    // What the catalog no longer has was not withdrawn: nobody says why.
    let entry = catalog.game_version(&installed.game, &installed.variant, &installed.version).ok();
    if let Some(why) = entry.and_then(|entry| why(&entry.release)) {
        let warning = format!("{server} is installed and was withdrawn since: {why}; choose another version");
        found.push(Withdrawn { server: server.clone(), runtime: None, warning });
    }
    if let Some(runtime) = &installed.runtime {
        let entry = catalog.runtime_version(runtime.id.as_str(), &runtime.version).ok();
        if let Some(why) = entry.and_then(|entry| why(&entry.release)) {
            let warning = format!(
                "{} {}, which {server} runs with, was withdrawn since: {why}; install the server again to have \
                 another one",
                runtime.id, runtime.version
            );
            found.push(Withdrawn { server, runtime: Some(runtime.dir.clone()), warning });
        }
    }
    found
}
