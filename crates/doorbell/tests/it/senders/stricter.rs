//! What senders' own SDKs let in and we refuse, with the reason. The list is exact: an SDK that accepts anything else that was
//! changed, or that refuses one of these by now, fails the test. Used by `senders`.

use std::collections::BTreeSet;

/// Why we refuse it, what was done, and whose SDKs accept it.
const STRICTER: [(&str, &[&str], &[&str]); 10] = [
    (
        "they look for old signatures alone: one for next year is good for a year",
        &["signed for the future"],
        &["contentful", "discord-interactions", "mux", "paddle", "slack", "stripe", "workos"],
    ),
    ("it looks at no time at all", &["signed too long ago"], &["discord-interactions"]),
    (
        "they read a number as JavaScript does, which stops at what is none, and sign what they read",
        &["a sign before the time", "a zero before the time", "the time with a fraction"],
        &["contentful", "mux", "paddle", "stripe", "svix", "standard-webhooks"],
    ),
    (
        "of several times one counts, and another reader may take the other",
        &["the time twice"],
        &["contentful", "mux", "paddle", "stripe", "svix", "standard-webhooks"],
    ),
    (
        "as many signatures as fit into a header are looked at",
        &["16 wrong ones first"],
        &["mux", "paddle", "stripe", "svix", "standard-webhooks"],
    ),
    ("a list with several times", &["the signature twice"], &["mux", "paddle", "stripe", "workos"]),
    (
        "node's base64 passes over what is none and stops at the padding",
        &[
            "a digit behind the signature",
            "quotes around the signature",
            "a list where there is one signature",
            "the right one, then a wrong one",
            "the signature twice",
        ],
        &["line", "sendgrid"],
    ),
    (
        "hex is read in capitals too, which Discord never writes",
        &["capitals in the signature"],
        &["discord-interactions"],
    ),
    ("a byte order mark is lost where bytes become text", &["a byte order mark before the body"], &["stripe"]),
    (
        "it signs the body as it prints it after parsing, and takes any name for the signature's",
        &[
            "a blank behind the body",
            "a line feed behind the body",
            "the accents escaped",
            "the prefix in capitals",
            "the prefix of another version",
            "the test scheme alone",
        ],
        &["workos"],
    ),
];

/// Compares what the SDKs accept, by sender and deed, with the list.
pub(super) fn compare(accepted: &BTreeSet<(&str, &str)>) {
    let each = |(_, deeds, senders): &(&'static str, &'static [&'static str], &'static [&'static str])| {
        let (deeds, senders) = (*deeds, *senders);
        deeds.iter().flat_map(move |deed| senders.iter().map(move |sender| (*sender, *deed)))
    };
    let known: BTreeSet<(&str, &str)> = STRICTER.iter().flat_map(each).collect();
    let more: Vec<_> = accepted.difference(&known).collect();
    assert!(more.is_empty(), "an SDK accepts what was changed: {more:#?}");
    let less: Vec<_> = known.difference(accepted).collect();
    assert!(less.is_empty(), "the SDKs refuse by now: {less:#?}");
}
