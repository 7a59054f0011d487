//! TLS from PEM files. The certificate is looked up at every handshake, so [`Tls::reload`] changes it without touching
//! the connections that stand.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use arc_swap::ArcSwap;
use rustls::ServerConfig;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

/// A certificate chain with its key, reloadable.
#[derive(Clone)]
pub struct Tls {
    current: Arc<Current>,
    config: Arc<ServerConfig>,
}

/// Why a certificate cannot be used. The old one, if there is one, stays in use.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// The file cannot be read or is not PEM of the right kind.
    #[error("{path}: {why}; give a PEM file with {wanted}")]
    File {
        /// Which file.
        path: PathBuf,
        /// What is wrong.
        why: String,
        /// What it should hold.
        wanted: &'static str,
    },
    /// The key does not belong to the certificate, or is of a kind that is not taken.
    #[error("the certificate in {path} cannot be used: {why}")]
    Unusable {
        /// The certificate's file.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
}

#[derive(Debug)]
struct Current {
    certificate: PathBuf,
    key: PathBuf,
    now: ArcSwap<CertifiedKey>,
}

impl ResolvesServerCert for Current {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.now.load_full())
    }
}

impl Tls {
    /// Reads a certificate chain (leaf first) and its private key. TLS 1.2 and 1.3; HTTP/2 and HTTP/1.1 by ALPN.
    ///
    /// # Errors
    /// [`TlsError`] names the file.
    pub fn from_pem_files(certificate: &Path, key: &Path) -> Result<Self, TlsError> {
        let now = ArcSwap::from(load(certificate, key)?);
        let current = Arc::new(Current { certificate: certificate.into(), key: key.into(), now });
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|e| TlsError::Unusable { path: certificate.into(), why: e.to_string() })?
            .with_no_client_auth()
            .with_cert_resolver(Arc::clone(&current) as Arc<dyn ResolvesServerCert>);
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok(Self { current, config: Arc::new(config) })
    }

    /// Reads the files again; new handshakes get the new certificate.
    ///
    /// # Errors
    /// [`TlsError`]; then the old certificate stays.
    pub fn reload(&self) -> Result<(), TlsError> {
        self.current.now.store(load(&self.current.certificate, &self.current.key)?);
        Ok(())
    }

    pub(crate) fn acceptor(&self) -> tokio_rustls::TlsAcceptor {
        tokio_rustls::TlsAcceptor::from(Arc::clone(&self.config))
    }
}

impl std::fmt::Debug for Tls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tls").field("certificate", &self.current.certificate).finish_non_exhaustive()
    }
}

fn load(certificate: &Path, key: &Path) -> Result<Arc<CertifiedKey>, TlsError> {
    let file = |path: &Path, why: String, wanted| TlsError::File { path: path.into(), why, wanted };
    let wanted = "the certificate chain, the server's own first";
    let chain: Vec<CertificateDer<'static>> = CertificateDer::pem_file_iter(certificate)
        .and_then(Iterator::collect)
        .map_err(|e| file(certificate, e.to_string(), wanted))?;
    if chain.is_empty() {
        return Err(file(certificate, "no certificate in it".into(), wanted));
    }
    let der = PrivateKeyDer::from_pem_file(key).map_err(|e| file(key, e.to_string(), "one private key"))?;
    let provider = rustls::crypto::aws_lc_rs::default_provider();
    CertifiedKey::from_der(chain, der, &provider)
        .map(Arc::new)
        .map_err(|e| TlsError::Unusable { path: certificate.into(), why: e.to_string() })
}
