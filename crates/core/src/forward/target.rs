//! The URL that a forwarded request goes to. Servers take paths apart in different ways (decoding once or twice, `\` for `/`,
//! `..;` for `..`), so whatever one of them might read as a way up is refused, and nothing is rewritten.

use std::fmt::Write as _;

use http::Uri;

/// A path that is not passed on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadPath {
    /// A segment that means the one above, in some reading.
    #[error("the path has a `.` or `..` segment, which could lead out of the agent's base URL")]
    Dots,
    /// A byte that some servers take for `/`, or that ends the path for some.
    #[error("the path has a backslash or a control character, also encoded")]
    Character,
    /// A `%` without two hex digits, or one encoded over and over.
    #[error("the path has a `%` that is no percent-encoding, or is encoded more than four times over")]
    Encoding,
    /// Longer than any URL that is meant.
    #[error("the address is too long or cannot be written as a URL")]
    Unwritable,
}

/// The URL for `path` (as it came, percent-encoded) and `query` below `base`, an absolute URL without query.
///
/// # Errors
/// If the path might lead anywhere else.
pub fn target(base: &Uri, path: &str, query: Option<&str>) -> Result<Uri, BadPath> {
    let path = path.trim_start_matches('/');
    check(path)?;
    let scheme = base.scheme_str().ok_or(BadPath::Unwritable)?;
    let authority = base.authority().ok_or(BadPath::Unwritable)?;
    let mut url = format!("{scheme}://{authority}{}/", base.path().trim_end_matches('/'));
    // What URL parsers encode by themselves is encoded here, so that what is signed is what is sent.
    encode(&mut url, path, b"\"#<>?`{}^|");
    if let Some(query) = query {
        url.push('?');
        encode(&mut url, query, b"\"#<>'");
    }
    url.parse().map_err(|_| BadPath::Unwritable)
}

fn encode(url: &mut String, text: &str, also: &[u8]) {
    for byte in text.bytes() {
        if byte <= b' ' || byte >= 0x7f || also.contains(&byte) {
            let _ = write!(url, "%{byte:02X}");
        } else {
            url.push(char::from(byte));
        }
    }
}

/// How often a path may be encoded over. Nobody means more than twice, and looking at each decoding costs its length.
const DECODINGS_MAX: usize = 4;

/// Looks at the path as it is and at every decoding of it, until there is nothing left to decode.
fn check(path: &str) -> Result<(), BadPath> {
    let mut bytes = path.as_bytes().to_vec();
    for round in 0..=DECODINGS_MAX {
        if bytes.iter().any(|b| *b == b'\\' || *b < b' ' || *b == 0x7f) {
            return Err(BadPath::Character);
        }
        // `..;x` is `..` with a parameter for servlet containers (RFC 3986, section 3.3 leaves it to them).
        let mut bare = bytes.split(|b| *b == b'/').map(|s| s.split(|b| *b == b';').next().unwrap_or_default());
        if bare.any(|segment| matches!(segment, b"." | b"..")) {
            return Err(BadPath::Dots);
        }
        let (decoded, is_whole) = decode(&bytes);
        if round == 0 && !is_whole {
            return Err(BadPath::Encoding);
        }
        if decoded.len() == bytes.len() {
            return Ok(());
        }
        bytes = decoded;
    }
    Err(BadPath::Encoding)
}

/// One decoding, and whether every `%` was one.
fn decode(bytes: &[u8]) -> (Vec<u8>, bool) {
    let hex = |at: usize| bytes.get(at).and_then(|b| char::from(*b).to_digit(16)).and_then(|d| u8::try_from(d).ok());
    let (mut decoded, mut at, mut is_whole) = (Vec::with_capacity(bytes.len()), 0, true);
    while let Some(byte) = bytes.get(at) {
        match (byte, hex(at + 1), hex(at + 2)) {
            (b'%', Some(high), Some(low)) => {
                decoded.push(high << 4 | low);
                at += 3;
            }
            (b'%', ..) => {
                is_whole = false;
                decoded.push(b'%');
                at += 1;
            }
            _ => {
                decoded.push(*byte);
                at += 1;
            }
        }
    }
    (decoded, is_whole)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn of(base: &str, path: &str, query: Option<&str>) -> Result<String, BadPath> {
        target(&base.parse().unwrap(), path, query).map(|uri| uri.to_string())
    }

    #[test]
    fn a_path_goes_below_the_base_as_it_came() {
        for (base, path, query, url) in [
            ("http://a:8000", "code_changes", None, "http://a:8000/code_changes"),
            ("http://a:8000/", "//code_changes", Some("x=1&y"), "http://a:8000/code_changes?x=1&y"),
            ("http://a/base/", "x/y%2Fz", Some(""), "http://a/base/x/y%2Fz?"),
            ("https://a/base", "", None, "https://a/base/"),
            ("http://a", "über/b\"c", Some("q='é'"), "http://a/%C3%BCber/b%22c?q=%27%C3%A9%27"),
            ("http://a", "a..b/.well-known/x...", None, "http://a/a..b/.well-known/x..."),
            ("http://a", "50%25/x", None, "http://a/50%25/x"),
        ] {
            assert_eq!(of(base, path, query).as_deref(), Ok(url), "{path}");
        }
    }

    #[test]
    fn whatever_some_server_reads_as_a_way_up_is_refused() {
        for (path, why) in [
            ("..", BadPath::Dots),
            ("a/../b", BadPath::Dots),
            ("./a", BadPath::Dots),
            ("a/%2e%2e/b", BadPath::Dots),
            ("a/.%2E/b", BadPath::Dots),
            ("a%2f..%2fb", BadPath::Dots),
            ("%252e%252e/b", BadPath::Dots),
            ("%25252e%25252e%25252fb", BadPath::Dots),
            ("..;x=1/b", BadPath::Dots),
            ("..%3bx/b", BadPath::Dots),
            ("a\\..\\b", BadPath::Character),
            ("a%5c..%5cb", BadPath::Character),
            ("a%00", BadPath::Character),
            ("a%0d%0aHost:x", BadPath::Character),
            ("a%250a", BadPath::Character),
            ("a%", BadPath::Encoding),
            ("a%zz", BadPath::Encoding),
            ("%25252525252e", BadPath::Encoding),
        ] {
            assert_eq!(of("http://a/base", path, None), Err(why), "{path}");
        }
    }

    proptest! {
        /// Whatever the path, the request goes to the base's host and below its path.
        #[test]
        fn no_path_leaves_the_base(path in "[/.%;\\\\a-f0-9?#@: ]{0,24}", query in proptest::option::of("[ -~]{0,12}")) {
            if let Ok(uri) = target(&"http://agent:8000/base".parse().unwrap(), &path, query.as_deref()) {
                prop_assert_eq!(uri.authority().map(|a| a.as_str()), Some("agent:8000"));
                prop_assert!(uri.path().starts_with("/base/"));
                prop_assert!(!uri.path().split('/').any(|s| s == ".."));
            }
        }
    }
}
