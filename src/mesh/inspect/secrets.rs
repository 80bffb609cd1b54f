//! The certificates of a sidecar. Its key is never looked at.

use meshward_core::clock::UnixTime;
use meshward_core::spiffe::CertificateFacts;
use serde_json::{Value, json};

use crate::machine;
use crate::mesh::pods::Sidecar;
use crate::mesh::table::columns;

/// Under the names that istioctl gives them.
pub(super) fn show(sidecar: &Sidecar) -> (String, Value) {
    let now = machine::now();
    let (mut rows, mut list) = (Vec::new(), Vec::new());
    let svid = sidecar.member.identity.as_ref().map(|id| &id.svid);
    let chain = svid.and_then(|svid| svid.chain.first());
    let roots = svid.map_or(&[][..], |svid| svid.bundle.roots());
    let certificates = chain
        .map(|leaf| ("default", "Cert Chain", leaf))
        .into_iter()
        .chain(roots.iter().map(|root| ("ROOTCA", "CA", root)));
    for (name, kind, der) in certificates {
        let Some(facts) = CertificateFacts::read(der) else {
            continue;
        };
        let valid = is_valid(&facts, now);
        rows.push([
            name.to_owned(),
            kind.to_owned(),
            "ACTIVE".to_owned(),
            valid.to_string(),
            facts.serial.clone(),
            facts.not_after.to_string(),
            facts.not_before.to_string(),
        ]);
        list.push(json!({
            "name": name,
            "type": kind,
            "state": "ACTIVE",
            "valid": valid,
            "serialNumber": facts.serial,
            "notAfter": facts.not_after.to_string(),
            "notBefore": facts.not_before.to_string(),
            "identity": (name == "default").then(|| sidecar.member.id.to_string()),
        }));
    }
    let heading = [
        "RESOURCE NAME",
        "TYPE",
        "STATUS",
        "VALID CERT",
        "SERIAL NUMBER",
        "NOT AFTER",
        "NOT BEFORE",
    ];
    (columns(heading, &rows), list.into())
}

fn is_valid(facts: &CertificateFacts, now: UnixTime) -> bool {
    facts.not_before <= now && now <= facts.not_after
}
