use std::sync::Arc;

use meshward_core::api::load::reader::Purpose;

use super::*;

fn read(text: &str) -> Result<Routes, Vec<String>> {
    let mut report = Report::new(Arc::from("routes"), Purpose::Enforce);
    let routes = Routes::read(text, &mut report);
    let findings = report.into_findings();
    let messages = || {
        findings
            .iter()
            .map(|f| f.to_string().lines().next().unwrap().to_owned())
    };
    routes.ok_or_else(|| messages().collect())
}

const CATALOG: &str = "\
- {path: /, status: 200}
- path: /api/catalog
  prefix: true
  body: \"the catalog\\n\"
  calls:
  - {host: catalog.istioinaction, path: /items}
  - {host: forum.istioinaction.svc.cluster.local, port: 8080}
  onCallFailure: 502
- {path: /api/catalog/old, status: 410}
- {path: /api/catalog/new, prefix: true, status: 201}
- default: 418
";

#[test]
fn an_exact_path_wins_then_the_longest_prefix_then_the_default() {
    let routes = read(CATALOG).unwrap();
    for (path, status) in [
        ("/", 200),
        ("/other", 418),
        ("/api", 418),
        ("/api/catalog", 200),
        ("/api/catalogue", 200),
        ("/api/catalog/old", 410),
        ("/api/catalog/old/", 200),
        ("/api/catalog/new", 201),
        ("/api/catalog/new/1", 201),
        ("", 418),
    ] {
        assert_eq!(routes.answer(path).status, status, "{path}");
    }
    let answer = routes.answer("/api/catalog/1");
    assert_eq!(answer.body, Some("the catalog\n"));
    assert_eq!(answer.on_call_failure, 502);
    let calls: Vec<_> = answer.calls.iter().map(ToString::to_string).collect();
    assert_eq!(
        calls,
        [
            "GET http://catalog.istioinaction/items",
            "GET http://forum.istioinaction.svc.cluster.local:8080/",
        ]
    );
}

#[test]
fn what_is_left_out_is_200_500_and_404() {
    let routes = read("- {path: /, calls: [{host: a}]}").unwrap();
    assert_eq!(routes.answer("/").status, 200);
    assert_eq!(routes.answer("/").on_call_failure, 500);
    assert_eq!(routes.answer("/x").status, 404);
}

#[test]
fn everything_that_is_wrong_is_said_at_its_place() {
    let text = "\
- {path: items}
- {paths: /items}
- {path: /a, status: 199}
- {path: /b, status: \"200\"}
- {path: /c, prefix: 1}
- {path: /d?x=1}
- {path: /e, calls: [{port: 80}, {host: 'http://x'}, {host: x, port: 0}, {host: x, path: y}]}
- {default: 404}
- {default: 404, path: /}
- {path: /f}
- {path: /f}
- text
";
    assert_eq!(
        read(text).unwrap_err(),
        [
            "routes:1:10: `items` is no path",
            "routes:2:3: a route without `path`",
            "routes:2:4: unknown field `paths` in `route`",
            "routes:3:22: `status` holds a number where a status from 200 to 599 is expected",
            "routes:4:22: `status` holds text where a status from 200 to 599 is expected",
            "routes:5:22: `prefix` holds a number where true or false is expected",
            "routes:6:10: `/d?x=1` has a query",
            "routes:7:22: a call without `host`",
            "routes:7:41: `http://x` is no name of a service",
            "routes:7:70: `port` holds a number where a port from 1 to 65535 is expected",
            "routes:7:90: `y` is no path",
            "routes:9:18: unknown field `path` in `route`",
            "routes:9:3: a second `default`",
            "routes:11:3: a second route for `/f`",
            "routes:12:3: `route` holds text where a map is expected",
        ]
    );
}

#[test]
fn what_is_no_list_is_refused() {
    assert_eq!(read("").unwrap_err(), ["routes:1:1: there is no route"]);
    assert_eq!(
        read("path: /").unwrap_err(),
        ["routes:1:1: `routes` holds a map where a list is expected"]
    );
    assert_eq!(read("- [").unwrap_err().len(), 1);
}
