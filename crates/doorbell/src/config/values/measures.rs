//! How long, how much and how often: durations, sizes and rates.

use std::borrow::Cow;
use std::time::Duration;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use toml::Spanned;
use toml::de::DeValue;

use super::super::section::{Here, Value};
use super::parsed;

/// `500ms`, `30s`, `10m`, `2h`, `30d`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lasting(pub Duration);

/// `1 MiB`, `64 KiB`, `500 kB`, or a number of bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Size(pub u64);

/// `6000/min`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rate {
    /// How many.
    pub count: u32,
    /// In what time.
    pub per: Duration,
    /// As written.
    pub text: String,
}

/// Reads a duration.
pub(crate) fn duration(text: &str) -> Option<Duration> {
    let split = text.find(|c: char| !c.is_ascii_digit())?;
    let count: u64 = text[..split].parse().ok()?;
    let unit_ms: u64 = match text[split..].trim_start() {
        "ms" => 1,
        "s" => 1000,
        "m" | "min" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        "w" => 7 * 86_400_000,
        _ => return None,
    };
    // A thousand years: longer would overflow times kept in milliseconds somewhere.
    count.checked_mul(unit_ms).filter(|ms| *ms <= 365_000 * 86_400_000).map(Duration::from_millis)
}

/// Writes a duration as the file would.
pub(crate) fn lasting_text(span: Duration) -> String {
    let ms = span.as_millis();
    let units = [(86_400_000, "d"), (3_600_000, "h"), (60_000, "m"), (1000, "s")];
    match units.into_iter().find(|(unit, _)| ms > 0 && ms.is_multiple_of(*unit)) {
        Some((unit, word)) => format!("{}{word}", ms / unit),
        None => format!("{ms}ms"),
    }
}

fn size(text: &str) -> Option<u64> {
    let split = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let count: u64 = text[..split].parse().ok()?;
    let unit: u64 = match text[split..].trim_start() {
        "" | "B" => 1,
        "kB" | "KB" => 1000,
        "MB" => 1_000_000,
        "GB" => 1_000_000_000,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        _ => return None,
    };
    count.checked_mul(unit)
}

fn rate(text: &str) -> Option<Rate> {
    let (count, per) = text.split_once('/')?;
    let count: u32 = count.trim().parse().ok().filter(|n| *n > 0)?;
    let per = match per.trim() {
        "s" | "sec" | "second" => 1,
        "m" | "min" | "minute" => 60,
        "h" | "hour" => 3600,
        "d" | "day" => 86_400,
        _ => return None,
    };
    // More than one each nanosecond cannot be measured, and must not count as no limit.
    let count = Some(count).filter(|n| u64::from(*n) <= per * 1_000_000_000)?;
    Some(Rate { count, per: Duration::from_secs(per), text: text.to_owned() })
}

impl Value for Lasting {
    fn read(value: &Spanned<DeValue<'_>>, here: &Here<'_>) -> Option<Self> {
        parsed(value, here, "a duration such as \"500ms\", \"30s\", \"10m\", \"2h\" or \"30d\"", duration).map(Self)
    }
}

impl Value for Size {
    fn read(value: &Spanned<DeValue<'_>>, here: &Here<'_>) -> Option<Self> {
        let wanted = "a size such as \"64 KiB\" or \"1 MiB\", or a number of bytes";
        if let Some(number) = value.get_ref().as_integer() {
            let bytes = u64::from_str_radix(number.as_str(), number.radix());
            if bytes.is_err() {
                here.wrong(value.span().start, format!("`{}` is not {wanted}", number.as_str()), "");
            }
            return bytes.ok().map(Self);
        }
        parsed(value, here, wanted, size).map(Self)
    }
}

impl Value for Rate {
    fn read(value: &Spanned<DeValue<'_>>, here: &Here<'_>) -> Option<Self> {
        parsed(value, here, "a rate such as \"10/s\", \"6000/min\" or \"1000/h\"", rate)
    }
}

schema!(Lasting, "Duration", {"type": "string", "pattern": "^[0-9]+ *(ms|s|m|min|h|d|w)$", "examples": ["30s", "10m"]});
schema!(Size, "Size", {"anyOf": [
    {"type": "string", "pattern": "^[0-9]+ *(B|kB|KB|MB|GB|KiB|MiB|GiB)?$", "examples": ["1 MiB"]},
    {"type": "integer", "minimum": 0}
]});
schema!(Rate, "Rate", {"type": "string", "pattern": "^[1-9][0-9]* */ *(s|sec|second|m|min|minute|h|hour|d|day)$",
    "examples": ["6000/min"]});

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn durations_sizes_and_rates_are_read_or_refused() {
        assert_eq!(duration("500ms"), Some(Duration::from_millis(500)));
        assert_eq!(duration("10m"), Some(Duration::from_secs(600)));
        assert_eq!(duration("30d"), Some(Duration::from_secs(30 * 86_400)));
        for bad in ["", "10", "m", "-1s", "1.5h", "10 parsecs", "99999999999999999999s", "9999999w"] {
            assert_eq!(duration(bad), None, "{bad}");
        }
        assert_eq!(size("1 MiB"), Some(1 << 20));
        assert_eq!(size("500kB"), Some(500_000));
        assert_eq!(size("7"), Some(7));
        for bad in ["", "MiB", "1 mib", "1 TiB", "-1", "99999999999 GiB"] {
            assert_eq!(size(bad), None, "{bad}");
        }
        assert_eq!(rate("6000/min").map(|r| (r.count, r.per)), Some((6000, Duration::from_secs(60))));
        assert!(rate("1000000000/s").is_some() && rate("1000000001/s").is_none());
        for bad in ["0/s", "10", "10/fortnight", "/s", "-1/s"] {
            assert_eq!(rate(bad), None, "{bad}");
        }
    }

    proptest! {
        #[test]
        fn no_text_makes_a_reader_panic(text in "\\PC{0,40}") {
            let _ = (duration(&text), size(&text), rate(&text));
        }
    }
}
