use proptest::prelude::*;

use super::*;
use crate::control::ca::{Authority, CsrError, SignRequest, sign};

const API: &str = "spiffe://cluster.local/ns/shop/sa/api";
const HOUR: u64 = 3_600_000;

/// An agent, its authority, and both clocks.
struct World {
    agent: Agent,
    authority: Authority,
    crypto: Arc<Crypto>,
    now: Now,
    /// All that the agent wanted, in order.
    actions: Vec<AgentAction>,
    serial: u8,
}

fn id(uri: &str) -> SpiffeId {
    SpiffeId::parse(uri).unwrap()
}

fn authority(crypto: &Crypto, domain: &str, wall: UnixTime) -> Authority {
    let domain = TrustDomain::parse(domain).unwrap();
    Authority::new_self_signed(crypto, KeyKind::P256, &domain, wall, [1; 16]).unwrap()
}

impl World {
    fn new() -> Self {
        Self::with(|_| {})
    }

    fn with(change: impl FnOnce(&mut AgentConfig)) -> Self {
        let now = Now {
            at: Instant(7),
            wall: UnixTime(1_767_225_600_250),
        };
        let crypto = Arc::new(Crypto::production());
        let mut config = AgentConfig::new(id(API));
        change(&mut config);
        Self {
            agent: Agent::new(config, [9; 32], Arc::clone(&crypto)),
            authority: authority(&crypto, "cluster.local", now.wall),
            crypto,
            now,
            actions: Vec::new(),
            serial: 1,
        }
    }

    /// Started, and holding its first certificate.
    fn held() -> Self {
        let mut world = Self::new();
        world.handle(AgentInput::Start);
        world.answer();
        assert_eq!(world.published(), 1);
        world
    }

    fn handle(&mut self, input: AgentInput) {
        let mut actions = Vec::new();
        crate::machine::step(&mut self.agent, input, self.now, |a| actions.push(a));
        self.actions.extend(actions);
    }

    /// Lets both clocks run on.
    fn pass(&mut self, ms: u64) {
        self.now.at = self.now.at.after(Duration::from_millis(ms));
        self.now.wall.0 += ms;
    }

    /// Waits and ticks as a shell does until the agent has asked once more, for at most `ms`. The time it took.
    fn until_asked(&mut self, ms: u64) -> Option<u64> {
        let (asked, begun) = (self.asked().len(), self.now.wall.0);
        while self.asked().len() == asked {
            let due = self.agent.poll_timeout().expect("it waits for something");
            let wait = due.at.since(self.now.at).as_nanos().div_ceil(1_000_000);
            self.pass(u64::try_from(wait).unwrap());
            if self.now.wall.0 - begun > ms {
                return None;
            }
            self.handle(AgentInput::Tick);
        }
        Some(self.now.wall.0 - begun)
    }

    /// Requests so far: number, CSR, seconds.
    fn asked(&self) -> Vec<(u64, &str, i64)> {
        self.actions
            .iter()
            .filter_map(|action| match action {
                AgentAction::Sign {
                    request,
                    csr_pem,
                    validity_s,
                } => Some((*request, csr_pem.as_str(), *validity_s)),
                AgentAction::Publish(_) | AgentAction::Note(_) => None,
            })
            .collect()
    }

    fn published(&self) -> usize {
        let publishes = |a: &&AgentAction| matches!(a, AgentAction::Publish(_));
        self.actions.iter().filter(publishes).count()
    }

    fn notes(&self) -> Vec<String> {
        let note = |action: &AgentAction| match action {
            AgentAction::Note(note) => Some(note.to_string()),
            AgentAction::Sign { .. } | AgentAction::Publish(_) => None,
        };
        self.actions.iter().filter_map(note).collect()
    }

    fn identity(&self) -> Arc<Identity> {
        Arc::clone(self.agent.identity().expect("an identity"))
    }

    /// The authority's answer to the latest request, as `caller`.
    fn signed_for(&mut self, caller: &str, ttl: Option<i64>) -> (u64, Result<Chain, Refusal>) {
        let (request, csr, validity_s) = *self.asked().last().expect("a request");
        let asked = SignRequest {
            caller: Some(id(caller)),
            csr: csr.as_bytes().to_vec(),
            validity_s: ttl.unwrap_or(validity_s),
        };
        self.serial += 1;
        let serial = [self.serial; 16];
        let answer = sign(&self.authority, &asked, self.now.wall, serial);
        (request, answer)
    }

    fn answer(&mut self) {
        let (request, answer) = self.signed_for(API, None);
        self.handle(AgentInput::Signed { request, answer });
    }

    fn refuse(&mut self) {
        let request = self.asked().last().expect("a request").0;
        let answer = Err(Refusal::Unreachable("connection refused".into()));
        self.handle(AgentInput::Signed { request, answer });
    }
}

#[test]
fn an_identity_is_asked_for_checked_and_published_in_both_forms() {
    let mut world = World::new();
    world.handle(AgentInput::Tick);
    assert_eq!(world.agent.poll_timeout(), None);
    assert!(world.actions.is_empty());

    world.handle(AgentInput::Start);
    world.handle(AgentInput::Start);
    assert_eq!(world.asked().len(), 1);
    assert_eq!(world.asked()[0].2, 86_400);
    assert!(world.agent.identity().is_none());

    world.answer();
    let identity = world.identity();
    assert_eq!(identity.svid.id, id(API));
    assert_eq!(identity.svid.chain.len(), 1, "the root is not sent");
    let again = Svid::from_pem(
        identity.chain_pem.as_bytes(),
        identity.key_pem.reveal().as_bytes(),
        identity.bundle_pem.as_bytes(),
        world.now.wall,
    )
    .unwrap();
    assert_eq!(again.chain, identity.svid.chain);
    assert_eq!(again.key.reveal(), identity.svid.key.reveal());
    assert_eq!(again.bundle, identity.svid.bundle);
    assert_eq!(identity.bundle_pem, world.authority.root_pem());
    assert!(matches!(
        world.actions[..],
        [
            AgentAction::Sign { .. },
            AgentAction::Publish(_),
            AgentAction::Note(Note::Issued { .. })
        ]
    ));
    assert!(!format!("{:?} {:?}", world.agent, world.actions).contains("PRIVATE"));
}

/// S-94: 12 h ± 14.4 min for 24 h.
#[test]
fn a_certificate_is_renewed_in_the_middle_of_its_life_with_a_new_key() {
    let mut world = World::held();
    let (first, csr) = (world.identity(), world.asked()[0].1.to_owned());
    let after = world.until_asked(24 * HOUR).expect("a renewal");
    assert!(after.abs_diff(12 * HOUR) <= 864_000, "after {after} ms");
    assert_ne!(world.asked()[1].1, csr);
    assert!(
        Arc::ptr_eq(&world.identity(), &first),
        "until the answer comes"
    );

    world.answer();
    let second = world.identity();
    assert!(second.svid.not_after > first.svid.not_after);
    assert_ne!(second.key_pem, first.key_pem);
    assert_eq!(second.svid.bundle, first.svid.bundle);
    let after = world.until_asked(24 * HOUR).expect("another renewal");
    assert!(after.abs_diff(12 * HOUR) <= 864_000, "after {after} ms");
}

/// S-94: jitter comes from the seed, is uniform in ± 1 % and moves no more than that.
#[test]
fn agents_that_began_together_renew_apart() {
    let mut instants = Vec::new();
    for seed in 0..12 {
        let mut world = World::new();
        let config = AgentConfig::new(id(API));
        world.agent = Agent::new(config, [seed; 32], Arc::clone(&world.crypto));
        world.handle(AgentInput::Start);
        world.answer();
        let Life::Held(held) = &world.agent.life else {
            panic!("no certificate");
        };
        let lifetime = held.identity.svid.not_after.0 - world.now.wall.0;
        let middle = held.identity.svid.not_after.0 - lifetime / 2;
        instants.push(held.renew_at.0.cast_signed() - middle.cast_signed());
    }
    assert!(
        instants.iter().all(|off| off.abs() <= 864_001),
        "{instants:?}"
    );
    assert!(instants.iter().any(|off| *off > 0) && instants.iter().any(|off| *off < 0));
    instants.sort_unstable();
    instants.dedup();
    assert_eq!(instants.len(), 12);
}

/// S-94
#[test]
fn the_instant_of_renewal_follows_the_rule() {
    let (t, hour) = (|s: u64| UnixTime(1_000_000_000_000 + s * 1000), 3600);
    for (ratio, jitter, now, expected) in [
        (0.5, 0.0, 0, 1800),
        (0.5, 0.01, 0, 1764),
        (0.5, -0.01, 0, 1836),
        (0.2, 0.0, 0, 2880),
        (0.0, 0.0, 0, 3600),
        (0.0, -0.5, 0, 3600),
        (1.0, 0.0, 0, 0),
        (1.0, 0.5, 0, 0),
        (0.5, 0.0, 2000, 2000),
        (0.5, 0.0, 5000, 5000),
    ] {
        let at = renew_at(t(0), t(hour), ratio, jitter, t(now));
        assert_eq!(at, t(expected), "{ratio} {jitter} {now}");
    }
    assert_eq!(
        renew_at(t(10), t(5), 0.5, 0.0, t(10)),
        t(10),
        "ended before it came"
    );
}

#[test]
fn a_failed_request_is_tried_again_with_growing_waits_and_the_same_key() {
    let mut world = World::new();
    world.handle(AgentInput::Start);
    let mut waits = Vec::new();
    for _ in 0..9 {
        world.refuse();
        waits.push(world.until_asked(2 * 60_000).expect("another try"));
    }
    for (wait, whole) in waits.iter().zip([1, 2, 4, 8, 16, 32, 60, 60, 60]) {
        assert!((whole * 500..=whole * 1000 + 1).contains(wait), "{waits:?}");
    }
    let csrs: Vec<&str> = world.asked().iter().map(|asked| asked.1).collect();
    assert!(csrs.iter().all(|csr| *csr == csrs[0]));
    assert!(world.notes()[0].starts_with(
        "no certificate was issued: the authority could not be reached: connection refused; next try in "
    ));
    world.answer();
    assert_eq!(world.published(), 1);

    // After a success the waits begin anew.
    world.until_asked(24 * HOUR).expect("a renewal");
    world.refuse();
    let wait = world.until_asked(60_000).expect("another try");
    assert!((500..=1001).contains(&wait), "{wait}");
}

#[test]
fn an_authority_that_says_nothing_is_asked_again_and_its_late_answer_dropped() {
    let mut world = World::new();
    world.handle(AgentInput::Start);
    let (late, answer) = world.signed_for(API, None);
    let wait = world.until_asked(60_000).expect("another try");
    assert!((10_500..=11_001).contains(&wait), "{wait}");
    world.handle(AgentInput::Signed {
        request: late,
        answer,
    });
    assert_eq!((world.agent.late(), world.published()), (1, 0));
    world.answer();
    assert_eq!(world.published(), 1);
    assert!(world.notes()[0].contains("the authority did not answer within 10 s"));
}

#[test]
fn an_answer_that_does_not_fit_is_a_failure_in_words() {
    let mut world = World::new();
    world.handle(AgentInput::Start);

    // Somebody else's name.
    let (request, answer) = world.signed_for("spiffe://cluster.local/ns/shop/sa/other", None);
    world.handle(AgentInput::Signed { request, answer });
    world.until_asked(60_000).expect("another try");

    // Somebody else's key.
    let other = Draft::new(&world.crypto, KeyKind::P256, &id(API)).unwrap();
    let asked = SignRequest {
        caller: Some(id(API)),
        csr: other.csr_pem.into_bytes(),
        validity_s: 0,
    };
    let request = world.asked().last().unwrap().0;
    let answer = sign(&world.authority, &asked, world.now.wall, [1; 16]);
    world.handle(AgentInput::Signed { request, answer });
    world.until_asked(60_000).expect("another try");

    // A root that did not sign the leaf.
    let (request, answer) = world.signed_for(API, None);
    let (root, stranger) = (
        world.authority.root_pem(),
        authority(&world.crypto, "cluster.local", world.now.wall).root_pem(),
    );
    let text = answer.unwrap().pem().replace(&root, &stranger);
    let answer = Ok(Chain::from_pem(text.as_bytes()).unwrap());
    world.handle(AgentInput::Signed { request, answer });
    world.until_asked(60_000).expect("another try");

    // A leaf in the place of the root.
    let (request, answer) = world.signed_for(API, None);
    let leaf = certificates_pem(answer.unwrap().split().0);
    let answer = Ok(Chain::from_pem(leaf.repeat(2).as_bytes()).unwrap());
    world.handle(AgentInput::Signed { request, answer });
    world.until_asked(60_000).expect("another try");

    // A certificate that has ended already.
    let (request, answer) = world.signed_for(API, Some(1));
    world.pass(3000);
    world.handle(AgentInput::Signed { request, answer });

    assert_eq!(world.published(), 0);
    let notes = world.notes();
    for (note, words) in notes.iter().zip([
        "it is for spiffe://cluster.local/ns/shop/sa/other",
        "the private key does not belong to the leaf certificate",
        "the chain does not lead to a trusted root",
        "certificate 0 of the trust bundle cannot be a root",
        "the certificate has expired at ",
    ]) {
        let expected =
            format!("no certificate was issued: the authority's answer cannot be used: {words}");
        assert!(note.starts_with(&expected), "{note}");
    }
    assert_eq!(notes.len(), 5);
}

/// S-94: the old certificate is served until its end; beyond it users ask `is_expired`, and the reason is told once.
#[test]
fn a_certificate_that_ends_while_the_authority_is_away_is_told_once() {
    let mut world = World::held();
    let first = world.identity();
    world.until_asked(24 * HOUR).expect("a renewal");
    while world.now.wall.0 < first.svid.not_after.0 + HOUR {
        world.refuse();
        world.until_asked(2 * 60_000).expect("another try");
    }
    assert!(Arc::ptr_eq(&world.identity(), &first), "it stays published");
    assert!(first.svid.is_expired(world.now.wall));
    let told: Vec<String> = world.notes();
    let told: Vec<&String> = told.iter().filter(|n| n.contains("expired")).collect();
    assert_eq!(
        told,
        [&format!(
            "the certificate expired at {} and could not be renewed: the authority could not be reached: connection refused",
            first.svid.not_after
        )]
    );

    world.answer();
    assert!(!world.identity().svid.is_expired(world.now.wall));
    let again = world.until_asked(24 * HOUR).expect("a renewal");
    assert!(again.abs_diff(12 * HOUR) <= 864_000);
}

/// The end is told when it comes, not when the next try happens to fail.
#[test]
fn the_end_of_a_certificate_is_a_deadline_of_its_own() {
    let mut world = World::with(|config| {
        config.validity = Duration::from_secs(4);
        (config.ratio, config.jitter) = (0.5, 0.0);
    });
    world.handle(AgentInput::Start);
    world.answer();
    let end = world.identity().svid.not_after.0 + 1000;
    world.until_asked(4000).expect("a renewal");
    // Until the wait for the next try is longer than what is left of the certificate.
    world.refuse();
    while world.agent.poll_timeout().unwrap().why == "svid retry" {
        world.until_asked(4000).expect("another try");
        world.refuse();
    }
    let due = world.agent.poll_timeout().unwrap();
    assert_eq!(due.why, "svid expiry");
    let ahead = due.at.since(world.now.at).as_millis();
    assert_eq!(u128::from(end - world.now.wall.0), ahead);
    world.pass(end - world.now.wall.0);
    world.handle(AgentInput::Tick);
    assert!(
        world
            .notes()
            .last()
            .unwrap()
            .starts_with("the certificate expired at ")
    );
}

/// A machine that slept, or whose clock was set: noticed within a minute.
#[test]
fn a_jump_of_the_wall_clock_moves_the_plan() {
    // Ahead, beyond the end: renewed, and nothing to tell when it works.
    let mut world = World::held();
    world.now.wall.0 += 30 * HOUR;
    let after = world.until_asked(HOUR).expect("a renewal");
    assert!(after <= 60_000, "{after}");
    world.answer();
    assert!(world.notes().iter().all(|note| !note.contains("expired")));

    // Back, within the certificate's life: later by as much.
    let mut world = World::held();
    world.now.wall.0 -= 100_000;
    let after = world.until_asked(24 * HOUR).expect("a renewal");
    assert!(after.abs_diff(12 * HOUR + 100_000) <= 864_000, "{after}");

    // Back to before it begins: nobody believes it, so another is asked for.
    let mut world = World::held();
    world.now.wall.0 -= 10 * HOUR;
    let after = world.until_asked(HOUR).expect("a renewal");
    assert!(after <= 60_000, "{after}");
    world.answer();
    assert_eq!(world.published(), 2);
    assert!(world.identity().svid.not_before < world.now.wall);
}

/// However short a certificate lasts, and however early it is to be renewed.
#[test]
fn an_authority_is_not_asked_in_a_loop() {
    for ratio in [1.0, 7.0, 0.5] {
        let mut world = World::with(|config| {
            config.validity = Duration::from_secs(1);
            config.ratio = ratio;
        });
        world.handle(AgentInput::Start);
        for _ in 0..5 {
            let (request, answer) = world.signed_for(API, None);
            world.handle(AgentInput::Signed { request, answer });
            let wait = world.until_asked(60_000).expect("a renewal");
            assert!(wait >= 1000, "{wait}");
        }
    }
}

/// S-96
#[test]
fn other_roots_come_with_the_same_certificate() {
    let mut world = World::held();
    let first = world.identity();
    let partner = authority(&world.crypto, "partner.example", world.now.wall);
    let roots = TrustBundle::new([partner.root().clone()]).unwrap();
    world.handle(AgentInput::Trust(roots.clone()));
    assert_eq!(world.published(), 2);
    let second = world.identity();
    assert_eq!(second.svid.chain, first.svid.chain);
    assert_eq!(second.key_pem, first.key_pem);
    assert_eq!(second.svid.bundle.roots().len(), 2);
    assert_eq!(
        second.bundle_pem,
        partner.root_pem() + &world.authority.root_pem()
    );

    world.handle(AgentInput::Trust(roots));
    assert_eq!(world.published(), 2, "nothing new");
    world.until_asked(24 * HOUR).expect("a renewal");
    world.answer();
    assert_eq!(world.identity().svid.bundle, second.svid.bundle);
}

/// A key source that fails.
#[derive(Debug)]
struct NoKeys;

impl crate::tls::KeySource for NoKeys {
    fn generate(&self, _: KeyKind) -> Result<Pii<Vec<u8>>, KeyError> {
        Err(KeyError)
    }
}

#[test]
fn an_agent_without_keys_keeps_trying_and_says_so() {
    let mut world = World::new();
    let crypto = Crypto {
        keys: Box::new(NoKeys),
        ..Crypto::production()
    };
    let config = AgentConfig::new(id(API));
    world.agent = Agent::new(config, [3; 32], Arc::new(crypto));
    world.handle(AgentInput::Start);
    assert_eq!(world.agent.poll_timeout().unwrap().why, "key retry");
    assert_eq!(world.until_asked(HOUR), None);
    let notes = world.notes();
    assert!((60..=130).contains(&notes.len()), "{}", notes.len());
    assert!(notes[0].starts_with("no certificate was issued: no key pair could be made; "));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// Every input is legal in every state; `check` asserts that something is always waited for and never overdue.
    #[test]
    fn no_order_of_inputs_and_no_clock_stops_an_agent(
        steps in proptest::collection::vec((0_u8..7, 0_u64..100_000_000, -40_000_000_i64..40_000_000), 1..40),
    ) {
        let mut world = World::with(|config| config.key = KeyKind::Ed25519);
        for (what, ms, jump) in steps {
            world.pass(ms);
            match what {
                0 => world.handle(AgentInput::Start),
                1 => world.handle(AgentInput::Tick),
                2 => {
                    world.now.wall.0 = world.now.wall.0.saturating_add_signed(jump);
                    world.handle(AgentInput::Tick);
                }
                3 if !world.asked().is_empty() => world.answer(),
                4 if !world.asked().is_empty() => world.refuse(),
                5 => world.handle(AgentInput::Signed { request: ms % 5, answer: Err(Refusal::Csr(CsrError::Key)) }),
                _ => world.handle(AgentInput::Trust(TrustBundle::default())),
            }
        }
        world.handle(AgentInput::Start);
        // Whatever happened: with an authority that answers and a clock that runs, there is a valid identity soon.
        for _ in 0..3 {
            if world.agent.identity().is_none_or(|i| i.svid.is_expired(world.now.wall)) {
                world.until_asked(2 * 60_000);
                world.answer();
            }
        }
        prop_assert!(!world.identity().svid.is_expired(world.now.wall));
    }
}
