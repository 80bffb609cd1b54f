//! `meshward token`: keys and tokens made by hand, and what is said of tokens.

use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::process::Stdio;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};

use crate::place::{Place, Ran};

const ALGORITHMS: [&str; 13] = [
    "RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "HS256",
    "HS384", "HS512", "EdDSA",
];

/// Header and payload of a token.
fn sections(token: &str) -> [Value; 2] {
    let mut sections = token.split('.').map(|section| {
        let bytes = URL_SAFE_NO_PAD
            .decode(section.trim_end())
            .expect("base64url");
        serde_json::from_slice(&bytes).unwrap_or_default()
    });
    [(); 2].map(|()| sections.next().expect("a section"))
}

#[track_caller]
fn fine(ran: &Ran) -> &str {
    assert_eq!(ran.code, Some(0), "{}{}", ran.stdout, ran.stderr);
    &ran.stdout
}

#[track_caller]
fn mint(place: &Place, more: &[&str]) -> String {
    let arguments = [&["token", "mint"], more].concat();
    fine(&place.run(&arguments)).trim_end().to_owned()
}

#[test]
fn a_token_of_every_kind_of_key_verifies_with_the_printed_set() {
    let place = Place::new();
    for algorithm in ALGORITHMS {
        let made = place.run(&[
            "token",
            "jwks",
            "--new",
            algorithm,
            "--kid",
            algorithm,
            "--keys",
            "keys.json",
        ]);
        fine(&made);
        assert!(
            made.stderr.starts_with("keys.json: made a") && made.stderr.contains(algorithm),
            "{}",
            made.stderr
        );
    }
    let mode = fs::metadata(place.path("keys.json"))
        .expect("keys")
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o600);

    let public = place.run(&["token", "jwks", "--keys", "keys.json"]);
    let set: Value = serde_json::from_str(fine(&public)).expect("JSON");
    let keys = set["keys"].as_array().expect("a list");
    assert_eq!(keys.len(), 10, "shared secrets are not printed");
    assert_eq!(
        public
            .stderr
            .matches("is a shared secret and is not printed")
            .count(),
        3
    );
    for key in keys {
        for private in ["d", "p", "q", "dp", "dq", "qi", "k"] {
            assert_eq!(key[private], Value::Null, "{private} of {}", key["kid"]);
        }
    }

    let all = place.run(&["token", "jwks", "--keys", "keys.json", "--secrets"]);
    assert_eq!(all.stderr, "");
    place.write("jwks.json", fine(&all));
    for algorithm in ALGORITHMS {
        let token = mint(&place, &["--key", "keys.json", "--kid", algorithm]);
        let [header, _] = sections(&token);
        assert_eq!(
            header,
            json!({"alg": algorithm, "typ": "JWT", "kid": algorithm})
        );
        let read = place.run(&["token", "decode", &token, "--jwks", "jwks.json"]);
        let says = format!("key `{algorithm}` of jwks.json\n");
        assert!(fine(&read).ends_with(&says), "{}", read.stdout);
    }
}

#[test]
fn claims_are_those_that_were_asked_for() {
    let place = Place::new();
    fine(&place.run(&["token", "jwks", "--new", "ES256", "--keys", "key.json"]));
    let token = mint(
        &place,
        &[
            "--key",
            "key.json",
            "--issuer",
            "i",
            "--subject",
            "s",
            "--audience",
            "a",
            "--claim",
            "group=admin",
            "--claim",
            "roles:=[\"a\",1,{\"b\":null}]",
            "--claim",
            "iat:=5",
            "--expires-at",
            "2030-01-01T00:00:00Z",
            "--not-before",
            "7",
        ],
    );
    let [header, payload] = sections(&token);
    assert_eq!(
        payload,
        json!({
            "iss": "i", "sub": "s", "aud": "a", "group": "admin", "roles": ["a", 1, {"b": null}],
            "iat": 5, "exp": 1_893_456_000, "nbf": 7,
        })
    );
    // RFC 7638: 256 bits.
    assert_eq!(header["kid"].as_str().map(str::len), Some(43));

    let token = mint(
        &place,
        &[
            "--key",
            "key.json",
            "--kid",
            "",
            "--audience",
            "a",
            "--audience",
            "b",
            "--no-expiry",
        ],
    );
    let [header, payload] = sections(&token);
    assert_eq!(header, json!({"alg": "ES256", "typ": "JWT"}));
    assert_eq!(payload["aud"], json!(["a", "b"]));
    assert_eq!(payload["exp"], Value::Null);

    for (more, span) in [
        (&[][..], 3600),
        (&["--expires", "90s"], 90),
        (&["--expires", "-2h"], -7200),
    ] {
        let [_, payload] = sections(&mint(&place, &[&["--key", "key.json"], more].concat()));
        let time = |name: &str| payload[name].as_i64().expect("a time");
        assert_eq!(time("exp") - time("iat"), span, "{more:?}");
    }
}

#[test]
fn tokens_and_keys_are_those_of_openssl() {
    let place = Place::new();
    for (kind, make, verify) in [
        (
            "RS256",
            "openssl genpkey -algorithm RSA -pkeyopt rsa_keygen_bits:2048 -out key.pem",
            "openssl dgst -sha256 -verify public.pem -signature signature signed",
        ),
        (
            "PS384",
            "openssl genpkey -algorithm RSA -pkeyopt rsa_keygen_bits:2048 | openssl rsa -traditional -out key.pem",
            "openssl dgst -sha384 -sigopt rsa_padding_mode:pss -verify public.pem -signature signature signed",
        ),
        (
            "EdDSA",
            "openssl genpkey -algorithm ED25519 -out key.pem",
            "openssl pkeyutl -verify -rawin -pubin -inkey public.pem -sigfile signature -in signed",
        ),
    ] {
        fine(&place.shell(&format!(
            "{make} && openssl pkey -in key.pem -pubout -out public.pem"
        )));
        let token = mint(
            &place,
            &["--key", "key.pem", "--algorithm", kind, "--kid", "k"],
        );
        let (signed, signature) = token.rsplit_once('.').expect("a token");
        place.write("signed", signed);
        place.write(
            "signature",
            URL_SAFE_NO_PAD.decode(signature).expect("base64url"),
        );
        let verified = place.shell(verify);
        assert_eq!(
            verified.code,
            Some(0),
            "{kind}: {}{}",
            verified.stdout,
            verified.stderr
        );

        let public = place.run(&["token", "jwks", "--keys", "key.pem"]);
        place.write("jwks.json", fine(&public));
        fine(&place.run(&["token", "decode", &token, "--jwks", "jwks.json"]));
    }
    // SEC 1, which is what `ecparam` writes.
    fine(&place.shell("openssl ecparam -name prime256v1 -genkey -noout -out ec.pem"));
    let [header, _] = sections(&mint(&place, &["--key", "ec.pem"]));
    assert_eq!(header["alg"], "ES256");
}

#[test]
fn a_token_is_told_in_json_and_in_words() {
    let place = Place::new();
    fine(&place.run(&[
        "token", "jwks", "--new", "RS256", "--kid", "k", "--keys", "key.json",
    ]));
    let other = place.run(&[
        "token",
        "jwks",
        "--new",
        "RS256",
        "--kid",
        "k",
        "--keys",
        "other.json",
    ]);
    place.write("other-jwks.json", fine(&other));
    let token = mint(
        &place,
        &[
            "--key",
            "key.json",
            "--claim",
            "iat:=1",
            "--expires-at",
            "1000000000",
            "--claim",
            "a=b",
        ],
    );
    place.write("token", format!("  {token}\n"));
    let read = place.run(&["token", "decode", "@token"]);
    let text = fine(&read);
    let json = "header {\n  \"alg\": \"RS256\",\n  \"kid\": \"k\",\n  \"typ\": \"JWT\"\n}\n\
                payload {\n  \"a\": \"b\",\n  \"exp\": 1000000000,\n  \"iat\": 1\n}\nissued ";
    assert!(text.starts_with(json), "{text}");
    for words in [
        " ago, at 1970-01-01T00:00:01Z\nexpired ",
        " ago, at 2001-09-09T01:46:40Z\n",
        "the signature was not looked at: --jwks FILE says whether it verifies\n",
    ] {
        assert!(text.contains(words), "{text}");
    }
    // A file of private keys has the public ones.
    let verified = place.run(&["token", "decode", "@token", "--jwks", "key.json"]);
    let says = "the signature verifies with the RSA key `k` of key.json\n";
    assert!(fine(&verified).ends_with(says), "{}", verified.stdout);

    let failed = place.run(&["token", "decode", "@token", "--jwks", "other-jwks.json"]);
    let says = "the signature does not verify with other-jwks.json: Jwt verification fails\n";
    assert_eq!(failed.code, Some(1));
    assert!(failed.stdout.ends_with(says), "{}", failed.stdout);

    let mut child = place
        .command(&["token", "decode", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("it can be run");
    let mut stdin = child.stdin.take().expect("a pipe");
    stdin.write_all(token.as_bytes()).expect("it reads");
    drop(stdin);
    let piped = child.wait_with_output().expect("it ends");
    assert_eq!(
        String::from_utf8_lossy(&piped.stdout).lines().count(),
        text.lines().count()
    );
}

#[test]
fn what_no_proxy_takes_is_still_shown() {
    let place = Place::new();
    let none = format!(
        "{}.{}.",
        URL_SAFE_NO_PAD.encode(r#"{"alg":"none"}"#),
        URL_SAFE_NO_PAD.encode(r#"{"sub":"a"}"#)
    );
    let unsigned = format!("{none}AA");
    for (token, status) in [
        (
            none,
            "Jwt is not in the form of Header.Payload.Signature with two dots and 3 sections",
        ),
        (unsigned, "Jwt header [alg] is not supported"),
    ] {
        let read = place.run(&["token", "decode", &token]);
        let says = format!("\nnever expires: there is no exp\nnot accepted anywhere: {status}\n");
        assert!(fine(&read).ends_with(&says), "{}", read.stdout);
    }
    place.run(&["token", "decode", "deadbeef"]).refuses(
        65,
        "error: Jwt is not in the form of Header.Payload.Signature with two dots and 3 sections\n  \
         hint: a token is three parts of base64url with dots between them\n",
    );
}

#[test]
fn a_key_is_added_and_never_overwritten() {
    let place = Place::new();
    let new = [
        "token",
        "jwks",
        "--new",
        "EdDSA",
        "--kid",
        "k",
        "--keys",
        "keys.json",
    ];
    fine(&place.run(&new));
    let before = place.read("keys.json");
    place.run(&new).refuses(
        65,
        "keys.json: there is a key `k` already\n  hint: choose another --kid, or another file\n",
    );
    assert_eq!(place.read("keys.json"), before);

    fine(&place.shell("openssl genpkey -algorithm ED25519 -out key.pem"));
    let before = place.read("key.pem");
    let refused = place.run(&["token", "jwks", "--new", "EdDSA", "--keys", "key.pem"]);
    assert_eq!((refused.code, &*refused.stdout), (Some(65), ""));
    assert!(
        refused
            .stderr
            .ends_with("hint: a key is added to a JWK set; choose another file\n"),
        "{}",
        refused.stderr
    );
    assert_eq!(place.read("key.pem"), before);

    // Only `-` shows what is private.
    let shown = place.run(&["token", "jwks", "--new", "EdDSA", "--keys", "-"]);
    let set: Value = serde_json::from_str(fine(&shown)).expect("JSON");
    assert!(set["keys"][0]["d"].is_string());
}

#[test]
fn what_makes_no_token_says_why() {
    let place = Place::new();
    for kid in ["a", "b"] {
        fine(&place.run(&[
            "token", "jwks", "--new", "ES256", "--kid", kid, "--keys", "two.json",
        ]));
    }
    let public = place.run(&["token", "jwks", "--keys", "two.json"]);
    place.write("public.json", fine(&public));
    place.write("garbage", "garbage");
    let refused: &[(&[&str], i32, &str)] = &[
        (
            &["--key", "absent"],
            65,
            "absent: cannot be read: no such file or directory\n  hint: meshward token jwks --new ES256 --keys absent\n",
        ),
        (
            &["--key", "garbage"],
            65,
            "garbage: is neither a JWK, a JWK set nor PEM: expected value at line 1 column 1\n",
        ),
        (
            &["--key", "public.json"],
            65,
            "public.json: key 1: d is missing: the key is public, or only half of a private one\n",
        ),
        (
            &["--key", "two.json"],
            64,
            "error: two.json has 2 keys\n  hint: choose one with --kid: `a`, `b`\n",
        ),
        (
            &["--key", "two.json", "--kid", "c"],
            64,
            "error: --kid `c`: two.json has no such key\n  hint: it has `a`, `b`\n",
        ),
        (
            &["--key", "two.json", "--kid", "a", "--algorithm", "RS256"],
            64,
            "error: --algorithm RS256: two.json has a P-256 key, which signs otherwise\n",
        ),
        (
            &["--key", "two.json", "--issuer", "i", "--claim", "iss=j"],
            64,
            "error: --issuer: `iss` is said by --claim as well\n",
        ),
        (
            &["--key", "two.json", "--claim", "a=1", "--claim", "a:=1"],
            64,
            "error: --claim `a:=1`: `a` is said twice\n",
        ),
        (
            &["--key", "two.json", "--expires", "soon"],
            64,
            "error: --expires `soon`: expected a duration such as 24h, 90m, 30s or 1h30m\n",
        ),
    ];
    for (more, code, says) in refused {
        place
            .run(&[&["token", "mint"], *more].concat())
            .refuses(*code, says);
    }
}

#[test]
fn arguments_that_contradict_each_other_exit_with_64() {
    let place = Place::new();
    for (arguments, says) in [
        (&["token"][..], "Usage: meshward token <COMMAND>"),
        (&["token", "jwks"], "--keys <FILE>"),
        (
            &["token", "jwks", "--keys", "k", "--kid", "k"],
            "--new <ALGORITHM>",
        ),
        (
            &["token", "jwks", "--keys", "k", "--new", "none"],
            "invalid value 'none'",
        ),
        (&["token", "mint"], "--key <FILE>"),
        (
            &[
                "token",
                "mint",
                "--key",
                "k",
                "--no-expiry",
                "--expires",
                "1h",
            ],
            "cannot be used with",
        ),
        (
            &[
                "token",
                "mint",
                "--key",
                "k",
                "--no-expiry",
                "--expires-at",
                "1",
            ],
            "cannot be used with",
        ),
        (&["token", "decode"], "<TEXT|@FILE|->"),
    ] {
        let ran = place.run(arguments);
        assert_eq!(
            (ran.code, ran.stdout.as_str()),
            (Some(64), ""),
            "{arguments:?}"
        );
        assert!(ran.stderr.contains(says), "{arguments:?}: {}", ran.stderr);
    }
}
