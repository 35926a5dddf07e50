//! The signed catalog: fetched, verified, not older than the last one seen.
//!
//! ```text
//! configured keys ─► keys/2.json ─► keys/3.json … ─► catalog.json ─► what was seen is recorded
//!                    each signed by one of the list before           (after every check)
//! ```

use std::path::Path;

use serde::{Deserialize, Serialize};
use zlh_artifacts::{FetchError, Fetcher};
use zlh_catalog::{
    Catalog, CatalogError, Expiry, KeyList, KeyListError, PublicKey, RelPath, SignatureError, deployed,
    open_signed,
};
use zlh_shim::durable;

/// Largest catalog, bytes.
const MAX_CATALOG: u64 = 16 << 20;

/// Largest signature file, bytes.
const MAX_SIGNATURE: u64 = 8 << 10;

/// Largest list of keys, bytes.
const MAX_KEYS: u64 = 64 << 10;

/// Lists followed at once; whoever was away for longer follows the rest the next time.
const MAX_LISTS: usize = 64;

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
    /// Nobody said whom to trust.
    #[error(transparent)]
    NoKey(SignatureError),
    /// A configured key is none.
    #[error("a configured catalog key cannot be used")]
    Key(#[from] SignatureError),
    /// A list of keys.
    #[error("the list of keys {path} was refused")]
    KeyList {
        /// Its path on the artifact server.
        path: String,
        /// Why.
        #[source]
        source: KeyListError,
    },
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

/// What a catalog is believed for.
pub(crate) struct Trust<'a> {
    pub keys: &'a [String],
    /// Without a key: one without a signature is taken, too.
    pub unsigned: bool,
    /// Without a key: where there is no catalog, a list without hashes is taken.
    pub unpinned: bool,
}

/// A catalog to install from.
pub(crate) struct Loaded {
    pub catalog: Catalog,
    /// Whether it has sizes and hashes.
    pub pinned: bool,
    pub warnings: Vec<String>,
}

#[derive(Clone, Default, PartialEq, Serialize, Deserialize)]
struct Seen {
    serial: u64,
    /// The keys that were configured when `trusted` was found: others begin anew.
    #[serde(default)]
    configured: Vec<String>,
    /// The last list of keys and its number, if there was one.
    #[serde(default)]
    trusted: Option<(u64, Vec<String>)>,
}

/// Fetches and checks the catalog. What was seen is recorded only after every check passed.
pub(crate) async fn load(fetcher: &Fetcher, trust: &Trust<'_>, state: &Path) -> Result<Loaded, Error> {
    let keys = trust.keys;
    let record = state.join("catalog.json");
    // A record that cannot be read protects nothing, but must not stop everything either.
    let seen = durable::read_record::<Seen>(&record, SCHEMA).unwrap_or_default();
    let trusted = seen.trusted.clone().filter(|_| seen.configured == keys);
    if keys.is_empty() && !trust.unsigned && !trust.unpinned {
        return Err(Error::NoKey(SignatureError::NoKey));
    }
    let (trusted, keys_in_use) = follow_lists(fetcher, keys, trusted).await?;
    let bytes = match fetcher.get_small(&path("catalog.json")?, MAX_CATALOG).await {
        // Where there was a catalog before, it is only gone for a moment.
        Err(error) if error.is_not_found() && seen.serial == 0 => {
            return instead(fetcher, trust, error).await;
        }
        read => read?,
    };
    let unsigned = keys.is_empty();
    let catalog = if !unsigned {
        let signature = fetcher.get_small(&path("catalog.json.minisig")?, MAX_SIGNATURE).await?;
        open_signed(&bytes, &String::from_utf8_lossy(&signature), &keys_in_use)?
    } else if trust.unsigned {
        Catalog::parse(&bytes)?
    } else {
        // What pins hashes is never passed over for a list that does not.
        return Err(Error::NoKey(SignatureError::NoKey));
    };
    if catalog.serial < seen.serial {
        return Err(Error::Older { got: catalog.serial, seen: seen.serial });
    }
    let mut warnings = Vec::new();
    if unsigned {
        warnings.push(format!(
            "installed from a catalog without a signature (serial {}), as artifacts.allow_unsigned says",
            catalog.serial
        ));
    }
    match catalog.expiry(crate::clock::now()) {
        Expiry::TooOld(at) => return Err(Error::Expired(crate::clock::rfc3339(at))),
        Expiry::Expired(at) => {
            warnings.push(format!("the catalog expired on {}; publish a new one", crate::clock::rfc3339(at)))
        }
        Expiry::Current => {}
    }
    let now_seen = Seen { serial: catalog.serial, configured: keys.to_vec(), trusted };
    if now_seen != seen
        && let Err(error) = durable::write_record(&record, SCHEMA, &now_seen)
    {
        warnings.push(format!("the catalog's serial could not be recorded: {error}"));
    }
    Ok(Loaded { catalog, pinned: true, warnings })
}

/// Of a server without a catalog: its list, if that will do.
async fn instead(fetcher: &Fetcher, trust: &Trust<'_>, missing: FetchError) -> Result<Loaded, Error> {
    let list = match fetcher.get_small(&path(deployed::LIST)?, MAX_CATALOG).await {
        Err(error) if error.is_not_found() => return Err(missing.into()),
        read => read?,
    };
    // With a key there has to be a signature: who takes the catalog away gets nothing for it.
    if !trust.keys.is_empty() || !trust.unpinned {
        return Err(CatalogError::Unpinned.into());
    }
    Ok(Loaded { catalog: Catalog::from_list(&list)?, pinned: false, warnings: Vec::new() })
}

/// From the last list that is known to the newest that is published.
async fn follow_lists(
    fetcher: &Fetcher,
    configured: &[String],
    mut trusted: Option<(u64, Vec<String>)>,
) -> Result<(Option<(u64, Vec<String>)>, Vec<PublicKey>), Error> {
    let parse = |keys: &[String]| keys.iter().map(|key| key.parse()).collect::<Result<Vec<PublicKey>, _>>();
    if configured.is_empty() {
        return Ok((None, Vec::new()));
    }
    let mut keys = parse(trusted.as_ref().map_or(configured, |(_, keys)| keys))?;
    for _ in 0..MAX_LISTS {
        let serial = trusted.as_ref().map_or(1, |(serial, _)| *serial) + 1;
        let name = KeyList::path(serial);
        let bytes = match fetcher.get_small(&path(&name)?, MAX_KEYS).await {
            Ok(bytes) => bytes,
            Err(error) if error.is_not_found() => break,
            Err(error) => return Err(error.into()),
        };
        let signature = fetcher.get_small(&path(&format!("{name}.minisig"))?, MAX_SIGNATURE).await?;
        let list = KeyList::open(&bytes, &String::from_utf8_lossy(&signature), &keys, serial)
            .map_err(|source| Error::KeyList { path: name, source })?;
        trusted = Some((serial, list.keys.iter().map(ToString::to_string).collect()));
        keys = list.keys;
    }
    Ok((trusted, keys))
}

fn path(name: &str) -> Result<RelPath, FetchError> {
    RelPath::new(name).map_err(|_| FetchError::NotFound { path: name.to_owned() })
}
