//! The values of the file that are more than text and numbers: durations, sizes, rates, networks, places of secrets and
//! fixed words. Each says what it wants when it cannot be read, and describes itself for the JSON Schema.

use std::borrow::Cow;
use std::net::IpAddr;
use std::time::Duration;

use ipnet::IpNet;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::Deserialize as _;
use toml::Spanned;
use toml::de::DeValue;

use super::section::{At, Here, Value, as_table};

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

/// `192.30.252.0/22`, or one address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Net(pub IpNet);

/// Who may send: a network, an address, or a host by its exact name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AllowedSource {
    /// An address is a network of one.
    Net(IpNet),
    /// In lower case.
    Host(String),
}

/// Where a secret is; never the secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SecretAt {
    /// An environment variable.
    Env(String),
    /// A file.
    File(String),
    /// Doorbell's own sealed store.
    Stored(String),
    /// Written wrongly, and told: kept so that nobody takes it for not written.
    Unreadable,
}

/// One or several: `x` or `[x, y]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Several<T>(pub Vec<At<T>>);

/// A provider of one's own, as TOML text in the form of the built-in ones.
#[derive(Clone, Debug, PartialEq)]
pub struct Custom(pub toml::Table);

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

/// A network or one address. IPv4 that is written in its IPv6 form (`::ffff:192.0.2.0/120`) is IPv4: peers are compared so.
fn net(text: &str) -> Option<IpNet> {
    let net = text.parse::<IpNet>().ok().or_else(|| text.parse::<IpAddr>().ok().map(IpNet::from))?;
    match (net.addr().to_canonical(), net.prefix_len().checked_sub(96)) {
        (IpAddr::V4(ip), Some(prefix)) if net.max_prefix_len() == 128 => IpNet::new(ip.into(), prefix).ok(),
        _ => Some(net),
    }
}

/// An exact host name: letters, digits and hyphens between dots (RFC 1123, section 2.1). No wildcard, no port, no URL; and
/// nothing that looks like an address that is none.
fn host(text: &str) -> Option<String> {
    let name = text.strip_suffix('.').unwrap_or(text).to_ascii_lowercase();
    let label = |l: &str| {
        (1..=63).contains(&l.len())
            && l.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
            && !l.starts_with('-')
            && !l.ends_with('-')
    };
    let last = name.rsplit('.').next()?;
    let good = name.len() <= 253 && name.split('.').all(label) && last.bytes().any(|b| b.is_ascii_alphabetic());
    // A bare word is a slip more often than a host; `localhost` is the one that is meant.
    (good && (name.contains('.') || name == "localhost")).then_some(name)
}

fn allowed_source(text: &str) -> Option<AllowedSource> {
    net(text).map(AllowedSource::Net).or_else(|| host(text).map(AllowedSource::Host))
}

fn parsed<T>(
    value: &Spanned<DeValue<'_>>,
    here: &Here<'_>,
    wanted: &str,
    parse: impl FnOnce(&str) -> Option<T>,
) -> Option<T> {
    let Some(text) = value.get_ref().as_str() else {
        here.wrong_type(value, wanted);
        return None;
    };
    let read = parse(text);
    if read.is_none() {
        here.wrong(value.span().start, format!("`{text:.80}` is not {wanted}"), "");
    }
    read
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

impl Value for Net {
    fn read(value: &Spanned<DeValue<'_>>, here: &Here<'_>) -> Option<Self> {
        parsed(value, here, "an address or a network such as \"192.30.252.0/22\" or \"2001:db8::/32\"", net).map(Self)
    }
}

impl Value for AllowedSource {
    fn read(value: &Spanned<DeValue<'_>>, here: &Here<'_>) -> Option<Self> {
        let wanted =
            "an address, a network such as \"192.30.252.0/22\", or an exact host name such as \"hooks.example.com\"";
        parsed(value, here, wanted, allowed_source)
    }
}

/// What every wrongly written secret is told.
const SECRET_ADVICE: &str = "Write { env = \"NAME\" }, { file = \"path\" } or { stored = \"name\" }; a list of them while a secret is being changed.";

impl Value for SecretAt {
    fn read(value: &Spanned<DeValue<'_>>, here: &Here<'_>) -> Option<Self> {
        Some(place(value, here).unwrap_or(Self::Unreadable))
    }
}

fn place(value: &Spanned<DeValue<'_>>, here: &Here<'_>) -> Option<SecretAt> {
    let offset = value.span().start;
    // The value may be the secret itself: it is never repeated in a message.
    if !value.get_ref().is_table() {
        here.wrong(offset, "a secret does not stand in this file, only where to find it does", SECRET_ADVICE);
        return None;
    }
    let table = as_table(value, here)?;
    let mut entries = table.iter();
    let (Some((key, place)), None) = (entries.next(), entries.next()) else {
        here.wrong(offset, "a secret has exactly one place", SECRET_ADVICE);
        return None;
    };
    let Some(place) = place.get_ref().as_str().map(str::to_owned).filter(|p| !p.is_empty()) else {
        here.wrong(offset, "the place of a secret is a text that is not empty", SECRET_ADVICE);
        return None;
    };
    let word: &str = key.get_ref();
    match word {
        "env" => Some(SecretAt::Env(place)),
        "file" => Some(SecretAt::File(place)),
        "stored" => Some(SecretAt::Stored(place)),
        _ => {
            here.wrong(key.span().start, format!("`{word}` is not a place that secrets come from"), SECRET_ADVICE);
            None
        }
    }
}

impl Value for Custom {
    fn read(value: &Spanned<DeValue<'_>>, here: &Here<'_>) -> Option<Self> {
        as_table(value, here)?;
        let plain = toml::Table::deserialize(toml::de::ValueDeserializer::from(value.clone()));
        plain.map(Self).map_err(|error| here.wrong(value.span().start, error.message().to_owned(), "")).ok()
    }
}

impl<T: Value> Value for Several<T> {
    fn read(value: &Spanned<DeValue<'_>>, here: &Here<'_>) -> Option<Self> {
        if value.get_ref().is_array() {
            return Vec::read(value, here).map(Self);
        }
        T::read(value, here).map(|one| Self(vec![At { value: one, offset: value.span().start }]))
    }
}

/// Describes a type for the JSON Schema, in place.
macro_rules! schema {
    ($type:ty, $name:expr, $($json:tt)+) => {
        impl JsonSchema for $type {
            fn schema_name() -> Cow<'static, str> {
                $name.into()
            }
            fn inline_schema() -> bool {
                true
            }
            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                json_schema!($($json)+)
            }
        }
    };
}

schema!(Lasting, "Duration", {"type": "string", "pattern": "^[0-9]+ *(ms|s|m|min|h|d|w)$", "examples": ["30s", "10m"]});
schema!(Size, "Size", {"anyOf": [
    {"type": "string", "pattern": "^[0-9]+ *(B|kB|KB|MB|GB|KiB|MiB|GiB)?$", "examples": ["1 MiB"]},
    {"type": "integer", "minimum": 0}
]});
schema!(Custom, "Preset", {"type": "object"});
schema!(Rate, "Rate", {"type": "string", "pattern": "^[1-9][0-9]* */ *(s|sec|second|m|min|minute|h|hour|d|day)$",
    "examples": ["6000/min"]});
schema!(Net, "Network", {"type": "string", "examples": ["192.30.252.0/22", "10.0.0.7"]});
schema!(AllowedSource, "AllowedSource", {"type": "string",
    "examples": ["192.30.252.0/22", "10.0.0.7", "hooks.example.com"]});
schema!(SecretAt, "Secret", {"type": "object", "minProperties": 1, "maxProperties": 1, "additionalProperties": false,
    "properties": {"env": {"type": "string"}, "file": {"type": "string"}, "stored": {"type": "string"}}});

impl<T: JsonSchema> JsonSchema for Several<T> {
    fn schema_name() -> Cow<'static, str> {
        format!("Several{}", T::schema_name()).into()
    }
    fn inline_schema() -> bool {
        true
    }
    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let one = generator.subschema_for::<T>();
        json_schema!({"anyOf": [one, {"type": "array", "items": one, "minItems": 1}]})
    }
}

impl<T: JsonSchema> JsonSchema for At<T> {
    fn schema_name() -> Cow<'static, str> {
        T::schema_name()
    }
    fn inline_schema() -> bool {
        T::inline_schema()
    }
    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        T::json_schema(generator)
    }
}

mod words;
pub use words::*;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn durations_sizes_rates_and_networks_are_read_or_refused() {
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
        assert_eq!(net("10.0.0.7").map(|n| n.to_string()), Some("10.0.0.7/32".into()));
        assert_eq!(net("::1").map(|n| n.to_string()), Some("::1/128".into()));
        assert_eq!(net("10.0.0.0/33"), None);
        assert_eq!(net("::ffff:192.0.2.0/120").map(|n| n.to_string()), Some("192.0.2.0/24".into()));
        assert_eq!(net("::ffff:192.0.2.7").map(|n| n.to_string()), Some("192.0.2.7/32".into()));
        assert_eq!(net("::/0").map(|n| n.to_string()), Some("::/0".into()));
    }

    #[test]
    fn a_sender_is_a_network_or_an_exact_host_name() {
        for (text, host) in [
            ("Hooks.Example.com", "hooks.example.com"),
            ("a-b.example.com.", "a-b.example.com"),
            ("localhost", "localhost"),
        ] {
            assert_eq!(allowed_source(text), Some(AllowedSource::Host(host.into())), "{text}");
        }
        assert!(matches!(allowed_source("10.0.0.0/8"), Some(AllowedSource::Net(_))));
        for bad in [
            "",
            "*.example.com",
            "https://example.com",
            "example.com:443",
            "example",
            "10.0.0.999",
            "10.0.0.0/33",
            "-a.example",
            "a..example",
            "ex ample.com",
        ] {
            assert_eq!(allowed_source(bad), None, "{bad}");
        }
    }

    proptest! {
        #[test]
        fn no_text_makes_a_reader_panic(text in "\\PC{0,40}") {
            let _ = (duration(&text), size(&text), rate(&text), net(&text), host(&text));
        }
    }
}
