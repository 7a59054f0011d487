//! Tables of the API's items: a listing says which members it shows and how, this file lays them out. On a terminal the
//! table fits its width and no row takes more than one line, but ids are never cut, and a column that can be spared goes
//! before one that is read for its text becomes too narrow to read; piped, it is as wide as it needs.

use std::fmt::Write as _;

use comfy_table::{Attribute, Cell, Color, ColumnConstraint, ContentArrangement, Row, Table, TableStyle, Width};
use doorbell_core::Timestamp;
use serde_json::Value;

use super::screen::{Screen, Tone, age, span_ms};

/// Columns apart.
const GAP: u16 = 2;
/// A text that is cut short is cut to this many characters: an error's first line says what it is about.
const BRIEF_CHARS_MAX: usize = 80;
/// A text that is cut to less than this says nothing.
const TEXT_CHARS_MIN: u16 = 10;

/// One column: its heading, the member it shows (a JSON pointer without the first slash), and how.
#[derive(Clone, Copy, Debug)]
pub(super) struct Column {
    head: &'static str,
    member: &'static str,
    form: Form,
    /// What a text is not cut below, in characters, while there are columns to spare.
    chars_min: u16,
    /// The value of another member that is shown instead, where it says more.
    instead: Option<(&'static str, &'static str)>,
    /// Goes when the terminal is too narrow, the lowest number first; `show` tells it still.
    spare: Option<u8>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    Id,
    Word,
    Text,
    Brief,
    Age,
    End,
    Span,
    Switch { off: &'static str, on: &'static str },
}

impl Form {
    /// Whether it becomes shorter where the terminal is narrow.
    fn is_cut(self) -> bool {
        matches!(self, Self::Text | Self::Brief)
    }
}

impl Column {
    const fn of(head: &'static str, member: &'static str, form: Form) -> Self {
        Self { head, member, form, chars_min: TEXT_CHARS_MIN, instead: None, spare: None }
    }

    /// A text that is read for what it says: not cut below so many characters while another column can be spared.
    pub(super) const fn at_least(self, chars_min: u16) -> Self {
        Self { chars_min, ..self }
    }

    /// Shows the member `other` instead where that says `value`.
    pub(super) const fn unless(self, other: &'static str, value: &'static str) -> Self {
        Self { instead: Some((other, value)), ..self }
    }

    /// Left out where the terminal is too narrow for all; of several, the lowest `order` goes first.
    pub(super) const fn spared(self, order: u8) -> Self {
        Self { spare: Some(order), ..self }
    }

    /// Shown whole, whatever the width.
    pub(super) const fn id(head: &'static str, member: &'static str) -> Self {
        Self::of(head, member, Form::Id)
    }

    /// A state or kind, in its colour.
    pub(super) const fn word(head: &'static str, member: &'static str) -> Self {
        Self::of(head, member, Form::Word)
    }

    /// Cut where the terminal is too narrow.
    pub(super) const fn text(head: &'static str, member: &'static str) -> Self {
        Self::of(head, member, Form::Text)
    }

    /// A text of which the beginning is enough: its first line, cut short. `show` and the JSON have it whole.
    pub(super) const fn brief(head: &'static str, member: &'static str) -> Self {
        Self::of(head, member, Form::Brief)
    }

    /// A time, as seen from now.
    pub(super) const fn age(head: &'static str, member: &'static str) -> Self {
        Self::of(head, member, Form::Age)
    }

    /// A time that ends something, as seen from now: `in 3d`, `ended 3d ago`.
    pub(super) const fn end(head: &'static str, member: &'static str) -> Self {
        Self::of(head, member, Form::End)
    }

    /// How long it took from `started_at` to the given member, or until now while that is missing.
    pub(super) const fn span(head: &'static str, member: &'static str) -> Self {
        Self::of(head, member, Form::Span)
    }

    /// A yes or no in words.
    pub(super) const fn switch(head: &'static str, member: &'static str, off: &'static str, on: &'static str) -> Self {
        Self::of(head, member, Form::Switch { off, on })
    }

    /// The cell's text for an item; empty if the member is missing.
    pub(super) fn text_of(&self, item: &Value, now: Timestamp) -> String {
        if let Some((_, word)) = self.instead.filter(|(other, word)| member(item, other).is_some_and(|v| v == word)) {
            return word.to_owned();
        }
        let value = member(item, self.member);
        match self.form {
            Form::Id | Form::Word | Form::Text => value.map(plain).unwrap_or_default(),
            Form::Brief => value.map(brief).unwrap_or_default(),
            Form::Age => value.and_then(time).map(|at| age(at, now)).unwrap_or_default(),
            Form::End => match value.and_then(time) {
                Some(at) if at <= now => format!("ended {}", age(at, now)),
                Some(at) => age(at, now),
                None => String::new(),
            },
            Form::Span => {
                let Some(start) = member(item, "started_at").and_then(time) else { return String::new() };
                let end = value.and_then(time).unwrap_or(now);
                span_ms(end.since(start).as_millis())
            }
            Form::Switch { off, on } => match value.and_then(Value::as_bool) {
                Some(true) => on.to_owned(),
                Some(false) => off.to_owned(),
                None => String::new(),
            },
        }
    }
}

/// The member at `path` (`run/id`), unless it is null.
pub(super) fn member<'v>(item: &'v Value, path: &str) -> Option<&'v Value> {
    path.split('/').try_fold(item, |value, step| value.get(step)).filter(|v| !v.is_null())
}

/// A member as text; empty if there is none.
pub(super) fn text(item: &Value, path: &str) -> String {
    member(item, path).map(plain).unwrap_or_default()
}

/// A value for people, on one line and without control characters: what it holds may come from a sender.
pub(super) fn plain(value: &Value) -> String {
    let text = match value {
        Value::String(s) => s.clone(),
        Value::Array(items) => items.iter().map(plain).collect::<Vec<_>>().join(", "),
        Value::Null => String::new(),
        other => other.to_string(),
    };
    one_line(&text)
}

/// The first line of a text, cut short. Words of an agent stand in errors with their line feeds written as `\n`.
pub(super) fn brief(value: &Value) -> String {
    let whole = value.as_str().map_or_else(|| plain(value), |text| text.trim().to_owned());
    let line = whole.split('\n').next().and_then(|line| line.split("\\n").next()).unwrap_or_default();
    let mut short: String = line.chars().take(BRIEF_CHARS_MAX).collect();
    if short.len() < whole.len() {
        short.truncate(short.trim_end().len());
        short.push('…');
    }
    one_line(&short)
}

/// `text` with every control character as a blank, so that it can neither break a line nor steer the terminal, and with
/// what is not seen made visible.
pub(super) fn one_line(text: &str) -> String {
    let plain: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    escaped(&plain)
}

/// `text` without control characters but line feeds and tabs, and with what is not seen made visible: an agent's words,
/// which must neither steer the terminal nor look like others than they are.
pub(super) fn harmless(text: &str) -> String {
    let plain: String = text.chars().filter(|c| !c.is_control() || matches!(c, '\n' | '\t')).collect();
    escaped(&plain)
}

/// `text` with C1 control characters and what a person does not see (zero-width, bidirectional, tags) as `\u202e`, the
/// escape of JSON, so that JSON stays the same JSON. Line feeds and tabs stay.
pub(super) fn escaped(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for c in text.chars() {
        if is_hidden(c) {
            let mut units = [0; 2];
            for unit in c.encode_utf16(&mut units) {
                let _ = write!(shown, "\\u{unit:04x}");
            }
        } else {
            shown.push(c);
        }
    }
    shown
}

/// Delete and C1; format characters of Unicode 16 (category Cf) that have no ink; fillers and blanks; line ends that are
/// no line feed; variation selectors are left out, since emoji are written with them.
fn is_hidden(c: char) -> bool {
    matches!(u32::from(c),
        0x7f..=0x9f | 0xad | 0x34f | 0x61c | 0x115f | 0x1160 | 0x17b4 | 0x17b5 | 0x180e | 0x200b..=0x200f
        | 0x2028..=0x202e | 0x2060..=0x206f | 0x2800 | 0x3164 | 0xfeff | 0xffa0 | 0xfff0..=0xfffb
        | 0x13430..=0x1343f | 0x1bca0..=0x1bca3 | 0x1d173..=0x1d17a | 0xe0000..=0xe0fff)
}

fn time(value: &Value) -> Option<Timestamp> {
    value.as_str().and_then(Timestamp::parse)
}

/// Lays `items` out.
pub(super) fn render(screen: &Screen, columns: &[Column], items: &[Value], now: Timestamp) -> String {
    let mut table = frame(screen);
    // A column that no item fills would only take room.
    let columns: Vec<&Column> =
        columns.iter().filter(|c| items.iter().any(|item| !c.text_of(item, now).is_empty())).collect();
    let room = fitting(columns, items, now, screen.width().unwrap_or(u16::MAX));
    let columns: Vec<&Column> = room.iter().map(|(column, _)| *column).collect();
    table.set_header(columns.iter().map(|c| Cell::new(c.head).add_attribute(Attribute::Bold)));
    for item in items {
        let mut row = Row::new();
        for column in &columns {
            let text = column.text_of(item, now);
            let tone = if column.form == Form::Id { Tone::Plain } else { tone_of(column, &text) };
            row.add_cell(cell(&text, tone));
        }
        row.max_height(1);
        table.add_row(row);
    }
    settle(&mut table, |i| room.get(i).filter(|(column, _)| column.form.is_cut()).map(|(_, chars)| *chars))
}

/// The columns that there is room for in `width`, each with the characters it gets at least: first those that can be
/// spared go, then texts become shorter, the longest first.
fn fitting<'c>(mut columns: Vec<&'c Column>, items: &[Value], now: Timestamp, width: u16) -> Vec<(&'c Column, u16)> {
    let excess = |room: &[(&Column, u16)]| {
        let all: u32 = room.iter().map(|(_, chars)| u32::from(*chars) + u32::from(GAP)).sum();
        all.saturating_sub(u32::from(width) + u32::from(GAP))
    };
    let rooms = |columns: &[&'c Column]| columns.iter().map(|c| (*c, needed(c, items, now))).collect::<Vec<_>>();
    let mut room = rooms(&columns);
    while excess(&room) > 0 {
        let next = columns.iter().enumerate().filter_map(|(i, c)| Some((c.spare?, i))).min();
        let Some((_, i)) = next else { break };
        columns.remove(i);
        room = rooms(&columns);
    }
    for _ in 0..excess(&room) {
        let texts = room.iter_mut().filter(|(c, chars)| c.form.is_cut() && *chars > TEXT_CHARS_MIN);
        match texts.max_by_key(|(_, chars)| *chars) {
            Some((_, chars)) => *chars -= 1,
            None => break,
        }
    }
    room
}

/// The room that a column needs at least, in characters, without the gap.
fn needed(column: &Column, items: &[Value], now: Timestamp) -> u16 {
    let texts = items.iter().map(|item| column.text_of(item, now).chars().count());
    let longest = texts.max().unwrap_or(0).max(column.head.len());
    let least = match column.form {
        Form::Text | Form::Brief => longest.min(usize::from(column.chars_min).max(column.head.len())),
        _ => longest,
    };
    u16::try_from(least).unwrap_or(u16::MAX)
}

/// The table's text. A column may be cut, but not below the characters that `cut` gives for it; with none it is never cut.
pub(super) fn settle(table: &mut Table, cut: impl Fn(usize) -> Option<u16>) -> String {
    let last = table.column_count().saturating_sub(1);
    for (i, column) in table.column_iter_mut().enumerate() {
        let gap = if i == last { 0 } else { GAP };
        column.set_padding((0, gap));
        column.set_constraint(match cut(i) {
            None => ColumnConstraint::ContentWidth,
            // The library counts the padding as part of the column.
            Some(chars_min) => ColumnConstraint::LowerBoundary(Width::Fixed(chars_min.saturating_add(gap))),
        });
    }
    table.trim_fmt()
}

fn tone_of(column: &Column, text: &str) -> Tone {
    match column.form {
        Form::Word | Form::Switch { .. } => Tone::of(text),
        Form::Age => Tone::Quiet,
        _ => Tone::Plain,
    }
}

/// A cell in the colour of its tone.
pub(super) fn cell(text: &str, tone: Tone) -> Cell {
    let cell = Cell::new(text);
    match tone {
        Tone::Good => cell.fg(Color::Green),
        Tone::Bad => cell.fg(Color::Red),
        Tone::Active => cell.fg(Color::Cyan),
        Tone::Waiting => cell.fg(Color::Yellow),
        Tone::Quiet => cell.add_attribute(Attribute::Dim),
        Tone::Strong => cell.add_attribute(Attribute::Bold),
        Tone::Plain => cell,
    }
}

/// An empty table without lines, as wide as the terminal at most.
pub(super) fn frame(screen: &Screen) -> Table {
    let mut table = Table::new();
    table.load_style(TableStyle::new()).set_truncation_indicator("…");
    match screen.width() {
        Some(width) => table.set_content_arrangement(ContentArrangement::Dynamic).set_width(width),
        None => table.set_content_arrangement(ContentArrangement::Disabled),
    };
    if screen.colour() {
        table.enforce_styling();
    } else {
        table.force_no_tty();
    }
    table
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const COLUMNS: &[Column] = &[
        Column::id("ID", "id"),
        Column::word("STATE", "state"),
        Column::text("TITLE", "title"),
        Column::span("TOOK", "finished_at"),
        Column::age("MADE", "created_at"),
        Column::text("ERROR", "error"),
    ];

    #[test]
    fn a_table_shows_what_its_items_have() {
        let now = Timestamp::parse("2026-01-01T00:01:00Z").unwrap();
        let items = [
            json!({"id": "run_1", "state": "succeeded", "title": "PR 7", "created_at": "2026-01-01T00:00:00Z",
                   "started_at": "2026-01-01T00:00:00Z", "finished_at": "2026-01-01T00:00:02.500Z"}),
            json!({"id": "run_2", "state": "queued", "title": "PR 8", "created_at": "2026-01-01T00:00:57Z"}),
        ];
        let shown = render(&Screen::plain(), COLUMNS, &items, now);
        let shown: Vec<String> = shown.lines().map(|l| l.split_whitespace().collect::<Vec<_>>().join(" ")).collect();
        assert_eq!(shown, ["ID STATE TITLE TOOK MADE", "run_1 succeeded PR 7 2.5s 1m ago", "run_2 queued PR 8 3s ago"]);
    }

    #[test]
    fn a_brief_text_is_its_first_line_cut_short() {
        let brief = |text: &str| brief(&json!(text));
        assert_eq!(brief("exit code 1; its log ends: no money"), "exit code 1; its log ends: no money");
        assert_eq!(brief(r"its log ends: Traceback:\n  File a.py\nKeyError"), "its log ends: Traceback:…");
        assert_eq!(brief("one \ntwo"), "one…");
        let long = brief(&"ä ".repeat(100));
        assert!(long.chars().count() <= BRIEF_CHARS_MAX + 1 && long.ends_with("ä…"), "{long}");
    }

    #[test]
    fn what_has_ended_is_marked() {
        let at = |text: &str| {
            let item = json!({"until": "2026-01-01T00:01:00Z"});
            Column::end("UNTIL", "until").text_of(&item, Timestamp::parse(text).unwrap())
        };
        assert_eq!(at("2026-01-01T00:00:30Z"), "in 30s");
        assert_eq!(at("2026-01-01T00:01:00Z"), "ended 0ms ago");
        assert_eq!(at("2026-01-01T00:03:00Z"), "ended 2m ago");
    }

    #[test]
    fn a_narrow_terminal_spares_columns_before_a_text_becomes_unreadable() {
        const NARROW: &[Column] = &[
            Column::id("ID", "id"),
            Column::text("REASON", "reason").at_least(24),
            Column::id("EVENT", "event").spared(1),
            Column::text("NOTE", "note").spared(2),
        ];
        let reason = "the filter of every trigger of this source said no";
        let items = [
            json!({"id": "dec_000000000000000000", "reason": reason, "event": "evt_000000000000000000", "note": "abc"}),
        ];
        let at = |width| {
            let shown = render(&Screen::wide(width), NARROW, &items, Timestamp::default());
            assert!(shown.lines().all(|l| l.chars().count() <= usize::from(width)), "{width}:\n{shown}");
            assert!(shown.contains("dec_000000000000000000"), "{width}: ids are never cut:\n{shown}");
            assert!(width < 50 || shown.contains(&reason[..19]), "{width}:\n{shown}");
            let heads = shown.lines().next().unwrap_or_default().split_whitespace().map(str::to_owned);
            heads.collect::<Vec<_>>().join(" ")
        };
        assert_eq!(at(140), "ID REASON EVENT NOTE");
        assert_eq!(at(80), "ID REASON EVENT NOTE");
        assert_eq!(at(70), "ID REASON NOTE");
        assert_eq!(at(50), "ID REASON");
        assert_eq!(at(40), "ID REASON");
    }

    #[test]
    fn what_a_sender_wrote_cannot_steer_the_terminal() {
        let now = Timestamp::default();
        let items = [json!({"id": "run_1", "title": "a\u{1b}[2Jb\nc"})];
        let shown = render(&Screen::plain(), COLUMNS, &items, now);
        assert!(!shown.contains('\u{1b}'));
        assert_eq!(shown.lines().count(), 2);
        assert_eq!(harmless("a\u{1b}[2J\nb\r\tc"), "a[2J\nb\tc");
        assert_eq!(harmless("a\u{202e}b\u{9b}c"), "a\\u202ebc");
        assert_eq!(one_line("a\u{200b}\u{e0041}\u{85}b ä😀"), "a\\u200b\\udb40\\udc41 b ä😀");
    }
}
