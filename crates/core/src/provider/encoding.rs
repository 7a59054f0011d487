//! How senders write bytes and times as text. Used by `scheme`, `presented`, `jwt` and `sign`; the words are a preset's.
//!
//! Reading is strict, for what is read here is about to be trusted: one spelling for one value, and no room for another.

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, STANDARD_PAD_INDIFFERENT, URL_SAFE_NO_PAD, URL_SAFE_PAD_INDIFFERENT};

use crate::Timestamp;

/// How bytes are written as text.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Encoding {
    /// Lower case; capitals are refused, as the senders' own SDKs refuse them.
    Hex,
    /// In capitals or not, for senders that write capitals or whose SDK takes both.
    HexAnyCase,
    /// With padding.
    Base64,
    /// With `-` and `_`, padding or none.
    Base64Url,
}

/// How a timestamp is written.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum TimeUnit {
    /// Seconds since 1970, digits only.
    Seconds,
    /// Milliseconds since 1970, digits only.
    Millis,
    /// One or the other, told by its size: milliseconds from 10^11 on, which as seconds is the year 5138.
    SecondsOrMillis,
    /// RFC 3339.
    Rfc3339,
    /// `Tue, 15 Nov 1994 08:12:31 GMT` (RFC 9110, section 5.6.7).
    HttpDate,
}

/// The words of a preset's `encoding`.
pub(super) const ENCODINGS: [(&str, Encoding); 4] = [
    ("hex", Encoding::Hex),
    ("hex_any_case", Encoding::HexAnyCase),
    ("base64", Encoding::Base64),
    ("base64url", Encoding::Base64Url),
];
/// The words of a preset's `timestamp_unit`.
pub(super) const TIME_UNITS: [(&str, TimeUnit); 5] = [
    ("s", TimeUnit::Seconds),
    ("ms", TimeUnit::Millis),
    ("s_or_ms", TimeUnit::SecondsOrMillis),
    ("rfc3339", TimeUnit::Rfc3339),
    ("http_date", TimeUnit::HttpDate),
];

/// Room for the longest signature but RSA's (72 bytes), which is also what base64's decoder wants: whole groups of three.
pub(super) type Tag = [u8; 72];

impl Encoding {
    /// Reads `text` into `tag` and gives the number of bytes; none if it is written otherwise or is too long.
    pub(super) fn decode(self, text: &[u8], tag: &mut Tag) -> Option<usize> {
        match self {
            Self::Hex | Self::HexAnyCase => {
                let half = text.len() / 2;
                let is_lower = text.iter().all(|b| !b.is_ascii_uppercase());
                let room = tag.get_mut(..half)?;
                ((is_lower || self == Self::HexAnyCase) && hex::decode_to_slice(text, room).is_ok()).then_some(half)
            }
            Self::Base64 => STANDARD.decode_slice(text, tag).ok(),
            Self::Base64Url => URL_SAFE_PAD_INDIFFERENT.decode_slice(text, tag).ok(),
        }
    }

    /// As [`Encoding::decode`], for what may be longer (RSA). `text` is bounded by the request's head or body.
    pub(super) fn decode_long(self, text: &[u8]) -> Option<Vec<u8>> {
        match self {
            Self::Hex if text.iter().any(u8::is_ascii_uppercase) => None,
            Self::Hex | Self::HexAnyCase => hex::decode(text).ok(),
            Self::Base64 => STANDARD.decode(text).ok(),
            Self::Base64Url => URL_SAFE_PAD_INDIFFERENT.decode(text).ok(),
        }
    }

    pub(super) fn encode(self, bytes: &[u8]) -> String {
        match self {
            Self::Hex | Self::HexAnyCase => hex::encode(bytes),
            Self::Base64 => STANDARD.encode(bytes),
            Self::Base64Url => URL_SAFE_NO_PAD.encode(bytes),
        }
    }

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Hex => "lower-case hex",
            Self::HexAnyCase => "hex",
            Self::Base64 => "base64",
            Self::Base64Url => "base64url",
        }
    }
}

/// The bytes of base64 text, padded or not: for keys and secrets, which people copy.
pub(super) fn lenient_base64(text: &str) -> Option<Vec<u8>> {
    STANDARD_PAD_INDIFFERENT.decode(text).ok()
}

impl TimeUnit {
    /// The time that `text` writes; strict, for it is about to be trusted.
    pub(super) fn parse(self, text: &[u8]) -> Option<Timestamp> {
        const MILLIS_FROM: i64 = 100_000_000_000;
        let text = std::str::from_utf8(text).ok()?;
        let number = || {
            let digits = (1..=16).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_digit());
            if digits { text.parse::<i64>().ok() } else { None }
        };
        match self {
            Self::Seconds => number().map(Timestamp::from_secs),
            Self::Millis => number().map(Timestamp::from_millis),
            Self::SecondsOrMillis => number().map(|n| match n {
                MILLIS_FROM.. => Timestamp::from_millis(n),
                _ => Timestamp::from_secs(n),
            }),
            Self::Rfc3339 => Timestamp::parse(text),
            Self::HttpDate => {
                let zoned = jiff::fmt::rfc2822::parse(text).ok()?;
                Some(Timestamp::from_millis(zoned.timestamp().as_millisecond()))
            }
        }
    }

    pub(super) fn write(self, at: Timestamp) -> String {
        match self {
            Self::Seconds | Self::SecondsOrMillis => at.secs().to_string(),
            Self::Millis => at.millis().to_string(),
            Self::Rfc3339 => at.to_string(),
            Self::HttpDate => {
                let at = jiff::Timestamp::from_millisecond(at.millis()).unwrap_or_default();
                jiff::fmt::rfc2822::DateTimePrinter::new().timestamp_to_rfc9110_string(&at).unwrap_or_default()
            }
        }
    }

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Seconds => "seconds since 1970",
            Self::Millis => "milliseconds since 1970",
            Self::SecondsOrMillis => "seconds or milliseconds since 1970",
            Self::Rfc3339 => "an RFC 3339 time",
            Self::HttpDate => "a date as HTTP writes it",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signature_has_one_spelling() {
        let mut tag = [0; 72];
        assert_eq!(Encoding::Hex.decode(b"00ff", &mut tag), Some(2));
        assert_eq!(Encoding::Hex.decode(b"00FF", &mut tag), None);
        assert_eq!(Encoding::HexAnyCase.decode(b"00Ff", &mut tag), Some(2));
        assert_eq!(Encoding::Hex.decode(b"0", &mut tag), None);
        assert_eq!(Encoding::Base64.decode(b"AAA=", &mut tag), Some(2));
        assert_eq!(Encoding::Base64.decode(b"AAA", &mut tag), None);
        assert_eq!(Encoding::Base64.decode(b"AB==", &mut tag), None, "spare bits must be zero");
        assert_eq!(Encoding::Base64Url.decode(b"-_8", &mut tag), Some(2));
        assert_eq!(Encoding::Hex.decode(&[b'0'; 4096], &mut tag), None);
        assert_eq!(Encoding::Base64.decode(&[b'A'; 400], &mut tag), None);
    }

    #[test]
    fn a_timestamp_is_digits_and_nothing_else() {
        let seconds = |t: &[u8]| TimeUnit::Seconds.parse(t).map(Timestamp::secs);
        assert_eq!(seconds(b"1760000000"), Some(1_760_000_000));
        for bad in [b"".as_slice(), b"+1", b"-1", b" 1", b"1.0", b"1e9", b"0x1", b"99999999999999999999", b"\xff"] {
            assert_eq!(seconds(bad), None, "{bad:?}");
        }
        assert_eq!(TimeUnit::Millis.parse(b"1760000000123").map(Timestamp::millis), Some(1_760_000_000_123));
        assert!(TimeUnit::Rfc3339.parse(b"2025-10-09T08:53:20.123456789Z").is_some());
    }

    #[test]
    fn a_time_reads_back_as_it_was_written() {
        let at = Timestamp::from_secs(1_760_000_000);
        for (word, unit) in TIME_UNITS {
            assert_eq!(unit.parse(unit.write(at).as_bytes()), Some(at), "{word}");
        }
        assert_eq!(TimeUnit::HttpDate.parse(b"Thu, 09 Oct 2025 08:53:20 GMT"), Some(at));
        assert_eq!(TimeUnit::SecondsOrMillis.parse(b"1760000000000"), Some(at));
    }
}
