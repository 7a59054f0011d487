//! An admission in bytes: what the ack log keeps until the tables have it, and what the rows are written from. One form
//! for both, so that what a recovery writes is what would have been written.

use std::cell::RefCell;

use doorbell_core::event::NewEvent;
use doorbell_core::ports::StoreError;
use doorbell_core::run::NewRun;
use lz4_flex::block::{CompressTable, compress_into_with_table, get_maximum_output_size};
use serde::{Deserialize, Serialize};

use super::rows::bytes_of;
use doorbell_core::decision::Kind;

/// Bodies shorter than this are not worth compressing.
const COMPRESS_FROM: usize = 128;

/// One event with its runs, borrowed from its bytes.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Entry<'e> {
    pub(super) verdict: u8,
    #[serde(borrow)]
    pub(super) source: &'e str,
    pub(super) event_type: &'e str,
    pub(super) subject: Option<&'e str>,
    /// 4 or 16 bytes, or none.
    #[serde(with = "serde_bytes")]
    pub(super) remote: &'e [u8],
    pub(super) body_format: u8,
    pub(super) body_len: u64,
    /// 0 as it came, 1 lz4 block.
    pub(super) body_codec: u8,
    /// Its fingerprints in a row; none unless it was accepted, since a redelivery of an ignored event is evaluated afresh.
    #[serde(with = "serde_bytes")]
    pub(super) prints: &'e [u8],
    /// JSON.
    #[serde(with = "serde_bytes")]
    pub(super) facts: &'e [u8],
    #[serde(with = "serde_bytes")]
    pub(super) body: &'e [u8],
    pub(super) runs: Vec<RunEntry<'e>>,
}

/// One run of an [`Entry`].
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct RunEntry<'e> {
    #[serde(borrow)]
    pub(super) agent: &'e str,
    pub(super) trigger: &'e str,
    pub(super) key: Option<&'e str>,
    pub(super) lane: Option<i64>,
    pub(super) title: &'e str,
    pub(super) due_at: i64,
    pub(super) flag: Option<&'e str>,
}

impl<'e> RunEntry<'e> {
    /// A run that is about to be made.
    pub(super) fn of(run: &'e NewRun) -> Self {
        Self {
            agent: run.agent.as_str(),
            trigger: run.trigger.as_str(),
            key: run.key.as_deref(),
            lane: run.lane.map(|lane| lane.0),
            title: &run.title,
            due_at: run.due_at.millis(),
            flag: run.flag.as_deref(),
        }
    }
}

/// Fingerprints as a row keeps them.
pub(super) fn prints_of(event: &NewEvent) -> Vec<u8> {
    let dedup = &event.dedup;
    match event.verdict {
        Kind::Accepted => dedup.key.into_iter().chain(dedup.replay.map(|(p, _)| p)).flat_map(|p| p.0).collect(),
        _ => Vec::new(),
    }
}

/// Writes an event at the end of `bytes`: compressed, its facts as JSON.
pub(super) fn encode(event: &NewEvent, bytes: Vec<u8>) -> Result<Vec<u8>, StoreError> {
    let broken = |what: String| StoreError::Corrupt(format!("an event cannot be written down: {what}"));
    let facts = serde_json::to_vec(&event.facts).map_err(|e| broken(e.to_string()))?;
    let packed = (event.body.len() >= COMPRESS_FROM).then(|| compress(&event.body)).flatten();
    let entry = Entry {
        verdict: event.verdict.code(),
        source: event.source.as_str(),
        event_type: &event.event_type,
        subject: event.subject.as_deref(),
        remote: &event.remote.map(bytes_of).unwrap_or_default(),
        body_format: event.body_format,
        body_len: event.body.len() as u64,
        body_codec: u8::from(packed.is_some()),
        prints: &prints_of(event),
        facts: &facts,
        body: packed.as_deref().unwrap_or(&event.body),
        runs: event.runs.iter().map(RunEntry::of).collect(),
    };
    postcard::to_extend(&entry, bytes).map_err(|e| broken(e.to_string()))
}

/// A body as an lz4 block; none if that is no shorter. The table of a small one is kept for the next of the thread: to make it
/// takes a third of the time.
fn compress(body: &[u8]) -> Option<Vec<u8>> {
    thread_local! {
        static TABLE: RefCell<CompressTable> = RefCell::new(CompressTable::small());
    }
    let mut packed = vec![0; get_maximum_output_size(body.len())];
    let length = if body.len() < usize::from(u16::MAX) {
        TABLE.with_borrow_mut(|table| compress_into_with_table(body, &mut packed, table))
    } else {
        compress_into_with_table(body, &mut packed, &mut CompressTable::large())
    };
    let length = length.ok().filter(|length| *length < body.len())?;
    packed.truncate(length);
    Some(packed)
}

/// Reads the events of an admission in their order.
pub(super) fn decode(mut bytes: &[u8]) -> impl Iterator<Item = Result<Entry<'_>, StoreError>> {
    std::iter::from_fn(move || {
        if bytes.is_empty() {
            return None;
        }
        match postcard::take_from_bytes(bytes) {
            Ok((entry, rest)) => {
                bytes = rest;
                Some(Ok(entry))
            }
            Err(error) => {
                bytes = &[];
                Some(Err(StoreError::Corrupt(format!("an acknowledged event cannot be read back: {error}"))))
            }
        }
    })
}

/// Unpacks a kept body.
pub(super) fn unpack(codec: u8, body: Vec<u8>, len: usize) -> rusqlite::Result<Vec<u8>> {
    match codec {
        0 => Ok(body),
        _ => lz4_flex::block::decompress(&body, len)
            .map_err(|e| super::errors::corrupt(format!("a body cannot be unpacked: {e}"))),
    }
}
