use std::fs;
use std::path::PathBuf;

use serde_json::json;
use zlh_artifacts::{Servers, Tuning};
use zlh_catalog::{MAX_SERIAL, SecretKey};

use super::*;

const NOW: &str = "2026-06-01T00:00:00Z";
const ISSUED: &str = "2026-05-01T00:00:00Z";
const EXPIRES: &str = "2026-07-01T00:00:00Z";
/// Where nobody listens.
const DOWN: &str = "http://127.0.0.1:1";

/// A folder that is an artifact server.
struct Place(tempfile::TempDir);

impl Place {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn with(serial: u64, key: &SecretKey) -> Self {
        let place = Self::new();
        place.publish(serial, key);
        place
    }

    fn url(&self) -> String {
        format!("file://{}", self.0.path().display())
    }

    fn write(&self, name: &str, content: impl AsRef<[u8]>) {
        let path = self.0.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }

    fn publish(&self, serial: u64, key: &SecretKey) {
        self.publish_of(serial, key, ISSUED, EXPIRES);
    }

    fn publish_of(&self, serial: u64, key: &SecretKey, issued: &str, expires: &str) {
        let catalog = json!({ "schema": 1, "serial": serial, "issued": issued, "expires": expires });
        let bytes = catalog.to_string();
        self.write("catalog.json.minisig", key.sign(bytes.as_bytes(), serial).unwrap());
        self.write("catalog.json", bytes);
    }

    fn publish_keys(&self, number: u64, keys: &[&SecretKey], key: &SecretKey) {
        let keys = keys.iter().map(|key| key.public().unwrap()).collect();
        let text = KeyList { serial: number, keys }.to_json();
        let name = KeyList::path(number);
        self.write(&format!("{name}.minisig"), key.sign(text.as_bytes(), number).unwrap());
        self.write(&name, text);
    }
}

/// An agent's state, and whom it trusts.
struct Bench {
    state: tempfile::TempDir,
    keys: Vec<String>,
    unsigned: bool,
}

impl Bench {
    fn new(keys: &[&SecretKey]) -> Self {
        Self { state: tempfile::tempdir().unwrap(), keys: public(keys), unsigned: false }
    }

    async fn load(&self, urls: &[String]) -> Result<Loaded, Error> {
        self.load_at(NOW, urls).await
    }

    async fn load_at(&self, now: &str, urls: &[String]) -> Result<Loaded, Error> {
        let tuning = Tuning { retries: 1, pause: Duration::from_millis(1), ..Tuning::default() };
        let servers = Servers { urls: urls.to_vec(), s3: None };
        let fetcher = Fetcher::of(&servers, self.state.path().join("cache"), tuning).unwrap();
        let trust = Trust { keys: &self.keys, unsigned: self.unsigned, unpinned: false };
        load_at(now.parse().unwrap(), &fetcher, &trust, self.state.path()).await
    }

    /// The serial that was taken.
    #[track_caller]
    fn good(loaded: Result<Loaded, Error>) -> u64 {
        loaded.map(|loaded| loaded.catalog.serial).unwrap_or_else(|error| panic!("{}", chain(&error)))
    }

    fn record(&self) -> PathBuf {
        self.state.path().join("catalog.json")
    }

    fn seen(&self) -> Seen {
        Seen::read(&self.record())
    }
}

fn key() -> SecretKey {
    SecretKey::generate().unwrap()
}

fn public(keys: &[&SecretKey]) -> Vec<String> {
    keys.iter().map(|key| key.public().unwrap().to_string()).collect()
}

#[track_caller]
fn why(loaded: Result<Loaded, Error>) -> String {
    match loaded {
        Ok(loaded) => panic!("serial {} was taken", loaded.catalog.serial),
        Err(error) => chain(&error),
    }
}

/// Every way in which a server is no good to an agent that has seen serial 5.
fn bad_places(own: &SecretKey) -> Vec<(&'static str, Place)> {
    let stranger = key();
    let good = || Place::with(6, own);
    let (page, list) = (good(), good());
    page.write("catalog.json", "<html>down for maintenance</html>");
    list.write("keys/2.json", "<html>down for maintenance</html>");
    list.write("keys/2.json.minisig", "<html>down for maintenance</html>");
    let (torn, bare, forged, late) = (good(), good(), good(), Place::new());
    torn.write(
        "catalog.json.minisig",
        fs::read(Place::with(7, own).0.path().join("catalog.json.minisig")).unwrap(),
    );
    fs::remove_file(bare.0.path().join("catalog.json.minisig")).unwrap();
    forged.publish_keys(2, &[&stranger], &stranger);
    late.publish_of(6, own, "2026-01-01T00:00:00Z", "2026-02-01T00:00:00Z");
    vec![
        ("page", page),
        ("page for a list", list),
        ("two editions", torn),
        ("no signature", bare),
        ("list by a stranger", forged),
        ("signed by a stranger", Place::with(6, &stranger)),
        ("older", Place::with(4, own)),
        ("expired", late),
        ("empty", Place::new()),
    ]
}

#[tokio::test]
async fn one_server_of_two_that_is_good_is_enough() {
    let own = key();
    let good = Place::with(6, &own);
    let bench = Bench::new(&[&own]);
    assert_eq!(Bench::good(bench.load(&[Place::with(5, &own).url()]).await), 5);
    let before = fs::read(bench.record()).unwrap();
    let bad = bad_places(&own);
    let urls = bad.iter().map(|(what, place)| (*what, place.url())).chain([("down", DOWN.to_owned())]);
    for (what, url) in urls {
        fs::write(bench.record(), &before).unwrap();
        let loaded = bench.load(&[url.clone(), good.url()]).await;
        let refused = loaded.as_ref().map(|loaded| loaded.refused.clone()).unwrap_or_default();
        assert_eq!(Bench::good(loaded), 6, "{what}");
        assert!(refused.len() == 1 && refused[0].starts_with(&url), "{what}: {refused:?}");
        let loaded = bench.load(&[good.url(), url.clone()]).await;
        assert!(loaded.as_ref().is_ok_and(|loaded| loaded.refused.is_empty()), "{what}");
        assert_eq!(Bench::good(loaded), 6, "{what}");
    }
}

#[tokio::test]
async fn when_no_server_is_good_each_is_named_with_what_is_wrong_with_it() {
    let own = key();
    let bench = Bench::new(&[&own]);
    assert_eq!(Bench::good(bench.load(&[Place::with(5, &own).url()]).await), 5);
    let (stranger, old) = (Place::with(6, &key()), Place::with(4, &own));
    let text = why(bench.load(&[DOWN.to_owned(), stranger.url(), old.url()]).await);
    for words in
        [DOWN, "no connection", &stranger.url(), "signed by key", &old.url(), "serial 4 is older than 5"]
    {
        assert!(text.contains(words), "`{words}` is not in: {text}");
    }
}

#[tokio::test]
async fn nothing_is_recorded_before_every_check_has_passed() {
    let own = key();
    let bench = Bench::new(&[&own]);
    let new = Bench::new(&[&own]);
    assert_eq!(Bench::good(bench.load(&[Place::with(5, &own).url()]).await), 5);
    let before = fs::read(bench.record()).unwrap();
    for (what, place) in bad_places(&own) {
        // Also where the list of keys before it is good.
        for keys in [false, true] {
            if keys && !place.0.path().join("keys").exists() {
                place.publish_keys(2, &[&own, &key()], &own);
            }
            why(bench.load(&[place.url()]).await);
            assert_eq!(fs::read(bench.record()).unwrap(), before, "{what}");
            if what != "older" {
                why(new.load(&[place.url()]).await);
                assert!(!new.record().exists(), "{what}");
            }
        }
    }
}

#[tokio::test]
async fn a_catalog_that_is_older_than_the_last_one_is_refused() {
    let own = key();
    let (bench, place) = (Bench::new(&[&own]), Place::with(5, &own));
    for serial in [5, 5, 7] {
        place.publish(serial, &own);
        assert_eq!(Bench::good(bench.load(&[place.url()]).await), serial);
    }
    place.publish(6, &own);
    let text = why(bench.load(&[place.url()]).await);
    assert!(text.contains("serial 6 is older than 7"), "{text}");
}

#[tokio::test]
async fn an_expired_catalog_is_warned_of_for_a_week_and_then_refused() {
    let own = key();
    let (bench, place) = (Bench::new(&[&own]), Place::with(5, &own));
    for (now, warned) in [(EXPIRES, false), ("2026-07-01T00:00:01Z", true), ("2026-07-08T00:00:00Z", true)] {
        let loaded = bench.load_at(now, &[place.url()]).await.unwrap();
        assert_eq!(
            loaded.warnings.iter().any(|text| text.contains("expired on 2026-07-01")),
            warned,
            "{now}"
        );
    }
    let text = why(bench.load_at("2026-07-08T00:00:01Z", &[place.url()]).await);
    assert!(text.contains("expired on 2026-07-01") && text.contains("goes on running"), "{text}");
}

#[tokio::test]
async fn a_clock_that_was_set_back_makes_no_catalog_valid_again() {
    let own = key();
    let (bench, place) = (Bench::new(&[&own]), Place::with(5, &own));
    assert_eq!(Bench::good(bench.load(&[place.url()]).await), 5);
    // Of one that was missed, everything says that it is newer, but its time.
    place.publish_of(6, &own, "2026-01-01T00:00:00Z", "2026-02-01T00:00:00Z");
    let text = why(bench.load_at("1970-01-01T00:01:00Z", &[place.url()]).await);
    assert!(text.contains("expired on 2026-02-01"), "{text}");
    // What is not expired is taken, and the clock is not passed over in silence.
    place.publish(6, &own);
    let loaded = bench.load_at("1970-01-01T00:01:00Z", &[place.url()]).await.unwrap();
    assert!(loaded.warnings.iter().any(|text| text.contains("the clock says 1970")), "{:?}", loaded.warnings);
}

#[tokio::test]
async fn a_date_in_the_future_locks_nobody_out() {
    let own = key();
    let (bench, place) = (Bench::new(&[&own]), Place::new());
    place.publish_of(5, &own, "2099-01-01T00:00:00Z", "2099-02-01T00:00:00Z");
    let loaded = bench.load(&[place.url()]).await.unwrap();
    assert!(loaded.warnings.iter().any(|text| text.contains("2099-01-01")), "{:?}", loaded.warnings);
    place.publish(6, &own);
    let loaded = bench.load(&[place.url()]).await.unwrap();
    assert_eq!(loaded.warnings, [""; 0]);
    // Nor does a clock of ours that was ahead.
    place.publish_of(7, &own, ISSUED, "2099-01-01T00:00:00Z");
    bench.load_at("2098-12-31T00:00:00Z", &[place.url()]).await.unwrap();
    place.publish(8, &own);
    assert_eq!(Bench::good(bench.load(&[place.url()]).await), 8);
}

#[tokio::test]
async fn a_stolen_key_takes_its_serial_along() {
    let (stolen, kept, new) = (key(), key(), key());
    let (bench, place) = (Bench::new(&[&stolen, &kept]), Place::with(7, &kept));
    assert_eq!(Bench::good(bench.load(&[place.url()]).await), 7);
    place.publish(MAX_SERIAL, &stolen);
    assert_eq!(Bench::good(bench.load(&[place.url()]).await), MAX_SERIAL);
    place.publish(8, &kept);
    let text = why(bench.load(&[place.url()]).await);
    assert!(text.contains("zlhctl catalog rotate"), "{text}");
    // Left out, it counts no more; what the others signed does, whatever list they are in.
    place.publish_keys(2, &[&kept, &new], &kept);
    place.publish(6, &kept);
    let text = why(bench.load(&[place.url()]).await);
    assert!(text.contains("serial 6 is older than 7"), "{text}");
    for (serial, key) in [(8, &kept), (9, &new)] {
        place.publish(serial, key);
        assert_eq!(Bench::good(bench.load(&[place.url()]).await), serial);
    }
    // Without the list, it is still trusted no more.
    fs::remove_dir_all(place.0.path().join("keys")).unwrap();
    place.publish(MAX_SERIAL, &stolen);
    let text = why(bench.load(&[place.url()]).await);
    assert!(text.contains("signed by key"), "{text}");
}

#[tokio::test]
async fn what_nobody_signed_says_nothing_of_what_is_signed() {
    let (own, other) = (key(), key());
    let place = Place::with(MAX_SERIAL, &own);
    let mut bench = Bench::new(&[]);
    bench.unsigned = true;
    assert_eq!(Bench::good(bench.load(&[place.url()]).await), MAX_SERIAL);
    place.publish(8, &own);
    why(bench.load(&[place.url()]).await);
    bench.keys = public(&[&own]);
    assert_eq!(Bench::good(bench.load(&[place.url()]).await), 8);
    // One more key changes nothing for the first one, another in its place does.
    bench.keys = public(&[&own, &other]);
    place.publish(7, &own);
    why(bench.load(&[place.url()]).await);
    bench.keys = public(&[&other]);
    place.publish(3, &other);
    assert_eq!(Bench::good(bench.load(&[place.url()]).await), 3);
}

#[tokio::test]
async fn what_an_agent_of_before_recorded_still_counts() {
    let own = key();
    let (bench, place) = (Bench::new(&[&own]), Place::with(6, &own));
    let old = |serial: u64| {
        let record = json!({ "serial": serial, "configured": bench.keys, "trusted": null });
        zlh_shim::durable::write_record(&bench.record(), 1, &record).unwrap();
    };
    old(7);
    let text = why(bench.load(&[place.url()]).await);
    assert!(text.contains("serial 6 is older than 7"), "{text}");
    // But for what no catalog can have.
    old(u64::MAX);
    assert_eq!(Bench::good(bench.load(&[place.url()]).await), 6);
}

fn taken(bench: &Bench, number: u64, serial: u64) -> Taken {
    Taken {
        configured: bench.keys.clone(),
        trusted: Some((number, bench.keys.clone())),
        signer: Some(bench.keys[0].clone()),
        serial,
        issued: ISSUED.parse().unwrap(),
    }
}

#[test]
fn of_loads_at_the_same_time_the_newest_is_kept_whoever_ends_last() {
    let own = key();
    let bench = Bench::new(&[&own]);
    let keys = [own.public().unwrap()];
    let now = NOW.parse().unwrap();
    record(&bench.record(), &taken(&bench, 3, 6), now).unwrap();
    record(&bench.record(), &taken(&bench, 2, 5), now).unwrap();
    assert_eq!(bench.seen().serial(&keys), 6);
    assert_eq!(bench.seen().lists(&bench.keys).unwrap().0, 3);
    std::thread::scope(|scope| {
        for serial in 10..40 {
            let bench = &bench;
            scope.spawn(move || record(&bench.record(), &taken(bench, serial, serial), now).unwrap());
        }
    });
    assert_eq!(bench.seen().serial(&keys), 39);
    assert_eq!(bench.seen().lists(&bench.keys).unwrap().0, 39);
}
