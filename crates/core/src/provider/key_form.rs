//! How a secret is written, and the key that it stands for. `keys` decodes with it when the configuration is read.
//!
//! The same letters mean different keys to different senders: Stripe uses `whsec_…` whole, Standard Webhooks decodes what
//! follows the prefix, Xero's key looks like base64 and is text. So the form is the preset's, never guessed.

use aws_lc_rs::digest;
use zeroize::Zeroizing;

use super::encoding::lenient_base64;

/// How a secret becomes the key.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum KeyForm {
    /// The text's own bytes, a prefix like `whsec_` included.
    Raw,
    /// Base64 of the key.
    Base64,
    /// Hex of the key.
    Hex,
    /// Standard Webhooks: base64 behind an optional `whsec_` (or `v1,whsec_`; `whpk_` and `whsk_` for Ed25519).
    Whsec,
    /// Base64 behind `whsec_`, the text's own bytes without it.
    WhsecOrRaw,
    /// A text in which the sender first decodes HTML's entities (WooCommerce: `wp_specialchars_decode`).
    HtmlText,
    /// `public key|private key`; the key is the SHA-1 of the private one, the public one is a name (Braintree).
    NamedSha1,
    /// A public key in PEM, or the same in base64 without the lines that begin with dashes (SubjectPublicKeyInfo).
    Public,
}

/// The words of a preset's `secret`.
pub(super) const KEY_FORMS: [(&str, KeyForm); 8] = [
    ("raw", KeyForm::Raw),
    ("base64", KeyForm::Base64),
    ("hex", KeyForm::Hex),
    ("whsec", KeyForm::Whsec),
    ("whsec_or_raw", KeyForm::WhsecOrRaw),
    ("html_text", KeyForm::HtmlText),
    ("named_sha1", KeyForm::NamedSha1),
    ("public", KeyForm::Public),
];

impl KeyForm {
    /// The key that `text` stands for; an error says how it should have been written.
    pub(super) fn decode(self, text: &str) -> Result<Zeroizing<Vec<u8>>, &'static str> {
        let raw = |t: &str| Ok(Zeroizing::new(t.as_bytes().to_vec()));
        let base64 = |t: &str| lenient_base64(t).map(Zeroizing::new).ok_or("it should be base64");
        match self {
            Self::Raw => raw(text),
            Self::Base64 => base64(text),
            Self::Hex => {
                hex::decode(text).map(Zeroizing::new).map_err(|_| "it should be hex digits, two for each byte")
            }
            Self::Whsec => base64(after_prefix(text).unwrap_or(text)).map_err(|_| WHSEC),
            Self::WhsecOrRaw => after_prefix(text).map_or_else(|| raw(text), base64).map_err(|_| WHSEC),
            Self::HtmlText => Ok(Zeroizing::new(without_entities(text).into_bytes())),
            Self::NamedSha1 => match text.split_once('|') {
                Some((name, private)) if !name.is_empty() && !private.is_empty() => {
                    let key = digest::digest(&digest::SHA1_FOR_LEGACY_USE_ONLY, private.as_bytes());
                    Ok(Zeroizing::new(key.as_ref().to_vec()))
                }
                _ => Err("it should be `public key|private key`"),
            },
            Self::Public => public(text).ok_or("it should be a public key in PEM (-----BEGIN PUBLIC KEY-----)"),
        }
    }

    /// What the sender calls the key, where the secret says it: [`KeyForm::NamedSha1`].
    pub(super) fn key_name(self, text: &str) -> Option<&str> {
        match self {
            Self::NamedSha1 => text.split_once('|').map(|(name, _)| name),
            _ => None,
        }
    }
}

const WHSEC: &str = "it should be `whsec_` and base64 behind it";

fn after_prefix(text: &str) -> Option<&str> {
    let text = text.strip_prefix("v1,").unwrap_or(text);
    ["whsec_", "whpk_", "whsk_"].iter().find_map(|p| text.strip_prefix(p))
}

/// The DER inside a PEM block of a public key, or inside bare base64. Line breaks within do not matter: an environment
/// variable often holds the key on one line, with `\n` written out.
fn public(text: &str) -> Option<Zeroizing<Vec<u8>>> {
    let text = text.trim();
    let inside = match text.strip_prefix("-----BEGIN ") {
        Some(rest) => {
            let (label, rest) = rest.split_once("-----")?;
            matches!(label, "PUBLIC KEY" | "RSA PUBLIC KEY").then_some(())?;
            rest.split_once("-----END ")?.0
        }
        None => text,
    };
    let plain: String = inside.replace("\\n", "").split_ascii_whitespace().collect();
    lenient_base64(&plain).map(Zeroizing::new)
}

/// WordPress' `wp_specialchars_decode` with both kinds of quotes.
fn without_entities(text: &str) -> String {
    const ENTITIES: [(&str, &str); 12] = [
        ("&quot;", "\""),
        ("&#034;", "\""),
        ("&#x22;", "\""),
        ("&#039;", "'"),
        ("&#x27;", "'"),
        ("&lt;", "<"),
        ("&#060;", "<"),
        ("&gt;", ">"),
        ("&#062;", ">"),
        ("&amp;", "&"),
        ("&#038;", "&"),
        ("&#x26;", "&"),
    ];
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('&') {
        let (before, from) = rest.split_at(at);
        out.push_str(before);
        match ENTITIES.iter().find(|(entity, _)| from.starts_with(entity)) {
            Some((entity, letter)) => {
                out.push_str(letter);
                rest = &from[entity.len()..];
            }
            None => {
                out.push('&');
                rest = &from[1..];
            }
        }
    }
    out.push_str(rest);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whsec_means_base64_only_where_the_preset_says_so() {
        assert_eq!(KeyForm::Raw.decode("whsec_AAAA").unwrap().as_slice(), b"whsec_AAAA");
        for text in ["whsec_AAAA", "AAAA", "v1,whsec_AAAA"] {
            assert_eq!(KeyForm::Whsec.decode(text).unwrap().as_slice(), [0, 0, 0], "{text}");
        }
        assert_eq!(KeyForm::WhsecOrRaw.decode("AAAA").unwrap().as_slice(), b"AAAA");
        assert!(KeyForm::Whsec.decode("whsec_no base64").is_err());
        assert!(KeyForm::Hex.decode("xyz").is_err());
    }

    #[test]
    fn each_odd_form_gives_the_sender_s_key() {
        assert_eq!(KeyForm::HtmlText.decode("a&amp;b&lt;&#039;&x&amp;lt;").unwrap().as_slice(), b"a&b<'&x&lt;");
        let braintree = KeyForm::NamedSha1.decode("public|private").unwrap();
        assert_eq!(hex::encode(&*braintree), "e80721793c24ae14edfca9b26ad406a9815cd3ff");
        assert_eq!(KeyForm::NamedSha1.key_name("public|private"), Some("public"));
        assert!(KeyForm::NamedSha1.decode("private").is_err());
        assert!(KeyForm::NamedSha1.decode("|private").is_err());
    }

    #[test]
    fn a_public_key_may_lose_its_lines_and_nothing_else() {
        let der = KeyForm::Public.decode("-----BEGIN PUBLIC KEY-----\nAAEC\nAwQF\n-----END PUBLIC KEY-----\n").unwrap();
        assert_eq!(der.as_slice(), [0, 1, 2, 3, 4, 5]);
        let one_line = KeyForm::Public.decode("-----BEGIN PUBLIC KEY-----\\nAAECAwQF\\n-----END PUBLIC KEY-----");
        assert_eq!(one_line.unwrap(), der);
        assert_eq!(KeyForm::Public.decode("AAECAwQF").unwrap(), der);
        assert!(KeyForm::Public.decode("-----BEGIN PRIVATE KEY-----\nAAEC\n-----END PRIVATE KEY-----").is_err());
    }
}
