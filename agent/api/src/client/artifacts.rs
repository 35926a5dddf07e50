//! Runtimes, addons, and the versions of the game and of the agent.

use reqwest::Method;

use super::{Client, ClientError};
use crate::{
    Accepted, ChangeVersion, GameVersion, InstalledAddons, InstalledRuntime, InstalledRuntimes,
    UpdateRequest, UpdateStatus, UpgradeRequest,
};

/// What is installed beside games.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// `/runtimes`
    Runtimes,
    /// `/addons`
    Addons,
}

impl Kind {
    /// The first component of its paths.
    pub fn path(self) -> &'static str {
        match self {
            Self::Runtimes => "runtimes",
            Self::Addons => "addons",
        }
    }
}

impl Client {
    /// `GET /runtimes` or `GET /addons`.
    ///
    /// # Errors
    /// Any [`ClientError`].
    pub async fn installed(&self, kind: Kind) -> Result<Vec<InstalledRuntime>, ClientError> {
        Ok(match kind {
            Kind::Runtimes => self.get::<InstalledRuntimes>("runtimes").await?.runtimes,
            Kind::Addons => self.get::<InstalledAddons>("addons").await?.addons,
        })
    }

    /// `POST /runtimes/{id}/{version}/{verb}`: `install`, `verify` or `repair`.
    ///
    /// # Errors
    /// Any [`ClientError`].
    pub async fn tend(
        &self,
        kind: Kind,
        id: &str,
        version: &str,
        verb: &str,
    ) -> Result<Accepted, ClientError> {
        self.post_empty(&format!("{}/{}/{}/{verb}", kind.path(), plain(id), plain(version))).await
    }

    /// `DELETE /runtimes/{id}/{version}`.
    ///
    /// # Errors
    /// Any [`ClientError`].
    pub async fn remove(
        &self,
        kind: Kind,
        id: &str,
        version: &str,
        force: bool,
    ) -> Result<Accepted, ClientError> {
        self.delete(&format!("{}/{}/{}", kind.path(), plain(id), plain(version)), force).await
    }

    /// `POST /runtimes/gc`.
    ///
    /// # Errors
    /// Any [`ClientError`].
    pub async fn collect(&self, kind: Kind) -> Result<Accepted, ClientError> {
        self.post_empty(&format!("{}/gc", kind.path())).await
    }

    /// `POST /runtimes/{id}/upgrade`.
    ///
    /// # Errors
    /// Any [`ClientError`].
    pub async fn upgrade(
        &self,
        kind: Kind,
        id: &str,
        request: &UpgradeRequest,
    ) -> Result<Accepted, ClientError> {
        self.post(&format!("{}/{}/upgrade", kind.path(), plain(id)), request).await
    }

    /// `POST /runtimes/{id}/rollback`.
    ///
    /// # Errors
    /// Any [`ClientError`].
    pub async fn roll_back(&self, kind: Kind, id: &str) -> Result<Accepted, ClientError> {
        self.post_empty(&format!("{}/{}/rollback", kind.path(), plain(id))).await
    }

    /// `GET /game/version`.
    ///
    /// # Errors
    /// Any [`ClientError`].
    pub async fn game_version(&self) -> Result<GameVersion, ClientError> {
        self.get("game/version").await
    }

    /// `POST /game/version`.
    ///
    /// # Errors
    /// Any [`ClientError`].
    pub async fn change_game_version(&self, request: &ChangeVersion) -> Result<Accepted, ClientError> {
        self.post("game/version", request).await
    }

    /// `POST /game/version/rollback`.
    ///
    /// # Errors
    /// Any [`ClientError`].
    pub async fn roll_back_game(&self) -> Result<Accepted, ClientError> {
        self.post_empty("game/version/rollback").await
    }

    /// `POST /game/version/{verb}`: `verify`, `repair` or `gc`.
    ///
    /// # Errors
    /// Any [`ClientError`].
    pub async fn tend_game(&self, verb: &str) -> Result<Accepted, ClientError> {
        self.post_empty(&format!("game/version/{verb}")).await
    }

    /// `DELETE /game/version/{version}`.
    ///
    /// # Errors
    /// Any [`ClientError`].
    pub async fn remove_game(&self, version: &str, force: bool) -> Result<Accepted, ClientError> {
        self.delete(&format!("game/version/{}", plain(version)), force).await
    }

    /// `DELETE /game/version/copies/{id}`.
    ///
    /// # Errors
    /// Any [`ClientError`].
    pub async fn remove_copy(&self, id: &str, force: bool) -> Result<Accepted, ClientError> {
        self.delete(&format!("game/version/copies/{}", plain(id)), force).await
    }

    /// `GET /agent/update/status`.
    ///
    /// # Errors
    /// Any [`ClientError`].
    pub async fn update_status(&self) -> Result<UpdateStatus, ClientError> {
        self.get("agent/update/status").await
    }

    /// `POST /agent/update`.
    ///
    /// # Errors
    /// Any [`ClientError`].
    pub async fn update_agent(&self, request: &UpdateRequest) -> Result<Accepted, ClientError> {
        self.post("agent/update", request).await
    }

    async fn post<T: serde::Serialize + Sync>(&self, path: &str, body: &T) -> Result<Accepted, ClientError> {
        let response = self.send(self.request(Method::POST, path).json(body)).await?;
        self.json(response).await
    }

    async fn delete(&self, path: &str, force: bool) -> Result<Accepted, ClientError> {
        let mut url = self.url(path);
        if force {
            url.query_pairs_mut().append_pair("force", "true");
        }
        let response = self.send(self.authorize(self.http.delete(url))).await?;
        self.json(response).await
    }

    async fn post_empty(&self, path: &str) -> Result<Accepted, ClientError> {
        let response = self.send(self.request(Method::POST, path)).await?;
        self.json(response).await
    }
}

/// A name that stays one component of a path.
fn plain(name: &str) -> String {
    name.replace('/', "")
}
