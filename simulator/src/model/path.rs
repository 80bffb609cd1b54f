//! Path normalisation (S-180 to S-185, S-200).

use meshward_core::path::Normalization;

/// The target that rules, tokens and the application see; `None`: 400 (S-183).
///
/// Every step is a pass of its own, in the order of S-181.
pub fn normalise(target: &str, mode: Normalization) -> Option<String> {
    let target = target.split('#').next().unwrap_or_default();
    if mode == Normalization::None {
        return Some(target.to_owned());
    }
    let (path, query) = match target.find('?') {
        Some(at) => target.split_at(at),
        None => (target, ""),
    };
    let mut path = path.to_owned();
    if mode == Normalization::DecodeAndMergeSlashes {
        path = path.replace("%2F", "/").replace("%2f", "/");
        path = path.replace("%5C", "\\").replace("%5c", "\\");
    }
    path = canonical(&without_parameters(&path))?;
    if matches!(
        mode,
        Normalization::MergeSlashes | Normalization::DecodeAndMergeSlashes
    ) {
        path = merged(&path);
    }
    Some(path + query)
}

/// The part that rules on paths see (S-139).
pub fn without_query(target: &str) -> &str {
    target.split(['?', '#']).next().unwrap_or_default()
}

/// Segments that begin with `..;` or `.;` lose what follows the dots (S-200).
fn without_parameters(path: &str) -> String {
    let segments: Vec<&str> = path
        .split('/')
        .map(|segment| match segment {
            _ if segment.starts_with("..;") => "..",
            _ if segment.starts_with(".;") => ".",
            _ => segment,
        })
        .collect();
    segments.join("/")
}

/// A character of a path as it was written.
#[derive(Clone, Copy)]
enum Written {
    Plain(u8),
    /// Both digits, and what they stand for.
    Escape([u8; 2], u8),
}

fn written(path: &str) -> Vec<Written> {
    let mut rest = path.as_bytes();
    let mut out = Vec::new();
    while let Some((first, after)) = rest.split_first() {
        match (first, after) {
            (b'%', [a, b, after @ ..]) if a.is_ascii_hexdigit() && b.is_ascii_hexdigit() => {
                out.push(Written::Escape([*a, *b], hex(*a) * 16 + hex(*b)));
                rest = after;
            }
            _ => {
                out.push(Written::Plain(*first));
                rest = after;
            }
        }
    }
    out
}

fn hex(digit: u8) -> u8 {
    char::from(digit).to_digit(16).unwrap_or_default() as u8
}

/// S-182 and S-183.
fn canonical(path: &str) -> Option<String> {
    let written = written(path);
    let mut text = String::new();
    for (at, character) in written.iter().enumerate() {
        match *character {
            Written::Escape(_, 0) => return None,
            Written::Escape(_, byte) if is_unreserved(byte) => text.push(byte.into()),
            Written::Escape([a, b], _) => {
                text.push('%');
                text.push(a.into());
                text.push(b.into());
            }
            Written::Plain(b'\\') => text.push('/'),
            Written::Plain(b'%') if makes_escape(&written[at + 1..]) => text.push_str("%25"),
            Written::Plain(byte) if b"\"<>^`{|}".contains(&byte) => {
                text.push_str(&format!("%{byte:02X}"));
            }
            Written::Plain(byte) => text.push(byte.into()),
        }
    }
    Some(without_dots(&text))
}

/// Whether a stray `%` and the two characters after it would become an escape, one of them being an escape now (S-183). Even
/// one of NUL: what comes out is `%2500`.
fn makes_escape(after: &[Written]) -> bool {
    let digit = |character: &Written| match *character {
        Written::Plain(byte) => byte.is_ascii_hexdigit().then_some(false),
        Written::Escape(_, byte) => byte.is_ascii_hexdigit().then_some(true),
    };
    let [first, second, ..] = after else {
        return false;
    };
    matches!((digit(first), digit(second)), (Some(a), Some(b)) if a || b)
}

fn is_unreserved(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._~".contains(&byte)
}

/// RFC 3986 §5.2.4; an empty segment is a segment.
fn without_dots(path: &str) -> String {
    let mut segments: Vec<&str> = Vec::new();
    let mut all = path.strip_prefix('/').unwrap_or(path).split('/').peekable();
    while let Some(segment) = all.next() {
        let last = all.peek().is_none();
        match segment {
            "." => {}
            ".." => {
                segments.pop();
            }
            _ => segments.push(segment),
        }
        if last && matches!(segment, "." | "..") {
            segments.push("");
        }
    }
    format!("/{}", segments.join("/"))
}

/// S-184.
fn merged(path: &str) -> String {
    if path.len() > 1 && path.bytes().all(|b| b == b'/') {
        return "//".to_owned();
    }
    let mut out = path.to_owned();
    while out.contains("//") {
        out = out.replace("//", "/");
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_of_expectations_holds() {
        let rows = [
            ("/app#foo", "/app", "/app", "/app", "/app"),
            (
                "/app/../admin",
                "/app/../admin",
                "/admin",
                "/admin",
                "/admin",
            ),
            ("/app//", "/app//", "/app//", "/app/", "/app/"),
            ("/app/%2f", "/app/%2f", "/app/%2f", "/app/%2f", "/app/"),
            ("/app%2f/", "/app%2f/", "/app%2f/", "/app%2f/", "/app/"),
            (
                "/xyz%30..//abc",
                "/xyz%30..//abc",
                "/xyz0..//abc",
                "/xyz0../abc",
                "/xyz0../abc",
            ),
            (
                "/app/%2E./admin",
                "/app/%2E./admin",
                "/admin",
                "/admin",
                "/admin",
            ),
            (
                "/app\\admin",
                "/app\\admin",
                "/app/admin",
                "/app/admin",
                "/app/admin",
            ),
            (
                "/%5Capp%2f%5c%2F%2e%2e%2fadmin%5c\\abc",
                "/%5Capp%2f%5c%2F%2e%2e%2fadmin%5c\\abc",
                "/%5Capp%2f%5c%2F..%2fadmin%5c/abc",
                "/%5Capp%2f%5c%2F..%2fadmin%5c/abc",
                "/app/admin/abc",
            ),
            (
                "/app//../../admin",
                "/app//../../admin",
                "/admin",
                "/admin",
                "/admin",
            ),
            (
                "/%252e%252e/admin",
                "/%252e%252e/admin",
                "/%252e%252e/admin",
                "/%252e%252e/admin",
                "/%252e%252e/admin",
            ),
            ("/xyz/..;p", "/xyz/..;p", "/", "/", "/"),
            ("/%2%41", "/%2%41", "/%252A", "/%252A", "/%252A"),
        ];
        for (target, none, base, merge, decode) in rows {
            for (mode, expected) in [
                (Normalization::None, none),
                (Normalization::Base, base),
                (Normalization::MergeSlashes, merge),
                (Normalization::DecodeAndMergeSlashes, decode),
            ] {
                let got = normalise(target, mode);
                assert_eq!(got.as_deref(), Some(expected), "{target} {mode:?}, S-185");
            }
        }
        assert_eq!(normalise("/admin%00", Normalization::Base), None, "S-183");
    }
}
