//! An S3-compatible bucket (S3, R2, MinIO): every request carries a signature for that
//! object, made anew, so no credentials travel and nothing of them is in a log.

use std::fmt;
use std::time::Duration;

use reqwest::Url;
use rusty_s3::actions::S3Action;
use rusty_s3::{Bucket, Credentials, UrlStyle};
use zlh_catalog::RelPath;

use super::http::Http;
use super::{Body, FetchError, Opening, Resume, Source};

/// Who may read the bucket.
#[derive(Clone, PartialEq, Eq)]
pub struct S3Access {
    /// Access key id.
    pub key: String,
    /// Secret access key.
    pub secret: String,
    /// For example `eu-central-1`; `auto` for R2.
    pub region: String,
}

#[derive(Debug)]
pub(super) struct S3 {
    http: Http,
    bucket: Bucket,
    credentials: Credentials,
    /// In front of every object's name.
    prefix: String,
}

impl S3 {
    /// `base` is `http(s)://host/bucket/prefix`.
    pub(super) fn new(http: Http, base: &Url, access: Option<&S3Access>) -> Result<Self, &'static str> {
        let access = access.ok_or("a bucket needs AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY")?;
        let path = base.path().trim_matches('/');
        let (name, prefix) = path.split_once('/').unwrap_or((path, ""));
        if name.is_empty() {
            return Err("it does not name a bucket");
        }
        let mut endpoint = base.clone();
        endpoint.set_path("/");
        let bucket = Bucket::new(endpoint, UrlStyle::Path, name.to_owned(), access.region.clone())
            .map_err(|_| "it is no bucket's URL")?;
        let credentials = Credentials::new(access.key.clone(), access.secret.clone());
        let prefix = if prefix.is_empty() { String::new() } else { format!("{prefix}/") };
        Ok(Self { http, bucket, credentials, prefix })
    }

    async fn object(&self, path: &RelPath, from: Option<&Resume>) -> Result<Body, FetchError> {
        let object = format!("{}{path}", self.prefix);
        let url = self.bucket.get_object(Some(&self.credentials), &object).sign(VALID);
        self.http.get(url, path, from).await
    }
}

impl Source for S3 {
    fn name(&self) -> &str {
        self.http.name()
    }

    fn open<'a>(&'a self, path: &'a RelPath, from: Option<&'a Resume>) -> Opening<'a> {
        Box::pin(self.object(path, from))
    }

    /// Who may read objects and not list them is told no more.
    fn hides_what_is_missing(&self) -> bool {
        true
    }
}

impl fmt::Debug for S3Access {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("S3Access")
            .field("key", &self.key)
            .field("region", &self.region)
            .finish_non_exhaustive()
    }
}

/// Of a signature: for the request to begin, not for the transfer to end.
const VALID: Duration = Duration::from_secs(15 * 60);
