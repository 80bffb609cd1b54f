//! Runs of whole meshes: generated YAML through the same loader and control side as `meshward up`, a proxy beside every pod
//! that has one, applications that answer and call on, and changes of policy that reach each proxy when they like.

pub mod actors;
mod judge;
pub mod plan;

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use meshward_core::clock::Instant;
use meshward_core::link::Entry;
use meshward_core::proxy::{Input, Proxy};

use super::plan::Profile;
use super::{Inspected, LONG, Outcome, SETTLED};
use crate::chance::Chance;
use crate::clock::{BIRTH, WallClock};
use crate::crypto::{self, Ca};
use crate::mesh::svid;
use crate::peer::Speaker;
use crate::pods::Pods;
use crate::trace::Trace;
use crate::world::{Node, World};
use actors::{App, Talk};
use plan::Plan;

type Sim = World<Inspected, Speaker<App>>;

/// One pod of a run. Its peer has the same number.
#[derive(Debug)]
struct Place {
    name: String,
    process: Option<usize>,
    /// When its proxy hears each version.
    hears: Vec<Instant>,
}

/// Runs the plan of `seed` to its end.
pub fn run(seed: u64, profile: Option<Profile>, trace: Trace) -> Outcome {
    let plan = Plan::draw(seed, profile);
    let mut world: Sim = World::new(seed, plan.weather.clone(), trace);
    let places = populate(&mut world, &plan);
    world.exhaust(SETTLED);
    let busy = super::judge::busy(&world);
    let over = world.exhaust(LONG);
    judge::judge(&plan, &places, &mut world, over, busy)
}

fn populate(world: &mut Sim, plan: &Plan) -> Vec<Place> {
    let mut pods = Pods::new([1, 0], BIRTH);
    let valid = "a plan draws valid objects";
    pods.apply(&plan.objects()).expect(valid);
    let mut places = settle(world, plan, &pods);
    let mut late = Chance::new(plan.seed, DELIVERY_CHANCE);
    let mut former: Option<String> = None;
    for (rules, (at, latest)) in plan.versions.iter().zip(&plan.changes) {
        let objects = rules.objects(&plan.services);
        if let Some(former) = former.take() {
            pods.delete(&former).expect(valid);
        }
        if let Some(objects) = &objects {
            pods.apply(objects).expect(valid);
        }
        for (index, place) in places.iter_mut().enumerate() {
            let Some(process) = place.process else {
                continue;
            };
            let first = place.hears.is_empty();
            let latest = if first { 0 } else { latest.as_micros() as u64 };
            let at = *at + Duration::from_micros(late.within(0..=latest));
            place.hears.push(world.now().after(at));
            world.inject(process, Input::Snapshot(pods.snapshot(index)), at);
        }
        former = objects;
    }
    for call in &plan.calls {
        let name = Plan::caller(call.caller);
        let peer = pods.find(&name).expect("every caller is a pod");
        world.poke(peer, |speaker, _, _| {
            let app = &mut speaker.script;
            let talk = Talk::new(call.service, app.route(call.service), call.requests.clone());
            app.plan(call.at, talk.pipelined(call.pipelined, call.reset_after));
        });
    }
    places
}

/// Every pod with its application, and its proxy as who it is.
fn settle(world: &mut Sim, plan: &Plan, pods: &Pods) -> Vec<Place> {
    let mut ca = Ca::new(plan.seed, BIRTH);
    let mut seeds = Chance::new(plan.seed, 4);
    let mut places = Vec::new();
    for (index, pod) in pods.pods().iter().enumerate() {
        let ip = IpAddr::V4(pod.address);
        let routes = plan.services.iter().map(|service| {
            let facts = pods.mesh().service(plan::SHOP, &service.name);
            let vip = facts.and_then(|s| s.cluster_ip);
            let meant = SocketAddr::new(vip.expect("a service has an address"), 80);
            let plain = || pods.translate(meant).expect("a service has pods");
            let to = if pod.sidecar { meant } else { plain() };
            (service.name.clone(), to)
        });
        let app = App::new(plan.seed, plan.manners, routes.collect());
        let peer = world.add_peer(Speaker::new(app), ip);
        assert_eq!(peer, index, "a pod's peer has its number");
        for app in pod.apps.values() {
            world.listen(Node::Peer(peer), *app, Entry::Inbound);
        }
        let process = pod.sidecar.then(|| {
            let clock = WallClock::default();
            let crypto = crypto::crypto(plan.seed ^ (index as u64 + 1) << 32);
            let proxy = Proxy::new(seeds.seed(), crypto, clock.read(Instant(0)));
            let process = world.add_process(Inspected::new(proxy), ip, clock);
            world.capture(peer, process);
            for port in pod.apps.keys() {
                world.listen(Node::Process(process), pod.at(*port), Entry::Inbound);
            }
            let certificate = ca.issue(&pods.identity(index), BIRTH);
            let svid = svid(&certificate, &ca, BIRTH);
            world.inject(process, Input::Svid(svid), Duration::ZERO);
            process
        });
        places.push(Place {
            name: pod.key.name.clone(),
            process,
            hears: Vec::new(),
        });
    }
    places
}

/// The purpose of the draws of delays.
const DELIVERY_CHANCE: u64 = 10;

#[cfg(test)]
mod tests {
    use super::plan::{Policy, Rules, Whom};
    use super::*;
    use meshward_core::api::peer_authentication::Mode;

    /// What the judge says of a run of `plan` if it takes it for a run of what `change` makes of it.
    fn misjudged(number: u64, change: impl Fn(&mut Plan, &mut [Place])) -> Vec<String> {
        let mut plan = Plan::draw(number, Some(Profile::Calm));
        let mut world: Sim = World::new(number, plan.weather.clone(), Trace::default());
        let mut places = populate(&mut world, &plan);
        let over = world.exhaust(LONG);
        change(&mut plan, &mut places);
        judge::judge(&plan, &places, &mut world, over, Vec::new()).violations
    }

    fn deny_all(rules: &mut Rules) {
        rules.policies.push(Policy {
            service: None,
            deny: true,
            from: Whom::Anyone,
            admin: false,
        });
    }

    /// Some of the first plans are judged otherwise under `change`, with `words`.
    fn is_found(words: &str, change: impl Fn(&mut Plan, &mut [Place])) {
        let mut found = (0..12).flat_map(|number| misjudged(number, &change));
        assert!(found.any(|line| line.contains(words)), "{words}");
    }

    #[test]
    fn the_judge_finds_what_no_version_in_force_allows() {
        for number in 0..12 {
            assert_eq!(misjudged(number, |_, _| ()), Vec::<String>::new());
        }
        is_found("against the versions", |plan, _| {
            plan.versions.iter_mut().for_each(deny_all);
        });
        is_found("against the versions", |plan, _| {
            for rules in &mut plan.versions {
                rules.of_services.fill(Some((Mode::Strict, None)));
            }
        });
        // A version more, which all have heard from the start.
        is_found("against the versions", |plan, places| {
            let rules = &mut plan.versions;
            rules.push(rules[rules.len() - 1].clone());
            rules.last_mut().into_iter().for_each(deny_all);
            for place in places {
                place.hears.push(Instant(0));
            }
        });
    }

    #[test]
    fn the_judge_finds_what_went_astray() {
        is_found("which was for another", |plan, _| {
            plan.services.rotate_left(1);
        });
        is_found("against the versions", |plan, places| {
            for place in places {
                place.hears.clear();
            }
            plan.versions.clear();
        });
        is_found("without its one record", |_, places| {
            let processes = places.iter().filter_map(|p| p.process).count();
            for place in places {
                place.process = place.process.map(|p| (p + 1) % processes);
            }
        });
        is_found("and could get", |plan, _| {
            plan.services.iter_mut().for_each(|s| s.pods.fill(true));
            plan.versions.iter_mut().for_each(deny_all);
        });
    }

    #[test]
    fn a_proxy_goes_by_the_newest_version_that_it_heard() {
        let place = Place {
            name: "a-0".into(),
            process: Some(0),
            hears: [0, 30, 20].map(Instant).into(),
        };
        for (begin, end, versions) in [
            (0, 10, vec![0]),
            (10, 20, vec![0, 2]),
            // The second came too late to count.
            (20, 40, vec![2]),
            (0, 40, vec![0, 2]),
        ] {
            let found = place.in_force(Instant(begin), Instant(end));
            assert_eq!(found, versions, "{begin}..{end}");
        }
    }
}
