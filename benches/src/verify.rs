//! The provider engine against a check written by hand for one sender, with the same library (aws-lc-rs) and over the same
//! 2 KB body: what does it cost that senders are data? Both sides are asked in turn, thousands of times in each round.
//!
//! And what the presets cost at start: reading one, as a server with one sender does, and reading all of them.

use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use aws_lc_rs::hmac;
use bytes::Bytes;
use doorbell_core::provider::{self, Preset, Request, Verifier, VerifyOptions, Via};
use doorbell_core::{Secret, Timestamp};
use http::{HeaderMap, HeaderValue, Method};
use subtle::ConstantTimeEq as _;

use crate::{Effort, median};

const SECRET: &str = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822c";
const NOW_S: i64 = 1_760_000_000;
const TOLERANCE_S: u64 = 300;
/// Checks in a row, short enough that a neighbour's burst falls on few of them.
const CHECKS: u32 = 2000;

/// One sender: how it signs, and the check that somebody who knows only this sender would write.
struct Sender {
    id: &'static str,
    signed: fn(&hmac::Key, &[u8]) -> HeaderMap,
    by_hand: fn(&hmac::Key, &HeaderMap, &[u8], i64) -> bool,
}

const SENDERS: [Sender; 3] = [
    Sender { id: "github", signed: github_signed, by_hand: github },
    Sender { id: "stripe", signed: stripe_signed, by_hand: stripe },
    Sender { id: "slack", signed: slack_signed, by_hand: slack },
];

/// Prints both tables.
#[allow(clippy::print_stdout, reason = "the result")]
pub(crate) fn measure(effort: Effort) -> anyhow::Result<()> {
    let body = Bytes::from(format!("{{\"note\":\"{}\"}}", "x".repeat(2048 - 11)));
    println!("check of a {} B body        by hand    engine   ratio", body.len());
    for sender in &SENDERS {
        one(sender, &body, effort)?;
    }
    presets();
    Ok(())
}

#[allow(clippy::print_stdout, reason = "the result")]
fn one(sender: &Sender, body: &Bytes, effort: Effort) -> anyhow::Result<()> {
    let key = hmac::Key::new(hmac::HMAC_SHA256, SECRET.as_bytes());
    let headers = (sender.signed)(&key, body);
    let preset = provider::get(sender.id).context("no such preset")?;
    let verifier = Verifier::new(Arc::clone(preset), &[Secret::new(SECRET)], VerifyOptions::default())?;
    let request = Request {
        method: &Method::POST,
        url: None,
        path: "/hooks/x",
        query: "",
        headers: &headers,
        body,
        via: Via::Anybody,
    };
    let now = Timestamp::from_secs(NOW_S);
    let engine = || verifier.verify(black_box(&request), now).is_ok();
    let by_hand = || (sender.by_hand)(&key, black_box(&headers), black_box(body), NOW_S);
    ensure!(engine() && by_hand(), "{}: a right signature is refused", sender.id);
    let (mut ours, mut theirs, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..effort.rounds * 20 {
        let (a, b) = (time(by_hand), time(engine));
        theirs.push(a);
        ours.push(b);
        ratios.push(b / a);
    }
    let (theirs, ours, ratio) = (median(&mut theirs), median(&mut ours), median(&mut ratios));
    println!("{:<28}{theirs:>7.0} ns{ours:>7.0} ns{ratio:>8.2}", sender.id);
    Ok(())
}

/// Nanoseconds of one check.
fn time(check: impl Fn() -> bool) -> f64 {
    let began = Instant::now();
    for _ in 0..CHECKS {
        black_box(check());
    }
    began.elapsed().as_secs_f64() * 1e9 / f64::from(CHECKS)
}

#[allow(clippy::print_stdout, reason = "the result")]
fn presets() {
    let files = provider::files();
    let read = |file: &str, text: &str| black_box(Preset::parse(text, file)).is_ok();
    let (mut each, mut all) = (Vec::new(), Duration::ZERO);
    for (file, text) in files {
        let began = Instant::now();
        read(file, text);
        let took = began.elapsed();
        each.push(took.as_secs_f64() * 1e6);
        all += took;
    }
    let before = resident();
    let began = Instant::now();
    let count = provider::presets().len();
    let (took, grown) = (began.elapsed(), resident().saturating_sub(before));
    println!(
        "\none preset read: {:.0} µs (median); all {count}: {:.1} ms, with memory {:.1} ms and {grown} KiB",
        median(&mut each),
        all.as_secs_f64() * 1e3,
        took.as_secs_f64() * 1e3
    );
    println!("a server reads those that its configuration names");
}

/// KiB of this process in memory; 0 where the system does not tell.
fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|l| l.strip_prefix("VmRSS:"));
    line.and_then(|l| l.trim().trim_end_matches(" kB").parse().ok()).unwrap_or_default()
}

fn header(headers: &mut HeaderMap, name: &'static str, value: &str) {
    // Hex and digits: always a header.
    if let Ok(value) = HeaderValue::from_str(value) {
        headers.insert(name, value);
    }
}

/// A delivery has a dozen headers; a look-up among one would flatter both.
fn common() -> HeaderMap {
    let mut headers = HeaderMap::new();
    for name in ["host", "accept", "user-agent", "content-type", "content-length", "x-request-id", "x-forwarded-for"] {
        header(&mut headers, name, "something");
    }
    headers
}

fn mac(key: &hmac::Key, parts: &[&[u8]]) -> hmac::Tag {
    let mut context = hmac::Context::with_key(key);
    parts.iter().for_each(|part| context.update(part));
    context.sign()
}

fn right(made: &hmac::Tag, hex_text: &str) -> bool {
    let mut tag = [0; 32];
    hex::decode_to_slice(hex_text, &mut tag).is_ok() && bool::from(made.as_ref().ct_eq(&tag))
}

fn text<'h>(headers: &'h HeaderMap, name: &str) -> Option<&'h str> {
    headers.get(name)?.to_str().ok()
}

fn is_fresh(timestamp: &str, now_s: i64) -> bool {
    timestamp.parse::<i64>().is_ok_and(|at| at.abs_diff(now_s) <= TOLERANCE_S)
}

fn github_signed(key: &hmac::Key, body: &[u8]) -> HeaderMap {
    let mut headers = common();
    header(&mut headers, "x-hub-signature-256", &format!("sha256={}", hex::encode(mac(key, &[body]))));
    headers
}

fn github(key: &hmac::Key, headers: &HeaderMap, body: &[u8], _: i64) -> bool {
    let tag = text(headers, "x-hub-signature-256").and_then(|v| v.strip_prefix("sha256="));
    tag.is_some_and(|tag| right(&mac(key, &[body]), tag))
}

fn stripe_signed(key: &hmac::Key, body: &[u8]) -> HeaderMap {
    let mut headers = common();
    let now = NOW_S.to_string();
    let tag = mac(key, &[now.as_bytes(), b".", body]);
    header(&mut headers, "stripe-signature", &format!("t={now},v1={}", hex::encode(tag)));
    headers
}

fn stripe(key: &hmac::Key, headers: &HeaderMap, body: &[u8], now_s: i64) -> bool {
    let Some(value) = text(headers, "stripe-signature") else { return false };
    let Some(at) = value.split(',').find_map(|item| item.strip_prefix("t=")) else { return false };
    let made = mac(key, &[at.as_bytes(), b".", body]);
    let is_right = value.split(',').filter_map(|item| item.strip_prefix("v1=")).any(|tag| right(&made, tag));
    is_right && is_fresh(at, now_s)
}

fn slack_signed(key: &hmac::Key, body: &[u8]) -> HeaderMap {
    let mut headers = common();
    let now = NOW_S.to_string();
    header(&mut headers, "x-slack-request-timestamp", &now);
    let tag = mac(key, &[b"v0:", now.as_bytes(), b":", body]);
    header(&mut headers, "x-slack-signature", &format!("v0={}", hex::encode(tag)));
    headers
}

fn slack(key: &hmac::Key, headers: &HeaderMap, body: &[u8], now_s: i64) -> bool {
    let Some(at) = text(headers, "x-slack-request-timestamp") else { return false };
    let Some(tag) = text(headers, "x-slack-signature").and_then(|v| v.strip_prefix("v0=")) else { return false };
    right(&mac(key, &[b"v0:", at.as_bytes(), b":", body]), tag) && is_fresh(at, now_s)
}
