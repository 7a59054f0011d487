//! Amazon SNS: the pure part of its check. Which certificate a message names, whether that is Amazon's, what text was signed,
//! and whether the certificate's key signed it. Fetching is [`KeyCache`](super::KeyCache)'s.
//!
//! A right signature proves that the message came from some topic of SNS, not from yours: compare `TopicArn`. Rules:
//! <https://docs.aws.amazon.com/sns/latest/dg/sns-verify-signature-of-message.html> and `sns-validator`.

use aws_lc_rs::signature::ParsedPublicKey;
use serde_json::Value;

use super::encoding::{Encoding, lenient_base64};
use super::published::KeyUrl;
use super::refusal::Refusal;
use super::scheme::PublicAlgorithm;
use super::select::Place;

/// Whether every message's signature covers the field.
pub(super) fn is_signed(path: &[String]) -> bool {
    matches!(path, [name] if NOTIFICATION.contains(&name.as_str()))
}

/// A message that names Amazon's own certificate.
#[derive(Debug)]
pub struct SnsMessage {
    text: String,
    topic: String,
    signature: Vec<u8>,
    algorithm: PublicAlgorithm,
    certificate: KeyUrl,
    subscribe: Option<KeyUrl>,
}

const NOTIFICATION: [&str; 6] = ["Message", "MessageId", "Subject", "Timestamp", "TopicArn", "Type"];
const CONFIRMATION: [&str; 7] = ["Message", "MessageId", "SubscribeURL", "Timestamp", "Token", "TopicArn", "Type"];

impl SnsMessage {
    /// Reads a message. A certificate anywhere but on Amazon's hosts is a refusal, before anything is fetched.
    pub fn read(body: &[u8]) -> Result<Self, Refusal> {
        let place = |name: &str| Place::Body(vec![name.to_owned()]);
        let body: Value = serde_json::from_slice(body).map_err(|_| Refusal::SignatureMissing(place("Signature")))?;
        let text = |name: &str| body.get(name).and_then(Value::as_str);
        let malformed = |name: &str, wanted: &'static str, seen| Refusal::SignatureMalformed {
            place: place(name),
            wanted: wanted.into(),
            seen,
        };
        let algorithm = match text("SignatureVersion") {
            Some("1") => PublicAlgorithm::RsaSha1,
            Some("2") => PublicAlgorithm::RsaSha256,
            _ => return Err(malformed("SignatureVersion", "1 or 2", "something else")),
        };
        let signature = text("Signature").ok_or_else(|| Refusal::SignatureMissing(place("Signature")))?;
        let signature = Encoding::Base64.decode_long(signature.as_bytes());
        let signature = signature.ok_or_else(|| malformed("Signature", "base64", "something else"))?;
        let url = text("SigningCertURL").ok_or_else(|| Refusal::PartMissing(place("SigningCertURL")))?;
        let topic = text("TopicArn").unwrap_or_default().to_owned();
        let host = host_of(&topic).ok_or_else(|| malformed("TopicArn", "arn:aws:sns:<region>:…", "something else"))?;
        let certificate = KeyUrl::pinned(url, |found| found == host, ".pem");
        let certificate = certificate.ok_or_else(|| {
            malformed("SigningCertURL", "a .pem file on the host of the topic's region", "another address")
        })?;
        let names: &[&str] = match text("Type") {
            Some("Notification" | "UnsubscribeConfirmation") if text("Token").is_none() => &NOTIFICATION,
            Some("SubscriptionConfirmation" | "UnsubscribeConfirmation") => &CONFIRMATION,
            _ => return Err(Refusal::PartMissing(place("Type"))),
        };
        let mut signed = String::new();
        for name in names {
            match text(name) {
                Some(value) => signed.extend([*name, "\n", value, "\n"]),
                None if *name == "Subject" => {}
                None => return Err(Refusal::PartMissing(place(name))),
            }
        }
        let is_asked = text("Type") == Some("SubscriptionConfirmation");
        let subscribe = text("SubscribeURL").filter(|_| is_asked).and_then(|url| subscribe_url(url, &host));
        Ok(Self { text: signed, topic, signature, algorithm, certificate, subscribe })
    }

    /// The ARN of the topic that it says it comes from.
    pub fn topic(&self) -> &str {
        &self.topic
    }

    /// Where its certificate stands: on a host of Amazon's.
    pub fn certificate(&self) -> &KeyUrl {
        &self.certificate
    }

    /// Checks it against what was found at [`SnsMessage::certificate`], a certificate or a public key in PEM.
    pub fn verify(&self, pem: &[u8]) -> Result<(), Refusal> {
        let mismatch = || Refusal::SignatureMismatch { secrets: 1 };
        let key = std::str::from_utf8(pem).ok().and_then(public_key).ok_or_else(mismatch)?;
        let key = ParsedPublicKey::new(self.algorithm.verification(), &key).map_err(|_| mismatch())?;
        key.verify_sig(self.text.as_bytes(), &self.signature).map_err(|_| mismatch())
    }

    /// The address that confirms the subscription, if the message asks for that and it is Amazon's. Use it only after
    /// [`SnsMessage::verify`].
    pub fn subscribe(&self) -> Option<&KeyUrl> {
        self.subscribe.as_ref()
    }
}

/// The one host of the topic's region: `sns.<region>.amazonaws.com`, in China `.com.cn`.
fn host_of(topic: &str) -> Option<String> {
    let mut parts = topic.split(':');
    let (Some("arn"), Some(partition), Some("sns"), Some(region)) =
        (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return None;
    };
    let is_plain = |text: &str| text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
    let end = match partition {
        "aws" | "aws-us-gov" => "amazonaws.com",
        "aws-cn" => "amazonaws.com.cn",
        _ => return None,
    };
    (region.len() >= 3 && is_plain(region)).then(|| format!("sns.{region}.{end}"))
}

/// A confirmation's URL has a query; the rest of it has to be as strict as a certificate's.
fn subscribe_url(url: &str, host: &str) -> Option<KeyUrl> {
    let (base, query) = url.split_once('?')?;
    let is_plain = |b: u8| b.is_ascii_alphanumeric() || b"-_.~=&:%".contains(&b);
    KeyUrl::pinned(base, |found| found == host, "")?;
    query.bytes().all(is_plain).then(|| KeyUrl::checked(url))
}

/// The SubjectPublicKeyInfo of a certificate in PEM, or of a public key.
pub(super) fn public_key(pem: &str) -> Option<Vec<u8>> {
    let rest = &pem[pem.find("-----BEGIN ")? + 11..];
    let (label, rest) = rest.split_once("-----")?;
    let text: String = rest.split_once("-----END ")?.0.split_ascii_whitespace().collect();
    let der = lenient_base64(&text)?;
    match label {
        "PUBLIC KEY" => Some(der),
        "CERTIFICATE" => key_of_certificate(&der).map(<[u8]>::to_vec),
        _ => None,
    }
}

/// RFC 5280, section 4.1: certificate, its first part, and in that the seventh element (the sixth without a version).
fn key_of_certificate(der: &[u8]) -> Option<&[u8]> {
    let (_, certificate, _) = element(der)?;
    let (_, mut rest, _) = element(certificate)?;
    let has_version = *rest.first()? == 0xa0;
    for _ in 0..if has_version { 6 } else { 5 } {
        rest = element(rest)?.2;
    }
    let (0x30, _, after) = element(rest)? else { return None };
    rest.get(..rest.len() - after.len())
}

/// The tag, the inside of the first DER element, and what follows it.
fn element(der: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (&tag, rest) = der.split_first()?;
    let (&first, rest) = rest.split_first()?;
    let (length, rest) = match first {
        0..=0x7f => (usize::from(first), rest),
        0x81..=0x84 => {
            let (bytes, rest) = rest.split_at_checked(usize::from(first & 0x7f))?;
            (bytes.iter().fold(0_usize, |n, b| (n << 8) | usize::from(*b)), rest)
        }
        _ => return None,
    };
    let (inside, after) = rest.split_at_checked(length)?;
    Some((tag, inside, after))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A certificate and its key, made with openssl.
    const CERTIFICATE: &str = "-----BEGIN CERTIFICATE-----\nMIIDGzCCAgOgAwIBAgIUBO+U5+l7s8GExJ10fKDhbrnd8sswDQYJKoZIhvcNAQEL\nBQAwHDEaMBgGA1UEAwwRc25zLmFtYXpvbmF3cy5jb20wIBcNMjYxMTIxMTI0MjQ4\nWhgPMjEyNjEwMjgxMjQyNDhaMBwxGjAYBgNVBAMMEXNucy5hbWF6b25hd3MuY29t\nMIIBIjANBgkqhkiG9w0BAQEFAAOCAQ8AMIIBCgKCAQEAxay0M+8Z0MO747U9eZlc\nNMj/izGA3BPrI1yXPptL5Njh8tu4Nq4dZg7rKRFBf0vGhobsqB7ZOCOyuwEdmXq2\nbUmCT/tPY8hBW44Zml5xCk3tpXnyK0d8C4F1XuM7WFMNCdwsYoOz26ywqsgBKSl6\nGTkUX+V5osqEa29e/gfR8ovka5U213UTog3nXV3aFgoZreeydefmAA9VgoOYTaad\nzkiwvhfnud/2xz1Ic6ZtT/tsSK5uCxmE0JookTXod/f4//+6jsNufJJ2P9OXomwM\nCsmkuJumsHBtO6RmdSUJzgQUaUQuaYp0+QTG23QrMeBzdJ1XEGPnSLao9jnobJLe\n5wIDAQABo1MwUTAdBgNVHQ4EFgQUrUm5c5srPBkr717lGpEdpK9YRt8wHwYDVR0j\nBBgwFoAUrUm5c5srPBkr717lGpEdpK9YRt8wDwYDVR0TAQH/BAUwAwEB/zANBgkq\nhkiG9w0BAQsFAAOCAQEAbOrvcS32ngHccPiHkg7vLsyf7lHPUaNvfAdUk7HdbZAb\nO36j5zK+cWgTL15S72Acdj2vhwAISS6fkBVUKCYZ9mTqdmeJZfnAIZG6igDf4BIP\n9actuon7mrEyqmHWrz+vnO4XElnuAV/eIKsC1ZKYey6uZpp6qszz3ZQaKnBhowdp\nYYc8AMZgDQifcGNu7K5BHR1NP2a68LPx2phpvIvLlSh3vmVbgjRXJOevJIpd7kGt\nAsukUli97zmqzQBvc90OVBfZYHMvcEHGp7Q+E4j+RD1TKVy2zBcJ1Y8t5mwrXX3Q\n20OlsAIWwAuwMWUG/ns33YkBoUyaZK/SKOmyUXsZQA==\n-----END CERTIFICATE-----\n";
    const KEY: &str = "-----BEGIN PUBLIC KEY-----\nMIIBIjANBgkqhkiG9w0BAQEFAAOCAQ8AMIIBCgKCAQEAxay0M+8Z0MO747U9eZlc\nNMj/izGA3BPrI1yXPptL5Njh8tu4Nq4dZg7rKRFBf0vGhobsqB7ZOCOyuwEdmXq2\nbUmCT/tPY8hBW44Zml5xCk3tpXnyK0d8C4F1XuM7WFMNCdwsYoOz26ywqsgBKSl6\nGTkUX+V5osqEa29e/gfR8ovka5U213UTog3nXV3aFgoZreeydefmAA9VgoOYTaad\nzkiwvhfnud/2xz1Ic6ZtT/tsSK5uCxmE0JookTXod/f4//+6jsNufJJ2P9OXomwM\nCsmkuJumsHBtO6RmdSUJzgQUaUQuaYp0+QTG23QrMeBzdJ1XEGPnSLao9jnobJLe\n5wIDAQAB\n-----END PUBLIC KEY-----\n";

    #[test]
    fn the_key_of_a_certificate_is_the_one_that_it_was_made_for() {
        let key = public_key(KEY).unwrap();
        assert_eq!(public_key(CERTIFICATE), Some(key.clone()));
        assert!(ParsedPublicKey::new(PublicAlgorithm::RsaSha256.verification(), &key).is_ok());
        for cut in 0..CERTIFICATE.len() {
            let _ = public_key(&CERTIFICATE[..cut]);
        }
        let der = lenient_base64(&CERTIFICATE.lines().filter(|l| !l.starts_with('-')).collect::<String>()).unwrap();
        for cut in 0..der.len() {
            assert_ne!(key_of_certificate(&der[..cut]).map(<[u8]>::len), Some(0));
        }
    }

    #[test]
    fn a_topic_s_keys_stand_on_the_one_host_of_its_region() {
        for (topic, host) in [
            ("arn:aws:sns:us-west-2:123456789012:door", Some("sns.us-west-2.amazonaws.com")),
            ("arn:aws-us-gov:sns:us-gov-west-1:1:x", Some("sns.us-gov-west-1.amazonaws.com")),
            ("arn:aws-cn:sns:cn-north-1:1:x", Some("sns.cn-north-1.amazonaws.com.cn")),
            ("arn:aws:sqs:us-west-2:1:x", None),
            ("arn:aws:sns::1:x", None),
            ("arn:aws:sns:evil.example/x:1:x", None),
            ("arn:evil:sns:us-west-2:1:x", None),
            ("us-west-2", None),
            ("", None),
        ] {
            assert_eq!(host_of(topic).as_deref(), host, "{topic}");
        }
        let message = |certificate: &str| {
            serde_json::json!({
                "Type": "Notification", "MessageId": "1", "TopicArn": "arn:aws:sns:us-west-2:123456789012:door",
                "Message": "m", "Timestamp": "t", "SignatureVersion": "1", "Signature": "AAAA",
                "SigningCertURL": certificate,
            })
            .to_string()
        };
        let read = |certificate: &str| SnsMessage::read(message(certificate).as_bytes());
        assert!(read("https://sns.us-west-2.amazonaws.com/SimpleNotificationService-1.pem").is_ok());
        for elsewhere in [
            "https://sns.us-east-1.amazonaws.com/SimpleNotificationService-1.pem",
            "https://sns.us-west-2.amazonaws.com.cn/x.pem",
            "https://sns.us-west-2.amazonaws.com.evil/x.pem",
            "https://evil.amazonaws.com/x.pem",
        ] {
            assert_eq!(read(elsewhere).unwrap_err().code(), "signature_malformed", "{elsewhere}");
        }
    }
}
