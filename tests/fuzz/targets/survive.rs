//! Unpacking whatever it is.

use zlh_artifacts::Limits;
use zlh_catalog::MediaType;

use crate::bench::Bench;

/// Nothing gets out, and nothing but plain files is left.
pub(crate) fn survive(data: &[u8], media_type: MediaType) {
    let bench = Bench::new();
    let limits = Limits { total_bytes: 1 << 20, entries: 200, ..Limits::default() };
    let result = bench.unpack(data, media_type, 0, &limits);
    bench.assert_contained(&format!("{result:?}"), result.is_ok());
}
