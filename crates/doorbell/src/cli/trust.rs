//! Whom the command line believes behind `https`. On the server's own machine the configuration names the certificate that
//! the server shows, so that one is taken and no other: it needs neither the name `127.0.0.1` in it nor an issuer that the
//! system knows. An address that somebody typed is held to the system's roots, as everywhere. Called by `client.rs`.

use std::io;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context as _, Result};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, Error, SignatureScheme};

use super::fault::Fault;

/// TLS that takes the first certificate of `file` and nothing else.
///
/// # Errors
/// If there is none in the file, or it cannot be read.
pub(super) fn only(file: &Path) -> Result<ClientConfig> {
    let wanted = CertificateDer::from_pem_file(file).map_err(|e| {
        Fault::new(format!("the server's certificate in {} cannot be read", file.display())).cause(e).advice(
            "It is `tls.cert` of the configuration. `doorbell check` says more; `--url` works without the file.",
        )
    })?;
    let provider = rustls::crypto::aws_lc_rs::default_provider();
    let algorithms = provider.signature_verification_algorithms;
    let config = ClientConfig::builder_with_provider(Arc::new(provider))
        .with_safe_default_protocol_versions()
        .context("cannot set up TLS")?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Only { wanted, algorithms }))
        .with_no_client_auth();
    Ok(config)
}

/// Takes one certificate, byte by byte; who shows it has to prove that its key is theirs.
#[derive(Debug)]
struct Only {
    wanted: CertificateDer<'static>,
    algorithms: WebPkiSupportedAlgorithms,
}

impl ServerCertVerifier for Only {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        if *end_entity == self.wanted {
            return Ok(ServerCertVerified::assertion());
        }
        Err(Error::InvalidCertificate(CertificateError::ApplicationVerificationFailure))
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, cert, dss, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, cert, dss, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

/// What to say of a request that ended in TLS: somebody listens at `place`, but it cannot be told who. None if something
/// else was the matter.
pub(super) fn fault(error: &reqwest::Error, place: &str, certificate: Option<&Path>) -> Option<Fault> {
    let own = "On the server's own machine leave `--url` and `DOORBELL_URL` out: then the certificate that its doorbell.toml \
               names is trusted (`-c FILE` names another file).";
    let (what, advice) = match (find(error)?, certificate) {
        (Error::InvalidCertificate(_), Some(file)) => (
            format!("what listens at {place} shows another certificate than the first in {}", file.display()),
            "Nothing was sent. Is another program listening there? If the file was just renewed, send the server a SIGHUP: it \
             takes it then."
                .to_owned(),
        ),
        (Error::InvalidCertificate(why), None) if is_name(why) => (
            format!("the certificate of {place} is for another name"),
            format!("Nothing was sent. Name the server as its certificate does. {own}"),
        ),
        (Error::InvalidCertificate(_), None) => (
            format!("the certificate of {place} is not trusted here"),
            format!("Nothing was sent. Add its issuer to the certificates that this system trusts. {own}"),
        ),
        (Error::InvalidMessage(_), _) => (
            format!("what listens at {place} does not speak TLS"),
            "Nothing was sent. Is the address to be http:// and not https://? Has the server been started since `tls` was set?"
                .to_owned(),
        ),
        _ => (format!("no TLS connection to {place} could be made"), "Nothing was sent.".to_owned()),
    };
    // Of our own no, the text says nothing that was not said.
    let why = find(error).filter(|_| certificate.is_none()).map(ToString::to_string);
    let fault = Fault::not_reachable(what).advice(advice);
    Some(match why {
        Some(why) => fault.cause(why),
        None => fault,
    })
}

fn is_name(why: &CertificateError) -> bool {
    matches!(why, CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. })
}

/// What TLS says, from under the layers around it. An I/O error hides what it was made of from `source`.
fn find<'e>(error: &'e (dyn std::error::Error + 'static)) -> Option<&'e Error> {
    let mut cause = Some(error);
    while let Some(error) = cause {
        if let Some(found) = error.downcast_ref::<Error>() {
            return Some(found);
        }
        let inside = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
        if let Some(found) = inside.and_then(|inside| find(inside)) {
            return Some(found);
        }
        cause = error.source();
    }
    None
}
