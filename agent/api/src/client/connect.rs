//! From an address to a client: pool, names, TLS.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use reqwest::Url;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use reqwest::header::HeaderValue;

use super::{Client, ClientError};
use crate::DEFAULT_PORT;

/// Shared part of all clients of a process: connection pool, names, TLS.
#[derive(Clone)]
pub struct Connector {
    inner: Arc<Inner>,
}

struct Inner {
    resolver: Arc<dyn Resolve>,
    timeout: Duration,
    plain: OnceLock<reqwest::Client>,
    tls: OnceLock<reqwest::Client>,
}

impl Connector {
    /// A connector whose calls give up after `timeout`, with `resolver` for names.
    pub fn new(timeout: Duration, resolver: Option<Arc<dyn Resolve>>) -> Self {
        let inner = Inner {
            resolver: Arc::new(Localhost(resolver)),
            timeout,
            plain: OnceLock::new(),
            tls: OnceLock::new(),
        };
        Self { inner: Arc::new(inner) }
    }

    /// A client for `address`: a URL, `host:port`, or an IP address.
    ///
    /// # Errors
    /// [`ClientError::Address`], [`ClientError::Token`] and [`ClientError::Setup`].
    pub fn agent(&self, address: &str, token: Option<&str>) -> Result<Client, ClientError> {
        let base = parse_address(address)?;
        let token = match token {
            Some(token) => {
                let mut value =
                    HeaderValue::from_str(&format!("Bearer {token}")).map_err(|_| ClientError::Token)?;
                value.set_sensitive(true);
                Some(value)
            }
            None => None,
        };
        let http = self.inner.client(base.scheme() == "https")?;
        Ok(Client { http, base, token, timeout: self.inner.timeout })
    }
}

impl Inner {
    /// Plain HTTP must work where no CA certificates are installed, so the
    /// machine's store is only read for the first `https` address.
    fn client(&self, tls: bool) -> Result<reqwest::Client, ClientError> {
        let cell = if tls { &self.tls } else { &self.plain };
        if let Some(client) = cell.get() {
            return Ok(client.clone());
        }
        let mut builder = reqwest::Client::builder()
            .user_agent(concat!("zlh-api/", env!("CARGO_PKG_VERSION")))
            .dns_resolver(Arc::clone(&self.resolver))
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .connect_timeout(self.timeout)
            .pool_idle_timeout(IDLE_CONNECTION)
            .tcp_nodelay(true);
        let provider = rustls::crypto::ring::default_provider();
        if tls {
            // Somebody else in this process may have chosen one already: fine.
            let _ = provider.install_default();
        } else if let Ok(config) = rustls::ClientConfig::builder_with_provider(Arc::new(provider))
            .with_safe_default_protocol_versions()
        {
            let config = config.with_root_certificates(rustls::RootCertStore::empty()).with_no_client_auth();
            builder = builder.tls_backend_preconfigured(config);
        }
        let client = builder.build().map_err(ClientError::Setup)?;
        Ok(cell.get_or_init(|| client).clone())
    }
}

/// `localhost` is 127.0.0.1, whatever the files of this machine say: an agent
/// without credentials listens there and nowhere else.
struct Localhost(Option<Arc<dyn Resolve>>);

impl Resolve for Localhost {
    fn resolve(&self, name: Name) -> Resolving {
        if name.as_str().eq_ignore_ascii_case("localhost") {
            let addresses: Addrs = Box::new(std::iter::once(SocketAddr::from((Ipv4Addr::LOCALHOST, 0))));
            return Box::pin(async move { Ok(addresses) });
        }
        match &self.0 {
            Some(resolver) => resolver.resolve(name),
            None => Box::pin(async move { Err("no resolver for names: use the IP address".into()) }),
        }
    }
}

/// A URL means what it says; without a scheme it is HTTP, on our port unless another is given.
pub(super) fn parse_address(address: &str) -> Result<Url, ClientError> {
    let refuse =
        |reason: String| ClientError::Address { address: address.escape_debug().to_string(), reason };
    let mut text = match address.parse::<std::net::Ipv6Addr>() {
        Ok(ip) => format!("[{ip}]"),
        Err(_) => address.to_owned(),
    };
    let bare = !text.contains("://");
    if bare {
        text = format!("http://{text}");
    }
    let mut url = Url::parse(&text).map_err(|error| refuse(error.to_string()))?;
    if !matches!(url.scheme(), "http" | "https") {
        return Err(refuse(format!("scheme `{}`: only http and https are spoken", url.scheme())));
    }
    if url.host_str().is_none_or(str::is_empty) {
        return Err(refuse("it names no host".to_owned()));
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err(refuse("credentials in the address: use a token file".to_owned()));
    }
    if url.query().is_some() || url.fragment().is_some() {
        return Err(refuse("it ends in a query".to_owned()));
    }
    // A written `:80` is the scheme's default and invisible after parsing.
    if bare && url.port().is_none() && !text.trim_end_matches('/').ends_with(":80") {
        url.set_port(Some(DEFAULT_PORT)).map_err(|()| refuse("it cannot carry a port".to_owned()))?;
    }
    Ok(url)
}

const IDLE_CONNECTION: Duration = Duration::from_secs(30);
