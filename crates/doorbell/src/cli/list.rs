//! Lists of the API on the screen: paging, the filters that all lists share, and the one-line verbs. Called by the file of
//! each noun, which says what may be filtered and which columns are shown.

use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use anyhow::Result;
use doorbell_core::Timestamp;
use serde_json::Value;

use super::Context;
use super::access::{Access, DEFAULT_CONFIG};
use super::client::Client;
use super::fault::{Exit, Fault, describe_short};
use super::table::{self, Column};

/// A page of this many is fetched at once with `--all`.
const PAGE: usize = 200;

/// Which part of a list, and how it is printed.
#[derive(Clone, Debug, Default, clap::Args)]
pub(super) struct Paging {
    /// At most this many
    #[arg(long, value_name = "N", default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=500))]
    limit: u32,
    /// Go on from here: the cursor that the page before told
    #[arg(long, value_name = "CURSOR", conflicts_with = "all")]
    next: Option<String>,
    /// Everything, page after page
    #[arg(long, conflicts_with = "limit")]
    all: bool,
    /// Containing this text
    #[arg(short, long, value_name = "TEXT")]
    q: Option<String>,
}

/// When it happened.
#[derive(Clone, Debug, Default, clap::Args)]
struct Search {
    /// Made at or after: a time such as 2026-01-31T08:00:00Z, or 10m, 2h, 3d ago
    #[arg(long, value_name = "WHEN")]
    since: Option<When>,
    /// Made before: a time, or 10m, 2h, 3d ago
    #[arg(long, value_name = "WHEN")]
    until: Option<When>,
}

/// How it is printed.
#[derive(Clone, Copy, Debug, Default, clap::Args)]
pub(super) struct Format {
    /// Print the API's JSON: an object, or one line for each thing of a list
    #[arg(long, global = true)]
    pub json: bool,
}

/// Which of the things that happen are listed: the flags that the lists of events, runs and decisions share.
#[derive(Clone, Debug, Default, clap::Args)]
pub(super) struct Happened {
    #[command(flatten)]
    search: Search,
    #[command(flatten)]
    pub paging: Paging,
}

impl Happened {
    /// As the API's parameters, but the paging.
    pub(super) fn filters(&self, now: Timestamp) -> Vec<Filter> {
        self.search.filters(now)
    }
}

/// How every noun's command speaks with the server and prints what it says, whatever its verb.
#[derive(Clone, Debug, Default, clap::Args)]
pub(super) struct Asking {
    #[command(flatten)]
    pub format: Format,
    #[command(flatten)]
    access: Access,
}

impl Asking {
    /// Speaks to the server.
    ///
    /// # Errors
    /// If it is not known where that is.
    pub(super) fn client(&self, cx: &Context) -> Result<Client> {
        self.access.client(cx)
    }

    /// The configuration, for what is done on this machine and not by the server.
    pub(super) fn config_file(&self) -> PathBuf {
        self.access.config_file().unwrap_or_else(|| DEFAULT_CONFIG.into())
    }

    /// Fetches one thing; prints it as JSON if that is wanted, else hands it back to be shown.
    ///
    /// # Errors
    /// What the API says.
    pub(super) async fn fetch(&self, cx: &Context, path: &str) -> Result<Option<Value>> {
        self.format.fetch(cx, &self.client(cx)?, path).await
    }
}

impl Format {
    /// As [`Asking::fetch`], by a client that is there already.
    ///
    /// # Errors
    /// What the API says.
    pub(super) async fn fetch(self, cx: &Context, client: &Client, path: &str) -> Result<Option<Value>> {
        let thing = client.get(path, &[]).await?;
        if self.json {
            cx.screen.line(&thing)?;
            return Ok(None);
        }
        Ok(Some(thing))
    }
}

/// A point in time as people write it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum When {
    /// So long before now.
    Ago(Duration),
    /// This time.
    At(Timestamp),
}

impl When {
    fn resolve(self, now: Timestamp) -> Timestamp {
        match self {
            Self::Ago(span) => now.minus(span),
            Self::At(at) => at,
        }
    }
}

impl FromStr for When {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Some(at) = Timestamp::parse(text) {
            return Ok(Self::At(at));
        }
        span(text)
            .map(Self::Ago)
            .map_err(|_| "write a time such as 2026-01-31T08:00:00Z, or 30s, 10m, 2h, 3d for so long ago".into())
    }
}

/// A length of time as people write it: `90s`, `10m`, `2h`, `3d`.
///
/// # Errors
/// With what to write instead.
pub(super) fn span(text: &str) -> Result<Duration, String> {
    let bad = || format!("`{text}` is not a length of time: write 30s, 10m, 2h or 3d");
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let seconds = match &text[digits.len()..] {
        "s" => 1,
        "m" => 60,
        "h" => 3600,
        "d" => 86_400,
        _ => return Err(bad()),
    };
    let count: u64 = digits.parse().map_err(|_| bad())?;
    count.checked_mul(seconds).map(Duration::from_secs).ok_or_else(bad)
}

/// A filter's name in the API with its value.
pub(super) type Filter = (&'static str, String);

impl Search {
    /// As the API's parameters.
    fn filters(&self, now: Timestamp) -> Vec<Filter> {
        let mut filters = Vec::new();
        filters.extend(self.since.map(|w| ("since", w.resolve(now).to_string())));
        filters.extend(self.until.map(|w| ("until", w.resolve(now).to_string())));
        filters
    }
}

/// A list to be printed.
pub(super) struct Listing<'l> {
    /// Its path under `/api/v1`.
    pub path: &'l str,
    /// What is asked for.
    pub filters: Vec<Filter>,
    /// What is shown.
    pub columns: &'l [Column],
    /// What is said when there is nothing at all.
    pub empty: &'l str,
    /// What is said when there is nothing that was asked for: a part was, by a filter or a text.
    pub none: &'l str,
}

impl Listing<'_> {
    /// Fetches and prints it.
    ///
    /// # Errors
    /// What the API says.
    pub(super) async fn print(&self, cx: &Context, client: &Client, paging: &Paging, format: Format) -> Result<Exit> {
        let mut query = self.filters.clone();
        query.extend(paging.q.clone().map(|q| ("q", q)));
        query.push(("limit", if paging.all { PAGE.to_string() } else { paging.limit.to_string() }));
        let mut cursor = paging.next.clone();
        let mut first = true;
        loop {
            let mut page_query = query.clone();
            page_query.extend(cursor.take().map(|c| ("cursor", c)));
            let page = client.get(self.path, &page_query).await?;
            let items = page.get("items").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
            self.print_items(cx, items, format)?;
            if items.is_empty() && first && !format.json {
                let is_part = !self.filters.is_empty() || paging.q.is_some();
                cx.screen.remark(if is_part { self.none } else { self.empty });
            }
            first = false;
            match page.get("next").and_then(Value::as_str) {
                Some(next) if paging.all => cursor = Some(next.to_owned()),
                Some(next) => {
                    cx.screen.remark(format!("There are more: add --next {next}, or --all."));
                    return Ok(Exit::Ok);
                }
                None => return Ok(Exit::Ok),
            }
        }
    }

    fn print_items(&self, cx: &Context, items: &[Value], format: Format) -> Result<()> {
        if format.json {
            return items.iter().try_for_each(|item| cx.screen.line(item));
        }
        if items.is_empty() {
            return Ok(());
        }
        cx.screen.line(table::render(&cx.screen, self.columns, items, cx.clock.now()))
    }
}

/// Does the same to several things, one after the other, and prints a line for each. Goes on after a refusal, and then
/// ends with failure; an unreachable server ends it at once.
///
/// # Errors
/// If the server is not reachable or standard output is closed.
pub(super) async fn each<T, F>(cx: &Context, things: &[T], format: Format, done: &str, verb: F) -> Result<Exit>
where
    T: std::fmt::Display,
    F: AsyncFn(&T) -> Result<Value>,
{
    each_told(cx, things, format, |_| done, verb).await
}

/// As [`each`], where the answer tells what was done.
///
/// # Errors
/// As [`each`].
pub(super) async fn each_told<'d, T, F>(
    cx: &Context,
    things: &[T],
    format: Format,
    done: impl Fn(&Value) -> &'d str,
    verb: F,
) -> Result<Exit>
where
    T: std::fmt::Display,
    F: AsyncFn(&T) -> Result<Value>,
{
    let mut exit = Exit::Ok;
    for thing in things {
        match verb(thing).await {
            Ok(answer) if format.json => cx.screen.line(answer)?,
            Ok(answer) => cx.screen.line(format!("{thing} {}", done(&answer)))?,
            Err(error) if error.downcast_ref::<Fault>().is_some_and(|f| f.exit() == Exit::Failed) => {
                cx.screen.remark(format!("{thing}: {}", describe_short(&error)));
                exit = Exit::Failed;
            }
            Err(error) => return Err(error),
        }
    }
    Ok(exit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_written_as_such_or_as_so_long_ago() {
        let now = Timestamp::from_secs(1_000_000);
        assert_eq!("10m".parse::<When>().unwrap().resolve(now), Timestamp::from_secs(999_400));
        assert_eq!("1970-01-01T00:00:05Z".parse::<When>().unwrap().resolve(now), Timestamp::from_secs(5));
        for bad in ["", "m", "10", "10y", "-1m", "ten", "99999999999999999999s", "ä"] {
            assert!(bad.parse::<When>().is_err(), "{bad}");
        }
    }
}
