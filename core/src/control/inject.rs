//! Which pods get a sidecar: the rules of Istio's webhook and its selectors.

use crate::api::meta::Labels;

/// Label, and for older pods annotation, by which a pod asks for a sidecar or for none.
pub const INJECT: &str = "sidecar.istio.io/inject";
/// Label of a namespace whose pods get sidecars, or of one whose pods get none.
pub const INJECTION: &str = "istio-injection";

/// Namespaces of the cluster's own parts, in which the webhook injects nothing, whatever a pod says.
const NEVER: [&str; 4] = [
    "kube-system",
    "kube-public",
    "kube-node-lease",
    "local-path-storage",
];

/// What the decision depends on.
#[derive(Clone, Copy, Debug)]
pub struct Subject<'a> {
    pub namespace: &'a str,
    pub namespace_labels: &'a Labels,
    /// Labels and annotations of the pod.
    pub labels: &'a Labels,
    pub annotations: &'a Labels,
    pub host_network: bool,
}

/// The decision, and what of the pod's own words has no effect: message and hint.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Injection {
    pub sidecar: bool,
    pub doubt: Option<(String, &'static str)>,
}

/// Decides. A namespace with a value of [`INJECTION`] that is neither `enabled` nor `disabled` is one of neither selector:
/// nothing is injected there.
pub fn decide(subject: &Subject<'_>) -> Injection {
    let label = subject.labels.get(INJECT).map(String::as_str);
    let annotation = subject.annotations.get(INJECT).map(String::as_str);
    if subject.host_network || NEVER.contains(&subject.namespace) {
        return Injection::default();
    }
    match subject.namespace_labels.get(INJECTION).map(String::as_str) {
        Some("enabled") => in_enabled_namespace(label, annotation),
        None => in_plain_namespace(label, annotation),
        Some(_) => Injection::default(),
    }
}

/// Every pod, unless it says no. The label outweighs the annotation, even if it is empty.
fn in_enabled_namespace(label: Option<&str>, annotation: Option<&str>) -> Injection {
    let said = label.or(annotation).unwrap_or_default();
    match meaning(said) {
        Meaning::No => Injection::default(),
        Meaning::Yes | Meaning::Nothing => Injection {
            sidecar: true,
            doubt: None,
        },
        Meaning::Unclear => Injection {
            sidecar: true,
            doubt: Some(unclear(said)),
        },
    }
}

/// No pod but those that the webhook's selector takes, which looks at the label alone, and for `true` to the letter.
fn in_plain_namespace(label: Option<&str>, annotation: Option<&str>) -> Injection {
    let doubt = match (label, annotation) {
        (Some("true"), _) => {
            return Injection {
                sidecar: true,
                doubt: None,
            };
        }
        (Some(label), _) => match meaning(label) {
            Meaning::Yes => Some((
                format!(
                    "the label `{INJECT}: {label}` asks for a sidecar in a namespace without `{INJECTION}`, where only `true` counts"
                ),
                "write \"true\"",
            )),
            Meaning::Unclear => Some(unclear(label)),
            Meaning::No | Meaning::Nothing => None,
        },
        (None, Some(annotation)) if meaning(annotation) == Meaning::Yes => Some((
            format!(
                "the annotation `{INJECT}` asks for a sidecar in a namespace without `{INJECTION}`, where only the label counts"
            ),
            "make it a label of the pod",
        )),
        (None, _) => None,
    };
    Injection {
        sidecar: false,
        doubt,
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Meaning {
    Yes,
    No,
    Nothing,
    Unclear,
}

/// Booleans as YAML 1.1 spells them, in any case.
fn meaning(text: &str) -> Meaning {
    match text.to_ascii_lowercase().as_str() {
        "y" | "yes" | "true" | "on" => Meaning::Yes,
        "n" | "no" | "false" | "off" => Meaning::No,
        "" => Meaning::Nothing,
        _ => Meaning::Unclear,
    }
}

fn unclear(text: &str) -> (String, &'static str) {
    (
        format!("`{INJECT}: {text}` is neither true nor false; the namespace decides"),
        "write \"true\" or \"false\"",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(text: Option<&str>, key: &str) -> Labels {
        text.map(|text| (key.to_owned(), text.to_owned()))
            .into_iter()
            .collect()
    }

    fn injected(
        namespace: Option<&str>,
        label: Option<&str>,
        annotation: Option<&str>,
    ) -> Injection {
        decide(&Subject {
            namespace: "shop",
            namespace_labels: &labels(namespace, INJECTION),
            labels: &labels(label, INJECT),
            annotations: &labels(annotation, INJECT),
            host_network: false,
        })
    }

    #[test]
    fn the_namespace_the_label_and_the_annotation_decide_as_in_istio() {
        // Namespace, label, annotation; sidecar, doubt.
        let table = [
            (Some("enabled"), None, None, true, false),
            (Some("enabled"), Some("true"), None, true, false),
            (Some("enabled"), Some("false"), None, false, false),
            (Some("enabled"), Some("Off"), None, false, false),
            (Some("enabled"), None, Some("false"), false, false),
            (Some("enabled"), None, Some("N"), false, false),
            (Some("enabled"), Some("true"), Some("false"), true, false),
            (Some("enabled"), Some("false"), Some("true"), false, false),
            (Some("enabled"), Some(""), Some("false"), true, false),
            (Some("enabled"), Some("maybe"), Some("false"), true, true),
            (Some("enabled"), None, Some("0"), true, true),
            (None, None, None, false, false),
            (None, Some("true"), None, true, false),
            (None, Some("true"), Some("false"), true, false),
            (None, Some("yes"), None, false, true),
            (None, Some("TRUE"), None, false, true),
            (None, Some("false"), Some("true"), false, false),
            (None, Some("1"), None, false, true),
            (None, None, Some("true"), false, true),
            (None, None, Some("false"), false, false),
            (Some("disabled"), None, None, false, false),
            (Some("disabled"), Some("true"), None, false, false),
            (Some("disabled"), None, Some("true"), false, false),
            (Some("Enabled"), None, None, false, false),
            (Some("Enabled"), Some("true"), None, false, false),
            (Some(""), Some("true"), None, false, false),
        ];
        for (namespace, label, annotation, sidecar, doubt) in table {
            let injection = injected(namespace, label, annotation);
            let case = format!("{namespace:?} {label:?} {annotation:?}");
            assert_eq!(injection.sidecar, sidecar, "{case}");
            assert_eq!(injection.doubt.is_some(), doubt, "{case}");
        }
    }

    #[test]
    fn host_network_and_the_clusters_own_namespaces_get_none() {
        let enabled = labels(Some("enabled"), INJECTION);
        let yes = labels(Some("true"), INJECT);
        let none = Labels::new();
        let mut subject = Subject {
            namespace: "shop",
            namespace_labels: &enabled,
            labels: &yes,
            annotations: &none,
            host_network: true,
        };
        assert!(!decide(&subject).sidecar);
        subject.host_network = false;
        assert!(decide(&subject).sidecar);
        for namespace in NEVER {
            subject.namespace = namespace;
            assert!(!decide(&subject).sidecar, "{namespace}");
        }
        subject.namespace = "istio-system";
        assert!(decide(&subject).sidecar);
        subject.namespace_labels = &none;
        assert!(decide(&subject).sidecar, "its pods may ask for one");
        subject.labels = &none;
        assert!(!decide(&subject).sidecar);
    }
}
