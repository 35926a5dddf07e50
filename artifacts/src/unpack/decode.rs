//! Decompressors that end where the archive ends.
//!
//! One gzip member, zstd frame or xz stream; what follows it is damage, not a second
//! archive.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use liblzma::stream::{Error as XzError, Stream, TELL_NO_CHECK, TELL_UNSUPPORTED_CHECK};
use zlh_catalog::MediaType;

use super::UnpackError;

pub(crate) enum Decoder<'a> {
    Gz(Box<flate2::bufread::GzDecoder<BufReader<Counted<'a>>>>),
    Zst(zstd::stream::read::Decoder<'static, BufReader<Counted<'a>>>),
    Xz(liblzma::bufread::XzDecoder<BufReader<Counted<'a>>>),
}

/// How much of the archive was read, and whether anybody still wants the rest.
#[derive(Debug, Default)]
pub(crate) struct Meter {
    pub(crate) read: AtomicU64,
    pub(crate) stop: AtomicBool,
}

/// A file that is read under a [`Meter`].
pub(crate) struct Counted<'a> {
    file: File,
    meter: &'a Meter,
}

impl<'a> Decoder<'a> {
    /// `None` for media types that are no compressed tar.
    pub(crate) fn new(file: File, media_type: MediaType, meter: &'a Meter) -> io::Result<Option<Self>> {
        let input = BufReader::with_capacity(BUFFER_BYTES, Counted { file, meter });
        Ok(match media_type {
            MediaType::TarGz => Some(Self::Gz(Box::new(flate2::bufread::GzDecoder::new(input)))),
            MediaType::TarZst => {
                let mut decoder = zstd::stream::read::Decoder::with_buffer(input)?.single_frame();
                decoder.window_log_max(MAX_WINDOW_LOG)?;
                Some(Self::Zst(decoder))
            }
            MediaType::TarXz => {
                let flags = TELL_NO_CHECK | TELL_UNSUPPORTED_CHECK;
                let stream = Stream::new_stream_decoder(MAX_XZ_BYTES, flags)?;
                Some(Self::Xz(liblzma::bufread::XzDecoder::new_stream(input, stream)))
            }
            MediaType::Zip | MediaType::File | MediaType::Jar => None,
        })
    }

    /// After the last byte came out: that nothing is left to go in.
    pub(crate) fn finish(self) -> Result<(), UnpackError> {
        let mut rest = match self {
            Self::Gz(decoder) => decoder.into_inner(),
            Self::Zst(decoder) => decoder.finish(),
            Self::Xz(decoder) => decoder.into_inner(),
        };
        match rest.fill_buf() {
            Ok([]) => Ok(()),
            Ok(_) => Err(UnpackError::Damaged("something follows the compressed data".to_owned())),
            Err(error) => Err(failure(error)),
        }
    }
}

impl Read for Decoder<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Gz(decoder) => decoder.read(buffer),
            Self::Zst(decoder) => decoder.read(buffer),
            Self::Xz(decoder) => decoder.read(buffer),
        }
    }
}

impl Read for Counted<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.meter.stop.load(Ordering::Relaxed) {
            return Err(io::Error::other(UnpackError::Cancelled));
        }
        let read = self.file.read(buffer)?;
        self.meter.read.fetch_add(read as u64, Ordering::Relaxed);
        Ok(read)
    }
}

/// What a reader's error says about the archive. Decoders have words of their own for it.
pub(crate) fn failure(error: io::Error) -> UnpackError {
    let error = match error.downcast::<UnpackError>() {
        Ok(known) => return known,
        Err(error) => error,
    };
    match error.get_ref().and_then(|inner| inner.downcast_ref::<XzError>()) {
        Some(XzError::MemLimit) => {
            return UnpackError::Limit(format!("it needs more than {MAX_XZ_BYTES} bytes of memory"));
        }
        Some(XzError::NoCheck | XzError::UnsupportedCheck) => {
            return UnpackError::Damaged("it carries no checksum that is known".to_owned());
        }
        _ => {}
    }
    let words = error.to_string();
    match error.kind() {
        io::ErrorKind::UnexpectedEof => UnpackError::Damaged("it ends too early".to_owned()),
        _ if words.contains(ZSTD_WINDOW) => UnpackError::Limit(words),
        _ => UnpackError::Damaged(words),
    }
}

const BUFFER_BYTES: usize = 128 << 10;
/// 8 MiB: the memory a hostile frame can claim.
const MAX_WINDOW_LOG: u32 = 23;
/// `xz -9` needs 65 MiB; a dictionary of 128 MiB no longer fits.
const MAX_XZ_BYTES: u64 = 128 << 20;
/// How zstd says that the window is beyond the limit; it has no type for it.
const ZSTD_WINDOW: &str = "too much memory";
