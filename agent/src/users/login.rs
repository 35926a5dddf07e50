//! Whom a shell runs as, and what such a user finds when it logs in.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use zlh_shim::spec::UserIds;

use super::{UserError, find, own_name, read};

/// The user of a dev container.
const DEV: &str = "dev";

/// Where its work lies, below its home.
const WORKSPACE: &str = "workspace";

/// A user as a login program sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Login {
    /// Its name.
    pub name: String,
    /// None: as the agent itself.
    pub ids: Option<UserIds>,
    /// Its home, whether or not it is there.
    pub home: PathBuf,
    /// Its shell, which is there.
    pub shell: PathBuf,
}

/// There is nobody to log in.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LoginError {
    /// The user of a dev container is missing.
    #[error(
        "there is no user `dev` in {0}, and shells do not run as root by themselves; create it \
         (useradd --create-home --shell /bin/bash dev), or name another user with `user` in [shell]"
    )]
    NoDev(PathBuf),
    /// The configured one cannot be used.
    #[error("`user` in [shell]: {0}")]
    User(#[from] UserError),
    /// Only root can become somebody else.
    #[error(
        "`user` in [shell] is `{0}`, but the agent does not run as root and cannot change to another user"
    )]
    NotRoot(String),
    /// No shell at all.
    #[error("there is neither {0} nor /bin/bash nor /bin/sh")]
    NoShell(PathBuf),
}

impl Login {
    /// The configured user, else `dev`; an agent that is not root has only itself.
    pub(crate) fn find(configured: Option<&str>, passwd: &Path) -> Result<Self, LoginError> {
        let own = rustix::process::geteuid();
        let user = match configured {
            None if own.is_root() => match find(DEV, passwd) {
                Ok(user) => user,
                Err(_) => return Err(LoginError::NoDev(passwd.to_owned())),
            },
            None => return Self::of(own_name(passwd, own.as_raw()), None, passwd),
            Some(name) => find(name, passwd)?,
        };
        let ids = user.ids.filter(|ids| ids.uid != own.as_raw());
        if ids.is_some() && !own.is_root() {
            return Err(LoginError::NotRoot(user.name));
        }
        Self::of(user.name, ids, passwd)
    }

    fn of(name: String, ids: Option<UserIds>, passwd: &Path) -> Result<Self, LoginError> {
        let text = read(passwd).or_else(|_| read(Path::new("/etc/passwd"))).unwrap_or_default();
        let entry = text.lines().map(|line| line.split(':').collect::<Vec<_>>());
        let entry = entry.filter(|fields| fields.len() == 7).find(|fields| fields[0] == name);
        let field =
            |at: usize| entry.as_ref().and_then(|fields| fields.get(at)).map(|text| PathBuf::from(*text));
        let home = field(5).filter(|home| home.is_absolute()).unwrap_or_else(|| PathBuf::from("/"));
        let wanted = field(6).filter(|shell| shell.is_absolute());
        let candidates = wanted.iter().cloned().chain(["/bin/bash".into(), "/bin/sh".into()]);
        let shell = candidates.into_iter().find(|shell| is_program(shell));
        let shell = shell.ok_or_else(|| LoginError::NoShell(wanted.unwrap_or_default()))?;
        Ok(Self { name, ids, home, shell })
    }

    /// Where it begins: in its workspace, else at home, else at the root.
    pub(crate) fn workdir(&self) -> PathBuf {
        let places = [self.home.join(WORKSPACE), self.home.clone()];
        places.into_iter().find(|place| place.is_dir()).unwrap_or_else(|| PathBuf::from("/"))
    }

    /// The whole environment: nothing of the agent's is in it.
    pub(crate) fn environment(&self) -> BTreeMap<String, String> {
        let (home, shell) = (self.home.display().to_string(), self.shell.display().to_string());
        let path = match self.is_root() {
            true => "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
            false => "/usr/local/bin:/usr/bin:/bin:/usr/local/games:/usr/games",
        };
        [
            ("HOME", home.as_str()),
            ("USER", &self.name),
            ("LOGNAME", &self.name),
            ("SHELL", &shell),
            ("PATH", path),
            ("LANG", "C.UTF-8"),
            ("TERM", "xterm-256color"),
        ]
        .into_iter()
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .collect()
    }

    fn is_root(&self) -> bool {
        self.ids.as_ref().map_or_else(|| rustix::process::geteuid().is_root(), |ids| ids.uid == 0)
    }
}

fn is_program(path: &Path) -> bool {
    rustix::fs::access(path, rustix::fs::Access::EXEC_OK).is_ok() && path.is_file()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn passwd(text: &str) -> (tempfile::TempDir, PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("passwd");
        std::fs::write(&path, text).unwrap();
        (dir, path)
    }

    #[test]
    fn a_login_has_its_own_home_shell_and_nothing_of_the_agents() {
        let home = tempfile::tempdir().unwrap();
        let own = rustix::process::geteuid().as_raw();
        let line = format!("me:x:{own}:{own}::{}:/bin/sh\n", home.path().display());
        let (_dir, path) = passwd(&line);
        let login = Login::find(Some("me"), &path).unwrap();
        assert_eq!(
            (login.name.as_str(), login.ids.as_ref(), login.shell.as_path()),
            ("me", None, Path::new("/bin/sh"))
        );
        assert_eq!(login.workdir(), home.path());
        std::fs::create_dir(home.path().join("workspace")).unwrap();
        assert_eq!(login.workdir(), home.path().join("workspace"));
        let env = login.environment();
        assert_eq!(env["HOME"], home.path().display().to_string());
        assert_eq!((env["USER"].as_str(), env["SHELL"].as_str()), ("me", "/bin/sh"));
        assert!(env.keys().all(|key| !key.starts_with("ZLH_")));
    }

    #[test]
    fn a_shell_that_is_not_there_is_replaced_and_a_home_that_is_not_there_is_the_root() {
        let own = rustix::process::geteuid().as_raw();
        let (_dir, path) = passwd(&format!("me:x:{own}:{own}::/no/such/home:/no/such/shell\n"));
        let login = Login::find(Some("me"), &path).unwrap();
        assert!(login.shell == Path::new("/bin/bash") || login.shell == Path::new("/bin/sh"));
        assert_eq!(login.workdir(), Path::new("/"));
    }

    #[test]
    fn root_gives_no_shell_of_its_own_away() {
        let (_dir, path) = passwd("root:x:0:0:root:/root:/bin/bash\n");
        let found = Login::find(None, &path);
        if rustix::process::geteuid().is_root() {
            assert!(matches!(found, Err(LoginError::NoDev(_))), "{found:?}");
        } else {
            assert_eq!(found.unwrap().ids, None);
        }
        assert!(Login::find(Some("nobody-at-all"), &path).is_err());
    }
}
