//! Output in quantities: floods whose every byte can be checked, one endless
//! line, bytes that are no text.

use std::io;
use std::time::{Duration, Instant};

use super::Bytes;
use super::console::Console;

/// Bytes of one flood line, its line end included.
pub const FLOOD_LINE: usize = 64;

/// The flood's line number `number`: told apart from every other, and complete or visibly not.
pub fn flood_line(number: u64) -> Vec<u8> {
    let mut line = format!("flooded {number:016} ").into_bytes();
    let fill = b"abcdefghijklmnopqrstuvwxyz0123456789-";
    let turn = usize::try_from(number % 37).unwrap_or(0);
    line.extend(fill.iter().cycle().skip(turn).take(FLOOD_LINE - 1 - line.len()));
    line.push(b'\n');
    line
}

/// What a reader made of a flood.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct FloodCheck {
    /// First and last number seen.
    pub range: Option<(u64, u64)>,
    /// Numbers missing between them.
    pub missing: u64,
    /// Flood lines that are not byte for byte what was written.
    pub damaged: u64,
}

/// Checks captured terminal output (`\r\n` line ends or `\n`); other lines are skipped.
pub fn check_flood(captured: &[u8]) -> FloodCheck {
    let mut check = FloodCheck::default();
    for line in captured.split(|byte| *byte == b'\n') {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        let Some(rest) = line.strip_prefix(b"flooded ") else { continue };
        let number = rest.get(..16).and_then(|digits| std::str::from_utf8(digits).ok()?.parse::<u64>().ok());
        let Some(number) = number.filter(|number| flood_line(*number).strip_suffix(b"\n") == Some(line))
        else {
            check.damaged += 1;
            continue;
        };
        let (first, last) = check.range.unwrap_or((number, number));
        if check.range.is_some() {
            check.missing += number.saturating_sub(last + 1);
            // A number that does not rise was sent twice or out of order.
            check.damaged += u64::from(number <= last);
        }
        check.range = Some((first, number.max(last)));
    }
    check
}

/// Prints numbered lines until `limit` bytes, at `rate` bytes a second (0: as fast as it goes).
pub(crate) fn flood(console: Console, rate: Bytes, limit: Option<Bytes>) -> io::Result<()> {
    let begun = Instant::now();
    let lines = limit.map_or(u64::MAX, |limit| limit.0.div_ceil(FLOOD_LINE as u64));
    let mut next = 0;
    while next < lines {
        let mut block = Vec::with_capacity(FLOOD_LINE * FLOOD_BLOCK);
        // A slow flood comes line by line, a fast one in blocks.
        let share = match rate.0 {
            0 => FLOOD_BLOCK as u64,
            rate => (rate / (FLOOD_LINE as u64 * 50)).clamp(1, FLOOD_BLOCK as u64),
        };
        for _ in 0..share.min(lines - next) {
            block.extend_from_slice(&flood_line(next));
            next += 1;
        }
        console.try_raw(&block)?;
        if let Some(due) = (next * FLOOD_LINE as u64).saturating_mul(1_000_000).checked_div(rate.0) {
            std::thread::sleep(Duration::from_micros(due).saturating_sub(begun.elapsed()));
        }
    }
    Ok(())
}

/// One line of `bytes` bytes, its end included.
pub(crate) fn long_line(console: Console, bytes: Bytes) {
    let mut rest = bytes.0.saturating_sub(1);
    while rest > 0 {
        let part = usize::try_from(rest.min(1 << 16)).unwrap_or(1 << 16);
        console.raw(&b"0123456789abcdef".repeat(part / 16 + 1)[..part]);
        rest -= part as u64;
    }
    console.raw(b"\n");
}

/// `bytes` bytes that are neither text nor a line end, the same ones every time.
pub fn noise(bytes: Bytes) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut out = Vec::new();
    while (out.len() as u64) < bytes.0 {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        let [byte, ..] = state.to_le_bytes();
        // The terminal translates line ends; everything else passes as it is.
        if byte != b'\n' && byte != b'\r' {
            out.push(byte);
        }
    }
    out
}

/// Lines of one write of a fast flood: below the 4 KiB a terminal takes at once.
const FLOOD_BLOCK: usize = 32;

#[cfg(test)]
mod tests {
    use super::*;

    fn captured(numbers: impl Iterator<Item = u64>) -> Vec<u8> {
        numbers.flat_map(flood_line).collect()
    }

    #[test]
    fn a_whole_flood_is_whole_with_either_line_end() {
        let plain = captured(0..1_000);
        assert_eq!(plain.len(), 1_000 * FLOOD_LINE);
        let whole = FloodCheck { range: Some((0, 999)), missing: 0, damaged: 0 };
        assert_eq!(check_flood(&plain), whole);
        let terminal = String::from_utf8(plain).unwrap().replace('\n', "\r\n");
        assert_eq!(check_flood(terminal.as_bytes()), whole);
    }

    #[test]
    fn every_kind_of_loss_is_seen() {
        let gap = captured((0..10).chain(13..20));
        assert_eq!(check_flood(&gap), FloodCheck { range: Some((0, 19)), missing: 3, damaged: 0 });
        let twice = captured((0..10).chain(5..20));
        assert_eq!(check_flood(&twice).damaged, 5);
        let mut bent = captured(0..10);
        bent[3 * FLOOD_LINE + 40] ^= 1;
        assert_eq!(check_flood(&bent), FloodCheck { range: Some((0, 9)), missing: 1, damaged: 1 });
        let cut = &captured(0..10)[..9 * FLOOD_LINE + 30];
        assert_eq!(check_flood(cut).damaged, 1);
    }

    #[test]
    fn noise_holds_no_line_end_and_is_no_text() {
        let noise = noise(Bytes(10_000));
        assert_eq!(noise.len(), 10_000);
        assert!(!noise.contains(&b'\n') && !noise.contains(&b'\r'));
        assert!(std::str::from_utf8(&noise).is_err());
    }
}
