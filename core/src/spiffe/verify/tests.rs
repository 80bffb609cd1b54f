use super::*;
use crate::spiffe::SpiffeIdError;
use crate::spiffe::testing::{
    Authority, CLIENT_AUTH, DIGITAL_SIGNATURE, NEW_YEAR, SERVER_AUTH, Spec, cn, tlv,
};
use webpki::ALL_VERIFICATION_ALGS as ALGORITHMS;

const WEB: &str = "spiffe://td/ns/n/sa/web";
const NOW: UnixTime = UnixTime(NEW_YEAR * 1000);

fn root() -> Authority {
    Authority::root(&Spec::authority("root"))
}

fn bundle(root: &Authority) -> TrustBundle {
    TrustBundle::new([root.cert.clone()]).expect("a root")
}

fn td() -> Vec<TrustDomain> {
    vec![TrustDomain::parse("td").unwrap()]
}

fn client(chain: &[CertificateDer<'static>], bundle: &TrustBundle) -> Result<String, VerifyError> {
    verify_client(chain, bundle, &td(), NOW, ALGORITHMS).map(|leaf| leaf.id.to_string())
}

fn leaf(change: impl FnOnce(&mut Spec)) -> Spec {
    let mut spec = Spec::leaf(WEB);
    change(&mut spec);
    spec
}

#[test]
fn a_leaf_of_the_root_and_one_of_its_intermediate_are_believed() {
    let root = root();
    let int = root.sub(&Spec::authority("int"));
    let direct = root.issue(&Spec::leaf(WEB));
    let below = int.issue(&Spec::leaf(WEB));
    let bundle = bundle(&root);
    assert_eq!(client(&[direct], &bundle).as_deref(), Ok(WEB));
    for chain in [
        vec![below.clone(), int.cert.clone()],
        vec![below.clone(), int.cert.clone(), root.cert.clone()],
        vec![below.clone(), root.cert.clone(), int.cert.clone()],
    ] {
        assert_eq!(client(&chain, &bundle).as_deref(), Ok(WEB));
    }
    assert_eq!(client(&[below], &bundle), Err(VerifyError::UnknownIssuer));
    assert_eq!(
        client(&[], &bundle),
        Err(VerifyError::BadSvid(SvidError::Missing))
    );
}

/// S-31.
#[test]
fn a_clients_trust_domain_must_be_accepted() {
    let root = root();
    let bundle = bundle(&root);
    let chain = [root.issue(&Spec::leaf("spiffe://td.evil/x"))];
    assert!(matches!(
        client(&chain, &bundle),
        Err(VerifyError::TrustDomain(id)) if id.as_str() == "spiffe://td.evil/x"
    ));
    let chain = [root.issue(&Spec::leaf(WEB))];
    assert!(matches!(
        verify_client(&chain, &bundle, &[], NOW, ALGORITHMS),
        Err(VerifyError::TrustDomain(_))
    ));
}

/// S-58.
#[test]
fn a_servers_id_must_equal_one_of_those_expected() {
    let root = root();
    let bundle = bundle(&root);
    let chain = [root.issue(&Spec::leaf(WEB))];
    let server = |expected: &[&str]| {
        let expected: Vec<String> = expected.iter().map(|&san| san.to_owned()).collect();
        verify_server(&chain, &bundle, &expected, NOW, ALGORITHMS).map(|leaf| leaf.id.to_string())
    };
    assert_eq!(server(&[]).as_deref(), Ok(WEB));
    assert_eq!(server(&["spiffe://td/other", WEB]).as_deref(), Ok(WEB));
    for wrong in ["spiffe://td/ns/n/sa/we", "spiffe://TD/ns/n/sa/web", ""] {
        assert!(matches!(
            server(&[wrong]),
            Err(VerifyError::SubjectAltName(_))
        ));
    }
}

/// S-97.
#[test]
fn dates_are_named_only_for_a_known_authority() {
    let (ours, theirs) = (root(), Authority::root(&Spec::authority("other")));
    let namesake = root();
    let bundle = bundle(&ours);
    for (before, after, fault) in [
        (-7200, -3600, VerifyError::Expired),
        (3600, 7200, VerifyError::NotYetValid),
    ] {
        let spec = leaf(|s| (s.not_before, s.not_after) = (before, after));
        assert_eq!(client(&[ours.issue(&spec)], &bundle), Err(fault.clone()));
        for unknown in [&theirs, &namesake] {
            assert_eq!(
                client(&[unknown.issue(&spec)], &bundle),
                Err(VerifyError::UnknownIssuer)
            );
            let chain = [unknown.issue(&spec), unknown.cert.clone()];
            assert_eq!(client(&chain, &bundle), Err(VerifyError::UnknownIssuer));
        }
        let mut dated = Spec::authority("int");
        (dated.not_before, dated.not_after) = (before, after);
        let int = ours.sub(&dated);
        let chain = [int.issue(&Spec::leaf(WEB)), int.cert.clone()];
        assert_eq!(client(&chain, &bundle), Err(fault));
    }
}

/// RFC 5280 §4.1.2.5: the bounds belong to the validity.
#[test]
fn validity_includes_both_of_its_ends() {
    let root = root();
    let bundle = bundle(&root);
    let chain = [root.issue(&leaf(|s| (s.not_before, s.not_after) = (0, 10)))];
    let at = |ms: u64| verify_client(&chain, &bundle, &td(), UnixTime(ms), ALGORITHMS).err();
    let start = NEW_YEAR * 1000;
    assert_eq!(at(start - 1), Some(VerifyError::NotYetValid));
    assert_eq!(at(start), None);
    assert_eq!(at(start + 10_999), None);
    assert_eq!(at(start + 11_000), Some(VerifyError::Expired));
}

/// S-97.
#[test]
fn an_unknown_authority_is_named_whatever_else_is_wrong() {
    let ours = root();
    let bundle = bundle(&ours);
    let theirs = Authority::root(&Spec::authority("other"));
    let bad: [fn(&mut Spec); 6] = [
        |s| s.sans.clear(),
        |s| s.key_usage = None,
        |s| s.is_ca = Some(true),
        |s| s.ext_key_usage = Some(vec![SERVER_AUTH]),
        |s| s.sans = vec![(6, b"spiffe://elsewhere/x".to_vec())],
        |s| {
            s.ext_key_usage = Some(vec![SERVER_AUTH]);
            (s.not_before, s.not_after) = (-10, -5);
        },
    ];
    for change in bad {
        let spec = leaf(change);
        assert_eq!(
            client(&[theirs.issue(&spec)], &bundle),
            Err(VerifyError::UnknownIssuer)
        );
        assert_ne!(
            client(&[ours.issue(&spec)], &bundle),
            Err(VerifyError::UnknownIssuer)
        );
    }
    // `openssl req -x509` makes such a certificate by default.
    let own = Authority::root(&Spec::authority("self"));
    assert_eq!(
        client(&[own.cert], &bundle),
        Err(VerifyError::UnknownIssuer)
    );
}

/// S-81.
#[test]
fn a_leaf_of_the_root_that_is_no_svid_is_refused_as_such() {
    let root = root();
    let bundle = bundle(&root);
    type Change = fn(&mut Spec);
    let cases: [(Change, SvidError); 5] = [
        (|s| s.sans.clear(), SvidError::NoUri),
        (|s| s.is_ca = Some(true), SvidError::CaAsLeaf),
        (
            |s| s.ext_key_usage = Some(vec![SERVER_AUTH]),
            SvidError::ExtKeyUsage,
        ),
        (
            |s| s.ext_key_usage = Some(vec![CLIENT_AUTH]),
            SvidError::ExtKeyUsage,
        ),
        (
            |s| s.sans = vec![(6, b"spiffe://td/a/../b".to_vec())],
            SvidError::SpiffeId(SpiffeIdError::DotSegment),
        ),
    ];
    for (change, fault) in cases {
        assert_eq!(
            client(&[root.issue(&leaf(change))], &bundle),
            Err(VerifyError::BadSvid(fault))
        );
    }
    assert_eq!(
        client(&[root.cert], &bundle),
        Err(VerifyError::BadSvid(SvidError::CaAsLeaf))
    );
}

/// S-82; webpki alone takes `cA` for the right to sign.
#[test]
fn an_intermediate_without_the_right_to_sign_is_refused() {
    let root = root();
    let bundle = bundle(&root);
    let mut spec = Spec::authority("int");
    spec.key_usage = Some(DIGITAL_SIGNATURE);
    let int = root.sub(&spec);
    let chain = [int.issue(&Spec::leaf(WEB)), int.cert.clone()];
    assert_eq!(
        client(&chain, &bundle),
        Err(VerifyError::BadSvid(SvidError::NoKeyCertSign))
    );
    // Sent without need, it is not looked at.
    let chain = [root.issue(&Spec::leaf(WEB)), int.cert.clone()];
    assert_eq!(client(&chain, &bundle).as_deref(), Ok(WEB));
}

#[test]
fn a_leaf_cannot_issue() {
    let root = root();
    let bundle = bundle(&root);
    let mut spec = Spec::leaf(WEB);
    spec.subject = vec![cn("web")];
    let web = root.sub(&spec);
    let chain = [
        web.issue(&Spec::leaf("spiffe://td/forged")),
        web.cert.clone(),
    ];
    assert!(matches!(
        client(&chain, &bundle),
        Err(VerifyError::Chain(Error::EndEntityUsedAsCa))
    ));
}

#[test]
fn path_length_and_unknown_critical_extensions_are_rules_of_the_chain() {
    let root = root();
    let bundle = bundle(&root);
    let mut spec = Spec::authority("int");
    spec.path_len = Some(0);
    let int = root.sub(&spec);
    let deep = int.sub(&Spec::authority("deep"));
    let chain = [
        deep.issue(&Spec::leaf(WEB)),
        deep.cert.clone(),
        int.cert.clone(),
    ];
    assert_eq!(
        client(&chain, &bundle),
        Err(VerifyError::Chain(Error::PathLenConstraintViolated))
    );
    let spec = leaf(|s| {
        s.more
            .push((&[1, 3, 6, 1, 4, 1, 55555, 1], true, tlv(5, &[])))
    });
    assert_eq!(
        client(&[root.issue(&spec)], &bundle),
        Err(VerifyError::Chain(Error::UnsupportedCriticalExtension))
    );
}

/// S-82, S-96.
#[test]
fn a_root_that_is_limited_to_a_trust_domain_is_believed_for_no_other() {
    let (mesh, partner) = (root(), Authority::root(&Spec::authority("partner")));
    let partner_td = TrustDomain::parse("partner").unwrap();
    let mut bundle = bundle(&mesh);
    bundle
        .add(partner.cert.clone(), std::slice::from_ref(&partner_td))
        .expect("a root");
    let accepted = [td(), vec![partner_td]].concat();
    let verdict = |by: &Authority, uri: &str| {
        let chain = [by.issue(&Spec::leaf(uri))];
        verify_client(&chain, &bundle, &accepted, NOW, ALGORITHMS).map(|_| ())
    };
    assert_eq!(verdict(&mesh, WEB), Ok(()));
    assert_eq!(verdict(&mesh, "spiffe://partner/x"), Ok(()));
    assert_eq!(verdict(&partner, "spiffe://partner/x"), Ok(()));
    assert_eq!(verdict(&partner, WEB), Err(VerifyError::UnknownIssuer));

    let later = Authority::root(&Spec::authority("later"));
    bundle.add(later.cert.clone(), &[]).expect("a root");
    let chain = [later.issue(&Spec::leaf("spiffe://partner/x"))];
    assert!(verify_client(&chain, &bundle, &accepted, NOW, ALGORITHMS).is_ok());
    assert_eq!(bundle.roots().len(), 3);
}

#[test]
fn an_empty_bundle_believes_nobody() {
    let chain = [root().issue(&Spec::leaf(WEB))];
    assert_eq!(
        client(&chain, &TrustBundle::default()),
        Err(VerifyError::UnknownIssuer)
    );
}

#[test]
fn a_longer_chain_than_anybody_needs_is_not_searched() {
    let root = root();
    let bundle = bundle(&root);
    let mut chain = vec![root.issue(&Spec::leaf(WEB))];
    chain.resize(CHAIN_MAX, root.cert.clone());
    assert_eq!(client(&chain, &bundle).as_deref(), Ok(WEB));
    chain.push(root.cert.clone());
    assert_eq!(client(&chain, &bundle), Err(VerifyError::ChainTooLong));
}

#[test]
fn a_workloads_certificate_cannot_be_a_root() {
    let leaf = root().issue(&Spec::leaf(WEB));
    assert_eq!(
        TrustBundle::new([root().cert, leaf]).err(),
        Some(crate::spiffe::BundleError::Root {
            index: 1,
            fault: SvidError::NotCa
        })
    );
}
