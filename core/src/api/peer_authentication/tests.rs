use std::sync::Arc;

use super::*;
use crate::api::load::{Loaded, Text, validate};

fn load(spec: &str) -> Loaded {
    let text = format!(
        "apiVersion: security.istio.io/v1\nkind: PeerAuthentication\nmetadata: {{name: p, namespace: shop}}\nspec: {spec}\n"
    );
    let name = Arc::from("pa.yaml");
    validate(&[Text { name, text }], "default")
}

fn read(spec: &str) -> PeerAuthentication {
    let loaded = load(spec);
    assert_eq!(loaded.findings, [], "{spec}");
    loaded
        .peer_authentications
        .into_iter()
        .next()
        .expect("the policy is valid")
}

#[test]
fn modes_and_ports_are_read() {
    let policy = read(
        "{selector: {matchLabels: {a: b}}, mtls: {mode: STRICT}, portLevelMtls: {80: {mode: DISABLE}, \"90\": {}}}",
    );
    assert_eq!(policy.mode, Mode::Strict);
    assert_eq!(
        policy.port_level,
        BTreeMap::from([(80, Mode::Disable), (90, Mode::Unset)])
    );
    assert_eq!(
        policy.selector,
        Some(Labels::from([("a".to_owned(), "b".to_owned())]))
    );
}

#[test]
fn what_is_absent_is_as_the_parent_says() {
    for spec in ["{}", "{mtls: {}}", "{mtls: {mode: UNSET}}"] {
        assert_eq!(read(spec).mode, Mode::Unset, "{spec}");
    }
}

#[test]
fn s_172_and_types_are_held() {
    for spec in [
        "{portLevelMtls: {80: {mode: DISABLE}}}",
        "{selector: {matchLabels: {a: b}}, portLevelMtls: {}}",
        "{selector: {matchLabels: {a: b}}, portLevelMtls: {0: {mode: STRICT}}}",
        "{selector: {matchLabels: {a: b}}, portLevelMtls: {65536: {mode: STRICT}}}",
        "{selector: {matchLabels: {a: b}}, portLevelMtls: {http: {mode: STRICT}}}",
        "{selector: {matchLabels: {a: b}}, portLevelMtls: {80: {}, 080: {}}}",
        "{selector: {matchLabels: {a: b}}, portLevelMtls: {80: STRICT}}",
        "{mtls: {mode: strict}}",
        "{mtls: {mode: true}}",
        "{mtls: {mode: }}",
        "{mtls: }",
        "{mtls: STRICT}",
        "{mode: STRICT}",
        "{mtls: {modes: STRICT}}",
        "",
    ] {
        let loaded = load(spec);
        assert_eq!(loaded.findings.len(), 1, "{spec}: {:?}", loaded.findings);
        assert!(
            loaded.has_errors() && loaded.peer_authentications.is_empty(),
            "{spec}"
        );
    }
}

#[test]
fn a_selector_without_labels_only_warns() {
    for spec in ["{selector: {}}", "{selector: {matchLabels: {}}}"] {
        let loaded = load(spec);
        assert_eq!(
            (loaded.findings.len(), loaded.has_errors()),
            (1, false),
            "{spec}"
        );
        assert_eq!(loaded.peer_authentications.len(), 1);
    }
}
