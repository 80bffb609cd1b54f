//! Texts with a form of their own: names, ports, addresses, times, path templates.

use std::net::IpAddr;

/// A DNS-1123 label: a namespace.
pub fn is_label(text: &str) -> bool {
    text.len() <= 63 && is_subdomain_part(text)
}

/// An RFC 1035 label, which begins with a letter: the name of a Service.
pub fn is_rfc1035_label(text: &str) -> bool {
    is_label(text) && text.starts_with(|c: char| c.is_ascii_lowercase())
}

/// The name of a port of a container: an IANA service name in lower case (RFC 6335 §5.1).
pub fn is_port_name(text: &str) -> bool {
    text.len() <= 15
        && is_label(text)
        && !text.contains("--")
        && text.bytes().any(|b| b.is_ascii_lowercase())
}

/// A DNS-1123 subdomain: the name of a resource (S-170).
pub fn is_subdomain(text: &str) -> bool {
    text.len() <= 253 && text.split('.').all(is_subdomain_part)
}

fn is_subdomain_part(text: &str) -> bool {
    let edge = |b: Option<u8>| b.is_some_and(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
    text.bytes().all(|b| b == b'-' || edge(Some(b)))
        && edge(text.bytes().next())
        && edge(text.bytes().next_back())
}

/// A host by its full name, letters of either case; no star, no port.
pub fn is_host(text: &str) -> bool {
    text.len() <= 253 && text.to_ascii_lowercase().split('.').all(is_label)
}

/// The value of a Kubernetes label; empty is one.
pub fn is_label_value(text: &str) -> bool {
    text.is_empty() || is_name_part(text)
}

/// The key of a Kubernetes label or annotation: `[domain/]name`.
pub fn is_qualified_name(text: &str) -> bool {
    match text.split_once('/') {
        Some((prefix, name)) => is_subdomain(&prefix.to_ascii_lowercase()) && is_name_part(name),
        None => is_name_part(text),
    }
}

fn is_name_part(text: &str) -> bool {
    let edge = |b: Option<u8>| b.is_some_and(|b| b.is_ascii_alphanumeric());
    text.len() <= 63
        && text
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'))
        && edge(text.bytes().next())
        && edge(text.bytes().next_back())
}

/// A port of a policy: digits, at most 65535; `0` is one (S-173).
pub fn is_port(text: &str) -> bool {
    !text.is_empty()
        && text.bytes().all(|b| b.is_ascii_digit())
        && text.parse::<u64>().is_ok_and(|port| port <= 65_535)
}

/// The name of a field of HTTP (RFC 9110 §5.1).
pub fn is_field_name(text: &str) -> bool {
    let fits = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
    !text.is_empty() && text.bytes().all(fits)
}

/// An absolute address of the schemes `http` and `https`, whose port, if any, is a number (S-178).
pub fn is_http_uri(text: &str) -> bool {
    let Some((scheme, rest)) = text.split_once("://") else {
        return false;
    };
    let known = ["http", "https"]
        .iter()
        .any(|s| scheme.eq_ignore_ascii_case(s));
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    let host_port = authority
        .rsplit_once('@')
        .map_or(authority, |(_, host)| host);
    let port = match host_port.strip_prefix('[') {
        Some(rest) => match rest.split_once(']') {
            Some((_, "")) => None,
            Some((_, tail)) => Some(tail.strip_prefix(':').unwrap_or("none")),
            None => Some("none"),
        },
        None => host_port.split_once(':').map(|(_, port)| port),
    };
    known
        && !host_port.is_empty()
        && !authority.contains(' ')
        && !text.bytes().any(|b| b.is_ascii_control())
        && port.is_none_or(|port| port.is_empty() || is_port(port))
}

/// An address, or a block of them as `address/bits`; bits of the host may be set (S-134, S-173).
pub fn is_address_block(text: &str) -> bool {
    let Some((address, bits)) = text.split_once('/') else {
        return text.parse::<IpAddr>().is_ok();
    };
    let width = match address.parse::<IpAddr>() {
        Ok(IpAddr::V4(_)) => 32,
        Ok(IpAddr::V6(_)) => 128,
        Err(_) => return false,
    };
    let canonical = bits == "0" || !bits.starts_with('0');
    canonical
        && !bits.is_empty()
        && bits.bytes().all(|b| b.is_ascii_digit())
        && bits.parse::<u16>().is_ok_and(|bits| bits <= width)
}

/// What is wrong with a path, `None` if nothing (S-175).
pub fn path_fault(path: &str) -> Option<&'static str> {
    let is_operator = |segment: &str| matches!(segment, "{*}" | "{**}");
    let segments = || path.trim_matches('/').split('/');
    if segments().any(|segment| !is_operator(segment) && segment.contains(['{', '}'])) {
        return Some("braces form only the segments `{*}` and `{**}`");
    }
    if !segments().any(is_operator) {
        return None;
    }
    let mut rest_seen = false;
    for segment in segments() {
        if is_operator(segment) {
            if rest_seen {
                return Some("nothing with braces may follow `{**}`");
            }
            rest_seen = segment == "{**}";
        } else if segment.is_empty() || !segment.bytes().all(is_template_literal) {
            return Some(
                "a segment of a template takes letters, digits and any of -._~%!$&'()+,;:@=",
            );
        }
    }
    None
}

fn is_template_literal(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._~%!$&'()+,;:@=".contains(&byte)
}

/// Go's `strconv.ParseBool` (S-163).
pub fn go_bool(text: &str) -> Option<bool> {
    match text {
        "1" | "t" | "T" | "TRUE" | "true" | "True" => Some(true),
        "0" | "f" | "F" | "FALSE" | "false" | "False" => Some(false),
        _ => None,
    }
}

/// Whole seconds since 1970 of an RFC 3339 time; times before 1970 count as 0 (S-7).
pub fn rfc3339_seconds(text: &str) -> Option<u64> {
    let (date, time) = text.split_once(['T', 't'])?;
    let [year, month, day] = digits(date, '-', [4, 2, 2])?;
    let zone_at = time.find(['Z', 'z', '+', '-'])?;
    let (clock, zone) = time.split_at_checked(zone_at)?;
    let (clock, fraction) = clock.split_once('.').unwrap_or((clock, "0"));
    let [hour, minute, second] = digits(clock, ':', [2, 2, 2])?;
    let offset = match zone.split_at_checked(1)? {
        ("Z" | "z", "") => 0,
        (sign, zone) => {
            let [hours, minutes] = digits(zone, ':', [2, 2])?;
            if hours > 23 || minutes > 59 {
                return None;
            }
            let seconds = hours * 3600 + minutes * 60;
            if sign == "-" { -seconds } else { seconds }
        }
    };
    let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let days_in_month = match month {
        4 | 6 | 9 | 11 => 30,
        2 if leap => 29,
        2 => 28,
        _ => 31,
    };
    let sane = (1..=12).contains(&month)
        && (1..=days_in_month).contains(&day)
        && hour <= 23
        && minute <= 59
        && second <= 60
        && !fraction.is_empty()
        && fraction.bytes().all(|b| b.is_ascii_digit());
    if !sane {
        return None;
    }
    let seconds =
        days_since_1970(year, month, day) * 86_400 + hour * 3600 + minute * 60 + second - offset;
    Some(u64::try_from(seconds).unwrap_or(0))
}

/// Numbers of exactly these many digits between separators.
fn digits<const N: usize>(text: &str, separator: char, widths: [usize; N]) -> Option<[i64; N]> {
    let mut parts = text.split(separator);
    let mut numbers = [0; N];
    for (number, width) in numbers.iter_mut().zip(widths) {
        let part = parts.next()?;
        if part.len() != width || !part.bytes().all(|b| b.is_ascii_digit()) {
            return None;
        }
        *number = part.parse().ok()?;
    }
    parts.next().is_none().then_some(numbers)
}

/// Of the proleptic Gregorian calendar; years are counted from March, so that the leap day ends one.
fn days_since_1970(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let (era, year_of_era) = (year.div_euclid(400), year.rem_euclid(400));
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    era * 146_097 + year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year - 719_468
}

/// Milliseconds, rounded down, of a duration in Go's form: `10s`, `1.5h`, `1m30s`, `100ms`. Negative ones are none.
pub fn go_duration_ms(text: &str) -> Option<u64> {
    Some(go_duration_ns(text)? / NS_PER_MS)
}

/// As [`go_duration_ms`]; one with a part of a millisecond is none.
pub fn go_duration_whole_ms(text: &str) -> Option<u64> {
    let ns = go_duration_ns(text)?;
    ns.is_multiple_of(NS_PER_MS).then_some(ns / NS_PER_MS)
}

const NS_PER_MS: u64 = 1_000_000;

fn go_duration_ns(text: &str) -> Option<u64> {
    if text == "0" {
        return Some(0);
    }
    let mut rest = text.strip_prefix('+').unwrap_or(text);
    if rest.is_empty() {
        return None;
    }
    let mut nanoseconds: u128 = 0;
    while !rest.is_empty() {
        let number_end = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let (number, tail) = rest.split_at_checked(number_end)?;
        let unit_end = tail
            .find(|c: char| c.is_ascii_digit() || c == '.')
            .unwrap_or(tail.len());
        let (unit, tail) = tail.split_at_checked(unit_end)?;
        let unit: u128 = match unit {
            "ns" => 1,
            "us" | "µs" | "μs" => 1_000,
            "ms" => 1_000_000,
            "s" => 1_000_000_000,
            "m" => 60 * 1_000_000_000,
            "h" => 3600 * 1_000_000_000,
            _ => return None,
        };
        let (whole, part) = number.split_once('.').unwrap_or((number, ""));
        if whole.is_empty() && part.is_empty() || part.contains('.') {
            return None;
        }
        let whole: u128 = if whole.is_empty() {
            0
        } else {
            whole.parse().ok()?
        };
        nanoseconds = nanoseconds.checked_add(whole.checked_mul(unit)?)?;
        let mut scale = unit;
        for digit in part.bytes() {
            scale /= 10;
            nanoseconds = nanoseconds.checked_add(u128::from(digit - b'0') * scale)?;
        }
        rest = tail;
    }
    // Go keeps durations in 63 bits.
    let nanoseconds = i64::try_from(nanoseconds).ok()?;
    u64::try_from(nanoseconds).ok()
}

#[cfg(test)]
mod tests;
