//! The catalog: what can be installed, from which verified files, and how it runs.
//!
//! One signed JSON document pins size and SHA-256 of every file. It is read in
//! this order, and only the last step hands anything out:
//!
//! ```text
//! bytes ──► signature (minisign, pinned key) ──► parse (closed types) ──► validate ──► Catalog
//! ```
//!
//! Code knows families of servers, not versions: how a version is installed and
//! started is a [`LaunchPlan`], data in the catalog or one of the built-in plans
//! for the six deployed Minecraft variants.

mod builtin;
mod check_plan;
pub mod deployed;
mod diff;
mod document;
mod entry;
mod expiry;
#[cfg(test)]
mod fixtures;
mod keys;
mod launch;
mod lint;
mod lookup;
mod name;
mod release;
mod signature;
#[cfg(feature = "sign")]
mod signing;
mod stop;
mod template;
mod validate;
mod version;

pub use builtin::version_arguments;
pub use diff::{Difference, DifferenceKind, diff};
pub use document::{
    AgentRelease, Artifact, Catalog, Game, GameVersion, MediaType, Requirement, Runtime, RuntimeVersion,
    Variant,
};
pub use entry::{Entry, EntryFile, EntryKind};
pub use expiry::Expiry;
pub use keys::{KeyList, KeyListError};
pub use launch::{FileFormat, FileRule, InstallStep, LaunchPlan, Probe, Readiness, SaveProtocol};
pub use lint::{Lint, lint};
pub use lookup::LookupError;
pub use name::{Id, NameError, RelPath, Sha256, Shown, check_component, is_deceptive};
pub use release::{Audience, Release, STABLE};
pub use signature::{PublicKey, SignatureError, open_signed, open_signed_by};
#[cfg(feature = "sign")]
pub use signing::{SecretKey, SigningError};
pub use stop::{StopOverride, StopProtocol, StopWarning};
pub use template::{Template, TemplateError, Values, Variable};
pub use validate::{CatalogError, MAX_SERIAL, Problem};
pub use version::{RangeError, VersionRange, compare_versions, is_snapshot};

/// The JSON Schema (draft 2020-12) of a catalog, for editors and other tools.
pub const SCHEMA_JSON: &str = include_str!("../schema.json");
