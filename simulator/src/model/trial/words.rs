//! What names and values there are. Few, so that policies and requests meet.

use crate::chance::Chance;

pub const ROOT: &str = "istio-system";
pub const NAMESPACES: [&str; 4] = ["shop", "bank", "shop-dev", ROOT];
pub const ACCOUNTS: [&str; 4] = ["web", "api", "web.v2", "batch"];
pub const DOMAINS: [&str; 4] = [
    "cluster.local",
    "corp.example",
    "old.corp.example",
    "td.test",
];
pub const ADDRESSES: [&str; 6] = [
    "10.0.0.1",
    "10.0.7.9",
    "192.168.7.9",
    "2001:db8::7",
    "2001:db8:1::7",
    "::ffff:10.0.0.1",
];
pub const BLOCKS: [&str; 12] = [
    "10.0.0.1",
    "10.0.0.0/24",
    "10.0.7.255/16",
    "192.168.0.0/16",
    "192.168.7.8/31",
    "0.0.0.0/0",
    "2001:db8::7",
    "2001:db8::/48",
    "2001:db8:1::/47",
    "::/0",
    "10.0.7.9/32",
    "::ffff:10.0.0.0/120",
];
/// Where pods are reached.
pub const PODS: [&str; 2] = ["10.0.7.9", "2001:db8::7"];
pub const PORTS: [u16; 3] = [8080, 9000, 9443];
pub const METHODS: [&str; 6] = ["GET", "POST", "PUT", "DELETE", "HEAD", "OPTIONS"];
pub const HOSTS: [&str; 5] = [
    "shop.example",
    "shop.example:8080",
    "api.shop.example",
    "API.Shop.example",
    "bank.test",
];
pub const PATHS: [&str; 12] = [
    "/",
    "/api",
    "/api/v1/users",
    "/api/v1/orders",
    "/api/v1/users/7",
    "/admin",
    "/admin/users",
    "/health",
    "/static/a.b/c",
    "/shop.Cart/Add",
    "/Admin",
    "/api/v2/%7eusers",
];
pub const TEMPLATES: [&str; 10] = [
    "/api/{*}/users",
    "/api/{**}",
    "/{*}",
    "/admin/{*}",
    "/{**}/users",
    "/api/{*}/{**}/7",
    "/static/{*}/c",
    "/api/v1/{*}/",
    "/{**}",
    "/{*}/v1/{*}",
];
pub const HEADERS: [&str; 5] = ["x-role", "X-Team", "x-env", "accept", "x-user"];
pub const HEADER_VALUES: [&str; 6] = [
    "admin",
    "user",
    "Admin",
    "user,admin",
    "a b",
    "administrator",
];
pub const SERVER_NAMES: [&str; 3] = [
    "outbound_.80_._.web.shop.svc.cluster.local",
    "outbound_.9000_._.db.shop.svc.cluster.local",
    "web.shop.svc.cluster.local",
];
pub const ISSUERS: [&str; 4] = [
    "https://issuer.example",
    "https://login.example/tenant",
    "accounts.example",
    "testing@issuer.example",
];
pub const SUBJECTS: [&str; 5] = ["alice", "bob", "svc/web", "alice@corp.example", "al"];
pub const AUDIENCES: [&str; 5] = [
    "shop",
    "https://shop.example/",
    "shop.example",
    "http://bank.test",
    "bank",
];
pub const PRESENTERS: [&str; 3] = ["portal", "cli", "portal-beta"];
/// Words of claims.
pub const CLAIM_VALUES: [&str; 7] = [
    "read",
    "write",
    "read write",
    "admin",
    "ops",
    "readers",
    "7",
];
/// Keys of claims, as `when` has them.
pub const CLAIMS: [&[&str]; 8] = [
    &["scope"],
    &["permission"],
    &["groups"],
    &["role"],
    &["words"],
    &["realm", "roles"],
    &["realm", "name"],
    &["level"],
];
/// Names that policies have; `-` sorts before the bracket of an id (S-117).
pub const POLICIES: [&str; 8] = ["a", "a-b", "b", "deny", "web.rules", "z", "b2", "b10"];

pub fn text(chance: &mut Chance, words: &[&str]) -> String {
    chance.pick(words).to_owned()
}

/// A pattern that has something to do with `word`: itself, its beginning, its end, a lone star, a star that is a letter.
pub fn pattern(chance: &mut Chance, word: &str) -> String {
    let cut = |chance: &mut Chance| {
        let cut = chance.within(1..=word.len().max(2) as u64 - 1) as usize;
        if word.is_char_boundary(cut) { cut } else { 0 }
    };
    match chance.within(0..=19) {
        0..=10 => word.to_owned(),
        11..=13 => {
            let cut = cut(chance);
            format!("{}*", &word[..cut])
        }
        14..=16 => {
            let cut = cut(chance);
            format!("*{}", &word[cut..])
        }
        17 | 18 => "*".to_owned(),
        _ => {
            let cut = cut(chance);
            match chance.within(0..=1) {
                0 => format!("*{}*", &word[cut..]),
                _ => format!("{}*{}", &word[..cut], &word[cut..]),
            }
        }
    }
}

/// A value that the pattern matches, most of the time: one of `words` or one made for it.
pub fn instance(chance: &mut Chance, pattern: &str, words: &[&str]) -> String {
    let fitting: Vec<&str> = words
        .iter()
        .copied()
        .filter(
            |word| match (pattern.strip_prefix('*'), pattern.strip_suffix('*')) {
                (Some(end), _) => word.ends_with(end),
                (None, Some(start)) => word.starts_with(start),
                (None, None) => *word == pattern,
            },
        )
        .collect();
    if !fitting.is_empty() && !chance.one_in(4) {
        return chance.pick(&fitting).to_owned();
    }
    match (pattern.strip_prefix('*'), pattern.strip_suffix('*')) {
        (Some(end), _) => format!("q{end}"),
        (None, Some(start)) => format!("{start}q"),
        (None, None) => pattern.to_owned(),
    }
}

/// Almost `value`.
pub fn near(chance: &mut Chance, value: &str) -> String {
    let mut letters: Vec<char> = value.chars().collect();
    if letters.is_empty() {
        return "q".to_owned();
    }
    let at = chance.index(letters.len());
    match chance.within(0..=4) {
        0 | 1 => {
            let letter = letters[at];
            letters[at] = if letter.is_ascii_lowercase() {
                letter.to_ascii_uppercase()
            } else {
                letter.to_ascii_lowercase()
            };
        }
        2 => letters.push('q'),
        3 if letters.len() > 1 => {
            letters.pop();
        }
        _ => letters.insert(0, 'q'),
    }
    letters.into_iter().collect()
}
