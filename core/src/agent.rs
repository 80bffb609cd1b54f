//! The machine that keeps one workload's identity fresh: a new key, a request, an answer that fits, and again in time.
//!
//! Renewal is planned by wall time (S-94) and waited for in monotonic time; every input, and one tick a minute at least,
//! holds the plan against the wall clock anew. A certificate stays published until its successor comes, also beyond its
//! end: whoever uses it asks [`Svid::is_expired`](crate::spiffe::Svid::is_expired). Knows no link: how a request reaches
//! the authority is its driver's.

use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use rcgen::{CertificateParams, DistinguishedName, KeyPair, SanType};
use rustls_pki_types::{CertificateDer, PrivatePkcs8KeyDer};

use crate::clock::{Deadline, Instant, Now, UnixTime};
use crate::control::ca::{Chain, Refusal, certificates_pem};
use crate::limits::{
    CERTIFICATE_LIFETIME, RENEWAL_PAUSE, SIGN_BACKOFF, SIGN_BACKOFF_MAX, SIGN_TIMEOUT, WALL_LOOK,
};
use crate::machine::Machine;
use crate::pii::Pii;
use crate::rng::{Purpose, Rng};
use crate::spiffe::{
    BundleError, SpiffeId, Svid, SvidLoadError, TrustBundle, TrustDomain, VerifyError,
    verify_client,
};
use crate::tls::{Crypto, KeyError, KeyKind};

/// What an agent is told.
#[derive(Debug)]
pub enum AgentInput {
    /// Begin. Nothing is asked for before; later ones change nothing.
    Start,
    /// The answer to a [`AgentAction::Sign`]. One to a request that was given up is counted and dropped.
    Signed {
        request: u64,
        answer: Result<Chain, Refusal>,
    },
    /// The roots to believe beside the authority's own (S-96), instead of those said before.
    Trust(TrustBundle),
    Tick,
}

/// What an agent wants done.
#[derive(Debug)]
pub enum AgentAction {
    /// Have `csr_pem` signed for this workload, and say how it went with the same number.
    Sign {
        request: u64,
        csr_pem: String,
        /// Seconds (S-91).
        validity_s: i64,
    },
    /// From now on the workload is this.
    Publish(Arc<Identity>),
    /// Something that an operator may want to read.
    Note(Note),
}

/// An identity as machines use it, and as files hold it. Chain, key and roots are the same in both forms.
pub struct Identity {
    pub svid: Arc<Svid>,
    /// `cert-chain.pem`: the leaf and its intermediates, as they are sent.
    pub chain_pem: String,
    /// `key.pem`: PKCS#8.
    pub key_pem: Pii<String>,
    /// `root-cert.pem`: the authority's root last. Limits of a root to some trust domains (S-96) cannot be said in it.
    pub bundle_pem: String,
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Identity")
            .field("svid", &self.svid)
            .finish_non_exhaustive()
    }
}

/// What is worth telling. `Display` has the words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Note {
    Issued {
        not_after: UnixTime,
        renew_at: UnixTime,
    },
    /// No certificate came; the next try begins in `wait`.
    Failed { why: Failure, wait: Duration },
    /// Said once for each certificate that ends before its successor has come.
    Expired { not_after: UnixTime, why: Failure },
}

impl fmt::Display for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Issued {
                not_after,
                renew_at,
            } => {
                write!(
                    f,
                    "a certificate until {not_after}, to be renewed at {renew_at}"
                )
            }
            Self::Failed { why, wait } => {
                let ms = wait.as_millis();
                write!(f, "no certificate was issued: {why}; next try in {ms} ms")
            }
            Self::Expired { not_after, why } => {
                write!(
                    f,
                    "the certificate expired at {not_after} and could not be renewed: {why}"
                )
            }
        }
    }
}

/// Why there is no new certificate.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    #[error(transparent)]
    Key(#[from] KeyError),
    #[error("the certificate signing request could not be made: {0}")]
    Csr(String),
    #[error(transparent)]
    Refused(#[from] Refusal),
    #[error("the authority did not answer within {} s", SIGN_TIMEOUT.as_secs())]
    NoAnswer,
    /// The answer cannot be used with our key, now.
    #[error("the authority's answer cannot be used: {0}")]
    Unfit(#[from] SvidLoadError),
    #[error("the authority's answer cannot be used: {0}")]
    Root(#[from] BundleError),
    #[error("the authority's answer cannot be used: it is for {0}")]
    Stranger(SpiffeId),
    /// No peer that believes the root in the answer would believe the leaf.
    #[error("the authority's answer cannot be used: {0}")]
    Untrusted(#[from] VerifyError),
}

/// A new key and the request to have it certified.
#[derive(Clone, Debug)]
pub struct Draft {
    /// PKCS#8.
    pub key_pem: Pii<String>,
    /// PKCS#10, with `id` as its only name, as Istio's agents ask; the authority goes by who asks (S-92).
    pub csr_pem: String,
}

impl Draft {
    pub fn new(crypto: &Crypto, kind: KeyKind, id: &SpiffeId) -> Result<Self, Failure> {
        let der = crypto.keys.generate(kind)?;
        let made = || -> Result<Self, rcgen::Error> {
            let key = KeyPair::try_from(&PrivatePkcs8KeyDer::from(der.reveal().as_slice()))?;
            let mut params = CertificateParams::default();
            params.distinguished_name = DistinguishedName::new();
            params.subject_alt_names = vec![SanType::URI(id.as_str().try_into()?)];
            Ok(Self {
                csr_pem: params.serialize_request(&key)?.pem()?,
                key_pem: Pii::new(key.serialize_pem()),
            })
        };
        made().map_err(|error| Failure::Csr(error.to_string()))
    }
}

/// The instant at which to renew a certificate that was received at `created` (the agent's clock, not NotBefore):
/// `max(NotAfter − r·L, now)`, L = NotAfter − `created` (S-94).
///
/// `r` is `ratio` and the jitter that was drawn, held to [0, 1]: 1 is at once, 0 at the end.
///
/// Istio: security/pkg/nodeagent/cache/secretcache.go, rotateTime.
pub fn renew_at(
    created: UnixTime,
    not_after: UnixTime,
    ratio: f64,
    jitter: f64,
    now: UnixTime,
) -> UnixTime {
    let lifetime = not_after.0.saturating_sub(created.0);
    let grace = (lifetime as f64 * (ratio + jitter).clamp(0.0, 1.0)).round() as u64;
    UnixTime(not_after.0.saturating_sub(grace)).max(now)
}

/// Who an agent is, and how it renews.
#[derive(Clone, Debug)]
pub struct AgentConfig {
    pub id: SpiffeId,
    pub key: KeyKind,
    /// What is asked for, in whole seconds. SECRET_TTL (S-91).
    pub validity: Duration,
    /// SECRET_GRACE_PERIOD_RATIO (S-94).
    pub ratio: f64,
    /// SECRET_GRACE_PERIOD_RATIO_JITTER (S-94): the drawn one is uniform in [−jitter, jitter].
    pub jitter: f64,
}

impl AgentConfig {
    /// Istio's defaults, with P-256 keys.
    pub fn new(id: SpiffeId) -> Self {
        Self {
            id,
            key: KeyKind::P256,
            validity: CERTIFICATE_LIFETIME,
            ratio: 0.5,
            jitter: 0.01,
        }
    }
}

/// The machine.
#[derive(Debug)]
pub struct Agent {
    config: AgentConfig,
    crypto: Arc<Crypto>,
    renewal: Rng,
    backoff: Rng,
    /// Roots beside the authority's own.
    trust: TrustBundle,
    life: Life,
    /// Since the last certificate came.
    trouble: Option<Trouble>,
    /// Numbers given to requests so far.
    requests: u64,
    late: u64,
    deadline: Option<Deadline>,
    actions: VecDeque<AgentAction>,
}

#[derive(Debug)]
enum Life {
    Asleep,
    /// No certificate yet.
    NoneYet(Errand),
    Held(Held),
    Renewing(Held, Errand),
}

/// Getting one certificate.
#[derive(Debug)]
enum Errand {
    /// No key could be made; tried again at `again`.
    NoKey { again: Instant },
    Requested {
        draft: Draft,
        request: u64,
        until: Instant,
    },
    /// Asked in vain; the same draft is sent again at `again`.
    Waiting { draft: Draft, again: Instant },
}

/// The identity that is published.
#[derive(Debug)]
struct Held {
    identity: Arc<Identity>,
    /// The root that came with it.
    root: CertificateDer<'static>,
    renew_at: UnixTime,
    /// Nothing is asked for before.
    rest: Instant,
    end: End,
}

/// Whether the end of a certificate was told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Untold,
    Told,
}

#[derive(Debug)]
struct Trouble {
    tries: u32,
    why: Failure,
}

impl Held {
    /// Also where the clock was set back to before the certificate begins: nobody believes it then.
    fn is_due(&self, now: Now) -> bool {
        let begun = now.wall >= self.identity.svid.not_before;
        now.at >= self.rest && (now.wall >= self.renew_at || !begun)
    }
}

impl Agent {
    /// `seed` feeds the jitter of renewals and of waiting times; agents that began together then renew apart.
    pub fn new(config: AgentConfig, seed: [u8; 32], crypto: Arc<Crypto>) -> Self {
        Self {
            config,
            crypto,
            renewal: Rng::new(seed, Purpose::Renewal),
            backoff: Rng::new(seed, Purpose::Backoff),
            trust: TrustBundle::default(),
            life: Life::Asleep,
            trouble: None,
            requests: 0,
            late: 0,
            deadline: None,
            actions: VecDeque::new(),
        }
    }

    /// What is published, if anything was yet.
    pub fn identity(&self) -> Option<&Arc<Identity>> {
        match &self.life {
            Life::Asleep | Life::NoneYet(_) => None,
            Life::Held(held) | Life::Renewing(held, _) => Some(&held.identity),
        }
    }

    /// Answers that came for requests given up.
    pub fn late(&self) -> u64 {
        self.late
    }

    fn signed(
        &mut self,
        life: Life,
        request: u64,
        answer: Result<Chain, Refusal>,
        now: Now,
    ) -> Life {
        let (old, errand) = match life {
            Life::NoneYet(errand) => (None, errand),
            Life::Renewing(held, errand) => (Some(held), errand),
            Life::Asleep | Life::Held(_) => {
                self.late += 1;
                return life;
            }
        };
        let errand = match errand {
            Errand::Requested {
                draft,
                request: asked,
                ..
            } if asked == request => match self.receive(&draft, answer, now) {
                Ok(held) => return Life::Held(held),
                Err(why) => Errand::Waiting {
                    draft,
                    again: self.fail(why, now),
                },
            },
            Errand::NoKey { .. } | Errand::Requested { .. } | Errand::Waiting { .. } => {
                self.late += 1;
                errand
            }
        };
        match old {
            None => Life::NoneYet(errand),
            Some(held) => Life::Renewing(held, errand),
        }
    }

    /// Judges an answer; publishes it if it is what was asked for.
    fn receive(
        &mut self,
        draft: &Draft,
        answer: Result<Chain, Refusal>,
        now: Now,
    ) -> Result<Held, Failure> {
        let chain = answer?;
        let (sent, root) = chain.split();
        let chain_pem = certificates_pem(sent);
        let bundle = believing(&self.trust, root)?;
        let bundle_pem = certificates_pem(bundle.roots());
        let key_pem = draft.key_pem.clone();
        let mut svid = Svid::from_pem(
            chain_pem.as_bytes(),
            key_pem.reveal().as_bytes(),
            bundle_pem.as_bytes(),
            now.wall,
        )?;
        svid.bundle = bundle;
        if svid.id != self.config.id {
            return Err(Failure::Stranger(svid.id));
        }
        let domain = TrustDomain::parse(svid.id.trust_domain())
            .map_err(|_| Failure::Stranger(svid.id.clone()))?;
        let algorithms = self.crypto.provider.signature_verification_algorithms.all;
        verify_client(&svid.chain, &svid.bundle, &[domain], now.wall, algorithms)?;

        let not_after = svid.not_after;
        let drawn = (self.renewal.next_u64() >> 11) as f64 / (1_u64 << 53) as f64;
        let jitter = self.config.jitter * (2.0 * drawn - 1.0);
        let renew_at = renew_at(now.wall, not_after, self.config.ratio, jitter, now.wall);
        let root = root.clone();
        let identity = self.publish(Identity {
            svid: Arc::new(svid),
            chain_pem,
            key_pem,
            bundle_pem,
        });
        self.trouble = None;
        self.note(Note::Issued {
            not_after,
            renew_at,
        });
        Ok(Held {
            identity,
            root,
            renew_at,
            rest: now.at.after(RENEWAL_PAUSE),
            end: End::Untold,
        })
    }

    /// Other roots beside the authority's: the same certificate, believing others.
    fn trust(&mut self, life: Life, trust: TrustBundle) -> Life {
        self.trust = trust;
        match life {
            Life::Asleep | Life::NoneYet(_) => life,
            Life::Held(held) => Life::Held(self.reissue(held)),
            Life::Renewing(held, errand) => Life::Renewing(self.reissue(held), errand),
        }
    }

    fn reissue(&mut self, mut held: Held) -> Held {
        let old = &held.identity;
        // INVARIANT: `root` was taken into a bundle once, in `receive`.
        let Ok(bundle) = believing(&self.trust, &held.root) else {
            return held;
        };
        if bundle != old.svid.bundle {
            held.identity = self.publish(Identity {
                bundle_pem: certificates_pem(bundle.roots()),
                svid: Arc::new(Svid {
                    bundle,
                    ..Svid::clone(&old.svid)
                }),
                chain_pem: old.chain_pem.clone(),
                key_pem: old.key_pem.clone(),
            });
        }
        held
    }

    /// Does what is due.
    fn advance(&mut self, life: Life, now: Now) -> Life {
        match life {
            Life::Asleep => Life::Asleep,
            Life::NoneYet(errand) => Life::NoneYet(self.pursue(errand, now)),
            Life::Held(held) if held.is_due(now) => {
                let errand = self.begin(now);
                Life::Renewing(self.tell_end(held, now), errand)
            }
            Life::Held(held) => Life::Held(held),
            Life::Renewing(held, errand) => {
                let errand = self.pursue(errand, now);
                Life::Renewing(self.tell_end(held, now), errand)
            }
        }
    }

    fn begin(&mut self, now: Now) -> Errand {
        match Draft::new(&self.crypto, self.config.key, &self.config.id) {
            Ok(draft) => self.ask(draft, now),
            Err(why) => Errand::NoKey {
                again: self.fail(why, now),
            },
        }
    }

    fn pursue(&mut self, errand: Errand, now: Now) -> Errand {
        match errand {
            Errand::NoKey { again } if again <= now.at => self.begin(now),
            Errand::Requested { draft, until, .. } if until <= now.at => Errand::Waiting {
                draft,
                again: self.fail(Failure::NoAnswer, now),
            },
            Errand::Waiting { draft, again } if again <= now.at => self.ask(draft, now),
            Errand::NoKey { .. } | Errand::Requested { .. } | Errand::Waiting { .. } => errand,
        }
    }

    fn ask(&mut self, draft: Draft, now: Now) -> Errand {
        self.requests += 1;
        self.actions.push_back(AgentAction::Sign {
            request: self.requests,
            csr_pem: draft.csr_pem.clone(),
            validity_s: i64::try_from(self.config.validity.as_secs()).unwrap_or(i64::MAX),
        });
        Errand::Requested {
            draft,
            request: self.requests,
            until: now.at.after(SIGN_TIMEOUT),
        }
    }

    /// When to try again: between half and the whole of a span that doubles with each failure.
    fn fail(&mut self, why: Failure, now: Now) -> Instant {
        let tries = self.trouble.as_ref().map_or(0, |t| t.tries);
        let doublings = 1_u32.checked_shl(tries).unwrap_or(u32::MAX);
        let span = SIGN_BACKOFF.saturating_mul(doublings).min(SIGN_BACKOFF_MAX);
        let half = u64::try_from(span.as_nanos() / 2).unwrap_or(u64::MAX);
        let wait = Duration::from_nanos(half + self.backoff.next_u64() % (half + 1));
        self.trouble = Some(Trouble {
            tries: tries.saturating_add(1),
            why: why.clone(),
        });
        self.note(Note::Failed { why, wait });
        now.at.after(wait)
    }

    /// Once for each certificate, when it has ended and a try to renew it has failed.
    fn tell_end(&mut self, mut held: Held, now: Now) -> Held {
        let svid = &held.identity.svid;
        if let (Some(trouble), End::Untold, true) =
            (&self.trouble, held.end, svid.is_expired(now.wall))
        {
            let (not_after, why) = (svid.not_after, trouble.why.clone());
            self.note(Note::Expired { not_after, why });
            held.end = End::Told;
        }
        held
    }

    fn note(&mut self, note: Note) {
        self.actions.push_back(AgentAction::Note(note));
    }

    fn publish(&mut self, identity: Identity) -> Arc<Identity> {
        let identity = Arc::new(identity);
        self.actions
            .push_back(AgentAction::Publish(Arc::clone(&identity)));
        identity
    }

    fn next_deadline(&self, now: Now) -> Option<Deadline> {
        match &self.life {
            Life::Asleep => None,
            Life::NoneYet(errand) => Some(errand.deadline()),
            Life::Held(held) => Some(Deadline {
                at: at_wall(held.renew_at, now).max(held.rest),
                why: "svid renewal",
            }),
            Life::Renewing(held, errand) => {
                let next = errand.deadline();
                match (&self.trouble, held.end) {
                    (Some(_), End::Untold) => {
                        let end = held.identity.svid.not_after.as_secs().saturating_add(1);
                        let at = at_wall(UnixTime(end.saturating_mul(1000)), now);
                        let end = Deadline {
                            at,
                            why: "svid expiry",
                        };
                        Some(if end.at < next.at { end } else { next })
                    }
                    (None, _) | (_, End::Told) => Some(next),
                }
            }
        }
    }

    fn check(&self, now: Now) {
        assert!(
            self.deadline.is_none_or(|due| due.at > now.at),
            "a due deadline was not taken"
        );
        assert_eq!(
            self.deadline.is_none(),
            matches!(self.life, Life::Asleep),
            "an agent that has begun always waits for something"
        );
    }
}

impl Errand {
    fn deadline(&self) -> Deadline {
        match self {
            Self::NoKey { again } => Deadline {
                at: *again,
                why: "key retry",
            },
            Self::Requested { until, .. } => Deadline {
                at: *until,
                why: "svid request",
            },
            Self::Waiting { again, .. } => Deadline {
                at: *again,
                why: "svid retry",
            },
        }
    }
}

impl Machine for Agent {
    type Input = AgentInput;
    type Action = AgentAction;

    fn handle(&mut self, input: AgentInput, now: Now) {
        let life = std::mem::replace(&mut self.life, Life::Asleep);
        let life = match input {
            AgentInput::Start => match life {
                Life::Asleep => Life::NoneYet(self.begin(now)),
                Life::NoneYet(_) | Life::Held(_) | Life::Renewing(..) => life,
            },
            AgentInput::Signed { request, answer } => self.signed(life, request, answer, now),
            AgentInput::Trust(bundle) => self.trust(life, bundle),
            AgentInput::Tick => life,
        };
        self.life = self.advance(life, now);
        self.deadline = self.next_deadline(now);
        self.check(now);
    }

    fn poll_action(&mut self) -> Option<AgentAction> {
        self.actions.pop_front()
    }

    fn poll_timeout(&self) -> Option<Deadline> {
        self.deadline
    }
}

/// `trust`, and `root` for every trust domain.
fn believing(
    trust: &TrustBundle,
    root: &CertificateDer<'static>,
) -> Result<TrustBundle, BundleError> {
    let mut bundle = trust.clone();
    bundle.add(root.clone(), &[])?;
    Ok(bundle)
}

/// When the wall clock will show `wall` if it runs on, but soon enough to notice that it did not.
fn at_wall(wall: UnixTime, now: Now) -> Instant {
    let ahead = Duration::from_millis(wall.0.saturating_sub(now.wall.0));
    now.at.after(ahead.min(WALL_LOOK))
}

#[cfg(test)]
mod tests;
