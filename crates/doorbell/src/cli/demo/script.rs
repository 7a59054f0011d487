//! What the demo sends and what should become of it, as data.

/// One delivery.
#[derive(Clone, Copy, Debug)]
pub(super) struct Act {
    /// What it is, for people.
    pub title: &'static str,
    /// The source it goes to.
    pub source: &'static str,
    /// What is sent.
    pub what: What,
    /// What should become of it.
    pub becomes: Becomes,
}

/// What is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum What {
    /// A fresh delivery.
    Fresh,
    /// The very first one again, as a sender does that missed the answer.
    FirstAgain,
    /// A fresh one, signed with a secret that its sender does not have.
    Forged,
    /// A fresh one that no trigger wants: a closed pull request.
    Unwanted,
}

/// What should become of a delivery.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Becomes {
    /// 202, and a run that succeeds with this many attempts.
    Run {
        /// Attempts.
        attempts: u64,
        /// What its result begins with.
        result: &'static str,
    },
    /// 401, and no run.
    Rejected,
    /// 200 with the first one's ids, and no second run.
    Duplicate,
    /// 200, stored, and no run.
    Ignored,
}

impl Becomes {
    /// The answer's status.
    pub(super) fn status(self) -> u16 {
        match self {
            Self::Run { .. } => 202,
            Self::Rejected => 401,
            Self::Duplicate | Self::Ignored => 200,
        }
    }

    /// The decision.
    pub(super) fn decision(self) -> &'static str {
        match self {
            Self::Run { .. } => "accepted",
            Self::Rejected => "rejected",
            Self::Duplicate => "duplicate",
            Self::Ignored => "ignored",
        }
    }
}

/// The whole demo, in its order.
pub(super) const SCRIPT: &[Act] = &[
    Act {
        title: "GitHub pull request",
        source: "github",
        what: What::Fresh,
        becomes: Becomes::Run { attempts: 1, result: "Reviewed octo-shop/payments#1347" },
    },
    Act {
        title: "Stripe failed payment",
        source: "failed-payments",
        what: What::Fresh,
        becomes: Becomes::Run { attempts: 2, result: "Wrote to the customer" },
    },
    Act {
        title: "Slack mention",
        source: "slack-mentions",
        what: What::Fresh,
        becomes: Becomes::Run { attempts: 1, result: "Answered in C123ABC456" },
    },
    Act {
        title: "Standard Webhooks",
        source: "new-customers",
        what: What::Fresh,
        becomes: Becomes::Run { attempts: 1, result: "Prepared a welcome" },
    },
    Act { title: "GitHub, forged", source: "github", what: What::Forged, becomes: Becomes::Rejected },
    Act { title: "GitHub, sent again", source: "github", what: What::FirstAgain, becomes: Becomes::Duplicate },
    Act { title: "GitHub, not wanted", source: "github", what: What::Unwanted, becomes: Becomes::Ignored },
];

/// How many runs there should be at the end.
pub(super) fn runs() -> usize {
    SCRIPT.iter().filter(|act| matches!(act.becomes, Becomes::Run { .. })).count()
}
