//! What the operator decided: `agent.toml`, two environment variables, flags.
//!
//! A flag wins over the environment, the environment over the file, the file
//! over the defaults. Nothing here changes while the agent runs.
//!
//! Refused, each with the remedy: unknown keys, a token that is short or lies in
//! a file others can read, and a listener beyond loopback that anybody could use.

mod artifacts;
mod cidr;
mod file;
mod restart;
mod shell;
mod stop;
mod token;
mod update;

use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use self::file::{Document, Privacy};
use crate::cli::RunOptions;

pub(crate) use artifacts::ArtifactsConfig;
pub(crate) use cidr::Cidr;
pub(crate) use restart::RestartConfig;
pub(crate) use shell::ShellConfig;
pub(crate) use stop::StopConfig;
pub(crate) use token::TokenHash;
pub(crate) use update::UpdateConfig;

/// The configuration in effect. `Debug` and `Display` show no secret.
#[derive(Debug, Clone)]
pub(crate) struct AgentConfig {
    /// Prefix of every absolute path, itself absolute.
    pub root: PathBuf,
    /// The file that was read, none when there was none.
    pub file: Option<PathBuf>,
    /// Where the API listens.
    pub listen: SocketAddr,
    /// The bearer token, if callers need one.
    pub token: Option<TokenHash>,
    /// Networks whose callers need no token.
    pub trusted_networks: Vec<Cidr>,
    /// Values of `Origin` that are let in.
    pub allowed_origins: Vec<String>,
    /// Names (beside IP literals and `localhost`) that `Host` may hold, lower case.
    pub allowed_hosts: Vec<String>,
    /// Base URL of the artifact server, without a trailing slash.
    pub artifacts_url: Option<String>,
    /// minisign public keys that may sign the catalog.
    pub catalog_keys: Vec<String>,
    /// Mirrors, the cache, the channel.
    pub artifacts: ArtifactsConfig,
    /// The agent's own updates.
    pub update: UpdateConfig,
    /// Whether the operator accepted the games' EULAs.
    pub accept_eula: bool,
    /// Proxmox id of the container, for logs; else the payload's.
    pub vmid: Option<u32>,
    /// Restart policy.
    pub restart: RestartConfig,
    /// What the operator wants of every stop.
    pub stop: StopConfig,
    /// Whom shells run as, and their bounds.
    pub shell: ShellConfig,
    /// Whether the game is stopped when the agent is told to end.
    pub stop_on_agent_shutdown: bool,
    /// User (name or uid) that games run as.
    pub game_user: Option<String>,
    /// Whether workloads get systemd units of their own; none: where that is possible.
    pub workload_units: Option<bool>,
    /// How long a stop may take when the container shuts down.
    pub container_shutdown: Duration,
    /// Things that are allowed, but that the operator should know of.
    pub warnings: Vec<String>,
}

/// What the agent reads of its environment.
#[derive(Clone, Default)]
pub(crate) struct Environment {
    /// `ZLH_AGENT_TOKEN`
    pub token: Option<String>,
    /// `ZLH_ARTIFACTS_URL`
    pub artifacts_url: Option<String>,
    /// `ZLH_AGENT_UPDATE_MODE`
    pub update_mode: Option<String>,
    /// `ZLH_AGENT_UPDATE_INTERVAL`
    pub update_interval: Option<String>,
    /// `AWS_ACCESS_KEY_ID`
    pub s3_key: Option<String>,
    /// `AWS_SECRET_ACCESS_KEY`
    pub s3_secret: Option<String>,
    /// `AWS_REGION`
    pub s3_region: Option<String>,
}

impl Environment {
    /// The process's own; an empty variable counts as absent.
    pub(crate) fn of_process() -> Self {
        // Text that is no UTF-8 fails its own check later, under its own name.
        let get =
            |name| std::env::var_os(name).filter(|v| !v.is_empty()).map(|v| v.to_string_lossy().into_owned());
        Self {
            token: get(TOKEN_VARIABLE),
            artifacts_url: get(URL_VARIABLE),
            update_mode: get(update::MODE_VARIABLE),
            update_interval: get(update::INTERVAL_VARIABLE),
            s3_key: get("AWS_ACCESS_KEY_ID"),
            s3_secret: get("AWS_SECRET_ACCESS_KEY"),
            s3_region: get("AWS_REGION"),
        }
    }
}

impl AgentConfig {
    /// Reads, merges and checks everything.
    ///
    /// # Errors
    /// The first thing that is wrong, with its place and the remedy.
    pub(crate) fn load(options: &RunOptions, environment: &Environment) -> Result<Self, ConfigError> {
        let root = std::path::absolute(&options.root)
            .map_err(|source| ConfigError::Read { path: options.root.clone(), source })?;
        let path = options.config.clone().unwrap_or_else(|| under(&root, Path::new(DEFAULT_FILE)));
        let (document, file) = match file::read_text(&path)? {
            Some((text, privacy)) => {
                let document = file::parse(&path, &text)?;
                if document.token.is_some() && privacy == Privacy::Open {
                    return Err(ConfigError::Readable { path });
                }
                (document, Some(path))
            }
            None if options.config.is_some() => return Err(ConfigError::Missing { path }),
            None => (Document::default(), None),
        };
        Self::merge(root, file, document, options, environment)
    }

    /// Who asks the catalog: the channel, and the container's number for waves.
    pub(crate) fn audience(&self, vmid: Option<u32>) -> zlh_catalog::Audience {
        let vmid = self.vmid.or(vmid).unwrap_or(0).into();
        zlh_catalog::Audience { channel: self.artifacts.channel.clone(), vmid }
    }

    fn merge(
        root: PathBuf,
        file: Option<PathBuf>,
        document: Document,
        options: &RunOptions,
        environment: &Environment,
    ) -> Result<Self, ConfigError> {
        let token = token(&root, file.as_deref(), &document, environment)?;
        let trusted_networks = networks(&document.trusted_networks)?;
        let open = token.is_some() || !trusted_networks.is_empty();
        let listen = listen(options.listen, document.listen.as_deref(), open)?;
        let artifacts_url =
            match (&options.artifacts_url, &environment.artifacts_url, &document.artifacts_url) {
                (Some(url), ..) => Some(base_url("--artifacts-url", url)?),
                (None, Some(url), _) => Some(base_url(URL_VARIABLE, url)?),
                (None, None, Some(url)) => Some(base_url("artifacts_url", url)?),
                (None, None, None) => None,
            };
        let catalog_keys = match options.catalog_keys.as_slice() {
            [] => checked("catalog_keys", &document.catalog_keys, catalog_key)?,
            flags => checked("--catalog-key", flags, catalog_key)?,
        };
        let artifacts = ArtifactsConfig::of(&document.artifacts, environment)?;
        let mut warnings = Vec::new();
        for (set, key) in
            [(artifacts.allow_unsigned, "allow_unsigned"), (artifacts.allow_unpinned, "allow_unpinned")]
        {
            match (set, catalog_keys.as_slice()) {
                (false, _) => {}
                (true, []) => warnings.push(format!(
                    "artifacts.{key} is set and there is no catalog key: whoever answers for the artifact \
                     server decides what runs here"
                )),
                (true, _) => {
                    warnings.push(format!("artifacts.{key} does nothing beside a catalog key; leave it out"));
                }
            }
        }
        for network in trusted_networks.iter().filter(|network| network.is_everything()) {
            warnings.push(format!(
                "trusted_networks holds {network}: everybody who reaches the agent commands it"
            ));
        }
        Ok(Self {
            root,
            file,
            listen,
            token,
            trusted_networks,
            allowed_origins: checked("allowed_origins", &document.allowed_origins, origin)?,
            allowed_hosts: checked("allowed_hosts", &document.allowed_hosts, host)?,
            artifacts_url,
            catalog_keys,
            artifacts,
            update: UpdateConfig::of(&document.update, environment)?,
            accept_eula: document.accept_eula,
            vmid: document.vmid,
            restart: RestartConfig::of(&document.restart)?,
            stop: StopConfig::of(&document.stop)?,
            shell: ShellConfig::of(&document.shell)?,
            stop_on_agent_shutdown: document.stop_on_agent_shutdown,
            game_user: document.game_user.as_deref().map(game_user).transpose()?,
            workload_units: document.workload_units,
            container_shutdown: container_shutdown(document.container_shutdown_s)?,
            warnings,
        })
    }
}

impl fmt::Display for AgentConfig {
    /// As a configuration file, for `check-config`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.file {
            Some(file) => writeln!(f, "# {}, environment and flags applied", file.display())?,
            None => writeln!(f, "# no configuration file: defaults, environment and flags")?,
        }
        writeln!(f, "listen = {:?}", self.listen.to_string())?;
        if let Some(token) = &self.token {
            writeln!(f, "token = \"{token:?}\"")?;
        }
        let networks: Vec<String> = self.trusted_networks.iter().map(Cidr::to_string).collect();
        writeln!(f, "trusted_networks = {networks:?}")?;
        writeln!(f, "allowed_origins = {:?}", self.allowed_origins)?;
        writeln!(f, "allowed_hosts = {:?}", self.allowed_hosts)?;
        if let Some(url) = &self.artifacts_url {
            writeln!(f, "artifacts_url = {url:?}")?;
        }
        writeln!(f, "catalog_keys = {:?}", self.catalog_keys)?;
        writeln!(f, "accept_eula = {}", self.accept_eula)?;
        if let Some(vmid) = self.vmid {
            writeln!(f, "vmid = {vmid}")?;
        }
        if let Some(user) = &self.game_user {
            writeln!(f, "game_user = {user:?}")?;
        }
        writeln!(f, "stop_on_agent_shutdown = {}", self.stop_on_agent_shutdown)?;
        if let Some(units) = self.workload_units {
            writeln!(f, "workload_units = {units}")?;
        }
        writeln!(f, "container_shutdown_s = {}", self.container_shutdown.as_secs())?;
        write!(f, "{}{}{}{}{}", self.restart, self.artifacts, self.update, self.stop, self.shell)
    }
}

/// Why there is no configuration. Values that may be secret are never repeated.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ConfigError {
    /// `--config` names nothing.
    #[error("{}: no such file; leave --config out to run with defaults", path.display())]
    Missing { path: PathBuf },
    /// A file is there and cannot be read.
    #[error("cannot read {}", path.display())]
    Read { path: PathBuf, source: io::Error },
    /// Not TOML, or a value of the wrong type.
    #[error("{}:{line}: {message}; correct the line, `zlh-agent check-config` tries it", path.display())]
    Syntax { path: PathBuf, line: usize, message: String },
    /// A key nobody knows.
    #[error("{}:{line}: unknown key `{key}`, {hint}", path.display())]
    UnknownKey { path: PathBuf, line: usize, key: String, hint: String },
    /// A secret that is none.
    #[error("{} holds the token and others can read it; `chmod 600` it", path.display())]
    Readable { path: PathBuf },
    /// A value of the right type that makes no sense.
    #[error("{key} {reason}")]
    Invalid { key: String, reason: String },
    /// A door without a lock.
    #[error(
        "listening on {listen} would let everybody who reaches it command this container; \
         set ZLH_AGENT_TOKEN (or token_file), or trusted_networks, or listen on 127.0.0.1:{}",
        listen.port()
    )]
    Unprotected { listen: SocketAddr },
}

fn token(
    root: &Path,
    file: Option<&Path>,
    document: &Document,
    environment: &Environment,
) -> Result<Option<TokenHash>, ConfigError> {
    if document.token.is_some() && document.token_file.is_some() {
        return Err(invalid("token_file", "and `token` are both set; keep one of them"));
    }
    let (key, token) = match (&environment.token, &document.token, &document.token_file) {
        (Some(token), ..) => (TOKEN_VARIABLE.to_owned(), token.clone()),
        (None, Some(token), _) => ("token".to_owned(), token.clone()),
        (None, None, Some(path)) => {
            let beside = file.and_then(Path::parent).unwrap_or(root);
            let path =
                if Path::new(path).is_absolute() { under(root, Path::new(path)) } else { beside.join(path) };
            (format!("the token in {}", path.display()), file::read_token(&path)?)
        }
        (None, None, None) => return Ok(None),
    };
    TokenHash::new(&token).map(Some).map_err(|error| invalid(&key, error))
}

fn networks(list: &[String]) -> Result<Vec<Cidr>, ConfigError> {
    list.iter()
        .map(|text| {
            text.parse().map_err(|error| invalid("trusted_networks", format!("entry {text:?} {error}")))
        })
        .collect()
}

fn listen(flag: Option<SocketAddr>, file: Option<&str>, open: bool) -> Result<SocketAddr, ConfigError> {
    let listen = match (flag, file) {
        (Some(address), _) => address,
        (None, Some(text)) => text.parse().map_err(|_| {
            invalid("listen", format!("= {text:?} is no address with a port, such as \"127.0.0.1:18888\""))
        })?,
        (None, None) => {
            let ip = if open { Ipv4Addr::UNSPECIFIED } else { Ipv4Addr::LOCALHOST };
            SocketAddr::new(IpAddr::V4(ip), zlh_api::DEFAULT_PORT)
        }
    };
    if !open && !listen.ip().to_canonical().is_loopback() {
        return Err(ConfigError::Unprotected { listen });
    }
    Ok(listen)
}

fn base_url(key: &str, url: &str) -> Result<String, ConfigError> {
    let scheme = ["http://", "https://", "s3+http://", "s3+https://"];
    let Some(rest) = scheme.iter().find_map(|scheme| url.strip_prefix(scheme)) else {
        return Err(invalid(key, "must begin with http://, https://, or s3+https:// for a bucket"));
    };
    let authority = rest.split('/').next().unwrap_or_default();
    if authority.contains('@') {
        return Err(invalid(key, "must not hold a user or password, it is shown in logs"));
    }
    let plain = |byte: u8| byte.is_ascii_graphic() && !matches!(byte, b'?' | b'#' | b'"' | b'\\');
    if authority.is_empty() || !rest.bytes().all(plain) {
        return Err(invalid(key, "must be a host and a path, without spaces, `?` and `#`"));
    }
    Ok(url.trim_end_matches('/').to_owned())
}

/// minisign: base64 of `Ed`, a key id of 8 bytes and an Ed25519 key.
fn catalog_key(key: &str) -> Result<String, &'static str> {
    let base64 = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/');
    if key.len() == 56 && key.starts_with("RW") && key.bytes().all(base64) {
        Ok(key.to_owned())
    } else {
        Err("is no minisign public key: 56 characters that begin with RW, the second line of the .pub file")
    }
}

fn origin(origin: &str) -> Result<String, &'static str> {
    let lower = origin.to_ascii_lowercase();
    let rest = lower.strip_prefix("http://").or_else(|| lower.strip_prefix("https://"));
    match rest {
        Some(host)
            if !host.is_empty()
                && host.bytes().all(|b| b.is_ascii_alphanumeric() || b".-:[]".contains(&b)) =>
        {
            Ok(lower)
        }
        _ => Err("is no origin, such as https://panel.example, without a path and without `*`"),
    }
}

fn host(host: &str) -> Result<String, &'static str> {
    if !host.is_empty() && host.bytes().all(|b| b.is_ascii_alphanumeric() || b".-_".contains(&b)) {
        Ok(host.to_ascii_lowercase())
    } else {
        Err("is no host name; leave out scheme, port and `*`")
    }
}

fn game_user(user: &str) -> Result<String, ConfigError> {
    let good = |byte: u8| byte.is_ascii_alphanumeric() || b"_-".contains(&byte);
    if user.is_empty() || user.len() > 32 || user.starts_with('-') || !user.bytes().all(good) {
        return Err(invalid("game_user", format!("= {user:?} is neither a user's name nor a uid")));
    }
    if user.bytes().all(|byte| byte == b'0') || user == "root" {
        return Err(invalid("game_user", "must not be root; make a user for games"));
    }
    Ok(user.to_owned())
}

/// Below what a host waits by default (Proxmox: 60 s), with room for the rest of a shutdown.
fn container_shutdown(seconds: Option<u32>) -> Result<Duration, ConfigError> {
    match seconds {
        None => Ok(CONTAINER_SHUTDOWN),
        Some(seconds @ 5..=3600) => Ok(Duration::from_secs(seconds.into())),
        Some(seconds) => {
            Err(invalid("container_shutdown_s", format!("= {seconds} is not between 5 and 3600 seconds")))
        }
    }
}

fn checked(
    key: &str,
    list: &[String],
    check: fn(&str) -> Result<String, &'static str>,
) -> Result<Vec<String>, ConfigError> {
    list.iter().map(|text| check(text).map_err(|why| invalid(key, format!("entry {text:?} {why}")))).collect()
}

fn invalid(key: &str, reason: impl fmt::Display) -> ConfigError {
    ConfigError::Invalid { key: key.to_owned(), reason: reason.to_string() }
}

fn under(root: &Path, absolute: &Path) -> PathBuf {
    root.join(absolute.strip_prefix("/").unwrap_or(absolute))
}

const CONTAINER_SHUTDOWN: Duration = Duration::from_secs(45);
const DEFAULT_FILE: &str = "/opt/zlh-agent/config/agent.toml";
const TOKEN_VARIABLE: &str = "ZLH_AGENT_TOKEN";
const URL_VARIABLE: &str = "ZLH_ARTIFACTS_URL";

#[cfg(test)]
mod tests;
