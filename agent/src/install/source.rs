//! Where everything comes from: the servers, and what is said of their files.

use std::path::PathBuf;

use slog::{Logger, info, warn};
use zlh_artifacts::{FetchError, Fetcher, Servers, Tuning};
use zlh_catalog::{Artifact, Catalog, RuntimeVersion};

use super::pins::Pins;
use super::{InstallError, Step, blocking, catalog, say};
use crate::config::AgentConfig;
use crate::paths::Paths;

/// A fetcher and the catalog it read.
pub(crate) struct Source {
    fetcher: Fetcher,
    pub catalog: Catalog,
    /// Of a server whose list has no hashes: what its files were at their first use.
    pins: Option<Pins>,
    pub warnings: Vec<String>,
    log: Logger,
}

impl Source {
    /// Reads the catalog.
    pub(crate) async fn open(
        config: &AgentConfig,
        paths: &Paths,
        log: &Logger,
        report: &impl Fn(Step),
    ) -> Result<Self, InstallError> {
        let url = config.artifacts_url.clone().ok_or(InstallError::NoServer)?;
        let mut urls = vec![url];
        urls.extend(config.artifacts.mirrors.iter().cloned());
        let servers = Servers { urls, s3: config.artifacts.s3.clone() };
        let tuning = Tuning { cache_budget: config.artifacts.cache_bytes, ..Tuning::default() };
        let cache = paths.cache();
        let fetcher = blocking(move || Fetcher::of(&servers, cache, tuning)).await??;
        say(report, "reading the catalog");
        let trust = catalog::Trust {
            keys: &config.catalog_keys,
            unsigned: config.artifacts.allow_unsigned,
            unpinned: config.artifacts.allow_unpinned,
        };
        let loaded = catalog::load(&fetcher, &trust, &paths.state()).await?;
        for refusal in &loaded.refused {
            warn!(log, "the catalog of an artifact server was passed over"; "why" => refusal);
        }
        let pins = (!loaded.pinned).then(|| Pins::new(&paths.state()));
        let mut warnings = loaded.warnings;
        if let Some(pins) = &pins {
            warnings.push(format!(
                "installed from a list without hashes, as artifacts.allow_unpinned says: what was fetched first \
                 is taken for right ({})",
                pins.path().display()
            ));
        }
        Ok(Self { fetcher, catalog: loaded.catalog, pins, warnings, log: log.clone() })
    }

    /// An artifact of the catalog with a size and a hash to be held to.
    pub(super) async fn pinned(
        &self,
        artifact: &Artifact,
        report: &(impl Fn(Step) + Clone + Send),
    ) -> Result<Artifact, InstallError> {
        match &self.pins {
            Some(pins) => pins.pin(&self.fetcher, artifact, &self.log, report).await,
            None => Ok(artifact.clone()),
        }
    }

    /// The same of a runtime's or an addon's archive.
    pub(super) async fn pinned_runtime(
        &self,
        version: &RuntimeVersion,
        report: &(impl Fn(Step) + Clone + Send),
    ) -> Result<RuntimeVersion, InstallError> {
        let archive = self.pinned(&version.archive, report).await?;
        Ok(RuntimeVersion { archive, ..version.clone() })
    }

    /// A verified file in the cache.
    pub(crate) async fn fetch(
        &self,
        artifact: &Artifact,
        report: &(impl Fn(Step) + Clone + Send),
    ) -> Result<PathBuf, InstallError> {
        let (log, text) = (&self.log, format!("fetching {}", artifact.path.file_name()));
        say(report, &text);
        let progress = {
            let (report, size) = (report.clone(), artifact.size);
            move |done| report(Step { text: text.clone(), bytes: Some((done, size)) })
        };
        let fetched = match self.fetcher.fetch(artifact, progress).await {
            Ok(fetched) => fetched,
            // An encoding says nothing of the bytes beneath it.
            Err(error) if error.is_wrong_content() && !matches!(error, FetchError::Encoded { .. }) => {
                return Err(self.changed(artifact, error));
            }
            Err(error) => return Err(error.into()),
        };
        if let Some(warning) = &fetched.warning {
            warn!(log, "a damaged file of the cache was replaced"; "file" => %artifact.path, "why" => %warning);
        }
        for refusal in &fetched.refused {
            warn!(log, "an artifact server was asked in vain"; "file" => %artifact.path, "why" => %refusal);
        }
        info!(log, "fetched and verified"; "file" => %artifact.path, "sha256" => %artifact.sha256, "from_cache" => fetched.from_cache);
        Ok(fetched.path)
    }

    /// Says since when it was to be something else, where that was not a catalog's to say.
    fn changed(&self, artifact: &Artifact, error: zlh_artifacts::FetchError) -> InstallError {
        let known = self.pins.as_ref().and_then(|pins| Some((pins, pins.known(artifact).ok()??)));
        match known {
            Some((pins, known)) => InstallError::Changed {
                path: artifact.path.to_string(),
                at: known.at,
                record: pins.path().to_owned(),
                source: error,
            },
            None => error.into(),
        }
    }
}
