//! Against events and agents that ring each other for ever: how often an event has been handed on is counted in a header,
//! and what an agent of ours did is known by its actor. Called by the door; runners send the count on.
//!
//! The third guard, the cap on runs of one lane, is a meter of the trigger (`limits`).

use http::HeaderMap;

/// Carries how many runs there were between the first event and this one.
pub const HEADER: &str = "doorbell-hops";

/// The cap where the configuration says nothing. Chains of agents on purpose are two or three long.
pub const MAX_HOPS: u32 = 8;

/// How many runs a request says it comes from; 0 without the header. What cannot be read counts as too many, and of several
/// the largest counts: whoever is in a loop must not get out of the count by a slip.
pub fn hops(headers: &HeaderMap) -> u32 {
    let read = |value: &http::HeaderValue| value.to_str().ok().and_then(|t| t.trim().parse().ok()).unwrap_or(u32::MAX);
    headers.get_all(HEADER).iter().map(read).max().unwrap_or(0)
}

/// What an agent that works on an event with so many hops sends on.
pub fn next(hops: u32) -> u32 {
    hops.saturating_add(1)
}

/// Whether this is one of the actors whose doings start nothing. The whole name, letter by letter: `my-bot` is not
/// `my-bot[bot]`, and neither is `not-my-bot`.
pub fn is_own(actor: Option<&str>, ignored: &[String]) -> bool {
    actor.is_some_and(|actor| ignored.iter().any(|own| own == actor))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hops_are_counted_and_a_slip_counts_as_too_many() {
        let of = |values: &[&str]| {
            let mut headers = HeaderMap::new();
            values.iter().for_each(|v| {
                headers.append(HEADER, v.parse().unwrap());
            });
            hops(&headers)
        };
        assert_eq!((of(&[]), of(&["0"]), of(&[" 3 "]), of(&["1", "5", "2"])), (0, 0, 3, 5));
        for bad in ["", "-1", "three", "99999999999"] {
            assert_eq!(of(&[bad]), u32::MAX, "{bad}");
        }
        assert_eq!(next(u32::MAX), u32::MAX);
    }

    #[test]
    fn an_own_actor_is_known_by_its_whole_name() {
        let own = ["my-bot[bot]".to_owned(), "U123".to_owned()];
        assert!(is_own(Some("my-bot[bot]"), &own) && is_own(Some("U123"), &own));
        for other in ["my-bot", "not-my-bot[bot]", "MY-BOT[bot]", "", "U1234"] {
            assert!(!is_own(Some(other), &own), "{other}");
        }
        assert!(!is_own(None, &own));
    }
}
