//! A secret: a text that verifies a sender, signs what we send or opens the API. It never prints, never serialises and
//! is wiped from memory when dropped; whoever needs the text has to say so with [`Secret::expose`].

use secrecy::{ExposeSecret, SecretString};
use subtle::ConstantTimeEq;

/// A secret text.
#[derive(Clone)]
pub struct Secret(SecretString);

impl Secret {
    /// Takes the text over.
    pub fn new(text: impl Into<String>) -> Self {
        Self(SecretString::from(text.into()))
    }

    /// The text itself, for a signature or a comparison; never for a log.
    pub fn expose(&self) -> &str {
        self.0.expose_secret()
    }

    /// Whether `offered` is this secret, in a time that depends only on the lengths.
    pub fn matches(&self, offered: &[u8]) -> bool {
        self.expose().as_bytes().ct_eq(offered).into()
    }
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secret(…)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_does_not_print() {
        assert_eq!(format!("{:?}", Secret::new("hunter2")), "Secret(…)");
    }

    #[test]
    fn only_the_whole_text_matches() {
        let s = Secret::new("hunter2");
        assert!(s.matches(b"hunter2"));
        assert!(!s.matches(b"hunter"));
        assert!(!s.matches(b"hunter22"));
        assert!(!s.matches(b""));
    }
}
