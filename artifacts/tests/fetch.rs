//! Fetching from a server that does everything wrong.

#![allow(clippy::unwrap_used, reason = "a failed step is a failed test")]

mod support;

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use support::{artifact, chain, listing};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use zlh_artifacts::{FetchError, Fetcher, S3Access, Servers, Tuning};
use zlh_catalog::RelPath;

/// What the server answers.
#[derive(Clone)]
enum Reply {
    /// Status, further header lines, body; the length is announced.
    Answer(u16, String, Vec<u8>),
    /// A body without an announced length, cut off by closing.
    Unannounced(Vec<u8>),
    /// Announces this length, sends this, then closes.
    Announced(u64, Vec<u8>),
    /// Sends this and then nothing for ever.
    Stall(Vec<u8>),
    /// Closes at once.
    Close,
}

/// Answers each path with its replies in turn; the last one stays.
#[derive(Clone)]
struct Server {
    url: String,
    hits: Arc<Mutex<Vec<String>>>,
}

impl Server {
    async fn start(routes: impl IntoIterator<Item = (&'static str, Vec<Reply>)>) -> Self {
        let routes: HashMap<String, Vec<Reply>> =
            routes.into_iter().map(|(path, replies)| (path.to_owned(), replies)).collect();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let server =
            Self { url: format!("http://{}/base", listener.local_addr().unwrap()), hits: Arc::default() };
        let hits = Arc::clone(&server.hits);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream, routes.clone(), Arc::clone(&hits)));
            }
        });
        server
    }

    fn hits(&self) -> usize {
        self.hits.lock().unwrap().len()
    }
}

async fn serve(mut stream: TcpStream, routes: HashMap<String, Vec<Reply>>, hits: Arc<Mutex<Vec<String>>>) {
    let mut request = Vec::new();
    while !request.ends_with(b"\r\n\r\n") {
        match stream.read_u8().await {
            Ok(byte) => request.push(byte),
            Err(_) => return,
        }
    }
    let text = String::from_utf8_lossy(&request).to_lowercase();
    assert!(text.contains("user-agent: zlh-agent/") && text.contains("accept-encoding: identity"), "{text}");
    let path = text.split([' ', '?']).nth(1).unwrap_or_default().to_owned();
    let nth = {
        let mut hits = hits.lock().unwrap();
        hits.push(path.clone());
        hits.iter().filter(|hit| **hit == path).count() - 1
    };
    let reply = match routes.get(&path) {
        Some(replies) => replies[nth.min(replies.len() - 1)].clone(),
        None => Reply::Answer(404, String::new(), b"not here".to_vec()),
    };
    let (head, body, stall) = match reply {
        Reply::Answer(status, headers, body) => {
            (format!("HTTP/1.1 {status} X\r\n{headers}content-length: {}\r\n", body.len()), body, false)
        }
        Reply::Unannounced(body) => ("HTTP/1.1 200 X\r\n".to_owned(), body, false),
        Reply::Announced(length, body) => {
            (format!("HTTP/1.1 200 X\r\ncontent-length: {length}\r\n"), body, false)
        }
        Reply::Stall(body) => ("HTTP/1.1 200 X\r\n".to_owned(), body, true),
        Reply::Close => return,
    };
    let _ = stream.write_all(format!("{head}connection: close\r\n\r\n").as_bytes()).await;
    let _ = stream.write_all(&body).await;
    if stall {
        // Until the other side gives up.
        let _ = stream.read_u8().await;
    }
}

struct Bench {
    temp: TempDir,
    fetcher: Fetcher,
}

impl Bench {
    fn new(url: &str) -> Self {
        let temp = tempfile::tempdir().unwrap();
        let fetcher = Fetcher::with_tuning(url, temp.path().join("cache"), tuning()).unwrap();
        Self { temp, fetcher }
    }

    fn cache(&self) -> PathBuf {
        self.temp.path().join("cache")
    }

    /// What is in the cache, directories left out.
    fn cached(&self) -> Vec<String> {
        listing(&self.cache()).into_iter().filter(|path| !path.ends_with('/')).collect()
    }
}

fn tuning() -> Tuning {
    Tuning {
        connect: Duration::from_secs(5),
        // Longer than a busy machine keeps the server of a test waiting.
        stall: Duration::from_secs(20),
        retries: 3,
        pause: Duration::from_millis(1),
        ..Tuning::default()
    }
}

fn body() -> Vec<u8> {
    (0..3_000_000_u32).flat_map(|number| number.to_le_bytes()[..1].to_vec()).collect()
}

fn ok(body: &[u8]) -> Reply {
    Reply::Answer(200, String::new(), body.to_vec())
}

fn rel(path: &str) -> RelPath {
    RelPath::new(path).unwrap()
}

#[tokio::test]
async fn a_good_file_is_fetched_once_and_is_read_only() {
    let body = body();
    let server = Server::start([("/base/java/21/openjdk%2021.tar.gz", vec![ok(&body)])]).await;
    let bench = Bench::new(&server.url);
    let wanted = artifact("java/21/openjdk 21.tar.gz", &body);
    let seen = AtomicU64::new(0);
    let fetched = bench
        .fetcher
        .fetch(&wanted, |bytes| assert!(seen.swap(bytes, Ordering::Relaxed) < bytes, "progress only rises"))
        .await
        .unwrap();
    assert_eq!(seen.into_inner(), wanted.size);
    assert_eq!((fetched.from_cache, &fetched.warning), (false, &None));
    assert_eq!(std::fs::read(&fetched.path).unwrap(), body);
    use std::os::unix::fs::PermissionsExt;
    assert_eq!(fetched.path.metadata().unwrap().permissions().mode() & 0o7777, 0o444);
    assert_eq!(bench.cached(), [format!("sha256/{}", wanted.sha256)]);

    let again = bench.fetcher.fetch(&wanted, |_| ()).await.unwrap();
    assert!(again.from_cache && again.path == fetched.path);
    let other = Fetcher::with_tuning(&server.url, bench.cache(), tuning()).unwrap();
    assert!(other.fetch(&wanted, |_| ()).await.unwrap().from_cache, "also for another process");
    assert_eq!(server.hits(), 1);
}

#[tokio::test]
async fn wrong_answers_are_final_and_leave_nothing() {
    let body = body();
    let mut wrong = body.clone();
    wrong[1_234_567] ^= 1;
    let longer = [&body[..], b"!"].concat();
    let html = |status| Reply::Answer(status, String::new(), b"<html>".to_vec());
    let gzipped = Reply::Answer(200, "content-encoding: gzip\r\n".to_owned(), body.clone());
    let redirect = |to: &str| Reply::Answer(302, format!("location: {to}\r\n"), vec![]);
    type Expected = fn(&FetchError) -> bool;
    let table: Vec<(&str, Reply, Expected)> = vec![
        ("wrong hash", ok(&wrong), |e| matches!(e, FetchError::HashMismatch { .. })),
        ("longer", ok(&longer), |e| matches!(e, FetchError::SizeMismatch { got: 3_000_001, .. })),
        ("longer, unannounced", Reply::Unannounced(longer.clone()), |e| {
            matches!(e, FetchError::SizeMismatch { .. })
        }),
        ("shorter", ok(&body[1..]), |e| matches!(e, FetchError::SizeMismatch { got: 2_999_999, .. })),
        ("html", html(200), |e| matches!(e, FetchError::SizeMismatch { .. })),
        ("404", html(404), |e| matches!(e, FetchError::NotFound { .. })),
        ("403", html(403), |e| matches!(e, FetchError::Http { status: 403, .. })),
        ("206", Reply::Answer(206, String::new(), body.clone()), |e| {
            matches!(e, FetchError::Http { status: 206, .. })
        }),
        ("encoded", gzipped, |e| matches!(e, FetchError::Encoded { .. })),
        ("off the origin", redirect("http://127.0.0.1:1/x"), |e| matches!(e, FetchError::Redirect { .. })),
        ("to a file", redirect("file:///etc/passwd"), |e| matches!(e, FetchError::Redirect { .. })),
        ("nowhere", Reply::Answer(302, String::new(), vec![]), |e| matches!(e, FetchError::Redirect { .. })),
        ("in a circle", redirect("/base/f"), |e| {
            matches!(e, FetchError::Redirect { why: "there were more than five", .. })
        }),
    ];
    for (case, reply, expected) in table {
        let circle = case == "in a circle";
        // A second request would be answered well, except in the circle.
        let next = if circle { reply.clone() } else { ok(&body) };
        let server = Server::start([("/base/f", vec![reply, next])]).await;
        let bench = Bench::new(&server.url);
        let error = bench.fetcher.fetch(&artifact("f", &body), |_| ()).await.expect_err(case);
        assert!(expected(&error), "{case}: {error:?}");
        assert!(error.to_string().contains("`f`"), "{case} names the file: {error}");
        assert_eq!(server.hits(), if circle { 6 } else { 1 }, "{case} is not tried again");
        assert_eq!(bench.cached(), [""; 0], "{case}");
    }
}

#[tokio::test]
async fn a_wrong_hash_says_expected_and_got() {
    let server = Server::start([("/base/f", vec![ok(b"evil")])]).await;
    let wanted = artifact("f", b"good");
    let error = Bench::new(&server.url).fetcher.fetch(&wanted, |_| ()).await.unwrap_err().to_string();
    assert!(error.contains(&format!("expected {}", wanted.sha256)), "{error}");
    assert!(error.contains(&format!("got {}", support::sha256(b"evil"))), "{error}");
}

#[tokio::test]
async fn troubles_of_the_moment_are_tried_again() {
    let body = body();
    let down = Reply::Answer(503, String::new(), vec![]);
    let half = &body[..1_500_000];
    for (case, reply) in [
        ("500", down.clone()),
        ("closed", Reply::Close),
        ("stalled before", Reply::Stall(vec![])),
        ("stalled within", Reply::Stall(half.to_vec())),
        ("cut off", Reply::Announced(body.len() as u64, half.to_vec())),
        ("cut off, unannounced", Reply::Unannounced(half.to_vec())),
    ] {
        let stalls = matches!(reply, Reply::Stall(_));
        let server = Server::start([("/base/f", vec![reply, ok(&body)])]).await;
        let mut bench = Bench::new(&server.url);
        if stalls {
            let short = Tuning { stall: Duration::from_secs(2), ..tuning() };
            bench.fetcher = Fetcher::with_tuning(&server.url, bench.cache(), short).unwrap();
        }
        let fetched = bench.fetcher.fetch(&artifact("f", &body), |_| ()).await.expect(case);
        assert_eq!(std::fs::read(fetched.path).unwrap(), body, "{case}");
        // A machine that rests for long may add one to those that wait for a stall.
        assert!(server.hits() == 2 || stalls && server.hits() > 2, "{case}: {}", server.hits());
        assert_eq!(bench.cached().len(), 1, "{case}: no partial file stays");
    }
    let server = Server::start([("/base/f", vec![down])]).await;
    let error = Bench::new(&server.url).fetcher.fetch(&artifact("f", &body), |_| ()).await.unwrap_err();
    assert!(matches!(error, FetchError::Http { status: 503, .. }), "{error:?}");
    assert_eq!(server.hits(), 4, "three retries");
}

#[tokio::test]
async fn a_redirect_within_the_origin_is_followed() {
    let moved = Reply::Answer(307, "location: /elsewhere/g\r\n".to_owned(), vec![]);
    let server = Server::start([("/base/f", vec![moved]), ("/elsewhere/g", vec![ok(b"content")])]).await;
    let bench = Bench::new(&server.url);
    bench.fetcher.fetch(&artifact("f", b"content"), |_| ()).await.unwrap();
}

#[tokio::test]
async fn nobody_listening_is_said_with_the_cause() {
    // Nobody is given this port by chance.
    let error =
        Bench::new("http://127.0.0.1:1").fetcher.fetch(&artifact("f", b"x"), |_| ()).await.unwrap_err();
    assert!(matches!(error, FetchError::Connect { .. }), "{error:?}");
    assert!(chain(&error).to_lowercase().contains("refused"), "{}", chain(&error));
}

#[tokio::test]
async fn localhost_resolves() {
    let server = Server::start([("/base/f", vec![ok(b"content")])]).await;
    let bench = Bench::new(&server.url.replace("127.0.0.1", "localhost"));
    bench.fetcher.fetch(&artifact("f", b"content"), |_| ()).await.unwrap();
}

#[tokio::test]
async fn a_damaged_copy_is_replaced_with_a_warning() {
    let server = Server::start([("/base/f", vec![ok(b"content")])]).await;
    let bench = Bench::new(&server.url);
    let wanted = artifact("f", b"content");
    let path = bench.fetcher.fetch(&wanted, |_| ()).await.unwrap().path;
    for (damage, why) in [(&b"CONTENT"[..], "hash "), (b"cont", "4 bytes instead of 7")] {
        std::fs::remove_file(&path).unwrap();
        std::fs::write(&path, damage).unwrap();
        let fetched = bench.fetcher.fetch(&wanted, |_| ()).await.unwrap();
        let warning = fetched.warning.expect("a warning");
        assert!(!fetched.from_cache && warning.why.contains(why), "{warning}");
        assert_eq!(std::fs::read(&path).unwrap(), b"content");
    }
    // Changed in place, with the same size and inode.
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
    std::fs::write(&path, b"CONTENT").unwrap();
    assert!(bench.fetcher.fetch(&wanted, |_| ()).await.unwrap().warning.is_some());
}

#[tokio::test]
async fn cancelling_leaves_nothing_behind() {
    let server = Server::start([("/base/f", vec![Reply::Stall(b"some".to_vec())])]).await;
    let bench = Bench::new(&server.url);
    let fetcher = Fetcher::with_tuning(
        &server.url,
        bench.cache(),
        Tuning { stall: Duration::from_secs(60), ..tuning() },
    );
    let fetcher = fetcher.unwrap();
    let wanted = artifact("f", b"something");
    let (seen, mut started) = tokio::sync::mpsc::unbounded_channel();
    let task = tokio::spawn(async move {
        fetcher
            .fetch(&wanted, move |bytes| {
                let _ = seen.send(bytes);
            })
            .await
    });
    assert_eq!(started.recv().await, Some(4));
    assert_eq!(bench.cached().len(), 2, "a partial file while it runs, and where it is from");
    let _other = Fetcher::with_tuning(&server.url, bench.cache(), tuning()).unwrap();
    assert_eq!(bench.cached().len(), 2, "which another fetcher does not sweep away");
    task.abort();
    assert!(task.await.unwrap_err().is_cancelled());
    assert_eq!(bench.cached(), [""; 0]);
}

#[tokio::test]
async fn what_a_killed_process_left_is_swept() {
    let bench = Bench::new("http://127.0.0.1/");
    std::fs::write(bench.cache().join("tmp/0123.1-0-0.part"), "debris").unwrap();
    std::fs::write(bench.cache().join("tmp/note.txt"), "not ours").unwrap();
    Fetcher::with_tuning("http://127.0.0.1/", bench.cache(), tuning()).unwrap();
    assert_eq!(bench.cached(), ["tmp/note.txt"]);
}

#[tokio::test]
async fn an_impossible_size_is_refused_before_a_byte_is_stored() {
    let big = Reply::Announced(1 << 60, b"x".to_vec());
    let server = Server::start([("/base/f", vec![big.clone()]), ("/base/unpinned", vec![big])]).await;
    let bench = Bench::new(&server.url);
    let mut wanted = artifact("f", b"x");
    wanted.size = 1 << 60;
    let error = bench.fetcher.fetch(&wanted, |_| ()).await.unwrap_err();
    assert!(
        matches!(error, FetchError::NoSpace { needed, free, .. } if needed == 1 << 60 && free > 0),
        "{error:?}"
    );
    // What no catalog pins says itself how large it is.
    let error = bench.fetcher.pin(&rel("unpinned"), u64::MAX, |_, _| ()).await.unwrap_err();
    assert!(matches!(error, FetchError::NoSpace { needed, .. } if needed == 1 << 60), "{error:?}");
    assert_eq!(bench.cached(), [""; 0]);
}

#[tokio::test]
async fn a_directory_serves_as_well() {
    let store = tempfile::tempdir().unwrap();
    std::fs::create_dir(store.path().join("dir")).unwrap();
    std::fs::write(store.path().join("dir/f"), "content").unwrap();
    let bench = Bench::new(&format!("file://{}", store.path().display()));
    let get = |path: &'static str, data: &'static [u8]| {
        let fetcher = bench.fetcher.clone();
        async move { fetcher.fetch(&artifact(path, data), |_| ()).await }
    };
    get("dir/f", b"content").await.unwrap();
    assert!(matches!(get("dir/f", b"CONTENT").await, Err(FetchError::HashMismatch { .. })));
    assert!(matches!(get("dir/f", b"more content").await, Err(FetchError::SizeMismatch { .. })));
    for missing in ["dir", "none", "dir/f/x"] {
        assert!(matches!(get(missing, b"x").await, Err(FetchError::NotFound { .. })), "{missing}");
    }
    assert_eq!(bench.fetcher.get_small(&rel("dir/f"), 7).await.unwrap(), b"content");
    assert!(matches!(
        bench.fetcher.get_small(&rel("dir/f"), 6).await,
        Err(FetchError::TooLarge { limit: 6, .. })
    ));
}

#[tokio::test]
async fn small_files_have_a_ceiling_and_retries() {
    let down = Reply::Answer(502, String::new(), vec![]);
    let server = Server::start([
        ("/base/catalog.json", vec![down, ok(b"{}")]),
        ("/base/flood", vec![Reply::Unannounced(vec![b' '; 100_000])]),
    ])
    .await;
    let bench = Bench::new(&server.url);
    assert_eq!(bench.fetcher.get_small(&rel("catalog.json"), 10).await.unwrap(), b"{}");
    let error = bench.fetcher.get_small(&rel("flood"), 1000).await.unwrap_err();
    assert!(matches!(error, FetchError::TooLarge { .. }), "{error:?}");
}

#[tokio::test]
async fn a_bucket_that_may_not_be_listed_says_403_of_what_is_not_there() {
    let forbidden = Reply::Answer(403, String::new(), b"AccessDenied".to_vec());
    let server = Server::start([("/base/there", vec![ok(b"x")]), ("/base/gone", vec![forbidden])]).await;
    let temp = tempfile::tempdir().unwrap();
    let access = S3Access { key: "k".into(), secret: "s".into(), region: "auto".into() };
    let urls = vec![server.url.clone(), format!("s3+{}", server.url)];
    let fetcher =
        Fetcher::of(&Servers { urls, s3: Some(access) }, temp.path().join("cache"), tuning()).unwrap();
    let [http, bucket] = fetcher.servers().try_into().unwrap();
    assert_eq!(bucket.get_if_there(&rel("gone"), 10).await.unwrap(), None);
    for one in [http, bucket] {
        assert_eq!(one.get_if_there(&rel("there"), 10).await.unwrap().as_deref(), Some(&b"x"[..]));
        assert!(matches!(one.get_small(&rel("gone"), 10).await, Err(FetchError::Http { status: 403, .. })));
    }
    assert!(matches!(http.get_if_there(&rel("gone"), 10).await, Err(FetchError::Http { status: 403, .. })));
    assert_eq!(http.get_if_there(&rel("elsewhere"), 10).await.unwrap(), None);
}

#[tokio::test]
async fn one_server_is_asked_alone_and_last_where_it_was_no_good() {
    let silent = Reply::Stall(vec![]);
    let [first, second] = [
        Server::start([("/base/f", vec![silent])]).await,
        Server::start([("/base/f", vec![ok(b"2")])]).await,
    ];
    let temp = tempfile::tempdir().unwrap();
    let urls = vec![first.url.clone(), second.url.clone()];
    let short = Tuning { stall: Duration::from_secs(2), ..tuning() };
    let fetcher = Fetcher::of(&Servers { urls, s3: None }, temp.path().join("cache"), short).unwrap();
    let [one, other] = fetcher.servers().try_into().unwrap();
    assert!(one.hurried().get_small(&rel("f"), 10).await.is_err());
    assert_eq!((first.hits(), second.hits()), (1, 0));
    assert!(one.get_small(&rel("f"), 10).await.is_err());
    assert_eq!((first.hits(), second.hits()), (5, 0));
    one.demote();
    assert_eq!(
        fetcher.servers().iter().map(|one| one.name()).collect::<Vec<_>>(),
        [other.name(), one.name()]
    );
    assert_eq!(fetcher.get_small(&rel("f"), 10).await.unwrap(), b"2");
    // A machine that rests for long may add one to the second.
    assert!(first.hits() == 5 && second.hits() >= 1, "{} {}", first.hits(), second.hits());
}

#[tokio::test]
async fn what_nobody_pins_is_seen_whole_or_not_at_all() {
    let half = body()[..body().len() / 2].to_vec();
    let server = Server::start([
        ("/base/good", vec![Reply::Close, Reply::Announced(body().len() as u64, half.clone()), ok(&body())]),
        ("/base/unannounced", vec![Reply::Unannounced(body())]),
        ("/base/half", vec![Reply::Announced(body().len() as u64, half)]),
        ("/base/empty", vec![ok(b"")]),
        ("/base/gone", vec![Reply::Answer(404, String::new(), Vec::new())]),
    ])
    .await;
    let bench = Bench::new(&server.url);
    let limit = body().len() as u64;
    let wanted = artifact("good", &body());
    let told = Mutex::new((0, 0));
    let tell = |done, all| *told.lock().unwrap() = (done, all);
    let pin = bench.fetcher.pin(&rel("good"), limit, tell).await.unwrap();
    assert_eq!((pin.size, pin.sha256), (limit, wanted.sha256));
    assert_eq!(*told.lock().unwrap(), (limit, limit));
    let hits = server.hits();
    let fetched = bench.fetcher.fetch(&wanted, |_| ()).await.unwrap();
    assert!(fetched.from_cache && server.hits() == hits, "what was seen is not fetched again");
    for (name, limit, why) in [
        ("half", limit, "ended after"),
        ("gone", limit, "gone"),
        ("good", limit - 1, "larger"),
        ("unannounced", limit, "how long it is"),
        ("empty", limit, "how long it is"),
    ] {
        let error = bench.fetcher.pin(&rel(name), limit, |_, _| ()).await.unwrap_err();
        assert!(chain(&error).contains(why), "{name}: {}", chain(&error));
    }
    assert_eq!(bench.cached().len(), 1, "nothing else is left: {:?}", bench.cached());
}

#[tokio::test]
async fn an_unusable_cache_is_named() {
    let temp = tempfile::tempdir().unwrap();
    let file = temp.path().join("file");
    std::fs::write(&file, "").unwrap();
    let error = Fetcher::new("http://127.0.0.1/", file.join("cache")).unwrap_err();
    assert!(error.to_string().contains(&format!("{}", Path::new(&file).display())), "{error}");
}
