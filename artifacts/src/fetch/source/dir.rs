//! Files of a directory.

use std::io;
use std::path::PathBuf;

use bytes::Bytes;
use tokio::io::{AsyncReadExt, AsyncSeekExt};
use zlh_catalog::RelPath;

use super::{Body, Bytestream, FetchError, Opening, Resume, Source};

#[derive(Debug)]
pub(super) struct Dir {
    dir: PathBuf,
    name: String,
}

#[derive(Debug)]
pub(super) struct Stream {
    file: tokio::fs::File,
    path: PathBuf,
}

impl Dir {
    pub(super) fn new(dir: PathBuf, name: String) -> Self {
        Self { dir, name }
    }

    async fn file(&self, path: &RelPath, from: Option<&Resume>) -> Result<Body, FetchError> {
        let file_path = self.dir.join(path.as_str());
        let missing = |error: io::Error| match error.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => {
                FetchError::NotFound { path: path.to_string() }
            }
            _ => FetchError::Io { what: "open", path: file_path.clone(), source: error },
        };
        // Looked at first: opening a FIFO would wait for its writer.
        let meta = tokio::fs::metadata(&file_path).await.map_err(missing)?;
        if !meta.is_file() {
            return Err(FetchError::NotFound { path: path.to_string() });
        }
        let mut file = tokio::fs::File::open(&file_path).await.map_err(missing)?;
        let begins = from.map_or(0, |from| from.offset).min(meta.len());
        file.seek(io::SeekFrom::Start(begins)).await.map_err(missing)?;
        let bytes = Bytestream::File(Stream { file, path: file_path });
        Ok(Body { begins, length: Some(meta.len() - begins), tag: None, bytes })
    }
}

impl Source for Dir {
    fn name(&self) -> &str {
        &self.name
    }

    fn open<'a>(&'a self, path: &'a RelPath, from: Option<&'a Resume>) -> Opening<'a> {
        Box::pin(self.file(path, from))
    }
}

impl Stream {
    pub(super) async fn chunk(&mut self) -> Result<Option<Bytes>, FetchError> {
        let mut buffer = vec![0; CHUNK_BYTES];
        let read = self.file.read(&mut buffer).await.map_err(FetchError::io("read", self.path.as_path()))?;
        buffer.truncate(read);
        Ok((read > 0).then(|| buffer.into()))
    }
}

const CHUNK_BYTES: usize = 256 << 10;
