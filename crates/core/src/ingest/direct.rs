//! Events that an authorised caller puts in: through the API, or from the program that embeds the library.

use std::sync::Arc;

use bytes::Bytes;

use super::dedup::Vouched;
use super::{Early, No, Refused, Taken, UNAVAILABLE_RETRY, checks, commit, refuse, route};
use crate::decision::Check;
use crate::event::Facts;
use crate::house::House;
use crate::payload::Body;
use crate::provider::Labels;
use crate::source::Source;

/// Commits events that came in through the API or the library, where the caller's right was checked already.
///
/// # Errors
/// What the store says; nothing was stored then.
pub async fn admit_direct(house: &House, source: &Arc<Source>, event: DirectEvent) -> Result<Taken, DirectError> {
    if let Err(early) = checks::check_hop_count(source, event.hops, &mut Vec::new()) {
        return Err(DirectError::Refused(refuse(house, Some(&source.name), None, *early, Vec::new()).await));
    }
    let body = Body::read(event.data, event.content_type.as_deref(), &crate::payload::PayloadRule::default())?;
    let view = body.project(&source.paths)?;
    let checks = vec![Check::passed("direct").seeing("an authorised caller put it in")];
    let facts = Facts {
        sender_id: event.id.clone(),
        actor: event.actor.clone(),
        time: event.time,
        verified_by: Some("direct".into()),
        checks,
        hops: event.hops,
        ..Facts::default()
    };
    let labels = Labels {
        id: event.id,
        id_signed: false,
        event_type: Some(event.event_type),
        subject: event.subject,
        actor: event.actor,
        time: None,
    };
    let arrival = route::Arrival {
        labels,
        facts,
        as_sent: body.raw().clone(),
        whole: None,
        body,
        view,
        vouched: Vouched::Nothing,
        remote: None,
    };
    let new = route::event(house, source, arrival, event.idempotency_key.as_deref());
    let said = commit(house, source, vec![new]).await.and_then(|mut taken| {
        let broken =
            || Early::verified(No::Unavailable(UNAVAILABLE_RETRY), "store_unavailable", "the store gave no receipt");
        taken.pop().ok_or_else(broken)
    });
    match said {
        Ok(taken) => Ok(taken),
        Err(early) => Err(DirectError::Refused(refuse(house, Some(&source.name), None, *early, Vec::new()).await)),
    }
}

/// An event that an authorised caller puts in.
#[derive(Clone, Debug, Default)]
pub struct DirectEvent {
    /// The caller's own id of it; deduplicated on.
    pub id: Option<String>,
    /// Its type.
    pub event_type: String,
    /// What it is about.
    pub subject: Option<String>,
    /// Who did it.
    pub actor: Option<String>,
    /// When it happened.
    pub time: Option<crate::clock::Timestamp>,
    /// Its data.
    pub data: Bytes,
    /// How to read the data; none: by its look.
    pub content_type: Option<String>,
    /// Deduplicated on, if there is no id.
    pub idempotency_key: Option<String>,
    /// How many runs it comes from ([`crate::loop_guard::hops`]).
    pub hops: u32,
}

/// Why an event was not put in.
#[derive(Debug, thiserror::Error)]
pub enum DirectError {
    /// The data cannot be read.
    #[error(transparent)]
    Unreadable(#[from] crate::payload::Unreadable),
    /// Queue full, or the store cannot write.
    #[error("{}", .0.reason)]
    Refused(Refused),
}
