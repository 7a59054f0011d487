//! Lanes: runs with the same agent, trigger and key go one at a time and in the order of commit; lanes go in parallel.

use serde::{Deserialize, Serialize};

use crate::ids::Name;

/// 64 bits that stand for (agent, trigger, key), or for (agent, shared lane, key). Two lanes that met in one number
/// would go one after the other: slower, never wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LaneId(pub i64);

/// Which lane a run joins.
#[derive(Clone, Copy, Debug)]
pub enum LaneOf<'a> {
    /// The trigger's own lane for this key: the rule.
    Trigger(&'a Name),
    /// A lane that triggers share on purpose, by its name in the configuration.
    Shared(&'a str),
}

impl LaneId {
    /// The lane of `key`.
    pub fn of(agent: &Name, of: LaneOf<'_>, key: &str) -> Self {
        let mut hash = blake3::Hasher::new();
        hash.update(agent.as_str().as_bytes());
        match of {
            LaneOf::Trigger(name) => hash.update(b"\0t").update(name.as_str().as_bytes()),
            LaneOf::Shared(name) => hash.update(b"\0s").update(name.as_bytes()),
        };
        hash.update(b"\0").update(key.as_bytes());
        let mut first = [0; 8];
        first.copy_from_slice(&hash.finalize().as_bytes()[..8]);
        Self(i64::from_be_bytes(first))
    }
}

/// Whether the next of a lane passes a run that is not final. Both off: strict order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Passing {
    /// While it waits to be tried again, or is snoozed.
    pub on_retry: bool,
    /// While it waits for an approval or input.
    pub on_wait: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lane_is_agent_and_trigger_and_key() {
        let n = |t: &str| Name::new(t).unwrap();
        let base = LaneId::of(&n("a"), LaneOf::Trigger(&n("t")), "k");
        assert_eq!(base, LaneId::of(&n("a"), LaneOf::Trigger(&n("t")), "k"));
        assert_ne!(base, LaneId::of(&n("b"), LaneOf::Trigger(&n("t")), "k"));
        assert_ne!(base, LaneId::of(&n("a"), LaneOf::Trigger(&n("u")), "k"));
        assert_ne!(base, LaneId::of(&n("a"), LaneOf::Trigger(&n("t")), "l"));
        assert_ne!(base, LaneId::of(&n("a"), LaneOf::Shared("t"), "k"));
    }
}
