//! Where the build put things, seen from the test that runs.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

/// A program of this workspace, beside the running test.
pub fn binary(name: &str) -> Result<PathBuf> {
    let path = profile_dir()?.join(name);
    if !path.is_file() {
        bail!(
            "{} does not exist: run `make test`, or `cargo build --workspace --bins` first",
            path.display()
        );
    }
    Ok(path)
}

/// The folder of finished programs: the test's own, or the one above its `deps/`.
fn profile_dir() -> Result<PathBuf> {
    let me = std::env::current_exe().context("find the running program")?;
    let dir = me.parent().context("the running program lies in a folder")?;
    let dir = if dir.ends_with("deps") { dir.parent().unwrap_or(dir) } else { dir };
    Ok(dir.to_owned())
}

/// Cargo's target directory.
pub fn target_dir() -> Result<PathBuf> {
    let dir = profile_dir()?;
    // The folder of a target triple has a tag of its own: the outermost one counts. Cargo tags
    // none that was there before it.
    let is_cargos =
        |dir: &&Path| [".rustc_info.json", "CACHEDIR.TAG"].iter().any(|file| dir.join(file).is_file());
    let tagged = dir.ancestors().filter(is_cargos).last();
    tagged
        .map(Path::to_owned)
        .with_context(|| format!("{} is below no cargo target directory", dir.display()))
}

/// The workspace.
pub fn workspace() -> PathBuf {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR"));
    tests.parent().unwrap_or(tests).to_owned()
}
