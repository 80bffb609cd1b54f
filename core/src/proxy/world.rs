//! What changes together: the snapshot, the identity, the TLS settings built from both, and the pools of upstream links.

use std::collections::BTreeMap;
use std::mem;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use super::Route;
use crate::clock::UnixTime;
use crate::id::LinkId;
use crate::limits;
use crate::rng::Rng;
use crate::snapshot::{self, Cluster, Endpoints, InboundPort, OutboundPort, Snapshot};
use crate::spiffe::Svid;
use crate::tls::ClientTls;
use crate::tls::TlsVersion;
use crate::tls::{ChainKind, ServerTls};
use crate::tls::{Crypto, WallClock};

/// Position of a [`Pool`].
pub(super) type PoolId = u32;

/// Upstream links to one address that were set up in the same way: any of them will do.
#[derive(Debug)]
pub(super) struct Pool {
    pub(super) key: PoolKey,
    /// Grows when the place is taken over, so that a link of the former pool never joins the new one.
    pub(super) serial: u64,
    /// Made when it is first needed. `None` with `key.tls` set: there is no usable identity, so nothing can be opened.
    tls: Option<Arc<ClientTls>>,
    pub(super) connect_timeout: Duration,
    /// The snapshot leads here. If it does not, nothing is kept.
    wanted: bool,
    /// Name of the cluster; `None`: the application behind an inbound port.
    cluster: Option<Arc<str>>,
    /// Links that have not seen their `Closed`.
    links: u32,
    /// Links without a request; the one used last comes first.
    pub(super) idle: Vec<LinkId>,
}

impl Pool {
    /// A link of the pool `serial` may wait here for another request. `trust`: [`World::trust`] when it was set up.
    pub(super) fn keeps(&self, serial: u64, trust: u64, now: u64) -> bool {
        self.serial == serial
            && self.wanted
            && (self.key.tls.is_none() || trust == now)
            && self.idle.len() < limits::POOL_MAX
    }

    /// Links at work.
    fn busy(&self) -> usize {
        (self.links as usize).saturating_sub(self.idle.len())
    }

    /// Nobody would miss it.
    fn is_free(&self) -> bool {
        !self.wanted && self.links == 0
    }
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct PoolKey {
    pub(super) to: SocketAddr,
    pub(super) from: Option<IpAddr>,
    pub(super) tls: Option<Arc<snapshot::ClientTls>>,
    /// What the links carry, which the protocols that TLS offers depend on (S-63).
    pub(super) kind: ChainKind,
}

/// A workload port and the pool of links to the application behind it.
#[derive(Clone, Debug)]
pub(super) struct Door {
    pub(super) port: Arc<InboundPort>,
    pool: PoolId,
    serial: u64,
}

/// Where a link belongs, in the snapshot of now.
#[derive(Clone, Debug)]
pub(super) enum Place {
    Inbound(Door),
    Outbound(Arc<OutboundPort>),
}

/// Where a request, or an opaque connection, was allowed to go.
#[derive(Clone, Debug)]
pub(super) enum Target {
    /// The application: the pool and its serial, which nothing else is called, ever.
    Application(PoolId, u64),
    Cluster(Arc<Cluster>),
}

impl Place {
    /// Where opaque bytes and requests go that are not routed by their authority.
    pub(super) fn target(&self) -> Target {
        match self {
            Self::Inbound(door) => Target::Application(door.pool, door.serial),
            Self::Outbound(port) => Target::Cluster(Arc::clone(&port.otherwise)),
        }
    }

    /// It is the way to this pool of the application's.
    pub(super) fn leads_to(&self, pool: PoolId, serial: u64) -> bool {
        matches!(self, Self::Inbound(door) if (door.pool, door.serial) == (pool, serial))
    }

    /// Where all goes that comes this way. `None`: each request goes where its authority says.
    pub(super) fn cluster_name(&self) -> Option<&str> {
        match self {
            Self::Inbound(door) => Some(&door.port.cluster),
            Self::Outbound(port) if port.hosts.is_empty() => Some(&port.otherwise.name),
            Self::Outbound(_) => None,
        }
    }

    pub(super) fn listener(&self) -> u32 {
        match self {
            Self::Inbound(door) => door.port.listener,
            Self::Outbound(port) => port.listener,
        }
    }

    pub(super) fn wants_records(&self) -> bool {
        match self {
            Self::Inbound(door) => door.port.records,
            Self::Outbound(port) => port.records,
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
    server: Option<Arc<ServerTls>>,
    inbound: BTreeMap<u16, Door>,
    pub(super) pools: Vec<Pool>,
    // INVARIANT: every pool once, under `key.to`; no list is empty.
    by_address: BTreeMap<SocketAddr, Vec<PoolId>>,
    /// The pools of the endpoints of the snapshot's clusters that were used: by the numbers of both, and what is carried.
    resolved: BTreeMap<(u32, u32, ChainKind), PoolId>,
    /// Pooled links whose pools gave way to others.
    evicted: Vec<LinkId>,
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
            pools: Vec::new(),
            by_address: BTreeMap::new(),
            resolved: BTreeMap::new(),
            evicted: Vec::new(),
            serial: 0,
            trust: 0,
        }
    }

    /// The port that a route means now; `None` if the snapshot no longer has it.
    pub(super) fn place(&self, route: Route) -> Option<Place> {
        match route {
            Route::Inbound(port) => self.inbound.get(&port).cloned().map(Place::Inbound),
            Route::Outbound(to) => {
                let door = self.snapshot.outbound.door(to);
                door.map(|port| Place::Outbound(Arc::clone(port)))
            }
        }
    }

    /// What handshakes as server need; `None`: no identity, or one that has expired, which every peer would refuse.
    pub(super) fn server(&self, now: UnixTime) -> Option<&Arc<ServerTls>> {
        self.server.as_ref().filter(|_| !self.is_expired(now))
    }

    /// There is an identity, and its time is over (S-94: it is served until then).
    pub(super) fn is_expired(&self, now: UnixTime) -> bool {
        self.svid.as_ref().is_some_and(|svid| svid.is_expired(now))
    }

    pub(super) fn pool(&mut self, id: PoolId) -> Option<&mut Pool> {
        self.pools.get_mut(id as usize)
    }

    /// Takes over a snapshot. Returns pooled links that no port leads to any more.
    pub(super) fn set_snapshot(&mut self, snapshot: Arc<Snapshot>) -> Vec<LinkId> {
        self.snapshot = snapshot;
        self.resolved.clear();
        self.inbound.clear();
        let snapshot = Arc::clone(&self.snapshot);
        let mut orphans = Vec::new();
        // What stays is known before anything is taken over.
        for pool in &mut self.pools {
            pool.wanted = is_wanted(&pool.key, pool.cluster.as_deref(), &snapshot);
            if !pool.wanted {
                orphans.append(&mut pool.idle);
            }
        }
        for (number, port) in &snapshot.inbound {
            let key = PoolKey {
                to: port.upstream,
                from: port.from,
                tls: None,
                kind: ChainKind::Http,
            };
            let found = self.find_pool(key, None, port.connect_timeout, true);
            // INVARIANT: there is always a place for the application's pools.
            let Some((pool, serial)) = found else {
                continue;
            };
            let port = Arc::clone(port);
            self.inbound.insert(*number, Door { port, pool, serial });
        }
        orphans.append(&mut self.evicted);
        self.rebuild_server();
        orphans
    }

    /// Takes over an identity. Links stay; new handshakes use it (S-94). Returns pooled links that were set up as somebody
    /// else, or under roots that are not those of now: no new request may go out on them.
    pub(super) fn set_svid(&mut self, svid: Arc<Svid>) -> Vec<LinkId> {
        let mut orphans = Vec::new();
        let is_renewal = |old: &Arc<Svid>| old.id == svid.id && old.bundle == svid.bundle;
        let renewal = self.svid.as_ref().is_some_and(is_renewal);
        self.trust += u64::from(!renewal);
        for pool in self.pools.iter_mut().filter(|p| p.key.tls.is_some()) {
            pool.tls = None;
            if !renewal {
                orphans.append(&mut pool.idle);
            }
        }
        self.svid = Some(svid);
        self.rebuild_server();
        orphans
    }

    /// The pool for the next link to a target, none of `tried` if there is another. `meant`: the address that the client
    /// meant. `None`: nobody can be reached.
    ///
    /// Of several endpoints the less busy one of two (Istio: LEAST_REQUEST, with two choices).
    pub(super) fn choose(
        &mut self,
        target: &Target,
        kind: ChainKind,
        meant: SocketAddr,
        tried: &[PoolId],
        rng: &mut Rng,
    ) -> Option<PoolId> {
        let cluster = match target {
            Target::Application(pool, serial) => {
                let same = self.pool(*pool).is_some_and(|p| p.serial == *serial);
                return same.then_some(*pool);
            }
            Target::Cluster(cluster) => cluster,
        };
        let endpoints = match &cluster.endpoints {
            Endpoints::OriginalDestination { tls } => {
                let key = PoolKey {
                    to: meant,
                    from: source(&self.snapshot, meant),
                    tls: tls.clone(),
                    kind,
                };
                let wanted = is_current(cluster, &self.snapshot)
                    || is_wanted(&key, Some(&cluster.name), &self.snapshot);
                return self
                    .find_pool(key, Some(&cluster.name), cluster.connect_timeout, wanted)
                    .map(|(pool, _)| pool);
            }
            Endpoints::Known(endpoints) => endpoints,
        };
        let count = endpoints.len();
        if count <= 1 {
            return self.endpoint(cluster, 0, kind);
        }
        // So many endpoints are looked at, from a random one on, before one that was tried is tried again.
        let mut pick = |world: &mut Self| {
            let first = (rng.next_u64() % count as u64) as usize;
            let mut fallback = None;
            for i in 0..count.min(limits::ENDPOINTS_LOOKED_AT) {
                let pool = world.endpoint(cluster, (first + i) % count, kind)?;
                if !tried.contains(&pool) {
                    return Some(pool);
                }
                fallback.get_or_insert(pool);
            }
            fallback
        };
        let (one, other) = (pick(self)?, pick(self)?);
        let busy = |world: &mut Self, pool| world.pool(pool).map_or(usize::MAX, |p| p.busy());
        let better = busy(self, other) < busy(self, one);
        Some(if better { other } else { one })
    }

    /// The pool of one endpoint of a cluster.
    fn endpoint(&mut self, cluster: &Arc<Cluster>, at: usize, kind: ChainKind) -> Option<PoolId> {
        let Endpoints::Known(endpoints) = &cluster.endpoints else {
            return None;
        };
        let endpoint = endpoints.get(at)?;
        let place = (cluster.number, u32::try_from(at).ok()?, kind);
        // A cluster of an earlier snapshot is looked for by what it says: its number means another one by now.
        let is_current = is_current(cluster, &self.snapshot);
        if let Some(pool) = self.resolved.get(&place).filter(|_| is_current) {
            return Some(*pool);
        }
        let key = PoolKey {
            to: endpoint.address,
            from: source(&self.snapshot, endpoint.address),
            tls: endpoint.tls.clone(),
            kind,
        };
        let wanted = is_current || is_wanted(&key, Some(&cluster.name), &self.snapshot);
        let (pool, _) =
            self.find_pool(key, Some(&cluster.name), cluster.connect_timeout, wanted)?;
        if is_current {
            self.resolved.insert(place, pool);
        }
        Some(pool)
    }

    /// The place of a pool and its serial: its own, a free one, a new one, or where there are too many that of one without
    /// links at work. `None`: there is none; the application's pools may be more.
    fn find_pool(
        &mut self,
        key: PoolKey,
        cluster: Option<&str>,
        connect_timeout: Duration,
        wanted: bool,
    ) -> Option<(PoolId, u64)> {
        let to = key.to;
        for id in self.by_address.get(&to).into_iter().flatten() {
            if let Some(pool) = self.pools.get_mut(*id as usize)
                && pool.key == key
                && pool.cluster.as_deref() == cluster
            {
                pool.connect_timeout = connect_timeout;
                pool.wanted |= wanted;
                return Some((*id, pool.serial));
            }
        }
        let free = self.pools.iter().position(Pool::is_free);
        let mut free = free.and_then(|at| PoolId::try_from(at).ok());
        self.serial += 1;
        let serial = self.serial;
        let fresh = Pool {
            tls: None,
            key,
            serial,
            connect_timeout,
            wanted,
            cluster: cluster.map(Arc::from),
            links: 0,
            idle: Vec::new(),
        };
        let full = self.pools.len() >= limits::POOLS_MAX;
        if free.is_none() && full {
            free = self.least_used();
        }
        let id = match free {
            Some(id) => {
                self.resolved.retain(|_, pool| *pool != id);
                if let Some(place) = self.pools.get_mut(id as usize) {
                    let former = mem::replace(place, fresh);
                    self.evicted.extend(former.idle);
                    if let Some(ids) = self.by_address.get_mut(&former.key.to) {
                        ids.retain(|other| *other != id);
                        if ids.is_empty() {
                            self.by_address.remove(&former.key.to);
                        }
                    }
                }
                id
            }
            None if !full || cluster.is_none() => {
                let id = PoolId::try_from(self.pools.len()).ok()?;
                self.pools.push(fresh);
                id
            }
            None => return None,
        };
        self.by_address.entry(to).or_default().push(id);
        Some((id, serial))
    }

    /// A pool of an outbound cluster without links, else one whose links all wait, where every place is taken.
    fn least_used(&self) -> Option<PoolId> {
        let first = |fits: fn(&Pool) -> bool| {
            let mut pools = self.pools.iter();
            pools.position(|pool| pool.cluster.is_some() && fits(pool))
        };
        let at = first(|pool| pool.links == 0).or_else(|| first(|pool| pool.busy() == 0))?;
        PoolId::try_from(at).ok()
    }

    /// Pooled links that have to go, since their pools gave way to others.
    pub(super) fn take_evicted(&mut self) -> Vec<LinkId> {
        mem::take(&mut self.evicted)
    }

    /// The pool demands mutual TLS, and there is nobody to be.
    pub(super) fn lacks_identity(&self, pool: PoolId) -> bool {
        let pool = self.pools.get(pool as usize);
        self.svid.is_none() && pool.is_some_and(|p| p.key.tls.is_some())
    }

    /// A link was opened for a pool.
    pub(super) fn on_opened(&mut self, pool: PoolId) {
        if let Some(pool) = self.pool(pool) {
            pool.links += 1;
        }
    }

    /// It has seen its `Closed`.
    pub(super) fn on_closed(&mut self, pool: PoolId, serial: u64) {
        if let Some(pool) = self.pool(pool).filter(|p| p.serial == serial) {
            pool.links = pool.links.saturating_sub(1);
        }
    }

    /// How links of a pool are protected; `None` if the pool is another one by now.
    pub(super) fn protection(&mut self, id: PoolId, serial: u64) -> Option<Protection> {
        let pool = self.pools.get(id as usize).filter(|p| p.serial == serial)?;
        let Some(tls) = &pool.key.tls else {
            return Some(Protection::Plain);
        };
        if self.is_expired(self.wall.now()) {
            return Some(Protection::Expired);
        }
        if pool.tls.is_none() {
            let made = self.client_tls(tls, pool.key.kind);
            if let Some(pool) = self.pool(id) {
                pool.tls = made;
            }
        }
        let pool = self.pools.get(id as usize)?;
        Some(match &pool.tls {
            Some(tls) => Protection::Tls(Arc::clone(tls)),
            None => Protection::NoIdentity,
        })
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

    fn client_tls(&self, tls: &snapshot::ClientTls, kind: ChainKind) -> Option<Arc<ClientTls>> {
        let svid = self.svid.as_ref()?;
        let sans = &tls.subject_alt_names;
        ClientTls::new(&self.crypto, &self.wall, svid, sans, Some(&tls.sni), kind)
            .ok()
            .map(Arc::new)
    }
}

/// What is done to the bytes of an upstream link.
#[derive(Clone, Debug)]
pub(super) enum Protection {
    Plain,
    Tls(Arc<ClientTls>),
    /// Mutual TLS is demanded and there is no identity.
    NoIdentity,
    /// Mutual TLS is demanded, and the time of our certificate is over.
    Expired,
}

/// The address that calls leave from: the workload's own, unless it is of the other family, or one of loopback and the
/// other end is not: nothing reaches that from there.
fn source(snapshot: &Snapshot, to: SocketAddr) -> Option<IpAddr> {
    let leaves = |from: &IpAddr| {
        from.is_ipv4() == to.is_ipv4() && (!from.is_loopback() || to.ip().is_loopback())
    };
    snapshot.address.filter(leaves)
}

/// The cluster is one of the snapshot's, and not of an earlier one.
fn is_current(cluster: &Arc<Cluster>, snapshot: &Snapshot) -> bool {
    let own = snapshot.outbound.clusters.get(cluster.number as usize);
    own.is_some_and(|own| Arc::ptr_eq(own, cluster))
}

/// Whether a snapshot leads to the links of a pool.
fn is_wanted(key: &PoolKey, cluster: Option<&str>, snapshot: &Snapshot) -> bool {
    let Some(cluster) = cluster else {
        return snapshot
            .inbound
            .values()
            .any(|port| port.upstream == key.to && port.from == key.from);
    };
    if source(snapshot, key.to) != key.from {
        return false;
    }
    let clusters = &snapshot.outbound.clusters;
    clusters
        .iter()
        .filter(|c| c.name == cluster)
        .any(|c| match &c.endpoints {
            Endpoints::Known(endpoints) => endpoints
                .iter()
                .any(|e| e.address == key.to && e.tls == key.tls),
            Endpoints::OriginalDestination { tls } => *tls == key.tls,
        })
}

#[cfg(test)]
mod tests;
