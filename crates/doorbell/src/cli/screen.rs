//! Standard output: whether it is a terminal, how wide, whether in colour. Every command writes through [`Screen`], so that
//! a reader that went away ends the command quietly.

use std::io::{IsTerminal as _, Write as _};

use doorbell_core::Timestamp;
use owo_colors::Style;

use super::Env;

/// Standard output was closed by its reader (`doorbell runs | head -1`): nothing to report.
#[derive(Debug, thiserror::Error)]
#[error("standard output was closed")]
pub(super) struct Closed;

/// Standard output and how to write on it.
#[derive(Clone, Debug)]
pub struct Screen {
    colour: bool,
    terminal: bool,
    width: Option<u16>,
}

/// What a word stands for, from which its colour follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tone {
    /// Went as it should.
    Good,
    /// Went wrong.
    Bad,
    /// Under way.
    Active,
    /// Waits for something.
    Waiting,
    /// Of no further interest.
    Quiet,
    /// A heading.
    Strong,
    /// Text.
    Plain,
}

impl Tone {
    /// Of a run state, a decision or a switch.
    pub fn of(word: &str) -> Self {
        match word {
            "succeeded" | "accepted" | "handshake" | "paired" | "forwarded" => Self::Good,
            "failed" | "rejected" | "unreadable" | "filter_error" | "unavailable" | "limited" | "secret_missing"
            | "secret_unusable" | "secret_unreadable" => Self::Bad,
            "running" => Self::Active,
            "queued" | "waiting" | "paused" => Self::Waiting,
            "cancelled" | "duplicate" | "ignored" | "disabled" => Self::Quiet,
            _ => Self::Plain,
        }
    }

    fn style(self) -> Style {
        match self {
            Self::Good => Style::new().green(),
            Self::Bad => Style::new().red(),
            Self::Active => Style::new().cyan(),
            Self::Waiting => Style::new().yellow(),
            Self::Quiet => Style::new().dimmed(),
            Self::Strong => Style::new().bold(),
            Self::Plain => Style::new(),
        }
    }
}

impl Screen {
    /// Colours only on a terminal, and not with `NO_COLOR` or `TERM=dumb`; `COLUMNS` sets the width where it is exported.
    pub fn new(env: &Env) -> Self {
        let terminal = std::io::stdout().is_terminal();
        let colour = terminal && !no_colour(env);
        let told = env.get("COLUMNS").and_then(|c| c.parse().ok());
        let width = told.or_else(|| comfy_table::Table::new().width());
        Self { colour, terminal, width: width.filter(|_| terminal) }
    }

    /// Standard error, for failures: how wide it is, without colours.
    pub fn of_errors() -> Self {
        let terminal = std::io::stderr().is_terminal();
        let width = comfy_table::Table::new().width().filter(|_| terminal);
        Self { colour: false, terminal, width }
    }

    /// Plain text of any width, as when piped.
    #[cfg(test)]
    pub fn plain() -> Self {
        Self { colour: false, terminal: false, width: None }
    }

    /// A terminal of this width, without colours.
    #[cfg(test)]
    pub fn wide(width: u16) -> Self {
        Self { colour: false, terminal: true, width: Some(width) }
    }

    /// `text` broken at blanks so that it fits the terminal, each further line behind `indent` blanks; as it is where
    /// there is no terminal. A word that is longer than the line stays whole. Line feeds of the text stay.
    pub fn wrapped(&self, text: &str, indent: usize) -> String {
        let Some(width) = self.width.map(usize::from) else { return text.to_owned() };
        text.split('\n').map(|line| wrap(line, width, indent)).collect::<Vec<_>>().join("\n")
    }

    /// Whether a person watches.
    pub fn is_terminal(&self) -> bool {
        self.terminal
    }

    /// Whether to colour.
    pub fn colour(&self) -> bool {
        self.colour
    }

    /// Columns, if it is a terminal.
    pub fn width(&self) -> Option<u16> {
        self.width
    }

    /// `text` in the colour of `tone`, if colours are on.
    pub fn paint(&self, tone: Tone, text: &str) -> String {
        use owo_colors::OwoColorize as _;
        if self.colour && tone != Tone::Plain { text.style(tone.style()).to_string() } else { text.to_owned() }
    }

    /// Writes `text` and a line feed.
    ///
    /// # Errors
    /// [`Closed`] if the reader went away, else what the system says.
    pub fn line(&self, text: impl std::fmt::Display) -> anyhow::Result<()> {
        self.write(format!("{text}\n").as_bytes())
    }

    /// Writes bytes as they are and flushes.
    ///
    /// # Errors
    /// [`Closed`] if the reader went away, else what the system says.
    pub fn write(&self, bytes: &[u8]) -> anyhow::Result<()> {
        let mut out = std::io::stdout().lock();
        out.write_all(bytes).and_then(|()| out.flush()).map_err(|error| match error.kind() {
            std::io::ErrorKind::BrokenPipe => Closed.into(),
            _ => anyhow::Error::from(error).context("cannot write to standard output"),
        })
    }

    /// Writes a remark for the person on standard error, where it does not get into a pipe.
    pub fn remark(&self, text: impl std::fmt::Display) {
        // A closed standard error means that nobody wants to know.
        let _ = writeln!(std::io::stderr().lock(), "{text}");
    }
}

fn wrap(line: &str, width: usize, indent: usize) -> String {
    let lead = line.len() - line.trim_start_matches(' ').len();
    let mut wrapped = line[..lead].to_owned();
    let mut room = width.saturating_sub(lead);
    for (i, word) in line[lead..].split(' ').enumerate() {
        let length = word.chars().count();
        if i > 0 && length + 1 > room {
            wrapped.push('\n');
            wrapped.push_str(&" ".repeat(indent));
            room = width.saturating_sub(indent);
        } else if i > 0 {
            wrapped.push(' ');
            room -= 1;
        }
        wrapped.push_str(word);
        room = room.saturating_sub(length);
    }
    wrapped
}

/// Whether the environment asks for no colours (<https://no-color.org>).
pub(super) fn no_colour(env: &Env) -> bool {
    env.get("NO_COLOR").is_some_and(|v| !v.is_empty()) || env.get("TERM").is_some_and(|t| t == "dumb")
}

/// `at` as seen from `now`: `12s ago`, `in 3m`.
pub(super) fn age(at: Timestamp, now: Timestamp) -> String {
    let (past, future) = (now.since(at), at.since(now));
    if future.is_zero() {
        format!("{} ago", span_ms(past.as_millis()))
    } else {
        format!("in {}", span_ms(future.as_millis()))
    }
}

/// A length of time in its one or two largest units: `250ms`, `4.2s`, `3m10s`, `2h`, `5d`.
pub(super) fn span_ms(ms: u128) -> String {
    let two = |big: u128, unit: &str, small: u128, small_unit: &str| match small {
        0 => format!("{big}{unit}"),
        _ => format!("{big}{unit}{small}{small_unit}"),
    };
    let s = ms / 1000;
    match s {
        0 => format!("{ms}ms"),
        1..10 if ms % 1000 >= 100 => format!("{s}.{}s", ms % 1000 / 100),
        1..10 => format!("{s}s"),
        10..60 => format!("{s}s"),
        60..600 => two(s / 60, "m", s % 60, "s"),
        600..3600 => format!("{}m", s / 60),
        3600..36_000 => two(s / 3600, "h", s % 3600 / 60, "m"),
        36_000..172_800 => format!("{}h", s / 3600),
        _ => format!("{}d", s / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_span_shows_its_largest_units() {
        let shown =
            [0, 999, 1_250, 3_000, 12_900, 61_000, 120_000, 725_000, 3_700_000, 90_000_000, 864_000_000].map(span_ms);
        assert_eq!(shown, ["0ms", "999ms", "1.2s", "3s", "12s", "1m1s", "2m", "12m", "1h1m", "25h", "10d"]);
    }

    #[test]
    fn a_text_is_broken_between_words_only() {
        let text = "  GitHub, forged: not verified: wanted a signature\nhttp://127.0.0.1:8080/a-very-long-path x";
        let wrapped = Screen::wide(24).wrapped(text, 4);
        assert_eq!(
            wrapped,
            "  GitHub, forged: not\n    verified: wanted a\n    signature\nhttp://127.0.0.1:8080/a-very-long-path\n    x"
        );
        assert_eq!(wrapped.split_whitespace().collect::<Vec<_>>(), text.split_whitespace().collect::<Vec<_>>());
        assert_eq!(Screen::plain().wrapped(text, 4), text);
    }

    #[test]
    fn a_time_is_told_from_now() {
        let now = Timestamp::from_secs(1000);
        assert_eq!(age(Timestamp::from_secs(940), now), "1m ago");
        assert_eq!(age(Timestamp::from_secs(1030), now), "in 30s");
        assert_eq!(age(now, now), "0ms ago");
    }

    #[test]
    fn no_color_counts_only_when_it_says_something() {
        let env = |pairs: &[(&str, &str)]| pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        assert!(no_colour(&env(&[("NO_COLOR", "1")])));
        assert!(!no_colour(&env(&[("NO_COLOR", "")])));
        assert!(no_colour(&env(&[("TERM", "dumb")])));
    }
}
