//! What a token is read as, and what a rule makes of it.

use aws_lc_rs::hmac;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::limits::TOKEN_MAX;

/// The key set and the two tokens of the book "Istio in Action", chapter 9.
const BOOK_KEYS: &str = r#"{ "keys":[ {"e":"AQAB","kid":"CU-ADJJEbH9bXl0tpsQWYuo4EwlkxFUHbeJ4ckkakCM","kty":"RSA","n":"zl9VRDbmVvyXNdyoGJ5uhuTSRA2653KHEi3XqITfJISvedYHVNGoZZxUCoiSEumxqrPY_Du7IMKzmT4bAuPnEalbY8rafuJNXnxVmqjTrQovPIerkGW5h59iUXIz6vCznO7F61RvJsUEyw5X291-3Z3r-9RcQD9sYy7-8fTNmcXcdG_nNgYCnduZUJ3vFVhmQCwHFG1idwni8PJo9NH6aTZ3mN730S6Y1g_lJfObju7lwYWT8j2Sjrwt6EES55oGimkZHzktKjDYjRx1rN4dJ5PR5zhlQ4kORWg1PtllWy1s5TSpOUv84OPjEohEoOWH0-g238zIOYA83gozgbJfmQ"}]}"#;
const BOOK_USER: &str = "eyJhbGciOiJSUzI1NiIsImtpZCI6IkNVLUFESkpFYkg5YlhsMHRwc1FXWXVvNEV3bGt4RlVIYmVKNGNra2FrQ00iLCJ0eXAiOiJKV1QifQ.eyJleHAiOjQ3NDUxNDUwMzgsImdyb3VwIjoidXNlciIsImlhdCI6MTU5MTU0NTAzOCwiaXNzIjoiYXV0aEBpc3Rpb2luYWN0aW9uLmlvIiwic3ViIjoiOWI3OTJiNTYtN2RmYS00ZTRiLWE4M2YtZTIwNjc5MTE1ZDc5In0.jNDoRx7SNm8b1xMmPaOEMVgwdnTmXJwD5jjCH9wcGsLisbZGcR6chkirWy1BVzYEQDTf8pDJpY2C3H-aXN3IlAcQ1UqVe5lShIjCMIFTthat3OuNgu-a91csGz6qtQITxsOpMcBinlTYRsUOICcD7UZcLugxK4bpOECohHoEhuASHzlH-FYESDB-JYrxmwXj4xoZ_jIsdpuqz_VYhWp8e0phDNJbB6AHOI3m7OHCsGNcw9Z0cks1cJrgB8JNjRApr9XTNBoEC564PX2ZdzciI9BHoOFAKx4mWWEqW08LDMSZIN5Ui9ppwReSV2ncQOazdStS65T43bZJwgJiIocSCg";
const BOOK_OTHER_ISSUER: &str = "eyJhbGciOiJSUzI1NiIsImtpZCI6IkNVLUFESkpFYkg5YlhsMHRwc1FXWXVvNEV3bGt4RlVIYmVKNGNra2FrQ00iLCJ0eXAiOiJKV1QifQ.eyJleHAiOjQ3NDUxNTE1NDgsImdyb3VwIjoidXNlciIsImlhdCI6MTU5MTU1MTU0OCwiaXNzIjoib2xkLWF1dGhAaXN0aW9pbmFjdGlvbi5pbyIsInN1YiI6Ijc5ZDc1MDZjLWI2MTctNDZkMS1iYzFmLWY1MTFiNWQzMGFiMCJ9.eUEbrJ3Gr4F5eViMlLsIGcD6UIId6tH6u5vLN_IzPnwpSSp6vy6knVgC1GHsWPWwnEhcPHz1TlQz8E3O6F7oVyNhMTJyniaXtVyByvgAVCbeaOYVRnm1aSWwjFt5IfJJcbk21BWbPfE12Hfbo03sRq1hI1iEcn4nbtoh8tjj_G4r8gwiKVlkA3g5bFkwiSEmZQe2cumzgdtNu4XzU5ghl6cdFyzYD5x3750uy_bfduaQokCVymQq3P-dUPnz7_5-ZOj-3SRb3yHbmvlAnyQgTgIlQc3J-anGnsqec33lhVh5RdNuxKj9J14a-ub9ysjzUvcXh1expDqNxR33BaQnpQ";

/// A moment before every token of the book ends.
const NOW: UnixTime = UnixTime(1_800_000_000_000);
const SECRET: &[u8] = b"a secret of thirty-two bytes ...";

/// `header` and `payload`, signed with [`SECRET`].
fn minted(header: &str, payload: &str) -> String {
    let signed = format!(
        "{}.{}",
        URL_SAFE_NO_PAD.encode(header),
        URL_SAFE_NO_PAD.encode(payload)
    );
    let key = hmac::Key::new(hmac::HMAC_SHA256, SECRET);
    let signature = hmac::sign(&key, signed.as_bytes());
    format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature))
}

fn claims(payload: &Value) -> String {
    minted(r#"{"alg":"HS256"}"#, &payload.to_string())
}

fn secret() -> KeySet {
    let k = URL_SAFE_NO_PAD.encode(SECRET);
    KeySet::parse(&json!({"keys": [{"kty": "oct", "k": k}]}).to_string()).unwrap()
}

fn judge(text: &str, issuer: &str, audiences: &[&str], keys: &KeySet) -> Result<(), Status> {
    let audiences: Vec<_> = audiences.iter().map(ToString::to_string).collect();
    let demand = Demand {
        issuer,
        audiences: &audiences,
        keys,
    };
    verify(&Token::parse(text.as_bytes())?, &demand, NOW)
}

/// What becomes of a token with this payload where any issuer and audience will do.
fn accepts(payload: &Value) -> Result<(), Status> {
    judge(&claims(payload), "", &[], &secret())
}

#[test]
fn the_tokens_of_the_book_verify_with_its_keys() {
    let keys = KeySet::parse(BOOK_KEYS).unwrap();
    let issuer = "auth@istioinaction.io";
    assert_eq!(judge(BOOK_USER, issuer, &[], &keys), Ok(()));
    assert_eq!(
        judge(BOOK_OTHER_ISSUER, issuer, &[], &keys),
        Err(Status::UnknownIssuer)
    );
    assert_eq!(
        judge(BOOK_OTHER_ISSUER, "old-auth@istioinaction.io", &[], &keys),
        Ok(())
    );
    let token = Token::parse(BOOK_USER.as_bytes()).unwrap();
    assert_eq!(token.payload()["group"], "user");
    assert_eq!(token.expiry(), Some(4_745_145_038));
    assert_eq!(Some(token.payload_segment()), BOOK_USER.split('.').nth(1));
    let late = UnixTime((4_745_145_038 + 61) * 1000);
    assert_eq!(token.check_times(late), Err(Status::Expired));
}

#[test]
fn the_form_comes_first() {
    // S-216, S-218
    let h = URL_SAFE_NO_PAD.encode(r#"{"alg":"HS256"}"#);
    let none = URL_SAFE_NO_PAD.encode(r#"{"alg":"none"}"#);
    for (text, status) in [
        (String::new(), Status::BadFormat),
        ("deadbeef".into(), Status::BadFormat),
        ("a.b".into(), Status::BadFormat),
        ("a.b.".into(), Status::BadFormat),
        ("....".into(), Status::BadFormat),
        ("a.b.c.d".into(), Status::BadFormat),
        ("a.b.c".into(), Status::HeaderBadBase64),
        ("é.b.c".into(), Status::HeaderBadBase64),
        (" e30.e30.e30".into(), Status::HeaderBadAlg),
        ("e30=.e30.e30".into(), Status::HeaderBadAlg),
        ("e+0.e30.e30".into(), Status::HeaderBadBase64),
        ("aaaa.bbbb.cccc".into(), Status::HeaderBadJson),
        ("e30.b.c".into(), Status::HeaderBadAlg),
        (format!("{none}.b.c"), Status::AlgNotSupported),
        (format!("{h}.b.c"), Status::PayloadBadBase64),
        (format!("{h}.é.c"), Status::PayloadBadBase64),
        (format!("{h}.bbbb.c"), Status::PayloadBadJson),
        (format!("{h}.e30.c"), Status::SignatureBadBase64),
        (format!("{h}.e30.c!"), Status::SignatureBadBase64),
    ] {
        assert_eq!(Token::parse(text.as_bytes()).err(), Some(status), "{text}");
    }
    for header in [
        r#"{"alg":1}"#,
        r#"{"alg":null}"#,
        r#"{"alg":["HS256"]}"#,
        r#"{"Alg":"HS256"}"#,
    ] {
        let text = minted(header, "{}");
        let status = Token::parse(text.as_bytes()).err();
        assert_eq!(status, Some(Status::HeaderBadAlg), "{header}");
    }
    for alg in [
        "None", "hs256", "", "HS256 ", "ES256K", "Ed25519", "RSA-OAEP",
    ] {
        let text = minted(&json!({"alg": alg, "kid": 1}).to_string(), "{}");
        let status = Token::parse(text.as_bytes()).err();
        assert_eq!(status, Some(Status::AlgNotSupported), "{alg}");
    }
    for kid in [json!(1), json!(null), json!(["k"])] {
        let text = minted(&json!({"alg": "HS256", "kid": kid}).to_string(), "!");
        let status = Token::parse(text.as_bytes()).err();
        assert_eq!(status, Some(Status::HeaderBadKid), "{kid}");
    }
}

#[test]
fn claims_have_the_types_that_they_must_have() {
    // S-218
    for (payload, status) in [
        (json!({"iss": 1, "sub": 1}), Status::IssNotString),
        (json!({"iss": null}), Status::IssNotString),
        (json!({"sub": ["a"], "iat": "a"}), Status::SubNotString),
        (
            json!({"iat": "1", "nbf": "1"}),
            Status::TimeNotInteger(Claim::Iat),
        ),
        (
            json!({"nbf": true, "exp": "1"}),
            Status::TimeNotInteger(Claim::Nbf),
        ),
        (
            json!({"exp": null, "jti": 1}),
            Status::TimeNotInteger(Claim::Exp),
        ),
        (json!({"iat": -1}), Status::TimeNotPositive(Claim::Iat)),
        (json!({"nbf": -0.5}), Status::TimeNotPositive(Claim::Nbf)),
        (json!({"exp": 1e30}), Status::TimeNotPositive(Claim::Exp)),
        (
            json!({"exp": u64::MAX}),
            Status::TimeNotPositive(Claim::Exp),
        ),
        (json!({"jti": 1, "aud": 1}), Status::JtiNotString),
        (json!({"aud": 1}), Status::BadAud),
        (json!({"aud": null}), Status::BadAud),
        (json!({"aud": {}}), Status::BadAud),
        (json!({"aud": ["a", 1]}), Status::BadAud),
    ] {
        assert_eq!(accepts(&payload), Err(status), "{payload}");
    }
    for payload in [
        json!({}),
        json!({"iss": "", "sub": "", "jti": "", "aud": "", "iat": 1e15, "nbf": 0, "scope": [1]}),
        json!({"aud": []}),
        json!({"exp": 18_446_744_073_709_549_568_u64}),
    ] {
        assert_eq!(accepts(&payload), Ok(()), "{payload}");
    }
}

#[test]
fn times_are_believed_to_a_minute() {
    // S-219
    let now = NOW.as_secs();
    for (payload, outcome) in [
        (json!({"exp": now - 60}), Ok(())),
        (json!({"exp": now - 61}), Err(Status::Expired)),
        (json!({"exp": 0}), Err(Status::Expired)),
        (json!({"nbf": now + 60}), Ok(())),
        (json!({"nbf": now + 61}), Err(Status::NotYetValid)),
        (json!({"nbf": now + 61, "exp": 1}), Err(Status::NotYetValid)),
        (
            json!({"iat": now + 9999, "exp": (now as f64) - 60.0 + 0.5}),
            Ok(()),
        ),
    ] {
        assert_eq!(accepts(&payload), outcome, "{payload}");
    }
}

#[test]
fn checks_come_in_their_order() {
    // S-216: issuer, times, audience, key, signature
    let expired = json!({"iss": "a", "exp": 1, "aud": "x"});
    let wrong_aud = json!({"iss": "a", "aud": "x"});
    let keys = secret();
    for (payload, issuer, status) in [
        (&expired, "b", Status::UnknownIssuer),
        (&expired, "a", Status::Expired),
        (&wrong_aud, "a", Status::AudienceNotAllowed),
    ] {
        let text = claims(payload);
        assert_eq!(judge(&text, issuer, &["y"], &keys), Err(status));
        let other = KeySet::parse(BOOK_KEYS).unwrap();
        assert_eq!(judge(&text, issuer, &["y"], &other), Err(status));
    }
    let other = r#"{"keys":[{"kty":"oct","k":"YQ","kid":"k","alg":"HS256"}]}"#;
    let other = KeySet::parse(other).unwrap();
    let text = claims(&wrong_aud);
    assert_eq!(
        judge(&text, "a", &["x"], &other),
        Err(Status::VerificationFails)
    );
}

#[test]
fn an_issuer_is_compared_exactly() {
    // S-222
    let keys = secret();
    for (payload, issuer, outcome) in [
        (json!({"iss": "a"}), "a", Ok(())),
        (json!({"iss": "a/"}), "a", Err(Status::UnknownIssuer)),
        (json!({"iss": "A"}), "a", Err(Status::UnknownIssuer)),
        (json!({}), "a", Err(Status::UnknownIssuer)),
        (json!({}), "", Ok(())),
        (json!({"iss": "b"}), "", Ok(())),
    ] {
        let outcome_got = judge(&claims(&payload), issuer, &[], &keys);
        assert_eq!(outcome_got, outcome, "{payload} {issuer}");
    }
}

#[test]
fn audiences_are_compared_without_scheme_and_last_slash() {
    // S-223
    let keys = secret();
    let fails = Err(Status::AudienceNotAllowed);
    for (aud, allowed, outcome) in [
        (json!("a"), &["a"][..], Ok(())),
        (json!("a"), &["b", "a"], Ok(())),
        (json!(["x", "a"]), &["a"], Ok(())),
        (json!("http://a/"), &["https://a"], Ok(())),
        (json!("a/"), &["http://a"], Ok(())),
        (json!("http://"), &["https://", "b"], Ok(())),
        (json!("a//"), &["a"], fails),
        (json!("HTTP://a"), &["a"], fails),
        (json!("A"), &["a"], fails),
        (json!("http://https://a"), &["a"], fails),
        (json!([]), &["a"], fails),
        (json!("ab"), &["a"], fails),
    ] {
        let text = claims(&json!({"aud": aud}));
        assert_eq!(
            judge(&text, "", allowed, &keys),
            outcome,
            "{aud} {allowed:?}"
        );
    }
    let text = claims(&json!({}));
    assert_eq!(judge(&text, "", &["a"], &keys), fails);
    assert_eq!(judge(&text, "", &[], &keys), Ok(()));
}

#[test]
fn empty_sections_are_not_counted() {
    // S-216
    let text = claims(&json!({"sub": "a"}));
    let (first, rest) = text.split_once('.').unwrap();
    for text in [
        format!("{first}..{rest}"),
        format!(".{text}"),
        format!("{text}."),
        format!("..{first}...{}", rest.replace('.', "...")),
    ] {
        assert_eq!(judge(&text, "", &[], &secret()), Ok(()), "{text}");
    }
}

#[test]
fn a_critical_header_is_never_understood() {
    // RFC 7515 §4.1.11
    for crit in [json!(["exp"]), json!([]), json!("b64"), json!(null)] {
        let header = json!({"alg": "HS256", "crit": crit, "exp": 1}).to_string();
        let outcome = judge(&minted(&header, "{}"), "", &[], &secret());
        assert_eq!(outcome, Err(Status::VerificationFails), "{header}");
    }
    let header = r#"{"alg":"HS256","b64":false,"typ":"at+jwt","cty":"x"}"#;
    assert_eq!(judge(&minted(header, "{}"), "", &[], &secret()), Ok(()));
}

#[test]
fn a_token_may_be_as_long_as_the_limit() {
    // Empty sections are not counted: dots make it as long as one likes.
    let text = claims(&json!({}));
    let long = |length: usize| text.clone() + &".".repeat(length - text.len());
    assert_eq!(judge(&long(TOKEN_MAX), "", &[], &secret()), Ok(()));
    let outcome = judge(&long(TOKEN_MAX + 1), "", &[], &secret());
    assert_eq!(outcome, Err(Status::BadFormat));
}

#[test]
fn bombs_are_refused() {
    for (payload, status) in [
        ("{\"a\":".repeat(30_000), Status::PayloadBadJson),
        (
            format!("{{\"a\":{}", "[".repeat(150_000)),
            Status::PayloadBadJson,
        ),
        (
            format!("{{\"exp\":{}}}", "9".repeat(150_000)),
            Status::PayloadBadJson,
        ),
        (
            format!("{{\"exp\":1e{}}}", "9".repeat(150_000)),
            Status::PayloadBadJson,
        ),
        (
            format!("{{\"exp\":0.{}1}}", "0".repeat(150_000)),
            Status::Expired,
        ),
        (
            format!("{{\"aud\":[{}1]}}", "\"\",".repeat(40_000)),
            Status::BadAud,
        ),
        ("{\"a\":1,".repeat(200_000), Status::BadFormat),
    ] {
        let text = minted(r#"{"alg":"HS256"}"#, &payload);
        let outcome = judge(&text, "", &[], &secret());
        assert_eq!(outcome, Err(status), "{}", &payload[..20]);
    }
    let deep = minted(&"[".repeat(150_000), "{}");
    let outcome = judge(&deep, "", &[], &secret());
    assert_eq!(outcome, Err(Status::HeaderBadJson));
}

#[test]
fn what_was_read_can_be_had() {
    let text = minted(r#"{"alg":"HS256","kid":"k"}"#, r#"{"iss":"i","exp":7.9}"#);
    let token = Token::parse(text.as_bytes()).unwrap();
    assert_eq!(token.algorithm(), Algorithm::Hs256);
    assert_eq!(token.header()["kid"], "k");
    assert_eq!(token.issuer(), Some("i"));
    assert_eq!(token.expiry(), Some(7));
    assert_eq!(token.into_payload()["iss"], "i");
}

#[test]
fn nothing_of_a_token_is_shown() {
    let text = claims(&json!({"sub": "alice"}));
    let token = Token::parse(text.as_bytes()).unwrap();
    assert_eq!(format!("{token:?}"), "Token(HS256)");
    let keys = secret();
    let demand = Demand {
        issuer: "i",
        audiences: &[],
        keys: &keys,
    };
    assert_eq!(
        format!("{demand:?}"),
        "Demand { issuer: \"i\", audiences: [], keys: KeySet(1 keys) }"
    );
}

proptest! {
    #[test]
    fn any_bytes_have_an_outcome(text in proptest::collection::vec(any::<u8>(), 0..200)) {
        let _ = Token::parse(&text);
    }

    #[test]
    fn any_header_and_payload_have_an_outcome(
        header in ".{0,60}",
        payload in ".{0,60}",
        signature in proptest::collection::vec(any::<u8>(), 0..80),
    ) {
        let text = format!(
            "{}.{}.{}",
            URL_SAFE_NO_PAD.encode(header),
            URL_SAFE_NO_PAD.encode(payload),
            URL_SAFE_NO_PAD.encode(signature)
        );
        prop_assert!(judge(&text, "", &[], &secret()).is_err());
    }

    /// Only dots beside dots say nothing (S-216).
    #[test]
    fn a_token_that_was_changed_anywhere_never_verifies(
        at in any::<prop::sample::Index>(),
        byte in any::<u8>(),
        change in 0..4_u8,
    ) {
        let keys = KeySet::parse(BOOK_KEYS).unwrap();
        let mut text = BOOK_USER.as_bytes().to_vec();
        let at = at.index(text.len());
        match change {
            0 => text[at] = byte,
            1 => text.insert(at, byte),
            2 => { text.remove(at); }
            _ => text.truncate(at),
        }
        let dots_and_sections = |text: &[u8]| -> Vec<Vec<u8>> {
            text.split(|byte| *byte == b'.').filter(|s| !s.is_empty()).map(<[u8]>::to_vec).collect()
        };
        prop_assume!(dots_and_sections(&text) != dots_and_sections(BOOK_USER.as_bytes()));
        let demand = Demand { issuer: "auth@istioinaction.io", audiences: &[], keys: &keys };
        let outcome = Token::parse(&text).and_then(|token| verify(&token, &demand, NOW));
        prop_assert!(outcome.is_err(), "{at} {byte} {change}");
    }
}
