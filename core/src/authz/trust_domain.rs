//! Trust-domain aliases in policies (S-88).

use std::collections::BTreeSet;

/// The trust domain that always means the mesh's own in a principal (S-88).
const CLUSTER_LOCAL: &str = "cluster.local";

/// `principals` with those of a known trust domain written out for every domain of `trust_domains` (the mesh's own first,
/// then its aliases), in that order.
///
/// Only principals of five parts (`<td>/ns/<ns>/sa/<sa>`) are looked at. A `*` for the trust domain stays; a `*-td` stays
/// for the domains that end so and is written out for the rest; an unknown trust domain stays.
pub fn expand_principals(trust_domains: &[&str], principals: &[String]) -> Vec<String> {
    let mut expanded = Vec::new();
    for principal in principals {
        match principal.split_once('/') {
            Some((own, path))
                if own != "*"
                    && path.split('/').count() == 4
                    && (own == CLUSTER_LOCAL
                        || trust_domains.iter().any(|known| overlap(own, known))) =>
            {
                let start = expanded.len();
                for trust_domain in trust_domains {
                    let written = if ends_like(trust_domain, own) {
                        principal.clone()
                    } else {
                        format!("{trust_domain}/{path}")
                    };
                    if !expanded[start..].contains(&written) {
                        expanded.push(written);
                    }
                }
            }
            Some(_) | None => expanded.push(principal.clone()),
        }
    }
    expanded
}

/// `values` of `trustDomains`: one that names a known domain stands for all of them. `cluster.local` is not special here.
pub fn expand_trust_domains(trust_domains: &[&str], values: &[String]) -> Vec<String> {
    let mut expanded: Vec<String> = Vec::new();
    let mut seen = BTreeSet::new();
    let mut add = |value: &str| {
        if seen.insert(value.to_owned()) {
            expanded.push(value.to_owned());
        }
    };
    for value in values {
        if trust_domains.contains(&value.as_str()) {
            trust_domains.iter().for_each(|known| add(known));
        } else {
            add(value);
        }
    }
    expanded
}

/// Equal, or one is a pattern with a star at an end that takes the other.
fn overlap(a: &str, b: &str) -> bool {
    a == b || begins_like(a, b) || begins_like(b, a) || ends_like(a, b) || ends_like(b, a)
}

fn begins_like(value: &str, pattern: &str) -> bool {
    pattern
        .strip_suffix('*')
        .is_some_and(|prefix| value.starts_with(prefix))
}

fn ends_like(value: &str, pattern: &str) -> bool {
    pattern
        .strip_prefix('*')
        .is_some_and(|suffix| value.ends_with(suffix))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn principals(trust_domains: &[&str], principal: &str) -> Vec<String> {
        expand_principals(trust_domains, &[principal.to_owned()])
    }

    #[test]
    fn a_known_trust_domain_is_written_out_for_all() {
        let both = ["td2/ns/foo/sa/x", "td1/ns/foo/sa/x"];
        assert_eq!(principals(&["td2", "td1"], "td1/ns/foo/sa/x"), both);
        assert_eq!(
            principals(&["td2", "td1"], "cluster.local/ns/foo/sa/x"),
            both
        );
    }

    #[test]
    fn what_names_no_known_trust_domain_stays() {
        for principal in [
            "td9/ns/foo/sa/x",
            "*/ns/foo/sa/x",
            "*",
            "sa/x",
            "td1*",
            "td1/ns/a/sa/b/c",
        ] {
            assert_eq!(
                principals(&["td2", "td1"], principal),
                [principal],
                "{principal}"
            );
        }
    }

    #[test]
    fn a_suffix_stays_for_the_domains_it_takes_and_is_written_out_for_the_rest() {
        assert_eq!(
            principals(&["new-td", "other", "old-td"], "*-td/ns/a/sa/b"),
            ["*-td/ns/a/sa/b", "other/ns/a/sa/b"]
        );
    }

    #[test]
    fn stars_on_either_side_name_a_known_trust_domain() {
        for (known, principal, expected) in [
            (["new", "old-td"], "old*/ns/a/sa/b", ["new", "old-td"]),
            (["new", "old*"], "old-td/ns/a/sa/b", ["new", "old*"]),
            (["new", "*-td"], "old-td/ns/a/sa/b", ["new", "*-td"]),
        ] {
            let written = expected.map(|domain| format!("{domain}/ns/a/sa/b"));
            assert_eq!(principals(&known, principal), written, "{principal} (S-88)");
        }
    }

    #[test]
    fn trust_domains_stand_for_each_other_and_cluster_local_for_nothing() {
        let values = |value: &str| expand_trust_domains(&["td2", "td1"], &[value.to_owned()]);
        assert_eq!(values("td1"), ["td2", "td1"]);
        assert_eq!(values("cluster.local"), ["cluster.local"]);
        assert_eq!(values("td*"), ["td*"]);
    }
}
