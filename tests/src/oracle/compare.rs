//! Every question to both sides, and what they say differently.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use meshward_core::spiffe::SpiffeId;

use super::ask::ask;
use super::envoy::{Envoy, Logged, Material};
use super::ours::Ours;
use super::{Answer, Place, Question, What, upstream};

/// Connections at a time.
const CLIENTS: usize = 8;
/// The port of the first client; each has its own.
const FIRST_CLIENT: u16 = 1025;
/// A log that is silent for so long says no more.
const SILENCE: Duration = Duration::from_secs(3);
/// Listeners of one Envoy.
const PLACES_AT_ONCE: usize = 500;

/// A question that was answered differently.
#[derive(Clone, Debug)]
pub struct Difference {
    /// Why it is meant to be; `None`: one of both is wrong.
    pub reason: Option<&'static str>,
    pub question: Question,
    pub ours: Answer,
    pub envoy: Answer,
}

/// Asks both sides everything. Questions about a place that Envoy refuses to serve fail the whole comparison.
pub fn compare(
    executable: &Path,
    folder: &Path,
    places: &[Place],
    questions: &[Question],
    material: &Material,
    progress: &(dyn Fn(usize) + Sync),
) -> Result<Vec<Difference>, String> {
    let upstream = upstream::start().map_err(|error| error.to_string())?;
    let mut differences = Vec::new();
    let done = AtomicUsize::new(0);
    for (part, first) in places
        .chunks(PLACES_AT_ONCE)
        .zip((0..).step_by(PLACES_AT_ONCE))
    {
        let folder = folder.join(format!("part-{first}"));
        std::fs::create_dir_all(&folder).map_err(|error| error.to_string())?;
        let envoy = Envoy::start(executable, &folder, part, upstream, material)?;
        let ours = Ours::start(part, upstream, material)?;
        let of_part: Vec<Question> = questions
            .iter()
            .filter(|question| (first..first + part.len()).contains(&question.place))
            .zip(FIRST_CLIENT..=u16::MAX)
            .map(|(question, port)| Question {
                place: question.place - first,
                from: SocketAddr::new(question.from.ip(), port),
                ..question.clone()
            })
            .collect();
        let asked = all(part, &of_part, material, ours.door.port(), &|| {
            progress(done.fetch_add(1, Ordering::Relaxed) + 1);
        });
        let their_log = envoy.log(of_part.len(), SILENCE);
        let my_log = ours.log(of_part.len(), SILENCE);
        for (question, both) in of_part.iter().zip(asked) {
            let [mine, theirs] = both?;
            let ours = complete(question, mine, &my_log);
            let envoy = complete(question, theirs, &their_log);
            if ours != envoy {
                let place = &part[question.place];
                differences.push(Difference {
                    reason: reason(place, question, &ours, &envoy),
                    question: question.clone(),
                    ours,
                    envoy,
                });
            }
        }
    }
    Ok(differences)
}

/// Where we answer differently from Envoy on purpose.
fn reason(
    place: &Place,
    question: &Question,
    ours: &Answer,
    envoy: &Answer,
) -> Option<&'static str> {
    let by_token = |answer: &Answer| answer.details.starts_with("jwt_authn_access_denied");
    if ours.status == 400 && host_has_odd_port(&question.what) {
        return Some("a `host` with a port that is no number is refused");
    }
    let nobodys = ours.details == "jwt_authn_access_denied{Jwt_issuer_is_not_configured}";
    if by_token(ours) && by_token(envoy) && (place.has_issuer_twice() || nobodys) {
        return Some(
            "behind its rules Envoy holds each token against its issuer's, wherever it stands",
        );
    }
    if by_token(ours) && !by_token(envoy) && question.forged {
        return Some("Envoy takes stray bits, and an algorithm that is not the key's");
    }
    let stranger = |id: &String| SpiffeId::parse(id).is_err();
    if ours.status == 0 && question.identity.as_ref().is_some_and(stranger) {
        return Some("a certificate whose name is no SPIFFE ID is refused");
    }
    if let (Some(ours), Some(envoy)) = (&ours.upstream, &envoy.upstream)
        && ours.headers == envoy.headers
        && path_of(&ours.line) == path_of(&envoy.line)
        && ours.line.contains("%2f")
        && !envoy.line.contains("%2f")
    {
        return Some("Envoy decodes the rest of the query when it takes a token out of it");
    }
    None
}

/// What of a request line stands before the query.
fn path_of(line: &str) -> Option<&str> {
    line.split('?').next()
}

fn host_has_odd_port(what: &What) -> bool {
    let What::Request(bytes) = what else {
        return false;
    };
    let text = String::from_utf8_lossy(bytes);
    let host = text
        .lines()
        .filter_map(|line| line.split_once(": "))
        .find(|(name, _)| name.eq_ignore_ascii_case("host"));
    let port = host.and_then(|(_, host)| host.rsplit_once(':'));
    port.is_some_and(|(_, port)| port.parse::<u16>().is_err())
}

/// What we said, and what Envoy said, each with the client's address.
type Asked = Result<[(SocketAddr, Answer); 2], String>;

/// Asks one side right after the other, as both judge by the time.
fn all(
    places: &[Place],
    questions: &[Question],
    material: &Material,
    ours: u16,
    tell: &(dyn Fn() + Sync),
) -> Vec<Asked> {
    let both = |question: &Question| -> Asked {
        let place = places.get(question.place).ok_or("there is no such place")?;
        let preface = format!("PLACE {}\r\n", question.place);
        let envoy = Envoy::door(question.place).port();
        let mine = ask(question, place, ours, &preface, material);
        let theirs = ask(question, place, envoy, "", material);
        let words = |error: io::Error| format!("{}: {error}", question.id);
        Ok([mine.map_err(words)?, theirs.map_err(words)?])
    };
    let next = AtomicUsize::new(0);
    let answers: Mutex<BTreeMap<usize, Asked>> = Mutex::default();
    thread::scope(|scope| {
        for _ in 0..CLIENTS {
            scope.spawn(|| {
                loop {
                    let at = next.fetch_add(1, Ordering::Relaxed);
                    let Some(question) = questions.get(at) else {
                        return;
                    };
                    let asked = both(question);
                    tell();
                    if let Ok(mut answers) = answers.lock() {
                        answers.insert(at, asked);
                    }
                }
            });
        }
    });
    answers
        .into_inner()
        .unwrap_or_default()
        .into_values()
        .collect()
}

/// The answer with what the access log adds.
fn complete(
    question: &Question,
    (client, mut answer): (SocketAddr, Answer),
    log: &BTreeMap<SocketAddr, Logged>,
) -> Answer {
    answer.details = match (log.get(&client), &question.what) {
        (Some(logged), What::Request(_)) => logged.details.clone(),
        (Some(logged), What::Bytes(_)) => logged.termination.clone(),
        (None, _) => "-".into(),
    };
    answer
}
