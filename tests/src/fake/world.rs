//! The world on disk: a session lock, `level.dat`, and one region file whose
//! pages carry the number of the save that wrote them. A copy taken in the middle
//! of a save therefore shows it ([`generations`]).

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::fcntl::{FcntlArg, fcntl};
use nix::libc;

/// The region file, below the world's folder.
pub const REGION: &str = "region/r.0.0.mca";
/// Bytes of one page.
pub const PAGE: usize = 4096;

/// An opened, locked world.
#[derive(Debug)]
pub struct World {
    dir: PathBuf,
    pages: u64,
    save_time: Duration,
    generation: u64,
    /// Held until the process ends.
    _lock: File,
}

impl World {
    /// Opens or creates the world in `dir` and takes its `session.lock`, like Minecraft.
    pub fn open(dir: &Path, bytes: u64, save_time: Duration) -> io::Result<Self> {
        fs::create_dir_all(dir.join("region"))?;
        let lock =
            OpenOptions::new().create(true).truncate(false).write(true).open(dir.join("session.lock"))?;
        lock_whole(&lock)?;
        (&lock).write_all("\u{2603}".as_bytes())?;
        let generation = generations(dir)?.last().copied().unwrap_or(0);
        Ok(Self {
            dir: dir.to_owned(),
            pages: bytes.div_ceil(PAGE as u64).max(1),
            save_time,
            generation,
            _lock: lock,
        })
    }

    /// Writes every page anew, spread over the save time, then `level.dat`.
    pub fn save(&mut self) -> io::Result<()> {
        self.generation += 1;
        let path = self.dir.join(REGION);
        let mut file = OpenOptions::new().create(true).truncate(false).write(true).open(&path)?;
        let begun = Instant::now();
        file.seek(SeekFrom::Start(0))?;
        for index in 0..self.pages {
            file.write_all(&page(self.generation, index))?;
            // By the clock: who oversleeps catches up.
            let due = self.save_time.mul_f64((index + 1) as f64 / self.pages as f64);
            std::thread::sleep(due.saturating_sub(begun.elapsed()));
        }
        file.set_len(self.pages * PAGE as u64)?;
        file.sync_all()?;
        fs::write(self.dir.join("level.dat"), format!("{}\n", self.generation))
    }
}

impl World {
    /// Writes a page more into a file of its own.
    pub fn grow(&mut self) -> io::Result<()> {
        let path = self.dir.join("region/r.9.9.mca");
        OpenOptions::new().create(true).append(true).open(path)?.write_all(&page(self.generation, 0))
    }

    /// Makes the region file look as if it had been written just now.
    pub fn touch(&mut self) -> io::Result<()> {
        let path = self.dir.join(REGION);
        let file = OpenOptions::new().create(true).truncate(false).write(true).open(path)?;
        file.set_modified(std::time::SystemTime::now())
    }
}

/// The generations found in a world's region file, each once, ascending: one when
/// it is consistent, none when it does not exist.
pub fn generations(dir: &Path) -> io::Result<Vec<u64>> {
    let mut file = match File::open(dir.join(REGION)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        other => other?,
    };
    let mut found = Vec::new();
    let mut page = vec![0; PAGE];
    for _ in 0..file.metadata()?.size() / PAGE as u64 {
        file.read_exact(&mut page)?;
        let mut number = [0; 8];
        number.copy_from_slice(&page[..8]);
        found.push(u64::from_le_bytes(number));
    }
    found.sort_unstable();
    found.dedup();
    Ok(found)
}

fn page(generation: u64, index: u64) -> Vec<u8> {
    let mut page = vec![0; PAGE];
    page[..8].copy_from_slice(&generation.to_le_bytes());
    page[8..16].copy_from_slice(&index.to_le_bytes());
    page
}

/// A POSIX record lock on the whole file, the kind a JVM's `tryLock` takes.
fn lock_whole(file: &File) -> io::Result<()> {
    let lock = libc::flock {
        l_type: i16::try_from(libc::F_WRLCK).unwrap_or_default(),
        l_whence: i16::try_from(libc::SEEK_SET).unwrap_or_default(),
        l_start: 0,
        l_len: 0,
        l_pid: 0,
    };
    fcntl(file, FcntlArg::F_SETLK(&lock)).map(drop).map_err(io::Error::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_save_is_one_generation_and_the_next_world_goes_on_from_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("world");
        let mut world = World::open(&path, 40_000, Duration::ZERO).unwrap();
        assert_eq!(generations(&path).unwrap(), [] as [u64; 0]);
        world.save().unwrap();
        world.save().unwrap();
        assert_eq!(generations(&path).unwrap(), [2]);
        assert_eq!(fs::metadata(path.join(REGION)).unwrap().len(), 10 * 4096);
        drop(world);
        let mut again = World::open(&path, 40_000, Duration::ZERO).unwrap();
        again.save().unwrap();
        assert_eq!(generations(&path).unwrap(), [3]);
    }
}
