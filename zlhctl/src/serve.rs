//! A small static file server: the artifact store of a small deployment, and of
//! the demo.
//!
//! `GET` and `HEAD` of regular files below one folder, with single byte ranges. It
//! refuses everything else: other methods, directories, hidden files (`.git`,
//! unfinished uploads), and any path that leaves the folder, by `..` or by a link
//! (the kernel resolves beneath the folder's descriptor).

use std::convert::Infallible;
use std::io::{self, SeekFrom};
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use bytes::Bytes;
use cap_std::ambient_authority;
use cap_std::fs::{Dir, OpenOptions, OpenOptionsExt};
use futures_util::{Stream, TryStreamExt, stream};
use http::header::{self, HeaderValue};
use http::{Method, Request, Response, StatusCode};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::Frame;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncReadExt, AsyncSeekExt};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio_io_timeout::TimeoutStream;

/// A bound server that does not serve yet.
pub(crate) struct Server {
    listener: TcpListener,
    address: SocketAddr,
    root: Arc<Dir>,
    /// Connections at a time.
    connections: usize,
    /// How long one may take nothing of what is sent.
    stall: Duration,
}

type Body = BoxBody<Bytes, io::Error>;

impl Server {
    pub(crate) async fn bind(folder: &Path, listen: SocketAddr) -> Result<Self> {
        let root = Dir::open_ambient_dir(folder, ambient_authority())
            .with_context(|| format!("cannot open `{}`", folder.display()))?;
        let listener =
            TcpListener::bind(listen).await.with_context(|| format!("cannot listen on {listen}"))?;
        let address = listener.local_addr().context("cannot listen")?;
        Ok(Self { listener, address, root: Arc::new(root), connections: MAX_CONNECTIONS, stall: STALL })
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Serves until dropped.
    pub(crate) async fn run(self) {
        let connections = Arc::new(Semaphore::new(self.connections));
        loop {
            let Ok(permit) = Arc::clone(&connections).acquire_owned().await else { return };
            let Ok((stream, _)) = self.listener.accept().await else {
                // Out of descriptors, mostly: others have to finish first.
                tokio::time::sleep(BACK_OFF).await;
                continue;
            };
            let root = Arc::clone(&self.root);
            let mut stream = TimeoutStream::new(stream);
            stream.set_write_timeout(Some(self.stall));
            tokio::spawn(async move {
                let service = service_fn(|request| answer(Arc::clone(&root), request));
                let mut http = hyper::server::conn::http1::Builder::new();
                http.timer(TokioTimer::new()).header_read_timeout(HEADER_TIMEOUT).max_headers(64);
                // A client that went away is no event.
                let _ = http.serve_connection(TokioIo::new(Box::pin(stream)), service).await;
                drop(permit);
            });
        }
    }
}

async fn answer<B>(root: Arc<Dir>, request: Request<B>) -> Result<Response<Body>, Infallible> {
    let response = match *request.method() {
        Method::GET | Method::HEAD => file(root, &request).await,
        _ => {
            let mut response = plain(StatusCode::METHOD_NOT_ALLOWED);
            response.headers_mut().insert(header::ALLOW, HeaderValue::from_static("GET, HEAD"));
            response
        }
    };
    let (mut parts, body) = response.into_parts();
    parts.headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    // hyper itself sends no body to a HEAD; the length stays that of the GET.
    Ok(Response::from_parts(parts, body))
}

async fn file<B>(root: Arc<Dir>, request: &Request<B>) -> Response<Body> {
    let Some(path) = relative(request.uri().path()) else { return plain(StatusCode::NOT_FOUND) };
    let media_type = media_type(&path);
    let opened = tokio::task::spawn_blocking(move || open(&root, &path)).await;
    let (file, length, tag) = match opened {
        Ok(Ok(Some(found))) => found,
        Ok(Ok(None)) => return plain(StatusCode::NOT_FOUND),
        _ => return plain(StatusCode::INTERNAL_SERVER_ERROR),
    };
    let headers = request.headers();
    let wanted = headers.get(header::RANGE).and_then(|value| value.to_str().ok());
    // `If-Range` with another tag: the file changed, so the whole of it.
    let unchanged = headers.get(header::IF_RANGE).is_none_or(|value| value.as_bytes() == tag.as_bytes());
    let range = wanted.filter(|_| unchanged).map_or(Range::Whole, |text| parse_range(text, length));
    let mut builder = Response::builder()
        .header(header::CONTENT_TYPE, media_type)
        .header(header::ACCEPT_RANGES, "bytes")
        .header(header::ETAG, &tag);
    let (from, count) = match range {
        Range::Whole => (0, length),
        Range::Part { from, count } => {
            let last = from + count - 1;
            builder = builder
                .status(StatusCode::PARTIAL_CONTENT)
                .header(header::CONTENT_RANGE, format!("bytes {from}-{last}/{length}"));
            (from, count)
        }
        Range::Unsatisfiable => {
            let mut response = plain(StatusCode::RANGE_NOT_SATISFIABLE);
            if let Ok(value) = HeaderValue::from_str(&format!("bytes */{length}")) {
                response.headers_mut().insert(header::CONTENT_RANGE, value);
            }
            return response;
        }
    };
    let body = if request.method() == Method::HEAD {
        Full::new(Bytes::new()).map_err(|never| match never {}).boxed()
    } else {
        StreamBody::new(read(file, from, count).map_ok(Frame::data)).boxed()
    };
    builder
        .header(header::CONTENT_LENGTH, count)
        .body(body)
        .unwrap_or_else(|_| plain(StatusCode::INTERNAL_SERVER_ERROR))
}

/// `None` for what is not there, or not to be shown.
fn open(root: &Dir, path: &str) -> io::Result<Option<(std::fs::File, u64, String)>> {
    let mut options = OpenOptions::new();
    // A FIFO must not hold the thread until somebody writes into it.
    options.read(true).custom_flags(NON_BLOCKING);
    let file = match root.open_with(path, &options) {
        Ok(file) => file,
        // Absent, or outside, or a loop of links: all the same to the caller.
        Err(error) if is_exhausted(&error) => return Err(error),
        Err(_) => return Ok(None),
    };
    let metadata = file.metadata()?;
    if !metadata.is_file() {
        return Ok(None);
    }
    let modified =
        metadata.modified().ok().and_then(|time| time.into_std().duration_since(std::time::UNIX_EPOCH).ok());
    let tag = format!("\"{:x}-{:x}\"", metadata.len(), modified.map_or(0, |since| since.as_nanos()));
    Ok(Some((file.into_std(), metadata.len(), tag)))
}

fn is_exhausted(error: &io::Error) -> bool {
    let code = error.raw_os_error().map(rustix::io::Errno::from_raw_os_error);
    matches!(
        code,
        Some(
            rustix::io::Errno::MFILE
                | rustix::io::Errno::NFILE
                | rustix::io::Errno::NOMEM
                | rustix::io::Errno::IO
        )
    )
}

/// Exactly `count` bytes, or an error that cuts the connection: a file that shrank
/// meanwhile must not look complete.
fn read(file: std::fs::File, from: u64, count: u64) -> impl Stream<Item = io::Result<Bytes>> {
    struct At {
        file: tokio::fs::File,
        seek: Option<u64>,
        left: u64,
    }
    let start = At { file: tokio::fs::File::from_std(file), seek: Some(from), left: count };
    stream::try_unfold(start, |mut at| async move {
        if at.left == 0 {
            return Ok(None);
        }
        if let Some(from) = at.seek.take() {
            at.file.seek(SeekFrom::Start(from)).await?;
        }
        let want = usize::try_from(at.left).unwrap_or(PIECE_BYTES).min(PIECE_BYTES);
        let mut piece = vec![0; want];
        let got = at.file.read(&mut piece).await?;
        if got == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        piece.truncate(got);
        at.left -= got as u64;
        Ok(Some((Bytes::from(piece), at)))
    })
}

/// The path below the folder: decoded once, no empty, hidden or upward component.
fn relative(path: &str) -> Option<String> {
    let decoded = decode(path.strip_prefix('/')?)?;
    let fine = |part: &str| !part.is_empty() && !part.starts_with('.') && !part.contains(['\\', '\0']);
    decoded.split('/').all(fine).then_some(decoded)
}

fn decode(text: &str) -> Option<String> {
    let mut out = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        if byte != b'%' {
            out.push(byte);
            continue;
        }
        let mut digit = || char::from(bytes.next()?).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
        let (high, low) = (digit()?, digit()?);
        out.push(high << 4 | low);
    }
    String::from_utf8(out).ok()
}

#[derive(Debug, PartialEq, Eq)]
enum Range {
    Whole,
    Part { from: u64, count: u64 },
    Unsatisfiable,
}

/// One range; what is malformed, or several at once, may be ignored and is.
fn parse_range(text: &str, length: u64) -> Range {
    let Some((from, to)) = text.strip_prefix("bytes=").and_then(|spec| spec.split_once('-')) else {
        return Range::Whole;
    };
    let number = |text: &str| text.trim().parse::<u64>().ok();
    let (from, last) = match (number(from), number(to), from.trim().is_empty(), to.trim().is_empty()) {
        (Some(from), Some(last), ..) if last >= from => (from, last),
        (Some(from), None, _, true) => (from, u64::MAX),
        (None, Some(0), true, _) => return Range::Unsatisfiable,
        (None, Some(tail), true, _) => (length.saturating_sub(tail), u64::MAX),
        _ => return Range::Whole,
    };
    if from >= length {
        return Range::Unsatisfiable;
    }
    Range::Part { from, count: last.min(length - 1) - from + 1 }
}

fn media_type(path: &str) -> &'static str {
    match path.rsplit('.').next() {
        Some("json") => "application/json",
        Some("minisig") => "text/plain; charset=utf-8",
        Some("jar") => "application/java-archive",
        _ => "application/octet-stream",
    }
}

fn plain(status: StatusCode) -> Response<Body> {
    let text = format!("{}\n", status.canonical_reason().unwrap_or("error").to_lowercase());
    let length = text.len();
    let body = Full::new(Bytes::from(text)).map_err(|never| match never {}).boxed();
    let mut response = Response::new(body);
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_LENGTH, length.into());
    response
}

const NON_BLOCKING: i32 = rustix::fs::OFlags::NONBLOCK.bits().cast_signed();
const PIECE_BYTES: usize = 128 << 10;
const MAX_CONNECTIONS: usize = 256;
const HEADER_TIMEOUT: Duration = Duration::from_secs(10);
const STALL: Duration = Duration::from_secs(30);
const BACK_OFF: Duration = Duration::from_millis(100);

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use tokio::io::AsyncWriteExt;
    use tokio::net::TcpStream;

    use super::*;

    /// One request, the whole answer.
    async fn ask(address: SocketAddr, head: &str) -> (String, Vec<u8>) {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(format!("{head}\r\nhost: x\r\nconnection: close\r\n\r\n").as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await.unwrap();
        let end = answer.windows(4).position(|w| w == b"\r\n\r\n").unwrap();
        (String::from_utf8(answer[..end].to_vec()).unwrap().to_lowercase(), answer[end + 4..].to_vec())
    }

    async fn server() -> (tempfile::TempDir, SocketAddr) {
        let folder = tempfile::tempdir().unwrap();
        let store = folder.path().join("store");
        std::fs::create_dir_all(store.join("a")).unwrap();
        std::fs::write(store.join("a/server.jar"), "0123456789").unwrap();
        std::fs::write(store.join("big"), vec![b'x'; PIECE_BYTES * 3 + 7]).unwrap();
        std::fs::write(store.join(".hidden"), "secret").unwrap();
        std::fs::write(folder.path().join("outside"), "secret").unwrap();
        symlink("../outside", store.join("out")).unwrap();
        symlink(folder.path().join("outside"), store.join("abs")).unwrap();
        symlink("a/server.jar", store.join("inside")).unwrap();
        symlink("loop", store.join("loop")).unwrap();
        rustix::fs::mknodat(
            rustix::fs::CWD,
            store.join("fifo"),
            rustix::fs::FileType::Fifo,
            rustix::fs::Mode::from(0o644),
            0,
        )
        .unwrap();
        let server = Server::bind(&store, "127.0.0.1:0".parse().unwrap()).await.unwrap();
        let address = server.address();
        tokio::spawn(server.run());
        (folder, address)
    }

    #[tokio::test]
    async fn files_whole_and_in_parts() {
        let (_folder, address) = server().await;
        let (head, body) = ask(address, "GET /a/server.jar HTTP/1.1").await;
        assert!(head.starts_with("http/1.1 200") && head.contains("content-length: 10"), "{head}");
        assert_eq!(body, b"0123456789");
        let (head, body) = ask(address, "HEAD /a/server.jar HTTP/1.1").await;
        assert!(head.starts_with("http/1.1 200") && head.contains("content-length: 10"), "{head}");
        assert!(body.is_empty());
        let (head, body) = ask(address, "GET /inside HTTP/1.1\r\nrange: bytes=2-4").await;
        assert!(head.starts_with("http/1.1 206") && head.contains("content-range: bytes 2-4/10"), "{head}");
        assert_eq!(body, b"234");
        let (head, body) =
            ask(address, "GET /inside HTTP/1.1\r\nrange: bytes=2-4\r\nif-range: \"other\"").await;
        assert!(head.starts_with("http/1.1 200"), "{head}");
        assert_eq!(body.len(), 10);
        let (head, _) = ask(address, "GET /inside HTTP/1.1\r\nrange: bytes=10-").await;
        assert!(head.starts_with("http/1.1 416") && head.contains("bytes */10"), "{head}");
        let (_, body) = ask(address, "GET /big HTTP/1.1").await;
        assert_eq!(body.len(), PIECE_BYTES * 3 + 7);
    }

    #[tokio::test]
    async fn nothing_else_is_shown() {
        let (_folder, address) = server().await;
        for path in [
            "/",
            "/a",
            "/a/",
            "/.hidden",
            "/%2ehidden",
            "/../outside",
            "/%2e%2e/outside",
            "/..%2foutside",
            "/a/..%2f..%2foutside",
            "/out",
            "/abs",
            "/loop",
            "/fifo",
            "//etc/passwd",
            "/%2fetc%2fpasswd",
            "/a//server.jar",
            "/missing",
            "/a%00",
            "/%zz",
            "/a\\..\\x",
        ] {
            let (head, body) = ask(address, &format!("GET {path} HTTP/1.1")).await;
            assert!(head.starts_with("http/1.1 40"), "{path}: {head}");
            assert!(!String::from_utf8_lossy(&body).contains("secret"), "{path}");
        }
        let (head, _) = ask(address, "POST /big HTTP/1.1\r\ncontent-length: 0").await;
        assert!(head.starts_with("http/1.1 405") && head.contains("allow: get, head"), "{head}");
    }

    /// Whoever reads nothing loses the connection, and somebody else gets it.
    #[tokio::test]
    async fn a_reader_that_stalls_is_let_go() {
        let folder = tempfile::tempdir().unwrap();
        // More than the sockets hold.
        std::fs::File::create(folder.path().join("big")).unwrap().set_len(64 << 20).unwrap();
        std::fs::write(folder.path().join("small"), "0123456789").unwrap();
        let mut server = Server::bind(folder.path(), "127.0.0.1:0".parse().unwrap()).await.unwrap();
        (server.connections, server.stall) = (1, Duration::from_millis(300));
        let address = server.address();
        tokio::spawn(server.run());
        let mut stalled = TcpStream::connect(address).await.unwrap();
        stalled.write_all(b"GET /big HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
        let next = tokio::time::timeout(Duration::from_secs(20), ask(address, "GET /small HTTP/1.1"));
        assert_eq!(next.await.expect("the only connection is held").1, b"0123456789");
        let (mut got, mut buffer) = (0, vec![0; 1 << 20]);
        while let Ok(count @ 1..) = stalled.read(&mut buffer).await {
            got += count;
        }
        assert!(got < 64 << 20, "{got}");
    }

    /// One that pauses for less than that gets all of it.
    #[tokio::test]
    async fn a_slow_reader_is_served_to_the_end() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::File::create(folder.path().join("big")).unwrap().set_len(24 << 20).unwrap();
        let mut server = Server::bind(folder.path(), "127.0.0.1:0".parse().unwrap()).await.unwrap();
        server.stall = Duration::from_secs(8);
        let address = server.address();
        tokio::spawn(server.run());
        let mut slow = TcpStream::connect(address).await.unwrap();
        slow.write_all(b"GET /big HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await.unwrap();
        let (mut got, mut buffer, mut pauses) = (0, vec![0; 1 << 20], 0);
        loop {
            match slow.read(&mut buffer).await.unwrap() {
                0 => break,
                count => got += count,
            }
            if got > pauses * (6 << 20) {
                pauses += 1;
                tokio::time::sleep(Duration::from_millis(2200)).await;
            }
        }
        assert!(got > 24 << 20 && pauses > 3, "{got} {pauses}");
    }

    #[test]
    fn ranges() {
        use Range::*;
        for (text, expected) in [
            ("bytes=0-", Part { from: 0, count: 10 }),
            ("bytes=9-9", Part { from: 9, count: 1 }),
            ("bytes=5-99", Part { from: 5, count: 5 }),
            ("bytes=-3", Part { from: 7, count: 3 }),
            ("bytes=-30", Part { from: 0, count: 10 }),
            ("bytes=-0", Unsatisfiable),
            ("bytes=10-", Unsatisfiable),
            ("bytes=5-2", Whole),
            ("bytes=0-1,3-4", Whole),
            ("items=0-1", Whole),
            ("bytes=-", Whole),
            ("bytes=x-3", Whole),
        ] {
            assert_eq!(parse_range(text, 10), expected, "{text}");
        }
        assert_eq!(parse_range("bytes=0-0", 0), Unsatisfiable);
    }
}
