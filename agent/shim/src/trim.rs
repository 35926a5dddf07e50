//! Giving back what only a moment needed.
//!
//! Agent and shim share one binary and, when idle, use a small part of it; but the kernel
//! maps file pages in groups, and a start or an install walks through much of them.
//! Unmapped, they cost nothing; what is needed again is mapped again from the page cache.
//! The C library, too, keeps freed memory until it is told.

#![allow(unsafe_code)] // `madvise` takes addresses

use rustix::mm::{Advice, madvise};

/// Gives freed memory back and unmaps the untouched file pages of this process's own
/// binary. Best effort; a few milliseconds.
pub fn trim() {
    #[cfg(target_env = "gnu")]
    // SAFETY: takes no pointer, and is safe to call from any thread.
    unsafe {
        libc::malloc_trim(0);
    }
    let Ok(smaps) = std::fs::read_to_string("/proc/self/smaps") else { return };
    let Ok(own) = std::fs::read_link("/proc/self/exe") else { return };
    for (start, length) in untouched(&smaps, &own.to_string_lossy()) {
        // SAFETY: the range is a private read-only mapping of our binary in which no page was
        // ever written to (`Anonymous: 0`), so every byte reads the same when it is mapped
        // again, by whichever thread; nothing in this program ever unmaps or writes it.
        let _ = unsafe { madvise(start as *mut _, length, Advice::LinuxDontNeed) };
    }
}

/// Read-only mappings of the file `own` without a page of our own making.
fn untouched(smaps: &str, own: &str) -> Vec<(usize, usize)> {
    let mut found = Vec::new();
    let mut current = None;
    for line in smaps.lines() {
        if let Some(range) = mapping(line) {
            let wanted = line.ends_with(own) && matches!(line.split(' ').nth(1), Some("r-xp" | "r--p"));
            current = wanted.then_some(range);
        } else if let Some(rest) = line.strip_prefix("Anonymous:")
            && rest.trim() == "0 kB"
        {
            found.extend(current.take());
        }
    }
    found
}

/// Start and length, if the line begins a mapping.
fn mapping(line: &str) -> Option<(usize, usize)> {
    let (start, rest) = line.split_once('-')?;
    let end = rest.split(' ').next()?;
    let (start, end) = (usize::from_str_radix(start, 16).ok()?, usize::from_str_radix(end, 16).ok()?);
    Some((start, end.checked_sub(start)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SMAPS: &str = "\
7f00-8f00 r--p 00000000 08:01 1  /opt/zlh agent
Rss:                 768 kB
Anonymous:             0 kB
8f00-9f00 r-xp 00001000 08:01 1  /opt/zlh agent
Anonymous:             0 kB
9f00-af00 r--p 00002000 08:01 1  /opt/zlh agent
Anonymous:           152 kB
af00-bf00 rw-p 00003000 08:01 1  /opt/zlh agent
Anonymous:             0 kB
bf00-cf00 r-xp 00000000 00:00 0  [vdso]
Anonymous:             0 kB
";

    #[test]
    fn only_untouched_read_only_pages_of_our_own_file() {
        assert_eq!(untouched(SMAPS, "/opt/zlh agent"), [(0x7f00, 0x1000), (0x8f00, 0x1000)]);
    }

    #[test]
    fn this_process_lives_on_without_its_pages() {
        trim();
        assert_eq!(untouched(SMAPS, "/other"), []);
    }
}
