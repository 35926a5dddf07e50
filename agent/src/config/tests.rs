//! Precedence, defaults and refusals of the configuration.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use super::*;
use crate::cli::{LogFormat, LogLevel};

const TOKEN: &str = "correct-horse-battery-staple";
const KEY: &str = "RWQf6LRCGA9i53mlYecO4IzT51TGPpvWucNSCh1CBM0QTaLn73Y7GFO3";

struct Case {
    dir: tempfile::TempDir,
    options: RunOptions,
    environment: Environment,
}

impl Case {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let options = RunOptions {
            root: dir.path().to_owned(),
            config: None,
            listen: None,
            artifacts_url: None,
            catalog_keys: Vec::new(),
            log_format: LogFormat::Auto,
            log_level: LogLevel::Info,
        };
        Self { dir, options, environment: Environment::default() }
    }

    fn file(self, text: &str) -> Self {
        self.put("opt/zlh-agent/config/agent.toml", text, 0o600)
    }

    fn put(self, path: &str, text: &str, mode: u32) -> Self {
        let path = self.dir.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        self
    }

    fn load(&self) -> AgentConfig {
        AgentConfig::load(&self.options, &self.environment).unwrap()
    }

    fn refusal(&self) -> String {
        AgentConfig::load(&self.options, &self.environment).unwrap_err().to_string()
    }
}

#[test]
fn without_anything_it_listens_on_loopback_only() {
    let config = Case::new().load();
    assert_eq!(config.listen, "127.0.0.1:18888".parse().unwrap());
    assert!(config.token.is_none() && config.file.is_none());
    assert!(config.restart.cause_aware && !config.artifacts.allow_unsigned && !config.accept_eula);
}

#[test]
fn a_token_or_trusted_networks_open_the_door() {
    let mut case = Case::new();
    case.environment.token = Some(TOKEN.to_owned());
    assert_eq!(case.load().listen, "0.0.0.0:18888".parse().unwrap());
    let case = Case::new().file("trusted_networks = ['10.0.0.0/8']");
    assert_eq!(case.load().listen, "0.0.0.0:18888".parse().unwrap());
}

#[test]
fn an_open_listener_without_a_lock_is_refused() {
    for listen in ["0.0.0.0:18888", "[::]:18888", "192.0.2.1:80", "[::ffff:10.0.0.1]:80"] {
        let mut case = Case::new();
        case.options.listen = Some(listen.parse().unwrap());
        let refusal = case.refusal();
        assert!(refusal.contains("ZLH_AGENT_TOKEN") && refusal.contains(listen), "{refusal}");
    }
    for listen in ["127.0.0.9:1", "[::1]:1", "[::ffff:127.0.0.1]:1"] {
        let mut case = Case::new();
        case.options.listen = Some(listen.parse().unwrap());
        assert_eq!(case.load().listen.to_string(), listen);
    }
}

#[test]
fn a_flag_wins_over_the_environment_and_that_over_the_file() {
    let mut case = Case::new().file(&format!(
        "listen = '127.0.0.1:1'\nartifacts_url = 'http://file.example'\ncatalog_keys = ['{KEY}']"
    ));
    assert_eq!(case.load().artifacts_url.as_deref(), Some("http://file.example"));
    case.environment.artifacts_url = Some("http://environment.example/".to_owned());
    assert_eq!(case.load().artifacts_url.as_deref(), Some("http://environment.example"));
    case.options.artifacts_url = Some("https://flag.example/base/".to_owned());
    assert_eq!(case.load().artifacts_url.as_deref(), Some("https://flag.example/base"));
    case.options.listen = Some("127.0.0.1:2".parse().unwrap());
    assert_eq!(case.load().listen.port(), 2);
    assert_eq!(case.load().catalog_keys, [KEY]);
}

#[test]
fn the_environments_token_wins_over_the_files() {
    let mut case = Case::new().file(&format!("token = '{TOKEN}'"));
    assert!(case.load().token.unwrap().matches(TOKEN));
    case.environment.token = Some("another-token-of-some-length".to_owned());
    assert!(!case.load().token.unwrap().matches(TOKEN));
}

#[test]
fn a_token_others_can_read_is_refused() {
    let open = Case::new().put("opt/zlh-agent/config/agent.toml", &format!("token = '{TOKEN}'"), 0o640);
    assert!(open.refusal().contains("chmod 600"));
    let open = Case::new().file("token_file = '/etc/token'").put("etc/token", TOKEN, 0o604);
    assert!(open.refusal().contains("chmod 600"));
    let harmless = Case::new().put("opt/zlh-agent/config/agent.toml", "vmid = 5001", 0o644);
    assert_eq!(harmless.load().vmid, Some(5001));
}

#[test]
fn a_token_file_is_found_below_the_root_or_beside_the_configuration() {
    let absolute =
        Case::new().file("token_file = '/etc/token'").put("etc/token", &format!("{TOKEN}\n"), 0o600);
    assert!(absolute.load().token.unwrap().matches(TOKEN));
    let beside = Case::new().file("token_file = 't'").put("opt/zlh-agent/config/t", TOKEN, 0o400);
    assert!(beside.load().token.unwrap().matches(TOKEN));
    let absent = Case::new().file("token_file = 't'");
    assert!(absent.refusal().contains("/opt/zlh-agent/config/t"), "{}", absent.refusal());
    let both = Case::new().file(&format!("token = '{TOKEN}'\ntoken_file = 't'"));
    assert!(both.refusal().contains("keep one"));
}

#[test]
fn secrets_never_show() {
    let mut case = Case::new();
    case.environment.token = Some(TOKEN.to_owned());
    let config = case.load();
    assert!(!format!("{config:?}{config:#?}{config}").contains(TOKEN));
    case.environment.token = Some("short".to_owned());
    let refusal = case.refusal();
    assert!(refusal.contains("ZLH_AGENT_TOKEN has 5 characters") && !refusal.contains("short"), "{refusal}");
}

#[test]
fn values_that_make_no_sense_are_refused_by_name() {
    for (text, expected) in [
        ("listen = 'localhost:1'", "listen"),
        ("listen = '127.0.0.1'", "with a port"),
        ("trusted_networks = ['10.0.0.1/8']", "write 10.0.0.0/8"),
        ("allowed_origins = ['*']", "allowed_origins"),
        ("allowed_origins = ['null']", "allowed_origins"),
        ("allowed_origins = ['https://a.example/x']", "without a path"),
        ("allowed_hosts = ['a.example:80']", "leave out scheme, port"),
        ("artifacts_url = 'ftp://x'", "http://"),
        ("artifacts_url = 'http://u:p@x'", "user or password"),
        ("artifacts_url = 'http://'", "host and a path"),
        ("catalog_keys = ['untrusted comment']", "minisign"),
        ("game_user = 'root'", "must not be root"),
        ("game_user = '00'", "must not be root"),
        ("game_user = '-x'", "neither"),
    ] {
        let refusal = Case::new().file(text).refusal();
        assert!(refusal.contains(expected), "{text}: {refusal}");
    }
}

#[test]
fn a_configuration_that_was_asked_for_must_exist() {
    let mut case = Case::new();
    case.options.config = Some(case.dir.path().join("nowhere.toml"));
    assert!(case.refusal().contains("nowhere.toml"));
}

#[test]
fn what_check_config_prints_can_be_read_again() {
    let case = Case::new().file(
        "vmid = 5001\ntrusted_networks = ['0.0.0.0/0']\nallowed_hosts = ['Node1.example']\nstop_on_agent_shutdown = true\n[stop]\ncap_s = 77\nwarn = false",
    );
    let config = case.load();
    assert_eq!(config.warnings.len(), 1, "{:?}", config.warnings);
    let again = Case::new().file(&config.to_string()).load();
    assert_eq!(again.vmid, Some(5001));
    assert_eq!(again.allowed_hosts, ["node1.example"]);
    assert!(again.stop_on_agent_shutdown && again.stop == config.stop);
    assert!(config.to_string().contains("cap_s = 77\nwarn = false"), "{config}");
    assert_eq!(
        again.to_string().lines().skip(1).collect::<Vec<_>>(),
        config.to_string().lines().skip(1).collect::<Vec<_>>()
    );
}
