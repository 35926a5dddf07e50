//! `logs`, `send`, and `console` without a terminal.

use std::process::Stdio;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, BufReader};

use crate::mock::Mock;
use crate::{fleet, run, run_with_input, zlhctl};

#[tokio::test]
async fn c2_logs_are_harmless_lines() {
    let mock = Mock::start().await;
    mock.log(b"> \x1b[1Gone\x1b]52;c;ZXZpbA==\x07\r\n\x9b31mt\xffwo\r\nthree");
    let (_folder, path) = fleet(&[("lobby", &mock.address)]);
    let ran = run(&path, &["logs", "lobby", "-n", "5"]).await;
    assert_eq!(ran.out, "one\n\u{fffd}31mt\u{fffd}wo\nthree\n");
    assert_eq!(mock.asked(), ["log tail=5"]);
    let ran = run(&path, &["logs", "lobby", "--since", "34"]).await;
    assert!(ran.out.ends_with("three\n"), "{:?}", ran.out);
}

#[tokio::test]
async fn following_goes_on_where_it_was_cut_off() {
    let mock = Mock::start().await;
    mock.log(b"one\r\n");
    mock.cut_followers(1);
    let (_folder, path) = fleet(&[("lobby", &mock.address)]);
    let mut child = zlhctl(&path, &["logs", "lobby", "-f"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut next = async || {
        tokio::time::timeout(Duration::from_secs(20), lines.next_line()).await.unwrap().unwrap().unwrap()
    };
    assert_eq!(next().await, "one");
    mock.log(b"two\r\n");
    assert_eq!(next().await, "two");
    mock.log(b"three\r\n");
    assert_eq!(next().await, "three");
    assert_eq!(mock.asked(), ["log tail=100&follow=true", "log since=5&follow=true"]);
    child.kill().await.unwrap();
}

#[tokio::test]
async fn lines_from_a_pipe_are_sent_and_answered() {
    let mock = Mock::start().await;
    mock.log(b"old\r\n");
    let (_folder, path) = fleet(&[("lobby", &mock.address)]);
    let ran = run_with_input(&path, &["console", "lobby"], "say hi\n\nlist").await;
    assert_eq!(ran.code, 0, "{}", ran.err);
    assert_eq!(ran.out, "say hi\ndid say hi\nlist\ndid list\n", "history is not replayed, colours are gone");
    let commands: Vec<_> = mock.asked().into_iter().filter(|asked| asked.starts_with("command")).collect();
    assert_eq!(commands, ["command say hi", "command list"]);
}

#[tokio::test]
async fn send_joins_words() {
    let mock = Mock::start().await;
    let (_folder, path) = fleet(&[("lobby", &mock.address)]);
    let ran = run(&path, &["send", "lobby", "say", "-v", "dinner"]).await;
    assert_eq!((ran.code, ran.out.as_str(), ran.err.as_str()), (0, "", ""));
    assert_eq!(mock.asked(), ["command say -v dinner"]);
}

#[tokio::test]
async fn lines_are_chosen_and_say_whose_they_are() {
    let (one, two) = (Mock::start().await, Mock::start().await);
    one.log(b"\x1b[31mERROR\x1b[0m here\r\nfine\r\n");
    two.log(b"fine\r\nan ERROR\r\n");
    let (_folder, path) = fleet(&[("lobby", &one.address), ("sky", &two.address)]);
    let ran = run(&path, &["logs", "lobby", "--grep", "ERROR"]).await;
    assert_eq!((ran.code, ran.out.as_str()), (0, "ERROR here\n"));
    let ran = run(&path, &["logs", "lobby", "sky", "--tail", "9"]).await;
    let lobby = "lobby | ERROR here\nlobby | fine\n";
    assert_eq!((ran.code, ran.out), (0, format!("{lobby}sky   | fine\nsky   | an ERROR\n")));
    let ran = run(&path, &["logs", "lobby", "sky", "--since", "3"]).await;
    assert!(ran.code != 0 && ran.err.contains("one server"), "{}", ran.err);
    let (_folder, path) = fleet(&[("lobby", &one.address), ("gone", "127.0.0.1:1")]);
    let ran = run(&path, &["logs", "lobby", "gone"]).await;
    assert_eq!((ran.code, ran.out.as_str()), (3, lobby), "{}", ran.err);
    assert!(ran.err.contains("gone"), "{}", ran.err);
}
