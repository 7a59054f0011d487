//! The checks of one request, in the order of `docs/semantics.md`, rule 3: is the door open, is the address let in, is the
//! sender who it should be, is it in a loop, is it within its limits. Each leaves its check in the record.

use std::borrow::Cow;
use std::net::IpAddr;

use http::HeaderMap;

use super::{Early, No};
use crate::decision::Check;
use crate::house::House;
use crate::limits::key_of;
use crate::loop_guard;
use crate::source::{Source, Webhook};

pub(super) fn check_open(house: &House, source: &Source) -> Result<(), Box<Early>> {
    let all_off = !source.triggers.is_empty() && source.triggers.iter().all(|t| !house.is_enabled(t));
    if !source.enabled || all_off {
        let reason = format!("source `{}` is switched off, or all its triggers are", source.name);
        return Err(Early::new(No::NotFound, "disabled", reason));
    }
    Ok(())
}

pub(super) fn check_address(
    webhook: &Webhook,
    remote: Option<IpAddr>,
    checks: &mut Vec<Check>,
) -> Result<(), Box<Early>> {
    if webhook.allowed.is_everybody() {
        return Ok(());
    }
    let seen = remote.map_or_else(|| "unknown".to_owned(), |ip| ip.to_string());
    if remote.is_some_and(|ip| webhook.allowed.lets_in(ip)) {
        checks.push(Check::passed("address").seeing(seen));
        return Ok(());
    }
    checks.push(Check::failed("address", webhook.allowed.texts().join(", "), seen.clone()));
    let reason = format!("the sender's address {seen} is not in allowed_sources");
    Err(Early::new(No::AddressNotAllowed, "address_not_allowed", reason))
}

/// What a failed check of the sender is answered, whose failures are limited. The check itself is always made, whoever
/// failed before from the same address: a limit on failures that came first could be used up by strangers to lock the
/// real sender out (GHSA-6rmx-gvvg-vh6j).
pub(super) fn limit_failure(
    webhook: &Webhook,
    remote: Option<IpAddr>,
    house: &House,
    checks: &mut Vec<Check>,
    failed: Box<Early>,
) -> Box<Early> {
    let Some(failures) = webhook.limits.failures.as_ref().filter(|_| matches!(failed.no, No::NotVerified)) else {
        return failed;
    };
    let Err(over) = failures.take(key_of(remote), house.clock.uptime()) else { return failed };
    let allowed = failures.quota().as_str();
    checks.push(Check::failed("failed_auth_limit", allowed.to_owned(), "more"));
    let reason = format!("more failed checks from this address than failed_auth_limit ({allowed}): {}", failed.reason);
    let early = Early::new(No::Limited(over.wait), "failed_auth_limited", reason);
    // One line for a series of them: the rest is only counted.
    if over.first { early } else { early.only_counted() }
}

pub(super) fn check_hops(source: &Source, headers: &HeaderMap, checks: &mut Vec<Check>) -> Result<u32, Box<Early>> {
    let hops = loop_guard::hops(headers);
    check_hop_count(source, hops, checks).map(|()| hops)
}

pub(super) fn check_hop_count(source: &Source, hops: u32, checks: &mut Vec<Check>) -> Result<(), Box<Early>> {
    if hops <= source.max_hops {
        return Ok(());
    }
    let seen: Cow<'static, str> = if hops == u32::MAX { "no number".into() } else { hops.to_string().into() };
    let reason = format!("{}: {seen}, and max_hops is {}; agents ring each other", loop_guard::HEADER, source.max_hops);
    checks.push(Check::failed("hops", format!("at most {}", source.max_hops), seen));
    Err(Early::new(No::Loop, "too_many_hops", reason))
}

pub(super) fn check_rate(
    webhook: &Webhook,
    remote: Option<IpAddr>,
    house: &House,
    checks: &mut Vec<Check>,
) -> Result<(), Box<Early>> {
    if webhook.limits.is_none() {
        return Ok(());
    }
    match webhook.limits.take(remote, house.clock.uptime()) {
        Ok(()) => {
            checks.push(Check::passed("rate_limit"));
            Ok(())
        }
        Err(over) => {
            let reason = format!("more requests than {} ({})", over.setting, over.allowed);
            checks.push(Check::failed("rate_limit", over.allowed, "more"));
            Err(Early::verified(No::Limited(over.wait), over.code, reason))
        }
    }
}
