//! Where the application's calls go: by authority, by address, by first bytes; several endpoints; what is nobody's.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::rig::*;
use crate::accept::PortKind;
use crate::id::LinkId;
use crate::limits;
use crate::link::CloseCause;
use crate::path::Normalization;
use crate::proxy::world::Target;
use crate::proxy::{Input, Shared};
use crate::snapshot::{ClientTls, Cluster, Endpoint, Endpoints, Outbound, OutboundPort};
use crate::telemetry::record::Flags;
use crate::tls::ChainKind;

const POD: &str = "127.1.0.9";
const WEB: &str = "outbound|80||web.shop.svc.cluster.local";
const CARTS: &str = "outbound|80||carts.shop.svc.cluster.local";
const DB: &str = "outbound|5432||db.shop.svc.cluster.local";
const MISC: &str = "outbound|7000||misc.shop.svc.cluster.local";

/// What one namespace sees.
#[derive(Default)]
struct Sight(Outbound);

impl Sight {
    fn cluster(&mut self, name: &str, endpoints: Endpoints) -> Arc<Cluster> {
        let cluster = Arc::new(Cluster {
            number: self.0.clusters.len() as u32,
            name: name.into(),
            endpoints,
            connect_timeout: Duration::from_secs(10),
        });
        self.0.clusters.push(Arc::clone(&cluster));
        cluster
    }

    fn plain(&mut self, name: &str, endpoints: &[&str]) -> Arc<Cluster> {
        let endpoints = endpoints.iter().map(|to| Endpoint {
            address: address(to),
            tls: None,
        });
        self.cluster(name, Endpoints::Known(endpoints.collect()))
    }

    fn done(self) -> Arc<Outbound> {
        Arc::new(self.0)
    }
}

fn port(
    kind: PortKind,
    hosts: &[(&str, &Arc<Cluster>)],
    otherwise: &Arc<Cluster>,
) -> Arc<OutboundPort> {
    let hosts = hosts
        .iter()
        .map(|(host, cluster)| ((*host).to_owned(), Arc::clone(cluster)));
    Arc::new(OutboundPort {
        listener: 3,
        kind,
        hosts: hosts.collect::<BTreeMap<_, _>>(),
        otherwise: Arc::clone(otherwise),
        normalization: Normalization::Base,
        records: true,
    })
}

/// Two HTTP services on port 80, a database, a service of undeclared protocol; `carts` are where `web` has its endpoints.
fn shop(web: &[&str], carts: &[&str]) -> Arc<Outbound> {
    let mut sight = Sight::default();
    let away = Endpoints::OriginalDestination { tls: None };
    let passthrough = sight.cluster("PassthroughCluster", away);
    let web = sight.plain(WEB, web);
    let carts = sight.plain(CARTS, carts);
    let db = sight.plain(DB, &["127.1.0.4:5432"]);
    let misc = sight.plain(MISC, &["127.1.0.5:7070"]);
    let http = [
        ("web.shop", &web),
        ("web.shop.svc.cluster.local", &web),
        ("carts", &carts),
        ("10.96.0.3", &carts),
    ];
    sight.0.ports = BTreeMap::from([(80, port(PortKind::Http, &http, &passthrough))]);
    sight.0.addresses = BTreeMap::from([
        (address("10.96.0.4:5432"), port(PortKind::Tcp, &[], &db)),
        (
            address("10.96.0.5:7000"),
            port(PortKind::Auto, &[("misc.shop", &misc)], &misc),
        ),
    ]);
    sight.0.passthrough = Some(port(PortKind::Tcp, &[], &passthrough));
    sight.done()
}

fn rig() -> Rig {
    let mut rig = Rig::new(NO_ADMIN);
    rig.route(POD, shop(&["127.1.0.2:8080"], &["127.1.0.3:8080"]));
    rig
}

fn ask(host: &str) -> String {
    format!("GET / HTTP/1.1\r\nhost: {host}\r\n\r\n")
}

/// The address that a request for `host` goes to.
fn goes_to(rig: &mut Rig, caller: LinkId, host: &str) -> String {
    rig.send(caller, ask(host));
    let link = rig.connect();
    let (to, from) = rig.way(link);
    let expected = if to.starts_with("127.") {
        "127.1.0.9:0"
    } else {
        ""
    };
    assert_eq!(
        from, expected,
        "calls leave from the pod where that is possible"
    );
    rig.send(
        link,
        "HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 0\r\n\r\n",
    );
    rig.close(link, CloseCause::Finished);
    to
}

#[test]
fn a_request_goes_where_its_authority_says_whatever_the_address() {
    let mut rig = rig();
    let caller = rig.calls("10.96.0.2:80");
    for (host, to) in [
        ("web.shop", "127.1.0.2:8080"),
        ("WEB.shop:80", "127.1.0.2:8080"),
        ("carts", "127.1.0.3:8080"),
        ("10.96.0.3", "127.1.0.3:8080"),
        ("web.shop.svc.cluster.local", "127.1.0.2:8080"),
    ] {
        assert_eq!(goes_to(&mut rig, caller, host), to, "{host}");
    }
    let clusters: Vec<_> = rig
        .records()
        .into_iter()
        .map(|r| r.upstream_cluster)
        .collect();
    let clusters: Vec<_> = clusters.iter().flatten().map(String::as_str).collect();
    assert_eq!(clusters, [WEB, WEB, CARTS, CARTS, WEB], "S-330");
}

#[test]
fn a_host_that_is_nobodys_is_called_where_it_was_meant_in_plain_text() {
    let mut rig = rig();
    let caller = rig.calls("10.0.0.77:80");
    assert_eq!(
        goes_to(&mut rig, caller, "elsewhere.example"),
        "10.0.0.77:80"
    );
    let record = rig.record();
    assert_eq!(
        record.upstream_cluster.as_deref(),
        Some("PassthroughCluster"),
        "S-263"
    );
    assert_eq!(record.route.as_deref(), Some("allow_any"));
}

#[test]
fn a_request_that_was_not_routed_was_for_no_cluster() {
    for (request, details) in [
        (
            "GET /%00 HTTP/1.1\r\nhost: web.shop\r\n\r\n",
            "path_normalization_failed",
        ),
        ("GET / HTTP/1.1\r\n\r\n", "missing_host_header"),
        ("GET / HTTP/1.0\r\n\r\n", "low_version"),
    ] {
        let mut rig = rig();
        let caller = rig.calls("10.96.0.2:80");
        rig.send(caller, request);
        let record = rig.record();
        assert_eq!(record.details.as_deref(), Some(details));
        assert_eq!(record.upstream_cluster, None, "{details}");
    }
    let mut rig = rig();
    let caller = rig.calls("10.96.0.2:80");
    rig.send(
        caller,
        "GET / HTTP/1.1\r\nhost: carts\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n",
    );
    let record = rig.record();
    assert_eq!(record.details.as_deref(), Some("upgrade_failed"));
    assert_eq!(record.upstream_cluster.as_deref(), Some(CARTS));
}

#[test]
fn a_port_that_is_nobodys_is_opaque() {
    let mut rig = rig();
    let caller = rig.calls("127.1.0.3:9999");
    let link = rig.connect();
    assert_eq!(rig.way(link).0, "127.1.0.3:9999", "S-62");
    rig.send(caller, "GET / HTTP/9\r\n");
    assert_eq!(rig.got(link), "GET / HTTP/9\r\n");
}

#[test]
fn a_call_to_an_address_of_another_family_leaves_from_where_the_system_chooses() {
    let mut rig = rig();
    rig.calls("[::1]:9999");
    let link = rig.connect();
    assert_eq!(rig.way(link), ("[::1]:9999".to_owned(), String::new()));
}

#[test]
fn without_a_way_for_strangers_they_are_reset() {
    let mut rig = Rig::new(NO_ADMIN);
    let mut sight = Sight::default();
    let web = sight.plain(WEB, &["127.1.0.2:8080"]);
    sight.0.ports = BTreeMap::from([(80, port(PortKind::Http, &[], &web))]);
    rig.route(POD, sight.done());
    let caller = rig.calls("127.1.0.3:9999");
    assert_eq!(rig.end(caller), End::Reset);
}

#[test]
fn a_service_that_is_not_http_is_found_by_its_address() {
    let mut rig = rig();
    let caller = rig.calls("10.96.0.4:5432");
    let link = rig.connect();
    assert_eq!(rig.way(link).0, "127.1.0.4:5432");
    rig.send(caller, "SELECT 1");
    rig.finish(caller);
    rig.finish(link);
    rig.close_all();
    assert_eq!(rig.record().upstream_cluster.as_deref(), Some(DB));
}

#[test]
fn an_opaque_call_that_nobody_takes_names_whom_it_was_for() {
    let mut rig = rig();
    let caller = rig.calls("10.96.0.4:5432");
    rig.refuse();
    assert_eq!(rig.end(caller), End::Reset);
    let record = rig.record();
    assert_eq!(record.flags, Flags::UF.with(Flags::URX));
    assert_eq!(record.upstream_host, Some(address("127.1.0.4:5432")));
    assert_eq!(record.upstream_cluster.as_deref(), Some(DB));
}

#[test]
fn on_an_undeclared_port_the_first_bytes_decide() {
    let mut rig = rig();
    let caller = rig.calls("10.96.0.5:7000");
    rig.send(caller, "GE");
    assert_eq!(rig.dialled(), None, "this may become HTTP");
    rig.send(caller, "T / HTTP/1.1\r\nhost: misc.shop\r\n\r\n");
    let link = rig.connect();
    assert_eq!(rig.way(link).0, "127.1.0.5:7070");
    assert!(rig.got(link).contains("x-request-id"), "read as HTTP");

    let caller = rig.calls("10.96.0.5:7000");
    rig.send(caller, "\x05hello");
    let link = rig.connect();
    assert_eq!(rig.got(link), "\x05hello", "opaque");
    rig.close(link, CloseCause::Finished);
    rig.close(caller, CloseCause::Reset);
    assert_eq!(rig.record().upstream_cluster.as_deref(), Some(MISC));

    let caller = rig.calls("10.96.0.5:7000");
    rig.send(caller, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
    assert_eq!(rig.end(caller), End::Reset, "HTTP/2 is not read as HTTP/1");
}

#[test]
fn requests_are_spread_over_the_endpoints() {
    let mut rig = Rig::new(NO_ADMIN);
    let endpoints = ["127.1.0.2:8080", "127.1.0.3:8080", "127.1.0.4:8080"];
    rig.route(POD, shop(&endpoints, &[]));
    let mut seen = BTreeMap::new();
    for _ in 0..60 {
        let caller = rig.calls("10.96.0.2:80");
        rig.send(caller, ask("web.shop"));
        let link = rig.connect();
        *seen.entry(rig.way(link).0).or_insert(0) += 1;
    }
    assert_eq!(seen.len(), 3);
    // With two choices the busiest has hardly more than the idlest.
    assert!(seen.values().all(|n| (15..=25).contains(n)), "{seen:?}");
}

#[test]
fn a_try_that_failed_is_followed_by_one_elsewhere() {
    let mut rig = Rig::new(NO_ADMIN);
    let endpoints = ["127.1.0.2:8080", "127.1.0.3:8080", "127.1.0.4:8080"];
    rig.route(POD, shop(&endpoints, &[]));
    let caller = rig.calls("10.96.0.2:80");
    rig.send(caller, ask("web.shop"));
    let mut tried = Vec::new();
    for _ in 0..limits::ATTEMPTS_MAX {
        let link = rig.dialled().expect("another try");
        tried.push(rig.way(link).0);
        rig.close(link, CloseCause::Refused);
    }
    tried.sort();
    assert_eq!(tried, endpoints, "each endpoint once (S-66)");
    assert_eq!(rig.dialled(), None);
    assert!(rig.got(caller).starts_with("HTTP/1.1 503 "));
    assert_eq!(rig.record().flags, Flags::UF.with(Flags::URX));
}

#[test]
fn a_cluster_without_endpoints_answers_503() {
    let mut rig = Rig::new(NO_ADMIN);
    rig.route(POD, shop(&["127.1.0.2:8080"], &[]));
    let caller = rig.calls("10.96.0.3:80");
    rig.send(caller, ask("carts"));
    let got = rig.got(caller);
    assert!(
        got.starts_with("HTTP/1.1 503 ") && got.ends_with("no healthy upstream"),
        "{got}"
    );
    assert_eq!(rig.record().flags, Flags::UH);
}

#[test]
fn a_link_to_an_endpoint_that_left_serves_nobody_else() {
    let mut rig = rig();
    let caller = rig.calls("10.96.0.2:80");
    rig.send(caller, ask("web.shop"));
    let link = rig.connect();
    rig.send(link, ok("first"));
    assert_eq!(rig.proxy.pooled(), 1);
    rig.route(POD, shop(&["127.1.0.2:8080"], &["127.1.0.3:8080"]));
    assert_eq!(
        rig.proxy.pooled(),
        1,
        "a snapshot that says the same disturbs nothing"
    );
    rig.route(POD, shop(&["127.1.0.8:8080"], &["127.1.0.3:8080"]));
    assert_eq!(rig.proxy.pooled(), 0);
    assert_eq!(rig.end(link), End::Finished);
    rig.send(caller, ask("web.shop"));
    let link = rig.connect();
    assert_eq!(rig.way(link).0, "127.1.0.8:8080");
}

#[test]
fn where_there_are_too_many_pools_a_link_that_waits_ends_for_a_call_elsewhere() {
    let mut rig = rig();
    let strangers = Arc::clone(&rig.proxy.shared.world.snapshot.outbound.clusters[0]);
    let strangers = Target::Cluster(strangers);
    let caller = rig.calls("10.96.0.2:80");
    rig.send(caller, ask("web.shop"));
    let waits = rig.connect();
    rig.send(waits, ok("first"));
    let Shared { world, balance, .. } = &mut rig.proxy.shared;
    while world.pools.len() < limits::POOLS_MAX {
        let meant = format!("10.0.0.1:{}", world.pools.len());
        let meant = address(&meant);
        let pool = world.choose(&strangers, ChainKind::Tcp, meant, &[], balance);
        world.on_opened(pool.expect("a place"));
    }

    rig.send(caller, ask("carts"));
    assert_eq!(rig.end(waits), End::Finished);
    let link = rig.connect();
    assert_eq!(rig.way(link).0, "127.1.0.3:8080");
    rig.send(link, ok("second"));
    rig.close(waits, CloseCause::Finished);
    rig.send(caller, ask("carts"));
    assert!(rig.got(link).contains("host: carts"), "it is kept");
    assert_eq!(rig.dialled(), None);
}

#[test]
fn a_request_under_way_is_tried_again_at_the_endpoints_that_it_was_allowed_to() {
    let mut rig = Rig::new(NO_ADMIN);
    rig.route(POD, shop(&["127.1.0.2:8080"], &["127.1.0.3:8080"]));
    let caller = rig.calls("10.96.0.2:80");
    rig.send(caller, ask("web.shop"));
    let first = rig.dialled().expect("a try");
    // The clusters of the new snapshot have other numbers.
    let mut sight = Sight::default();
    let carts = sight.plain(CARTS, &["127.1.0.3:8080"]);
    sight.0.ports = BTreeMap::from([(80, port(PortKind::Http, &[("carts", &carts)], &carts))]);
    rig.route(POD, sight.done());
    rig.close(first, CloseCause::Refused);
    let second = rig.dialled().expect("another try");
    assert_eq!(
        rig.way(second).0,
        "127.1.0.2:8080",
        "never another service's"
    );
    rig.connected(second);
    rig.send(second, ok("late"));
    assert!(rig.got(caller).ends_with("late"));
    assert_eq!(rig.proxy.pooled(), 0, "nobody needs it any more");
}

#[test]
fn a_workload_whose_certificate_has_expired_opens_no_tls() {
    let mut rig = Rig::new(NO_ADMIN);
    let svid = Ca::new().issue("spiffe://cluster.local/ns/shop/sa/web");
    rig.input(Input::Svid(Arc::new(svid)));
    let mut sight = Sight::default();
    let tls = Some(Arc::new(ClientTls {
        sni: "outbound_.80_._.web.shop.svc.cluster.local".into(),
        subject_alt_names: Vec::new(),
    }));
    let to = address("127.1.0.2:8080");
    let web = sight.cluster(WEB, Endpoints::Known(vec![Endpoint { address: to, tls }]));
    sight.0.ports = BTreeMap::from([(80, port(PortKind::Http, &[], &web))]);
    rig.route(POD, sight.done());

    let caller = rig.calls("10.96.0.2:80");
    rig.send(caller, ask("web.shop"));
    let link = rig.connect();
    assert!(rig.got(link).starts_with('\x16'), "a ClientHello");

    rig.wall_on(Duration::from_secs(3 * 86_400));
    let caller = rig.calls("10.96.0.2:80");
    rig.send(caller, ask("web.shop"));
    for _ in 0..limits::ATTEMPTS_MAX {
        let link = rig.connect();
        assert_eq!(rig.got(link), "", "not a byte");
        assert_eq!(rig.end(link), End::Reset);
    }
    let got = rig.got(caller);
    assert!(got.contains("our own certificate has expired"), "{got}");
}
