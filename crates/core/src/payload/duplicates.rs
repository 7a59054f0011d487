//! Takes the earlier copies of repeated object keys out of a JSON text and leaves every other byte as it was. A parse
//! and a new serialisation would do it too, and would change long numbers on the way.

use std::borrow::Cow;
use std::collections::HashMap;
use std::ops::Range;

use super::DEPTH_MAX;

/// The text with only the last copy of each key; the text itself where no key repeats. None if it is not JSON.
pub(super) fn without(text: &str) -> Option<Cow<'_, str>> {
    let mut scan = Scan { text, at: 0, cuts: Vec::new() };
    scan.value(0)?;
    let mut cuts = scan.cuts;
    if cuts.is_empty() {
        return Some(Cow::Borrowed(text));
    }
    // A cut may lie within another one: the outer starts first.
    cuts.sort_by_key(|cut| cut.start);
    let mut out = String::with_capacity(text.len());
    let mut done = 0;
    for cut in cuts {
        out.push_str(text.get(done..cut.start).unwrap_or_default());
        done = done.max(cut.end);
    }
    out.push_str(text.get(done..)?);
    Some(Cow::Owned(out))
}

struct Scan<'t> {
    text: &'t str,
    at: usize,
    cuts: Vec<Range<usize>>,
}

impl<'t> Scan<'t> {
    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    fn space(&mut self) {
        while self.peek().is_some_and(|b| matches!(b, b' ' | b'\t' | b'\n' | b'\r')) {
            self.at += 1;
        }
    }

    /// Steps over `byte` and the space before it, if it is next.
    fn eat(&mut self, byte: u8) -> bool {
        self.space();
        let next = self.peek() == Some(byte);
        self.at += usize::from(next);
        next
    }

    fn value(&mut self, depth: usize) -> Option<()> {
        if depth > DEPTH_MAX {
            return None;
        }
        self.space();
        match self.peek()? {
            b'{' => self.object(depth),
            b'[' => {
                self.at += 1;
                if self.eat(b']') {
                    return Some(());
                }
                loop {
                    self.value(depth + 1)?;
                    if self.eat(b']') {
                        return Some(());
                    }
                    self.eat(b',').then_some(())?;
                }
            }
            b'"' => self.string().map(drop),
            _ => {
                let rest = &self.text.as_bytes()[self.at..];
                let end = rest.iter().position(|b| matches!(b, b',' | b']' | b'}' | b' ' | b'\t' | b'\n' | b'\r'));
                self.at += end.unwrap_or(rest.len());
                Some(())
            }
        }
    }

    fn object(&mut self, depth: usize) -> Option<()> {
        self.at += 1;
        if self.eat(b'}') {
            return Some(());
        }
        // Where each key's last copy so far starts, and where the member after it does.
        let mut seen: HashMap<Cow<'t, str>, usize> = HashMap::new();
        let mut starts: Vec<usize> = Vec::new();
        let mut replaced: Vec<usize> = Vec::new();
        loop {
            starts.push(self.at);
            self.space();
            let key = self.string()?;
            if let Some(earlier) = seen.insert(key, starts.len() - 1) {
                replaced.push(earlier);
            }
            self.eat(b':').then_some(())?;
            self.value(depth + 1)?;
            if self.eat(b'}') {
                break;
            }
            self.eat(b',').then_some(())?;
        }
        // A copy that was replaced has a member after it, so the comma goes with it.
        self.cuts.extend(replaced.into_iter().filter_map(|i| Some(*starts.get(i)?..*starts.get(i + 1)?)));
        Some(())
    }

    fn string(&mut self) -> Option<Cow<'t, str>> {
        let start = self.at;
        (self.peek()? == b'"').then_some(())?;
        self.at += 1;
        let mut escaped = false;
        loop {
            self.at += memchr::memchr2(b'"', b'\\', self.text.as_bytes().get(self.at..)?)?;
            if self.peek()? == b'"' {
                break;
            }
            escaped = true;
            self.at += 2;
        }
        self.at += 1;
        let token = self.text.get(start..self.at)?;
        if escaped {
            return serde_json::from_str(token).ok().map(Cow::Owned);
        }
        token.get(1..token.len() - 1).map(Cow::Borrowed)
    }
}
