//! Which policies count at a sidecar, as a few letters to compare.
//!
//! Two sidecars at which policies of the same names say the same have the same digest, whenever and wherever these were
//! written; any difference in what one of them says makes another one.

use std::collections::BTreeMap;

use aws_lc_rs::digest::{Context, SHA256, digest};
use meshward_core::api::authorization_policy::{
    Action, AuthorizationPolicy, Condition, Operation, Rule, Source,
};
use meshward_core::api::mesh_config::MeshConfig;
use meshward_core::api::meta::{Labels, Meta};
use meshward_core::api::object::Object;
use meshward_core::api::peer_authentication::{Mode, PeerAuthentication};
use meshward_core::api::request_authentication::{
    ClaimToHeader, HeaderLocation, JwtRule, KeySource, RequestAuthentication,
};
use meshward_core::control::mesh::PodFacts;
use meshward_core::control::store::Store;
use meshward_core::snapshot::select::selects;

/// Bytes of a digest that are shown, two letters each.
const SHOWN: usize = 6;

/// The policies of a mesh, each with what it comes to. Made once for each version of the mesh.
#[derive(Debug)]
pub(crate) struct Policies {
    root_namespace: String,
    /// In the order of kinds and names.
    by_namespace: BTreeMap<String, Vec<Counted>>,
}

#[derive(Debug)]
struct Counted {
    selector: Option<Labels>,
    hash: [u8; 32],
}

impl Policies {
    pub(crate) fn new(store: &Store, config: &MeshConfig) -> Self {
        let mut by_namespace: BTreeMap<String, Vec<Counted>> = BTreeMap::new();
        for object in store.objects() {
            let (selector, text) = match object {
                // What is for gateways and waypoints does not reach a sidecar (S-5).
                Object::AuthorizationPolicy(policy) if !policy.targets => {
                    (&policy.selector, Canonical::authorization(policy))
                }
                Object::PeerAuthentication(policy) => (&policy.selector, Canonical::peer(policy)),
                Object::RequestAuthentication(policy) if !policy.targets => {
                    (&policy.selector, Canonical::request(policy))
                }
                _ => continue,
            };
            let counted = Counted {
                selector: selector.clone(),
                hash: text.hash(),
            };
            let namespace = object.meta().namespace.clone();
            by_namespace.entry(namespace).or_default().push(counted);
        }
        Self {
            root_namespace: config.root_namespace.clone(),
            by_namespace,
        }
    }
}

/// The first twelve letters of the SHA-256 of the policies that count at `pod` (S-1 to S-5): those of the root namespace,
/// then those of its own, by kind and name. The same text for every sidecar at which none does.
pub(crate) fn policy_digest(policies: &Policies, pod: &PodFacts) -> String {
    let mut namespaces = vec![policies.root_namespace.as_str()];
    if pod.namespace != policies.root_namespace {
        namespaces.push(&pod.namespace);
    }
    let mut all = Context::new(&SHA256);
    for namespace in namespaces {
        for policy in policies.by_namespace.get(namespace).into_iter().flatten() {
            if selects(policy.selector.as_ref(), &pod.labels) {
                all.update(&policy.hash);
            }
        }
    }
    let all = all.finish();
    let shown = all.as_ref().iter().take(SHOWN);
    shown.map(|byte| format!("{byte:02x}")).collect()
}

/// What a policy says, in one spelling: each text with its length before it, each list with the number of its items.
#[derive(Default)]
struct Canonical(Vec<u8>);

impl Canonical {
    fn authorization(policy: &AuthorizationPolicy) -> Self {
        let AuthorizationPolicy {
            meta,
            selector,
            targets: _,
            action,
            provider,
            rules,
            dry_run,
        } = policy;
        let mut text = Self::begin("AuthorizationPolicy", meta, selector.as_ref());
        text.text(match action {
            Action::Allow => "ALLOW",
            Action::Audit => "AUDIT",
            Action::Custom => "CUSTOM",
            Action::Deny => "DENY",
        });
        text.texts(provider.as_slice());
        text.flag(*dry_run);
        text.items(rules, Self::rule);
        text
    }

    fn peer(policy: &PeerAuthentication) -> Self {
        let PeerAuthentication {
            meta,
            selector,
            mode,
            port_level,
        } = policy;
        let mut text = Self::begin("PeerAuthentication", meta, selector.as_ref());
        text.mode(*mode);
        text.number(port_level.len());
        for (port, mode) in port_level {
            text.number(usize::from(*port));
            text.mode(*mode);
        }
        text
    }

    fn request(policy: &RequestAuthentication) -> Self {
        let RequestAuthentication {
            meta,
            selector,
            targets: _,
            rules,
        } = policy;
        let mut text = Self::begin("RequestAuthentication", meta, selector.as_ref());
        text.items(rules, Self::jwt);
        text
    }

    fn begin(kind: &str, meta: &Meta, selector: Option<&Labels>) -> Self {
        let mut text = Self::default();
        text.text(kind);
        text.text(&meta.namespace);
        text.text(&meta.name);
        let selector = selector.into_iter().flatten();
        let selector: Vec<(&String, &String)> = selector.collect();
        text.items(&selector, |text, (key, value)| {
            text.text(key);
            text.text(value);
        });
        text
    }

    fn rule(&mut self, rule: &Rule) {
        let Rule {
            from,
            to,
            when,
            origin: _,
        } = rule;
        self.items(from, Self::source);
        self.items(to, Self::operation);
        self.items(when, Self::condition);
    }

    fn source(&mut self, source: &Source) {
        let Source {
            principals,
            not_principals,
            request_principals,
            not_request_principals,
            namespaces,
            not_namespaces,
            service_accounts,
            not_service_accounts,
            trust_domains,
            not_trust_domains,
            ip_blocks,
            not_ip_blocks,
            remote_ip_blocks,
            not_remote_ip_blocks,
        } = source;
        for values in [
            principals,
            not_principals,
            request_principals,
            not_request_principals,
            namespaces,
            not_namespaces,
            service_accounts,
            not_service_accounts,
            trust_domains,
            not_trust_domains,
            ip_blocks,
            not_ip_blocks,
            remote_ip_blocks,
            not_remote_ip_blocks,
        ] {
            self.texts(values);
        }
    }

    fn operation(&mut self, operation: &Operation) {
        let Operation {
            hosts,
            not_hosts,
            ports,
            not_ports,
            methods,
            not_methods,
            paths,
            not_paths,
        } = operation;
        for values in [
            hosts,
            not_hosts,
            ports,
            not_ports,
            methods,
            not_methods,
            paths,
            not_paths,
        ] {
            self.texts(values);
        }
    }

    fn condition(&mut self, condition: &Condition) {
        let Condition {
            key,
            values,
            not_values,
            origin: _,
        } = condition;
        self.text(key);
        self.texts(values);
        self.texts(not_values);
    }

    fn jwt(&mut self, rule: &JwtRule) {
        let JwtRule {
            issuer,
            audiences,
            keys,
            from_headers,
            from_params,
            from_cookies,
            output_payload_to_header,
            output_claims,
            forward_original_token,
            space_delimited_claims,
            origin: _,
        } = rule;
        self.text(issuer);
        self.texts(audiences);
        let (source, keys) = match keys {
            KeySource::Inline(text) => ("jwks", text.as_str()),
            KeySource::Uri(uri) => ("jwksUri", uri.as_str()),
            KeySource::Discovery => ("", ""),
        };
        self.text(source);
        self.text(keys);
        self.items(from_headers, |text, HeaderLocation { name, prefix }| {
            text.text(name);
            text.text(prefix);
        });
        self.texts(from_params);
        self.texts(from_cookies);
        self.texts(output_payload_to_header.as_slice());
        self.items(output_claims, |text, ClaimToHeader { header, claim }| {
            text.text(header);
            text.text(claim);
        });
        self.flag(*forward_original_token);
        self.texts(space_delimited_claims);
    }

    fn mode(&mut self, mode: Mode) {
        self.text(match mode {
            Mode::Unset => "UNSET",
            Mode::Disable => "DISABLE",
            Mode::Permissive => "PERMISSIVE",
            Mode::Strict => "STRICT",
        });
    }

    fn items<T>(&mut self, items: &[T], mut each: impl FnMut(&mut Self, &T)) {
        self.number(items.len());
        for item in items {
            each(self, item);
        }
    }

    fn texts(&mut self, texts: &[String]) {
        self.items(texts, |text, item| text.text(item));
    }

    fn text(&mut self, text: &str) {
        self.number(text.len());
        self.0.extend_from_slice(text.as_bytes());
    }

    fn flag(&mut self, flag: bool) {
        self.0.push(u8::from(flag));
    }

    fn number(&mut self, number: usize) {
        self.0.extend_from_slice(&(number as u64).to_be_bytes());
    }

    fn hash(&self) -> [u8; 32] {
        let mut hash = [0; 32];
        hash.copy_from_slice(digest(&SHA256, &self.0).as_ref());
        hash
    }
}

#[cfg(test)]
mod tests {
    use meshward_core::api::load::{Text, load_objects};
    use meshward_core::clock::UnixTime;
    use meshward_core::control::mesh::PodKey;
    use meshward_core::control::plane::Plane;

    use super::*;

    const PODS: &str = "apiVersion: v1\nkind: Pod\nmetadata: {name: web, labels: {app: web}}\n\
        spec: {containers: [{name: main}]}\n---\n\
        apiVersion: v1\nkind: Pod\nmetadata: {name: db, labels: {app: db}}\n\
        spec: {containers: [{name: main}]}\n---\n";

    fn authorization(name: &str, namespace: &str, spec: &str) -> String {
        format!(
            "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\n\
             metadata: {{name: {name}, namespace: {namespace}}}\nspec: {spec}\n---\n"
        )
    }

    /// Of `web` and of `db`.
    fn digests(policies: &[String]) -> [String; 2] {
        digests_at(policies, 1)
    }

    fn digests_at(policies: &[String], second: u64) -> [String; 2] {
        let text = PODS.to_owned() + &policies.concat();
        let name = format!("at-{second}.yaml").into();
        let objects = load_objects(&[Text { name, text }], "default", false).unwrap();
        let mut plane = Plane::new();
        plane
            .apply(objects.objects, UnixTime(second * 1000))
            .unwrap();
        let policies = Policies::new(plane.store(), plane.mesh_config());
        ["web", "db"].map(|name| {
            let key = PodKey {
                namespace: "default".into(),
                name: name.into(),
            };
            policy_digest(&policies, plane.mesh().pod(&key).unwrap())
        })
    }

    #[test]
    fn equal_sets_have_one_digest_in_any_order_and_at_any_time() {
        let a = authorization("a", "default", "{}");
        let b = authorization("b", "istio-system", "{action: DENY, rules: [{}]}");
        let one = digests(&[a.clone(), b.clone()]);
        assert_eq!(one, digests_at(&[b, "# moved\n---\n".into(), a], 77));
        assert_eq!(one[0], one[1]);
        assert_eq!(one[0].len(), 2 * SHOWN);
    }

    #[test]
    fn every_word_of_a_policy_counts() {
        let rule = |text: &str| authorization("a", "default", &format!("{{rules: [{text}]}}"));
        let mut seen = std::collections::BTreeSet::new();
        let mut policies: Vec<String> = [
            "{}",
            "{to: [{operation: {paths: [/a]}}]}",
            "{to: [{operation: {paths: [/b]}}]}",
            "{to: [{operation: {notPaths: [/a]}}]}",
            "{to: [{operation: {hosts: [/a]}}]}",
            "{to: [{operation: {paths: [/a, /b]}}]}",
            "{to: [{operation: {paths: [/a]}}, {operation: {paths: [/b]}}]}",
            "{from: [{source: {principals: [a]}}]}",
            "{from: [{source: {namespaces: [a]}}]}",
        ]
        .map(rule)
        .into();
        policies.push(authorization("a", "default", "{}"));
        policies.push(authorization("a", "default", "{action: AUDIT}"));
        policies.push(authorization("a", "istio-system", "{}"));
        policies.push(authorization("b", "default", "{}"));
        policies.push(String::new());
        let count = policies.len();
        for policy in policies {
            let [web, _] = digests(std::slice::from_ref(&policy));
            assert!(seen.insert(web), "{policy}");
        }
        assert_eq!(seen.len(), count);
    }

    #[test]
    fn only_what_reaches_a_pod_counts_at_it() {
        let [web, db] = digests(&[authorization(
            "a",
            "default",
            "{selector: {matchLabels: {app: web}}}",
        )]);
        let [none, same] = digests(&[]);
        assert_ne!(web, none);
        assert_eq!((&db, &none), (&none, &same));
        let peer = "apiVersion: security.istio.io/v1\nkind: PeerAuthentication\n\
                    metadata: {name: p, namespace: default}\nspec: {mtls: {mode: STRICT}}\n---\n";
        let [strict, _] = digests(&[peer.to_owned()]);
        let [disabled, _] = digests(&[peer.replace("STRICT", "DISABLE")]);
        assert_ne!(strict, disabled);
        assert_ne!(strict, none);
    }
}
