//! The demo's table. On a terminal it is drawn again in its place whenever something changed; piped, each delivery gets
//! its line once nothing more is to come of it.

use anyhow::Result;
use comfy_table::{Attribute, Cell, Row};
use doorbell_core::Timestamp;
use serde_json::Value;

use super::super::screen::{Screen, Tone, span_ms};
use super::super::table::{cell, frame, member, settle, text};
use super::script::Act;
use super::stage::Scene;

const HEADS: [&str; 6] = ["SENT", "ANSWER", "RUN", "TRIES", "TOOK", "RESULT"];
/// The last column is cut where the terminal is too narrow, so that the table stays one line a delivery.
const CUT: usize = 5;
/// But not below so many characters.
const RESULT_CHARS_MIN: u16 = 10;

/// See the module.
pub(super) struct Board<'b> {
    screen: &'b Screen,
    shown: String,
    told: usize,
}

impl<'b> Board<'b> {
    /// Nothing shown yet.
    pub(super) fn new(screen: &'b Screen) -> Self {
        Self { screen, shown: String::new(), told: 0 }
    }

    /// Shows how things stand.
    ///
    /// # Errors
    /// If standard output cannot be written.
    pub(super) fn show(&mut self, script: &[Act], scenes: &[Scene]) -> Result<()> {
        if !self.screen.is_terminal() {
            return self.tell(script, scenes, Scene::is_over);
        }
        let table = self.table(script, scenes);
        if table == self.shown {
            return Ok(());
        }
        // Up to the table's first line, and clear from there (ECMA-48: CPL, ED).
        let up = match self.shown.lines().count() {
            0 => String::new(),
            lines => format!("\u{1b}[{lines}F\u{1b}[J"),
        };
        self.screen.write(format!("{up}{table}\n").as_bytes())?;
        self.shown = table;
        Ok(())
    }

    /// Shows the end; what is not over then is shown as it stands. On a terminal, where there was no room for it, also
    /// why some deliveries started nothing.
    ///
    /// # Errors
    /// If standard output cannot be written.
    pub(super) fn finish(&mut self, script: &[Act], scenes: &[Scene]) -> Result<()> {
        if !self.screen.is_terminal() {
            return self.tell(script, scenes, |_| true);
        }
        self.show(script, scenes)?;
        self.screen.line(format!("\n{}", self.screen.paint(Tone::Strong, "Why the others started nothing")))?;
        for (act, scene) in script.iter().zip(scenes).filter(|(_, scene)| scene.run.is_none()) {
            self.screen.line(self.screen.wrapped(&format!("  {}: {}", act.title, scene.reason), 4))?;
        }
        Ok(())
    }

    /// Lines for those that are next in order and ready.
    fn tell(&mut self, script: &[Act], scenes: &[Scene], ready: impl Fn(&Scene) -> bool) -> Result<()> {
        while let Some((act, scene)) = script.iter().zip(scenes).nth(self.told).filter(|(_, s)| ready(s)) {
            let [sent, answer, run, tries, took, result] = row(act, scene);
            let attempts = if tries == "1" { "attempt" } else { "attempts" };
            self.screen.line(match run.is_empty() {
                true => format!("{sent}: {answer}: {}", scene.reason),
                false => format!("{sent}: {answer}, run {run}, {tries} {attempts}, {took}: {result}"),
            })?;
            self.told += 1;
        }
        Ok(())
    }

    fn table(&self, script: &[Act], scenes: &[Scene]) -> String {
        let mut table = frame(self.screen);
        table.set_header(HEADS.map(|head| Cell::new(head).add_attribute(Attribute::Bold)));
        for (act, scene) in script.iter().zip(scenes) {
            let texts = row(act, scene);
            let answer = Tone::of(scene.decision.as_deref().unwrap_or_default());
            let tones = [Tone::Plain, answer, Tone::of(&texts[2]), Tone::Plain, Tone::Plain, Tone::Plain];
            let mut row = Row::from(texts.iter().zip(tones).map(|(text, tone)| cell(text, tone)).collect::<Vec<_>>());
            row.max_height(1);
            table.add_row(row);
        }
        settle(&mut table, |column| (column == CUT).then_some(RESULT_CHARS_MIN))
    }
}

fn row(act: &Act, scene: &Scene) -> [String; 6] {
    let run = scene.run.clone().unwrap_or_default();
    let tries = match text(&run, "attempt").as_str() {
        "0" => String::new(),
        n => n.to_owned(),
    };
    let answer = format!("{} {}", scene.status, scene.decision.as_deref().unwrap_or_default());
    let result = text(&run, "output").trim().to_owned();
    [act.title.to_owned(), answer.trim().to_owned(), text(&run, "state"), tries, took(&run), result]
}

/// From the run's making to its end.
fn took(run: &Value) -> String {
    let at = |name: &str| member(run, name).and_then(Value::as_str).and_then(Timestamp::parse);
    match (at("created_at"), at("finished_at")) {
        (Some(start), Some(end)) => span_ms(end.since(start).as_millis()),
        _ => String::new(),
    }
}
