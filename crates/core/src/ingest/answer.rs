//! What the door answers, before it takes the shape of a wire: the native ingress and each wire contract dress it in
//! their own status and body.

use std::borrow::Cow;
use std::time::Duration;

use crate::decision::{Check, Kind};
use crate::ids::{EventId, Name, RunId};
use crate::provider;
use crate::run::State;

/// The door's answer to one request.
#[derive(Debug)]
pub enum Answer {
    /// Verified, committed: one entry for each event of the request, in their order.
    Taken(Vec<Taken>),
    /// A provider's proof-of-endpoint request; answer exactly this.
    Handshake(provider::Answer),
    /// No.
    Refused(Refused),
}

/// What became of one event.
#[derive(Clone, Debug)]
pub enum Taken {
    /// Queued.
    Accepted {
        /// The event.
        event: EventId,
        /// Trigger and run.
        runs: Vec<(Name, RunId)>,
    },
    /// Seen before.
    Duplicate {
        /// The first one.
        event: EventId,
        /// Trigger, run and where it stands now.
        runs: Vec<(Name, RunId, State)>,
    },
    /// Stored, but nobody wanted it.
    Ignored {
        /// The event.
        event: EventId,
        /// `filter`, `no_trigger`, `filter_error`, `own_actor` or `storm`.
        reason: &'static str,
    },
}

/// A no, with all that its decision says.
#[derive(Clone, Debug)]
pub struct Refused {
    /// Which no; the wire's status follows from it.
    pub no: No,
    /// A stable word for programs.
    pub code: Cow<'static, str>,
    /// A sentence for the owner; the sender is told [`No::told`] instead.
    pub reason: Cow<'static, str>,
    /// Every check made, in order.
    pub checks: Vec<Check>,
}

/// The ways to say no.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum No {
    /// The body cannot be read: 400.
    Unreadable,
    /// The body is too long: 413.
    TooLarge,
    /// The media type or content coding is not taken: 415.
    MediaType,
    /// A transfer coding other than chunked: 501 (RFC 9112, section 6.1).
    TransferCoding,
    /// Signature or credential: 401.
    NotVerified,
    /// Address: 403.
    AddressNotAllowed,
    /// No such way in, or it is switched off: 404.
    NotFound,
    /// Not a method that this way in takes: 405.
    Method,
    /// Handed on from agent to agent too often: 508 (RFC 5842, section 7.2).
    Loop,
    /// Too many requests: 429.
    Limited(Duration),
    /// A full trigger that rejects: 429.
    Full(Duration),
    /// Queue full, store unable to write, stopping: 503.
    Unavailable(Duration),
}

impl No {
    /// The HTTP status of the native ingress.
    pub fn status(self) -> u16 {
        match self {
            Self::Unreadable => 400,
            Self::NotVerified => 401,
            Self::AddressNotAllowed => 403,
            Self::NotFound => 404,
            Self::Method => 405,
            Self::TooLarge => 413,
            Self::MediaType => 415,
            Self::TransferCoding => 501,
            Self::Limited(_) | Self::Full(_) => 429,
            Self::Loop => 508,
            Self::Unavailable(_) => 503,
        }
    }

    /// When to try again, for `Retry-After`.
    pub fn retry_after(self) -> Option<Duration> {
        match self {
            Self::Limited(wait) | Self::Full(wait) | Self::Unavailable(wait) => Some(wait),
            _ => None,
        }
    }

    /// The decision it makes.
    pub fn kind(self) -> Kind {
        match self {
            Self::Unreadable | Self::TooLarge | Self::MediaType | Self::TransferCoding => Kind::Unreadable,
            Self::NotVerified | Self::AddressNotAllowed | Self::NotFound | Self::Method | Self::Loop => Kind::Rejected,
            Self::Limited(_) | Self::Full(_) => Kind::Limited,
            Self::Unavailable(_) => Kind::Unavailable,
        }
    }

    /// What the sender is told where the cause must not be: one text for all causes of the same status.
    pub fn told(self) -> &'static str {
        match self {
            Self::Unreadable => "the request cannot be read; do not send it again as it is",
            Self::TooLarge => "the body is too large; do not send it again as it is",
            Self::MediaType => {
                "this media type or content encoding is not taken; send uncompressed JSON, a form or text"
            }
            Self::TransferCoding => "this transfer coding is not taken; send plain chunks or a length",
            Self::NotVerified => "the request could not be verified",
            Self::AddressNotAllowed => "this address may not send here",
            Self::NotFound => "there is nothing here",
            Self::Method => "send a POST",
            Self::Loop => "handed on from agent to agent too often; do not send it again",
            Self::Limited(_) => "too many requests; send it again later",
            Self::Full(_) => "too many runs at once; send it again later",
            Self::Unavailable(_) => "not possible right now; send it again later",
        }
    }

    /// The stable word the sender is told.
    pub fn code(self) -> &'static str {
        match self {
            Self::Unreadable => "unreadable",
            Self::TooLarge => "too_large",
            Self::MediaType => "unsupported_media_type",
            Self::TransferCoding => "unsupported_transfer_coding",
            Self::NotVerified => "not_verified",
            Self::AddressNotAllowed => "address_not_allowed",
            Self::NotFound => "not_found",
            Self::Method => "method_not_allowed",
            Self::Loop => "too_many_hops",
            Self::Limited(_) => "rate_limited",
            Self::Full(_) => "too_many_runs",
            Self::Unavailable(_) => "unavailable",
        }
    }
}
