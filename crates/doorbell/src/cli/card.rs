//! One thing on the screen: a heading and its members below each other. Called by `show` of every noun.

use doorbell_core::Timestamp;
use serde_json::Value;

use super::screen::{Screen, Tone, age};
use super::table::{escaped, harmless, member, plain, text};

/// Lines under construction.
pub(super) struct Card<'c> {
    screen: &'c Screen,
    now: Timestamp,
    rows: Vec<(String, String)>,
    lines: Vec<String>,
}

impl<'c> Card<'c> {
    /// With a heading: a coloured word, a name or id, and what it is about.
    pub(super) fn new(screen: &'c Screen, now: Timestamp, word: &str, id: &str, about: &str) -> Self {
        let word = screen.paint(Tone::of(word), word);
        let heading = [word, screen.paint(Tone::Strong, id), about.to_owned()];
        let heading: Vec<String> = heading.into_iter().filter(|part| !part.is_empty()).collect();
        Self { screen, now, rows: Vec::new(), lines: vec![heading.join("  ")] }
    }

    /// A member of `item` under its own name, unless it is missing or empty.
    pub(super) fn member(&mut self, item: &Value, path: &str) -> &mut Self {
        let label = path.rsplit('/').next().unwrap_or(path).replace('_', " ");
        self.row(&label, text(item, path))
    }

    /// Several members.
    pub(super) fn members(&mut self, item: &Value, paths: &[&str]) -> &mut Self {
        for path in paths {
            self.member(item, path);
        }
        self
    }

    /// A member that is a time: as it is, and from now.
    pub(super) fn time(&mut self, item: &Value, path: &str) -> &mut Self {
        let Some(at) = member(item, path).and_then(Value::as_str).and_then(Timestamp::parse) else { return self };
        let label = path.replace("_at", "");
        self.row(&label, format!("{at}  ({})", age(at, self.now)))
    }

    /// A line of its own making, unless it says nothing.
    pub(super) fn row(&mut self, label: &str, text: String) -> &mut Self {
        if !text.is_empty() {
            self.rows.push((label.to_owned(), text));
        }
        self
    }

    /// A part with a heading of its own; nothing if there are no lines.
    pub(super) fn part(&mut self, heading: &str, lines: Vec<String>) -> &mut Self {
        if !lines.is_empty() {
            self.flush();
            self.lines.push(String::new());
            self.lines.push(self.screen.paint(Tone::Strong, heading));
            self.lines.extend(lines.into_iter().map(|l| format!("  {l}")));
        }
        self
    }

    /// A part that shows a member at length: JSON indented, text as it is.
    pub(super) fn long(&mut self, heading: &str, value: Option<&Value>) -> &mut Self {
        let shown = match value {
            None => return self,
            Some(Value::String(text)) => harmless(text),
            Some(Value::Object(members)) if members.is_empty() => return self,
            Some(other) => serde_json::to_string_pretty(other).map_or_else(|_| plain(other), |json| escaped(&json)),
        };
        self.part(heading, shown.lines().map(str::to_owned).collect())
    }

    /// The whole text.
    pub(super) fn finish(&mut self) -> String {
        self.flush();
        self.lines.join("\n")
    }

    fn flush(&mut self) {
        let width = self.rows.iter().map(|(label, _)| label.chars().count()).max().unwrap_or(0);
        for (label, text) in self.rows.drain(..) {
            let label = format!("{label:width$}");
            // Wrapped before it is painted: colours take no room.
            let row = self.screen.wrapped(&format!("  {label}  {text}"), width + 4);
            self.lines.push(row.replacen(&label, &self.screen.paint(Tone::Quiet, &label), 1));
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_card_leaves_out_what_is_not_there() {
        let run =
            json!({"agent": "reviewer", "key": null, "created_at": "1970-01-01T00:00:00Z", "output": {"ok": true}});
        let screen = Screen::plain();
        let mut card = Card::new(&screen, Timestamp::from_secs(60), "succeeded", "run_1", "PR 7");
        card.members(&run, &["agent", "key"]).time(&run, "created_at").long("Output", run.get("output"));
        assert_eq!(
            card.finish(),
            "succeeded  run_1  PR 7\n  agent    reviewer\n  created  1970-01-01T00:00:00.000Z  (1m ago)\n\nOutput\n  {\n    \"ok\": true\n  }"
        );
    }

    #[test]
    fn json_on_the_screen_has_nothing_that_steers_it_or_is_not_seen() {
        let data = json!({"title": "a\u{9b}2J\u{202e}b\u{7f}\u{200b}", "k\u{85}": 1});
        let screen = Screen::plain();
        let shown = Card::new(&screen, Timestamp::default(), "", "evt_1", "").long("Data", Some(&data)).finish();
        assert!(shown.contains(r"a\u009b2J\u202eb\u007f\u200b") && shown.contains(r"k\u0085"), "{shown}");
        let json = shown.split_once("Data").unwrap().1;
        assert_eq!(serde_json::from_str::<Value>(json).unwrap(), data);
    }
}
