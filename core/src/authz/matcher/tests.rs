use super::*;

const CLIENT: &str = "cluster.local/ns/stock/sa/client";

fn principal(pattern: &str, value: &str) -> bool {
    Text::of_value(pattern).matches(value.as_bytes())
}

#[test]
fn a_text_is_exact_a_prefix_a_suffix_or_anything_but_nothing() {
    assert!(principal(CLIENT, CLIENT));
    assert!(!principal("cluster.local/ns/stock/sa/clien", CLIENT));
    assert!(principal("cluster.local/ns/stock/*", CLIENT));
    assert!(principal("*/sa/client", CLIENT));
    assert!(principal("*", CLIENT));
    assert!(!principal("*", ""), "S-123");
    assert!(!principal("Cluster.local/ns/stock/sa/client", CLIENT));
}

#[test]
fn a_star_counts_at_one_end_only_and_the_front_one_first() {
    assert!(
        !principal("*/ns/stock/*", CLIENT),
        "a suffix that ends with a star"
    );
    assert!(principal("*/ns/stock/*", "x/ns/stock/*"), "S-123");
    assert!(!principal("cluster.local/ns/*/sa/client", CLIENT));
    assert!(principal("/a/*/b", "/a/*/b"));
    assert!(principal("**", "a*"));
    assert!(!principal("**", "a"));
}

#[test]
fn a_scheme_in_a_principal_never_matches() {
    assert!(!principal(&format!("spiffe://{CLIENT}"), CLIENT), "S-87");
}

#[test]
fn a_lone_star_for_a_header_takes_the_empty_value() {
    assert!(Text::of_header("*").matches(b""), "S-124");
    assert!(Text::of_header("*").matches_any_case(b""));
    assert!(!Text::of_header("*T").matches(b""));
    let value = Text::of_value("*");
    assert!(value.matches_any_case(b"a") && !value.matches_any_case(b""));
}

#[test]
fn hosts_are_compared_in_any_case_and_with_their_port() {
    let host =
        |pattern: &str, value: &str| Text::of_header(pattern).matches_any_case(value.as_bytes());
    assert!(host("a.COM", "A.com"), "S-125");
    assert!(!host("a.com", "a.com:8080"), "S-136");
    assert!(host("A.com:*", "a.com:8080"));
    assert!(host("*.Example.com", "x.eXample.com"));
    assert!(!host("*.example.com", "ple.com"), "shorter than the suffix");
    assert!(!host("example.com:*", "exam"), "shorter than the prefix");
}

fn namespace(pattern: &str, value: &str) -> bool {
    Namespace::parse(pattern).matches(value)
}

#[test]
fn a_namespace_is_what_stands_between_ns_and_a_slash() {
    assert!(namespace("stock", CLIENT));
    assert!(!namespace("stoc", CLIENT));
    assert!(!namespace("STOCK", CLIENT));
    assert!(!namespace("s.ock", CLIENT), "a dot is a dot (S-128)");
    assert!(!namespace("stock", "cluster.local/stock/sa/client"));
    assert!(!namespace("stock", "cluster.local/ns/stock"));
    assert!(namespace("b", "x/ns/a/ns/b/sa/c"));
}

#[test]
fn stars_in_a_namespace_stand_anywhere_and_cross_slashes() {
    for pattern in ["*", "st*", "*ck", "s*k", "*t*c*", "**"] {
        assert!(namespace(pattern, CLIENT), "{pattern} (S-128)");
    }
    assert!(namespace("a*", "td/ns/a/sa/b"));
    assert!(
        namespace("s*t", "td/ns/stock/sa/client/x"),
        "`.*` crosses slashes (S-128)"
    );
    assert!(!namespace("s*t", CLIENT), "nothing follows the last slash");
    assert!(!namespace("*", "td/x/stock/sa/client"));
    assert!(!namespace("*", "td/ns/stock"));
    assert!(
        !namespace("ab*bc", "td/ns/abc/sa/x"),
        "the pieces do not overlap"
    );
}

#[test]
fn a_trust_domain_named_ns_is_taken_for_the_key() {
    assert!(
        namespace("a", "ns/a/sa/b"),
        "`.*/ns/a/.*` takes spiffe://ns/a/sa/b"
    );
    assert!(namespace("*", "ns/a/b"));
}

#[test]
fn a_namespace_pattern_says_what_the_segment_behind_ns_is_or_begins_with() {
    use Segment::{Begins, Is};
    for (pattern, segment) in [
        ("stock", Is("stock")),
        ("", Is("")),
        ("a/b", Is("a")),
        ("a/b*", Is("a")),
        ("a/*", Is("a")),
        ("st*", Begins("st")),
        ("s*k", Begins("s")),
        ("*", Begins("")),
        ("*/a", Begins("")),
    ] {
        assert_eq!(Namespace::parse(pattern).segment(), segment, "{pattern}");
    }
}

#[test]
fn a_service_account_names_its_two_segments() {
    let segments = |pattern: &str| {
        let account = ServiceAccount::parse(pattern, "shop").expect("a service account");
        let (namespace, name) = account.segments();
        format!("{namespace} {name}")
    };
    assert_eq!(segments("stock/client"), "stock client");
    assert_eq!(segments("client"), "shop client", "S-129");
}

fn account(pattern: &str, value: &str) -> bool {
    ServiceAccount::parse(pattern, "shop")
        .expect("a service account")
        .matches(value)
}

#[test]
fn a_service_account_without_namespace_is_in_that_of_the_policy() {
    assert!(account("stock/client", CLIENT));
    assert!(!account("client", CLIENT), "S-129");
    assert!(account("client", "td/ns/shop/sa/client"));
}

#[test]
fn a_service_account_is_a_whole_name_of_any_trust_domain() {
    assert!(account("stock/client", "other.td/ns/stock/sa/client"));
    assert!(!account("stock/clien", CLIENT));
    assert!(!account("stock/client", "td/ns/stock/sa/client-2"));
    assert!(!account("stock/cli.nt", CLIENT), "CVE-2026-39350");
    assert!(!account("st.ck/client", CLIENT));
    assert!(
        !account("stock/client", "/ns/stock/sa/client"),
        "a trust domain is needed"
    );
    assert!(!account("stock/client", "ns/stock/sa/client"));
}

#[test]
fn a_service_account_may_stand_among_other_segments() {
    for value in [
        "td/k/v/ns/stock/x/y/sa/client/z",
        "td/ns/stock/sa/other/sa/client",
        "td/ns/ns/stock/sa/client",
        "td/ns/stock/ns/stock/sa/client",
        "td/ns/x/ns/stock/sa/client",
        "td/ns/x/ns/y/ns/stock/sa/client",
        "td/ns/stockx/ns/stock/sa/client",
        "td/ns/stock/sa/clientx/sa/client",
        "td/ns/stock/xsa/client/sa/client",
        "\u{e9}/ns/stock/\u{e9}/sa/client",
    ] {
        assert!(account("stock/client", value), "{value} (S-129)");
    }
    for value in [
        "td/ns/stock/sa/client/",
        "td/ns/stock/xsa/client",
        "td/ns/stock//sa/clientx",
        "td/ns/stockx/sa/client",
        "td/ns/stock/",
        "td/ns/stock",
    ] {
        assert!(!account("stock/client", value), "{value} (S-129)");
    }
}

#[test]
fn a_service_account_needs_two_parts_at_most_and_no_star() {
    for pattern in ["a/b/c", "/b", "a/", "", "a*", "a/*"] {
        assert!(
            ServiceAccount::parse(pattern, "shop").is_err(),
            "{pattern} (S-174)"
        );
    }
}

#[test]
fn a_trust_domain_is_compared_as_a_whole() {
    let takes = |pattern: &str, value: &str| {
        TrustDomain::parse(pattern)
            .expect("a trust domain")
            .matches(value)
    };
    assert!(takes("cluster.local", CLIENT));
    assert!(!takes("cluster.loca", CLIENT));
    assert!(takes("cluster*", CLIENT));
    assert!(takes("*local", CLIENT));
    assert!(
        !takes("*client", CLIENT),
        "a star does not cross a slash (S-130)"
    );
    assert!(takes("*", CLIENT));
    for pattern in ["a*b", "*a*", "**"] {
        assert!(TrustDomain::parse(pattern).is_err(), "{pattern}");
    }
}

#[test]
fn host_bits_of_a_block_do_not_count_and_families_do_not_mix() {
    let holds = |pattern: &str, ip: &str| {
        let block = ip_block(pattern).expect("a block");
        let ip: IpAddr = ip.parse().expect("an address");
        block.contains(&ip)
    };
    assert!(holds("10.1.2.3/24", "10.1.2.200"), "S-134");
    assert!(holds("10.1.2.3", "10.1.2.3"));
    assert!(!holds("10.1.2.3", "10.1.2.4"));
    assert!(holds("::/0", "::1"));
    assert!(!holds("0.0.0.0/0", "::ffff:10.0.0.1"));
    assert!(!holds("::ffff:10.0.0.1", "10.0.0.1"));
    for pattern in ["10.0.0.0/33", "foo", "", "10.0.0.0/", "1.2.3", "::1/129"] {
        assert!(ip_block(pattern).is_err(), "{pattern} (S-173)");
    }
}

#[test]
fn a_port_is_decimal_and_fits_sixteen_bits() {
    assert_eq!(port("8080"), Ok(8080));
    assert_eq!(port("0"), Ok(0));
    for pattern in ["65536", "-1", "+1", "", "80x", " 80"] {
        assert!(port(pattern).is_err(), "{pattern} (S-173)");
    }
}

fn request_principal(pattern: &str, issuer: &str, subject: &str) -> bool {
    RequestPrincipal::parse(pattern).matches(Some(issuer), Some(subject))
}

#[test]
fn a_request_principal_is_split_at_its_last_slash() {
    let issuer = "https://accounts.example/v2";
    let pattern = "https://accounts.example/v2/alice";
    assert!(request_principal(pattern, issuer, "alice"), "S-131");
    assert!(!request_principal(
        pattern,
        "https://accounts.example",
        "v2/alice"
    ));
    assert!(request_principal(
        "https://accounts.example/v2/*",
        issuer,
        "x"
    ));
    assert!(!request_principal(
        "https://accounts.example/*",
        issuer,
        "x"
    ));
}

#[test]
fn stars_of_a_request_principal_count_at_one_end() {
    for (pattern, issuer, subject, taken) in [
        ("*", "i", "s", true),
        ("*", "", "s", false),
        ("*", "i", "", false),
        ("*/s", "any", "s", true),
        ("*/s", "", "s", false),
        ("*/s", "any", "xs", false),
        ("*i/s", "xi", "s", true),
        ("*i/s", "ix", "s", false),
        ("i/*", "i", "any", true),
        ("i/*", "i", "", false),
        ("i/*", "ix", "any", false),
        ("i/s*", "i", "sx", true),
        ("i/s*", "i", "xs", false),
        ("*s", "any", "xs", true),
        ("*s", "xs", "any", false),
        ("i*", "ix", "any", true),
        ("i*", "xi", "any", false),
        ("i", "i", "", true),
        ("i", "i", "s", false),
        ("*i/s*", "xi", "s*", true),
        ("*i/s*", "xi", "sx", false),
        ("*/*", "any", "*", true),
        ("*/*", "any", "s", false),
        ("i*/s", "i*", "s", true),
        ("i*/s", "ix", "s", false),
        ("**", "any", "a*", true),
        ("/*", "", "s", true),
        ("i/", "i", "", true),
    ] {
        let matched = request_principal(pattern, issuer, subject);
        assert_eq!(matched, taken, "{pattern} {issuer}/{subject} (S-131)");
    }
    let sub = "user@example.com";
    assert!(request_principal("*@example.com", "issuer", sub), "S-132");
}

#[test]
fn without_both_claims_no_request_principal_matches() {
    let any = RequestPrincipal::parse("*");
    assert!(!any.matches(None, Some("s")), "S-133");
    assert!(!any.matches(Some("i"), None));
    assert!(!RequestPrincipal::parse("i").matches(Some("i"), None));
}
