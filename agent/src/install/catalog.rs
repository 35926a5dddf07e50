//! The signed catalog: fetched, verified, not older than the last one seen.

use std::path::Path;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use zlh_artifacts::{FetchError, Fetcher};
use zlh_catalog::{Catalog, CatalogError, PublicKey, RelPath, SignatureError, open_signed};
use zlh_shim::durable;

/// Largest catalog, bytes.
const MAX_CATALOG: u64 = 16 << 20;

/// Largest signature file, bytes.
const MAX_SIGNATURE: u64 = 8 << 10;

/// How long an expired catalog is still good for new installs, with a warning.
const GRACE: Duration = Duration::from_secs(7 * 24 * 3600);

const SCHEMA: u32 = 1;

/// Why there is no catalog to install from.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// It could not be fetched.
    #[error("the catalog could not be read from the artifact server")]
    Fetch(#[from] FetchError),
    /// It is not signed as it should be, or not valid.
    #[error("the catalog was refused")]
    Refused(#[from] CatalogError),
    /// A configured key is none.
    #[error("a configured catalog key cannot be used")]
    Key(#[from] SignatureError),
    /// It is older than one that was seen before.
    #[error(
        "the catalog was refused: its serial {got} is older than {seen}, which was seen before; publish the current one again"
    )]
    Older {
        /// Serial it has.
        got: u64,
        /// Serial seen before.
        seen: u64,
    },
    /// It is too old for new installs.
    #[error(
        "the catalog was refused: it expired on {0}; publish a new one (what is installed goes on running)"
    )]
    Expired(String),
}

/// A catalog to install from.
pub(crate) struct Loaded {
    pub catalog: Catalog,
    pub warnings: Vec<String>,
}

#[derive(Default, Serialize, Deserialize)]
struct Seen {
    serial: u64,
}

/// Fetches and checks the catalog. What was seen is recorded only after every check passed.
pub(crate) async fn load(fetcher: &Fetcher, keys: &[String], state: &Path) -> Result<Loaded, Error> {
    let keys = keys.iter().map(|key| key.parse()).collect::<Result<Vec<PublicKey>, _>>()?;
    let path = |name: &str| RelPath::new(name).map_err(|_| FetchError::NotFound { path: name.to_owned() });
    let bytes = fetcher.get_small(&path("catalog.json")?, MAX_CATALOG).await?;
    let signature = fetcher.get_small(&path("catalog.json.minisig")?, MAX_SIGNATURE).await?;
    let catalog = open_signed(&bytes, &String::from_utf8_lossy(&signature), &keys)?;
    let record = state.join("catalog.json");
    // A record that cannot be read protects nothing, but must not stop everything either.
    let seen = durable::read_record::<Seen>(&record, SCHEMA).unwrap_or_default();
    if catalog.serial < seen.serial {
        return Err(Error::Older { got: catalog.serial, seen: seen.serial });
    }
    let mut warnings = Vec::new();
    if let Some(expires) = catalog.expires {
        let now = crate::clock::now();
        if now > expires.saturating_add(GRACE).unwrap_or(jiff::Timestamp::MAX) {
            return Err(Error::Expired(crate::clock::rfc3339(expires)));
        }
        if now > expires {
            warnings.push(format!(
                "the catalog expired on {}; publish a new one",
                crate::clock::rfc3339(expires)
            ));
        }
    }
    if catalog.serial > seen.serial
        && let Err(error) = durable::write_record(&record, SCHEMA, &Seen { serial: catalog.serial })
    {
        warnings.push(format!("the catalog's serial could not be recorded: {error}"));
    }
    Ok(Loaded { catalog, warnings })
}
