//! Shells of a container. [`Client::shell_stream`] looks at one.

use reqwest::Method;

use super::{Client, ClientError};
use crate::{NewShell, Shell, Shells};

impl Client {
    /// `GET /shells`.
    ///
    /// # Errors
    /// Any [`ClientError`].
    pub async fn shells(&self) -> Result<Vec<Shell>, ClientError> {
        Ok(self.get::<Shells>("shells").await?.shells)
    }

    /// `POST /shells`.
    ///
    /// # Errors
    /// Any [`ClientError`].
    pub async fn open_shell(&self, shell: &NewShell) -> Result<Shell, ClientError> {
        let response = self.send(self.request(Method::POST, "shells").json(shell)).await?;
        self.json(response).await
    }

    /// `DELETE /shells/{name}`.
    ///
    /// # Errors
    /// Any [`ClientError`].
    pub async fn close_shell(&self, name: &str) -> Result<(), ClientError> {
        let url = self.url(&format!("shells/{}", name.replace('/', "")));
        self.send(self.authorize(self.http.delete(url))).await.map(drop)
    }
}
