use std::fs;
use std::os::unix::fs::symlink;

use proptest::prelude::*;
use rustix::fs::{CWD, Mode};

use super::*;
use crate::addons::fixtures::cpu_time;

const PID: u32 = 4711;

struct Place {
    dir: tempfile::TempDir,
    started: SystemTime,
}

impl Place {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join("server/crash-reports")).unwrap();
        Self { dir, started: SystemTime::now() }
    }

    fn root(&self) -> std::path::PathBuf {
        self.dir.path().join("server")
    }

    fn write(&self, name: &str, text: impl AsRef<[u8]>) {
        fs::write(self.root().join(name), text).unwrap();
    }

    /// Sets the time of a file, seconds from the start of the run.
    fn at(&self, name: &str, seconds: i64) {
        let by = Duration::from_secs(seconds.unsigned_abs());
        let time = if seconds < 0 { self.started - by } else { self.started + by };
        fs::File::options().write(true).open(self.root().join(name)).unwrap().set_modified(time).unwrap();
    }

    fn gather(&self, console: &str, arguments: &[&str]) -> Gathered {
        let console = [Text { name: "console", bytes: console.as_bytes(), first_line: 1 }];
        let run = Run {
            started: self.started,
            ended: self.started + Duration::from_secs(100),
            pids: &[PID],
            arguments,
            console: &console,
        };
        let before = cpu_time();
        let gathered = gather(&self.root(), &run).unwrap();
        let took = cpu_time() - before;
        assert!(took < Duration::from_secs(5), "it took {took:?}");
        gathered
    }
}

fn names(gathered: &Gathered) -> Vec<&str> {
    gathered.reports.iter().map(|report| report.name.as_str()).collect()
}

#[test]
fn reports_of_this_run_newest_first_and_no_others() {
    let place = Place::new();
    for (name, at) in [
        ("crash-1-server.txt", -3600),
        ("crash-2-server.txt", 10),
        ("crash-3-fml.txt", 105),
        ("crash-4-client.txt", 50),
        ("crash-5-server.txt", 106),
        ("crash-6-other.txt", 20),
        ("notes.txt", 20),
    ] {
        let name = format!("crash-reports/{name}");
        place.write(&name, &name);
        place.at(&name, at);
    }
    let gathered = place.gather("", &[]);
    assert_eq!(
        names(&gathered),
        ["crash-3-fml.txt", "crash-4-client.txt", "crash-2-server.txt"]
            .map(|name| format!("crash-reports/{name}"))
    );
    assert_eq!(gathered.reports[0].bytes, b"crash-reports/crash-3-fml.txt");
    assert!(gathered.notes.is_empty(), "{:?}", gathered.notes);
    let disk = gathered.disk.unwrap();
    assert!(disk.total_bytes > 0 && disk.free_bytes <= disk.total_bytes);
}

#[test]
fn links_pipes_sockets_and_directories_are_no_reports() {
    let place = Place::new();
    let secret = place.dir.path().join("secret");
    fs::write(&secret, "secret").unwrap();
    let reports = place.root().join("crash-reports");
    symlink(&secret, reports.join("crash-1-server.txt")).unwrap();
    rustix::fs::mkfifoat(CWD, reports.join("crash-2-server.txt"), Mode::RWXU).unwrap();
    let _socket = std::os::unix::net::UnixListener::bind(reports.join("crash-3-server.txt")).unwrap();
    fs::create_dir(reports.join("crash-4-server.txt")).unwrap();
    rustix::fs::mkfifoat(CWD, place.root().join(format!("hs_err_pid{PID}.log")), Mode::RWXU).unwrap();
    let gathered = place.gather("", &[]);
    assert!(gathered.reports.is_empty() && gathered.hs_err.is_none());
    assert_eq!(gathered.notes.len(), 5, "{:?}", gathered.notes);
    // The folder of the reports itself.
    fs::remove_dir_all(&reports).unwrap();
    fs::create_dir(place.dir.path().join("outside")).unwrap();
    fs::write(place.dir.path().join("outside/crash-1-server.txt"), "x").unwrap();
    symlink("../outside", &reports).unwrap();
    assert!(place.gather("", &[]).reports.is_empty());
}

#[test]
fn a_report_of_two_gigabytes_costs_its_head() {
    let place = Place::new();
    place.write("crash-reports/crash-1-server.txt", "---- Minecraft Crash Report ----\n");
    let path = place.root().join("crash-reports/crash-1-server.txt");
    fs::File::options().write(true).open(path).unwrap().set_len(2 << 30).unwrap();
    let gathered = place.gather("", &[]);
    assert_eq!(gathered.reports[0].bytes.len(), REPORT_BYTES);
    assert_eq!(gathered.reports[0].size, 2 << 30);
    assert!(gathered.reports[0].bytes.starts_with(b"---- Minecraft"));
}

#[test]
fn a_report_that_the_console_names_counts_only_inside() {
    let place = Place::new();
    let root = place.root();
    fs::create_dir(root.join("elsewhere")).unwrap();
    place.write("elsewhere/crash-1-server.txt", "inside");
    place.write("elsewhere/other.txt", "inside, and no report");
    place.write("server.properties", "rcon.password=x");
    fs::write(place.dir.path().join("outside.txt"), "secret").unwrap();
    symlink("../outside.txt", root.join("crash-2-server.txt")).unwrap();
    let absolute = root.join("elsewhere/crash-1-server.txt");
    let line = |path: &str| {
        format!("[12:00:00] [Server thread/ERROR]: This crash report has been saved to: {path}\n")
    };
    let found = place.gather(&line(&absolute.to_string_lossy()), &[]);
    assert_eq!(names(&found), ["elsewhere/crash-1-server.txt"]);
    let found = place
        .gather("#@!@# Game crashed! Crash report saved to: #@!@# ./elsewhere/crash-1-server.txt\r\n", &[]);
    assert_eq!(names(&found), ["elsewhere/crash-1-server.txt"]);
    for outside in [
        place.dir.path().join("outside.txt").to_string_lossy().as_ref(),
        "../outside.txt",
        "elsewhere/../../outside.txt",
        "/etc/passwd",
        &format!("{}/../outside.txt", root.display()),
        "crash-2-server.txt",
        "server.properties",
        "elsewhere/other.txt",
    ] {
        let gathered = place.gather(&line(outside), &[]);
        assert!(gathered.reports.is_empty(), "{outside} was read");
    }
    // Of an earlier run.
    place.at("elsewhere/crash-1-server.txt", -10);
    assert!(place.gather(&line("elsewhere/crash-1-server.txt"), &[]).reports.is_empty());
}

#[test]
fn the_fatal_error_log_is_that_of_exactly_this_process() {
    let place = Place::new();
    place.write("hs_err_pid4712.log", "another");
    assert!(place.gather("", &[]).hs_err.is_none());
    place.write("hs_err_pid4711.log", vec![b'#'; 100_000]);
    assert_eq!(place.gather("", &[]).hs_err.unwrap().bytes.len(), HS_ERR_BYTES);
    place.at("hs_err_pid4711.log", -60);
    assert!(place.gather("", &[]).hs_err.is_none(), "a pid comes back");
    fs::create_dir(place.root().join("logs")).unwrap();
    place.write("logs/hs_4711%.log", "chosen");
    let found = place.gather("", &["-Xmx1G", "-XX:ErrorFile=logs/hs_%p%%.log"]).hs_err.unwrap();
    assert_eq!((found.name.as_str(), found.bytes.as_slice()), ("logs/hs_4711%.log", &b"chosen"[..]));
    let found = place.gather("", &["-XX:ErrorFile=/tmp/hs_%p.log"]);
    assert!(found.hs_err.is_none() && found.notes.len() == 1);
}

#[test]
fn a_missing_folder_is_an_error_and_an_empty_one_is_not() {
    let place = Place::new();
    fs::remove_dir(place.root().join("crash-reports")).unwrap();
    assert!(place.gather("", &[]).reports.is_empty());
    let run = Run { started: place.started, ended: place.started, pids: &[], arguments: &[], console: &[] };
    assert!(gather(&place.root().join("none"), &run).is_err());
}

fn window(text: &[u8], chunk: usize) -> Vec<(u64, Vec<u8>)> {
    let mut window = ConsoleWindow::default();
    text.chunks(chunk).for_each(|chunk| window.push(chunk));
    window.texts().iter().map(|text| (text.first_line, text.bytes.to_vec())).collect()
}

#[test]
fn a_console_keeps_head_and_tail_with_their_numbers() {
    let text: String = (1..=10_000).map(|at| format!("line {at}\n")).collect();
    let texts = window(text.as_bytes(), 777);
    assert_eq!(texts.len(), 2);
    assert_eq!(texts[0].1.split(|&b| b == b'\n').count(), 301);
    assert_eq!(texts[1].0, 8_001);
    assert!(texts[1].1.starts_with(b"line 8001\n") && texts[1].1.ends_with(b"line 10000\n"));
    let short: String = (1..=2_300).map(|at| format!("line {at}\n")).collect();
    assert_eq!(window(short.as_bytes(), 4096), [(1, short.clone().into_bytes())]);
}

#[test]
fn a_hundred_megabytes_in_one_line_are_eight_kilobytes() {
    let mut window = ConsoleWindow::default();
    for _ in 0..1_600 {
        window.push(&[b'x'; 1 << 16]);
    }
    window.push(b"\nend\n");
    let texts = window.texts();
    assert_eq!(texts[0].bytes.len(), LINE_BYTES + 1 + 4);
}

proptest! {
    #[test]
    fn a_console_window_is_bounded_and_no_matter_how_it_is_cut(
        lines in prop::collection::vec((0_usize..9_000, 0_usize..40), 0..120),
        chunk in 1_usize..70_000,
    ) {
        let mut text = Vec::new();
        for (length, times) in lines {
            for _ in 0..=times {
                text.extend(std::iter::repeat_n(b'a', length % 200 + if times == 7 { length } else { 0 }));
                text.push(b'\n');
            }
        }
        let whole = window(&text, text.len().max(1));
        prop_assert_eq!(&window(&text, chunk), &whole);
        prop_assert!(whole.iter().map(|(_, bytes)| bytes.len()).sum::<usize>() <= 1 << 20);
        // The tail's number is right: what stands there is that line.
        if let [_, (first, tail)] = whole.as_slice() {
            let rest: Vec<&[u8]> = text.split_inclusive(|&b| b == b'\n').skip(usize::try_from(*first).unwrap() - 1).collect();
            let cut: Vec<u8> = rest.iter().flat_map(|line| {
                let body = &line[..line.len() - 1];
                body[..body.len().min(LINE_BYTES)].iter().copied().chain([b'\n'])
            }).collect();
            prop_assert_eq!(tail, &cut);
        }
    }

    #[test]
    fn no_path_gets_out(parts in prop::collection::vec("(\\.\\.|\\.|a|etc|passwd|//|)", 0..6), absolute: bool) {
        let path = format!("{}{}", if absolute { "/srv/game/" } else { "" }, parts.join("/"));
        if let Some(inside) = named::inside(Path::new("/srv/game"), &path) {
            prop_assert!(!inside.starts_with('/') && inside.split('/').all(|part| part != ".." && !part.is_empty()));
        }
    }
}
