use super::*;

const FILE: &str = "mesh.yaml";

/// A service, then a deployment whose template has these annotations, from line 14, column 9 on.
fn deployment(annotations: &str) -> String {
    let lines: Vec<String> = annotations
        .lines()
        .map(|line| format!("        {line}\n"))
        .collect();
    format!(
        "kind: Service
---
# the app
apiVersion: apps/v1
kind: Deployment
metadata:
  name: webapp
  annotations:
    meshward.dev/app: not the template's
spec:
  template:
    metadata:
      annotations:
{}",
        lines.concat()
    )
}

fn origin(line: u32, column: u32) -> Origin {
    Origin {
        file: FILE.into(),
        line,
        column,
    }
}

fn source(text: String) -> Text {
    Text {
        name: FILE.into(),
        text,
    }
}

fn messages(findings: Vec<Finding>) -> Vec<String> {
    findings.iter().map(ToString::to_string).collect()
}

fn read(annotations: &str) -> Result<AppKind, Vec<String>> {
    let text = deployment(annotations);
    let labels = match yaml::parse(annotations).unwrap().root.unwrap().value {
        Value::Map(entries) => entries
            .into_iter()
            .map(|(key, node)| match node.value {
                Value::Text { text, .. } => (key.name, text),
                other => panic!("{other:?} is no text"),
            })
            .collect(),
        other => panic!("{other:?} is no map"),
    };
    AppKind::read(&labels, &origin(4, 1), &[source(text)], true).map_err(messages)
}

#[test]
fn each_kind_is_read() {
    assert_eq!(read("meshward.dev/app: echo"), Ok(AppKind::Echo));
    assert_eq!(read("meshward.dev/app: none"), Ok(AppKind::None));
    assert_eq!(
        read("meshward.dev/command: exec sleep 1"),
        Ok(AppKind::Command("exec sleep 1".into()))
    );
    let upstream = AppKind::Upstream("127.0.0.1:8080".parse().unwrap());
    assert_eq!(
        read("meshward.dev/upstream: 127.0.0.1:8080"),
        Ok(upstream.clone())
    );
    assert_eq!(read("meshward.dev/upstream: localhost:8080"), Ok(upstream));
    for routes in [
        "meshward.dev/routes: '[{path: /}]'",
        "meshward.dev/app: routes\nmeshward.dev/routes: |\n  - path: /",
    ] {
        assert!(matches!(read(routes), Ok(AppKind::Routes(_))), "{routes}");
    }
}

#[test]
fn a_pod_that_says_nothing_is_an_echo_if_it_has_ports() {
    let others = Labels::from([("sidecar.istio.io/inject".to_owned(), "true".to_owned())]);
    for annotations in [Labels::new(), others] {
        let read = |ports| AppKind::read(&annotations, &origin(1, 1), &[], ports);
        assert_eq!(read(true), Ok(AppKind::Echo));
        assert_eq!(read(false), Ok(AppKind::None));
    }
}

#[test]
fn what_makes_no_sense_is_said_at_its_place() {
    for (annotations, expected) in [
        (
            "meshward.dev/comand: x",
            "mesh.yaml:14:9: unknown annotation `meshward.dev/comand`\n  hint: did you mean `meshward.dev/command`?",
        ),
        (
            "a: b\nmeshward.dev/frobnicate: x",
            "mesh.yaml:15:9: unknown annotation `meshward.dev/frobnicate`\n  hint: there are meshward.dev/app, meshward.dev/routes, meshward.dev/command, meshward.dev/upstream",
        ),
        (
            "meshward.dev/command: x\nmeshward.dev/upstream: 127.0.0.1:1",
            "mesh.yaml:15:9: `meshward.dev/command` and `meshward.dev/upstream` exclude each other\n  hint: a pod has one app: keep one of them",
        ),
        (
            "meshward.dev/app: none\nmeshward.dev/command: x",
            "mesh.yaml:15:9: `meshward.dev/app: none` and `meshward.dev/command` exclude each other\n  hint: a pod has one app: keep one of them",
        ),
        (
            "meshward.dev/app: routes",
            "mesh.yaml:14:9: `meshward.dev/app: routes` without `meshward.dev/routes`\n  hint: say what it answers",
        ),
        (
            "meshward.dev/app: nginx",
            "mesh.yaml:14:9: `nginx` is no built-in app\n  hint: there are echo, routes and none",
        ),
        (
            "meshward.dev/command: ' '",
            "mesh.yaml:14:31: there is no command\n  hint: write what `sh -c` is to run",
        ),
        (
            "meshward.dev/upstream: example.com:80",
            "mesh.yaml:14:32: `example.com:80` is no `host:port`\n  hint: name a port of this machine: 127.0.0.1:8080 or localhost:8080",
        ),
        (
            "meshward.dev/upstream: 10.0.0.1:80",
            "mesh.yaml:14:32: `10.0.0.1:80` is no server that a sidecar can reach\n  hint: name a port of this machine: 127.0.0.1:8080 or localhost:8080",
        ),
        (
            "meshward.dev/routes: |\n  - path: /\n    statuss: 200",
            "mesh.yaml:16:13: unknown field `statuss` in `route`\n  hint: did you mean `status`?",
        ),
        (
            "meshward.dev/routes: \"- path: /\\n  statuss: 200\"",
            "mesh.yaml:14:30: unknown field `statuss` in `route`\n  hint: did you mean `status`?",
        ),
    ] {
        assert_eq!(
            read(annotations),
            Err(vec![expected.to_owned()]),
            "{annotations}"
        );
    }
    for upstream in [
        "127.0.0.1",
        "127.0.0.1:0",
        "[::1]:80",
        "localhost:",
        "localhost:65536",
    ] {
        let faults = read(&format!("meshward.dev/upstream: '{upstream}'")).unwrap_err();
        assert_eq!(faults.len(), 1, "{upstream}");
    }
}

#[test]
fn all_faults_are_said_at_once() {
    let text = "meshward.dev/ap: echo\nmeshward.dev/command: ''\nmeshward.dev/routes: '[{}]'";
    assert_eq!(read(text).unwrap_err().len(), 4);
}

#[test]
fn a_resource_is_found_in_a_list_and_otherwise_stands_for_its_annotations() {
    let text = "kind: List\nitems:\n- kind: Pod\n  metadata:\n    annotations:\n      meshward.dev/app: x\n";
    let annotations = Labels::from([("meshward.dev/app".to_owned(), "x".to_owned())]);
    let place = |sources: &[Text], origin| {
        let faults = AppKind::read(&annotations, &origin, sources, true).unwrap_err();
        (faults[0].origin.line, faults[0].origin.column)
    };
    let source = [source(text.to_owned())];
    assert_eq!(place(&source, origin(3, 3)), (6, 7));
    assert_eq!(place(&source, origin(2, 1)), (2, 1));
    assert_eq!(place(&[], origin(3, 3)), (3, 3));
}

#[test]
fn an_echo_needs_a_port() {
    let annotations = Labels::from([(APP.to_owned(), "echo".to_owned())]);
    assert!(AppKind::read(&annotations, &origin(1, 1), &[], false).is_err());
}

#[test]
fn the_example_says_nothing_that_is_wrong() {
    let dir = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/istio-in-action");
    let mut kinds = std::collections::BTreeMap::new();
    for file in crate::files::resources(dir.as_ref()).unwrap() {
        let text = crate::files::read_text(&file).unwrap();
        for (lines, document) in yaml::documents(&text) {
            let root = yaml::parse(document).unwrap().root.unwrap();
            let resource = Resource { node: root, lines };
            let texts = KNOWN
                .iter()
                .filter_map(|name| match &resource.annotation(name)?.1.value {
                    Value::Text { text, .. } => Some(((*name).to_owned(), text.clone())),
                    other => panic!("{other:?} is no text"),
                });
            let annotations: Labels = texts.collect();
            if !annotations.is_empty() {
                let name =
                    child(&resource.node, "metadata").and_then(|(_, node)| child(node, "name"));
                let name = format!("{:?}", name.unwrap().1.value);
                kinds.insert(
                    name,
                    AppKind::read(&annotations, &origin(1, 1), &[], true).unwrap(),
                );
            }
        }
    }
    let count = |is: fn(&AppKind) -> bool| kinds.values().filter(|kind| is(kind)).count();
    assert_eq!(count(|kind| matches!(kind, AppKind::Routes(_))), 2);
    assert_eq!(count(|kind| matches!(kind, AppKind::Command(_))), 2);
}
