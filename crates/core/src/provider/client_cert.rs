//! Client certificates (mutual TLS) that a proxy has checked: what it tells of them in a header. Called by `verify`.
//!
//! A header can be written by anybody, so what stands in one counts only where the request came from a proxy that the
//! operator trusts ([`Via::TrustedProxy`]), where the header is there once, and where it tells of one certificate. The
//! proxy's part is to ask for the certificate, and to take these headers out of what its own clients send.

use http::{HeaderMap, HeaderName};

use super::refusal::Refusal;
use super::select::Place;
use super::{Request, Via};
use crate::provider::encoding::lenient_base64;

/// The form of Envoy's header, whose name does not change what is in it.
pub const XFCC: &str = "x-forwarded-client-cert";

/// Which certificates are let in. Of each list that is not empty one value has to be the certificate's; at least one list is
/// not empty, which whoever makes a rule has to see to: [`ClientCertRule::is_open`].
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ClientCertRule {
    /// How the proxy tells of it.
    pub told: Told,
    /// Subjects, as the proxy writes them.
    pub subjects: Vec<String>,
    /// Subject alternative names.
    pub sans: Vec<San>,
    /// SHA-256 of the certificate, or SHA-1 where the proxy tells no other.
    pub fingerprints: Vec<Fingerprint>,
}

/// How a proxy tells of the certificate that its client has.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Told {
    /// Envoy's `X-Forwarded-Client-Cert`: `Hash=…;Subject="…";URI=…;DNS=…`.
    Xfcc(HeaderName),
    /// Each in a header of its own (nginx, HAProxy, Apache).
    Fields {
        /// Says that the certificate was found good, and the word for that.
        verified: (HeaderName, String),
        /// The subject.
        subject: HeaderName,
        /// The fingerprint in hex.
        fingerprint: HeaderName,
    },
    /// The certificate itself: in PEM, percent-encoded or not, its base64 alone, or as RFC 9440 writes it.
    Certificate(HeaderName),
}

/// A subject alternative name.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum San {
    /// A host, in lower case.
    Dns(String),
    /// A URI, such as a SPIFFE id.
    Uri(String),
}

impl San {
    /// Reads `dns:host` or `uri:…`; none for anything else.
    pub fn parse(text: &str) -> Option<Self> {
        let (kind, name) = text.split_once(':').filter(|(_, name)| !name.is_empty())?;
        match kind {
            "dns" => Some(Self::Dns(name.to_ascii_lowercase())),
            "uri" => Some(Self::Uri(name.to_owned())),
            _ => None,
        }
    }
}

/// The digest of a certificate.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Fingerprint(Vec<u8>);

impl Fingerprint {
    /// Reads hex, with or without colons: 32 bytes of SHA-256 or 20 of SHA-1.
    pub fn parse(text: &str) -> Option<Self> {
        let plain: String = text.chars().filter(|c| *c != ':').collect();
        hex::decode(plain).ok().filter(|bytes| matches!(bytes.len(), 20 | 32)).map(Self)
    }

    /// Whether it is a SHA-256.
    pub fn is_sha256(&self) -> bool {
        self.0.len() == 32
    }
}

/// What a header tells of one certificate.
#[derive(Default, Debug, PartialEq, Eq)]
struct Certificate {
    subject: Option<String>,
    sans: Vec<San>,
    fingerprint: Option<Fingerprint>,
}

impl ClientCertRule {
    /// Whether it would let in every certificate.
    pub fn is_open(&self) -> bool {
        self.subjects.is_empty() && self.sans.is_empty() && self.fingerprints.is_empty()
    }

    /// The headers that it believes.
    pub fn headers(&self) -> Vec<HeaderName> {
        match &self.told {
            Told::Xfcc(name) | Told::Certificate(name) => vec![name.clone()],
            Told::Fields { verified, subject, fingerprint } => {
                vec![verified.0.clone(), subject.clone(), fingerprint.clone()]
            }
        }
    }

    /// Checks what a request says of its sender's certificate.
    pub(super) fn check(&self, request: &Request<'_>) -> Result<(), Refusal> {
        if request.via != Via::TrustedProxy {
            return Err(Refusal::NotFromProxy);
        }
        let certificate = match &self.told {
            Told::Xfcc(name) => {
                let text = one(request.headers, name)?.ok_or_else(|| missing(name))?;
                xfcc(text).ok_or_else(|| malformed(name, "what Envoy writes of one certificate"))?
            }
            Told::Fields { verified: (name, good), subject, fingerprint } => {
                let verdict = one(request.headers, name)?.ok_or_else(|| missing(name))?;
                if verdict != good {
                    return Err(Refusal::CertificateRefused {
                        place: Place::Header(name.clone()),
                        wanted: good.clone(),
                    });
                }
                let text = |name| one(request.headers, name);
                let fingerprint = text(fingerprint)?.and_then(Fingerprint::parse);
                Certificate { subject: text(subject)?.map(str::to_owned), sans: Vec::new(), fingerprint }
            }
            Told::Certificate(name) => {
                let text = one(request.headers, name)?.ok_or_else(|| missing(name))?;
                let der = der(text).ok_or_else(|| malformed(name, "one certificate"))?;
                let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, &der);
                let fingerprint = Some(Fingerprint(digest.as_ref().to_vec()));
                Certificate { fingerprint, ..Certificate::default() }
            }
        };
        self.compare(&certificate)
    }

    fn compare(&self, certificate: &Certificate) -> Result<(), Refusal> {
        let fits = |what, is_listed: bool, fits: bool| match !is_listed || fits {
            true => Ok(()),
            false => Err(Refusal::CertificateMismatch(what)),
        };
        // A rule without any list lets nobody in.
        fits("name", self.is_open(), false)?;
        let has_subject = certificate.subject.as_ref().is_some_and(|s| self.subjects.contains(s));
        fits("subject", !self.subjects.is_empty(), has_subject)?;
        let has_san = certificate.sans.iter().any(|san| self.sans.contains(san));
        fits("alternative name", !self.sans.is_empty(), has_san)?;
        let has_fingerprint = certificate.fingerprint.as_ref().is_some_and(|f| self.fingerprints.contains(f));
        fits("fingerprint", !self.fingerprints.is_empty(), has_fingerprint)
    }
}

/// The one value of a header; an empty one is none: proxies write it where there is no certificate.
fn one<'h>(headers: &'h HeaderMap, name: &HeaderName) -> Result<Option<&'h str>, Refusal> {
    let mut values = headers.get_all(name).iter();
    let first = values.next();
    if values.next().is_some() {
        return Err(Refusal::PartRepeated(Place::Header(name.clone())));
    }
    let text = |v: &'h http::HeaderValue| v.to_str().map_err(|_| malformed(name, "plain text"));
    Ok(first.map(text).transpose()?.filter(|text| !text.is_empty()))
}

fn missing(name: &HeaderName) -> Refusal {
    Refusal::CredentialMissing(Place::Header(name.clone()))
}

fn malformed(name: &HeaderName, wanted: &'static str) -> Refusal {
    let seen = "something else, or several certificates";
    Refusal::CredentialMalformed { place: Place::Header(name.clone()), wanted: wanted.into(), seen }
}

/// One element of Envoy's header; none for several, which a chain of proxies appends, and of which nobody says whose is
/// whose.
fn xfcc(text: &str) -> Option<Certificate> {
    let mut certificate = Certificate::default();
    let elements = split(text, ',')?;
    let [element] = elements.as_slice() else { return None };
    for pair in split(element, ';')? {
        let (key, value) = pair.split_once('=')?;
        let value = unquoted(value)?;
        let is_first = match key.trim().to_ascii_lowercase().as_str() {
            "hash" => certificate.fingerprint.replace(Fingerprint::parse(&value)?).is_none(),
            "subject" => certificate.subject.replace(value).is_none(),
            "uri" => {
                certificate.sans.push(San::Uri(value));
                true
            }
            "dns" => {
                certificate.sans.push(San::Dns(value.to_ascii_lowercase()));
                true
            }
            _ => true,
        };
        if !is_first {
            return None;
        }
    }
    Some(certificate)
}

/// The parts between separators that do not stand in quotes; none if a quote is left open.
fn split(text: &str, separator: char) -> Option<Vec<&str>> {
    let (mut parts, mut start, mut is_quoted, mut is_escaped) = (Vec::new(), 0, false, false);
    for (at, c) in text.char_indices() {
        match c {
            _ if is_escaped => is_escaped = false,
            '\\' if is_quoted => is_escaped = true,
            '"' => is_quoted = !is_quoted,
            c if c == separator && !is_quoted => {
                parts.push(&text[start..at]);
                start = at + c.len_utf8();
            }
            _ => {}
        }
    }
    parts.push(&text[start..]);
    (!is_quoted).then_some(parts)
}

fn unquoted(text: &str) -> Option<String> {
    let Some(inner) = text.strip_prefix('"') else { return (!text.contains('"')).then(|| text.to_owned()) };
    let mut plain = String::with_capacity(inner.len());
    let mut chars = inner.strip_suffix('"')?.chars();
    while let Some(c) = chars.next() {
        match c {
            '\\' => plain.push(chars.next()?),
            '"' => return None,
            c => plain.push(c),
        }
    }
    Some(plain)
}

/// The bytes of the one certificate in a header.
fn der(text: &str) -> Option<Vec<u8>> {
    let text = percent_decoded(text)?;
    // RFC 9440: a byte sequence of RFC 8941, base64 between colons.
    let bare = text.strip_prefix(':').and_then(|t| t.strip_suffix(':')).unwrap_or(&text);
    let base64 = match bare.split_once("-----BEGIN CERTIFICATE-----") {
        Some((before, rest)) => {
            let (inside, after) = rest.split_once("-----END CERTIFICATE-----")?;
            (before.trim().is_empty() && after.trim().is_empty()).then_some(inside)?
        }
        None => bare,
    };
    let base64: String = base64.split_ascii_whitespace().collect();
    lenient_base64(&base64).filter(|der| !der.is_empty())
}

fn percent_decoded(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        rest = after;
        if *first != b'%' {
            bytes.push(*first);
            continue;
        }
        let (code, after) = rest.split_at_checked(2)?;
        bytes.extend(hex::decode(code).ok()?);
        rest = after;
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use http::Method;

    const HASH: &str = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08";

    fn rule(told: Told, subjects: &[&str], sans: &[&str], fingerprints: &[&str]) -> ClientCertRule {
        ClientCertRule {
            told,
            subjects: subjects.iter().map(|s| (*s).to_owned()).collect(),
            sans: sans.iter().map(|s| San::parse(s).unwrap()).collect(),
            fingerprints: fingerprints.iter().map(|s| Fingerprint::parse(s).unwrap()).collect(),
        }
    }

    fn ask(rule: &ClientCertRule, via: Via, said: &[(&'static str, &str)]) -> Result<(), &'static str> {
        let mut headers = HeaderMap::new();
        for (name, value) in said {
            headers.append(*name, value.parse().unwrap());
        }
        let (body, method) = (Bytes::new(), Method::POST);
        let request = Request { method: &method, url: None, path: "/", query: "", headers: &headers, body: &body, via };
        rule.check(&request).map_err(|refusal| refusal.code())
    }

    fn envoy() -> Told {
        Told::Xfcc(HeaderName::from_static(XFCC))
    }

    fn nginx() -> Told {
        Told::Fields {
            verified: (HeaderName::from_static("x-ssl-client-verify"), "SUCCESS".into()),
            subject: HeaderName::from_static("x-ssl-client-s-dn"),
            fingerprint: HeaderName::from_static("x-ssl-client-fingerprint"),
        }
    }

    #[test]
    fn what_envoy_tells_is_read_as_it_writes_it() {
        let said = format!(
            "By=spiffe://us;Hash={HASH};Subject=\"CN=a,O=\\\"B; C\\\"\";URI=spiffe://them/x;DNS=A.example;DNS=b.example"
        );
        let whole = xfcc(&said).unwrap();
        assert_eq!(whole.subject.as_deref(), Some("CN=a,O=\"B; C\""));
        assert_eq!(whole.sans.len(), 3);
        for (subjects, sans, fingerprints, is_in) in [
            (&["CN=a,O=\"B; C\""][..], &[][..], &[][..], true),
            (&["CN=a"], &[], &[], false),
            (&[], &["dns:a.example"], &[], true),
            (&[], &["uri:spiffe://them/x", "dns:z"], &[HASH], true),
            (&[], &["uri:spiffe://them"], &[HASH], false),
            (&[], &["dns:spiffe://them/x"], &[], false),
            (&[], &[], &["00".repeat(32).as_str()], false),
            (&[], &[], &[], false),
        ] {
            let rule = rule(envoy(), subjects, sans, fingerprints);
            let verdict = ask(&rule, Via::TrustedProxy, &[(XFCC, &said)]);
            assert_eq!(verdict.is_ok(), is_in, "{subjects:?} {sans:?} {fingerprints:?} {verdict:?}");
        }
    }

    #[test]
    fn a_header_counts_once_from_a_trusted_proxy_and_tells_of_one_certificate() {
        let rule = rule(envoy(), &[], &[], &[HASH]);
        let good = format!("Hash={HASH}");
        let elsewhere = format!("Hash={}", "00".repeat(32));
        let proxy = Via::TrustedProxy;
        assert_eq!(ask(&rule, proxy, &[(XFCC, &good)]), Ok(()));
        for (via, said, code) in [
            (Via::Anybody, vec![good.as_str()], "not_from_proxy"),
            (proxy, vec![], "credential_missing"),
            (proxy, vec![""], "credential_missing"),
            (proxy, vec![&good, &good], "part_repeated"),
            (proxy, vec![&format!("{good},{elsewhere}")], "credential_malformed"),
            (proxy, vec![&format!("{elsewhere},{good}")], "credential_malformed"),
            (proxy, vec![&format!("{elsewhere};{good}")], "credential_malformed"),
            (proxy, vec![&format!("Subject=\"x;{good}")], "credential_malformed"),
            (proxy, vec![&format!("Subject=\"x\";x\";{good}")], "credential_malformed"),
            (proxy, vec![&format!("Subject=\";{good}\"")], "certificate_mismatch"),
            (proxy, vec!["Hash=00"], "credential_malformed"),
            (proxy, vec![&elsewhere], "certificate_mismatch"),
        ] {
            let said: Vec<(&'static str, &str)> = said.iter().map(|v| (XFCC, *v)).collect();
            assert_eq!(ask(&rule, via, &said), Err(code), "{said:?}");
        }
    }

    #[test]
    fn what_the_proxy_did_not_verify_is_refused_whatever_else_it_says() {
        let rule = rule(nginx(), &["CN=partner"], &[], &["0123456789abcdef0123456789abcdef01234567"]);
        let colons = "01:23:45:67:89:AB:CD:EF:01:23:45:67:89:AB:CD:EF:01:23:45:67";
        let (dn, print) = (("x-ssl-client-s-dn", "CN=partner"), ("x-ssl-client-fingerprint", colons));
        let proxy = Via::TrustedProxy;
        assert_eq!(ask(&rule, proxy, &[("x-ssl-client-verify", "SUCCESS"), dn, print]), Ok(()));
        for verdict in ["FAILED:expired", "NONE", "success", "SUCCESS,SUCCESS"] {
            let said = [("x-ssl-client-verify", verdict), dn, print];
            assert_eq!(ask(&rule, proxy, &said), Err("certificate_refused"), "{verdict}");
        }
        assert_eq!(ask(&rule, proxy, &[dn, print]), Err("credential_missing"));
        assert_eq!(ask(&rule, proxy, &[("x-ssl-client-verify", "SUCCESS"), dn]), Err("certificate_mismatch"));
        assert_eq!(ask(&rule, proxy, &[("x-ssl-client-verify", "SUCCESS"), print]), Err("certificate_mismatch"));
        let twice = [("x-ssl-client-verify", "SUCCESS"), dn, ("x-ssl-client-s-dn", "CN=other"), print];
        assert_eq!(ask(&rule, proxy, &twice), Err("part_repeated"));
    }

    #[test]
    fn a_certificate_is_told_apart_by_its_digest_however_it_is_written() {
        let name = "x-client-cert";
        // SHA-256 of "test".
        let rule = rule(Told::Certificate(HeaderName::from_static(name)), &[], &[], &[HASH]);
        for text in [
            "dGVzdA==",
            ":dGVzdA==:",
            "dGVzdA%3D%3D",
            "-----BEGIN%20CERTIFICATE-----%0AdGVz%0AdA%3D%3D%0A-----END%20CERTIFICATE-----%0A",
            "-----BEGIN CERTIFICATE----- dGVz dA== -----END CERTIFICATE-----",
        ] {
            assert_eq!(ask(&rule, Via::TrustedProxy, &[(name, text)]), Ok(()), "{text}");
        }
        let two = "-----BEGIN CERTIFICATE-----dGVzdA==-----END CERTIFICATE-----".repeat(2);
        for (text, code) in [
            ("dGVzdQ==", "certificate_mismatch"),
            (two.as_str(), "credential_malformed"),
            ("dGVzdA==,dGVzdA==", "credential_malformed"),
            ("%zz", "credential_malformed"),
            ("%", "credential_malformed"),
            ("%20", "credential_malformed"),
        ] {
            assert_eq!(ask(&rule, Via::TrustedProxy, &[(name, text)]), Err(code), "{text}");
        }
    }

    proptest::proptest! {
        #[test]
        fn no_text_makes_a_reader_panic(text in "\\PC{0,60}") {
            let _ = (xfcc(&text), der(&text), Fingerprint::parse(&text), San::parse(&text));
        }
    }
}
