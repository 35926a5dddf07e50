//! The signed catalog: fetched, verified, not older than the last one seen.
//!
//! ```text
//! configured keys ─► keys/2.json ─► keys/3.json … ─► catalog.json ─► what was seen is recorded
//!                    each signed by one of the list before           (after every check)
//! └───────────────── all of it from one server ──────────────────┘
//!                    what fails there, sends us to the next one
//! ```

mod seen;
#[cfg(test)]
mod tests;

use std::path::Path;
use std::time::Duration;

use jiff::Timestamp;
use zlh_artifacts::{FetchError, Fetcher, OneServer};
use zlh_catalog::{
    Catalog, CatalogError, Expiry, KeyList, KeyListError, PublicKey, RelPath, SignatureError, deployed,
    open_signed_by,
};

use self::seen::{Seen, Taken, Trusted, parse, record};
use crate::errors::chain;

const CATALOG: &str = "catalog.json";

/// Largest catalog, bytes.
const MAX_CATALOG: u64 = 16 << 20;

/// Largest signature file, bytes.
const MAX_SIGNATURE: u64 = 8 << 10;

/// Largest list of keys, bytes.
const MAX_KEYS: u64 = 64 << 10;

/// Lists followed at once; whoever was away for longer follows the rest the next time.
const MAX_LISTS: usize = 64;

/// From one rename of a publication to the last one, with room to spare.
const PUBLICATION: Duration = Duration::from_millis(500);

/// How far a clock may be off without anybody being told.
const CLOCKS_APART: Duration = Duration::from_secs(24 * 3600);

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
        "the catalog was refused: its serial {got} is older than {seen}, which was seen before; publish the current one again, or, if a key was stolen, leave that key out: zlhctl catalog rotate"
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
    /// Neither the server nor a mirror has one.
    #[error("no artifact server has a catalog to install from: {}", named(.0))]
    None(Vec<(String, Self)>),
}

impl Error {
    /// Of one server its error; of several all of them.
    fn of_all(mut refused: Vec<(String, Self)>) -> Self {
        match refused.len() {
            1 => refused.swap_remove(0).1,
            _ => Self::None(refused),
        }
    }

    /// Whether the server says that it has no catalog.
    fn is_no_catalog(&self) -> bool {
        matches!(self, Self::Fetch(FetchError::NotFound { path }) if path == CATALOG)
    }

    /// Whether asking the same server once more may end differently.
    fn is_transient(&self) -> bool {
        matches!(self, Self::Fetch(error) if error.is_transient())
    }

    /// Whether a file and its signature may be of two editions, read while one took the place
    /// of the other.
    fn may_be_half_published(&self) -> bool {
        match self {
            Self::Refused(CatalogError::Signature(error)) => !matches!(error, SignatureError::Legacy),
            Self::KeyList { source, .. } => {
                matches!(source, KeyListError::OtherKey { .. } | KeyListError::Signature(_))
            }
            _ => false,
        }
    }
}

fn named(refused: &[(String, Error)]) -> String {
    let one = |(server, error): &(String, Error)| format!("{server}: {}", chain(error));
    refused.iter().map(one).collect::<Vec<_>>().join("; ")
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
    /// Servers that were passed over, and why.
    pub refused: Vec<String>,
}

/// What one server offers, and passed every check.
struct Offer {
    catalog: Catalog,
    taken: Taken,
    warnings: Vec<String>,
}

/// Fetches and checks the catalog. What was seen is recorded only after every check passed.
pub(crate) async fn load(fetcher: &Fetcher, trust: &Trust<'_>, state: &Path) -> Result<Loaded, Error> {
    load_at(crate::clock::now(), fetcher, trust, state).await
}

async fn load_at(
    now: Timestamp,
    fetcher: &Fetcher,
    trust: &Trust<'_>,
    state: &Path,
) -> Result<Loaded, Error> {
    if trust.keys.is_empty() && !trust.unsigned && !trust.unpinned {
        return Err(Error::NoKey(SignatureError::NoKey));
    }
    parse(trust.keys)?;
    let place = state.join("catalog.json");
    let seen = Seen::read(&place);
    let look = Look { now, trust, seen: &seen };
    let (offer, refused) = look.at_all(fetcher).await;
    let Some(offer) = offer else {
        // Where there was a catalog before, it is only gone for a moment.
        let never = !seen.any() && refused.iter().all(|(_, error)| error.is_no_catalog());
        let error = Error::of_all(refused);
        return if never { instead(fetcher, trust, error).await } else { Err(error) };
    };
    let Offer { catalog, taken, mut warnings } = offer;
    if let Err(error) = record(&place, &taken, now) {
        warnings.push(format!("the catalog's serial could not be recorded: {error}"));
    }
    let refused = refused.iter().map(|(server, error)| format!("{server}: {}", chain(error))).collect();
    Ok(Loaded { catalog, pinned: true, warnings, refused })
}

/// Of servers without a catalog: their list, if that will do.
async fn instead(fetcher: &Fetcher, trust: &Trust<'_>, missing: Error) -> Result<Loaded, Error> {
    let list = match fetcher.get_small(&path(deployed::LIST)?, MAX_CATALOG).await {
        Err(error) if error.is_not_found() => return Err(missing),
        read => read?,
    };
    // With a key there has to be a signature: who takes the catalog away gets nothing for it.
    if !trust.keys.is_empty() || !trust.unpinned {
        return Err(CatalogError::Unpinned.into());
    }
    let catalog = Catalog::from_list(&list)?;
    Ok(Loaded { catalog, pinned: false, warnings: Vec::new(), refused: Vec::new() })
}

/// A look at the servers, and what it takes to be content with one.
struct Look<'a> {
    now: Timestamp,
    trust: &'a Trust<'a>,
    seen: &'a Seen,
}

impl Look<'_> {
    /// The first good offer, and the servers before it with what is wrong with theirs.
    async fn at_all(&self, fetcher: &Fetcher) -> (Option<Offer>, Vec<(String, Error)>) {
        let servers = fetcher.servers();
        let mut refused: Vec<Option<Error>> = servers.iter().map(|_| None).collect();
        // A server that does not answer is waited for only when no other one is any good.
        let rounds: &[bool] = if servers.len() > 1 { &[true, false] } else { &[false] };
        let mut offer = None;
        'found: for hurried in rounds {
            for (server, before) in servers.iter().zip(&mut refused) {
                if before.as_ref().is_some_and(|error| !error.is_transient()) {
                    continue;
                }
                let asked = if *hurried { server.hurried() } else { *server };
                match self.at(&asked).await {
                    Ok(good) => {
                        (offer, *before) = (Some(good), None);
                        break 'found;
                    }
                    Err(error) => {
                        server.demote();
                        *before = Some(error);
                    }
                }
            }
        }
        let named = servers.iter().zip(refused);
        let refused = named.filter_map(|(server, error)| Some((server.name().to_owned(), error?))).collect();
        (offer, refused)
    }

    async fn at(&self, server: &OneServer<'_>) -> Result<Offer, Error> {
        match self.read(server).await {
            // It renames one file after the other.
            Err(error) if error.may_be_half_published() => {
                tokio::time::sleep(PUBLICATION).await;
                self.read(server).await
            }
            read => read,
        }
    }

    async fn read(&self, server: &OneServer<'_>) -> Result<Offer, Error> {
        let configured = self.trust.keys;
        let (trusted, keys) = follow_lists(server, configured, self.seen.lists(configured)).await?;
        let bytes = server.get_small(&path(CATALOG)?, MAX_CATALOG).await?;
        let (catalog, signer) = if !configured.is_empty() {
            let signature = server.get_small(&path("catalog.json.minisig")?, MAX_SIGNATURE).await?;
            let (catalog, key) = open_signed_by(&bytes, &String::from_utf8_lossy(&signature), &keys)?;
            (catalog, Some(key))
        } else if self.trust.unsigned {
            (Catalog::parse(&bytes)?, None)
        } else {
            // What pins hashes is never passed over for a list that does not.
            return Err(Error::NoKey(SignatureError::NoKey));
        };
        let warnings = self.judge(&catalog, &keys)?;
        let taken = Taken::new(configured, trusted, signer, &catalog);
        Ok(Offer { catalog, taken, warnings })
    }

    /// What is to be said of a catalog that is fit to install from.
    fn judge(&self, catalog: &Catalog, keys: &[PublicKey]) -> Result<Vec<String>, Error> {
        let seen = self.seen.serial(keys);
        if catalog.serial < seen {
            return Err(Error::Older { got: catalog.serial, seen });
        }
        let mut warnings = Vec::new();
        if self.trust.keys.is_empty() {
            warnings.push(format!(
                "installed from a catalog without a signature (serial {}), as artifacts.allow_unsigned says",
                catalog.serial
            ));
        }
        let time = self.seen.time(self.now);
        let latest = time.max(catalog.issued);
        if self.now.saturating_add(CLOCKS_APART).is_ok_and(|clock| clock < latest) {
            warnings.push(format!(
                "the clock says {}, and a catalog is of {}: set the one that is wrong, whether a catalog has \
                 expired cannot be told",
                crate::clock::rfc3339(self.now),
                crate::clock::rfc3339(latest)
            ));
        }
        match catalog.expiry(time) {
            Expiry::TooOld(at) => return Err(Error::Expired(crate::clock::rfc3339(at))),
            Expiry::Expired(at) => {
                warnings
                    .push(format!("the catalog expired on {}; publish a new one", crate::clock::rfc3339(at)));
            }
            Expiry::Current => {}
        }
        Ok(warnings)
    }
}

/// From the last list that is known to the newest that a server has.
async fn follow_lists(
    server: &OneServer<'_>,
    configured: &[String],
    mut trusted: Trusted,
) -> Result<(Trusted, Vec<PublicKey>), Error> {
    if configured.is_empty() {
        return Ok((None, Vec::new()));
    }
    let mut keys = parse(trusted.as_ref().map_or(configured, |(_, keys)| keys))?;
    for _ in 0..MAX_LISTS {
        let serial = trusted.as_ref().map_or(1, |(serial, _)| *serial) + 1;
        let name = KeyList::path(serial);
        let Some(bytes) = server.get_if_there(&path(&name)?, MAX_KEYS).await? else { break };
        let signature = server.get_small(&path(&format!("{name}.minisig"))?, MAX_SIGNATURE).await?;
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
