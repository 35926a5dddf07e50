//! One 512-byte tar header, read strictly.
//!
//! Numbers are octal digits or the positive base-256 form; anything else, a wrong
//! checksum included, is damage. Nothing here allocates more than a path.

use super::UnpackError;

/// The fields that matter. Owner and times are not read: they are never applied.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Header {
    pub(crate) path: Vec<u8>,
    pub(crate) link: Vec<u8>,
    pub(crate) mode: u64,
    pub(crate) size: u64,
    pub(crate) kind: u8,
}

pub(crate) const BLOCK: usize = 512;

impl Header {
    pub(crate) fn parse(block: &[u8; BLOCK]) -> Result<Self, UnpackError> {
        let damaged = |what: &str| UnpackError::Damaged(format!("a header has an impossible {what}"));
        if number(&block[148..156]) != Some(checksum(block)) {
            return Err(UnpackError::Damaged("a header does not match its checksum".to_owned()));
        }
        let mut path = text(&block[..100]).to_vec();
        // Only POSIX archives continue the path here; GNU's have times in these bytes.
        if &block[257..263] == b"ustar\0" {
            let prefix = text(&block[345..500]);
            if !prefix.is_empty() {
                path = [prefix, b"/", &path].concat();
            }
        }
        Ok(Self {
            path,
            link: text(&block[157..257]).to_vec(),
            mode: number(&block[100..108]).ok_or_else(|| damaged("mode"))?,
            size: number(&block[124..136]).ok_or_else(|| damaged("size"))?,
            kind: block[156],
        })
    }
}

fn text(field: &[u8]) -> &[u8] {
    let end = field.iter().position(|byte| *byte == 0).unwrap_or(field.len());
    &field[..end]
}

/// Octal digits between spaces and NULs, or base-256 with the first bit set.
fn number(field: &[u8]) -> Option<u64> {
    if field[0] & 0x80 != 0 {
        let (head, tail) = field.split_at(field.len().checked_sub(8).unwrap_or(1).max(1));
        let positive = head[0] == 0x80 && head[1..].iter().all(|byte| *byte == 0);
        let value =
            tail.iter().try_fold(0_u64, |value, byte| value.checked_mul(256)?.checked_add((*byte).into()))?;
        return (positive && i64::try_from(value).is_ok()).then_some(value);
    }
    let end = field.iter().rposition(|byte| !b" \0".contains(byte)).map_or(0, |last| last + 1);
    let start = field[..end].iter().position(|byte| *byte != b' ').unwrap_or(end);
    field[start..end].iter().try_fold(0_u64, |value, byte| match byte {
        b'0'..=b'7' => value.checked_mul(8)?.checked_add(u64::from(byte - b'0')),
        _ => None,
    })
}

/// The sum of all bytes, those of the checksum itself counted as spaces.
fn checksum(block: &[u8; BLOCK]) -> u64 {
    let own: u64 = block[148..156].iter().map(|byte| u64::from(*byte)).sum();
    block.iter().map(|byte| u64::from(*byte)).sum::<u64>() - own + 8 * u64::from(b' ')
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn numbers() {
        for (field, expected) in [
            (b"0000644\0".as_slice(), Some(0o644)),
            (b"   644 \0", Some(0o644)),
            (b"\0\0\0\0\0\0\0\0", Some(0)),
            (b"0000648\0", None),
            (b"-000001\0", None),
            (b"06 44\0\0\0", None),
            (b"\x80\0\0\0\0\0\x02\0", Some(512)),
            (b"\xff\xff\xff\xff\xff\xff\xff\xff", None),
            (b"\x80\0\0\0\0\0\0\0\0\0\x02\0", Some(512)),
            (b"\x80\0\0\x01\0\0\0\0\0\0\0\0", None),
            (b"\x80\0\0\0\xff\0\0\0\0\0\0\0", None),
            (b"77777777777\0", Some(0o77_777_777_777)),
        ] {
            assert_eq!(number(field), expected, "{field:?}");
        }
    }

    proptest! {
        #[test]
        fn any_block_parses_or_is_refused(bytes in proptest::collection::vec(any::<u8>(), BLOCK)) {
            let mut block: [u8; BLOCK] = bytes.try_into().unwrap();
            let _ = Header::parse(&block);
            let sum = format!("{:06o}\0 ", checksum(&block));
            block[148..156].copy_from_slice(sum.as_bytes());
            let _ = Header::parse(&block);
        }
    }
}
