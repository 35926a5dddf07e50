//! TLS with ring, and with whom to trust: the system's authorities, or, on a system
//! without any, the public ones that were built in.

use std::sync::Arc;

use rustls::{ClientConfig, RootCertStore};
use rustls_platform_verifier::Verifier;

/// The configuration for a base URL. The process's default provider is not touched.
pub(crate) fn config(https: bool) -> Result<ClientConfig, rustls::Error> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder =
        ClientConfig::builder_with_provider(Arc::clone(&provider)).with_safe_default_protocol_versions()?;
    if !https {
        // Redirects never change the scheme, so this is never used: read no certificates.
        return Ok(builder.with_root_certificates(RootCertStore::empty()).with_no_client_auth());
    }
    Ok(match Verifier::new(provider) {
        Ok(verifier) => {
            builder.dangerous().with_custom_certificate_verifier(Arc::new(verifier)).with_no_client_auth()
        }
        Err(_) => {
            let roots = RootCertStore::from_iter(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
            builder.with_root_certificates(roots).with_no_client_auth()
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_is_always_somebody_to_trust() {
        let tls = config(true).unwrap();
        assert!(tls.crypto_provider().cipher_suites.len() > 3);
        assert!(
            rustls::crypto::CryptoProvider::get_default().is_none(),
            "the process's default is not ours to set"
        );
        config(false).unwrap();
    }
}
