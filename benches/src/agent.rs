//! From accepted to finished through a no-op HTTP agent, and from accepted to started on an idle server.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::bail;

use crate::client::{Amount, Target, drive};
use crate::door::{self, Setup};
use crate::{Effort, disk, median};

/// Attempts at once.
const IN_FLIGHT: usize = 64;

fn http_agent(url: &str) -> Setup {
    Setup {
        agent: format!("runner = \"http\"\nurl = \"{url}\"\nconcurrency = {IN_FLIGHT}"),
        trigger: format!("max_concurrent = {IN_FLIGHT}"),
    }
}

/// Queues runs while the agent is held, lets it go, and measures how fast they finish; against the same number of
/// direct calls with as many in flight.
#[allow(clippy::print_stdout, reason = "the result")]
pub(crate) async fn measure_rate(effort: Effort) -> anyhow::Result<()> {
    const RUNS: u64 = 20_000;
    let bare = door::start_bare()?;
    let agent = format!("http://{}/agent", bare.addr);
    let (mut direct_rates, mut door_rates, mut ratios) = (vec![], vec![], vec![]);
    for round in 0..effort.rounds {
        let all = Amount { connections: IN_FLIGHT, time: Duration::from_secs(60), requests: RUNS };
        let direct = drive(&Target { addr: bare.addr, path: "/agent".into(), status: 200 }, all, round as u64).await?;
        let mut setup = http_agent(&agent);
        setup.agent.push_str("\npaused = true");
        let program = door::start(&setup).await?;
        drive(&Target { addr: program.addr, path: "/hooks/bench".into(), status: 202 }, all, round as u64).await?;
        let began = Instant::now();
        door::post(program.addr, "/api/v1/agents/bench/resume").await?;
        wait_finished(program.addr, RUNS).await?;
        let rate = RUNS as f64 / began.elapsed().as_secs_f64();
        direct_rates.push(direct.rate);
        door_rates.push(rate);
        ratios.push(rate / direct.rate);
    }
    println!(
        "no-op http agent, {IN_FLIGHT} in flight: direct {:.0}/s, accepted to finished {:.0}/s, ratio {:.2} (aim: 0.25)",
        median(&mut direct_rates),
        median(&mut door_rates),
        median(&mut ratios)
    );
    Ok(())
}

/// Waits until no run is queued or running.
pub(crate) async fn wait_finished(addr: SocketAddr, runs: u64) -> anyhow::Result<()> {
    let began = Instant::now();
    loop {
        let (queued, running) = door::queue(addr).await?;
        if queued == 0 && running == 0 {
            return Ok(());
        }
        if began.elapsed() > Duration::from_secs(300) {
            bail!("{queued} queued and {running} running of {runs} after five minutes");
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

/// Rings an idle server once in a while; the run's own times say how long it took to start.
#[allow(clippy::print_stdout, reason = "the result")]
pub(crate) async fn measure_start(effort: Effort) -> anyhow::Result<()> {
    let bare = door::start_bare()?;
    let program = door::start(&http_agent(&format!("http://{}/agent", bare.addr))).await?;
    let mut waits = Vec::new();
    let (mut sync50s, once) = (vec![], Amount { connections: 1, time: Duration::from_secs(5), requests: 1 });
    for n in 0..effort.rounds.max(5) * 20 {
        if n % 20 == 0 {
            let sync = disk::fdatasyncs(&door::data_home()?, 2048, Duration::from_millis(300))?;
            sync50s.push(sync[sync.len() / 2].as_secs_f64() * 1e6);
        }
        let target = Target { addr: program.addr, path: "/hooks/bench".into(), status: 202 };
        let before = bare_calls(&program).await?;
        let began = Instant::now();
        drive(&target, once, 1000 + n as u64).await?;
        // The agent answers at once: finished means started, one call and one commit later.
        while bare_calls(&program).await? == before {
            tokio::task::yield_now().await;
        }
        waits.push(began.elapsed().as_secs_f64() * 1e6);
    }
    let (wait, sync) = (median(&mut waits), median(&mut sync50s));
    println!(
        "idle: sent to finished (so accepted to started and more) {wait:.0}us at the median, fdatasync {sync:.0}us, ratio {:.1} (aim: 10)",
        wait / sync
    );
    Ok(())
}

/// Finished runs so far, from the server's own counters.
async fn bare_calls(program: &door::Program) -> anyhow::Result<u64> {
    let text = door::get_text(program.addr, "/metrics").await?;
    Ok(text
        .lines()
        .filter(|l| l.starts_with("doorbell_attempts_total{"))
        .filter_map(|l| l.rsplit(' ').next()?.parse::<f64>().ok())
        .map(|v| v as u64)
        .sum())
}
