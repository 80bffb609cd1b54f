use super::super::testing::meta;
use super::*;

fn want(name: &str, given: Option<&str>) -> Want {
    Want {
        name: ("shop".into(), name.into()),
        given: given.map(|ip| ip.parse().unwrap()),
        origin: meta("shop", name).origin,
    }
}

fn wants(names: &[&str]) -> Vec<Want> {
    names.iter().map(|name| want(name, None)).collect()
}

fn pod(addresses: &Addresses, name: &str) -> String {
    addresses
        .pod(&("shop".into(), name.into()))
        .unwrap()
        .to_string()
}

fn service(addresses: &Addresses, name: &str) -> String {
    addresses
        .service(&("shop".into(), name.into()))
        .unwrap()
        .to_string()
}

#[test]
fn addresses_are_given_in_the_order_of_names_whatever_the_order_of_the_objects() {
    for names in [["a", "b", "c"], ["c", "a", "b"]] {
        let all = Addresses::default()
            .assign(&wants(&names), &wants(&names))
            .unwrap();
        let pods = ["a", "b", "c"].map(|name| pod(&all, name));
        assert_eq!(pods, ["127.1.0.1", "127.1.0.2", "127.1.0.3"]);
        let services = ["a", "b", "c"].map(|name| service(&all, name));
        assert_eq!(services, ["10.96.0.2", "10.96.0.3", "10.96.0.4"]);
    }
}

#[test]
fn who_stays_keeps_its_address_and_what_was_given_up_comes_last() {
    let first = Addresses::default()
        .assign(&wants(&["b", "c"]), &[])
        .unwrap();
    let second = first.assign(&wants(&["a", "c"]), &[]).unwrap();
    assert_eq!(pod(&second, "c"), "127.1.0.2");
    assert_eq!(
        pod(&second, "a"),
        "127.1.0.3",
        "not 127.1.0.1, which was b's"
    );
    let third = second.assign(&wants(&["b", "c"]), &[]).unwrap();
    assert_eq!(pod(&third, "b"), "127.1.0.4");
}

#[test]
fn addresses_that_somebody_says_are_kept_free_for_him() {
    let pods = [
        want("a", None),
        want("b", Some("127.1.0.1")),
        want("c", Some("127.9.9.9")),
    ];
    let services = [
        want("a", None),
        want("b", Some("10.96.0.2")),
        want("c", Some("fd00::1")),
    ];
    let all = Addresses::default().assign(&pods, &services).unwrap();
    assert_eq!(
        ["a", "b", "c"].map(|name| pod(&all, name)),
        ["127.1.0.2", "127.1.0.1", "127.9.9.9"]
    );
    assert_eq!(
        ["a", "b", "c"].map(|name| service(&all, name)),
        ["10.96.0.3", "10.96.0.2", "fd00::1"]
    );
}

#[test]
fn one_address_for_two_is_refused_with_both_places() {
    let pods = [want("a", Some("127.2.0.1")), want("b", Some("127.2.0.1"))];
    let findings = Addresses::default().assign(&pods, &[]).unwrap_err();
    let texts: Vec<_> = findings.iter().map(ToString::to_string).collect();
    assert_eq!(
        texts,
        [
            "b.yaml:1:1: `podIP: 127.2.0.1` is the address of `shop/a` too, which is at a.yaml:1:1\n  \
          hint: give one of them another address"
        ]
    );
    let held = Addresses::default().assign(&[], &wants(&["z"])).unwrap();
    let services = [want("a", Some("10.96.0.2")), want("z", None)];
    let findings = held.assign(&[], &services).unwrap_err();
    assert_eq!(findings.len(), 1);
    assert_eq!(findings[0].origin.to_string(), "a.yaml:1:1");
    assert!(
        findings[0]
            .message
            .contains("shop/z` too, which is at z.yaml:1:1")
    );
}

#[test]
fn addresses_of_the_host_and_of_others_are_refused() {
    for ip in ["127.0.0.1", "127.0.0.6", "127.0.0.0", "127.255.255.255"] {
        let findings = Addresses::default()
            .assign(&[want("a", Some(ip))], &[])
            .unwrap_err();
        assert_eq!(findings.len(), 1, "{ip}");
    }
    for ip in ["127.1.0.1", "0.0.0.0", "224.0.0.1", "::", "::1"] {
        let findings = Addresses::default()
            .assign(&[], &[want("a", Some(ip))])
            .unwrap_err();
        assert_eq!(findings.len(), 1, "{ip}");
    }
}

#[test]
fn the_range_is_gone_through_before_it_begins_again_and_no_further() {
    const FIT: usize = 3;
    static TINY: Range = Range {
        what: "pods",
        field: "podIP",
        first: Ipv4Addr::new(127, 1, 0, 254),
        size: 5,
        fits: PODS.fits,
    };
    // 127.1.0.254, 127.1.1.1 and 127.1.1.2.
    let mut held = Held::default();
    let mut seen = Vec::new();
    for round in 0..2 * FIT {
        held = held
            .assign(&TINY, &wants(&[&format!("pod-{round}")]))
            .unwrap();
        seen.extend(held.by_name.values().map(ToString::to_string));
    }
    let once = ["127.1.0.254", "127.1.1.1", "127.1.1.2"];
    assert_eq!(seen, [once, once].concat());
    let findings = held
        .assign(&TINY, &wants(&["a", "b", "c", "d"]))
        .unwrap_err();
    assert_eq!(
        findings[0].message,
        "there are more pods than addresses for them"
    );
    assert!(held.assign(&TINY, &wants(&["a", "b", "c"])).is_ok());
}

#[test]
fn service_addresses_are_known_by_their_range() {
    for (ip, inside) in [
        ("10.95.255.255", false),
        ("10.96.0.0", true),
        ("10.111.255.255", true),
        ("10.112.0.0", false),
        ("127.1.0.1", false),
        ("fd00::1", false),
    ] {
        assert_eq!(is_service_address(ip.parse().unwrap()), inside, "{ip}");
    }
}

#[test]
fn meshes_of_one_host_have_ranges_of_their_own() {
    let first = Addresses::with_pods_in("127.20.7.0".parse().unwrap(), 4);
    let held = first.assign(&wants(&["a", "b"]), &wants(&["a"])).unwrap();
    assert_eq!(pod(&held, "a"), "127.20.7.1");
    assert_eq!(pod(&held, "b"), "127.20.7.2");
    assert_eq!(service(&held, "a"), "10.96.0.2");
    let full = held.assign(&wants(&["a", "b", "c"]), &[]).unwrap();
    assert_eq!(pod(&full, "c"), "127.20.7.3");
    assert!(full.assign(&wants(&["a", "b", "c", "d"]), &[]).is_err());
}
