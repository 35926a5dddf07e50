//! What is installed of a game server: compared with what was installed, and taken away.
//!
//! A server's files lie in three places: those that were placed in the game's folder, which is
//! the tenant's, the server's own tree, and the runtime's. What a server makes of them, and its
//! worlds, are not looked at.

use std::io;
use std::path::{Path, PathBuf};

use zlh_artifacts::{InstalledTree, Store, check_placed, remove_placed};
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
    for step in &installed.plan.install {
        let InstallStep::Place { file, to } = step else { continue };
        say(report, &format!("reading {to}"));
        let cached = installed.files.get(file);
        // An agent of before wrote down no sizes.
        let size = installed.sizes.get(file).copied();
        let size = size.or_else(|| cached.and_then(|path| Some(path.metadata().ok()?.len())));
        let (Some(expected), Some(size)) = (cached.and_then(|path| hash_of(path)), size) else {
            found.drifts.push(format!("{to} was installed by an agent that kept too little of it"));
            continue;
        };
        match check_placed(&root, to, size, &expected) {
            Ok(drift) => found.drifts.extend(drift.map(|what| format!("{to} {what}"))),
            Err(error) => found.drifts.push(format!("{to} cannot be read ({error})")),
        }
    }
    // What an installer made is known by name only.
    for path in installed.produced(request, &root) {
        if !root.join(&path).is_file() {
            found.drifts.push(format!("{path} is missing"));
        }
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
        let below = Path::new(&path).strip_prefix(root).ok().and_then(Path::to_str).unwrap_or(&path);
        // One that cannot be named from the folder was not put there.
        if let Ok(path) = RelPath::new(below) {
            remove_placed(root, &path)?;
        }
    }
    Ok(())
}

/// The hash of a file of the cache is its name.
fn hash_of(cached: &Path) -> Option<Sha256> {
    cached.file_name()?.to_str()?.parse().ok()
}
