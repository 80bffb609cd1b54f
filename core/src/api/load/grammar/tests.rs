use super::*;

#[test]
fn names_follow_dns_1123() {
    for name in ["a", "a-b", "a.b-c.d", "0", &"a".repeat(253)] {
        assert!(is_subdomain(name), "{name}");
    }
    for name in [
        "",
        "A",
        "a_b",
        "-a",
        "a-",
        "a..b",
        ".a",
        &"a".repeat(254),
        "ä",
    ] {
        assert!(!is_subdomain(name), "{name}");
    }
    assert!(is_label(&"a".repeat(63)) && !is_label(&"a".repeat(64)) && !is_label("a.b"));
}

#[test]
fn names_of_services_begin_with_a_letter() {
    for (name, valid) in [
        ("a", true),
        ("a1-b", true),
        ("", false),
        ("1a", false),
        ("a.b", false),
        ("a-", false),
        ("A", false),
    ] {
        assert_eq!(is_rfc1035_label(name), valid, "{name}");
    }
    assert!(is_rfc1035_label(&"a".repeat(63)) && !is_rfc1035_label(&"a".repeat(64)));
}

#[test]
fn names_of_container_ports_are_those_of_iana() {
    for name in ["http", "a", "8a", "http-web-1", &"a".repeat(15)] {
        assert!(is_port_name(name), "{name}");
    }
    for name in [
        "",
        "80",
        "8-0",
        "a--b",
        "-a",
        "a-",
        "Http",
        "a_b",
        &"a".repeat(16),
    ] {
        assert!(!is_port_name(name), "{name}");
    }
}

#[test]
fn labels_and_annotations_follow_kubernetes() {
    for key in ["app", "istio.io/dry-run", "A_b.c", "Example.COM/x"] {
        assert!(is_qualified_name(key), "{key}");
    }
    for key in ["", "/a", "a/", "a/b/c", "-a", "a b", &"a".repeat(64)] {
        assert!(!is_qualified_name(key), "{key}");
    }
    assert!(
        is_label_value("")
            && is_label_value("a.b_c-D")
            && !is_label_value("a*")
            && !is_label_value(".a")
    );
}

#[test]
fn ports_are_digits_up_to_65535() {
    for port in ["0", "65535", "080"] {
        assert!(is_port(port), "{port}");
    }
    for port in [
        "",
        "65536",
        "-1",
        "+1",
        "http",
        " 80",
        "99999999999999999999999",
    ] {
        assert!(!is_port(port), "{port}");
    }
}

#[test]
fn address_blocks_are_those_that_go_parses() {
    for block in [
        "10.0.0.1",
        "10.0.0.1/8",
        "0.0.0.0/0",
        "::1",
        "fd00::/8",
        "::ffff:1.2.3.4/128",
    ] {
        assert!(is_address_block(block), "{block}");
    }
    for block in [
        "",
        "foo",
        "10.0.0.*",
        "10.0.0.0/33",
        "10.0.0.0/",
        "10.0.0.0/08",
        "10.0.0.0/+8",
        "fd00::/129",
        "10.0.0",
        "010.0.0.1",
        "1.2.3.4/8/8",
        "/8",
    ] {
        assert!(!is_address_block(block), "{block}");
    }
}

#[test]
fn path_templates_follow_s_175() {
    for path in [
        "/a",
        "*",
        "/a*",
        "/a/*/b",
        "//",
        "/a/{*}",
        "/{**}",
        "/a/{**}/b",
        "/{*}/x/{**}/y",
        "/a/{*}/",
        "//a/{*}//",
        "/a%20b/{*}",
        "/a;v=1/{*}",
    ] {
        assert_eq!(path_fault(path), None, "{path}");
    }
    for path in [
        "/{id}",
        "/a{*}",
        "/a/{*}.txt",
        "/a}",
        "/{",
        "/{**}/{*}",
        "/{**}/{**}",
        "/a*/{*}",
        "/a//{*}",
        "/a b/{*}",
        "/{***}",
        "/ä/{*}",
    ] {
        assert!(path_fault(path).is_some(), "{path}");
    }
}

#[test]
fn times_are_seconds_since_1970() {
    for (text, seconds) in [
        ("1970-01-01T00:00:00Z", 0),
        ("2000-02-29T12:00:00Z", 951_825_600),
        ("2026-08-22T20:00:18Z", 1_787_428_818),
        ("2026-08-22T15:00:18-05:00", 1_787_428_818),
        ("2026-08-22T20:00:18.999Z", 1_787_428_818),
        ("1969-12-31T23:59:59Z", 0),
    ] {
        assert_eq!(rfc3339_seconds(text), Some(seconds), "{text}");
    }
    for text in [
        "",
        "2026-08-22",
        "2026-08-22T20:00:18",
        "2026-13-01T00:00:00Z",
        "2026-02-29T00:00:00Z",
        "2026-01-01T24:00:00Z",
        "2026-1-01T00:00:00Z",
        "2026-01-01T00:00:00.Z",
        "2026-01-01T00:00:00+0500",
        "2026-01-01T00:00:00Zz",
        "x-01-01T00:00:00Z",
    ] {
        assert_eq!(rfc3339_seconds(text), None, "{text}");
    }
}

#[test]
fn durations_are_those_that_go_parses() {
    for (text, ms) in [
        ("0", 0),
        ("0s", 0),
        ("10s", 10_000),
        ("1.5s", 1_500),
        ("1m30s", 90_000),
        ("100ms", 100),
        ("1h", 3_600_000),
        (".5s", 500),
        ("999us", 0),
        ("+1s", 1_000),
        ("1.0001s", 1_000),
    ] {
        assert_eq!(go_duration_ms(text), Some(ms), "{text}");
    }
    for text in [
        "",
        "10",
        "s",
        "1x",
        "-1s",
        "1..5s",
        "1s ",
        ".s",
        "+",
        "99999999999999h",
        "1e3s",
        "1sec",
    ] {
        assert_eq!(go_duration_ms(text), None, "{text}");
    }
}

#[test]
fn booleans_are_those_of_go() {
    assert_eq!(
        (go_bool("T"), go_bool("0"), go_bool("yes"), go_bool("")),
        (Some(true), Some(false), None, None)
    );
}

#[test]
fn durations_of_whole_milliseconds_have_no_part_of_one() {
    for (text, ms) in [
        ("1ms", 1),
        ("0s", 0),
        ("0", 0),
        ("1.5s", 1_500),
        ("1000us", 1),
    ] {
        assert_eq!(go_duration_whole_ms(text), Some(ms), "{text}");
    }
    for text in ["1us", "1.0001s", "1500us", "1ns", "-1s", "1", ""] {
        assert_eq!(go_duration_whole_ms(text), None, "{text}");
    }
}

#[test]
fn names_of_fields_are_tokens() {
    for name in ["x", "X-Y_z", "1", "a.b", "!#$%&'*+-.^_`|~"] {
        assert!(is_field_name(name), "{name}");
    }
    for name in [
        "", " ", "a b", "a:", "(", "a\n", "\u{e9}", "a/b", "\"", "a,b", "\x7f",
    ] {
        assert!(!is_field_name(name), "{name:?}");
    }
}

#[test]
fn hosts_are_dotted_labels_in_any_case() {
    let label = "a".repeat(63);
    let whole = [label.as_str(); 3].join(".") + "." + &"b".repeat(61);
    for host in ["a", "A.b-C", "1.2", "authz.ns.svc.cluster.local", &whole] {
        assert!(is_host(host), "{host}");
    }
    let (long_label, long) = (format!("{label}a"), format!("{whole}b"));
    for host in [
        "",
        ".",
        "a.",
        ".a",
        "a..b",
        "-a",
        "a-",
        "a_b",
        "*.a",
        "a:1",
        "a/b",
        &long_label,
        &long,
    ] {
        assert!(!is_host(host), "{host}");
    }
}

#[test]
fn addresses_of_http_have_a_scheme_a_host_and_no_odd_port() {
    for uri in [
        "http://a",
        "HTTPS://A.b/c?d=e#f",
        "https://a:8443/x",
        "https://a:/x",
        "http://10.0.0.1",
        "http://[::1]",
        "http://[::1]:80/x",
        "http://user:word@a:1/x@y:z",
        "https://a?b:c",
        "https://a/b c",
    ] {
        assert!(is_http_uri(uri), "{uri}");
    }
    for uri in [
        "",
        "a",
        "a/b",
        "ftp://a",
        "file:///a",
        "http:/a",
        "http:a",
        "https://",
        "http:///a",
        "https://?a",
        "http://a:b",
        "http://a:65536",
        "http://a:-1",
        "http://a:1:2",
        "http://[::1",
        "http://[::1]x",
        "http://[::1]:x",
        "http://a b/c",
        "http://a\n",
        "http://a/\tb",
        "http://a/\x7f",
        " http://a",
        "//a",
    ] {
        assert!(!is_http_uri(uri), "{uri:?}");
    }
}
