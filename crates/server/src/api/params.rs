//! Query parameters, read strictly: one that is unknown, repeated or wrong is a 400 that names it. Silence would answer
//! another question than the one that was asked.

use std::fmt::Display;
use std::str::FromStr;

use doorbell_core::Timestamp;
use doorbell_core::ports::{PageFrom, PageRequest};

use super::list;
use crate::problem::Problem;

/// A list's items, unless asked otherwise, and at most.
pub(crate) const LIMIT: (usize, usize) = (50, 500);
/// More parameters than any call has.
const COUNT_MAX: usize = 64;
/// Longer than any name, type or phrase that is looked for.
const TEXT_MAX: usize = 300;

/// The parameters of one request; each call takes those it knows and then asks for the [`end`](Params::end).
pub(crate) struct Params {
    left: Vec<(String, String)>,
    known: Vec<&'static str>,
}

impl Params {
    pub(crate) fn read(query: Option<&str>) -> Result<Self, Problem> {
        let left: Vec<(String, String)> =
            form_urlencoded::parse(query.unwrap_or_default().as_bytes()).into_owned().take(COUNT_MAX + 1).collect();
        if left.len() > COUNT_MAX {
            return Err(Problem::bad(format!("more than {COUNT_MAX} query parameters")));
        }
        for (name, value) in &left {
            if value.chars().count() > TEXT_MAX || value.chars().any(char::is_control) {
                let detail = format!(
                    "query parameter `{name:.50}` is longer than {TEXT_MAX} characters or holds control characters"
                );
                return Err(Problem::bad(detail));
            }
        }
        Ok(Self { left, known: Vec::new() })
    }

    /// A text; an empty one is none.
    pub(crate) fn text(&mut self, name: &'static str) -> Result<Option<String>, Problem> {
        let mut all = self.take(name);
        match all.len() {
            0 => Ok(None),
            1 => Ok(all.pop().filter(|t| !t.is_empty())),
            _ => Err(Problem::bad(format!("query parameter `{name}` is given more than once"))),
        }
    }

    /// A value of its own form.
    pub(crate) fn parsed<T: FromStr<Err: Display>>(&mut self, name: &'static str) -> Result<Option<T>, Problem> {
        self.text(name)?.map(|text| parse(name, &text)).transpose()
    }

    /// Several values, by repetition or with commas.
    pub(crate) fn several<T: FromStr<Err: Display>>(&mut self, name: &'static str) -> Result<Vec<T>, Problem> {
        let all = self.take(name);
        all.iter().flat_map(|t| t.split(',')).filter(|t| !t.is_empty()).map(|t| parse(name, t)).collect()
    }

    /// A time in RFC 3339.
    pub(crate) fn time(&mut self, name: &'static str) -> Result<Option<Timestamp>, Problem> {
        let Some(text) = self.text(name)? else { return Ok(None) };
        // An unescaped `+` of an offset arrives as a space.
        let time = Timestamp::parse(&text.replace(' ', "+"));
        time.map(Some).ok_or_else(|| {
            Problem::bad(format!(
                "query parameter `{name}`: `{text}` is not an RFC 3339 time such as 2026-01-31T12:00:00Z"
            ))
        })
    }

    /// `limit` alone.
    pub(crate) fn limit(&mut self) -> Result<usize, Problem> {
        let limit = self.parsed("limit")?.unwrap_or(LIMIT.0);
        if !(1..=LIMIT.1).contains(&limit) {
            return Err(Problem::bad(format!("query parameter `limit`: {limit} is not between 1 and {}", LIMIT.1)));
        }
        Ok(limit)
    }

    /// `limit` and `cursor`.
    pub(crate) fn page(&mut self) -> Result<PageRequest, Problem> {
        let limit = self.limit()?;
        let from = match self.text("cursor")? {
            None => PageFrom::Start,
            Some(cursor) => list::read_cursor(&cursor).ok_or_else(|| {
                Problem::bad("query parameter `cursor` is not one that this server gave: start again without it")
            })?,
        };
        Ok(PageRequest { limit, from })
    }

    /// Whatever nobody took is unknown.
    pub(crate) fn end(self) -> Result<(), Problem> {
        let Some((name, _)) = self.left.first() else { return Ok(()) };
        let known = if self.known.is_empty() { "none".to_owned() } else { self.known.join(", ") };
        Err(Problem::bad(format!("query parameter `{name:.50}` is unknown; known: {known}")))
    }

    fn take(&mut self, name: &'static str) -> Vec<String> {
        self.known.push(name);
        self.left.extract_if(.., |(n, _)| n == name).map(|(_, value)| value).collect()
    }
}

fn parse<T: FromStr<Err: Display>>(name: &str, text: &str) -> Result<T, Problem> {
    text.parse().map_err(|why| Problem::bad(format!("query parameter `{name}`: {why}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_unknown_repeated_or_wrong_is_named() {
        let read = |query: &str| -> Result<(), Problem> {
            let mut p = Params::read(Some(query))?;
            p.text("agent")?;
            p.several::<u8>("state")?;
            p.time("since")?;
            p.page()?;
            p.end()
        };
        for good in [
            "",
            "agent=a&limit=500&since=2026-01-31T12:00:00%2B01:00&state=1,2&state=3",
            "since=2026-01-31T12:00:00+01:00",
        ] {
            assert!(read(good).is_ok(), "{good}");
        }
        for (bad, word) in [
            ("agnet=a", "`agnet` is unknown; known: agent, state, since, limit, cursor"),
            ("agent=a&agent=b", "`agent` is given more than once"),
            ("limit=0", "`limit`"),
            ("limit=501", "`limit`"),
            ("limit=many", "`limit`"),
            ("state=1,x", "`state`"),
            ("since=yesterday", "`since`"),
            ("cursor=xyz", "`cursor`"),
            ("agent=a%00", "`agent`"),
        ] {
            let problem = read(bad).unwrap_err();
            assert_eq!(problem.status, 400, "{bad}");
            assert!(problem.detail.contains(word), "{bad}: {}", problem.detail);
        }
    }
}
