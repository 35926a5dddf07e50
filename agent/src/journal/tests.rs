use std::sync::atomic::{AtomicUsize, Ordering};

use zlh_api::{HistoryKind, HistoryWindow};

use super::store::tests::faulty;
use super::*;

const PATIENCE: Duration = Duration::from_secs(20);

fn quiet() -> Logger {
    Logger::root(slog::Discard, slog::o!())
}

fn all() -> Query {
    Query { window: HistoryWindow::Month, before: None, limit: 5000 }
}

fn note(number: usize) -> What {
    What::Installed { what: format!("number {number}") }
}

fn details(history: &History) -> Vec<String> {
    history.events.iter().map(|event| event.detail.clone().unwrap_or_default()).collect()
}

async fn until(journal: &Journal, what: &str, reached: impl Fn(&History) -> bool) -> History {
    let end = Instant::now() + PATIENCE;
    loop {
        let history = journal.history(all()).await.unwrap();
        if reached(&history) {
            return history;
        }
        assert!(Instant::now() < end, "{what}: {:?}", history.journal);
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn what_is_recorded_is_there_at_once_and_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let journal = Journal::open(dir.path(), quiet());
    for number in 0..300 {
        journal.record(note(number));
    }
    let history = journal.history(all()).await.unwrap();
    let wanted: Vec<_> = (0..300).map(|number| format!("number {number}")).collect();
    assert_eq!(details(&history), wanted, "written or not");
    journal.close(PATIENCE);
    let again = Journal::open(dir.path(), quiet());
    let history = again.history(all()).await.unwrap();
    assert_eq!((details(&history), history.journal.pending), (wanted, 0));
    assert_eq!((history.journal.damaged, history.journal.lost), (0, 0));
    again.close(PATIENCE);
}

#[tokio::test]
async fn events_come_in_pages_from_the_newest() {
    let dir = tempfile::tempdir().unwrap();
    let journal = Journal::open(dir.path(), quiet());
    for number in 0..25 {
        journal.record(note(number));
    }
    let mut before = None;
    let mut pages = Vec::new();
    loop {
        let history = journal.history(Query { before, limit: 10, ..all() }).await.unwrap();
        pages.push(details(&history));
        before = history.next_before;
        if before.is_none() {
            break;
        }
    }
    assert_eq!(pages.iter().map(Vec::len).collect::<Vec<_>>(), [10, 10, 5]);
    pages.reverse();
    assert_eq!(pages.concat(), (0..25).map(|number| format!("number {number}")).collect::<Vec<_>>());
    let none = journal.history(Query { limit: 0, ..all() }).await.unwrap();
    assert!(none.events.is_empty());
    journal.close(PATIENCE);
}

#[tokio::test]
async fn on_a_full_disk_entries_wait_and_what_is_lost_is_counted_exactly() {
    let dir = tempfile::tempdir().unwrap();
    let room = Arc::new(AtomicUsize::new(0));
    let journal = Journal::with(dir.path(), quiet(), faulty(&room));
    let began = Instant::now();
    for number in 0..QUEUE + 976 {
        journal.record(note(number));
    }
    assert!(began.elapsed() < Duration::from_secs(60), "nobody waited for the disk");
    let history = journal.history(all()).await.unwrap();
    assert_eq!((history.journal.pending, history.journal.lost), (QUEUE as u64, 976));
    assert_eq!(details(&history).len(), QUEUE, "what waits is shown");
    room.store(usize::MAX, Ordering::SeqCst);
    journal.record(note(9999));
    let history = until(&journal, "written again", |history| history.journal.pending == 0).await;
    // The last record found the queue full or not; either way the sum is exact.
    let shown = details(&history).iter().filter(|detail| detail.starts_with("number")).count() as u64;
    assert_eq!(shown + history.journal.lost, QUEUE as u64 + 977);
    assert!(history.journal.lost >= 976);
    let gap = history.events.iter().position(|event| event.kind == HistoryKind::Gap).unwrap();
    assert_eq!((gap, history.events[gap].count), (QUEUE, Some(history.journal.lost)), "where it was lost");
    journal.close(PATIENCE);
    let again = Journal::open(dir.path(), quiet());
    assert_eq!(again.history(all()).await.unwrap().events.len(), history.events.len());
    again.close(PATIENCE);
}

#[tokio::test]
async fn a_journal_that_cannot_be_opened_is_opened_later() {
    let dir = tempfile::tempdir().unwrap();
    let blocked = dir.path().join("journal");
    std::fs::write(&blocked, "in the way").unwrap();
    let journal = Journal::open(&blocked, quiet());
    journal.record(note(1));
    assert_eq!(details(&journal.history(all()).await.unwrap()), ["number 1"]);
    std::fs::remove_file(&blocked).unwrap();
    let history = until(&journal, "opened", |history| history.journal.pending == 0).await;
    assert_eq!(details(&history), ["number 1"]);
    journal.close(PATIENCE);
    assert_eq!(std::fs::read_dir(&blocked).unwrap().count(), 1);
}

#[tokio::test]
async fn a_full_journal_is_summed_up_in_a_moment() {
    let dir = tempfile::tempdir().unwrap();
    let (mut store, _) = Store::open(dir.path(), Arc::new(store::open_file)).unwrap();
    let stamp = Stamp::now("aaaaaaaaaaaa.1");
    let flap = [What::Silent { why: "connection refused".to_owned() }, What::Answers {}];
    for _ in 0..200 {
        store.append(flap.iter().cycle().take(100).map(|what| (&stamp, what)));
    }
    let journal = Journal::open(dir.path(), quiet());
    let began = Instant::now();
    let history = journal.history(all()).await.unwrap();
    let took = began.elapsed();
    assert!(history.journal.entries > 9000, "{:?}", history.journal);
    // Milliseconds where it is shipped; this is a debug build on a busy machine.
    assert!(took < Duration::from_secs(30), "{took:?}");
    journal.close(PATIENCE);
}

fn crash(instance: &str) -> What {
    let ended = Stamp::now("0.0");
    What::Exit(Box::new(Exit {
        instance: instance.to_owned(),
        ended,
        code: Some(1),
        signal: 0,
        signal_name: None,
        uptime_ms: 1000,
        was_ready: false,
        by: None,
        lost: None,
        oom: false,
    }))
}

fn start(instance: &str) -> What {
    What::Start { instance: instance.to_owned(), attempt: 1, why: Why::Operation }
}

fn explained(instance: &str, cause: &str) -> What {
    let title = format!("because of {cause}");
    What::Explained { instance: instance.to_owned(), cause: Some(cause.to_owned()), title }
}

#[tokio::test]
async fn an_explanation_belongs_to_its_crash_wherever_a_page_ends() {
    let dir = tempfile::tempdir().unwrap();
    let journal = Journal::open(dir.path(), quiet());
    for what in [start("a"), crash("a"), explained("a", "silent"), start("b"), crash("b")] {
        journal.record(what);
    }
    // Late, and better than the first.
    for what in [explained("a", "java_too_old"), explained("b", "disk_full"), explained("gone", "x")] {
        journal.record(what);
    }
    let told = |history: &History| {
        let crashes = history.events.iter().filter(|event| event.kind == HistoryKind::Crash);
        crashes.map(|one| (one.cause.clone().unwrap_or_default(), one.detail.clone())).collect::<Vec<_>>()
    };
    let one = |cause: &str| (cause.to_owned(), Some(format!("because of {cause}")));
    let all_of_it = journal.history(all()).await.unwrap();
    assert_eq!(told(&all_of_it), [one("java_too_old"), one("disk_full")]);
    assert_eq!(all_of_it.events.len(), 4, "an explanation is no event of its own");
    // A page that ends before the explanation was written.
    let before = all_of_it.events.iter().find(|event| event.instance.as_deref() == Some("b")).unwrap().seq;
    let page = journal.history(Query { before: Some(before), ..all() }).await.unwrap();
    assert_eq!(told(&page), [one("java_too_old")]);
    let runs: Vec<String> = journal.runs().await.unwrap().into_iter().collect();
    assert_eq!(runs, ["a", "b"]);
    journal.close(PATIENCE);
    let again = Journal::open(dir.path(), quiet());
    assert_eq!(told(&again.history(all()).await.unwrap()), told(&all_of_it));
    assert_eq!(again.runs().await.unwrap().len(), 2);
    again.close(PATIENCE);
}
