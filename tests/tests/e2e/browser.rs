//! The deployed portal's way of attaching: a real browser, its own WebSocket, xterm.js.

use std::collections::HashMap;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use zlh_api::CONSOLE_PROTOCOL;
use zlh_tests::harness::agent::Agent;
use zlh_tests::harness::paths::{target_dir, workspace};
use zlh_tests::harness::process::Process;
use zlh_tests::harness::store::{FakePlan, Store};
use zlh_tests::harness::wait::eventually;

use crate::guards::skip;

/// A browser takes its time to start on a loaded machine.
const BROWSER: Duration = Duration::from_secs(90);

/// Where Debian puts it.
const CHROMIUM: &str = "/usr/bin/chromium";

/// Serves the page, and hears what it reports.
struct Page {
    address: SocketAddr,
    reports: Arc<Mutex<HashMap<String, String>>>,
}

impl Page {
    fn serve() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let reports = Arc::new(Mutex::new(HashMap::new()));
        let all = Arc::clone(&reports);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let all = Arc::clone(&all);
                // A browser that hangs up has what it wanted.
                std::thread::spawn(move || drop(answer(stream, &all)));
            }
        });
        Self { address, reports }
    }

    /// What was reported, and under which name.
    #[track_caller]
    fn reported(&self, page: &str) -> (String, String) {
        eventually(&format!("a report of {page}"), BROWSER, || {
            let reports = self.reports.lock().unwrap();
            reports.iter().next().map(|(what, text)| (what.clone(), text.clone())).ok_or(())
        })
    }
}

fn answer(mut stream: TcpStream, reports: &Mutex<HashMap<String, String>>) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream.try_clone()?);
    let mut request = String::new();
    reader.read_line(&mut request)?;
    let mut length = 0;
    loop {
        let mut line = String::new();
        reader.read_line(&mut line)?;
        if line.trim().is_empty() {
            break;
        }
        if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
            length = value.trim().parse().unwrap_or(0);
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body)?;
    let target = request.split(' ').nth(1).unwrap_or("/");
    let path = target.split('?').next().unwrap_or("/");
    if let Some(what) = path.strip_prefix("/report/") {
        reports.lock().unwrap().insert(what.to_owned(), String::from_utf8_lossy(&body).into_owned());
    }
    let modules = target_dir().unwrap().join("zlh-browser/node_modules/@xterm/xterm");
    let (file, media) = match path {
        "/" => (workspace().join("tests/browser/page.html"), "text/html"),
        "/xterm.js" => (modules.join("lib/xterm.js"), "text/javascript"),
        "/xterm.css" => (modules.join("css/xterm.css"), "text/css"),
        _ => return stream.write_all(b"HTTP/1.1 204 No Content\r\nconnection: close\r\n\r\n"),
    };
    let content = fs::read(file)?;
    let head = format!(
        "HTTP/1.1 200 OK\r\ncontent-type: {media}\r\ncontent-length: {}\r\nconnection: close\r\n\r\n",
        content.len()
    );
    stream.write_all(head.as_bytes())?;
    stream.write_all(&content)
}

/// A browser on a profile of its own, ended when dropped.
struct Browser {
    child: Child,
    _profile: tempfile::TempDir,
}

impl Browser {
    fn open(url: &str) -> Self {
        let profile = tempfile::tempdir().unwrap();
        let mut command = Command::new(CHROMIUM);
        command
            .args([
                "--headless=new",
                "--no-sandbox",
                "--disable-gpu",
                "--disable-dev-shm-usage",
                "--no-first-run",
            ])
            .arg(format!("--user-data-dir={}", profile.path().display()))
            .arg(url);
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        Self { child, _profile: profile }
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        let family = Process::of(self.child.id().cast_signed()).map(Process::descendants).unwrap_or_default();
        let _ = self.child.kill();
        let _ = self.child.wait();
        for process in family {
            process.signal(nix::sys::signal::Signal::SIGKILL);
        }
    }
}

fn escaped(text: &str) -> String {
    text.bytes().map(|byte| format!("%{byte:02x}")).collect()
}

/// What a page shows of an agent's console, or how it was turned away.
fn looked_at(agent: &Agent, page: &Page, protocol: &str, line: &str, until: &str) -> (String, String) {
    let url = format!("ws://{}/console/stream", agent.address());
    let query = [
        ("url", url.as_str()),
        ("protocol", protocol),
        ("ready", "For help, type"),
        ("type", line),
        ("until", until),
    ];
    let query: Vec<String> = query.iter().map(|(key, value)| format!("{key}={}", escaped(value))).collect();
    page.reports.lock().unwrap().clear();
    let _browser = Browser::open(&format!("http://{}/?{}", page.address, query.join("&")));
    page.reported(if protocol.is_empty() { "the deployed protocol" } else { protocol })
}

/// The console's own lines, as a terminal of 200 columns shows them.
fn lines_of(agent: &Agent) -> Vec<String> {
    agent.console().lines().map(|line| line.trim_end().to_owned()).collect()
}

#[test]
fn a_browser_shows_the_console_and_types_into_it() {
    if !std::path::Path::new(CHROMIUM).exists() {
        return skip("chromium is not installed");
    }
    let page = Page::serve();
    let mut agent = Agent::prepare(Store::fake(&FakePlan::new(&[])).unwrap()).unwrap();
    agent.config_file(&format!("allowed_origins = [\"http://{}\"]\n", page.address));
    agent.start();
    agent.configure();
    agent.wait_ready();
    for (protocol, word) in [("", "deployed"), (CONSOLE_PROTOCOL, "offsets")] {
        let said = format!("[Server] from a browser: {word} \u{e4}\u{20ac}");
        let (what, screen) =
            looked_at(&agent, &page, protocol, &format!("say from a browser: {word} \u{e4}\u{20ac}"), &said);
        assert_eq!(what, "screen", "{screen}");
        let shown: Vec<String> = screen.lines().map(|line| line.trim_end().to_owned()).collect();
        let printed = lines_of(&agent);
        let seen = printed.iter().position(|line| line.contains(&said)).expect("it was said");
        assert_eq!(shown[..=seen], printed[..=seen], "{protocol}");
    }
    // Another page in the same browser is nobody the agent knows.
    let stranger = Page::serve();
    let (what, why) = looked_at(&agent, &stranger, "", "say from a stranger", "from a stranger");
    assert_eq!(what, "refused", "{why}");
    assert!(!agent.console().contains("stranger"));
}
