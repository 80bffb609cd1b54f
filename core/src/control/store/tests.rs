use super::super::testing::{NOW, key, meta, namespace, service, service_account};
use super::*;
use crate::api::authorization_policy::{Action, Condition, Rule};

fn lines(outcomes: &[Outcome]) -> Vec<String> {
    outcomes.iter().map(ToString::to_string).collect()
}

fn web() -> Object {
    Object::Service(service("shop", "web", &[("http", 80, 8080)]))
}

/// A policy with a rule at this line.
fn policy(line: u32) -> Object {
    let mut origin = meta("shop", "p").origin;
    origin.line = line;
    Object::AuthorizationPolicy(AuthorizationPolicy {
        meta: Meta {
            origin: origin.clone(),
            ..meta("shop", "p")
        },
        selector: None,
        targets: false,
        action: Action::Allow,
        provider: None,
        rules: vec![Rule {
            from: Vec::new(),
            to: Vec::new(),
            when: vec![Condition {
                key: "source.namespace".into(),
                values: vec!["a".into()],
                not_values: Vec::new(),
                origin: origin.clone(),
            }],
            origin,
        }],
        dry_run: false,
    })
}

#[test]
fn outcomes_read_as_those_of_kubectl() {
    let mut store = Store::default();
    let objects = vec![namespace("shop", None), web(), policy(1)];
    assert_eq!(
        lines(&store.apply(objects, NOW)),
        [
            "namespace/shop created",
            "service/web created",
            "authorizationpolicy.security.istio.io/p created"
        ]
    );
    let other = Object::Service(service("shop", "web", &[("http", 81, 8080)]));
    assert_eq!(
        lines(&store.apply(vec![namespace("shop", None), other], NOW)),
        ["namespace/shop unchanged", "service/web configured"]
    );
    let keys = [
        key(Kind::AuthorizationPolicy, "shop", "p"),
        key(Kind::Service, "shop", "web"),
    ];
    assert_eq!(
        lines(&store.delete(&keys).unwrap()),
        [
            "authorizationpolicy.security.istio.io \"p\" deleted",
            "service \"web\" deleted"
        ]
    );
}

#[test]
fn where_an_object_stands_is_no_part_of_it() {
    let mut store = Store::default();
    store.apply(vec![policy(1)], NOW);
    let [outcome] = store.apply(vec![policy(30)], NOW).try_into().unwrap();
    assert_eq!(outcome.change, Change::Unchanged);
    let Object::AuthorizationPolicy(mut other) = policy(1) else {
        unreachable!()
    };
    other.rules[0].when[0].values.push("b".into());
    let other = Object::AuthorizationPolicy(other);
    let [outcome] = store.apply(vec![other], NOW).try_into().unwrap();
    assert_eq!(outcome.change, Change::Configured);
}

#[test]
fn an_object_was_made_when_it_first_came_or_when_it_says() {
    let mut store = Store::default();
    let created = |store: &Store, name: &str| {
        let key = key(Kind::Service, "shop", name);
        store.get(&key).unwrap().meta().created
    };
    let mut dated = service("shop", "dated", &[]);
    dated.meta.created = 5;
    store.apply(vec![web(), Object::Service(dated.clone())], NOW);
    assert_eq!(created(&store, "web"), 1_767_323_045, "S-7: whole seconds");
    assert_eq!(created(&store, "dated"), 5);
    let later = UnixTime(NOW.0 + 60_000);
    let changed = Object::Service(service("shop", "web", &[("tcp", 81, 81)]));
    dated.meta.created = 6;
    let outcomes = store.apply(vec![changed, Object::Service(dated)], later);
    assert_eq!(outcomes[0].change, Change::Configured);
    assert_eq!(outcomes[1].change, Change::Unchanged);
    assert_eq!(created(&store, "web"), 1_767_323_045);
    assert_eq!(created(&store, "dated"), 5);
}

#[test]
fn one_missing_object_keeps_all_of_them() {
    let mut store = Store::default();
    store.apply(vec![web()], NOW);
    let keys = [
        key(Kind::Service, "shop", "web"),
        key(Kind::PeerAuthentication, "shop", "mesh"),
        key(Kind::Deployment, "shop", "web"),
    ];
    assert_eq!(
        store.delete(&keys).unwrap_err().to_string(),
        "Error from server (NotFound): peerauthentications.security.istio.io \"mesh\" not found\n\
         Error from server (NotFound): deployments.apps \"web\" not found"
    );
    assert!(store.get(&keys[0]).is_some());
}

#[test]
fn a_namespace_takes_with_it_what_lives_in_it() {
    let mut store = Store::default();
    let in_default = Object::Service(service("default", "web", &[]));
    let objects = vec![
        namespace("shop", None),
        namespace("default", Some("enabled")),
        web(),
        service_account("stock", "a"),
        in_default,
    ];
    store.apply(objects, NOW);
    let keys = [
        key(Kind::Namespace, "", "shop"),
        key(Kind::Service, "shop", "web"),
        key(Kind::Namespace, "", "default"),
    ];
    assert_eq!(store.delete(&keys).unwrap().len(), 3);
    let left: Vec<_> = store.objects().map(|o| o.key().to_string()).collect();
    assert_eq!(left, ["service/web", "serviceaccount/a"]);
    assert!(!store.has_namespace("shop"));
    assert!(store.has_namespace("default"));
}
