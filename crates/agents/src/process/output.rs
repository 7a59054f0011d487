//! Reads what a process writes: streams it to the sink and keeps a part, under a cap. Called by `process` for stdout and
//! stderr at the same time.
//!
//! Past the cap it keeps reading and throws away: a process that is not read blocks on its pipe and would hang to its
//! time limit.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use doorbell_core::ports::{OutputSink, Stream};
use futures::FutureExt;
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio_util::sync::CancellationToken;

/// One read, in bytes.
const PIECE: usize = 16 * 1024;
/// What may still lie in a pipe when nobody is known to hold it any more: Linux's largest for normal users
/// (pipe(7), `/proc/sys/fs/pipe-max-size`).
const PIPE_MAX: usize = 1 << 20;

/// What is kept of a stream.
#[derive(Debug, Default)]
pub(super) struct Kept {
    /// The part that is kept: the beginning up to the cap, or the end.
    pub(super) bytes: Vec<u8>,
    /// Whether the stream was longer than its cap.
    pub(super) cut: bool,
}

/// Which part of a stream is kept.
#[derive(Clone, Copy)]
pub(super) enum Keep {
    /// All up to the cap: the result.
    Beginning,
    /// So many bytes from the end: for an error message.
    End(usize),
}

/// Which stream, under which rules.
pub(super) struct Reading<'a> {
    pub(super) stream: Stream,
    /// Bytes that go to the sink.
    pub(super) cap: usize,
    pub(super) keep: Keep,
    pub(super) sink: &'a dyn OutputSink,
    /// Called when everyone who is known to hold the pipe is gone; one who is not known must not be waited for.
    pub(super) last_call: &'a CancellationToken,
    pub(super) kept: &'a Mutex<Kept>,
}

impl Reading<'_> {
    /// Reads to the end of the stream, or until `patience` after the last call.
    pub(super) async fn read(&self, pipe: Option<impl AsyncRead + Unpin>, patience: Duration) {
        let Some(mut pipe) = pipe else { return };
        let mut left = self.cap;
        let mut buffer = BytesMut::new();
        let over = async {
            self.last_call.cancelled().await;
            tokio::time::sleep(patience).await;
        };
        tokio::pin!(over);
        loop {
            buffer.reserve(PIECE);
            tokio::select! {
                read = pipe.read_buf(&mut buffer) => match read {
                    Ok(1..) => self.take(buffer.split().freeze(), &mut left).await,
                    // A pipe that cannot be read has no more to give than one that ended.
                    Ok(0) | Err(_) => return,
                },
                () = &mut over => break,
            }
        }
        let mut more = 0;
        while more < PIPE_MAX {
            buffer.reserve(PIECE);
            // Unconstrained: a task's spent budget must not look like an empty pipe.
            match tokio::task::unconstrained(pipe.read_buf(&mut buffer)).now_or_never() {
                Some(Ok(n @ 1..)) => more += n,
                _ => return,
            }
            self.take(buffer.split().freeze(), &mut left).await;
        }
    }

    async fn take(&self, mut piece: Bytes, left: &mut usize) {
        let first_cut = {
            let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
            if let Keep::End(most) = self.keep {
                kept.bytes.extend_from_slice(&piece);
                // Cut down rarely, so that each byte is moved once.
                if kept.bytes.len() > 2 * most + PIECE {
                    let start = kept.bytes.len() - most;
                    kept.bytes.drain(..start);
                }
            }
            let first_cut = piece.len() > *left && !kept.cut;
            piece.truncate(*left);
            *left -= piece.len();
            if let Keep::Beginning = self.keep {
                kept.bytes.extend_from_slice(&piece);
                if first_cut {
                    drop_broken_character(&mut kept.bytes);
                }
            }
            kept.cut |= first_cut;
            first_cut
        };
        if !piece.is_empty() {
            self.sink.write(self.stream, piece).await;
        }
        if first_cut {
            let what = if self.stream == Stream::Output { "output" } else { "log" };
            let note = format!("{what} was cut at {} bytes; the rest was read and dropped", self.cap);
            self.sink.write(Stream::Note, Bytes::from(note)).await;
        }
    }
}

/// Takes away the beginning of a UTF-8 character whose end was cut off; leaves other bytes alone.
fn drop_broken_character(bytes: &mut Vec<u8>) {
    let from = bytes.len().saturating_sub(4);
    let lead = bytes[from..].iter().rposition(|b| b & 0xc0 != 0x80).map(|at| from + at);
    if let Some(at) = lead
        && std::str::from_utf8(&bytes[at..]).is_err_and(|e| e.error_len().is_none())
    {
        bytes.truncate(at);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_character_that_was_cut_in_two_is_left_out() {
        for (given, kept) in [("aä", 1), ("a€", 1), ("a😀", 1), ("ää", 2), ("ab", 1)] {
            for cut in kept + usize::from(given == "ab")..given.len() {
                let mut bytes = given.as_bytes()[..cut].to_vec();
                drop_broken_character(&mut bytes);
                assert_eq!(bytes.len(), kept, "{given} cut at {cut}");
            }
        }
        let mut whole = "aä".as_bytes().to_vec();
        drop_broken_character(&mut whole);
        assert_eq!(whole, "aä".as_bytes());
        let mut binary = vec![0xff, 0xfe];
        drop_broken_character(&mut binary);
        assert_eq!(binary, [0xff, 0xfe]);
    }
}
