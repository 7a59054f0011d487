//! The signatures that a request presents, read from their places into room on the stack. Called by `verify`.

use super::encoding::Tag;
use super::refusal::Refusal;
use super::scheme::{Algorithm, PublicAlgorithm, Signed, TimestampPlace};
use super::select::Place;

/// The most signatures that are looked at in one request. Senders write two or three while a secret is changed; more
/// would let a stranger make us compute.
const SIGNATURES_MAX: usize = 16;

/// The most RSA signatures: each costs far more than an HMAC.
const LONG_SIGNATURES_MAX: usize = 4;

/// The signatures that a request presents, decoded on the stack (RSA's, which are long, on the heap).
pub(super) struct Presented<'r> {
    signed: &'r Signed,
    tags: [Tag; SIGNATURES_MAX],
    lengths: [usize; SIGNATURES_MAX],
    count: usize,
    long: Vec<Vec<u8>>,
    /// The timestamp in the list, if it stands there.
    pub(super) timestamp: Option<&'r [u8]>,
    /// Whether something without the prefix was passed over.
    passed_over: bool,
}

impl<'r> Presented<'r> {
    pub(super) fn new(signed: &'r Signed) -> Self {
        Self {
            signed,
            tags: [[0; 72]; SIGNATURES_MAX],
            lengths: [0; SIGNATURES_MAX],
            count: 0,
            long: Vec::new(),
            timestamp: None,
            passed_over: false,
        }
    }

    /// Reads one value from `place`: a list of items or one signature.
    pub(super) fn read(&mut self, place: &Place, value: &'r [u8]) -> Result<(), Refusal> {
        let signed = self.signed;
        let Some(separator) = &signed.separator else { return self.item(place, value) };
        let time = signed.timestamp.as_ref().and_then(|t| match &t.place {
            TimestampPlace::InSignature(prefix) => Some(prefix.as_bytes()),
            TimestampPlace::At(_) => None,
        });
        let mut rest = value;
        loop {
            let end = memchr::memmem::find(rest, separator.as_bytes());
            let item = &rest[..end.unwrap_or(rest.len())];
            // Without a prefix the time is the first item.
            let is_time = |prefix: &&[u8]| !prefix.is_empty() || self.timestamp.is_none();
            match time.filter(is_time).and_then(|prefix| item.strip_prefix(prefix)) {
                Some(_) if self.timestamp.is_some() => return Err(self.malformed(place, "several timestamps")),
                Some(timestamp) => self.timestamp = Some(timestamp),
                None => self.item(place, item)?,
            }
            match end {
                Some(end) => rest = &rest[end + separator.len()..],
                None => return Ok(()),
            }
        }
    }

    /// Takes a signature in; what has another prefix is passed over, for lists carry other versions too.
    fn item(&mut self, place: &Place, item: &[u8]) -> Result<(), Refusal> {
        let signed = self.signed;
        if item.is_empty() || signed.skip.iter().any(|start| item.starts_with(start.as_bytes())) {
            return Ok(());
        }
        let Some(mut encoded) = item.strip_prefix(signed.prefix.as_bytes()) else {
            self.passed_over = true;
            return Ok(());
        };
        if let Some(after) = &signed.after {
            let at = memchr::memmem::find(encoded, after.as_bytes());
            let at = at.ok_or_else(|| self.malformed(place, "no name of a key before it"))?;
            encoded = &encoded[at + after.len()..];
        }
        // With the right prefix it claims to be a signature of this kind, and then it has to be one.
        let odd = "something of another length or spelling";
        if let Algorithm::Public(PublicAlgorithm::RsaSha1 | PublicAlgorithm::RsaSha256) = signed.algorithm {
            if self.long.len() == LONG_SIGNATURES_MAX {
                return Err(self.malformed(place, "more than 4 signatures"));
            }
            let bytes = signed.encoding.decode_long(encoded);
            let bytes = bytes.filter(|b| signed.algorithm.tag_len().contains(&b.len()));
            self.long.push(bytes.ok_or_else(|| self.malformed(place, odd))?);
            return Ok(());
        }
        let Some(tag) = self.tags.get_mut(self.count) else {
            return Err(self.malformed(place, "more than 16 signatures"));
        };
        match signed.encoding.decode(encoded, tag) {
            Some(length) if signed.algorithm.tag_len().contains(&length) => self.lengths[self.count] = length,
            _ => return Err(self.malformed(place, odd)),
        }
        self.count += 1;
        Ok(())
    }

    /// There has to be at least one signature.
    pub(super) fn check(&self) -> Result<(), Refusal> {
        let place = || self.signed.place();
        match self.count + self.long.len() {
            0 if self.passed_over => Err(self.malformed(place(), "something without that prefix")),
            0 if self.timestamp.is_some() => Err(self.malformed(place(), "a timestamp alone")),
            0 => Err(Refusal::SignatureMissing(place().clone())),
            _ => Ok(()),
        }
    }

    /// Whether one of them fits.
    pub(super) fn any(&self, mut fits: impl FnMut(&[u8]) -> bool) -> bool {
        let short = self.tags.iter().zip(self.lengths).take(self.count);
        short.map(|(tag, length)| &tag[..length]).chain(self.long.iter().map(Vec::as_slice)).any(&mut fits)
    }

    pub(super) fn malformed(&self, place: &Place, seen: &'static str) -> Refusal {
        let Signed { prefix, encoding, algorithm, .. } = self.signed;
        let after = if prefix.is_empty() { String::new() } else { format!("`{prefix}` and ") };
        let length = algorithm.tag_len();
        let bytes = match length.start() == length.end() {
            true => length.start().to_string(),
            false => format!("{} to {}", length.start(), length.end()),
        };
        let wanted = format!("{after}{bytes} bytes of {}", encoding.name());
        Refusal::SignatureMalformed { place: place.clone(), wanted: wanted.into(), seen }
    }
}
