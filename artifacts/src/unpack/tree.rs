//! What has been unpacked so far, in memory, and what may follow it.
//!
//! The staging directory is private, so this model is exact: a conflict, a duplicate, a
//! path through a link, a link that leaves the tree are all seen here, before any of them
//! reaches the file system.

use std::collections::HashMap;

use zlh_catalog::is_deceptive;

#[derive(Debug, Default)]
pub(crate) struct Tree {
    nodes: HashMap<String, Node>,
}

#[derive(Debug, PartialEq, Eq)]
enum Node {
    /// Directories that only contained something may be named once more.
    Dir {
        named: bool,
    },
    File,
    Link(String),
}

/// What to do about the directory of an entry.
type Refusal = &'static str;

impl Tree {
    pub(crate) fn add_dir(&mut self, path: &str) -> Result<(), Refusal> {
        self.add_parents(path)?;
        match self.nodes.get_mut(path) {
            None => drop(self.nodes.insert(path.to_owned(), Node::Dir { named: true })),
            Some(Node::Dir { named }) if !*named => *named = true,
            Some(Node::Dir { .. }) => return Err("it is there twice"),
            Some(_) => return Err("it is already there as something else"),
        }
        Ok(())
    }

    pub(crate) fn add_file(&mut self, path: &str) -> Result<(), Refusal> {
        self.add(path, Node::File)
    }

    pub(crate) fn add_symlink(&mut self, path: &str, target: &str) -> Result<(), Refusal> {
        check_target(path, target)?;
        self.add(path, Node::Link(target.to_owned()))
    }

    pub(crate) fn add_hardlink(&mut self, path: &str, target: &str) -> Result<(), Refusal> {
        match self.nodes.get(target) {
            Some(Node::File) => self.add(path, Node::File),
            _ => Err("a hard link may only name a file that was unpacked before"),
        }
    }

    /// Whether a link, followed all the way, ends at something inside.
    pub(crate) fn check_link(&self, path: &str) -> Result<(), Refusal> {
        let mut todo: Vec<&str> = path.rsplit('/').collect();
        let mut here: Vec<&str> = Vec::new();
        let mut hops = 0;
        while let Some(name) = todo.pop() {
            match name {
                "" | "." => continue,
                ".." => {
                    if here.pop().is_none() {
                        return Err("the link leads out of the tree");
                    }
                    continue;
                }
                _ => here.push(name),
            }
            match self.nodes.get(&here.join("/")) {
                Some(Node::Link(target)) => {
                    hops += 1;
                    if hops > MAX_HOPS {
                        return Err("the link leads in a circle");
                    }
                    here.pop();
                    todo.extend(target.rsplit('/'));
                }
                Some(Node::Dir { .. }) => {}
                Some(Node::File) if todo.is_empty() => {}
                _ => return Err("the link leads to nothing in the tree"),
            }
        }
        Ok(())
    }

    fn add(&mut self, path: &str, node: Node) -> Result<(), Refusal> {
        self.add_parents(path)?;
        match self.nodes.get(path) {
            None => drop(self.nodes.insert(path.to_owned(), node)),
            Some(Node::Dir { .. }) => return Err("it is already there as a directory"),
            Some(_) => return Err("it is there twice"),
        }
        Ok(())
    }

    fn add_parents(&mut self, path: &str) -> Result<(), Refusal> {
        for (at, _) in path.match_indices('/') {
            match self.nodes.get(&path[..at]) {
                Some(Node::Dir { .. }) => {}
                Some(Node::File) => return Err("it is below a file"),
                Some(Node::Link(_)) => return Err("it is below a link"),
                None => drop(self.nodes.insert(path[..at].to_owned(), Node::Dir { named: false })),
            }
        }
        Ok(())
    }
}

/// A path inside the tree, from one in the archive: `strip` components less. `None` for the
/// directories that are stripped away. One `./` in front is only spelling.
pub(crate) fn inside(path: &str, is_dir: bool, strip: u8) -> Result<Option<&str>, Refusal> {
    let mut rest = path.strip_prefix("./").unwrap_or(path);
    if is_dir {
        rest = rest.strip_suffix('/').unwrap_or(rest);
        if matches!(path, "." | "./") {
            return Ok(None);
        }
    }
    check_path(rest)?;
    for _ in 0..strip {
        match rest.split_once('/') {
            Some((_, tail)) => rest = tail,
            None if is_dir => return Ok(None),
            None => return Err("it has fewer components than are to be stripped"),
        }
    }
    Ok(Some(rest))
}

/// The first `strip` components, which have to be the same everywhere: else two trees
/// would be mixed into one.
pub(crate) fn stripped(path: &str, strip: u8) -> &str {
    let path = path.strip_prefix("./").unwrap_or(path);
    let end = path.match_indices('/').nth(usize::from(strip).saturating_sub(1)).map(|(at, _)| at);
    match end {
        Some(at) if strip > 0 => &path[..at],
        _ => "",
    }
}

pub(crate) fn check_path(path: &str) -> Result<(), Refusal> {
    if path.is_empty() {
        return Err("its name is empty");
    }
    if path.starts_with('/') {
        return Err("its path is absolute");
    }
    if path.len() > MAX_PATH_BYTES {
        return Err("its path is longer than 1,024 bytes");
    }
    if path.contains('\\') || path.chars().any(is_deceptive) {
        return Err("its name has backslashes, control or direction characters");
    }
    let mut depth = 0;
    for component in path.split('/') {
        depth += 1;
        match component {
            "" => return Err("its path has an empty component"),
            "." | ".." => return Err("its path has a `.` or `..` component"),
            _ if component.len() > MAX_COMPONENT_BYTES => return Err("its name is longer than 255 bytes"),
            _ if depth > MAX_DEPTH => return Err("its path is deeper than 64 directories"),
            _ => {}
        }
    }
    Ok(())
}

/// A link's target by its letters; where it leads is known when all are there.
fn check_target(path: &str, target: &str) -> Result<(), Refusal> {
    if target.is_empty() || target.len() > MAX_PATH_BYTES || target.chars().any(is_deceptive) {
        return Err("its link target is empty, too long or has control characters");
    }
    if target.starts_with('/') {
        return Err("its link target is absolute");
    }
    let mut depth = path.matches('/').count();
    for component in target.split('/') {
        match component {
            "" | "." => {}
            ".." if depth == 0 => return Err("the link leads out of the tree"),
            ".." => depth -= 1,
            _ => depth += 1,
        }
    }
    Ok(())
}

const MAX_PATH_BYTES: usize = 1024;
const MAX_COMPONENT_BYTES: usize = 255;
const MAX_DEPTH: usize = 64;
/// As many links as the kernel follows.
const MAX_HOPS: usize = 40;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_inside() {
        assert_eq!(inside("a/b", false, 0), Ok(Some("a/b")));
        assert_eq!(inside("./a/b/", true, 0), Ok(Some("a/b")));
        assert_eq!(inside("a/b/c", false, 1), Ok(Some("b/c")));
        assert_eq!(inside("a/", true, 1), Ok(None));
        assert_eq!(inside("./", true, 0), Ok(None));
        for (bad, is_dir) in [
            ("", false),
            ("/", true),
            ("/etc/passwd", false),
            ("..", true),
            ("../x", false),
            ("a/../../b", false),
            ("a//b", false),
            ("a/./b", false),
            ("././a", false),
            (".", false),
            ("a/", false),
            ("C:\\x", false),
            ("a\nb", false),
            ("a\u{202e}b", false),
            ("a//", true),
        ] {
            assert!(inside(bad, is_dir, 0).is_err(), "{bad:?}");
        }
        assert!(inside(&"x".repeat(256), false, 0).is_err());
        assert!(inside(&vec!["d"; 65].join("/"), false, 0).is_err());
        assert!(inside("file", false, 1).is_err());
    }

    #[test]
    fn stripped_components() {
        assert_eq!(stripped("a/b/c", 0), "");
        assert_eq!(stripped("./a/b/c", 1), "a");
        assert_eq!(stripped("a/b/c", 2), "a/b");
    }

    /// A tree with `dir/sub/`, `dir/file` and the links given.
    fn links(links: &[(&str, &str)]) -> Result<Tree, Refusal> {
        let mut tree = Tree::default();
        tree.add_dir("dir/sub").unwrap();
        tree.add_file("dir/file").unwrap();
        links.iter().try_for_each(|(path, target)| tree.add_symlink(path, target))?;
        links.iter().try_for_each(|(path, _)| tree.check_link(path))?;
        Ok(tree)
    }

    #[test]
    fn links_that_stay() {
        for good in [
            &[("a", "dir/file")][..],
            &[("dir/sub/a", "../file")],
            &[("a", "b"), ("b", "dir/sub"), ("c", "a/../file")],
            &[("dir/sub/up", "../..")],
            &[("a", "./dir//file")],
        ] {
            assert!(links(good).is_ok(), "{good:?}");
        }
    }

    #[test]
    fn links_that_do_not() {
        for bad in [
            &[("a", "/etc/passwd")][..],
            &[("a", "../x")],
            &[("dir/a", "../../x")],
            &[("a", "")],
            &[("a", "nothing")],
            &[("a", "a")],
            &[("a", "b"), ("b", "a")],
            &[("a", "dir/file/x")],
            // Each is harmless by its letters; together they leave.
            &[("dir/sub/up", "../.."), ("out", "dir/sub/up/..")],
            &[("a", "dir/.."), ("a/b", "..")],
        ] {
            assert!(links(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn conflicts() {
        let mut tree = Tree::default();
        tree.add_file("a/b").unwrap();
        assert!(tree.add_dir("a").is_ok(), "a directory may be named after its content");
        assert!(tree.add_dir("a").is_err());
        assert!(tree.add_file("a/b").is_err());
        assert!(tree.add_file("a").is_err());
        assert!(tree.add_dir("a/b").is_err());
        assert!(tree.add_file("a/b/c").is_err());
        assert!(tree.add_hardlink("c", "none").is_err());
        assert!(tree.add_hardlink("c", "a").is_err());
        assert!(tree.add_hardlink("c", "a/b").is_ok());
        tree.add_symlink("l", "a").unwrap();
        assert!(tree.add_file("l/x").is_err());
        assert!(tree.add_hardlink("d", "l").is_err());
    }
}
