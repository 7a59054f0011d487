//! Measures Doorbell as its users would: the real binary, real sockets, a real disk. Absolute figures of a shared
//! machine say little, so every measure is a ratio against something that runs in the same minute: a bare axum handler,
//! the least that a door must do (`floor`), the disk's own fdatasync, the same client calling the agent directly. Rounds alternate; medians are printed.
//!
//! `cargo run --release -p doorbell-bench -- ack` (or `latency`, `agent`, `queue`, `start`, `memory`, `verify`); the binary under
//! test is `target/release/doorbell`.

mod ack;
mod agent;
mod client;
mod disk;
mod door;
mod floor;
mod queue;
mod verify;

use std::time::Duration;

use clap::{Parser, Subcommand};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Measures Doorbell.
#[derive(Debug, Parser)]
struct Args {
    #[command(subcommand)]
    what: What,
    /// Rounds of each measure; the median is printed.
    #[arg(long, global = true, default_value_t = 5)]
    rounds: usize,
    /// Seconds of load in each round.
    #[arg(long, global = true, default_value_t = 3)]
    seconds: u64,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Acks against a bare handler and the disk.
    Ack {
        /// Numbers of connections.
        #[arg(long, value_delimiter = ',', default_values_t = [1usize, 64, 128, 256])]
        connections: Vec<usize>,
    },
    /// Answer times at 64 connections and fixed rates, against the disk.
    Latency {
        /// Requests a second.
        #[arg(long, value_delimiter = ',', default_values_t = [500.0, 1000.0, 2000.0, 4000.0])]
        rates: Vec<f64>,
        /// Each event is also run, through a no-op HTTP agent.
        #[arg(long)]
        running: bool,
    },
    /// Accepted to finished through a no-op HTTP agent, against calling it directly.
    Agent {
        /// Runs in each round.
        #[arg(long, default_value_t = 20_000)]
        runs: u64,
    },
    /// Ack and claim rates with many queued events against an empty store.
    Queue {
        /// Queued events.
        #[arg(long, default_value_t = 1_000_000)]
        events: u64,
    },
    /// Idle accepted-to-start against the disk.
    Start,
    /// Memory of an idle server.
    Memory,
    /// The check of a signature against one written by hand, and what the presets cost at start.
    Verify,
    /// A bare handler that answers 202; used by the others.
    #[command(hide = true)]
    Bare,
    /// The least that a door does; used by the others.
    #[command(hide = true)]
    Floor,
}

/// How much each measure runs.
#[derive(Clone, Copy, Debug)]
struct Effort {
    rounds: usize,
    time: Duration,
}

fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    let effort = Effort { rounds: args.rounds.max(1), time: Duration::from_secs(args.seconds.max(1)) };
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        match args.what {
            What::Ack { connections } => ack::measure(effort, &connections).await,
            What::Latency { rates, running } => ack::latency(effort, &rates, running).await,
            What::Agent { runs } => agent::measure_rate(effort, runs).await,
            What::Start => agent::measure_start(effort).await,
            What::Queue { events } => queue::measure(effort, events).await,
            What::Verify => verify::measure(effort),
            What::Memory => door::measure_memory().await,
            What::Bare => door::serve_bare().await,
            What::Floor => floor::serve().await,
        }
    })
}

/// The middle of the values.
fn median(values: &mut [f64]) -> f64 {
    values.sort_unstable_by(f64::total_cmp);
    match values.len() {
        0 => 0.0,
        n if n % 2 == 1 => values[n / 2],
        n => f64::midpoint(values[n / 2 - 1], values[n / 2]),
    }
}
