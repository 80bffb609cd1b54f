//! Machines that break the contract are caught.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};

use meshward_core::clock::{Deadline, Instant, Now, UnixTime};
use meshward_core::id::LinkId;
use meshward_core::link::{Buf, CloseCause, Entry, LinkCommand, LinkEvent};
use meshward_core::machine::{Machine, step};
use meshward_core::proxy::{Action, Input};
use meshward_simulator::check::Checked;

/// Answers every input with what it was given.
struct Puppet {
    answers: VecDeque<Vec<Action>>,
    actions: VecDeque<Action>,
    deadline: Option<Instant>,
}

impl Machine for Puppet {
    type Input = Input;
    type Action = Action;
    fn handle(&mut self, _: Input, _: Now) {
        self.actions
            .extend(self.answers.pop_front().unwrap_or_default());
    }
    fn poll_action(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }
    fn poll_timeout(&self) -> Option<Deadline> {
        self.deadline.map(|at| Deadline { at, why: "test" })
    }
}

fn link() -> LinkId {
    LinkId::accepted(0, 1)
}

fn accepted() -> Input {
    let address: SocketAddr = "127.0.0.1:1".parse().unwrap();
    let event = LinkEvent::Accepted {
        entry: Entry::Inbound,
        peer: address,
        original_dst: address,
    };
    Input::Link(link(), event)
}

fn say(command: LinkCommand) -> Action {
    Action::Link(link(), command)
}

fn read() -> Action {
    say(LinkCommand::Read { at_most: 4 })
}

fn send(n: usize) -> Action {
    say(LinkCommand::Send {
        bytes: Buf::from(vec![0; n]),
        ack: true,
    })
}

/// What the wrapper says to a machine that answers `inputs` with `answers`; empty if it has nothing to say.
fn verdict(inputs: Vec<Input>, answers: Vec<Vec<Action>>, deadline: Option<Instant>) -> String {
    let puppet = Puppet {
        answers: answers.into(),
        actions: VecDeque::new(),
        deadline,
    };
    let run = AssertUnwindSafe(|| {
        let mut checked = Checked::new(puppet);
        for input in inputs {
            let now = Now {
                at: Instant(5),
                wall: UnixTime(0),
            };
            step(&mut checked, input, now, drop);
        }
    });
    match catch_unwind(run) {
        Ok(()) => String::new(),
        Err(panic) => panic
            .downcast_ref::<String>()
            .cloned()
            .or_else(|| panic.downcast_ref::<&str>().map(|s| (*s).into()))
            .expect("a panic with a sentence"),
    }
}

#[test]
fn a_machine_that_keeps_the_contract_passes() {
    let received = Input::Link(link(), LinkEvent::Received(Buf::from(vec![0; 4])));
    let closed = Input::Link(link(), LinkEvent::Closed(CloseCause::Reset));
    let inputs = vec![accepted(), received, closed];
    let answers = vec![
        vec![read()],
        vec![send(4), say(LinkCommand::Finish), read()],
    ];
    assert_eq!(verdict(inputs, answers, Some(Instant(6))), "");
}

#[test]
fn broken_promises_are_named() {
    let closed = || Input::Link(link(), LinkEvent::Closed(CloseCause::Reset));
    let twice = |a: fn() -> Action| vec![vec![a(), a()]];
    for (inputs, answers, expected) in [
        (
            vec![accepted()],
            twice(read),
            "a grant while one is outstanding",
        ),
        (
            vec![accepted()],
            twice(|| say(LinkCommand::Finish)),
            "finished twice",
        ),
        (
            vec![accepted()],
            vec![vec![say(LinkCommand::Reset), read()]],
            "after Reset",
        ),
        (
            vec![accepted()],
            vec![vec![say(LinkCommand::Finish), send(1)]],
            "bytes after Finish",
        ),
        (vec![accepted()], vec![vec![send(0)]], "an empty write"),
        (
            vec![accepted()],
            vec![vec![send(400_000)]],
            "bytes unheard of",
        ),
        (
            vec![accepted(), closed()],
            vec![vec![], vec![read()]],
            "a link that is dead",
        ),
        (
            vec![accepted(), closed(), closed()],
            vec![],
            "an event after Closed",
        ),
        (
            vec![accepted(), Input::Link(link(), LinkEvent::Eof)],
            vec![],
            "Eof that nobody asked for",
        ),
        (
            vec![
                accepted(),
                Input::Link(link(), LinkEvent::Received(Buf::from(vec![0; 5]))),
            ],
            vec![vec![read()]],
            "more than was granted",
        ),
        (
            vec![accepted(), closed(), accepted()],
            vec![],
            "an id that was used before",
        ),
    ] {
        let said = verdict(inputs, answers, None);
        assert!(said.contains(expected), "{expected}: {said}");
    }
    let said = verdict(vec![accepted()], vec![], Some(Instant(5)));
    assert!(said.contains("already due"), "{said}");
}
