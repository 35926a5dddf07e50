//! What is installed of a game server: compared with what was installed, and taken away.
//!
//! A server's files lie in three places: those that were placed in the game's folder, which is
//! the tenant's, the server's own tree, and the runtime's. What a server makes of them, and its
//! worlds, are not looked at.

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};

use zlh_artifacts::{InstalledTree, Store, check_placed, hash_file, remove_placed};
use zlh_catalog::{InstallStep, RelPath, Sha256};

use super::{InstallError, Step, say};
use crate::game::payload::GameRequest;
use crate::game::plan::Installed;
use crate::paths::Paths;

/// What was found.
#[derive(Debug, Default)]
pub(crate) struct Findings {
    /// What is not as it was installed, for people.
    pub drifts: Vec<String>,
    /// Whole trees that are damaged, and their stores.
    pub trees: Vec<(PathBuf, InstalledTree)>,
}

/// Compares everything with what was installed. Blocks, and reads every file.
pub(crate) fn inspect(
    paths: &Paths,
    installed: &Installed,
    request: &GameRequest,
    report: &impl Fn(Step),
) -> Result<Findings, InstallError> {
    let root = paths.game_root(&request.game, &request.variant, &request.world);
    let mut found = Findings::default();
    let mut elsewhere = BTreeSet::new();
    for step in &installed.plan.install {
        match step {
            InstallStep::Place { file, to } => {
                elsewhere.insert(file);
                say(report, &format!("reading {to}"));
                let Some(expected) = installed.files.get(file).and_then(|path| hash_of(path)) else {
                    found.drifts.push(format!("{to} was installed by an agent that kept no hash of it"));
                    continue;
                };
                let drift = check_placed(&root, to, &expected).map_err(cannot(&root.join(to.as_str())))?;
                found.drifts.extend(drift.map(|what| format!("{to} {what}")));
            }
            InstallStep::Unpack { file, .. } => {
                elsewhere.insert(file);
            }
            InstallStep::Run { .. } => {}
        }
    }
    for path in installed.produced(request, &root) {
        if !root.join(&path).is_file() {
            found.drifts.push(format!("{path} is missing"));
        }
    }
    // What is neither placed nor unpacked is used where it was fetched to.
    for (name, path) in installed.files.iter().filter(|(name, _)| !elsewhere.contains(name)) {
        say(report, &format!("reading {name}"));
        let what = match hash_file(path) {
            Ok((_, got)) => (hash_of(path) != Some(got)).then_some("has another content"),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Some("is missing"),
            Err(error) => return Err(cannot(path)(error)),
        };
        found.drifts.extend(what.map(|what| format!("{name} {what}")));
    }
    let runtime = installed.runtime.as_ref().map(|runtime| &runtime.dir);
    for (store, dir) in [(paths.servers(), installed.server.as_ref()), (paths.runtimes(), runtime)] {
        if let Some(dir) = dir {
            inspect_tree(store, dir, &mut found, report)?;
        }
    }
    Ok(found)
}

fn inspect_tree(
    root: PathBuf,
    dir: &Path,
    found: &mut Findings,
    report: &impl Fn(Step),
) -> Result<(), InstallError> {
    let store = Store::open(&root)?;
    let Some(tree) = store.list()?.into_iter().find(|tree| tree.dir == dir) else {
        found.drifts.push(format!("{} is missing", dir.display()));
        return Ok(());
    };
    let label = format!("{} {}", tree.name, tree.version);
    say(report, &format!("reading {label}"));
    let drifts = store.verify(&tree)?;
    found.drifts.extend(drifts.iter().map(|drift| format!("{} in {label} {}", drift.path, drift.what)));
    if !drifts.is_empty() {
        found.trees.push((root, tree));
    }
    Ok(())
}

/// Takes away what was put into the game's folder. Everything else in it stays. Blocks.
pub(crate) fn clear(root: &Path, installed: &Installed, request: &GameRequest) -> io::Result<()> {
    for path in installed.placed(request, root) {
        // One that cannot be named from the folder was not put there.
        if let Ok(path) = RelPath::new(&path) {
            remove_placed(root, &path)?;
        }
    }
    Ok(())
}

/// The hash of a file of the cache is its name.
fn hash_of(cached: &Path) -> Option<Sha256> {
    cached.file_name()?.to_str()?.parse().ok()
}

fn cannot(path: &Path) -> impl FnOnce(io::Error) -> InstallError {
    let step = format!("read {}", path.display());
    |source| InstallError::Io { step, source }
}
