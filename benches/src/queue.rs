//! Whether a long queue slows the door or the claims.

use std::time::{Duration, Instant};

use crate::client::{Amount, Target, drive};
use crate::door::{self, Setup};
use crate::{Effort, agent, median};

/// Ack and claim rates on an empty store and behind `events` queued runs of another, held agent's lanes.
#[allow(clippy::print_stdout, reason = "the result")]
pub(crate) async fn measure(effort: Effort, events: u64) -> anyhow::Result<()> {
    const PROBE: u64 = 20_000;
    let bare = door::start_bare()?;
    let setup = |paused: bool| Setup {
        agent: format!("runner = \"http\"\nurl = \"http://{}/agent\"\nconcurrency = 64\npaused = {paused}", bare.addr),
        trigger: "key = \"{{ data.pull_request.id }}\"".into(),
    };
    let load = |requests| Amount { connections: 64, time: Duration::from_secs(3600), requests, pace: None };
    let (mut empty_acks, mut full_acks, mut empty_claims, mut full_claims) = (vec![], vec![], vec![], vec![]);
    let full = door::start(&setup(true)).await?;
    let target = Target { addr: full.addr, path: "/hooks/bench".into(), status: 202 };
    let began = Instant::now();
    drive(&target, load(events), 1).await?;
    println!("queued {events} events in {:.0}s", began.elapsed().as_secs_f64());
    for round in 0..effort.rounds {
        let salt = 100 + round as u64;
        let empty = door::start(&setup(true)).await?;
        let on_empty = Target { addr: empty.addr, ..target.clone() };
        empty_acks.push(drive(&on_empty, load(PROBE), salt).await?.rate);
        full_acks.push(drive(&target, load(PROBE), salt).await?.rate);
        let began = Instant::now();
        door::post(empty.addr, "/api/v1/agents/bench/resume").await?;
        agent::wait_finished(empty.addr, PROBE).await?;
        empty_claims.push(PROBE as f64 / began.elapsed().as_secs_f64());
        let before = door::succeeded(full.addr).await?;
        let began = Instant::now();
        door::post(full.addr, "/api/v1/agents/bench/resume").await?;
        let done = agent::wait_finished(full.addr, before + PROBE).await? - before;
        full_claims.push(done as f64 / began.elapsed().as_secs_f64());
        door::post(full.addr, "/api/v1/agents/bench/pause").await?;
    }
    let (ea, fa) = (median(&mut empty_acks), median(&mut full_acks));
    let (ec, fc) = (median(&mut empty_claims), median(&mut full_claims));
    println!("acks:  empty {ea:.0}/s, behind {events} queued {fa:.0}/s, ratio {:.2} (aim: 0.9)", fa / ea);
    println!("runs:  empty {ec:.0}/s, behind {events} queued {fc:.0}/s, ratio {:.2} (aim: 0.9)", fc / ec);
    Ok(())
}
