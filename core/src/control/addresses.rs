//! Which address each pod and each service has.
//!
//! Pods lie in 127.1.0.0/16, services in 10.96.0.0/12, in the order of their names, unless they say an address themselves.
//! Who has an address keeps it. One that was given up is not given out again before the whole range was: a client that
//! still knows it must not reach somebody else.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};

use super::refusal;
use crate::api::finding::Finding;
use crate::api::meta::Origin;

/// Namespace and name.
pub type Name = (String, String);

/// What is held now. Immutable: [`assign`](Self::assign) makes the next state.
#[derive(Clone, Debug)]
pub struct Addresses {
    pod_range: Range,
    pods: Held,
    services: Held,
}

impl Default for Addresses {
    fn default() -> Self {
        Self {
            pod_range: PODS,
            pods: Held::default(),
            services: Held::default(),
        }
    }
}

/// Somebody who needs an address.
#[derive(Clone, Debug)]
pub struct Want {
    pub name: Name,
    /// The address that it says itself.
    pub given: Option<IpAddr>,
    pub origin: Origin,
}

impl Addresses {
    /// Nobody has one yet, and pods will lie in the `size` addresses from `first`, where several meshes share one host.
    pub fn with_pods_in(first: Ipv4Addr, size: u32) -> Self {
        Self {
            pod_range: Range {
                first,
                size,
                ..PODS
            },
            ..Self::default()
        }
    }

    /// The addresses of exactly these pods and services; the order of the slices does not matter.
    pub fn assign(&self, pods: &[Want], services: &[Want]) -> Result<Self, Vec<Finding>> {
        let mut findings: Vec<Finding> = pods
            .iter()
            .filter_map(refuse_pod_ip)
            .chain(services.iter().filter_map(refuse_cluster_ip))
            .collect();
        let mut next = |held: &Held, range, wants| {
            held.assign(range, wants).unwrap_or_else(|found| {
                findings.extend(found);
                Held::default()
            })
        };
        let addresses = Self {
            pod_range: self.pod_range,
            pods: next(&self.pods, &self.pod_range, pods),
            services: next(&self.services, &SERVICES, services),
        };
        if findings.is_empty() {
            Ok(addresses)
        } else {
            Err(findings)
        }
    }

    /// The same without the address of this pod, which the next to ask does not get.
    pub fn without_pod(mut self, name: &Name) -> Self {
        self.pods.by_name.remove(name);
        self
    }

    pub fn pod(&self, name: &Name) -> Option<Ipv4Addr> {
        match self.pods.by_name.get(name)? {
            IpAddr::V4(address) => Some(*address),
            IpAddr::V6(_) => None,
        }
    }

    /// `None` for a headless service too.
    pub fn service(&self, name: &Name) -> Option<IpAddr> {
        self.services.by_name.get(name).copied()
    }
}

/// Whether it lies where services without an address of their own get one. Nothing listens there.
pub fn is_service_address(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => SERVICES.contains(ip),
        IpAddr::V6(_) => false,
    }
}

/// Addresses that the host itself lives at, and the one that applications are called from.
fn refuse_pod_ip(want: &Want) -> Option<Finding> {
    const RESERVED: [Ipv4Addr; 4] = [
        Ipv4Addr::new(127, 0, 0, 0),
        Ipv4Addr::LOCALHOST,
        Ipv4Addr::new(127, 0, 0, 6),
        Ipv4Addr::new(127, 255, 255, 255),
    ];
    let given = want.given?;
    RESERVED.iter().any(|ip| given == *ip).then(|| {
        let message = format!("`podIP: {given}` is taken by the host");
        refusal(&want.origin, message, "take another of 127.0.0.0/8")
    })
}

/// Addresses of pods, and what is nobody's.
fn refuse_cluster_ip(want: &Want) -> Option<Finding> {
    let given = want.given?;
    (given.is_loopback() || given.is_unspecified() || given.is_multicast()).then(|| {
        let message = format!("`clusterIP: {given}` is no address of a service");
        refusal(
            &want.origin,
            message,
            "take one of 10.96.0.0/12, or leave it out",
        )
    })
}

#[derive(Clone, Copy, Debug)]
struct Range {
    what: &'static str,
    field: &'static str,
    first: Ipv4Addr,
    size: u32,
    fits: fn(Ipv4Addr) -> bool,
}

/// Without what looks like the address of a network or of everybody in it.
const PODS: Range = Range {
    what: "pods",
    field: "podIP",
    first: Ipv4Addr::new(127, 1, 0, 0),
    size: 1 << 16,
    fits: |ip| !matches!(ip.octets(), [.., 0 | 255]),
};

/// 10.96.0.1 is the API server's.
const SERVICES: Range = Range {
    what: "services",
    field: "clusterIP",
    first: Ipv4Addr::new(10, 96, 0, 0),
    size: 1 << 20,
    fits: |ip| {
        !matches!(
            ip.octets(),
            [10, 96, 0, 0 | 1] | [10, 111, 255, 255] | [127, ..]
        )
    },
};

impl Range {
    fn contains(&self, ip: Ipv4Addr) -> bool {
        ip.to_bits()
            .checked_sub(self.first.to_bits())
            .is_some_and(|offset| offset < self.size)
    }

    fn at(&self, offset: u32) -> Ipv4Addr {
        Ipv4Addr::from_bits(self.first.to_bits().saturating_add(offset % self.size))
    }
}

#[derive(Clone, Debug, Default)]
struct Held {
    by_name: BTreeMap<Name, IpAddr>,
    /// Offset in the range of the address to look at next.
    next: u32,
}

impl Held {
    fn assign(&self, range: &Range, wants: &[Want]) -> Result<Self, Vec<Finding>> {
        let mut wants: Vec<&Want> = wants.iter().collect();
        wants.sort_by(|a, b| a.name.cmp(&b.name));
        let mut findings = Vec::new();
        let mut owners: BTreeMap<IpAddr, &Want> = BTreeMap::new();
        let mut by_name = BTreeMap::new();
        let known = |want: &Want| want.given.or_else(|| self.by_name.get(&want.name).copied());
        // Those who say their address come first: they cannot evade.
        let (given, silent): (Vec<&Want>, Vec<&Want>) =
            wants.iter().partition(|want| want.given.is_some());
        for want in given.into_iter().chain(silent) {
            let Some(ip) = known(want) else {
                continue;
            };
            if let Some(owner) = owners.insert(ip, want) {
                findings.push(twice(range, ip, owner, want));
            }
            by_name.insert(want.name.clone(), ip);
        }
        let mut next = self.next;
        for want in wants {
            if known(want).is_some() {
                continue;
            }
            let free = (0..range.size)
                .map(|step| next.wrapping_add(step) % range.size)
                .find(|offset| {
                    let ip = range.at(*offset);
                    (range.fits)(ip) && !owners.contains_key(&IpAddr::V4(ip))
                });
            let Some(offset) = free else {
                let message = format!("there are more {} than addresses for them", range.what);
                findings.push(refusal(&want.origin, message, "delete some of them"));
                break;
            };
            let ip = IpAddr::V4(range.at(offset));
            owners.insert(ip, want);
            by_name.insert(want.name.clone(), ip);
            next = (offset + 1) % range.size;
        }
        if findings.is_empty() {
            Ok(Self { by_name, next })
        } else {
            Err(findings)
        }
    }
}

/// The one who says the address has to change; of two who say it, the later in the order of names.
fn twice(range: &Range, ip: IpAddr, first: &Want, second: &Want) -> Finding {
    let (changes, stays) = if second.given.is_some() {
        (second, first)
    } else {
        (first, second)
    };
    let (namespace, name) = &stays.name;
    let message = format!(
        "`{}: {ip}` is the address of `{namespace}/{name}` too, which is at {}",
        range.field, stays.origin
    );
    refusal(&changes.origin, message, "give one of them another address")
}

#[cfg(test)]
mod tests;
