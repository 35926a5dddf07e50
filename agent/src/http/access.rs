//! Who may call what. A pure decision; `peer` found out who it is about.
//!
//! | | `/health` | local, root or the agent's uid | local, anybody else | trusted network | anybody else |
//! |---|---|---|---|---|---|
//! | no token set | open | open | 403 | open | 403 |
//! | token set | open | token | token | open, `POST /config` token | token |
//!
//! An address of this machine is never a trusted network. Beside that, against
//! web pages that make a browser call us: `Host` must be an IP literal,
//! `localhost` or a configured name, and an `Origin` must be a configured one.
//! `/health` says `ok` to everybody and reveals nothing else.

use axum::http::{HeaderMap, Method, Uri, header};
use zlh_api::ErrorCode;

use super::peer::Peer;
use super::problem::{Failure, quoted};
use crate::config::{AgentConfig, Cidr, TokenHash};

/// The rules of this agent.
#[derive(Debug, Clone)]
pub(crate) struct Policy {
    token: Option<TokenHash>,
    trusted: Vec<Cidr>,
    origins: Vec<String>,
    hosts: Vec<String>,
    agent_uid: u32,
}

/// What of a request the decision looks at.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Call<'a> {
    /// The method.
    pub method: &'a Method,
    /// The target, as sent.
    pub uri: &'a Uri,
    /// All headers.
    pub headers: &'a HeaderMap,
}

/// Why a call is refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Denial {
    /// `Host` is missing, doubled, or not ours.
    Host(Option<String>),
    /// `Origin` is not configured.
    Origin(String),
    /// No token is set, and the peer is neither privileged nor trusted.
    Stranger(Peer),
    /// A token is set, and none was sent.
    NoToken,
    /// A token is set, and another one was sent.
    WrongToken,
}

impl Policy {
    /// The rules the configuration asks for; `agent_uid` is this process's.
    pub(crate) fn new(config: &AgentConfig, agent_uid: u32) -> Self {
        Self {
            token: config.token.clone(),
            trusted: config.trusted_networks.clone(),
            origins: config.allowed_origins.clone(),
            hosts: config.allowed_hosts.clone(),
            agent_uid,
        }
    }

    /// Whether `ip` is in a trusted network; if it is not this machine's own.
    pub(crate) fn trusts(&self, ip: std::net::IpAddr) -> bool {
        self.trusted.iter().any(|network| network.contains(ip))
    }

    /// Whether a peer is one of those who administer this container anyway.
    pub(crate) fn privileged(&self, peer: Peer) -> bool {
        matches!(peer, Peer::Local(Some(uid)) if uid == 0 || uid == self.agent_uid)
    }

    /// Whether a peer may call most things without a token, for who it is.
    pub(crate) fn knows(&self, peer: Peer) -> bool {
        self.is_trusted(peer) || self.token.is_none() && self.privileged(peer)
    }

    /// Whether anybody may ask for it.
    #[allow(clippy::unused_self, reason = "a rule like the others")]
    pub(crate) fn is_open(&self, uri: &Uri) -> bool {
        uri.path() == "/health"
    }

    fn is_trusted(&self, peer: Peer) -> bool {
        matches!(peer, Peer::Remote(ip) if self.trusts(ip))
    }

    /// Whether a call brings a token that would be looked at.
    pub(crate) fn brings_token(&self, call: &Call<'_>) -> bool {
        self.token.is_some() && call.headers.contains_key(header::AUTHORIZATION)
    }

    /// The decision.
    pub(crate) fn decide(&self, peer: Peer, call: &Call<'_>) -> Result<(), Denial> {
        if self.is_open(call.uri) {
            return Ok(());
        }
        self.check_host(call)?;
        self.check_origin(call.headers)?;
        let trusted = self.is_trusted(peer);
        let Some(token) = &self.token else {
            return if trusted || self.privileged(peer) { Ok(()) } else { Err(Denial::Stranger(peer)) };
        };
        let configures = call.method == Method::POST && call.uri.path() == "/config";
        match bearer(call.headers) {
            Some(presented) if token.matches(presented) => Ok(()),
            _ if trusted && !configures => Ok(()),
            _ if call.headers.contains_key(header::AUTHORIZATION) => Err(Denial::WrongToken),
            _ => Err(Denial::NoToken),
        }
    }

    fn check_host(&self, call: &Call<'_>) -> Result<(), Denial> {
        let mut hosts = call.headers.get_all(header::HOST).iter();
        let host = hosts.next().and_then(|host| host.to_str().ok()).ok_or(Denial::Host(None))?;
        if hosts.next().is_some() {
            return Err(Denial::Host(None));
        }
        let target = call.uri.authority().map(axum::http::uri::Authority::as_str);
        match [Some(host), target].into_iter().flatten().find(|name| !self.answers_to(name)) {
            Some(foreign) => Err(Denial::Host(Some(foreign.to_owned()))),
            None => Ok(()),
        }
    }

    fn answers_to(&self, host: &str) -> bool {
        if let Some(rest) = host.strip_prefix('[') {
            return rest
                .split_once(']')
                .is_some_and(|(ip, port)| ip.parse::<std::net::Ipv6Addr>().is_ok() && is_port_suffix(port));
        }
        let (name, port) = host.find(':').map_or((host, ""), |at| host.split_at(at));
        let name = name.strip_suffix('.').unwrap_or(name);
        is_port_suffix(port)
            && (name.parse::<std::net::Ipv4Addr>().is_ok()
                || name.eq_ignore_ascii_case("localhost")
                || self.hosts.iter().any(|known| known.eq_ignore_ascii_case(name)))
    }

    fn check_origin(&self, headers: &HeaderMap) -> Result<(), Denial> {
        for origin in headers.get_all(header::ORIGIN) {
            let text = String::from_utf8_lossy(origin.as_bytes());
            if !self.origins.iter().any(|known| known.eq_ignore_ascii_case(&text)) {
                return Err(Denial::Origin(text.into_owned()));
            }
        }
        Ok(())
    }
}

impl From<Denial> for Failure {
    fn from(denial: Denial) -> Self {
        match denial {
            Denial::Host(None) => Self::new(
                ErrorCode::InvalidRequest,
                "the Host header is missing or there are several; send one",
            ),
            Denial::Host(Some(host)) => Self::new(
                ErrorCode::Forbidden,
                format!(
                    "Host {} is not a name of this agent; use its IP address, or add the name to allowed_hosts",
                    quoted(&host)
                ),
            ),
            Denial::Origin(origin) => Self::new(
                ErrorCode::Forbidden,
                format!("Origin {} is not in allowed_origins", quoted(&origin)),
            ),
            Denial::Stranger(peer) => Self::new(ErrorCode::Forbidden, stranger(peer)),
            Denial::NoToken => Self::new(
                ErrorCode::Unauthorized,
                "this agent needs a token; send `Authorization: Bearer` with the one in its configuration",
            ),
            Denial::WrongToken => Self::new(ErrorCode::Unauthorized, "this is not the agent's token"),
        }
    }
}

fn stranger(peer: Peer) -> String {
    format!(
        "without a token this agent obeys root and its own user only, and this is {peer}; \
         set ZLH_AGENT_TOKEN, or add the network to trusted_networks"
    )
}

/// The token of the one `Authorization` header there may be.
fn bearer(headers: &HeaderMap) -> Option<&str> {
    let mut values = headers.get_all(header::AUTHORIZATION).iter();
    let value = values.next()?.to_str().ok()?;
    if values.next().is_some() {
        return None;
    }
    let (scheme, token) = value.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}

fn is_port_suffix(text: &str) -> bool {
    match text.strip_prefix(':') {
        Some(port) => port.len() <= 5 && port.bytes().all(|byte| byte.is_ascii_digit()),
        None => text.is_empty(),
    }
}

#[cfg(test)]
mod tests;
