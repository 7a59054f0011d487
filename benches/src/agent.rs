//! From accepted to finished through a no-op HTTP agent, and from accepted to started on an idle server.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::bail;

use crate::client::{Amount, Target, drive};
use crate::door::{self, Setup};
use crate::{Effort, disk, median};

/// Attempts at once.
const IN_FLIGHT: usize = 64;

/// A no-op agent at `url`, with [`IN_FLIGHT`] places.
pub(crate) fn http_agent(url: &str) -> Setup {
    Setup {
        agent: format!("runner = \"http\"\nurl = \"{url}\"\nconcurrency = {IN_FLIGHT}"),
        trigger: format!("max_concurrent = {IN_FLIGHT}"),
    }
}

/// Queues runs while the agent is held, lets it go, and measures how fast they finish; against the same number of
/// direct calls with as many in flight.
#[allow(clippy::print_stdout, reason = "the result")]
pub(crate) async fn measure_rate(effort: Effort, runs: u64) -> anyhow::Result<()> {
    let bare = door::start_bare()?;
    let agent = format!("http://{}/agent", bare.addr);
    let (mut direct_rates, mut door_rates, mut ratios) = (vec![], vec![], vec![]);
    for round in 0..effort.rounds {
        let all = Amount { connections: IN_FLIGHT, time: Duration::from_secs(60), requests: runs, pace: None };
        let direct = drive(&Target { addr: bare.addr, path: "/agent".into(), status: 200 }, all, round as u64).await?;
        let mut setup = http_agent(&agent);
        setup.agent.push_str("\npaused = true");
        let program = door::start(&setup).await?;
        drive(&Target { addr: program.addr, path: "/hooks/bench".into(), status: 202 }, all, round as u64).await?;
        let began = Instant::now();
        door::post(program.addr, "/api/v1/agents/bench/resume").await?;
        wait_finished(program.addr, runs).await?;
        let rate = runs as f64 / began.elapsed().as_secs_f64();
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

/// Waits until so many runs succeeded since the program's start; gives how many it were then.
pub(crate) async fn wait_finished(addr: SocketAddr, runs: u64) -> anyhow::Result<u64> {
    let began = Instant::now();
    loop {
        let done = door::succeeded(addr).await?;
        if done >= runs {
            return Ok(done);
        }
        if began.elapsed() > Duration::from_secs(300) {
            bail!("{done} of {runs} runs had succeeded after five minutes");
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Rings an idle server once in a while: from the answer to the moment the agent is called.
#[allow(clippy::print_stdout, reason = "the result")]
pub(crate) async fn measure_start(effort: Effort) -> anyhow::Result<()> {
    let (called, mut calls) = tokio::sync::mpsc::unbounded_channel();
    let agent = watching_agent(called).await?;
    let program = door::start(&http_agent(&format!("http://{agent}/agent"))).await?;
    let target = Target { addr: program.addr, path: "/hooks/bench".into(), status: 202 };
    let once = Amount { connections: 1, time: Duration::from_secs(5), requests: 1, pace: None };
    let (mut waits, mut sync50s) = (Vec::new(), Vec::new());
    for n in 0..effort.rounds.max(5) * 20 {
        if n % 20 == 0 {
            let sync = disk::fdatasyncs(&door::data_home()?, 2048, Duration::from_millis(300))?;
            sync50s.push(sync[sync.len() / 2].as_secs_f64() * 1e6);
        }
        drive(&target, once, 1000 + n as u64).await?;
        let answered = Instant::now();
        let Some(called) = calls.recv().await else { bail!("the agent is gone") };
        waits.push(called.saturating_duration_since(answered).as_secs_f64() * 1e6);
    }
    let (wait, sync) = (median(&mut waits), median(&mut sync50s));
    println!(
        "idle: answered to agent called {wait:.0}us at the median, fdatasync {sync:.0}us, ratio {:.1} (aim: 10)",
        wait / sync
    );
    Ok(())
}

/// An agent that tells when it is called.
async fn watching_agent(called: tokio::sync::mpsc::UnboundedSender<Instant>) -> anyhow::Result<SocketAddr> {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    let addr = listener.local_addr()?;
    let app = axum::Router::new().route(
        "/agent",
        axum::routing::post(move |_: axum::body::Bytes| {
            let _ = called.send(Instant::now());
            async { "{\"ok\":true}" }
        }),
    );
    tokio::spawn(async move { axum::serve(listener, app).await });
    Ok(addr)
}
