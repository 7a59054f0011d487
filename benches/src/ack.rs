//! How fast a delivery is verified, deduplicated, put on disk and answered.

use std::time::Duration;

use crate::client::{Amount, Pace, Target, drive};
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
    let amount = Amount { connections: conns, time: effort.time, requests: u64::MAX, pace: None };
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

/// Prints answer times at 64 connections and fixed rates, against the disk's fdatasync of the same bytes and the bare handler's
/// answer times at the same rate.
#[allow(clippy::print_stdout, reason = "the result")]
pub(crate) async fn latency(effort: Effort, rates: &[f64]) -> anyhow::Result<()> {
    println!(
        "{:>7} {:>9} {:>9} {:>9} {:>9} {:>9} {:>9} {:>6} {:>6}",
        "rate/s", "p50", "p99", "bare p50", "bare p99", "sync p50", "sync p99", "x p50", "x p99"
    );
    let bare = door::start_bare()?;
    for &rate in rates {
        let door = door::start(&Setup::held("")).await?;
        let mut columns: [Vec<f64>; 8] = Default::default();
        for round in 0..effort.rounds {
            let pace = Some(Pace { rate });
            let amount = Amount { connections: 64, time: effort.time, requests: u64::MAX, pace };
            let target = Target { addr: bare.addr, path: "/hooks/bench".into(), status: 202 };
            let b = drive(&target, amount, round as u64).await?;
            let sync = disk::fdatasyncs(&door::data_home()?, 2048, Duration::from_millis(500))?;
            let d = drive(&Target { addr: door.addr, ..target }, amount, round as u64).await?;
            let (s50, s99) = (micros(sync[sync.len() / 2]), micros(sync[sync.len() * 99 / 100]));
            let (d50, d99) = (micros(d.quantile(0.5)), micros(d.quantile(0.99)));
            let (b50, b99) = (micros(b.quantile(0.5)), micros(b.quantile(0.99)));
            for (column, value) in columns.iter_mut().zip([d50, d99, b50, b99, s50, s99, d50 / s50, d99 / s99]) {
                column.push(value);
            }
        }
        let [d50, d99, b50, b99, s50, s99, x50, x99] = columns.each_mut().map(|values| median(values));
        println!(
            "{rate:>7.0} {d50:>7.0}us {d99:>7.0}us {b50:>7.0}us {b99:>7.0}us {s50:>7.0}us {s99:>7.0}us {x50:>6.1} {x99:>6.1}"
        );
    }
    Ok(())
}

fn micros(time: Duration) -> f64 {
    time.as_secs_f64() * 1e6
}
