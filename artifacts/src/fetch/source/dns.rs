//! Names resolve through the system's own configuration and nothing else.
//!
//! A static binary must not call `getaddrinfo` (it loads NSS modules and crashes), and
//! without `/etc/resolv.conf` no public resolver is asked in its place: the agent talks to
//! nobody it was not told about. The configuration is read at each look-up; there are few,
//! and DHCP changes it.

use std::net::SocketAddr;
use std::path::PathBuf;

use hickory_resolver::TokioResolver;
use hickory_resolver::config::ResolveHosts;
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::system_conf::parse_resolv_conf;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use thiserror::Error;

/// `/etc/hosts`, then the name servers of `/etc/resolv.conf`.
#[derive(Debug, Clone)]
pub struct SystemResolver {
    resolv_conf: PathBuf,
}

impl Default for SystemResolver {
    fn default() -> Self {
        Self { resolv_conf: "/etc/resolv.conf".into() }
    }
}

#[derive(Debug, Error)]
enum DnsError {
    #[error(
        "no name server is configured: put one into /etc/resolv.conf, or use an address instead of the name"
    )]
    NoConfiguration(#[source] BoxError),
    #[error("`{name}` does not resolve: check /etc/resolv.conf and /etc/hosts")]
    Unresolved {
        name: String,
        #[source]
        source: BoxError,
    },
}

impl SystemResolver {
    async fn look_up(self, name: String) -> Result<Vec<SocketAddr>, DnsError> {
        let resolver = self.build().await.map_err(DnsError::NoConfiguration)?;
        let found = resolver
            .lookup_ip(name.as_str())
            .await
            .map_err(|source| DnsError::Unresolved { name, source: source.into() })?;
        Ok(found.iter().map(|ip| SocketAddr::new(ip, 0)).collect())
    }

    async fn build(&self) -> Result<TokioResolver, BoxError> {
        let (config, mut options) = parse_resolv_conf(tokio::fs::read(&self.resolv_conf).await?)?;
        options.use_hosts_file = ResolveHosts::Always;
        let builder = TokioResolver::builder_with_config(config, TokioRuntimeProvider::default());
        Ok(builder.with_options(options).build()?)
    }
}

impl Resolve for SystemResolver {
    fn resolve(&self, name: Name) -> Resolving {
        let (resolver, name) = (self.clone(), name.as_str().to_owned());
        Box::pin(async move {
            let found = resolver.look_up(name).await?;
            Ok(Box::new(found.into_iter()) as Addrs)
        })
    }
}

type BoxError = Box<dyn std::error::Error + Send + Sync>;

#[cfg(test)]
mod tests {
    use super::*;

    async fn look_up(resolv_conf: &str, name: &str) -> Result<Vec<SocketAddr>, DnsError> {
        let temp = tempfile::tempdir().unwrap();
        let path = temp.path().join("resolv.conf");
        std::fs::write(&path, resolv_conf).unwrap();
        SystemResolver { resolv_conf: path }.look_up(name.to_owned()).await
    }

    #[tokio::test]
    async fn without_a_name_server_nobody_is_asked() {
        let missing = SystemResolver { resolv_conf: "/nonexistent".into() };
        for result in [
            missing.look_up("example.com".to_owned()).await,
            look_up("", "example.com").await,
            look_up("# nothing\nsearch example.com\n", "example.com").await,
        ] {
            let error = result.unwrap_err();
            assert!(matches!(error, DnsError::NoConfiguration(_)), "{error:?}");
            assert!(error.to_string().contains("/etc/resolv.conf"));
        }
    }

    #[tokio::test]
    async fn an_unknown_name_is_named() {
        // Nobody answers there, or somebody who does not know the name either.
        let error =
            look_up("nameserver 127.0.0.1\noptions timeout:1 attempts:1\n", "zlh.invalid").await.unwrap_err();
        assert!(error.to_string().starts_with("`zlh.invalid` does not resolve"), "{error}");
    }
}
