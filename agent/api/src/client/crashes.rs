//! Crashes, and what the agent can do about one.

use reqwest::Method;

use super::{Client, ClientError};
use crate::{Accepted, CrashRecord, Crashes};

impl Client {
    /// The last crashes, newest first.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn crashes(&self) -> Result<Vec<CrashRecord>, ClientError> {
        Ok(self.get_large::<Crashes>("crashes").await?.crashes)
    }

    /// One crash with its evidence.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn crash(&self, id: &str) -> Result<CrashRecord, ClientError> {
        self.get(&format!("crashes/{}", id.replace('/', ""))).await
    }

    /// Has the agent do what a step of a crash's remedy offers.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn act_on_crash(&self, id: &str, action: &str) -> Result<Accepted, ClientError> {
        let path = format!("crashes/{}/actions/{}", id.replace('/', ""), action.replace('/', ""));
        let response = self.send(self.request(Method::POST, &path)).await?;
        self.json(response).await
    }
}
