//! What is remembered, how much and how long.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use super::*;

fn verified(payload: &str) -> Verified {
    let encode = |text: &str| URL_SAFE_NO_PAD.encode(text);
    let text = format!("{}.{}.c2ln", encode(r#"{"alg":"RS256"}"#), encode(payload));
    let token = Token::parse(text.as_bytes()).expect("a token");
    Verified::new(&token, &Arc::default(), false)
}

fn key(number: usize) -> Digest {
    let mut key = [0; 32];
    key[..8].copy_from_slice(&number.to_be_bytes());
    key
}

const RULE: Digest = [7; 32];
const NOW: UnixTime = UnixTime(1_000_000);

fn check(cache: &Cache) {
    let sum: usize = cache.entries.values().map(|entry| entry.bytes).sum();
    assert_eq!(sum, cache.bytes);
    assert_eq!(cache.by_age.len(), cache.entries.len());
    for (serial, key) in &cache.by_age {
        assert_eq!(cache.entries[key].serial, *serial);
    }
    assert!(cache.len() <= limits::TOKENS_CACHED_MAX);
    assert!(cache.bytes <= limits::TOKENS_CACHED_BYTES);
}

#[test]
fn the_oldest_goes_where_there_are_too_many() {
    let mut cache = Cache::default();
    let many = limits::TOKENS_CACHED_MAX;
    for number in 0..many + 2 {
        cache.put(key(number), RULE, verified("{}"), 100);
    }
    check(&cache);
    assert_eq!(cache.len(), many);
    for (number, is_there) in [(0, false), (1, false), (2, true), (many + 1, true)] {
        assert_eq!(
            cache.get(key(number), RULE, NOW).is_some(),
            is_there,
            "{number}"
        );
    }
}

#[test]
fn the_oldest_go_where_they_are_too_large() {
    let mut cache = Cache::default();
    let large = limits::TOKEN_CACHED_MAX;
    let fits = limits::TOKENS_CACHED_BYTES / large;
    for number in 0..fits + 3 {
        cache.put(key(number), RULE, verified("{}"), large);
        check(&cache);
    }
    assert_eq!(cache.len(), fits);
    assert!(cache.get(key(2), RULE, NOW).is_none());
    assert!(cache.get(key(3), RULE, NOW).is_some());
    cache.put(key(0), RULE, verified("{}"), large + 1);
    assert!(cache.get(key(0), RULE, NOW).is_none(), "too large to keep");
    assert_eq!(cache.len(), fits);
}

#[test]
fn a_token_that_comes_again_counts_once() {
    let mut cache = Cache::default();
    for _ in 0..3 {
        cache.put(key(1), RULE, verified("{}"), 10);
        cache.put(key(1), [8; 32], verified("{}"), 10);
    }
    check(&cache);
    assert_eq!((cache.len(), cache.bytes), (2, 20));
}

#[test]
fn what_is_over_is_forgotten_and_what_is_to_come_is_kept() {
    // S-219.
    let mut cache = Cache::default();
    let at = |seconds: u64| UnixTime(seconds * 1000);
    cache.put(key(1), RULE, verified(r#"{"nbf":1000,"exp":2000}"#), 10);
    for (seconds, is_there) in [
        (939, false),
        (940, true),
        (2060, true),
        (2061, false),
        (1500, false),
    ] {
        assert_eq!(
            cache.get(key(1), RULE, at(seconds)).is_some(),
            is_there,
            "{seconds}"
        );
    }
    check(&cache);
    assert!(cache.is_empty());
}

#[test]
fn claims_are_found_by_the_token_whatever_the_rule() {
    let mut cache = Cache::default();
    cache.put(key(2), RULE, verified(r#"{"iss":"two"}"#), 10);
    let iss = |number| {
        let claims = cache.claims(key(number))?;
        claims.payload().get("iss").cloned()
    };
    assert_eq!(iss(2), Some("two".into()));
    assert_eq!((iss(1), iss(3)), (None, None));
}

#[test]
fn the_length_of_a_payload_is_shown_alone() {
    let payload = Payload("eyJzdWIiOiJhIn0".into());
    assert_eq!(format!("{payload:?}"), "15 bytes");
}
