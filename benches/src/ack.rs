//! How fast a delivery is verified, deduplicated, put on disk and answered.

use std::time::Duration;

use crate::agent::http_agent;
use crate::client::{Amount, Pace, Target, drive};
use crate::door::{self, Setup};
use crate::{Effort, disk, median};

const FILTER: &str = "filter = 'event.type == \"pull_request\" && data.action in [\"opened\", \"synchronize\"]'\n";

/// Prints ratios for each number of connections, without and with a filter: of the bare handler's rate, and of the disk's rate of
/// fdatasyncs.
#[allow(clippy::print_stdout, reason = "the result")]
pub(crate) async fn measure(effort: Effort, connections: &[usize]) -> anyhow::Result<()> {
    println!(
        "{:>6} {:>7} {:>9} {:>9} {:>9} {:>6} {:>6}   {:>9} {:>9} {:>9} {:>9}   {:>6} {:>6}",
        "", "", "", "", "", "floor", "door", "", "", "", "", "floor", "door"
    );
    println!(
        "{:>6} {:>7} {:>9} {:>9} {:>9} {:>6} {:>6}   {:>9} {:>9} {:>9} {:>9}   {:>6} {:>6}",
        "conns",
        "filter",
        "bare/s",
        "floor/s",
        "door/s",
        "/bare",
        "/bare",
        "p50",
        "p99",
        "sync p50",
        "sync p99",
        "/sync",
        "/sync"
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
    let (bare, floor) = (door::start_bare()?, door::start_floor()?);
    let door = door::start(&Setup::held(trigger)).await?;
    let mut columns: [Vec<f64>; 11] = Default::default();
    for round in 0..effort.rounds {
        let salt = round as u64;
        let target = Target { addr: bare.addr, path: "/hooks/bench".into(), status: 202 };
        let b = drive(&target, amount, salt).await?;
        let f = drive(&Target { addr: floor.addr, ..target.clone() }, amount, salt).await?;
        let sync = disk::fdatasyncs(&door::data_home()?, 2048, Duration::from_millis(500))?;
        let d = drive(&Target { addr: door.addr, ..target }, amount, salt).await?;
        let sync_rate = sync.len() as f64 / sync.iter().sum::<Duration>().as_secs_f64();
        let values = [
            b.rate,
            f.rate,
            d.rate,
            f.rate / b.rate,
            d.rate / b.rate,
            micros(d.quantile(0.5)),
            micros(d.quantile(0.99)),
            micros(sync[sync.len() / 2]),
            micros(sync[sync.len() * 99 / 100]),
            f.rate / sync_rate,
            d.rate / sync_rate,
        ];
        columns.iter_mut().zip(values).for_each(|(column, value)| column.push(value));
    }
    let [bare, floor, door, fb, db, p50, p99, s50, s99, fs, ds] = columns.each_mut().map(|values| median(values));
    println!(
        "{conns:>6} {name:>7} {bare:>9.0} {floor:>9.0} {door:>9.0} {fb:>6.2} {db:>6.2}   {p50:>7.0}us {p99:>7.0}us {s50:>7.0}us {s99:>7.0}us   {fs:>6.2} {ds:>6.2}"
    );
    Ok(())
}

/// Prints answer times at 64 connections and fixed rates, against the disk's fdatasync of the same bytes; the bare handler's and
/// the floor's at the same rate beside them.
#[allow(clippy::print_stdout, reason = "the result")]
pub(crate) async fn latency(effort: Effort, rates: &[f64], running: bool) -> anyhow::Result<()> {
    println!(
        "{:>7} {:>9} {:>9} {:>9} {:>9} {:>9} {:>9} {:>9} {:>9}   {:>6} {:>6} {:>6} {:>6}",
        "", "bare", "bare", "floor", "floor", "door", "door", "sync", "sync", "floor", "floor", "door", "door"
    );
    println!(
        "{:>7} {:>9} {:>9} {:>9} {:>9} {:>9} {:>9} {:>9} {:>9}   {:>6} {:>6} {:>6} {:>6}",
        "rate/s", "p50", "p99", "p50", "p99", "p50", "p99", "p50", "p99", "x p50", "x p99", "x p50", "x p99"
    );
    let (bare, floor) = (door::start_bare()?, door::start_floor()?);
    let setup = if running { http_agent(&format!("http://{}/agent", bare.addr)) } else { Setup::held("") };
    for &rate in rates {
        let door = door::start(&setup).await?;
        let mut columns: [Vec<f64>; 12] = Default::default();
        for round in 0..effort.rounds {
            let pace = Some(Pace { rate });
            let amount = Amount { connections: 64, time: effort.time, requests: u64::MAX, pace };
            let target = Target { addr: bare.addr, path: "/hooks/bench".into(), status: 202 };
            let b = drive(&target, amount, round as u64).await?;
            let f = drive(&Target { addr: floor.addr, ..target.clone() }, amount, round as u64).await?;
            let sync = disk::fdatasyncs(&door::data_home()?, 2048, Duration::from_millis(500))?;
            let d = drive(&Target { addr: door.addr, ..target }, amount, round as u64).await?;
            let (s50, s99) = (micros(sync[sync.len() / 2]), micros(sync[sync.len() * 99 / 100]));
            let [b50, f50, d50] = [&b, &f, &d].map(|load| micros(load.quantile(0.5)));
            let [b99, f99, d99] = [&b, &f, &d].map(|load| micros(load.quantile(0.99)));
            let ratios = [f50 / s50, f99 / s99, d50 / s50, d99 / s99];
            let values = [b50, b99, f50, f99, d50, d99, s50, s99].into_iter().chain(ratios);
            columns.iter_mut().zip(values).for_each(|(column, value)| column.push(value));
        }
        let medians = columns.each_mut().map(|values| median(values));
        let (times, ratios) = medians.split_at(8);
        let times: String = times.iter().map(|time| format!(" {time:>7.0}us")).collect();
        let ratios: String = ratios.iter().map(|ratio| format!(" {ratio:>6.1}")).collect();
        println!("{rate:>7.0}{times}  {ratios}");
    }
    Ok(())
}

fn micros(time: Duration) -> f64 {
    time.as_secs_f64() * 1e6
}
