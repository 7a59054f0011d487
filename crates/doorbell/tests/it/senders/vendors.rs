//! The senders whose SDKs sign or check here: secrets, and where and how each writes its signature. Used by `senders`.

use crate::world::SECRET;

/// A sender with an SDK in `tests/senders`; its source has its preset's name.
pub(super) struct Vendor {
    pub id: &'static str,
    /// The source's secret: of senders with a private key the public one.
    pub secret: &'static str,
    /// One of the right form that no source was given.
    pub other_secret: &'static str,
    /// What the source's table says beside that. Where the preset allows less than five minutes it allows five: the tests
    /// send hundreds of requests that were signed at once.
    pub config: &'static str,
    pub shape: Shape,
}

/// Where a sender puts its signature, and how it writes it. From the senders' own documentation, not from our presets.
#[derive(Clone, Copy)]
pub(super) struct Shape {
    /// The header of the signature.
    pub signature: &'static str,
    /// What stands before the signature's own text; whatever is before this is the time, in a list.
    pub prefix: &'static str,
    /// How the bytes are written.
    pub coding: Coding,
    /// The text between signatures, if there may be several.
    pub separator: Option<&'static str>,
    /// Where the time of signing stands.
    pub time: Time,
    /// The header with the delivery's id, if the id is signed.
    pub id: Option<&'static str>,
    /// Headers that have to be there, though the signature does not cover them.
    pub requires: &'static [&'static str],
}

/// How the bytes of a signature are written.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Coding {
    Hex,
    Base64,
}

/// Where the time of signing stands.
#[derive(Clone, Copy)]
pub(super) enum Time {
    Nowhere,
    Header(&'static str),
    /// In a header that is signed, and how old it is does not count.
    Ageless(&'static str),
    /// In the signature's list, behind this.
    List(&'static str),
    /// In the body.
    Body,
}

/// The senders' own sources are five minutes wide, or are made so.
pub(super) const TOLERANCE: i64 = 300;

const HEX: Shape = Shape {
    signature: "",
    prefix: "",
    coding: Coding::Hex,
    separator: None,
    time: Time::Nowhere,
    id: None,
    requires: &[],
};
const BASE64: Shape = Shape { coding: Coding::Base64, ..HEX };
const STANDARD: Shape = Shape { separator: Some(" "), prefix: "v1,", ..BASE64 };
const FIVE_MINUTES: &str = "tolerance = \"300s\"\n";

const fn vendor(id: &'static str, secret: &'static str, other_secret: &'static str, shape: Shape) -> Vendor {
    Vendor { id, secret, other_secret, config: "", shape }
}

pub(super) static VENDORS: [Vendor; 17] = [
    vendor(
        "github",
        SECRET,
        "It's a secret to everybody",
        Shape { signature: "x-hub-signature-256", prefix: "sha256=", ..HEX },
    ),
    vendor(
        "stripe",
        "whsec_5WbX5kEWLlfzsGNjH64I8lOOqUB6e8FH",
        "whsec_5WbX5kEWLlfzsGNjH64I8lOOqUB6e8FI",
        Shape { signature: "stripe-signature", prefix: "v1=", separator: Some(","), time: Time::List("t="), ..HEX },
    ),
    vendor(
        "svix",
        "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
        "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSx",
        Shape { signature: "svix-signature", time: Time::Header("svix-timestamp"), id: Some("svix-id"), ..STANDARD },
    ),
    vendor(
        "standard-webhooks",
        "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD",
        "whsec_D2FVsBQIhrscChlQIMV+b5sSYspob7oD",
        Shape {
            signature: "webhook-signature",
            time: Time::Header("webhook-timestamp"),
            id: Some("webhook-id"),
            ..STANDARD
        },
    ),
    vendor(
        "slack",
        "8f742231b10e8888abcd99yyyzzz85a5",
        "8f742231b10e8888abcd99yyyzzz85a6",
        Shape { signature: "x-slack-signature", prefix: "v0=", time: Time::Header("x-slack-request-timestamp"), ..HEX },
    ),
    vendor(
        "twilio",
        "2b1b7ee7d7c4f8a9a0c3d5e6f7081920",
        "2b1b7ee7d7c4f8a9a0c3d5e6f7081921",
        Shape { signature: "x-twilio-signature", ..BASE64 },
    ),
    Vendor {
        config: FIVE_MINUTES,
        ..vendor(
            "workos",
            "workos-endpoint-secret-1",
            "workos-endpoint-secret-2",
            Shape {
                signature: "workos-signature",
                prefix: "v1=",
                separator: Some(", "),
                time: Time::List("t="),
                ..HEX
            },
        )
    },
    Vendor {
        config: FIVE_MINUTES,
        ..vendor(
            "contentful",
            "qzB5VfKW1uX4m3Jc0aYtNw7sEh2dLpRoGiT9kMbUxCvFy8Z6SnQjDgAeHlIrOPXW",
            "qzB5VfKW1uX4m3Jc0aYtNw7sEh2dLpRoGiT9kMbUxCvFy8Z6SnQjDgAeHlIrOPXV",
            Shape { signature: "x-contentful-signature", time: Time::Header("x-contentful-timestamp"), ..HEX },
        )
    },
    vendor(
        "sendgrid",
        "MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEmUyZGPxt6NcVxWuv/WTdko5YPOi138GdsIBadsLzT3Lo/8A8G8ZLuQfJE07IVJEZhQMkzpvSCqLskQn2U7uBAA==",
        "MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAETgNS0xUHIn6/jURC8o5r2oJNDtCvqsiykmLNt2racIiLmnEglHBeJhFujN5no8UrGvgyLf1AZBs4bS3Ip2vZuA==",
        Shape {
            signature: "x-twilio-email-event-webhook-signature",
            time: Time::Ageless("x-twilio-email-event-webhook-timestamp"),
            ..BASE64
        },
    ),
    vendor(
        "discord-interactions",
        "f2a9d9e89d709853d9f6aea0f83a24421837da7955d1fa0aa3ec39f237d18afd",
        "71333d4e3fed9fc8aae80a8a5e16450f595706dbfc241a27ab88373228228f79",
        Shape { signature: "x-signature-ed25519", time: Time::Header("x-signature-timestamp"), ..HEX },
    ),
    vendor(
        "razorpay",
        "razorpay-webhook-secret-1",
        "razorpay-webhook-secret-2",
        Shape { signature: "x-razorpay-signature", ..HEX },
    ),
    vendor(
        "shopify",
        "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",
        "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",
        Shape {
            signature: "x-shopify-hmac-sha256",
            requires: &["x-shopify-topic", "x-shopify-webhook-id", "x-shopify-shop-domain", "x-shopify-api-version"],
            ..BASE64
        },
    ),
    vendor(
        "line",
        "d41d8cd98f00b204e9800998ecf8427e",
        "d41d8cd98f00b204e9800998ecf8427f",
        Shape { signature: "x-line-signature", ..BASE64 },
    ),
    Vendor {
        config: FIVE_MINUTES,
        ..vendor(
            "linear",
            "lin_wh_Nq3vT8wXcY5zB2mK7pL4rJ1s",
            "lin_wh_Nq3vT8wXcY5zB2mK7pL4rJ1t",
            Shape { signature: "linear-signature", time: Time::Body, ..HEX },
        )
    },
    vendor(
        "mux",
        "mux-signing-secret-1",
        "mux-signing-secret-2",
        Shape { signature: "mux-signature", prefix: "v1=", separator: Some(","), time: Time::List("t="), ..HEX },
    ),
    Vendor {
        config: FIVE_MINUTES,
        ..vendor(
            "paddle",
            "pdl_ntfset_01gkpjp8bkm3tm53kdgkx6sms7",
            "pdl_ntfset_01gkpjp8bkm3tm53kdgkx6sms8",
            Shape {
                signature: "paddle-signature",
                prefix: "h1=",
                separator: Some(";"),
                time: Time::List("ts="),
                ..HEX
            },
        )
    },
    vendor("pusher", "7ad3773142a6692b25b8", "7ad3773142a6692b25b9", Shape { signature: "x-pusher-signature", ..HEX }),
];

/// The sender of this name.
pub(super) fn by_id(id: &str) -> &'static Vendor {
    VENDORS.iter().find(|vendor| vendor.id == id).unwrap_or_else(|| panic!("no sender {id}"))
}
