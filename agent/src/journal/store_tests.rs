use std::sync::atomic::{AtomicUsize, Ordering};

use proptest::prelude::*;

use super::super::read::{Tally, scan};
use super::*;

/// A file on a disk with so much room left.
struct Faulty {
    file: File,
    room: Arc<AtomicUsize>,
}

impl Medium for Faulty {
    fn write_at(&mut self, bytes: &[u8], offset: u64) -> io::Result<()> {
        let room = self.room.load(Ordering::SeqCst);
        let fits = bytes.len().min(room);
        // A short write, as a full disk makes it.
        Medium::write_at(&mut self.file, &bytes[..fits], offset)?;
        self.room.store(room - fits, Ordering::SeqCst);
        if fits < bytes.len() { Err(io::ErrorKind::StorageFull.into()) } else { Ok(()) }
    }

    fn sync(&mut self) -> io::Result<()> {
        Medium::sync(&mut self.file)
    }

    fn cut(&mut self, length: u64) -> io::Result<()> {
        Medium::cut(&mut self.file, length)
    }

    fn look(&self) -> io::Result<(u64, bool)> {
        Medium::look(&self.file)
    }
}

/// Opens files that share `room`.
pub(in crate::journal) fn faulty(room: &Arc<AtomicUsize>) -> Opener {
    let room = Arc::clone(room);
    Arc::new(move |path| {
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path)?;
        Ok(Box::new(Faulty { file, room: Arc::clone(&room) }))
    })
}

fn good() -> Opener {
    Arc::new(open_file)
}

fn open(dir: &Path) -> (Store, Vec<String>) {
    Store::open(dir, good()).unwrap()
}

fn stamp() -> Stamp {
    Stamp { at: 1_767_225_600_123, boot: 42_000, life: "0123456789ab.88".to_owned() }
}

fn what(number: u64) -> What {
    What::Installed { what: format!("number {number}") }
}

/// Appends entries that carry their number, and asserts that all were taken.
fn append(store: &mut Store, numbers: impl Iterator<Item = u64>) {
    let entries: Vec<_> = numbers.map(|number| (stamp(), what(number))).collect();
    let (written, error) = store.append(entries.iter().map(|(stamp, what)| (stamp, what)));
    assert_eq!((written, error.map(|e| e.to_string())), (entries.len(), None));
}

fn numbers(store: &Store) -> (Vec<u64>, Tally) {
    let mut numbers = Vec::new();
    let mut last = 0;
    let tally = scan(&store.readable(), |entry| {
        assert!(entry.seq > last, "{} after {last}", entry.seq);
        last = entry.seq;
        let What::Installed { what } = entry.what else { panic!("{entry:?}") };
        numbers.push(what.strip_prefix("number ").unwrap().parse().unwrap());
    });
    (numbers, tally.unwrap())
}

fn only_file(dir: &Path) -> PathBuf {
    let mut files = list(dir).unwrap();
    assert_eq!(files.len(), 1);
    files.remove(0).1
}

fn asides(dir: &Path) -> Vec<PathBuf> {
    let names = fs::read_dir(dir).unwrap().flatten().map(|entry| entry.path());
    names.filter(|path| path.file_name().unwrap().to_str().unwrap().starts_with(ASIDE)).collect()
}

#[test]
fn a_journal_cut_anywhere_keeps_every_whole_line_and_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let (mut store, _) = open(dir.path());
    append(&mut store, 0..4);
    drop(store);
    let file = only_file(dir.path());
    let whole = fs::read(&file).unwrap();
    for length in 0..=whole.len() {
        fs::write(&file, &whole[..length]).unwrap();
        let kept = whole[..length].iter().filter(|&&b| b == b'\n').count() as u64;
        let (mut store, notes) = open(dir.path());
        assert_eq!(notes, [""; 0], "cut at {length}: a torn line is no damage");
        assert_eq!(numbers(&store).0, (0..kept).collect::<Vec<_>>(), "cut at {length}");
        append(&mut store, 100..101);
        let (read, tally) = numbers(&store);
        assert_eq!((read.last(), tally.damaged), (Some(&100), 0), "cut at {length}");
        assert!(asides(dir.path()).is_empty());
    }
}

#[test]
fn a_broken_line_in_the_middle_is_skipped_and_counted() {
    let dir = tempfile::tempdir().unwrap();
    let (mut store, _) = open(dir.path());
    append(&mut store, 0..5);
    drop(store);
    let file = only_file(dir.path());
    let mut bytes = fs::read(&file).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 0x10;
    fs::write(&file, &bytes).unwrap();
    let (mut store, notes) = open(dir.path());
    assert!(notes.is_empty(), "it stays where it is: {notes:?}");
    assert_eq!(numbers(&store), (vec![0, 1, 3, 4], Tally { entries: 4, damaged: 1 }));
    append(&mut store, 5..6);
    assert_eq!(numbers(&store).0, [0, 1, 3, 4, 5]);
}

#[test]
fn damage_at_the_end_is_kept_aside_and_its_number_is_bounded() {
    let dir = tempfile::tempdir().unwrap();
    let (mut store, _) = open(dir.path());
    append(&mut store, 0..3);
    drop(store);
    let file = only_file(dir.path());
    for round in 0..10 {
        let mut bytes = fs::read(&file).unwrap();
        bytes.extend_from_slice(format!("garbage {round}\nand more\0").as_bytes());
        fs::write(&file, &bytes).unwrap();
        let (store, notes) = open(dir.path());
        assert!(notes.last().unwrap().contains("set aside"), "{notes:?}");
        assert_eq!(numbers(&store), (vec![0, 1, 2], Tally { entries: 3, damaged: 0 }));
        let kept = asides(dir.path());
        assert!(kept.len() <= ASIDES);
        let is_kept =
            |path: &PathBuf| fs::read(path).unwrap() == format!("garbage {round}\nand more\0").as_bytes();
        assert!(kept.iter().any(is_kept), "the newest is never the one to go");
    }
}

#[test]
fn copies_and_leftovers_are_no_news() {
    let dir = tempfile::tempdir().unwrap();
    let (mut store, _) = open(dir.path());
    append(&mut store, 0..3);
    let file = only_file(dir.path());
    fs::copy(&file, dir.path().join(format!("{:020}.jsonl", 2))).unwrap();
    drop(store);
    let (mut store, _) = open(dir.path());
    assert_eq!(numbers(&store), (vec![0, 1, 2], Tally { entries: 3, damaged: 3 }));
    append(&mut store, 3..4);
    assert_eq!(numbers(&store).0, [0, 1, 2, 3], "and it goes on behind them");
}

#[test]
fn what_is_no_segment_is_left_alone_or_set_aside() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("notes.txt"), "mine").unwrap();
    fs::write(dir.path().join("99999999999999999999.jsonl"), "a number too large").unwrap();
    fs::create_dir(dir.path().join(format!("{:020}.jsonl", 5))).unwrap();
    std::os::unix::fs::symlink("/etc/passwd", dir.path().join(format!("{:020}.jsonl", 6))).unwrap();
    let huge = File::create(dir.path().join(format!("{:020}.jsonl", 7))).unwrap();
    huge.set_len(1 << 40).unwrap();
    let (mut store, notes) = open(dir.path());
    assert_eq!(notes.iter().filter(|note| note.contains("is no journal")).count(), 3, "{notes:?}");
    append(&mut store, 0..2);
    assert_eq!(numbers(&store).0, [0, 1]);
    assert_eq!(fs::read(dir.path().join("notes.txt")).unwrap(), b"mine");
}

#[test]
fn the_journal_stays_within_its_bound_and_keeps_the_newest() {
    let dir = tempfile::tempdir().unwrap();
    let (mut store, _) = open(dir.path());
    let line = Entry::encode(1, &stamp(), &what(10_000)).unwrap().len() as u64;
    let total = (SEGMENTS as u64 + 3) * SEGMENT_BYTES / line;
    let mut next = 0;
    while next < total {
        append(&mut store, next..next + 97);
        next += 97;
        let sizes = list(dir.path()).unwrap().into_iter().map(|(_, path)| fs::metadata(path).unwrap().len());
        let (count, sum) = sizes.fold((0, 0), |(count, sum), size| (count + 1, sum + size));
        assert!(count <= SEGMENTS && sum <= SEGMENTS as u64 * SEGMENT_BYTES, "{count} files, {sum} bytes");
    }
    let (read, tally) = numbers(&store);
    assert_eq!((read.last(), tally.damaged), (Some(&(next - 1)), 0));
    assert!(read.windows(2).all(|pair| pair[1] == pair[0] + 1), "nothing is missing between");
    assert!(read.len() as u64 * line > (SEGMENTS as u64 - 1) * SEGMENT_BYTES, "as much as fits is kept");
    drop(store);
    assert_eq!(numbers(&open(dir.path()).0).0, read);
}

#[test]
fn what_others_did_to_the_file_is_not_written_over() {
    let dir = tempfile::tempdir().unwrap();
    let (mut store, _) = open(dir.path());
    append(&mut store, 0..2);
    let file = only_file(dir.path());
    // Cut, under our feet.
    OpenOptions::new().write(true).open(&file).unwrap().set_len(10).unwrap();
    append(&mut store, 2..3);
    // Gone, with its directory.
    fs::remove_dir_all(dir.path()).unwrap();
    append(&mut store, 3..5);
    assert_eq!(numbers(&open(dir.path()).0).0, [3, 4]);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]

    /// A disk that is full again and again, at every byte: ten times in each of a hundred cases.
    #[test]
    fn a_full_disk_loses_nothing_and_breaks_nothing(rooms in prop::collection::vec(0_usize..2000, 10)) {
        let dir = tempfile::tempdir().unwrap();
        let room = Arc::new(AtomicUsize::new(0));
        let entries: Vec<_> = (0..60).map(|number| (stamp(), what(number))).collect();
        let mut done = 0;
        let (mut store, _) = Store::open(dir.path(), faulty(&room)).unwrap();
        for (round, free) in rooms.iter().enumerate() {
            room.store(*free, Ordering::SeqCst);
            let (written, error) = store.append(entries[done..].iter().map(|(stamp, what)| (stamp, what)));
            done += written;
            prop_assert_eq!(error.is_none(), done == entries.len());
            if round % 3 == 2 {
                // Killed here: the next agent has to find the same.
                store = Store::open(dir.path(), faulty(&room)).unwrap().0;
            }
            let (read, tally) = numbers(&store);
            prop_assert_eq!(read, (0..done as u64).collect::<Vec<_>>());
            prop_assert_eq!(tally.damaged, 0);
        }
    }

    #[test]
    fn no_file_is_too_strange_to_open(bytes in prop::collection::vec(any::<u8>(), 0..2000), at in 0_usize..1000) {
        let dir = tempfile::tempdir().unwrap();
        let (mut store, _) = open(dir.path());
        append(&mut store, 0..4);
        drop(store);
        let file = only_file(dir.path());
        let mut whole = fs::read(&file).unwrap();
        let at = at.min(whole.len());
        whole.splice(at..at, bytes);
        fs::write(&file, &whole).unwrap();
        let (mut store, _) = open(dir.path());
        append(&mut store, 4..5);
        let (read, _) = numbers(&store);
        prop_assert_eq!(read.last(), Some(&4));
        prop_assert!(read.windows(2).all(|pair| pair[0] < pair[1]));
        prop_assert!(read.len() >= 4, "at most the line that was struck is gone: {:?}", read);
    }
}
