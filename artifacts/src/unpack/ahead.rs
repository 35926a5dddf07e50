//! Decompressing in one thread while another writes.
//!
//! ```text
//!           full buffers, in order
//! decoder ────────────────────────► Ahead ──► TarReader ──► disk
//!    ▲                                │
//!    └──────── empty buffers ─────────┘
//! ```
//!
//! There are never more buffers than [`BUFFERS`]. Dropping [`Ahead`] ends the thread, and
//! nobody returns before it has ended.

use std::io::{self, Read};
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;

use super::UnpackError;
use super::decode::{Decoder, Meter, failure};

/// What comes out of a decoder, read from another thread.
pub(crate) struct Ahead<'a> {
    full: Receiver<Piece>,
    empty: SyncSender<Vec<u8>>,
    meter: &'a Meter,
    buffer: Vec<u8>,
    at: usize,
    ended: bool,
}

enum Piece {
    Data(Vec<u8>),
    End(Result<(), UnpackError>),
}

/// Calls `consume` with what the decoder gives. The outer error is that of starting a
/// thread.
pub(crate) fn decode_ahead<T>(
    decoder: Decoder<'_>,
    meter: &Meter,
    consume: impl FnOnce(Ahead<'_>) -> Result<T, UnpackError>,
) -> io::Result<Result<T, UnpackError>> {
    thread::scope(|scope| {
        let (filled, full) = sync_channel(BUFFERS + 1);
        let (empty, emptied) = sync_channel(BUFFERS);
        for _ in 0..BUFFERS {
            // Has room for all of them.
            let _ = empty.send(Vec::new());
        }
        let thread = thread::Builder::new()
            .name("decompress".to_owned())
            .spawn_scoped(scope, move || produce(decoder, &filled, &emptied))?;
        let done = consume(Ahead { full, empty, meter, buffer: Vec::new(), at: 0, ended: false });
        // The scope waits for its closure only; this waits for the thread.
        match thread.join() {
            Ok(()) => Ok(done),
            Err(panic) => std::panic::resume_unwind(panic),
        }
    })
}

/// Ends with the data, with an error, or when nobody listens any more.
fn produce(mut decoder: Decoder<'_>, filled: &SyncSender<Piece>, emptied: &Receiver<Vec<u8>>) {
    while let Ok(mut buffer) = emptied.recv() {
        buffer.resize(BUFFER_BYTES, 0);
        let (read, end) = fill(&mut decoder, &mut buffer);
        buffer.truncate(read);
        if filled.send(Piece::Data(buffer)).is_err() {
            return;
        }
        if let Some(end) = end {
            let _ = filled.send(Piece::End(end.and_then(|()| decoder.finish())));
            return;
        }
    }
}

/// Reads until the buffer is full, or says how it ended before.
fn fill(decoder: &mut Decoder<'_>, buffer: &mut [u8]) -> (usize, Option<Result<(), UnpackError>>) {
    let mut read = 0;
    while read < buffer.len() {
        match decoder.read(&mut buffer[read..]) {
            Ok(0) => return (read, Some(Ok(()))),
            Ok(more) => read += more,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return (read, Some(Err(failure(error)))),
        }
    }
    (read, None)
}

impl Read for Ahead<'_> {
    /// Errors are [`UnpackError`] inside; the end is only told once the archive's own end
    /// was found in order.
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        while self.at == self.buffer.len() {
            if self.ended {
                return Ok(0);
            }
            let gone = || io::Error::other("the decompressor is gone");
            match self.full.recv().map_err(|_| gone())? {
                Piece::Data(next) => {
                    let used = std::mem::replace(&mut self.buffer, next);
                    self.at = 0;
                    // The first one is nobody's: it has no memory yet.
                    if used.capacity() > 0 {
                        let _ = self.empty.send(used);
                    }
                }
                Piece::End(Ok(())) => self.ended = true,
                Piece::End(Err(error)) => return Err(io::Error::other(error)),
            }
        }
        let count = out.len().min(self.buffer.len() - self.at);
        out[..count].copy_from_slice(&self.buffer[self.at..self.at + count]);
        self.at += count;
        Ok(count)
    }
}

impl Drop for Ahead<'_> {
    /// The decoder may be deep in data that gives nothing: its next read fails.
    fn drop(&mut self) {
        self.meter.stop.store(true, Ordering::Relaxed);
    }
}

const BUFFERS: usize = 4;
const BUFFER_BYTES: usize = 256 << 10;
