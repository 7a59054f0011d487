//! Takes the earlier copies of repeated object keys out of a JSON text and leaves every other byte as it was. A parse
//! and a new serialisation would do it too, and would change long numbers on the way.

use std::borrow::Cow;
use std::collections::HashMap;
use std::ops::Range;

use super::DEPTH_MAX;

/// More members than this are told apart by hashing: comparing each with each costs their square.
const FEW: usize = 24;

/// The text with only the last copy of each key; the text itself where no key repeats. None if it is not JSON.
pub(super) fn without(text: &str) -> Option<Cow<'_, str>> {
    let mut scan = Scan { text, at: 0, members: Vec::new(), cuts: Vec::new() };
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

/// A member of an object that is being read.
struct Member<'t> {
    key: Cow<'t, str>,
    /// Of the key: two that differ in it are two.
    mark: u64,
    /// Where it begins, behind the comma or brace before it.
    start: usize,
}

impl<'t> Member<'t> {
    fn new(key: Cow<'t, str>, start: usize) -> Self {
        let (mut head, mut tail) = ([0; 8], [0; 8]);
        let (bytes, taken) = (key.as_bytes(), key.len().min(8));
        head[..taken].copy_from_slice(&bytes[..taken]);
        tail[..taken].copy_from_slice(&bytes[bytes.len() - taken..]);
        // Names of one object often begin alike or end alike, and seldom both.
        let mark = u64::from_le_bytes(head) ^ u64::from_le_bytes(tail).rotate_left(29) ^ (key.len() as u64) << 56;
        Self { key, mark, start }
    }
}

struct Scan<'t> {
    text: &'t str,
    at: usize,
    /// Of all objects that are open, the innermost last.
    members: Vec<Member<'t>>,
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
        let first = self.members.len();
        loop {
            let start = self.at;
            self.space();
            let key = self.key()?;
            self.members.push(Member::new(key, start));
            self.eat(b':').then_some(())?;
            self.value(depth + 1)?;
            if self.eat(b'}') {
                break;
            }
            self.eat(b',').then_some(())?;
        }
        self.cut_earlier(first);
        self.members.truncate(first);
        Some(())
    }

    /// Cuts the members from `first` on that another one of the same key follows. Such a one has a member after it, so the
    /// comma goes with it.
    fn cut_earlier(&mut self, first: usize) {
        let own = &self.members[first..];
        let mut last = HashMap::new();
        if own.len() > FEW {
            // Nearly always no key comes twice, and then no mark does.
            let mut marks: Vec<u64> = own.iter().map(|member| member.mark).collect();
            marks.sort_unstable();
            if marks.windows(2).all(|pair| pair[0] != pair[1]) {
                return;
            }
            last.extend(own.iter().zip(0..).map(|(member, place)| (&*member.key, place)));
        }
        for (place, pair) in own.windows(2).enumerate() {
            let [member, next] = pair else { continue };
            let is_replaced = match last.get(&*member.key) {
                Some(last) => *last != place,
                None => own[place + 1..].iter().any(|other| other.mark == member.mark && other.key == member.key),
            };
            if is_replaced {
                self.cuts.push(member.start..next.start);
            }
        }
    }

    /// A member's key, as it reads.
    fn key(&mut self) -> Option<Cow<'t, str>> {
        let token = self.string()?;
        if token.contains('\\') {
            return serde_json::from_str(token).ok().map(Cow::Owned);
        }
        token.get(1..token.len() - 1).map(Cow::Borrowed)
    }

    /// Steps over a string; gives it as it stands there, with its quotes.
    fn string(&mut self) -> Option<&'t str> {
        let start = self.at;
        (self.peek()? == b'"').then_some(())?;
        self.at += 1;
        loop {
            self.at += memchr::memchr2(b'"', b'\\', self.text.as_bytes().get(self.at..)?)?;
            if self.peek()? == b'"' {
                break;
            }
            self.at += 2;
        }
        self.at += 1;
        self.text.get(start..self.at)
    }
}
