//! Who can sign as a sender, and the signing itself: with a secret that both sides have, or with a private key. Called by
//! `sign`, and by whoever wants to say beforehand that a sender cannot be stood in for.

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_ASN1_SIGNING, ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, EcdsaSigningAlgorithm,
    Ed25519KeyPair, RSA_PKCS1_SHA256,
};
use aws_lc_rs::{digest, hmac};
use zeroize::Zeroizing;

use super::encoding::lenient_base64;
use super::key_form::KeyForm;
use super::preset::Preset;
use super::scheme::{Algorithm, JwtAlgorithm, PublicAlgorithm, Scheme};
use super::sign::SignError;
use crate::Secret;

/// Who can sign as a preset's sender.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Signer {
    /// Whoever has the source's secret; where nothing is checked, everybody.
    Secret,
    /// Whoever has the private half of a key whose public half is a secret of the source.
    PrivateKey,
    /// The sender alone, and why.
    SenderAlone(&'static str),
}

impl Preset {
    /// Who can sign as this sender.
    pub fn signer(&self) -> Signer {
        match &self.scheme {
            Scheme::Sns => {
                Signer::SenderAlone("Amazon signs with a key of its own, whose certificate is fetched from it")
            }
            Scheme::ClientCert(_) => {
                Signer::SenderAlone("a trusted proxy tells of the client's certificate, in headers of its own")
            }
            Scheme::Jwt(rule) if rule.key_set.is_some() || rule.keys_by_name.is_some() => {
                Signer::SenderAlone("its tokens are signed with keys that are fetched from the sender")
            }
            Scheme::Signed(signed) if signed.published.is_some() => {
                Signer::SenderAlone("it signs with a key whose public half is fetched from it")
            }
            // SHA-1 is checked for senders that offer nothing better; nothing here makes such signatures.
            Scheme::Signed(signed) if signed.algorithm == Algorithm::Public(PublicAlgorithm::RsaSha1) => {
                Signer::SenderAlone("it signs with RSA over SHA-1, which is checked here and never made")
            }
            Scheme::Signed(signed) if matches!(signed.algorithm, Algorithm::Public(_)) => Signer::PrivateKey,
            Scheme::Jwt(rule) if rule.algorithm != JwtAlgorithm::Hs256 => Signer::PrivateKey,
            Scheme::Signed(_) | Scheme::Jwt(_) | Scheme::Token { .. } | Scheme::Basic | Scheme::None => Signer::Secret,
        }
    }
}

/// The signature of `message` by what `secret` holds: the secret in its form, or a private key.
pub(super) fn sign(algorithm: Algorithm, form: KeyForm, secret: &Secret, message: &[u8]) -> Result<Vec<u8>, SignError> {
    let key = || form.decode(secret.expose()).map_err(SignError::BadSecret);
    match algorithm {
        Algorithm::Hmac(hash) => Ok(hmac::sign(&hmac::Key::new(hash.hmac(), &key()?), message).as_ref().to_vec()),
        Algorithm::Digest(hash) => Ok(digest::digest(hash.digest(), message).as_ref().to_vec()),
        Algorithm::Public(public) => with_private_key(public, form, secret.expose(), message),
    }
}

fn with_private_key(
    algorithm: PublicAlgorithm,
    form: KeyForm,
    text: &str,
    message: &[u8],
) -> Result<Vec<u8>, SignError> {
    let pkcs8 = pem(text);
    let wanted = SignError::BadSecret("it should be the private key, as PKCS#8 in PEM (-----BEGIN PRIVATE KEY-----)");
    let der = || pkcs8.as_deref().map(Vec::as_slice).ok_or(wanted.clone());
    match algorithm {
        PublicAlgorithm::Ed25519 => {
            let pair = match &pkcs8 {
                Some(der) => Ed25519KeyPair::from_pkcs8_maybe_unchecked(der).ok(),
                None => {
                    let key = form.decode(text).map_err(SignError::BadSecret)?;
                    let seed = key.get(..32).filter(|_| key.len() == 32 || key.len() == 64);
                    seed.and_then(|seed| Ed25519KeyPair::from_seed_unchecked(seed).ok())
                }
            };
            let wanted = "it should be the private key: PKCS#8 in PEM, or 32 or 64 bytes written as the public key is";
            Ok(pair.ok_or(SignError::BadSecret(wanted))?.sign(message).as_ref().to_vec())
        }
        PublicAlgorithm::Ecdsa => with_ecdsa(&ECDSA_P256_SHA256_ASN1_SIGNING, der()?, message).ok_or(wanted),
        PublicAlgorithm::EcdsaFixed => with_ecdsa(&ECDSA_P256_SHA256_FIXED_SIGNING, der()?, message).ok_or(wanted),
        PublicAlgorithm::RsaSha256 => {
            let pair = rsa::KeyPair::from_pkcs8(der()?).map_err(|_| wanted.clone())?;
            let mut signature = vec![0; pair.public_modulus_len()];
            let signed = pair.sign(&RSA_PKCS1_SHA256, &SystemRandom::new(), message, &mut signature);
            signed.map(|()| signature).map_err(|_| wanted)
        }
        PublicAlgorithm::RsaSha1 => Err(SignError::NotOurs("signatures over SHA-1 are checked here and never made")),
    }
}

fn with_ecdsa(algorithm: &'static EcdsaSigningAlgorithm, der: &[u8], message: &[u8]) -> Option<Vec<u8>> {
    let pair = EcdsaKeyPair::from_pkcs8(algorithm, der).ok()?;
    pair.sign(&SystemRandom::new(), message).ok().map(|signature| signature.as_ref().to_vec())
}

/// The DER of a private key in PEM (RFC 7468, section 10).
fn pem(text: &str) -> Option<Zeroizing<Vec<u8>>> {
    let inside = text.trim().strip_prefix("-----BEGIN PRIVATE KEY-----")?.split_once("-----END ")?.0;
    let plain: Zeroizing<String> = Zeroizing::new(inside.replace("\\n", "").split_ascii_whitespace().collect());
    lenient_base64(&plain).map(Zeroizing::new)
}
