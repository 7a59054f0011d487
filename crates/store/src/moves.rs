//! A run's history: every move, in order, bounded. Both stores keep it through here; `SQLite` as one small blob in the
//! run's row, because a table of moves would cost two more inserts for every run.
//!
//! A record is: state, attempt, milliseconds since the move before (both as LEB128, the second in zigzag), length of
//! `why` plus one (0: none), `why`.

use doorbell_core::Timestamp;
use doorbell_core::run::{Move, State};

/// A very long history (a run that snoozes for months) keeps its beginning …
const FIRST_KEPT: usize = 20;
/// … and its end.
const LAST_KEPT: usize = 180;
/// No reason is longer, in bytes.
const WHY_BYTES_MAX: usize = 500;

/// Adds a move; drops the oldest of the middle once there are too many.
pub(crate) fn push(moves: &mut Vec<Move>, mut next: Move) {
    if let Some(why) = &mut next.why {
        cut(why, WHY_BYTES_MAX);
    }
    moves.push(next);
    if moves.len() > FIRST_KEPT + LAST_KEPT {
        moves.remove(FIRST_KEPT);
    }
}

/// Shortens a text to at most `bytes`, at a character's edge.
pub(crate) fn cut(text: &mut String, bytes: usize) {
    if text.len() > bytes {
        let mut end = bytes;
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        text.truncate(end);
    }
}

/// The moves as one blob.
pub(crate) fn encode(moves: &[Move]) -> Vec<u8> {
    let mut out = Vec::with_capacity(moves.len() * 12);
    let mut before = 0i64;
    for m in moves {
        out.push(m.to.code());
        put(&mut out, u64::from(m.attempt));
        let delta = m.at.millis().wrapping_sub(before);
        before = m.at.millis();
        put(&mut out, ((delta << 1) ^ (delta >> 63)).cast_unsigned());
        match &m.why {
            None => put(&mut out, 0),
            Some(why) => {
                put(&mut out, why.len() as u64 + 1);
                out.extend_from_slice(why.as_bytes());
            }
        }
    }
    out
}

/// Reads what [`encode`] wrote; none if it is something else.
pub(crate) fn decode(mut blob: &[u8]) -> Option<Vec<Move>> {
    let mut moves = Vec::new();
    let mut before = 0i64;
    while let Some((&state, rest)) = blob.split_first() {
        blob = rest;
        let to = State::from_code(state)?;
        let attempt = u32::try_from(take(&mut blob)?).ok()?;
        let zigzag = take(&mut blob)?;
        before = before.wrapping_add((zigzag >> 1).cast_signed() ^ -((zigzag & 1).cast_signed()));
        let why = match take(&mut blob)? {
            0 => None,
            len => {
                let len = usize::try_from(len - 1).ok()?;
                let (text, rest) = blob.split_at_checked(len)?;
                blob = rest;
                Some(std::str::from_utf8(text).ok()?.to_owned())
            }
        };
        moves.push(Move { at: Timestamp::from_millis(before), to, attempt, why });
    }
    Some(moves)
}

fn put(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push((value & 0x7f) as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

fn take(blob: &mut &[u8]) -> Option<u64> {
    let mut value = 0u64;
    for shift in (0..64).step_by(7) {
        let (&byte, rest) = blob.split_first()?;
        *blob = rest;
        value |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Some(value);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn a_move(at: i64, why: Option<&str>) -> Move {
        Move { at: Timestamp::from_millis(at), to: State::Queued, attempt: 3, why: why.map(Into::into) }
    }

    #[test]
    fn a_very_long_history_keeps_its_beginning_and_its_end() {
        let mut moves = Vec::new();
        for at in 0..1000 {
            push(&mut moves, a_move(at, None));
        }
        assert_eq!(moves.len(), 200);
        assert_eq!(moves[19].at.millis(), 19);
        assert_eq!(moves[20].at.millis(), 820);
        assert_eq!(moves[199].at.millis(), 999);
    }

    proptest! {
        #[test]
        fn a_history_reads_back(list in prop::collection::vec((any::<i64>(), any::<u32>(), 0u8..6, any::<Option<String>>()), 0..30)) {
            let moves: Vec<_> = list.into_iter().map(|(at, attempt, state, why)| Move {
                at: Timestamp::from_millis(at), to: State::from_code(state).unwrap(), attempt, why,
            }).collect();
            prop_assert_eq!(decode(&encode(&moves)), Some(moves));
        }

        #[test]
        fn no_blob_makes_the_reader_panic(blob in prop::collection::vec(any::<u8>(), 0..100)) {
            let _ = decode(&blob);
        }
    }
}
