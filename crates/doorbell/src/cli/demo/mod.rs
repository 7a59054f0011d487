//! `doorbell demo`: the main job in one go, with nothing to set up. A temporary directory with a configuration, fresh
//! secrets and a shell script as agent ([`house`]); the real server on it; deliveries as GitHub, Stripe, Slack and a
//! Standard Webhooks sender make them, with a forged, a repeated and an unwanted one among them ([`script`], [`stage`]);
//! and a table of what became of each ([`board`]). Every outcome is compared with what it should be.

mod board;
mod house;
mod script;
mod stage;

use std::time::Duration;

use anyhow::{Context as _, Result};
use doorbell_core::run::State;
use tokio::signal::unix::{SignalKind, signal};

use super::Context;
use super::fault::Exit;
use super::screen::{Tone, span_ms};
use house::House;
use script::{Becomes, SCRIPT};
use stage::{Scene, Stage};

const EXAMPLES: &str = "\
Examples:
  doorbell demo           watch it, then look around with the commands that it
                          prints; Ctrl-C ends it
  doorbell demo --once    for scripts: 0 if everything ended as it should, else 1

It needs a POSIX shell and a free port, talks to this machine only, and removes
its directory at the end.";

/// All runs end well within this; longer means that something hangs.
const PATIENCE: Duration = Duration::from_secs(60);
/// How often the table is brought up to date.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// Arguments of `doorbell demo`.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct DemoArgs {
    /// End when everything has ended: 0 if all is as it should be, else 1
    #[arg(long)]
    once: bool,
    /// The port to serve on [default: a free one]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    port: Option<u16>,
}

/// Plays the demo.
///
/// # Errors
/// If the server cannot be started or asked.
pub(super) async fn run(args: DemoArgs, cx: &Context) -> Result<Exit> {
    let mut stop = Stop::new()?;
    tokio::select! {
        ended = play(&args, cx) => {
            let (mut house, exit) = ended?;
            if !args.once {
                stop.asked().await;
                cx.screen.remark("Stopping.");
            }
            house.stop().await;
            Ok(exit)
        }
        // The house goes with the future: its server is ended and its directory removed.
        () = stop.asked() => Ok(Exit::Failed),
    }
}

async fn play(args: &DemoArgs, cx: &Context) -> Result<(House, Exit)> {
    let house = House::open(args.port, cx).await?;
    let where_from = format!("Doorbell serves at {} from {}\n", house.client.base(), house.config.display());
    cx.screen.line(cx.screen.wrapped(&where_from, 2))?;
    let stage = Stage::new(&house, cx);
    let mut board = board::Board::new(&cx.screen);
    let mut scenes: Vec<Scene> = Vec::new();
    for act in SCRIPT {
        let scene = stage.send(act, &scenes).await?;
        scenes.push(scene);
        board.show(SCRIPT, &scenes)?;
    }
    let began = tokio::time::Instant::now();
    while !scenes.iter().all(Scene::is_over) && began.elapsed() < PATIENCE {
        tokio::time::sleep(LOOK_EVERY).await;
        stage.look(SCRIPT, &mut scenes).await?;
        board.show(SCRIPT, &scenes)?;
    }
    board.finish(SCRIPT, &scenes)?;
    let mut faults: Vec<String> = Vec::new();
    for (act, scene) in SCRIPT.iter().zip(&scenes) {
        faults.extend(stage::faults(act, scene, &scenes).into_iter().map(|fault| format!("{}: {fault}", act.title)));
    }
    faults.extend(stage.count_faults(&scenes).await?);
    cx.screen.line(format!("\n{}", summary(cx, &scenes, &faults)))?;
    if !args.once {
        cx.screen.line(format!("\n{}", cx.screen.wrapped(&house.look_further(&scenes), 0)))?;
    }
    Ok((house, if faults.is_empty() { Exit::Ok } else { Exit::Failed }))
}

fn summary(cx: &Context, scenes: &[Scene], faults: &[String]) -> String {
    if !faults.is_empty() {
        let heading = cx.screen.paint(Tone::Bad, &format!("Not as it should be ({}):", faults.len()));
        return format!("{heading}\n{}", cx.screen.wrapped(&format!("  {}", faults.join("\n  ")), 4));
    }
    let became = |b: Becomes| SCRIPT.iter().filter(|act| act.becomes == b).count();
    let runs = scenes.iter().filter(|s| s.state() == Some(State::Succeeded)).count();
    let slowest = scenes.iter().filter_map(|s| s.answered_in).max().unwrap_or_default();
    let heading = "All as it should be.";
    let text = format!(
        "{heading} {} deliveries, each answered within {}: {runs} runs succeeded, {} forged turned away, {} repeated run once, {} filtered out.",
        SCRIPT.len(),
        span_ms(slowest.as_millis().max(1)),
        became(Becomes::Rejected),
        became(Becomes::Duplicate),
        became(Becomes::Ignored),
    );
    // Painted after it is broken into lines: colours take no room on the screen.
    cx.screen.wrapped(&text, 0).replacen(heading, &cx.screen.paint(Tone::Good, heading), 1)
}

/// Resolves when somebody wants the end: Ctrl-C, a plain `kill`, a terminal that went away.
struct Stop {
    interrupt: tokio::signal::unix::Signal,
    terminate: tokio::signal::unix::Signal,
    hang_up: tokio::signal::unix::Signal,
}

impl Stop {
    fn new() -> Result<Self> {
        let on = |kind| signal(kind).context("cannot listen for signals");
        Ok(Self {
            interrupt: on(SignalKind::interrupt())?,
            terminate: on(SignalKind::terminate())?,
            hang_up: on(SignalKind::hangup())?,
        })
    }

    async fn asked(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
            _ = self.hang_up.recv() => {}
        }
    }
}
