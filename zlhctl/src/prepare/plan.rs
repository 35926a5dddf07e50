//! The launch plan of a prepared tree: the built-in one of its variant, with what it runs
//! below `{server}` and not in the game root.
//!
//! Argument files of installers and Forge's shim name their jars relative to the working
//! directory, which is the game root. So the words of the files, and the class path that
//! the shim would make, stand in the command itself.

use std::collections::BTreeMap;
use std::fs;
use std::ops::ControlFlow;
use std::path::Path;

use anyhow::{Context, Result, anyhow};
use zlh_artifacts::{Limits, unpack};
use zlh_catalog::{Id, InstallStep, LaunchPlan, MediaType, Template};

use super::{Kind, SERVER_JAR, argfile};
use crate::exit::Hint;

/// Fabric's own jar is replaced by its content, which has no times in it.
pub(super) fn from_tree(built_in: LaunchPlan, kind: Kind, tree: &Path, version: &str) -> Result<LaunchPlan> {
    let mut argv = Vec::new();
    let mut words = built_in.argv.iter().map(Template::as_str);
    while let Some(word) = words.next() {
        match (word.strip_prefix('@'), word) {
            (Some(file), _) => argv.extend(arguments(tree, &file.replace("{version}", version))?),
            (None, "-jar") => {
                words.next();
                argv.extend(match kind {
                    Kind::Fabric => fabric(tree)?,
                    Kind::Paperclip | Kind::Installer => paperclip(tree)?,
                });
            }
            (None, word) => argv.push(word.to_owned()),
        }
    }
    let argv = argv.into_iter().map(|word| Template::parse(word).map_err(anyhow::Error::from));
    Ok(LaunchPlan {
        install: vec![InstallStep::Unpack { file: Id::new("server")?, strip_components: 0 }],
        argv: argv.collect::<Result<_>>()?,
        ..built_in
    })
}

/// Since 1.18 the launcher takes everything from the folder that it is told; before, what it
/// made is complete by itself.
fn paperclip(tree: &Path) -> Result<Vec<String>> {
    if tree.join("versions").is_dir() {
        return Ok(vec!["-DbundlerRepoDir={server}".to_owned(), "-jar".to_owned(), server(SERVER_JAR)]);
    }
    let patched = only(&tree.join("cache"), |name| name.starts_with("patched_") && name.ends_with(".jar"))?;
    Ok(vec!["-jar".to_owned(), server(&format!("cache/{patched}"))])
}

/// What the launcher would start, with the properties that it would set.
fn fabric(tree: &Path) -> Result<Vec<String>> {
    let folder = tree.join(FABRIC);
    let game = only(&folder, |name| name.ends_with("-server.jar"))?;
    let launch = only(&folder, |name| name.starts_with("fabric-loader-server-") && name.ends_with(".jar"))?;
    let (jar, content) = (folder.join(&launch), folder.join("launch"));
    open(&jar, &content)?;
    let manifest = read(&content.join("META-INF/MANIFEST.MF"))?;
    // A line goes on where the next one begins with a space.
    let manifest = manifest.replace("\r\n", "\n").replace("\n ", "");
    let field = |name: &str| manifest.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
    let main = field("Main-Class:").with_context(|| format!("`{launch}` says no main class"))?;
    let mut path = vec![server(&format!("{FABRIC}/launch"))];
    for library in field("Class-Path:").unwrap_or_default().split_whitespace() {
        path.push(there(tree, &format!("{FABRIC}/{library}"))?);
    }
    fs::remove_file(&jar).with_context(|| format!("cannot remove `{}`", jar.display()))?;
    Ok(vec![
        "-DbundlerRepoDir={server}".to_owned(),
        format!("-Dfabric.gameJarPath={}", server(&format!("{FABRIC}/{game}"))),
        "-cp".to_owned(),
        path.join(":"),
        escaped(main),
    ])
}

/// The words of an argument file of the tree.
fn arguments(tree: &Path, file: &str) -> Result<Vec<String>> {
    let path = tree.join(file);
    if !path.is_file() {
        // The operator's own, which has comments only when it is made.
        if file == "user_jvm_args.txt" {
            return Ok(Vec::new());
        }
        return Err(anyhow!("it made no `{file}`"))
            .hint("only installers for Minecraft 1.17 and later do; import it without --prepare");
    }
    let mut out = Vec::new();
    let mut words = argfile::words(&read(&path)?).into_iter();
    while let Some(word) = words.next() {
        match words.as_slice().first().filter(|_| word == "-jar") {
            Some(jar) => {
                out.extend(jar_of_installer(tree, jar)?);
                words.next();
            }
            None => out.push(relocated(tree, &word)?),
        }
    }
    Ok(out)
}

/// Forge's shim has a list of what it puts on the class path; any other jar is run as it is.
fn jar_of_installer(tree: &Path, jar: &str) -> Result<Vec<String>> {
    let place = there(tree, jar)?;
    let folder = tempfile::tempdir().context("cannot make a temporary folder")?;
    let content = folder.path().join("content");
    open(&tree.join(jar), &content)?;
    let list = content.join("bootstrap-shim.list");
    if !list.is_file() {
        return Ok(vec!["-jar".to_owned(), place]);
    }
    let mut path = Vec::new();
    for line in read(&list)?.lines().filter(|line| !line.is_empty()) {
        let library =
            line.split('\t').nth(2).with_context(|| format!("`{jar}` has a list of another form"))?;
        path.push(there(tree, &format!("libraries/{library}"))?);
    }
    let properties = read(&content.join("bootstrap-shim.properties"))?;
    let properties: BTreeMap<&str, &str> = properties
        .lines()
        .filter_map(|line| line.split_once('='))
        .map(|(k, v)| (k.trim(), v.trim()))
        .collect();
    let main = properties.get("Main-Class").with_context(|| format!("`{jar}` says no main class"))?;
    let more = properties.get("Arguments").copied().unwrap_or_default().split_whitespace().map(escaped);
    Ok(["-cp".to_owned(), path.join(":"), escaped(main)].into_iter().chain(more).collect())
}

/// A word with the paths of the tree that are in it below `{server}`.
fn relocated(tree: &Path, word: &str) -> Result<String> {
    let (name, value) = match word.split_once('=').filter(|_| word.starts_with('-')) {
        Some((name, value)) => (format!("{}=", escaped(name)), value),
        None => (String::new(), word),
    };
    let mut parts = Vec::new();
    for part in value.split(':') {
        let is_jar = part.ends_with(".jar") && !part.contains(',') && tree.join(part).is_file();
        parts.push(match part == "libraries" || part.starts_with("libraries/") || is_jar {
            true => there(tree, part)?,
            false => escaped(part),
        });
    }
    Ok(name + &parts.join(":"))
}

/// A path of the tree in a template; an error if nothing is there.
fn there(tree: &Path, path: &str) -> Result<String> {
    zlh_catalog::RelPath::new(path)?;
    anyhow::ensure!(tree.join(path).exists(), "it made no `{path}`, which its own arguments name");
    Ok(server(path))
}

fn server(path: &str) -> String {
    format!("{{server}}/{}", escaped(path))
}

fn escaped(text: &str) -> String {
    text.replace('{', "{{").replace('}', "}}")
}

/// The one file of that form.
fn only(folder: &Path, is_it: impl Fn(&str) -> bool) -> Result<String> {
    let names = fs::read_dir(folder).into_iter().flatten().flatten();
    let mut found = names.filter_map(|entry| entry.file_name().into_string().ok()).filter(|name| is_it(name));
    match (found.next(), found.next()) {
        (Some(name), None) => Ok(name),
        (None, _) => Err(anyhow!("it did not make what servers of this kind are run from"))
            .hint("import it without --prepare, or see whether its publisher changed how it works"),
        (Some(one), Some(other)) => Err(anyhow!("it made `{one}` and `{other}`, one is expected")),
    }
}

fn open(jar: &Path, to: &Path) -> Result<()> {
    fs::create_dir(to).with_context(|| format!("cannot write `{}`", to.display()))?;
    unpack(jar, MediaType::Zip, to, 0, &Limits::default(), &mut |_| ControlFlow::Continue(()))
        .with_context(|| format!("cannot read `{}`", jar.display()))?;
    Ok(())
}

fn read(path: &Path) -> Result<String> {
    fs::read_to_string(path).with_context(|| format!("cannot read `{}`", path.display()))
}

const FABRIC: &str = ".fabric/server";

#[cfg(test)]
mod tests {
    use super::*;

    fn tree(paths: &[&str]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        for path in paths {
            let path = folder.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, "x").unwrap();
        }
        folder
    }

    #[test]
    fn words_are_relocated_where_the_tree_has_them() {
        let folder = tree(&["libraries/a/a.jar", "libraries/b.jar", "x-shim.jar"]);
        for (word, expected) in [
            ("libraries/a/a.jar:libraries/b.jar", "{server}/libraries/a/a.jar:{server}/libraries/b.jar"),
            ("-DlegacyClassPath=libraries/b.jar", "-DlegacyClassPath={server}/libraries/b.jar"),
            ("-DlibraryDirectory=libraries", "-DlibraryDirectory={server}/libraries"),
            ("-DignoreList=a.jar,b.jar,x-shim.jar", "-DignoreList=a.jar,b.jar,x-shim.jar"),
            ("java.base/java.util.jar=cpw.mods.x", "java.base/java.util.jar=cpw.mods.x"),
            ("x-shim.jar", "{server}/x-shim.jar"),
            ("-Dx={y}", "-Dx={{y}}"),
            ("1.21.1", "1.21.1"),
        ] {
            assert_eq!(relocated(folder.path(), word).unwrap(), expected);
        }
        for word in ["libraries/c.jar", "-Dx=libraries/../../etc"] {
            assert!(relocated(folder.path(), word).is_err(), "{word}");
        }
    }

    #[test]
    fn launchers_of_before_1_18_made_one_jar() {
        let old = tree(&["server.jar", "cache/mojang_1.16.5.jar", "cache/patched_1.16.5.jar"]);
        assert_eq!(paperclip(old.path()).unwrap(), ["-jar", "{server}/cache/patched_1.16.5.jar"]);
        let none = tree(&["server.jar", "cache/mojang_1.16.5.jar"]);
        assert!(paperclip(none.path()).unwrap_err().to_string().contains("did not make"));
    }
}
