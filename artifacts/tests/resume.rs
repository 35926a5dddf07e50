//! Transfers that are taken up again, mirrors, and several who want the same file.

#![allow(clippy::unwrap_used, reason = "a failed step is a failed test")]

mod support;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use support::{artifact, listing};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use zlh_artifacts::{FetchError, Fetcher, Servers, Tuning};

/// How a server of one file behaves.
#[derive(Clone, Debug)]
struct Manners {
    file: Vec<u8>,
    tag: &'static str,
    /// Closes after so many bytes of each answer.
    cuts_after: Option<usize>,
    ranges: Ranges,
    /// Sends this many bytes, then one by one with this pause.
    drips: Option<(usize, Duration)>,
    /// Answers only once this many are asking.
    status: u16,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Ranges {
    Honoured,
    /// Always the whole, with 200.
    Ignored,
    /// As asked for, but with 200.
    CalledWhole,
    /// 206 from another place than was asked for.
    Shifted,
    /// 206 of another size.
    OfAnother,
    /// 416.
    Refused,
}

fn manners(file: &[u8]) -> Manners {
    let ranges = Ranges::Honoured;
    Manners { file: file.to_vec(), tag: "\"one\"", cuts_after: None, ranges, drips: None, status: 200 }
}

/// What was asked for: `whole`, or the range, with `if TAG`.
type Asked = Arc<Mutex<Vec<String>>>;

async fn serve(manners: Arc<Mutex<Manners>>) -> (String, Asked) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let asked = Asked::default();
    let told = Arc::clone(&asked);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let manners = manners.lock().unwrap().clone();
            tokio::spawn(answer(stream, manners, Arc::clone(&told)));
        }
    });
    (url, asked)
}

async fn answer(mut stream: TcpStream, manners: Manners, asked: Asked) {
    let mut request = Vec::new();
    while !request.ends_with(b"\r\n\r\n") {
        match stream.read_u8().await {
            Ok(byte) => request.push(byte),
            Err(_) => return,
        }
    }
    let text = String::from_utf8_lossy(&request).into_owned();
    let header = |name: &str| {
        let line = text.lines().find(|line| line.to_lowercase().starts_with(name))?;
        Some(line.split_once(": ")?.1.to_owned())
    };
    let (range, condition) = (header("range: "), header("if-range: "));
    let told = match (&range, &condition) {
        (None, _) => "whole".to_owned(),
        (Some(range), None) => range.clone(),
        (Some(range), Some(tag)) => format!("{range} if {tag}"),
    };
    asked.lock().unwrap().push(told);
    let size = manners.file.len();
    let from: usize =
        range.and_then(|range| range.strip_prefix("bytes=")?.strip_suffix('-')?.parse().ok()).unwrap_or(0);
    let same = condition.is_none_or(|tag| tag == manners.tag);
    let partial = |at: usize, of: usize| {
        format!("206 X\r\ncontent-range: bytes {at}-{}/{of}\r\ncontent-length: {}", of - 1, size - from)
    };
    let (head, body) = match manners.ranges {
        _ if manners.status != 200 => (format!("{} X\r\ncontent-length: 0", manners.status), &[][..]),
        _ if from == 0 || !same => (format!("200 X\r\ncontent-length: {size}"), &manners.file[..]),
        Ranges::Ignored => (format!("200 X\r\ncontent-length: {size}"), &manners.file[..]),
        Ranges::Honoured => (partial(from, size), &manners.file[from..]),
        Ranges::CalledWhole => (partial(from, size).replace("206", "200"), &manners.file[from..]),
        Ranges::Shifted => (partial(from - 1, size), &manners.file[from..]),
        Ranges::OfAnother => (partial(from, size + 1), &manners.file[from..]),
        Ranges::Refused => ("416 X\r\ncontent-length: 0".to_owned(), &[][..]),
    };
    let head = format!("HTTP/1.1 {head}\r\netag: {}\r\nconnection: close\r\n\r\n", manners.tag);
    let _ = stream.write_all(head.as_bytes()).await;
    let (at_once, pause) = manners.drips.unwrap_or((body.len(), Duration::ZERO));
    let cut = manners.cuts_after.unwrap_or(body.len()).min(body.len());
    let _ = stream.write_all(&body[..at_once.min(cut)]).await;
    for byte in body.get(at_once..cut).unwrap_or_default() {
        tokio::time::sleep(pause).await;
        if stream.write_all(&[*byte]).await.is_err() {
            return;
        }
    }
}

fn tuning() -> Tuning {
    Tuning {
        connect: Duration::from_secs(5),
        // Longer than a busy machine keeps the server of a test waiting.
        stall: Duration::from_secs(20),
        pause: Duration::from_millis(1),
        ..Tuning::default()
    }
}

fn body() -> Vec<u8> {
    (0..3_000_000_u32).map(|number| u8::try_from(number.wrapping_mul(2_654_435_761) >> 24).unwrap()).collect()
}

fn fetcher(temp: &TempDir, urls: &[&str]) -> Fetcher {
    let servers = Servers { urls: urls.iter().map(|url| (*url).to_owned()).collect(), s3: None };
    Fetcher::of(&servers, temp.path().join("cache"), tuning()).unwrap()
}

fn shared(manners: Manners) -> Arc<Mutex<Manners>> {
    Arc::new(Mutex::new(manners))
}

fn cached(temp: &TempDir) -> Vec<String> {
    listing(&temp.path().join("cache")).into_iter().filter(|path| !path.ends_with('/')).collect()
}

/// Leaves `bytes` of a file as a fetch from `url` that was killed does.
fn interrupted(temp: &TempDir, url: &str, file: &[u8], bytes: usize) {
    let tmp = temp.path().join("cache/tmp");
    std::fs::create_dir_all(&tmp).unwrap();
    let sha256 = support::sha256(file);
    std::fs::write(tmp.join(format!("{sha256}.part")), &file[..bytes]).unwrap();
    let origin = format!(r#"{{"server":"{url}","tag":"\"one\""}}"#);
    std::fs::write(tmp.join(format!("{sha256}.origin")), origin).unwrap();
}

#[tokio::test]
async fn a_connection_that_always_breaks_arrives_all_the_same() {
    let file = body();
    let (url, asked) = serve(shared(Manners { cuts_after: Some(300_000), ..manners(&file) })).await;
    let temp = tempfile::tempdir().unwrap();
    let wanted = artifact("f", &file);
    let fetched = fetcher(&temp, &[&url]).fetch(&wanted, |_| ()).await.unwrap();
    assert_eq!(std::fs::read(fetched.path).unwrap(), file);
    let asked = asked.lock().unwrap();
    let expected: Vec<String> = (0..10)
        .map(|nth| match nth {
            0 => "whole".to_owned(),
            nth => format!("bytes={}- if \"one\"", nth * 300_000),
        })
        .collect();
    assert_eq!(*asked, expected, "each goes on where the last one ended");
    assert_eq!(cached(&temp), [format!("sha256/{}", wanted.sha256)]);
}

#[tokio::test]
async fn the_next_process_goes_on() {
    let file = body();
    let manners = shared(manners(&file));
    let (url, asked) = serve(Arc::clone(&manners)).await;
    let temp = tempfile::tempdir().unwrap();
    let wanted = artifact("f", &file);
    interrupted(&temp, &url, &file, 1_000_000);
    asked.lock().unwrap().clear();
    let fetched = fetcher(&temp, &[&url]).fetch(&wanted, |_| ()).await.unwrap();
    assert_eq!(std::fs::read(fetched.path).unwrap(), file);
    assert_eq!(*asked.lock().unwrap(), ["bytes=1000000- if \"one\""]);
}

#[tokio::test]
async fn a_range_that_is_sent_as_200_is_one() {
    let file = body();
    let broken = Manners { cuts_after: Some(1_000_000), ranges: Ranges::CalledWhole, ..manners(&file) };
    let (url, asked) = serve(shared(broken)).await;
    let temp = tempfile::tempdir().unwrap();
    let fetched = fetcher(&temp, &[&url]).fetch(&artifact("f", &file), |_| ()).await.unwrap();
    assert_eq!(std::fs::read(fetched.path).unwrap(), file);
    let expected = ["whole", "bytes=1000000- if \"one\"", "bytes=2000000- if \"one\""];
    assert_eq!(*asked.lock().unwrap(), expected);
}

#[tokio::test]
async fn answers_to_a_range_are_not_believed() {
    let file = body();
    let mut other = file.clone();
    other[5] ^= 1;
    for (case, change, requests) in [
        ("the whole instead", Manners { ranges: Ranges::Ignored, ..manners(&file) }, 1),
        ("another place", Manners { ranges: Ranges::Shifted, ..manners(&file) }, 2),
        ("another size", Manners { ranges: Ranges::OfAnother, ..manners(&file) }, 2),
        ("416", Manners { ranges: Ranges::Refused, ..manners(&file) }, 2),
        ("another tag", Manners { tag: "\"two\"", ..manners(&file) }, 1),
    ] {
        let manners = shared(manners(&file));
        let (url, asked) = serve(Arc::clone(&manners)).await;
        let temp = tempfile::tempdir().unwrap();
        let wanted = artifact("f", &file);
        interrupted(&temp, &url, &file, 1_000_000);
        asked.lock().unwrap().clear();
        *manners.lock().unwrap() = change;
        let fetched = fetcher(&temp, &[&url]).fetch(&wanted, |_| ()).await.expect(case);
        assert_eq!(std::fs::read(fetched.path).unwrap(), file, "{case}");
        assert_eq!(asked.lock().unwrap().len(), requests, "{case}");
    }
}

#[tokio::test]
async fn damage_in_what_was_fetched_before_costs_a_new_beginning_and_no_more() {
    let file = body();
    let manners = shared(manners(&file));
    let (url, asked) = serve(Arc::clone(&manners)).await;
    let temp = tempfile::tempdir().unwrap();
    let wanted = artifact("f", &file);
    interrupted(&temp, &url, &file, 1_000_000);
    // Bytes that never reached the disk before the power went.
    let part = temp.path().join(format!("cache/tmp/{}.part", wanted.sha256));
    let mut bytes = std::fs::read(&part).unwrap();
    bytes[500_000..600_000].fill(0);
    std::fs::write(&part, bytes).unwrap();
    asked.lock().unwrap().clear();
    let fetched = fetcher(&temp, &[&url]).fetch(&wanted, |_| ()).await.unwrap();
    assert_eq!(std::fs::read(fetched.path).unwrap(), file);
    assert_eq!(*asked.lock().unwrap(), ["bytes=1000000- if \"one\"", "whole"]);
}

#[tokio::test]
async fn a_whole_file_that_was_not_published_is_not_fetched_again() {
    let file = body();
    let (url, asked) = serve(shared(manners(&file))).await;
    let temp = tempfile::tempdir().unwrap();
    let wanted = artifact("f", &file);
    let fetcher = fetcher(&temp, &[&url]);
    let part = temp.path().join(format!("cache/tmp/{}.part", wanted.sha256));
    std::fs::write(&part, &file).unwrap();
    fetcher.fetch(&wanted, |_| ()).await.unwrap();
    assert_eq!(*asked.lock().unwrap(), [""; 0]);
    // Unless it is not that file.
    std::fs::remove_file(temp.path().join(format!("cache/sha256/{}", wanted.sha256))).unwrap();
    std::fs::write(&part, vec![7; file.len() + 9]).unwrap();
    let fetched = fetcher.fetch(&wanted, |_| ()).await.unwrap();
    assert_eq!(std::fs::read(fetched.path).unwrap(), file);
    assert_eq!(*asked.lock().unwrap(), ["whole"]);
}

#[tokio::test]
async fn a_byte_now_and_then_is_a_stall() {
    let file = &body()[..250_000];
    let drips = Some((100_000, Duration::from_millis(50)));
    let (url, asked) = serve(shared(Manners { drips, ..manners(file) })).await;
    let temp = tempfile::tempdir().unwrap();
    let servers = Servers { urls: vec![url], s3: None };
    let slow = Tuning { min_rate: 1 << 20, stall: Duration::from_secs(3), ..tuning() };
    let fetcher = Fetcher::of(&servers, temp.path().join("cache"), slow).unwrap();
    fetcher.fetch(&artifact("f", file), |_| ()).await.unwrap();
    // It never stopped for as long as a stall takes, and would have taken two hours.
    let asked = asked.lock().unwrap();
    // A machine that rests for long may add one.
    assert!(asked.len() >= 3 && asked[0] == "whole" && asked[1].starts_with("bytes=1000"), "{asked:?}");
}

#[tokio::test]
async fn mirrors_are_asked_in_turn_and_go_on_with_the_same_bytes() {
    let file = body();
    let wanted = artifact("f", &file);
    let mut wrong = file.clone();
    wrong[2_999_999] ^= 1;
    let gone = Manners { status: 404, ..manners(&file) };
    let down = Manners { status: 503, ..manners(&file) };
    for (case, first, refusal) in [
        ("gone", gone.clone(), "is not on the artifact server"),
        ("down", down.clone(), "answered 503"),
        ("wrong bytes", manners(&wrong), "has the wrong hash"),
        ("another size", manners(&file[1..]), "bytes or more"),
    ] {
        let (one, asked_one) = serve(shared(first)).await;
        let (two, _) = serve(shared(manners(&file))).await;
        let temp = tempfile::tempdir().unwrap();
        let fetcher = fetcher(&temp, &[&one, &two]);
        let fetched = fetcher.fetch(&wanted, |_| ()).await.expect(case);
        assert_eq!(std::fs::read(&fetched.path).unwrap(), file, "{case}");
        let told: Vec<String> = fetched.refused.iter().map(ToString::to_string).collect();
        assert!(
            told.len() == 1 && told[0].starts_with(&one) && told[0].contains(refusal),
            "{case}: {told:?}"
        );
        // Whoever sent something wrong is asked last from then on.
        std::fs::remove_file(&fetched.path).unwrap();
        let before = asked_one.lock().unwrap().len();
        fetcher.fetch(&wanted, |_| ()).await.unwrap();
        let again = asked_one.lock().unwrap().len() > before;
        assert_eq!(again, matches!(case, "gone" | "down"), "{case}");
    }
    let (one, _) = serve(shared(gone)).await;
    let (two, _) = serve(shared(down)).await;
    let temp = tempfile::tempdir().unwrap();
    let error = fetcher(&temp, &[&one, &two]).fetch(&wanted, |_| ()).await.unwrap_err();
    let text = error.to_string();
    assert!(matches!(error, FetchError::All { .. }) && text.contains(&one) && text.contains(&two), "{text}");
    assert_eq!(cached(&temp), [""; 0]);
}

#[tokio::test]
async fn a_mirror_goes_on_with_what_another_began() {
    let file = body();
    let wanted = artifact("f", &file);
    let first = shared(manners(&file));
    let (one, _) = serve(Arc::clone(&first)).await;
    let (two, asked) = serve(shared(manners(&file))).await;
    let temp = tempfile::tempdir().unwrap();
    interrupted(&temp, &one, &file, 2_000_000);
    *first.lock().unwrap() = Manners { status: 404, ..manners(&file) };
    fetcher(&temp, &[&one, &two]).fetch(&wanted, |_| ()).await.unwrap();
    assert_eq!(*asked.lock().unwrap(), ["bytes=2000000-"], "the tag of another server says nothing");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn of_many_who_want_it_one_fetches() {
    let file = body();
    let (url, asked) =
        serve(shared(Manners { drips: Some((2_999_990, Duration::from_millis(20))), ..manners(&file) }))
            .await;
    let temp = tempfile::tempdir().unwrap();
    let wanted = artifact("f", &file);
    let seen = Arc::new(AtomicUsize::new(0));
    let all: Vec<_> = (0..8)
        .map(|_| {
            // Each with a cache of its own, as processes have.
            let (fetcher, wanted, seen) = (fetcher(&temp, &[&url]), wanted.clone(), Arc::clone(&seen));
            tokio::spawn(async move {
                let fetched = fetcher
                    .fetch(&wanted, |_| {
                        seen.fetch_add(1, Ordering::Relaxed);
                    })
                    .await
                    .unwrap();
                (fetched.from_cache, std::fs::read(fetched.path).unwrap().len())
            })
        })
        .collect();
    let mut fetched = 0;
    for one in all {
        let (from_cache, bytes) = one.await.unwrap();
        assert_eq!(bytes, file.len());
        fetched += usize::from(!from_cache);
    }
    assert_eq!((fetched, asked.lock().unwrap().len()), (1, 1));
}

#[tokio::test]
async fn above_its_budget_the_cache_lets_go_of_the_least_used() {
    let temp = tempfile::tempdir().unwrap();
    let store = temp.path().join("store");
    std::fs::create_dir(&store).unwrap();
    let servers = Servers { urls: vec![format!("file://{}", store.display())], s3: None };
    let tuning = Tuning { cache_budget: 2500, ..tuning() };
    let fetcher = Fetcher::of(&servers, temp.path().join("cache"), tuning).unwrap();
    let mut paths = Vec::new();
    for (nth, name) in ["a", "b", "c", "d"].into_iter().enumerate() {
        let content = vec![u8::try_from(nth).unwrap(); 1000];
        std::fs::write(store.join(name), &content).unwrap();
        let path = fetcher.fetch(&artifact(name, &content), |_| ()).await.unwrap().path;
        if name != "b" {
            // Used two hours ago; b was used now.
            let then = SystemTime::now() - Duration::from_secs(7200 - nth as u64);
            std::fs::File::open(&path).unwrap().set_modified(then).unwrap();
        }
        paths.push(path);
    }
    let there: Vec<bool> = paths.iter().map(|path| path.exists()).collect();
    assert_eq!(there, [false, true, false, true], "what was used lately, and the new one");
}
