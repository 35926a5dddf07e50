//! Files from the artifact server: fetched, verified, unpacked, installed, packed.
//!
//! ```text
//! Artifact ──Fetcher──► cache/sha256/<hex> ──unpack──► staging ──Store──► .store/<name>-<version>-<sha>
//!  (catalog)  size+hash     (0444)           strict     (0700)    mark,     ▲
//!                                                                 rename    └─ <name>/<version> (symlink)
//! ```
//!
//! Nothing is unpacked, executable or visible before size and hash are those of the
//! catalog. An archive with one irregular entry is refused as a whole. "Installed" means
//! that the mark, written last, is there and names this very archive; anything else is
//! debris of an interrupted attempt, which the next one clears away.

mod beneath;
mod fetch;
mod hash;
mod pack;
mod place;
mod store;
mod unpack;

pub use fetch::{
    CacheWarning, FetchError, Fetched, Fetcher, OneServer, Pin, Refusal, S3Access, Servers, SystemResolver,
    Tuning, http_client,
};
pub use hash::{HashingWriter, hash_file};
pub use pack::{Pack, PackError, Packed, pack_dir};
pub use place::{Owner, PlaceError, check_placed, place_file, remove_placed};
pub use store::{Drift, DriftKind, Inspected, Install, InstallError, InstalledTree, Store};
pub use unpack::{Limits, Progress, UnpackError, Unpacked, unpack};
