//! Decompressors that end where the archive ends.
//!
//! One gzip member or one zstd frame; what follows it is damage, not a second archive.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use zlh_catalog::MediaType;

use super::UnpackError;

pub(crate) enum Decoder {
    Gz(Box<flate2::bufread::GzDecoder<BufReader<Counted>>>),
    Zst(zstd::stream::read::Decoder<'static, BufReader<Counted>>),
}

/// A file that says how much of it was read.
pub(crate) struct Counted {
    file: File,
    read: Arc<AtomicU64>,
}

impl Decoder {
    /// `None` for media types that are no archives.
    pub(crate) fn new(file: File, media_type: MediaType, read: Arc<AtomicU64>) -> io::Result<Option<Self>> {
        let input = BufReader::with_capacity(BUFFER_BYTES, Counted { file, read });
        Ok(match media_type {
            MediaType::TarGz => Some(Self::Gz(Box::new(flate2::bufread::GzDecoder::new(input)))),
            MediaType::TarZst => {
                let mut decoder = zstd::stream::read::Decoder::with_buffer(input)?.single_frame();
                decoder.window_log_max(MAX_WINDOW_LOG)?;
                Some(Self::Zst(decoder))
            }
            MediaType::File | MediaType::Jar => None,
        })
    }

    /// After the last byte came out: that nothing is left to go in.
    pub(crate) fn finish(self) -> Result<(), UnpackError> {
        let mut rest = match self {
            Self::Gz(decoder) => decoder.into_inner(),
            Self::Zst(decoder) => decoder.finish(),
        };
        match rest.fill_buf() {
            Ok([]) => Ok(()),
            Ok(_) => Err(UnpackError::Damaged("something follows the compressed data".to_owned())),
            Err(error) => Err(UnpackError::Damaged(error.to_string())),
        }
    }
}

impl Read for Decoder {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Gz(decoder) => decoder.read(buffer),
            Self::Zst(decoder) => decoder.read(buffer),
        }
    }
}

impl Read for Counted {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.file.read(buffer)?;
        self.read.fetch_add(read as u64, Ordering::Relaxed);
        Ok(read)
    }
}

const BUFFER_BYTES: usize = 128 << 10;
/// 8 MiB: the memory a hostile frame can claim.
const MAX_WINDOW_LOG: u32 = 23;
