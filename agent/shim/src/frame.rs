//! Frames: `u32 length | u16 type | u32 request id | CBOR body`, little endian.
//!
//! The length counts what follows it. A frame above [`MAX_BODY`] is refused
//! before a byte of it is buffered, so a lying peer costs nothing.

/// Longest body, bytes.
pub const MAX_BODY: usize = 256 << 10;

/// Bytes between the length and the body.
const HEADER: usize = 6;

/// A received frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    /// Message type.
    pub kind: u16,
    /// Chosen by the requester, repeated in the answer.
    pub id: u32,
    /// CBOR.
    pub body: Vec<u8>,
}

/// The peer does not speak this protocol.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// The length is out of bounds.
    #[error("frame length {0} is out of bounds (6 to {max})", max = MAX_BODY + HEADER)]
    Length(u32),
}

/// Appends one frame to `out`.
pub fn encode(kind: u16, id: u32, body: &[u8], out: &mut Vec<u8>) {
    debug_assert!(body.len() <= MAX_BODY, "callers bound their bodies");
    let length = u32::try_from(HEADER + body.len()).unwrap_or(u32::MAX);
    out.extend_from_slice(&length.to_le_bytes());
    out.extend_from_slice(&kind.to_le_bytes());
    out.extend_from_slice(&id.to_le_bytes());
    out.extend_from_slice(body);
}

/// Takes the first whole frame out of `input`, if there is one.
pub fn take(input: &mut Vec<u8>) -> Result<Option<Frame>, FrameError> {
    let Some(length) = input.first_chunk::<4>().map(|b| u32::from_le_bytes(*b)) else { return Ok(None) };
    let size = usize::try_from(length).unwrap_or(usize::MAX);
    if !(HEADER..=HEADER + MAX_BODY).contains(&size) {
        return Err(FrameError::Length(length));
    }
    if input.len() < 4 + size {
        return Ok(None);
    }
    let frame = Frame {
        kind: u16::from_le_bytes([input[4], input[5]]),
        id: u32::from_le_bytes([input[6], input[7], input[8], input[9]]),
        body: input[4 + HEADER..4 + size].to_vec(),
    };
    input.drain(..4 + size);
    Ok(Some(frame))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn frames_survive_any_split(frames in prop::collection::vec((any::<u16>(), any::<u32>(), prop::collection::vec(any::<u8>(), 0..300)), 0..8), cut in 1_usize..64) {
            let mut wire = Vec::new();
            for (kind, id, body) in &frames {
                encode(*kind, *id, body, &mut wire);
            }
            let mut input = Vec::new();
            let mut seen = Vec::new();
            for piece in wire.chunks(cut) {
                input.extend_from_slice(piece);
                while let Some(frame) = take(&mut input).unwrap() {
                    seen.push((frame.kind, frame.id, frame.body));
                }
            }
            prop_assert_eq!(seen, frames);
            prop_assert!(input.is_empty());
        }

        #[test]
        fn noise_never_panics(mut noise in prop::collection::vec(any::<u8>(), 0..64)) {
            while let Ok(Some(_)) = take(&mut noise) {}
        }
    }

    #[test]
    fn a_gigabyte_is_refused_at_its_first_four_bytes() {
        let mut input = (1_u32 << 30).to_le_bytes().to_vec();
        assert_eq!(take(&mut input), Err(FrameError::Length(1 << 30)));
    }
}
