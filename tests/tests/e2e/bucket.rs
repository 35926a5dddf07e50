//! A real S3-compatible server as the source of artifacts: rclone's, which has a folder per
//! bucket and computes the signature of every request anew.

use std::fs::{self, File};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rusty_s3::actions::S3Action;
use rusty_s3::{Bucket, Credentials, UrlStyle};
use zlh_api::State;
use zlh_tests::harness::agent::Agent;
use zlh_tests::harness::http::{Http, Response};
use zlh_tests::harness::paths;
use zlh_tests::harness::ports::Port;
use zlh_tests::harness::store::{FakePlan, RUNTIME, SERVER, Store};
use zlh_tests::harness::wait::{SOON, eventually};

/// Whom that server knows; such secrets are what real ones look like.
const KEY: &str = "AKIAIOSFODNN7EXAMPLE";
const SECRET: &str = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY";
/// Where the store lies in the bucket.
const PREFIX: &str = "a/prefix";

struct S3 {
    child: Child,
    port: Port,
    home: tempfile::TempDir,
}

impl S3 {
    /// A bucket that gets everything a store has.
    fn of(store: &Store, flags: &[&str]) -> Self {
        let home = tempfile::tempdir().unwrap();
        let folder = home.path().join("buckets/zlh").join(PREFIX);
        fs::create_dir_all(&folder).unwrap();
        for entry in fs::read_dir(store.dir()).unwrap() {
            let entry = entry.unwrap();
            fs::rename(entry.path(), folder.join(entry.file_name())).unwrap();
        }
        let port = Port::lease().unwrap();
        let s3 = Self { child: Self::spawn(&port, &home, flags), port, home };
        s3.wait();
        s3
    }

    /// Ends the server in the middle of whatever it does, and starts it again.
    fn restart(&mut self) {
        self.end();
        self.child = Self::spawn(&self.port, &self.home, &[]);
        self.wait();
    }

    fn spawn(port: &Port, home: &tempfile::TempDir, flags: &[&str]) -> Child {
        let program = paths::target_dir().unwrap().join("zlh-bucket/rclone");
        assert!(program.is_file(), "{} is missing: run `make test`", program.display());
        Command::new(program)
            .args(["serve", "s3", "--config", "", "-vv", "--auth-key", &format!("{KEY},{SECRET}")])
            .args(["--addr", &format!("127.0.0.1:{}", port.number())])
            .args(flags)
            .arg(home.path().join("buckets"))
            .stdout(Stdio::null())
            .stderr(File::create(home.path().join("log")).unwrap())
            .spawn()
            .unwrap()
    }

    fn wait(&self) {
        let answer =
            || Http::new(self.address()).get("/").map_err(|error| format!("{error}\n{}", self.log()));
        eventually("the bucket", SOON, answer);
    }

    fn end(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    fn address(&self) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], self.port.number()))
    }

    /// What it did since its last start.
    fn log(&self) -> String {
        fs::read_to_string(self.home.path().join("log")).unwrap_or_default()
    }

    /// The path and the query of a request for an object, signed.
    fn signed(&self, key: &str, secret: &str, object: &str) -> String {
        let endpoint = format!("http://{}/", self.address()).parse().unwrap();
        let bucket = Bucket::new(endpoint, UrlStyle::Path, "zlh", "eu-central-1").unwrap();
        let credentials = Credentials::new(key, secret);
        let object = format!("{PREFIX}/{object}");
        let url = bucket.get_object(Some(&credentials), &object).sign(Duration::from_secs(600));
        format!("{}?{}", url.path(), url.query().unwrap_or_default())
    }

    fn get(&self, path: &str) -> Response {
        Http::new(self.address()).get(path).unwrap()
    }
}

impl Drop for S3 {
    fn drop(&mut self) {
        self.end();
    }
}

/// An agent whose own artifact server has nothing, and whose mirror is the bucket that got it all.
fn agent(flags: &[&str], key: &str, secret: &str) -> (S3, Agent) {
    let store = Store::fake(&FakePlan::new(&[])).unwrap();
    let s3 = S3::of(&store, flags);
    let mut agent = Agent::prepare(store).unwrap();
    agent.config_file(&format!("[artifacts]\nmirrors = [\"s3+http://{}/zlh/{PREFIX}\"]\n", s3.address()));
    agent
        .env("AWS_ACCESS_KEY_ID", key)
        .env("AWS_SECRET_ACCESS_KEY", secret)
        .env("AWS_REGION", "eu-central-1");
    agent.start();
    agent.configure();
    (s3, agent)
}

/// Nothing that an operator or a log reader sees has it, nor a signature to be used again.
#[track_caller]
fn assert_kept(agent: &Agent, secret: &str) {
    let status = agent.http().get("/status").unwrap().expect(200).text();
    for (place, text) in [("the status", status), ("the log", agent.log())] {
        for word in [secret, "X-Amz-Signature"] {
            assert!(!text.contains(word), "{place} has {word}:\n{text}");
        }
    }
}

#[test]
fn a_game_is_installed_from_a_bucket() {
    let (_s3, agent) = agent(&[], KEY, SECRET);
    agent.wait_ready();
    assert_kept(&agent, SECRET);
}

/// What the other tests rest on: this server takes no signature for granted.
#[test]
fn the_bucket_tells_right_signatures_from_wrong_ones() {
    let store = Store::fake(&FakePlan::new(&[])).unwrap();
    let content = fs::read(store.path(SERVER)).unwrap();
    let s3 = S3::of(&store, &[]);
    let right = s3.signed(KEY, SECRET, SERVER);
    assert_eq!(s3.get(&right).expect(200).body, content);
    for (case, path, says) in [
        ("another secret", s3.signed(KEY, "hunter2hunter2", SERVER), "SignatureDoesNotMatch"),
        ("another key", s3.signed("STRANGER", SECRET, SERVER), "InvalidAccessKeyId"),
        ("another object", right.replace("server.jar", "other.jar"), "SignatureDoesNotMatch"),
        ("another time", right.replace("X-Amz-Expires=600", "X-Amz-Expires=601"), "SignatureDoesNotMatch"),
    ] {
        let refused = s3.get(&path);
        assert!(refused.status == 403 && refused.text().contains(says), "{case}: {refused:?}");
    }
    let unsigned = s3.get(right.split('?').next().unwrap());
    assert!(unsigned.status >= 400, "{unsigned:?}");
}

#[test]
fn who_may_not_read_it_is_refused_and_no_secret_is_shown() {
    // The right key with a wrong secret, and a wrong key with the right secret.
    for (key, secret) in [(KEY, "hunter2hunter2"), ("STRANGER", SECRET)] {
        let (_s3, agent) = agent(&[], key, secret);
        let status =
            agent.wait_status("error", Duration::from_secs(90), |status| status.state == State::Error);
        let error = status.error.unwrap();
        assert!(error.contains("403") && error.contains("s3+http://"), "{error}");
        assert_kept(&agent, secret);
    }
}

#[test]
fn a_transfer_goes_on_where_the_bucket_went_away() {
    let (mut s3, agent) = agent(&["--bwlimit", "256k"], KEY, SECRET);
    let tmp = agent.root_path("opt/zlh/cache/tmp");
    eventually("a part of a file", 3 * SOON, || {
        let entries = fs::read_dir(&tmp).map_err(|error| error.to_string())?;
        let sizes: Vec<u64> =
            entries.flatten().filter_map(|entry| Some(entry.metadata().ok()?.len())).collect();
        // It is written by the mebibyte; what lies beside it is smaller.
        if sizes.iter().any(|size| *size >= 1 << 20) { Ok(()) } else { Err(format!("{sizes:?}")) }
    });
    s3.restart();
    // If that took longer than anybody tries: what is there stays there.
    let ended = |status: &zlh_api::Status| status.ready || status.state == State::Error;
    if !agent.wait_status("an end", 3 * SOON, ended).ready {
        agent.configure();
    }
    agent.wait_ready();
    let log = s3.log();
    let sought = log
        .lines()
        .find_map(|line| line.split_once(RUNTIME)?.1.split_once("seek from 0 to ")?.1.split(' ').next());
    let from: u64 = sought.unwrap_or_else(|| panic!("no range of {RUNTIME}:\n{log}")).parse().unwrap();
    assert!(from >= 1 << 20, "it began at {from}");
}
