//! Bytes to text, piece by piece, for a protocol whose frames must be UTF-8.

/// Decodes a stream of pieces; a character cut by a piece's end waits for the next.
#[derive(Debug, Default)]
pub(crate) struct Utf8Stream {
    cut: Vec<u8>,
}

impl Utf8Stream {
    /// Text of this piece and what was left of the last; invalid bytes become U+FFFD.
    pub(crate) fn decode(&mut self, piece: &[u8]) -> String {
        let mut bytes = std::mem::take(&mut self.cut);
        bytes.extend_from_slice(piece);
        let mut text = String::with_capacity(bytes.len());
        let mut chunks = bytes.utf8_chunks().peekable();
        while let Some(chunk) = chunks.next() {
            text.push_str(chunk.valid());
            let bad = chunk.invalid();
            if chunks.peek().is_none() && is_beginning(bad) {
                self.cut = bad.to_vec();
            } else if !bad.is_empty() {
                text.push(char::REPLACEMENT_CHARACTER);
            }
        }
        text
    }

    /// What is left when the next piece will not follow on.
    pub(crate) fn finish(&mut self) -> &'static str {
        if std::mem::take(&mut self.cut).is_empty() { "" } else { "\u{fffd}" }
    }
}

/// Whether more bytes could still make a character of it.
fn is_beginning(bytes: &[u8]) -> bool {
    !bytes.is_empty() && std::str::from_utf8(bytes).is_err_and(|error| error.error_len().is_none())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn cuts_change_nothing(bytes in prop::collection::vec(any::<u8>(), 0..64), text in "\\PC{0,16}", at in 0usize..80) {
            for whole in [bytes.as_slice(), text.as_bytes()] {
                let mut stream = Utf8Stream::default();
                let (a, b) = whole.split_at(at.min(whole.len()));
                let mut decoded = stream.decode(a);
                decoded += &stream.decode(b);
                decoded += stream.finish();
                prop_assert_eq!(decoded, String::from_utf8_lossy(whole));
            }
        }
    }

    #[test]
    fn a_character_comes_whole_however_it_was_cut() {
        let mut stream = Utf8Stream::default();
        let pieces: Vec<String> = "a🎮ä".as_bytes().iter().map(|byte| stream.decode(&[*byte])).collect();
        assert_eq!(pieces, ["a", "", "", "", "🎮", "", "ä"]);
        assert_eq!(stream.finish(), "");
    }
}
