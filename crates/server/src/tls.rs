//! TLS from PEM files. The certificate is looked up at every handshake, so [`Tls::reload`] changes it without touching
//! the connections that stand.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use arc_swap::ArcSwap;
use rustls::ServerConfig;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls_pki_types::pem::{self, PemObject as _};
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
    /// The key is another one's.
    #[error(
        "the key in {key} does not belong to the certificate in {certificate}; give the key that this certificate was made \
         for, with the server's own certificate first in its file"
    )]
    Mismatch {
        /// The certificate's file.
        certificate: PathBuf,
        /// The key's file.
        key: PathBuf,
    },
    /// The certificate or the key is of a kind that is not taken.
    #[error(
        "the certificate in {certificate} and the key in {key} cannot be used: {why}; make them anew, with ECDSA P-256 or RSA"
    )]
    Unusable {
        /// The certificate's file.
        certificate: PathBuf,
        /// The key's file.
        key: PathBuf,
        /// What is wrong.
        why: String,
    },
}

impl TlsError {
    /// Whether the certificate's file alone is the matter; else the key's is, or both are.
    pub fn is_of_certificate(&self) -> bool {
        matches!(self, Self::File { wanted: CHAIN, .. })
    }
}

/// What a certificate's file should hold.
const CHAIN: &str = "the certificate chain, the server's own first";
/// What a key's file should hold.
const KEY: &str = "one private key";

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
            .map_err(|e| TlsError::Unusable { certificate: certificate.into(), key: key.into(), why: e.to_string() })?
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

/// Everything that keeps the two files from being used, at once.
pub fn tls_faults(certificate: &Path, key: &Path) -> Vec<TlsError> {
    match (chain(certificate), private_key(key)) {
        (Ok(chain), Ok(der)) => join((certificate, chain), (key, der)).err().into_iter().collect(),
        (chain, der) => chain.err().into_iter().chain(der.err()).collect(),
    }
}

fn load(certificate: &Path, key: &Path) -> Result<Arc<CertifiedKey>, TlsError> {
    join((certificate, chain(certificate)?), (key, private_key(key)?)).map(Arc::new)
}

fn chain(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let found = CertificateDer::pem_file_iter(path).and_then(Iterator::collect);
    let chain: Vec<_> = found.map_err(|e| wrong_file(path, &e, CHAIN))?;
    if chain.is_empty() { Err(wrong_file(path, &pem::Error::NoItemsFound, CHAIN)) } else { Ok(chain) }
}

fn private_key(path: &Path) -> Result<PrivateKeyDer<'static>, TlsError> {
    PrivateKeyDer::from_pem_file(path).map_err(|e| wrong_file(path, &e, KEY))
}

/// Nothing of a key's file is repeated.
fn wrong_file(path: &Path, error: &pem::Error, wanted: &'static str) -> TlsError {
    let is_other = match wanted {
        CHAIN => PrivateKeyDer::from_pem_file(path).is_ok(),
        _ => CertificateDer::from_pem_file(path).is_ok(),
    };
    let why = match (error, wanted) {
        (pem::Error::Io(error), _) => format!("it cannot be read: {error}"),
        (pem::Error::NoItemsFound, CHAIN) if is_other => "it holds a private key and no certificate".to_owned(),
        (pem::Error::NoItemsFound, KEY) if is_other => "it holds a certificate and no private key".to_owned(),
        (pem::Error::NoItemsFound, CHAIN) => "there is no certificate in it".to_owned(),
        (pem::Error::NoItemsFound, _) => "there is no private key in it that can be read without a password".to_owned(),
        _ => "it is damaged, or no PEM file".to_owned(),
    };
    TlsError::File { path: path.into(), why, wanted }
}

fn join(
    (certificate, chain): (&Path, Vec<CertificateDer<'static>>),
    (key, der): (&Path, PrivateKeyDer<'static>),
) -> Result<CertifiedKey, TlsError> {
    let provider = rustls::crypto::aws_lc_rs::default_provider();
    CertifiedKey::from_der(chain, der, &provider).map_err(|e| match e {
        rustls::Error::InconsistentKeys(_) => TlsError::Mismatch { certificate: certificate.into(), key: key.into() },
        e => TlsError::Unusable { certificate: certificate.into(), key: key.into(), why: e.to_string() },
    })
}
