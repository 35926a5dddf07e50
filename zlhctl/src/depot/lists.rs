//! The lists of keys of a store, followed as agents follow them: one by one, from the second.

use zlh_catalog::{KeyList, KeyListError, PublicKey};

/// How far they were followed, and whom the last of them trusts.
#[derive(Debug, Clone)]
pub(crate) struct Chain {
    serial: u64,
    keys: Vec<PublicKey>,
}

impl Chain {
    /// From the keys that agents are configured with. Without any, the first list that there is
    /// gets taken at its word.
    pub(crate) fn from(configured: &[PublicKey]) -> Self {
        Self { serial: 1, keys: configured.to_vec() }
    }

    /// Number of the last list.
    pub(crate) fn serial(&self) -> u64 {
        self.serial
    }

    /// Whom it trusts; nobody is known as long as none was configured and no list came.
    pub(crate) fn keys(&self) -> &[PublicKey] {
        &self.keys
    }

    /// Where the next list is, and its signature.
    pub(crate) fn next(&self) -> (String, String) {
        let path = KeyList::path(self.serial + 1);
        let signed = format!("{path}.minisig");
        (path, signed)
    }

    /// Takes the next list, if agents would.
    pub(crate) fn take(&mut self, bytes: &[u8], signature: &[u8]) -> Result<(), KeyListError> {
        let serial = self.serial + 1;
        let list = match self.keys.as_slice() {
            [] => KeyList::unchecked(bytes, serial)?,
            before => KeyList::open(bytes, &String::from_utf8_lossy(signature), before, serial)?,
        };
        *self = Self { serial, keys: list.keys };
        Ok(())
    }

    /// Leaves the next list out: whoever is trusted may be of a later one.
    pub(crate) fn pass_over(&mut self) {
        self.serial += 1;
    }
}
