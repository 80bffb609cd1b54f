//! How values of policies are held against values of requests (S-123 to S-125, S-134, S-145, S-320).

use std::net::IpAddr;

use super::Line;

/// `*` any value that is not empty, `*x` ends with, `x*` begins with, else exact. The star in front is looked at first, and
/// one in the middle is a letter like others (S-123).
pub fn matches(pattern: &str, value: &[u8]) -> bool {
    pattern != "*" && starred(pattern.as_bytes(), value) || pattern == "*" && !value.is_empty()
}

/// As [`matches()`], but `*` is true of an empty value too: it is there (S-124).
pub fn matches_if_present(pattern: &str, value: &[u8]) -> bool {
    pattern == "*" || starred(pattern.as_bytes(), value)
}

/// As [`matches_if_present`], whatever the case of letters: hosts alone are like that (S-125).
pub fn host_matches(pattern: &str, authority: &str) -> bool {
    matches_if_present(
        &pattern.to_ascii_lowercase(),
        authority.to_ascii_lowercase().as_bytes(),
    )
}

fn starred(pattern: &[u8], value: &[u8]) -> bool {
    match pattern {
        [b'*', end @ ..] => value.ends_with(end),
        [start @ .., b'*'] => value.starts_with(start),
        exact => value == exact,
    }
}

/// An address or a CIDR block; bits behind the mask do not count, and IPv4 in IPv6 stays IPv6 (S-134).
pub fn ip_matches(block: &str, ip: IpAddr) -> bool {
    let (address, bits) = match block.split_once('/') {
        Some((address, bits)) => (address, bits.parse::<u32>().ok()),
        None => (block, Some(128)),
    };
    let (Ok(address), Some(bits)) = (address.parse::<IpAddr>(), bits) else {
        return false;
    };
    let (ours, theirs, width) = match (address, ip) {
        (IpAddr::V4(a), IpAddr::V4(b)) => (u128::from(a.to_bits()), u128::from(b.to_bits()), 32),
        (IpAddr::V6(a), IpAddr::V6(b)) => (a.to_bits(), b.to_bits(), 128),
        _ => return false,
    };
    let free = width - bits.min(width);
    (0..width)
        .filter(|bit| *bit >= free)
        .all(|bit| (ours >> bit) & 1 == (theirs >> bit) & 1)
}

/// Decimal text of the port (S-137).
pub fn port_matches(text: &str, port: u16) -> bool {
    text.parse() == Ok(u32::from(port))
}

/// Names that Envoy keeps as one line, joined by commas when they are read, of those that occur here (S-145, S-234).
const JOINED: [&str; 3] = ["accept", "authorization", "x-forwarded-for"];

/// The values that rules see of a header (S-145).
pub fn header(lines: &[Line], name: &str) -> Vec<Vec<u8>> {
    let values: Vec<Vec<u8>> = lines
        .iter()
        .filter(|(line, _)| line.eq_ignore_ascii_case(name))
        .map(|(_, value)| value.clone())
        .collect();
    let joined = JOINED
        .iter()
        .any(|joined| joined.eq_ignore_ascii_case(name));
    if joined && values.len() > 1 {
        return vec![values.join(&b","[..])];
    }
    values
}

/// The last entry of `x-forwarded-for` if that is an address, else the peer (S-320 for sidecars).
pub fn original_client(lines: &[Line], peer: IpAddr) -> IpAddr {
    let all = header(lines, "x-forwarded-for");
    let last = all.last().map(|value| String::from_utf8_lossy(value));
    last.and_then(|text| text.rsplit(',').next()?.trim().parse().ok())
        .unwrap_or(peer)
}
