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

/// The keys of an object so far, by the place of their last copy. Most objects have a few keys, which are found sooner by
/// looking at each than by hashing; one with many keys must not cost their square.
#[derive(Default)]
struct Keys<'t> {
    count: usize,
    few: Vec<Cow<'t, str>>,
    many: HashMap<Cow<'t, str>, usize>,
}

impl<'t> Keys<'t> {
    const FEW: usize = 24;

    /// Takes the next key; the place of its earlier copy, if there is one.
    fn add(&mut self, key: Cow<'t, str>) -> Option<usize> {
        let place = self.count;
        self.count += 1;
        if place < Self::FEW {
            let earlier = self.few.iter().rposition(|known| *known == key);
            self.few.push(key);
            return earlier;
        }
        if self.many.is_empty() {
            self.many.extend(self.few.drain(..).zip(0..));
        }
        self.many.insert(key, place)
    }
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
        let mut keys = Keys::default();
        let mut starts: Vec<usize> = Vec::new();
        let mut replaced: Vec<usize> = Vec::new();
        loop {
            starts.push(self.at);
            self.space();
            replaced.extend(keys.add(self.string()?));
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
