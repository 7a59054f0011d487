//! How fast a delivery is verified, deduplicated, put on disk and answered.

use std::time::Duration;

use crate::client::{Amount, Target, drive};
use crate::door::{self, Setup};
use crate::{Effort, disk, median};

const FILTER: &str = "filter = 'event.type == \"pull_request\" && data.action in [\"opened\", \"synchronize\"]'\n";

/// Prints ratios for each number of connections, without and with a filter.
#[allow(clippy::print_stdout, reason = "the result")]
pub(crate) async fn measure(effort: Effort, connections: &[usize]) -> anyhow::Result<()> {
    println!(
        "{:>6} {:>7} {:>10} {:>10} {:>7}   {:>9} {:>9} {:>9} {:>9}",
        "conns", "filter", "bare/s", "door/s", "ratio", "p50", "p99", "sync p50", "sync p99"
    );
    for &conns in connections {
        for (name, trigger) in [("no", ""), ("yes", FILTER)] {
            row(effort, conns, name, trigger).await?;
        }
    }
    Ok(())
}

#[allow(clippy::print_stdout, reason = "the result")]
async fn row(effort: Effort, conns: usize, name: &str, trigger: &str) -> anyhow::Result<()> {
    let amount = Amount { connections: conns, time: effort.time, requests: u64::MAX };
    let bare = door::start_bare()?;
    let door = door::start(&Setup::held(trigger)).await?;
    let (mut bare_rates, mut door_rates, mut ratios) = (vec![], vec![], vec![]);
    let (mut p50s, mut p99s, mut sync50s, mut sync99s, mut sync_rates) = (vec![], vec![], vec![], vec![], vec![]);
    for round in 0..effort.rounds {
        let salt = round as u64;
        let target = Target { addr: bare.addr, path: "/hooks/bench".into(), status: 202 };
        let b = drive(&target, amount, salt).await?;
        let sync = disk::fdatasyncs(&door::data_home()?, 2048, Duration::from_millis(500))?;
        let d = drive(&Target { addr: door.addr, ..target }, amount, salt).await?;
        bare_rates.push(b.rate);
        door_rates.push(d.rate);
        let sync_rate = sync.len() as f64 / sync.iter().sum::<Duration>().as_secs_f64();
        sync_rates.push(d.rate / sync_rate);
        ratios.push(d.rate / b.rate);
        p50s.push(micros(d.quantile(0.5)));
        p99s.push(micros(d.quantile(0.99)));
        sync50s.push(micros(sync[sync.len() / 2]));
        sync99s.push(micros(sync[sync.len() * 99 / 100]));
    }
    println!(
        "{conns:>6} {name:>7} {:>10.0} {:>10.0} {:>7.2}   {:>7.0}us {:>7.0}us {:>7.0}us {:>7.0}us   rate / fdatasync rate {:.2}",
        median(&mut bare_rates),
        median(&mut door_rates),
        median(&mut ratios),
        median(&mut p50s),
        median(&mut p99s),
        median(&mut sync50s),
        median(&mut sync99s),
        median(&mut sync_rates),
    );
    Ok(())
}

fn micros(time: Duration) -> f64 {
    time.as_secs_f64() * 1e6
}
