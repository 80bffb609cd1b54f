//! Every question to both sides, and what they say differently.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

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
    pub id: String,
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
        let tell = || progress(done.fetch_add(1, Ordering::Relaxed) + 1);
        let theirs = all(part, &of_part, material, &|question| {
            (Envoy::door(question.place), String::new())
        });
        let mine = all(part, &of_part, material, &|question| {
            tell();
            (ours.door, format!("PLACE {}\r\n", question.place))
        });
        let their_log = envoy.log(of_part.len(), SILENCE);
        let my_log = ours.log(of_part.len(), SILENCE);
        for (question, (mine, theirs)) in of_part.iter().zip(mine.into_iter().zip(theirs)) {
            let ours = complete(question, mine?, &my_log);
            let envoy = complete(question, theirs?, &their_log);
            if ours != envoy {
                differences.push(Difference {
                    id: question.id.clone(),
                    ours,
                    envoy,
                });
            }
        }
    }
    Ok(differences)
}

type Asked = Result<(SocketAddr, Answer), String>;

fn all(
    places: &[Place],
    questions: &[Question],
    material: &Material,
    way: &(dyn Fn(&Question) -> (SocketAddr, String) + Sync),
) -> Vec<Asked> {
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
                    let (to, preface) = way(question);
                    let asked = places
                        .get(question.place)
                        .ok_or_else(|| "there is no such place".to_owned())
                        .and_then(|place| {
                            ask(question, place, to, &preface, material)
                                .map_err(|error| error.to_string())
                        })
                        .map_err(|error| format!("{}: {error}", question.id));
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
