//! What changes together: the snapshot, the identity, the TLS settings built from both, and the pools of upstream links.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use super::Route;
use crate::accept::PortKind;
use crate::id::LinkId;
use crate::limits;
use crate::snapshot::{self, InboundPort, OutboundPort, Snapshot};
use crate::spiffe::Svid;
use crate::tls::ClientTls;
use crate::tls::TlsVersion;
use crate::tls::{ChainKind, ServerTls};
use crate::tls::{Crypto, WallClock};

/// Position of a [`Cluster`].
pub(super) type ClusterId = u32;

/// One kind of upstream link: the same address, reached in the same way. Links of a cluster are interchangeable.
#[derive(Debug)]
pub(super) struct Cluster {
    pub(super) key: ClusterKey,
    /// Grows when the place is taken over, so that a link of the former cluster never joins the pool of the new one.
    pub(super) serial: u64,
    /// `None` with `key.tls` set: there is no usable identity, so nothing can be opened.
    pub(super) tls: Option<Arc<ClientTls>>,
    pub(super) connect_timeout: Duration,
    /// Some port of the snapshot leads here. If none does, nothing is kept.
    in_use: bool,
    /// Links without a request; the one used last comes first.
    pub(super) idle: Vec<LinkId>,
}

impl Cluster {
    /// A link of the cluster `serial` may wait here for another request. `trust`: [`World::trust`] when it was set up.
    pub(super) fn keeps(&self, serial: u64, trust: u64, now: u64) -> bool {
        self.serial == serial
            && self.in_use
            && (self.key.tls.is_none() || trust == now)
            && self.idle.len() < limits::POOL_MAX
    }
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct ClusterKey {
    pub(super) to: SocketAddr,
    pub(super) from: Option<IpAddr>,
    pub(super) tls: Option<snapshot::ClientTls>,
    http: bool,
}

impl ClusterKey {
    fn inbound(port: &InboundPort) -> Self {
        Self {
            to: port.upstream,
            from: port.from,
            tls: None,
            http: port.kind != PortKind::Tcp,
        }
    }

    fn outbound(port: &OutboundPort) -> Self {
        Self {
            to: port.upstream,
            from: None,
            tls: port.tls.clone(),
            http: port.kind != PortKind::Tcp,
        }
    }
}

/// A port and the cluster that it leads to.
#[derive(Debug)]
pub(super) struct Door<P> {
    pub(super) port: Arc<P>,
    pub(super) cluster: ClusterId,
}

impl<P> Clone for Door<P> {
    fn clone(&self) -> Self {
        Self {
            port: Arc::clone(&self.port),
            cluster: self.cluster,
        }
    }
}

/// Where a link belongs, in the snapshot of now.
#[derive(Clone, Debug)]
pub(super) enum Place {
    Inbound(Door<InboundPort>),
    Outbound(Door<OutboundPort>),
}

impl Place {
    pub(super) fn cluster(&self) -> ClusterId {
        match self {
            Self::Inbound(door) => door.cluster,
            Self::Outbound(door) => door.cluster,
        }
    }

    pub(super) fn cluster_name(&self) -> &str {
        match self {
            Self::Inbound(door) => &door.port.cluster,
            Self::Outbound(door) => &door.port.cluster,
        }
    }

    pub(super) fn listener(&self) -> u32 {
        match self {
            Self::Inbound(door) => door.port.listener,
            Self::Outbound(door) => door.port.listener,
        }
    }

    pub(super) fn wants_records(&self) -> bool {
        match self {
            Self::Inbound(door) => door.port.records,
            Self::Outbound(door) => door.port.records,
        }
    }
}

#[derive(Debug)]
pub(super) struct World {
    crypto: Crypto,
    /// The wall time by which certificates are judged.
    pub(super) wall: WallClock,
    pub(super) snapshot: Arc<Snapshot>,
    pub(super) svid: Option<Arc<Svid>>,
    /// `None`: no identity, so TLS is refused.
    pub(super) server: Option<Arc<ServerTls>>,
    inbound: BTreeMap<u16, Door<InboundPort>>,
    outbound: BTreeMap<SocketAddr, Door<OutboundPort>>,
    pub(super) clusters: Vec<Cluster>,
    serial: u64,
    /// Grows when our identity or the roots that we believe change, and not when the certificate is merely a new one.
    pub(super) trust: u64,
}

impl World {
    pub(super) fn new(crypto: Crypto) -> Self {
        Self {
            crypto,
            wall: WallClock::default(),
            snapshot: Arc::default(),
            svid: None,
            server: None,
            inbound: BTreeMap::new(),
            outbound: BTreeMap::new(),
            clusters: Vec::new(),
            serial: 0,
            trust: 0,
        }
    }

    /// The port that a route means now; `None` if the snapshot no longer has it.
    pub(super) fn place(&self, route: Route) -> Option<Place> {
        match route {
            Route::Inbound(port) => self.inbound.get(&port).cloned().map(Place::Inbound),
            Route::Outbound(to) => self.outbound.get(&to).cloned().map(Place::Outbound),
        }
    }

    pub(super) fn cluster(&mut self, id: ClusterId) -> Option<&mut Cluster> {
        self.clusters.get_mut(id as usize)
    }

    /// Takes over a snapshot. Returns pooled links that no port leads to any more.
    pub(super) fn set_snapshot(&mut self, snapshot: Arc<Snapshot>) -> Vec<LinkId> {
        self.inbound.clear();
        self.outbound.clear();
        // What stays is known before anything is taken over.
        let mut wanted = BTreeSet::new();
        wanted.extend(
            snapshot
                .inbound
                .values()
                .map(|port| ClusterKey::inbound(port)),
        );
        wanted.extend(
            snapshot
                .outbound
                .values()
                .map(|port| ClusterKey::outbound(port)),
        );
        let (mut places, mut free) = (BTreeMap::new(), Vec::new());
        let mut orphans = Vec::new();
        for (cluster, id) in self.clusters.iter_mut().zip(0..) {
            cluster.in_use = wanted.contains(&cluster.key);
            if cluster.in_use {
                places.insert(cluster.key.clone(), id);
            } else {
                orphans.append(&mut cluster.idle);
                free.push(id);
            }
        }
        // The first free place is taken first.
        free.reverse();
        for (number, port) in &snapshot.inbound {
            let key = ClusterKey::inbound(port);
            let cluster = self.find_cluster(key, port.connect_timeout, &mut places, &mut free);
            self.inbound.insert(
                *number,
                Door {
                    port: Arc::clone(port),
                    cluster,
                },
            );
        }
        for (address, port) in &snapshot.outbound {
            let key = ClusterKey::outbound(port);
            let cluster = self.find_cluster(key, port.connect_timeout, &mut places, &mut free);
            self.outbound.insert(
                *address,
                Door {
                    port: Arc::clone(port),
                    cluster,
                },
            );
        }
        self.snapshot = snapshot;
        self.rebuild_server();
        orphans
    }

    /// Takes over an identity. Links stay; new handshakes use it (S-94). Returns pooled links that were set up as somebody
    /// else, or under roots that are not those of now: no new request may go out on them.
    pub(super) fn set_svid(&mut self, svid: Arc<Svid>) -> Vec<LinkId> {
        let mut orphans = Vec::new();
        let is_renewal = |old: &Arc<Svid>| old.id == svid.id && old.bundle == svid.bundle;
        if !self.svid.as_ref().is_some_and(is_renewal) {
            self.trust += 1;
            for cluster in self.clusters.iter_mut().filter(|c| c.key.tls.is_some()) {
                orphans.append(&mut cluster.idle);
            }
        }
        self.svid = Some(svid);
        self.rebuild_server();
        for i in 0..self.clusters.len() {
            let Some(cluster) = self.clusters.get(i) else {
                continue;
            };
            let tls = self.client_tls(&cluster.key);
            if let Some(cluster) = self.clusters.get_mut(i) {
                cluster.tls = tls;
            }
        }
        orphans
    }

    /// The place of a cluster: its own, one of the `free` ones, or a new one.
    fn find_cluster(
        &mut self,
        key: ClusterKey,
        connect_timeout: Duration,
        places: &mut BTreeMap<ClusterKey, ClusterId>,
        free: &mut Vec<ClusterId>,
    ) -> ClusterId {
        if let Some(id) = places.get(&key) {
            if let Some(cluster) = self.cluster(*id) {
                cluster.connect_timeout = connect_timeout;
            }
            return *id;
        }
        self.serial += 1;
        let fresh = Cluster {
            tls: self.client_tls(&key),
            key: key.clone(),
            serial: self.serial,
            connect_timeout,
            in_use: true,
            idle: Vec::new(),
        };
        let taken = free.pop();
        let id = match taken.and_then(|id| self.cluster(id).map(|place| (id, place))) {
            Some((id, place)) => {
                *place = fresh;
                id
            }
            None => {
                self.clusters.push(fresh);
                ClusterId::try_from(self.clusters.len() - 1).expect("fewer than 2^32 clusters")
            }
        };
        places.insert(key, id);
        id
    }

    fn rebuild_server(&mut self) {
        self.server = self.svid.as_ref().and_then(|svid| {
            let least = if self.snapshot.tls13_only {
                TlsVersion::Tls13
            } else {
                TlsVersion::Tls12
            };
            let accepted = &self.snapshot.trust_domains;
            ServerTls::new(&self.crypto, &self.wall, svid, accepted, least)
                .ok()
                .map(Arc::new)
        });
    }

    fn client_tls(&self, key: &ClusterKey) -> Option<Arc<ClientTls>> {
        let (svid, tls) = (self.svid.as_ref()?, key.tls.as_ref()?);
        let kind = if key.http {
            ChainKind::Http
        } else {
            ChainKind::Tcp
        };
        let sans = &tls.subject_alt_names;
        ClientTls::new(&self.crypto, &self.wall, svid, sans, Some(&tls.sni), kind)
            .ok()
            .map(Arc::new)
    }
}
