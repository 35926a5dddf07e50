//! How things look: tables, progress, units, and text from servers made harmless.

pub(crate) mod escape;
pub(crate) mod progress;
pub(crate) mod table;
pub(crate) mod units;
