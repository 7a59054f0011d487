//! Shared lanes: an unauthenticated way in never enters a verified one's lane, or a stranger could hold up, and put words
//! before, what a verified sender has to say (`docs/semantics.md`, rule 8).

use std::collections::BTreeMap;

use doorbell_core::provider::Scheme;

use super::Cx;
use super::section::At;
use super::values::Auth;
use super::written::{SourceTable, Written};

struct Member<'w> {
    trigger: &'w str,
    lane: &'w At<String>,
    agent: Option<&'w str>,
    verified: bool,
}

pub(super) fn check(written: &Written, cx: &Cx<'_>) {
    let mut lanes: BTreeMap<&str, Vec<Member<'_>>> = BTreeMap::new();
    for named in &written.triggers {
        let table = &named.table;
        let Some(lane) = &table.trigger.lane else { continue };
        let source = match &table.trigger.source {
            Some(at) => written.sources.iter().find(|s| s.name.value == at.value).map(|s| &s.table),
            None => Some(&table.way_in),
        };
        // A source that is not there is told elsewhere.
        let Some(source) = source else { continue };
        let agent = table.trigger.agent.as_ref().map(|a| a.value.as_str());
        // How a sender is checked that cannot be read is not known.
        let way_in = table
            .trigger
            .source
            .as_ref()
            .map_or_else(|| format!("triggers.{}", named.name.value), |at| format!("sources.{}", at.value));
        if ["auth", "custom"].iter().any(|part| cx.report.is_told(&format!("{way_in}.{part}"))) {
            continue;
        }
        let member = Member { trigger: &named.name.value, lane, agent, verified: is_verified(source) };
        lanes.entry(lane.value.as_str()).or_default().push(member);
    }
    for (lane, members) in lanes {
        let Some(first) = members.first() else { continue };
        for other in &members[1..] {
            let key = format!("triggers.{}.lane", other.trigger);
            // Of one that is not there nobody knows whose runs they would be.
            let is_known = |m: &Member<'_>| m.agent.is_some_and(|a| written.agents.iter().any(|w| w.name.value == a));
            if other.agent != first.agent && is_known(first) && is_known(other) {
                let problem = format!("the lane `{lane}` joins triggers of different agents (`{}` too)", first.trigger);
                cx.report.error(
                    other.lane.offset,
                    &key,
                    problem,
                    "A lane belongs to one agent: give one of them another lane.",
                );
            }
            if other.verified != first.verified {
                let problem = format!(
                    "the lane `{lane}` joins a verified way in and an unauthenticated one (`{}` and `{}`)",
                    first.trigger, other.trigger
                );
                cx.report.error(other.lane.offset, &key, problem, "Give the unauthenticated one a lane of its own.");
            }
        }
    }
}

/// Whether senders have to prove themselves.
pub(super) fn is_verified(source: &SourceTable) -> bool {
    let none = source.auth.as_ref().is_some_and(|a| a.value == Auth::None);
    let custom = source.custom.as_ref().and_then(|c| c.value.0.as_ref());
    !none && !custom.is_some_and(|preset| matches!(preset.scheme, Scheme::None))
}
