//! Who is who: the authority of a mesh and the agents that ask it.
//!
//! The authority is a function in this process, so an agent's request is answered at once. Knows no proxy: what an agent
//! publishes goes back to the caller.

use std::sync::Arc;
use std::time::{Duration, Instant};

use meshward_core::agent::{Agent, AgentAction, AgentConfig, AgentInput, Identity, Note};
use meshward_core::clock::Now;
use meshward_core::control::ca::{Authority, Chain, Refusal, SignRequest, sign};
use meshward_core::machine::Machine;
use meshward_core::spiffe::{SpiffeId, TrustDomain};
use meshward_core::tls::{Crypto, KeyKind};
use meshward_tokio::Clock;

use crate::exit::Failure;

/// How identities are issued.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Issuing {
    pub(crate) key: KeyKind,
    /// How long a certificate lasts.
    pub(crate) ttl: Duration,
    /// The authority answers for so long; `None`: always.
    pub(crate) answers_for: Option<Duration>,
}

pub(crate) struct Identities {
    authority: Authority,
    issuing: Issuing,
    crypto: Arc<Crypto>,
    clock: Clock,
    began: Instant,
}

/// A workload and the agent that keeps its identity fresh.
pub(crate) struct Member {
    pub(crate) id: SpiffeId,
    agent: Agent,
    /// What it was given last.
    pub(crate) identity: Option<Arc<Identity>>,
}

/// What an agent came to.
#[derive(Debug, Default)]
pub(crate) struct News {
    /// The latest, if there is a new one.
    pub(crate) identity: Option<Arc<Identity>>,
    pub(crate) notes: Vec<Note>,
}

impl Identities {
    /// A new authority for `domain`, whose key is never written anywhere.
    pub(crate) fn new(domain: &TrustDomain, issuing: Issuing) -> Result<Self, Failure> {
        let clock = Clock::start();
        let crypto = Arc::new(Crypto::production());
        let now = clock.now().wall;
        let authority = Authority::new_self_signed(&crypto, issuing.key, domain, now, random()?)
            .map_err(|e| Failure::Machine(format!("the authority cannot be made: {e}")))?;
        Ok(Self {
            authority,
            issuing,
            crypto,
            clock,
            began: Instant::now(),
        })
    }

    pub(crate) fn trust_domain(&self) -> &str {
        self.authority.trust_domain().as_str()
    }

    /// A member that asks to be `id`, and what came of asking.
    pub(crate) fn begin(&mut self, id: SpiffeId) -> Result<(Member, News), Failure> {
        let config = AgentConfig {
            key: self.issuing.key,
            validity: self.issuing.ttl,
            ..AgentConfig::new(id.clone())
        };
        let agent = Agent::new(config, random()?, Arc::clone(&self.crypto));
        let mut member = Member {
            id,
            agent,
            identity: None,
        };
        let news = self.tell(&mut member, AgentInput::Start);
        Ok((member, news))
    }

    /// How long until `member` wants a tick; `None`: it waits for nothing.
    pub(crate) fn due(&self, member: &Member) -> Option<Duration> {
        let now = self.clock.now().at.0;
        let nanoseconds = |at: u64| Duration::from_nanos(at.saturating_sub(now));
        member.agent.poll_timeout().map(|d| nanoseconds(d.at.0))
    }

    /// Tells `member` that time went on.
    pub(crate) fn tick(&mut self, member: &mut Member) -> News {
        self.tell(member, AgentInput::Tick)
    }

    fn tell(&mut self, member: &mut Member, input: AgentInput) -> News {
        self.clock.refresh();
        let now = self.clock.now();
        let mut news = News::default();
        let Member { id, agent, .. } = member;
        agent.handle(input, now);
        while let Some(action) = agent.poll_action() {
            match action {
                AgentAction::Sign {
                    request,
                    csr_pem,
                    validity_s,
                } => {
                    let answer = self.sign(id, csr_pem, validity_s, now);
                    agent.handle(AgentInput::Signed { request, answer }, now);
                }
                AgentAction::Publish(identity) => news.identity = Some(identity),
                AgentAction::Note(note) => news.notes.push(note),
            }
        }
        if let Some(identity) = &news.identity {
            member.identity = Some(Arc::clone(identity));
        }
        news
    }

    fn sign(
        &self,
        caller: &SpiffeId,
        csr_pem: String,
        validity_s: i64,
        now: Now,
    ) -> Result<Chain, Refusal> {
        if let Some(answers_for) = self.issuing.answers_for
            && self.began.elapsed() >= answers_for
        {
            let seconds = answers_for.as_secs();
            let why = format!("it was to answer for {seconds} s only");
            return Err(Refusal::Unreachable(why));
        }
        let request = SignRequest {
            caller: Some(caller.clone()),
            csr: csr_pem.into_bytes(),
            validity_s,
        };
        // Fails only where the system has no randomness.
        let serial = random().map_err(|e| Refusal::Making(e.to_string()))?;
        sign(&self.authority, &request, now.wall, serial)
    }
}

/// Bytes that nobody can foresee.
pub(crate) fn random<const N: usize>() -> Result<[u8; N], Failure> {
    let mut bytes = [0; N];
    aws_lc_rs::rand::fill(&mut bytes).map_err(|_| Failure::Machine("no randomness".into()))?;
    Ok(bytes)
}
