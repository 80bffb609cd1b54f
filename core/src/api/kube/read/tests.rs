use std::sync::Arc;

use super::*;
use crate::api::load::{Text, load_objects};
use crate::api::object::Object;

const SERVICE: &str = "apiVersion: v1\nkind: Service\nmetadata: {name: web}\nspec:\n  selector: {app: web}\n  ports:\n  - port: 80\n";
const DEPLOYMENT: &str = "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: web}\nspec:\n  selector: {matchLabels: {app: web}}\n  template:\n    metadata: {labels: {app: web, version: v1}}\n    spec:\n      containers:\n      - name: app\n        ports:\n        - containerPort: 8080\n";
const POD: &str =
    "apiVersion: v1\nkind: Pod\nmetadata: {name: web}\nspec: {containers: [{name: app}]}\n";

/// The one object of a text and its warnings, or all findings.
fn read(content: &str) -> Result<(Option<Object>, Vec<String>), Vec<String>> {
    let text = Text {
        name: Arc::from("f"),
        text: content.to_owned(),
    };
    let lines = |findings: &[crate::api::load::Finding]| {
        findings.iter().map(ToString::to_string).collect::<Vec<_>>()
    };
    match load_objects(&[text], "here", false) {
        Ok(mut loaded) => Ok((loaded.objects.pop(), lines(&loaded.warnings))),
        Err(refused) => Err(lines(&refused.findings)),
    }
}

fn replaced(content: &str, was: &str, is: &str) -> String {
    let changed = content.replace(was, is);
    assert_ne!(changed, content, "`{was}` is not in it");
    changed
}

fn service(content: &str) -> Service {
    match read(content) {
        Ok((Some(Object::Service(service)), warnings)) if warnings.is_empty() => service,
        other => panic!("{content}: {other:?}"),
    }
}

fn deployment(content: &str) -> Deployment {
    match read(content) {
        Ok((Some(Object::Deployment(deployment)), warnings)) if warnings.is_empty() => deployment,
        other => panic!("{content}: {other:?}"),
    }
}

fn pod(content: &str) -> Pod {
    match read(content) {
        Ok((Some(Object::Pod(pod)), warnings)) if warnings.is_empty() => pod,
        other => panic!("{content}: {other:?}"),
    }
}

/// Exactly one finding, an error, that begins with `expected`, and has a hint.
fn refused(content: &str, expected: &str) {
    let findings = read(content).expect_err(content);
    assert_eq!(findings.len(), 1, "{content}: {findings:#?}");
    assert!(
        findings[0].starts_with(expected) && findings[0].contains("\n  hint: "),
        "{content}: {findings:#?}"
    );
}

#[test]
fn a_namespace_lives_in_none_whatever_it_says() {
    let text = "apiVersion: v1\nkind: Namespace\nmetadata: {name: shop, namespace: other, labels: {istio-injection: enabled}}\n";
    let Ok((Some(Object::Namespace(namespace)), _)) = read(text) else {
        panic!("it is valid");
    };
    assert_eq!(namespace.meta.namespace, "");
    assert_eq!(namespace.meta.labels["istio-injection"], "enabled");
    refused(
        &replaced(text, "name: shop", "name: sh.op"),
        "f:3:18: `sh.op` is no name",
    );
}

#[test]
fn a_service_has_the_defaults_of_the_api_server() {
    let service = service(SERVICE);
    assert_eq!(service.meta.namespace, "here");
    assert_eq!(service.cluster_ip, ClusterIp::Auto);
    assert_eq!(
        service.ports,
        [ServicePort {
            name: String::new(),
            port: 80,
            target: TargetPort::Number(80),
            app_protocol: None
        }]
    );
}

#[test]
fn target_ports_are_numbers_or_names() {
    for (written, expected) in [
        ("8080", TargetPort::Number(8080)),
        ("65535", TargetPort::Number(65535)),
        ("http-web", TargetPort::Name("http-web".to_owned())),
        ("0", TargetPort::Number(80)),
        ("''", TargetPort::Number(80)),
        ("null", TargetPort::Number(80)),
    ] {
        let text = format!("{SERVICE}    targetPort: {written}\n");
        assert_eq!(service(&text).ports[0].target, expected, "{written}");
    }
    for (written, expected) in [
        ("65536", "`targetPort` holds 65536, which is no port"),
        ("-1", "`targetPort` holds -1, which is no port"),
        ("80.5", "`targetPort` holds `80.5`"),
        ("0x50", "`targetPort` holds `0x50`"),
        ("080", "`targetPort` holds `080`"),
        ("'8080'", "`8080` is no name of a port"),
        ("Http", "`Http` is no name of a port"),
        (
            "a-very-long-name",
            "`a-very-long-name` is no name of a port",
        ),
        ("a--b", "`a--b` is no name of a port"),
        ("true", "`targetPort` holds a boolean"),
        ("[80]", "`targetPort` holds a list"),
    ] {
        let text = format!("{SERVICE}    targetPort: {written}\n");
        refused(&text, &format!("f:8:17: {expected}"));
    }
}

#[test]
fn ports_are_plain_numbers_from_1_to_65535() {
    for (written, expected) in [
        ("0", "`port` holds 0, which is no port"),
        ("65536", "`port` holds 65536"),
        (
            "99999999999999999999",
            "`port` holds `99999999999999999999`",
        ),
        ("1e3", "`port` holds `1e3`"),
        ("'80'", "`port` holds text where a number is expected"),
        ("http", "`port` holds text where a number"),
    ] {
        let text = replaced(SERVICE, "port: 80", &format!("port: {written}"));
        refused(&text, &format!("f:7:11: {expected}"));
    }
    refused(
        &replaced(SERVICE, "port: 80", "name: http"),
        "f:7:5: the port has no `port`",
    );
}

#[test]
fn several_ports_have_names_and_no_two_the_same() {
    let two = |second: &str| format!("{SERVICE}    name: http\n  - {second}\n");
    assert_eq!(service(&two("{port: 81, name: tcp}")).ports.len(), 2);
    refused(
        &two("{port: 81}"),
        "f:9:5: port 81 of several has no `name`",
    );
    refused(
        &two("{port: 81, name: http}"),
        "f:9:22: two ports are named `http`\n  hint: rename one of them; the first is at f:8:11",
    );
    refused(
        &two("{port: 80, name: tcp}"),
        "f:9:12: port 80 occurs twice\n  hint: remove one of them; the first is at f:7:11",
    );
    refused(&two("{port: 81, name: Tcp}"), "f:9:22: `Tcp` is no name");
}

#[test]
fn ports_of_other_transports_are_skipped_with_a_warning() {
    let text = format!(
        "{SERVICE}    name: dns-tcp\n  - {{port: 80, name: dns, protocol: UDP}}\n  - {{port: 9, name: s, protocol: SCTP}}\n"
    );
    let Ok((Some(Object::Service(service)), warnings)) = read(&text) else {
        panic!("it is valid");
    };
    assert_eq!(service.ports.len(), 1, "UDP 80 is no repetition of TCP 80");
    assert_eq!(
        warnings,
        [
            "f:9:12: warning: port 80 is skipped, as its protocol is UDP\n  hint: a mesh carries TCP alone; leave the port out",
            "f:10:12: warning: port 9 is skipped, as its protocol is SCTP\n  hint: a mesh carries TCP alone; leave the port out",
        ]
    );
    for wrong in ["tcp", "HTTP"] {
        let text = format!("{SERVICE}    protocol: {wrong}\n");
        refused(
            &text,
            &format!("f:8:15: `{wrong}` is no protocol of a port"),
        );
    }
}

#[test]
fn app_protocol_is_kept() {
    let text = format!("{SERVICE}    appProtocol: kubernetes.io/h2c\n");
    assert_eq!(
        service(&text).ports[0].app_protocol.as_deref(),
        Some("kubernetes.io/h2c")
    );
    refused(
        &format!("{SERVICE}    appProtocol: ''\n"),
        "f:8:18: `` is no protocol",
    );
}

#[test]
fn cluster_ips_are_absent_none_or_addresses() {
    let with = |written: &str| format!("{SERVICE}  clusterIP: {written}\n");
    for (written, expected) in [
        ("''", ClusterIp::Auto),
        ("null", ClusterIp::Auto),
        ("None", ClusterIp::Headless),
        (
            "10.96.0.7",
            ClusterIp::Given("10.96.0.7".parse().expect("an address")),
        ),
        (
            "'fd00::7'",
            ClusterIp::Given("fd00::7".parse().expect("an address")),
        ),
    ] {
        assert_eq!(service(&with(written)).cluster_ip, expected, "{written}");
    }
    for written in ["none", "10.96.0", "10.96.0.7/32", "010.0.0.1"] {
        refused(
            &with(written),
            &format!("f:8:14: `{written}` is no address"),
        );
    }
    for written in ["0.0.0.0", "127.0.0.1", "224.0.0.1", "'::1'"] {
        let text = written.trim_matches('\'');
        refused(&with(written), &format!("f:8:14: `{text}` cannot be"));
    }
}

#[test]
fn only_a_headless_service_may_have_no_ports() {
    let none = replaced(SERVICE, "  ports:\n  - port: 80\n", "");
    refused(&none, "f:5:3: the Service has no ports");
    refused(
        &format!("{none}  ports: []\n"),
        "f:6:10: the Service has no ports",
    );
    assert_eq!(service(&format!("{none}  clusterIP: None\n")).ports, []);
}

#[test]
fn types_of_services_differ_in_nothing_but_external_name() {
    for kind in ["ClusterIP", "NodePort", "LoadBalancer"] {
        assert_eq!(
            service(&format!("{SERVICE}  type: {kind}\n")),
            service(SERVICE),
            "{kind}"
        );
    }
    refused(
        &format!("{SERVICE}  type: Port\n"),
        "f:8:9: `Port` is no type",
    );
    refused(
        &format!("{SERVICE}  type: NodePort\n  clusterIP: None\n"),
        "f:9:14: a Service of type NodePort cannot be headless",
    );
    let external = "apiVersion: v1\nkind: Service\nmetadata: {name: db}\nspec: {type: ExternalName, externalName: db.example.com}\n";
    let (object, warnings) = read(external).expect("it is skipped");
    assert_eq!((object, warnings.len()), (None, 1), "{warnings:?}");
}

#[test]
fn a_service_without_selector_is_read_with_a_warning() {
    let (object, warnings) =
        read(&replaced(SERVICE, "  selector: {app: web}\n", "")).expect("it is valid");
    assert!(matches!(object, Some(Object::Service(service)) if service.selector.is_empty()));
    assert!(
        matches!(warnings.as_slice(), [one] if one.starts_with("f:1:1: warning: the Service `web` selects no pods")),
        "{warnings:?}"
    );
}

#[test]
fn names_of_services_begin_with_a_letter_and_have_no_dots() {
    let long = "a".repeat(64);
    for name in ["1web", "we.b", long.as_str()] {
        let text = replaced(SERVICE, "name: web", &format!("name: {name}"));
        refused(&text, &format!("f:3:18: `{name}` is no name of a Service"));
    }
}

#[test]
fn a_deployment_has_the_defaults_of_the_api_server() {
    let deployment = deployment(DEPLOYMENT);
    assert_eq!(
        (
            deployment.replicas,
            deployment.spec.service_account.as_str(),
            deployment.spec.host_network
        ),
        (1, "default", false)
    );
    assert_eq!(deployment.labels.len(), 2);
    assert_eq!(
        deployment.spec.containers,
        [Container {
            name: "app".to_owned(),
            ports: vec![ContainerPort {
                name: String::new(),
                port: 8080
            }]
        }]
    );
}

#[test]
fn replicas_are_few_and_may_be_none() {
    let with = |written: &str| {
        replaced(
            DEPLOYMENT,
            "spec:\n  sel",
            &format!("spec:\n  replicas: {written}\n  sel"),
        )
    };
    assert_eq!(deployment(&with("0")).replicas, 0);
    assert_eq!(deployment(&with("null")).replicas, 1);
    assert_eq!(
        deployment(&with(&REPLICAS_MAX.to_string())).replicas,
        REPLICAS_MAX
    );
    let more = (REPLICAS_MAX + 1).to_string();
    for written in ["-1", more.as_str()] {
        refused(
            &with(written),
            &format!("f:5:13: `replicas` holds {written}\n"),
        );
    }
    refused(&with("two"), "f:5:13: `replicas` holds text");
}

#[test]
fn a_selector_selects_the_pods_of_its_template() {
    let with = |selector: &str| replaced(DEPLOYMENT, "{matchLabels: {app: web}}", selector);
    assert_eq!(
        deployment(&with("{matchLabels: {app: web, version: v1}}"))
            .selector
            .len(),
        2
    );
    let expressions = "{matchExpressions: [{key: app, operator: Exists}]}";
    assert!(deployment(&with(expressions)).selector.is_empty());
    refused(
        &with("{matchLabels: {app: wep}}"),
        "f:5:33: the selector asks for `app: wep`, which the template's pods lack",
    );
    refused(
        &with("{matchLabels: {app: web, tier: x}}"),
        "f:5:44: the selector asks for `tier: x`",
    );
    for empty in ["{}", "{matchLabels: {}}"] {
        refused(&with(empty), "f:5:13: the `selector` has no labels");
    }
    refused(
        &replaced(DEPLOYMENT, "  selector: {matchLabels: {app: web}}\n", ""),
        "f:5:3: the Deployment has no `selector`",
    );
}

#[test]
fn what_a_deployment_lacks_is_said() {
    for (was, is, expected) in [
        (
            "  template:",
            "  templates:",
            "f:5:3: the Deployment has no `template`",
        ),
        ("    spec:\n", "    spce:\n", "f:7:5: the pod has no `spec`"),
        (
            "      containers:",
            "      container:",
            "f:9:7: the pod has no `containers`",
        ),
        (
            "      - name: app",
            "      - nmae: app",
            "f:10:9: the container has no `name`",
        ),
        (
            "- containerPort",
            "- port",
            "f:12:11: the port has no `containerPort`",
        ),
    ] {
        refused(&replaced(DEPLOYMENT, was, is), expected);
    }
    refused(
        "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: web}\n",
        "f:1:1: the Deployment has no `spec`",
    );
}

#[test]
fn service_accounts_have_a_current_and_a_former_field() {
    let with = |fields: &str| {
        replaced(
            DEPLOYMENT,
            "      containers:",
            &format!("{fields}      containers:"),
        )
    };
    for (fields, expected) in [
        ("      serviceAccountName: web\n", "web"),
        ("      serviceAccount: old\n", "old"),
        (
            "      serviceAccount: old\n      serviceAccountName: web\n",
            "web",
        ),
        (
            "      serviceAccountName: ''\n      serviceAccount: old\n",
            "old",
        ),
        ("      serviceAccountName: a.b\n", "a.b"),
    ] {
        assert_eq!(
            deployment(&with(fields)).spec.service_account,
            expected,
            "{fields}"
        );
    }
    refused(
        &with("      serviceAccountName: a/b\n"),
        "f:9:27: `a/b` is no name of a ServiceAccount",
    );
}

#[test]
fn ports_of_containers_are_held_to_their_form() {
    let with = |ports: &str| replaced(DEPLOYMENT, "        - containerPort: 8080\n", ports);
    for (ports, expected) in [
        (
            "        - {containerPort: 0}\n",
            "f:12:27: `containerPort` holds 0",
        ),
        (
            "        - {containerPort: '1'}\n",
            "f:12:27: `containerPort` holds text",
        ),
        (
            "        - {containerPort: 1, name: a_b}\n",
            "f:12:36: `a_b` is no name",
        ),
        (
            "        - {containerPort: 1, name: a}\n        - {containerPort: 2, name: a}\n",
            "f:13:36: two ports of the container are named `a`",
        ),
        (
            "        - {containerPort: 1, protocol: tls}\n",
            "f:12:40: `tls` is no protocol",
        ),
        ("        - 8080\n", "f:12:11: `ports` holds a number"),
    ] {
        refused(&with(ports), expected);
    }
    let (object, warnings) = read(&with(
        "        - {containerPort: 53, protocol: UDP}\n        - {containerPort: 53}\n        - {containerPort: 53}\n        - {containerPort: 53, name: dns}\n",
    ))
    .expect("it is valid");
    let Some(Object::Deployment(deployment)) = object else {
        panic!("it is a deployment");
    };
    let names: Vec<_> = deployment.spec.containers[0]
        .ports
        .iter()
        .map(|port| port.name.as_str())
        .collect();
    assert_eq!(
        (names, warnings.len()),
        (vec!["", "dns"], 2),
        "{warnings:?}"
    );
}

#[test]
fn containers_have_different_names() {
    refused(
        &replaced(POD, "[{name: app}]", "[{name: app}, {name: app}]"),
        "f:4:41: two containers are named `app`\n  hint: rename one of them; the first is at f:4:28",
    );
    refused(
        &replaced(POD, "name: app", "name: a.b"),
        "f:4:28: `a.b` is no name of a container",
    );
    refused(
        &replaced(POD, "[{name: app}]", "[]"),
        "f:4:20: the pod has no `containers`",
    );
}

#[test]
fn host_network_is_a_boolean() {
    let with =
        |written: &str| replaced(POD, "spec: {", &format!("spec: {{hostNetwork: {written}, "));
    assert!(pod(&with("true")).spec.host_network);
    assert!(!pod(&with("null")).spec.host_network);
    refused(&with("'true'"), "f:4:21: `hostNetwork` holds text");
}

#[test]
fn the_address_of_a_pod_counts_if_this_host_has_it() {
    let with = |written: &str| format!("{POD}status: {{phase: Running, podIP: {written}}}\n");
    assert_eq!(pod(POD).ip, None);
    assert_eq!(
        pod(&with("127.1.2.3")).ip,
        Some(Ipv4Addr::new(127, 1, 2, 3))
    );
    for elsewhere in ["10.244.0.5", "'fd00::5'", "''", "null"] {
        assert_eq!(pod(&with(elsewhere)).ip, None, "{elsewhere}");
    }
    for taken in ["127.0.0.1", "127.0.0.6"] {
        refused(
            &with(taken),
            &format!("f:5:33: `{taken}` cannot be the address"),
        );
    }
    refused(&with("127.1"), "f:5:33: `podIP` holds the number");
    refused(&with("localhost"), "f:5:33: `localhost` is no address");
}

#[test]
fn annotations_know_the_place_of_their_values() {
    let routes = "    metadata:\n      labels: {app: web, version: v1}\n      annotations:\n        meshward.dev/app: routes\n        meshward.dev/routes: |\n          - path: /\n            status: x\n        quoted: \"a\\nb\"\n";
    let text = replaced(
        DEPLOYMENT,
        "    metadata: {labels: {app: web, version: v1}}\n",
        routes,
    );
    let deployment = deployment(&text);
    let place = |name: &str| &deployment.annotation_places[name];
    assert_eq!(
        deployment.annotation_places.len(),
        deployment.annotations.len()
    );
    assert_eq!(
        (
            place("meshward.dev/app").origin.to_string(),
            place("meshward.dev/app").literal
        ),
        ("f:10:27".to_owned(), false)
    );
    assert_eq!(
        (place("quoted").origin.to_string(), place("quoted").literal),
        ("f:14:17".to_owned(), false)
    );

    let mut report =
        place("meshward.dev/routes").report(crate::api::load::reader::Purpose::Enforce);
    let tree =
        crate::api::load::read_tree(&deployment.annotations["meshward.dev/routes"], &mut report)
            .expect("it is YAML");
    let Value::List(routes) = &tree.value else {
        panic!("it is a list");
    };
    let status = routes[0].field("status").expect("it is there");
    assert_eq!(report.origin(status.place).to_string(), "f:13:21");

    let pod = pod(&replaced(
        POD,
        "name: web",
        "name: web, annotations: {a: b}",
    ));
    assert_eq!(pod.annotation_places["a"].origin.to_string(), "f:3:40");
    assert_eq!(pod.meta.annotations["a"], "b");
}

#[test]
fn fields_that_nobody_acts_on_may_say_anything() {
    for (content, was, is) in [
        (
            SERVICE,
            "spec:\n",
            "spce: 1\nspec:\n  sessionAffinity: [no, such]\n  ipFamilies: 7\n",
        ),
        (
            SERVICE,
            "metadata: {",
            "metadata: {clusterName: x, managedFields: 5, ",
        ),
        (SERVICE, "- port: 80\n", "- port: 80\n    nodePort: x\n"),
        (
            DEPLOYMENT,
            "spec:\n  sel",
            "status: 5\nspec:\n  strategy: 7\n  sel",
        ),
        (
            DEPLOYMENT,
            "- name: app\n",
            "- name: app\n        image: 5\n        env: no\n",
        ),
        (POD, "spec: {", "spec: {volumes: 7, restartPolicy: [], "),
    ] {
        let (plain, with) = (read(content), read(&replaced(content, was, is)));
        let (Ok((Some(plain), _)), Ok((Some(with), warnings))) = (plain, with) else {
            panic!("{was}: it is valid");
        };
        assert!(
            plain.says_the_same(&with) && warnings.is_empty(),
            "{was}: {warnings:?}"
        );
    }
}
