//! What is remembered of the catalogs that were taken, `state/catalog.json`.
//!
//! A serial counts as long as the key that signed it is trusted: who stole a key can raise the
//! serial as far as he likes, and takes that along when his key is left out. So nobody can make an
//! agent forget a serial but by a list of keys, which a trusted key has signed, or by the
//! agent's configuration (ADR 0028).

use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use zlh_catalog::{Catalog, MAX_SERIAL, PublicKey, SignatureError};
use zlh_shim::durable;

const SCHEMA: u32 = 1;

/// Who signs where nothing has to be signed.
const NOBODY: &str = "";

/// A list of keys and its number.
pub(super) type Trusted = Option<(u64, Vec<String>)>;

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Seen {
    /// The highest of `serials`; all that earlier agents kept.
    serial: u64,
    /// The keys that were configured when the rest was found.
    #[serde(default)]
    configured: Vec<String>,
    /// The last list of keys, if there was one.
    #[serde(default)]
    trusted: Trusted,
    /// The highest serial by the key that signed it.
    #[serde(default)]
    serials: Option<BTreeMap<String, u64>>,
    /// An instant that has passed, whatever the clock says.
    #[serde(default)]
    passed: Option<Timestamp>,
}

/// A catalog that passed every check.
#[derive(Debug)]
pub(super) struct Taken {
    pub(super) configured: Vec<String>,
    pub(super) trusted: Trusted,
    /// The key that signed it; none where nothing has to be signed.
    pub(super) signer: Option<String>,
    pub(super) serial: u64,
    pub(super) issued: Timestamp,
}

impl Taken {
    pub(super) fn new(
        configured: &[String],
        trusted: Trusted,
        signer: Option<&PublicKey>,
        catalog: &Catalog,
    ) -> Self {
        let (configured, signer) = (configured.to_vec(), signer.map(ToString::to_string));
        Self { configured, trusted, signer, serial: catalog.serial, issued: catalog.issued }
    }
}

impl Seen {
    /// What is recorded. A record that cannot be read protects nothing, but must not stop
    /// everything either.
    pub(super) fn read(record: &Path) -> Self {
        durable::read_record(record, SCHEMA).unwrap_or_default()
    }

    /// Whether any catalog was taken before.
    pub(super) fn any(&self) -> bool {
        self.serial > 0 || self.serials.as_ref().is_some_and(|serials| !serials.is_empty())
    }

    /// The last list of keys, unless other keys are configured by now.
    pub(super) fn lists(&self, configured: &[String]) -> Trusted {
        self.trusted.clone().filter(|_| self.configured == configured)
    }

    /// The highest serial that somebody signed who is trusted now.
    pub(super) fn serial(&self, keys: &[PublicKey]) -> u64 {
        let in_use = names(keys);
        let counted = self.by_signer().into_iter().filter(|(signer, _)| in_use.contains(signer));
        counted.map(|(_, serial)| serial).max().unwrap_or(0)
    }

    /// The time, as far as it is known: a clock that was set back does not make old things new.
    pub(super) fn time(&self, clock: Timestamp) -> Timestamp {
        self.passed.map_or(clock, |passed| passed.max(clock))
    }

    fn by_signer(&self) -> BTreeMap<String, u64> {
        if let Some(serials) = &self.serials {
            return serials.clone();
        }
        // An agent of before did not say who signed. What no catalog can have was a trap.
        if self.serial == 0 || self.serial > MAX_SERIAL {
            return BTreeMap::new();
        }
        let keys = self.trusted.as_ref().map_or(&self.configured, |(_, keys)| keys);
        names(&parse(keys).unwrap_or_default()).into_iter().map(|key| (key, self.serial)).collect()
    }

    /// This, with one more catalog. Nothing that it has is lowered by one that came late.
    fn with(&self, taken: &Taken, clock: Timestamp) -> Self {
        let newer = |one: &Trusted| one.as_ref().map(|(number, _)| *number);
        let known = self.lists(&taken.configured);
        let trusted = if newer(&known) > newer(&taken.trusted) { known } else { taken.trusted.clone() };
        let mut serials = self.by_signer();
        let signer = taken.signer.clone().unwrap_or_else(|| NOBODY.to_owned());
        let highest = serials.entry(signer).or_default();
        *highest = taken.serial.max(*highest);
        let keys = trusted.as_ref().map_or(&taken.configured, |(_, keys)| keys);
        let in_use = names(&parse(keys).unwrap_or_default());
        serials.retain(|signer, _| in_use.contains(signer));
        Self {
            serial: serials.values().copied().max().unwrap_or(0),
            configured: taken.configured.clone(),
            trusted,
            serials: Some(serials),
            // Two witnesses: a publisher whose clock is ahead does not make everything else
            // expire, and neither does ours.
            passed: self.passed.max(Some(taken.issued.min(clock))),
        }
    }
}

/// Adds a catalog to the record, as it is by now: others may have read a newer one meanwhile.
pub(super) fn record(record: &Path, taken: &Taken, clock: Timestamp) -> io::Result<()> {
    static WRITING: Mutex<()> = Mutex::new(());
    let _alone = WRITING.lock().unwrap_or_else(PoisonError::into_inner);
    let before = Seen::read(record);
    let after = before.with(taken, clock);
    if after == before { Ok(()) } else { durable::write_record(record, SCHEMA, &after) }
}

/// Keys as they are configured, with their comments or without.
pub(super) fn parse(keys: &[String]) -> Result<Vec<PublicKey>, SignatureError> {
    keys.iter().map(|key| key.parse()).collect()
}

/// How serials are told apart.
fn names(keys: &[PublicKey]) -> Vec<String> {
    if keys.is_empty() {
        return vec![NOBODY.to_owned()];
    }
    keys.iter().map(ToString::to_string).collect()
}
