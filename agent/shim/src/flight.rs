//! Output in flight: read from the terminal and not yet in the log.
//!
//! Reading from a terminal takes the bytes away; a shim that is killed between that and
//! the write to the log would take them along, and nobody could say how many. So it reads
//! into memory that it shares with the agent (a `memfd`, no file and no disk), which hands
//! it to the next one:
//!
//! ```text
//! clear ─► read(terminal) ─► note the length ─► write(log) ─► clear
//! ```
//!
//! Several reads may go into one write. Killed before a length is noted, the bytes are those
//! up to the last that is not zero (the rest was clear): only zero bytes at the very end of
//! one read could be missed.
//! Killed after the write, the log is as long as the bytes say, and nothing is written twice.

#![allow(unsafe_code)] // a shared mapping has no safe form

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::ptr;
use std::sync::atomic::{Ordering, compiler_fence};

use rustix::fs::{MemfdFlags, SealFlags};
use rustix::mm::{MapFlags, ProtFlags};

use crate::console_log::{Reader, Writer};
use crate::spec::ConsoleLimits;

/// Bytes taken from a terminal at once.
pub const BUFFER: usize = 32 << 10;

/// Offset and length, eight bytes each, before the buffer.
const HEADER: usize = 16;

const SIZE: usize = HEADER + BUFFER;

/// The shared memory, mapped.
#[derive(Debug)]
pub struct Flight {
    memory: ptr::NonNull<u8>,
    fd: OwnedFd,
    /// Bytes that lie in the buffer.
    aboard: usize,
}

impl Flight {
    /// New memory, clear.
    pub fn create() -> io::Result<Self> {
        let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
        let fd = rustix::fs::memfd_create("zlh-flight", flags)?;
        rustix::fs::ftruncate(&fd, SIZE as u64)?;
        // Whoever holds it cannot make it shorter under our feet.
        rustix::fs::fcntl_add_seals(&fd, SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL)?;
        Self::map(fd)
    }

    /// Memory that somebody handed over.
    pub fn open(fd: OwnedFd) -> io::Result<Self> {
        let sealed = rustix::fs::fcntl_get_seals(&fd)?.contains(SealFlags::SHRINK);
        let size = rustix::fs::fstat(&fd)?.st_size;
        if !sealed || usize::try_from(size) != Ok(SIZE) {
            return Err(io::Error::other("it is not a shim's memory"));
        }
        Self::map(fd)
    }

    fn map(fd: OwnedFd) -> io::Result<Self> {
        let protection = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: a new mapping at an address of the kernel's choice. Its size is sealed, so
        // that no access can lie behind the end.
        let memory =
            unsafe { rustix::mm::mmap(ptr::null_mut(), SIZE, protection, MapFlags::SHARED, &fd, 0)? };
        let memory = ptr::NonNull::new(memory.cast()).ok_or_else(|| io::Error::other("mapped at zero"))?;
        Ok(Self { memory, fd, aboard: 0 })
    }

    /// Reads from `terminal` behind what is aboard, all of which is to be appended at
    /// `offset`. The bytes stay in flight until [`Flight::landed`].
    pub fn take(&mut self, terminal: &OwnedFd, offset: u64) -> rustix::io::Result<usize> {
        self.set(0, offset);
        // Only a process that dies needs the order, and it dies between instructions.
        compiler_fence(Ordering::SeqCst);
        let aboard = self.aboard;
        let length = rustix::io::read(terminal, &mut self.buffer()[aboard..])?;
        compiler_fence(Ordering::SeqCst);
        self.aboard += length;
        self.set(1, self.aboard as u64);
        Ok(length)
    }

    /// What was taken and has not landed.
    pub fn aboard(&mut self) -> &[u8] {
        let aboard = self.aboard;
        &self.buffer()[..aboard]
    }

    /// Whether nothing more can be taken.
    pub fn is_full(&self) -> bool {
        self.aboard == BUFFER
    }

    /// What was aboard is in the log: clear again.
    pub fn landed(&mut self) {
        let (offset, aboard) = (self.get(0), self.aboard);
        self.set(1, 0);
        compiler_fence(Ordering::SeqCst);
        self.buffer()[..aboard].fill(0);
        compiler_fence(Ordering::SeqCst);
        self.set(0, offset.saturating_add(aboard as u64));
        self.aboard = 0;
    }

    /// What a holder that died had in flight, and where it belongs.
    fn left(&mut self) -> (u64, Vec<u8>) {
        let (offset, noted) = (self.get(0), self.get(1));
        let buffer = self.buffer();
        let last = buffer.iter().rposition(|&byte| byte != 0).map_or(0, |last| last + 1);
        // A read after the last note shows by what it brought.
        let length = usize::try_from(noted).map_or(last, |noted| noted.max(last)).min(BUFFER);
        (offset, buffer[..length].to_vec())
    }

    fn clear(&mut self) {
        self.set(1, 0);
        self.buffer().fill(0);
        self.aboard = 0;
    }

    fn buffer(&mut self) -> &mut [u8] {
        // SAFETY: the mapping is `SIZE` long and lives as long as `self`, which is borrowed
        // mutably. The process that wrote here before is dead; agents hold the descriptor and
        // never map it while a shim lives.
        unsafe { std::slice::from_raw_parts_mut(self.memory.as_ptr().add(HEADER), BUFFER) }
    }

    fn get(&self, field: usize) -> u64 {
        debug_assert!(field < 2);
        // SAFETY: within the mapping, and aligned because mappings are.
        unsafe { self.memory.cast::<u64>().add(field).read_volatile() }
    }

    fn set(&mut self, field: usize, value: u64) {
        debug_assert!(field < 2);
        // SAFETY: as in `get`; nobody else writes while we hold the workload.
        unsafe { self.memory.cast::<u64>().add(field).write_volatile(value) }
    }
}

impl AsFd for Flight {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl Drop for Flight {
    fn drop(&mut self) {
        // SAFETY: our own mapping; every borrow of it has ended with `self`.
        let _ = unsafe { rustix::mm::munmap(self.memory.as_ptr().cast(), SIZE) };
    }
}

/// Goes on with the log of a holder that died, after the last byte it took from the
/// terminal: the writer, and how many bytes are lost. `known_head` is where the log ended
/// as far as anybody knows; what lies between the files and there was in the dead shim's
/// memory because the disk had refused it.
pub fn resume(
    dir: &Path,
    limits: ConsoleLimits,
    known_head: u64,
    flight: Option<&mut Flight>,
) -> io::Result<(Writer, u64)> {
    let end = Reader::new(dir).range()?.1;
    let Some(flight) = flight else {
        return Ok((Writer::open(dir, limits, known_head)?, known_head.saturating_sub(end)));
    };
    let (offset, bytes) = flight.left();
    // Bytes in flight belong at `offset`; with none in flight that is where the log ended.
    let at = if bytes.is_empty() { offset.max(known_head) } else { offset };
    let mut writer = Writer::open(dir, limits, at)?;
    let head = writer.head();
    let written = usize::try_from(head.saturating_sub(offset)).unwrap_or(usize::MAX);
    if let Some(rest) = bytes.get(written..) {
        writer.append(rest);
    }
    // A second death from here on finds them in the log.
    flight.clear();
    let lost = head.saturating_sub(end);
    Ok((writer, lost))
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn pipe(bytes: &[u8]) -> OwnedFd {
        let (reader, writer) = std::io::pipe().unwrap();
        (&writer).write_all(bytes).unwrap();
        reader.into()
    }

    fn log(dir: &Path) -> Vec<u8> {
        Reader::new(dir).read(0, 1 << 20).unwrap().1
    }

    fn again(flight: Flight) -> Flight {
        Flight::open(flight.fd.try_clone().unwrap()).unwrap()
    }

    #[test]
    fn a_death_at_every_step_loses_and_doubles_nothing() {
        for step in 0..6 {
            let dir = tempfile::tempdir().unwrap();
            let limits = ConsoleLimits::default();
            let mut writer = Writer::open(dir.path(), limits, 0).unwrap();
            writer.append(b"before ");
            let mut flight = Flight::create().unwrap();
            let expected: &[u8] = if step == 0 { b"before " } else { b"before in flight" };
            if step > 0 {
                flight.take(&pipe(b"in fl"), writer.head()).unwrap();
                flight.take(&pipe(b"ight"), writer.head()).unwrap();
                let bytes = flight.aboard().to_vec();
                match step {
                    // Read, and the length not noted: of both, or of the second.
                    1 => flight.set(1, 0),
                    5 => flight.set(1, 5),
                    2 => {}
                    // Half of it written.
                    3 => writer.append(&bytes[..4]),
                    _ => {
                        writer.append(&bytes);
                        flight.landed();
                    }
                }
            }
            drop(writer);
            let mut flight = again(flight);
            let (mut writer, lost) = resume(dir.path(), limits, 3, Some(&mut flight)).unwrap();
            assert_eq!((log(dir.path()), lost), (expected.to_vec(), 0), "step {step}");
            assert_eq!(writer.head(), expected.len() as u64);
            writer.append(b".");
            // Once more at once: nothing is there any more.
            let (writer, lost) = resume(dir.path(), limits, 0, Some(&mut again(flight))).unwrap();
            assert_eq!((writer.head(), lost), (expected.len() as u64 + 1, 0), "step {step}");
        }
    }

    #[test]
    fn what_only_the_dead_had_in_memory_is_a_gap_of_that_size() {
        let dir = tempfile::tempdir().unwrap();
        let limits = ConsoleLimits::default();
        Writer::open(dir.path(), limits, 0).unwrap().append(b"0123456789");
        let mut flight = Flight::create().unwrap();
        // The disk had refused 90 bytes.
        flight.take(&pipe(b"after"), 100).unwrap();
        let (writer, lost) = resume(dir.path(), limits, 60, Some(&mut flight)).unwrap();
        assert_eq!((writer.head(), lost), (105, 90));
        assert_eq!(Reader::new(dir.path()).read(10, 99).unwrap(), (100, b"after".to_vec()));
        // Without the memory the last known end has to do.
        let other = tempfile::tempdir().unwrap();
        Writer::open(other.path(), limits, 0).unwrap().append(b"0123456789");
        let (writer, lost) = resume(other.path(), limits, 60, None).unwrap();
        assert_eq!((writer.head(), lost), (60, 50));
    }

    #[test]
    fn memory_that_is_not_ours_is_refused() {
        let file = tempfile::tempfile().unwrap();
        file.set_len(SIZE as u64).unwrap();
        assert!(Flight::open(file.into()).is_err());
    }
}
