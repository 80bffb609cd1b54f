//! Pools where there are as many as there may be.

use std::net::Ipv4Addr;

use super::*;
use crate::accept::{Mode, PortKind};
use crate::api::mesh_config::MeshConfig;
use crate::authz::Layer;
use crate::authz::compile::compile;
use crate::path::Normalization;
use crate::rng::Purpose;
use crate::snapshot::Outbound;

fn cluster(number: u32, name: &str, endpoints: Endpoints) -> Arc<Cluster> {
    Arc::new(Cluster {
        number,
        name: name.into(),
        endpoints,
        connect_timeout: Duration::from_secs(10),
    })
}

fn inbound(port: u16) -> (u16, Arc<InboundPort>) {
    let rules = |layer| compile(&[], &MeshConfig::default(), layer);
    let inbound = InboundPort {
        listener: 0,
        port,
        kind: PortKind::Http,
        mode: Mode::Permissive,
        upstream: SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port),
        from: None,
        cluster: format!("inbound|{port}||"),
        authn: Default::default(),
        http: rules(Layer::Http),
        tcp: rules(Layer::Tcp),
        normalization: Normalization::Base,
        detection_timeout: None,
        connect_timeout: Duration::from_secs(10),
        records: false,
    };
    (port, Arc::new(inbound))
}

/// A world with calls to strangers and one service, and as many pools as there may be.
struct Full {
    world: World,
    strangers: Target,
    service: Target,
    rng: Rng,
    outbound: Arc<Outbound>,
}

impl Full {
    /// Each pool has one link; `idle`: it waits for a request.
    fn new(idle: bool) -> Self {
        let to = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(127, 1, 0, 2)), 8080);
        let service = Endpoints::Known(vec![snapshot::Endpoint {
            address: to,
            tls: None,
        }]);
        let clusters = vec![
            cluster(
                0,
                "PassthroughCluster",
                Endpoints::OriginalDestination { tls: None },
            ),
            cluster(1, "outbound|80||web.shop.svc.cluster.local", service),
        ];
        let (strangers, service) = (clusters[0].clone(), clusters[1].clone());
        let outbound = Arc::new(Outbound {
            clusters,
            ..Outbound::default()
        });
        let mut full = Self {
            world: World::new(Crypto::production()),
            strangers: Target::Cluster(strangers),
            service: Target::Cluster(service),
            rng: Rng::new([7; 32], Purpose::Balance),
            outbound,
        };
        full.snapshot([]);
        for number in 0..limits::POOLS_MAX as u32 {
            let pool = full.stranger(number).expect("a place");
            full.world.on_opened(pool);
            if idle {
                let link = LinkId::accepted(number + 1, 1);
                full.world.pool(pool).expect("the pool").idle.push(link);
            }
        }
        full
    }

    fn snapshot(&mut self, ports: impl IntoIterator<Item = u16>) -> Vec<LinkId> {
        self.world.set_snapshot(Arc::new(Snapshot {
            inbound: ports.into_iter().map(inbound).collect(),
            outbound: Arc::clone(&self.outbound),
            ..Snapshot::default()
        }))
    }

    fn stranger(&mut self, number: u32) -> Option<PoolId> {
        let ip = Ipv4Addr::from_bits(Ipv4Addr::new(10, 0, 0, 0).to_bits() + number);
        let meant = SocketAddr::new(IpAddr::V4(ip), 9999);
        let Self { world, rng, .. } = self;
        world.choose(&self.strangers, ChainKind::Http, meant, &[], rng)
    }

    fn service(&mut self) -> Option<PoolId> {
        let meant = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(10, 96, 0, 2)), 80);
        let Self { world, rng, .. } = self;
        world.choose(&self.service, ChainKind::Http, meant, &[], rng)
    }
}

#[test]
fn links_that_only_wait_make_room_for_a_call_elsewhere() {
    let mut full = Full::new(true);
    let pool = full.service().expect("a place for the service");
    assert_eq!(full.service(), Some(pool), "it keeps it");
    assert_eq!(full.world.pools.len(), limits::POOLS_MAX);
    assert_eq!(full.world.take_evicted().len(), 1, "one link had to go");
    let place = full.world.pool(pool).expect("the pool");
    assert!(place.idle.is_empty(), "no link of the former pool is here");
}

#[test]
fn every_pool_is_found_by_its_address_once_also_after_another_gave_it_its_place() {
    let mut full = Full::new(true);
    for number in 0..8 {
        full.stranger(limits::POOLS_MAX as u32 + number)
            .expect("a place");
    }
    let world = &full.world;
    let mut known = 0;
    for (to, ids) in &world.by_address {
        assert!(!ids.is_empty());
        for id in ids {
            assert_eq!(world.pools[*id as usize].key.to, *to);
            known += 1;
        }
    }
    assert_eq!(known, limits::POOLS_MAX);
    let before = full.world.serial;
    full.stranger(limits::POOLS_MAX as u32 + 7);
    assert_eq!(full.world.serial, before, "it is there");
}

#[test]
fn links_at_work_keep_their_pools() {
    let mut full = Full::new(false);
    assert_eq!(full.service(), None);
    assert!(full.world.take_evicted().is_empty());
}

#[test]
fn the_way_to_the_application_is_there_however_many_pools_there_are() {
    for idle in [true, false] {
        let mut full = Full::new(idle);
        full.snapshot([8080, 8081]);
        for port in [8080, 8081] {
            let place = full.world.place(Route::Inbound(port));
            assert!(place.is_some(), "port {port}");
        }
    }
}

#[test]
fn a_pool_of_a_former_snapshot_that_strangers_are_called_by_is_not_kept() {
    let mut full = Full::new(false);
    let strangers = full.strangers.clone();
    full.outbound = Arc::default();
    full.snapshot([]);
    let meant = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1)), 9999);
    let Full { world, rng, .. } = &mut full;
    let pool = world
        .choose(&strangers, ChainKind::Http, meant, &[], rng)
        .expect("what was allowed before is tried again");
    let (serial, trust) = (world.pools[pool as usize].serial, world.trust);
    assert!(!world.pools[pool as usize].keeps(serial, trust, trust));
}
