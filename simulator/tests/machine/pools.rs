//! Which upstream links are used again, and for whom.

use meshward_core::accept::{Mode, PortKind};
use meshward_core::id::LinkId;
use meshward_core::link::CloseCause;
use meshward_core::proxy::Input;
use meshward_core::snapshot::compile::Sources;
use meshward_simulator::clock::BIRTH;
use meshward_simulator::crypto::Ca;
use meshward_simulator::mesh::svid;

use crate::bench::{Bench, Said, http, outbound, sources};

const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nhost: peer\r\n\r\n";
const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n";
const SERVICE: &str = "10.96.0.1:80";

/// One outbound destination; with `san` under mutual TLS.
fn calling(version: u64, san: Option<&str>) -> Sources {
    Sources {
        outbound: vec![outbound(SERVICE, "10.0.0.2:80", PortKind::Http, san)],
        ..sources(version, &[], "")
    }
}

/// A client's link with a request on it, and the upstream link that it opened.
fn requesting(bench: &mut Bench) -> (LinkId, LinkId) {
    let (client, _) = bench.outbound(SERVICE);
    let said = bench.receive(client, REQUEST);
    (client, said.connects()[0].0)
}

/// Two proxies and a link between them, of which `up` and `down` are the ends.
struct Between {
    up: LinkId,
    down: LinkId,
}

impl Between {
    /// Carries bytes until both are quiet, beginning with what the caller said; what the callee said besides.
    fn carry(&self, caller: &mut Bench, callee: &mut Bench, first: &Said) -> Said {
        let mut wire = first.sent_to(self.up);
        let mut all = Said::default();
        while !wire.is_empty() {
            let said = callee.receive(self.down, &wire);
            let back = said.sent_to(self.down);
            all.commands.extend(said.commands);
            wire.clear();
            if !back.is_empty() {
                wire = caller.receive(self.up, &back).sent_to(self.up);
            }
        }
        all
    }
}

#[test]
fn a_link_that_was_set_up_under_other_roots_serves_nobody() {
    let san = "spiffe://cluster.local/ns/default/sa/catalog";
    let mut caller = Bench::new(&calling(1, Some(san)));
    let mut callee = Bench::new(&sources(1, &[http(Mode::Strict)], ""));
    let (client, up) = requesting(&mut caller);
    let link = Between {
        up,
        down: callee.inbound().0,
    };
    let hello = caller.connected(up);
    let said = link.carry(&mut caller, &mut callee, &hello);
    let (app, _) = said.connects()[0];
    callee.connected(app);
    let answer = callee.receive(app, ANSWER);
    caller.receive(up, &answer.sent_to(link.down));
    assert_eq!(caller.proxy().pooled(), 1);

    // Renewed: another certificate for the same name under the same roots. Links stay (S-94).
    let own = caller.identity("catalog");
    let renewed = svid(&own, &caller.ca, BIRTH);
    assert!(!caller.hear(Input::Svid(renewed)).finishes(up));
    assert_eq!(caller.proxy().pooled(), 1);

    // What the former roots vouched for gets no new request.
    let mut other = Ca::new(2, BIRTH);
    let own = other.issue(san, BIRTH);
    assert!(
        caller
            .hear(Input::Svid(svid(&own, &other, BIRTH)))
            .finishes(up)
    );
    assert_eq!(caller.receive(client, REQUEST).connects().len(), 1);
}

#[test]
fn a_link_to_another_server_name_is_not_used_again() {
    let mut bench = Bench::new(&calling(1, None));
    let (client, up) = requesting(&mut bench);
    bench.connected(up);
    bench.receive(up, ANSWER);
    let said = bench.apply(&calling(2, Some("spiffe://cluster.local/ns/default/sa/x")));
    assert!(said.finishes(up));
    assert_eq!(bench.receive(client, REQUEST).connects().len(), 1);
}

#[test]
fn a_link_whose_cluster_is_gone_is_not_kept() {
    let mut bench = Bench::new(&calling(1, None));
    let (_, up) = requesting(&mut bench);
    bench.connected(up);
    bench.apply(&sources(2, &[], ""));
    let said = bench.receive(up, ANSWER);
    assert!(said.finishes(up), "{:?}", bench.proxy().pending());
}

#[test]
fn a_port_that_is_added_disturbs_no_connection_under_way() {
    let with = |version, ports: &[_]| Sources {
        outbound: vec![outbound(SERVICE, "10.0.0.2:90", PortKind::Tcp, None)],
        ..sources(version, ports, "")
    };
    let mut bench = Bench::new(&with(1, &[]));
    let (client, said) = bench.outbound(SERVICE);
    let (up, _) = said.connects()[0];
    bench.receive(client, b"hello");
    bench.apply(&with(2, &[http(Mode::Strict)]));
    let said = bench.connected(up);
    assert_eq!(said.sent_to(up), b"hello");
    assert!(!said.resets(client));
}

#[test]
fn links_that_were_reset_in_the_pool_do_not_fill_it() {
    let mut bench = Bench::new(&calling(1, None));
    // Two at once, so that one lies beneath the other.
    let ups = [(), ()].map(|()| requesting(&mut bench).1);
    for up in ups {
        bench.connected(up);
        bench.receive(up, ANSWER);
    }
    assert_eq!(bench.proxy().pooled(), 2);
    bench.closed(ups[0], CloseCause::Reset);
    assert_eq!(bench.proxy().pooled(), 1);
}
