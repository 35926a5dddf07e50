//! The container's users, read from `/etc/passwd` and `/etc/group` themselves.
//!
//! No NSS: in a static glibc binary it crashes, and what a game runs as should
//! not depend on a directory server anyway.

mod create;
mod login;

pub(crate) use login::Login;

use std::path::{Path, PathBuf};

use zlh_shim::durable;
use zlh_shim::spec::UserIds;

/// Largest passwd or group file that is read, bytes.
const MAX_FILE: u64 = 4 << 20;

/// The user games run as unless the configuration names another.
const GAME_USER: &str = "zlh-game";

/// Whom a game runs as.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct GameUser {
    /// For `USER` and `LOGNAME`.
    pub name: String,
    /// None: as the agent itself.
    pub ids: Option<UserIds>,
    /// What the operator should know.
    pub warning: Option<String>,
}

/// A user that cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum UserError {
    /// There is no such user.
    #[error(
        "there is no user `{name}` in {path}; create it (useradd --system --no-create-home {name}) or name another with game_user"
    )]
    Unknown {
        /// The name.
        name: String,
        /// Where it was looked for.
        path: PathBuf,
    },
    /// Games never run as root.
    #[error("game_user `{0}` is root: name an unprivileged user")]
    Root(String),
    /// Only root can become somebody else.
    #[error("game_user is `{0}`, but the agent does not run as root and cannot change to another user")]
    NotRoot(String),
    /// The games' own user cannot be created.
    #[error(
        "the user `{name}` cannot be created: {source}; create it yourself (useradd --system --no-create-home {name}) or name another with game_user"
    )]
    Create {
        /// The name.
        name: String,
        /// The cause.
        source: std::io::Error,
    },
    /// The file cannot be read.
    #[error(transparent)]
    Read(#[from] durable::ReadError),
}

/// Finds the user games run as. `relocated`: the root is a folder, not the container.
pub(crate) fn game_user(
    configured: Option<&str>,
    passwd: &Path,
    relocated: bool,
) -> Result<GameUser, UserError> {
    let own_uid = rustix::process::geteuid();
    let own = configured.is_none() && !relocated && own_uid.is_root();
    if own && let Some(etc) = passwd.parent() {
        create::system_user(etc, GAME_USER)
            .map_err(|source| UserError::Create { name: GAME_USER.to_owned(), source })?;
    }
    let Some(wanted) = configured.or(own.then_some(GAME_USER)) else {
        return Ok(GameUser {
            name: own_name(passwd, own_uid.as_raw()),
            ids: None,
            warning: own_uid
                .is_root()
                .then(|| "games run as root, because --root is used and game_user is not set".to_owned()),
        });
    };
    let user = find(wanted, passwd)?;
    match &user.ids {
        Some(ids) if ids.uid == 0 => Err(UserError::Root(wanted.to_owned())),
        Some(ids) if ids.uid == own_uid.as_raw() => Ok(GameUser { ids: None, ..user }),
        _ if !own_uid.is_root() => Err(UserError::NotRoot(wanted.to_owned())),
        _ => Ok(user),
    }
}

fn find(wanted: &str, passwd: &Path) -> Result<GameUser, UserError> {
    let text = match read(passwd) {
        // A number needs no file.
        Err(durable::ReadError::Missing(_)) if wanted.parse::<u32>().is_ok() => String::new(),
        other => other?,
    };
    let entry = text.lines().map(|line| line.split(':').collect::<Vec<_>>()).find_map(|fields| {
        let [name, _, uid, gid, ..] = fields.as_slice() else { return None };
        (*name == wanted || *uid == wanted)
            .then(|| Some(((*name).to_owned(), uid.parse::<u32>().ok()?, gid.parse::<u32>().ok()?)))?
    });
    let (name, uid, gid) = match (entry, wanted.parse::<u32>()) {
        (Some(entry), _) => entry,
        (None, Ok(uid)) => (wanted.to_owned(), uid, uid),
        (None, Err(_)) => {
            return Err(UserError::Unknown { name: wanted.to_owned(), path: passwd.to_owned() });
        }
    };
    let groups = groups(&passwd.with_file_name("group"), &name);
    Ok(GameUser { name, ids: Some(UserIds { uid, gid, groups }), warning: None })
}

fn own_name(passwd: &Path, uid: u32) -> String {
    let own = [passwd, Path::new("/etc/passwd")];
    own.into_iter()
        .find_map(|path| {
            let text = read(path).ok()?;
            text.lines().find_map(|line| {
                let mut fields = line.split(':');
                let name = fields.next()?;
                (fields.nth(1)?.parse() == Ok(uid)).then(|| name.to_owned())
            })
        })
        .unwrap_or_else(|| uid.to_string())
}

/// Supplementary groups that name the user.
fn groups(path: &Path, user: &str) -> Vec<u32> {
    let Ok(text) = read(path) else { return Vec::new() };
    text.lines()
        .filter_map(|line| {
            let mut fields = line.split(':').skip(2);
            let gid = fields.next()?.parse().ok()?;
            fields.next()?.split(',').any(|member| member == user).then_some(gid)
        })
        .collect()
}

fn read(path: &Path) -> Result<String, durable::ReadError> {
    Ok(String::from_utf8_lossy(&durable::read_bounded(path, MAX_FILE)?).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn files() -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(
            dir.path().join("passwd"),
            "root:x:0:0:root:/root:/bin/bash\nbroken line\nzlh-game:x:990:980::/nonexistent:/usr/sbin/nologin\n",
        )
        .unwrap();
        std::fs::write(dir.path().join("group"), "video:x:44:dev,zlh-game\nother:x:50:zlh-gamer\n").unwrap();
        dir
    }

    #[test]
    fn names_and_numbers_are_found_with_their_groups() {
        let dir = files();
        let passwd = dir.path().join("passwd");
        let expected = UserIds { uid: 990, gid: 980, groups: vec![44] };
        assert_eq!(find("zlh-game", &passwd).unwrap().ids, Some(expected.clone()));
        assert_eq!(find("990", &passwd).unwrap().ids, Some(expected));
        assert_eq!(
            find("4242", &passwd).unwrap().ids,
            Some(UserIds { uid: 4242, gid: 4242, groups: vec![] })
        );
        assert!(matches!(find("nobody-here", &passwd), Err(UserError::Unknown { .. })));
    }

    #[test]
    fn root_is_never_a_game_user() {
        let dir = files();
        assert!(matches!(game_user(Some("root"), &dir.path().join("passwd"), true), Err(UserError::Root(_))));
        assert!(matches!(game_user(Some("0"), &dir.path().join("passwd"), true), Err(UserError::Root(_))));
    }
}
