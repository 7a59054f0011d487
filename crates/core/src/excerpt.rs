//! Foreign text made fit for an error message: short, on one line, with nothing that moves a terminal's cursor or turns
//! the reading direction. Called wherever an agent's words go into an [`Outcome`](crate::attempt::Outcome).

/// How much of an agent's words an error message carries, in bytes.
pub const EXCERPT: usize = 400;

/// The last part of `bytes`, with an ellipsis if something was left out.
pub fn tail(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    let text = text.trim_end();
    let mut start = text.len().saturating_sub(EXCERPT);
    while !text.is_char_boundary(start) {
        start += 1;
    }
    format!("{}{}", if start > 0 { "…" } else { "" }, visible(&text[start..]))
}

/// The first part of `text`, with an ellipsis if something was left out.
pub fn head(text: &str) -> String {
    let text = text.trim();
    let mut end = text.len().min(EXCERPT);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    format!("{}{}", visible(&text[..end]), if end < text.len() { "…" } else { "" })
}

/// Control characters, and those that are invisible or reorder the line (Unicode's bidirectional and zero-width formats),
/// written as escapes.
fn visible(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            c if c.is_control() => out.extend(c.escape_default()),
            '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}' => {
                out.extend(c.escape_unicode());
            }
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_characters_are_made_visible() {
        assert_eq!(tail(b"a\x1b[2Jb\n\x00c\xff\n"), "a\\u{1b}[2Jb\\n\\u{0}c\u{fffd}");
        assert_eq!(head("x\u{202e}y"), "x\\u{202e}y");
    }

    #[test]
    fn long_text_is_cut_between_characters() {
        let long = "ä".repeat(EXCERPT);
        assert_eq!(tail(long.as_bytes()), format!("…{}", "ä".repeat(EXCERPT / 2)));
        assert_eq!(head(&format!("x{long}")), format!("x{}…", "ä".repeat(EXCERPT / 2 - 1)));
    }
}
