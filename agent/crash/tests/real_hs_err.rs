//! The fatal error log of a real JVM that was sent a SIGSEGV, found by its pid.

#![allow(clippy::unwrap_used)]

use std::fs;
use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::time::SystemTime;

use zlh_crash::gather::{Gathered, HS_ERR_BYTES, Run, gather};

const SLEEPER: &str = r#"
public class Sleeper {
    public static void main(String[] args) throws Exception {
        System.out.println("up");
        Thread.sleep(600_000);
    }
}
"#;

fn crash(arguments: &[&str]) -> (Gathered, u32, tempfile::TempDir) {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("Sleeper.java"), SLEEPER).unwrap();
    let built = Command::new("javac").arg("Sleeper.java").current_dir(dir.path()).status().expect("javac");
    assert!(built.success());
    let started = SystemTime::now();
    let mut java = Command::new("java")
        .args(["-XX:-CreateCoredumpOnCrash", "-Xmx32m"])
        .args(arguments)
        .arg("Sleeper")
        .current_dir(dir.path())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("java");
    let mut console = BufReader::new(java.stdout.take().unwrap());
    let mut line = String::new();
    console.read_line(&mut line).unwrap();
    assert_eq!(line, "up\n");
    let killed = Command::new("kill").args(["-SEGV", &java.id().to_string()]).status().unwrap();
    assert!(killed.success());
    // Else it would wait for somebody to read what it prints.
    std::io::copy(&mut console, &mut std::io::sink()).unwrap();
    java.wait().unwrap();
    let pids = [java.id()];
    let run = Run { started, ended: SystemTime::now(), pids: &pids, arguments, console: &[] };
    (gather(dir.path(), &run).unwrap(), java.id(), dir)
}

#[test]
fn the_log_of_a_real_crash_is_found_where_java_puts_it() {
    let (found, pid, _dir) = crash(&[]);
    let log = found.hs_err.expect("a fatal error log");
    assert_eq!(log.name, format!("hs_err_pid{pid}.log"));
    let text = String::from_utf8_lossy(&log.bytes);
    assert!(text.contains("#  SIGSEGV (0xb)") && text.contains(&format!("pid={pid}")), "{text}");
    assert!(log.bytes.len() <= HS_ERR_BYTES);
}

#[test]
fn the_log_of_a_real_crash_is_found_where_java_was_told_to_put_it() {
    let (found, pid, _dir) = crash(&["-XX:ErrorFile=./java_error%p.txt"]);
    assert_eq!(found.hs_err.expect("a fatal error log").name, format!("java_error{pid}.txt"));
    assert!(found.notes.is_empty(), "{:?}", found.notes);
}
