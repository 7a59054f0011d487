//! The signatures that a request presents, read from their place into room on the stack. Called by `verify`.

use super::refusal::Refusal;
use super::scheme::{Signed, Tag, TimestampPlace};

/// The most signatures that are looked at in one request. Senders write two or three while a secret is changed; more
/// would let a stranger make us compute.
const SIGNATURES_MAX: usize = 16;

/// The signatures that a request presents, decoded on the stack.
pub(super) struct Presented<'r> {
    signed: &'r Signed,
    tags: [Tag; SIGNATURES_MAX],
    count: usize,
    /// The timestamp in the list, if it stands there.
    pub(super) timestamp: Option<&'r [u8]>,
    /// Whether something without the prefix was passed over.
    passed_over: bool,
}

impl<'r> Presented<'r> {
    pub(super) fn new(signed: &'r Signed) -> Self {
        Self { signed, tags: [[0; 72]; SIGNATURES_MAX], count: 0, timestamp: None, passed_over: false }
    }

    /// Reads one value: a list of items or one signature.
    pub(super) fn read(&mut self, value: &'r [u8]) -> Result<(), Refusal> {
        let signed = self.signed;
        let Some(separator) = &signed.separator else { return self.item(value) };
        let time = signed.timestamp.as_ref().and_then(|t| match &t.place {
            TimestampPlace::InSignature(prefix) => Some(prefix.as_bytes()),
            TimestampPlace::At(_) => None,
        });
        let mut rest = value;
        loop {
            let end = memchr::memmem::find(rest, separator.as_bytes());
            let item = &rest[..end.unwrap_or(rest.len())];
            match time.and_then(|prefix| item.strip_prefix(prefix)) {
                Some(_) if self.timestamp.is_some() => return Err(self.malformed("several timestamps")),
                Some(timestamp) => self.timestamp = Some(timestamp),
                None => self.item(item)?,
            }
            match end {
                Some(end) => rest = &rest[end + separator.len()..],
                None => return Ok(()),
            }
        }
    }

    /// Takes a signature in; what has another prefix is passed over, for lists carry other versions too.
    fn item(&mut self, item: &[u8]) -> Result<(), Refusal> {
        if item.is_empty() {
            return Ok(());
        }
        let Some(encoded) = item.strip_prefix(self.signed.prefix.as_bytes()) else {
            self.passed_over = true;
            return Ok(());
        };
        let Some(tag) = self.tags.get_mut(self.count) else {
            return Err(self.malformed("more than 16 signatures"));
        };
        // With the right prefix it claims to be a signature of this kind, and then it has to be one.
        if self.signed.encoding.decode(encoded, tag) != Some(self.signed.algorithm.tag_len()) {
            return Err(self.malformed("something of another length or spelling"));
        }
        self.count += 1;
        Ok(())
    }

    /// There has to be at least one signature.
    pub(super) fn check(&self) -> Result<(), Refusal> {
        match self.count {
            0 if self.passed_over => Err(self.malformed("something without that prefix")),
            0 if self.timestamp.is_some() => Err(self.malformed("a timestamp alone")),
            0 => Err(Refusal::SignatureMissing(self.signed.place.clone())),
            _ => Ok(()),
        }
    }

    /// Whether one of them fits.
    pub(super) fn any(&self, mut fits: impl FnMut(&[u8]) -> bool) -> bool {
        let length = self.signed.algorithm.tag_len();
        self.tags[..self.count].iter().any(|tag| fits(&tag[..length]))
    }

    pub(super) fn malformed(&self, seen: &'static str) -> Refusal {
        let Signed { place, prefix, encoding, algorithm, .. } = self.signed;
        let after = if prefix.is_empty() { String::new() } else { format!("`{prefix}` and ") };
        let wanted = format!("{after}{} bytes of {}", algorithm.tag_len(), encoding.name());
        Refusal::SignatureMalformed { place: place.clone(), wanted: wanted.into(), seen }
    }
}
