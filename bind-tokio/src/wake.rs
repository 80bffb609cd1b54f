//! Which sockets are worth a system call.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Wake, Waker};

use meshward_core::id::LinkId;

use crate::driver::ProxyId;

/// A socket of a driver. May be stale: whoever takes it from a list looks it up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Token {
    Link(ProxyId, LinkId),
    Listener(u32),
}

/// The ready list of a driver: wakers of sockets push on it, one turn takes all of it.
#[derive(Debug, Default)]
pub(crate) struct Ready {
    list: Mutex<List>,
}

#[derive(Debug, Default)]
struct List {
    tokens: Vec<Token>,
    /// Somebody called `wake` since the last turn.
    rung: bool,
    /// The driver's task, known from its first turn on.
    task: Option<Waker>,
}

impl Ready {
    /// Swaps the list for the empty `into`, and remembers whom to wake when the next token comes. `true`: somebody called
    /// [`wake`](Self::wake) since the last time.
    pub(crate) fn take(&self, task: &Waker, into: &mut Vec<Token>) -> bool {
        let mut list = self.lock();
        if !list.task.as_ref().is_some_and(|t| t.will_wake(task)) {
            list.task = Some(task.clone());
        }
        std::mem::swap(&mut list.tokens, into);
        std::mem::take(&mut list.rung)
    }

    /// Wakes the driver without naming a socket.
    pub(crate) fn wake(&self) {
        let mut list = self.lock();
        list.rung = true;
        if let Some(task) = &list.task {
            task.wake_by_ref();
        }
    }

    /// A waker that names `token`; one allocation, made once per socket.
    pub(crate) fn waker(self: &Arc<Self>, token: Token) -> Waker {
        Waker::from(Arc::new(SocketWaker {
            ready: Arc::clone(self),
            token,
        }))
    }

    fn push(&self, token: Token) {
        let mut list = self.lock();
        list.tokens.push(token);
        // The first token since the last turn wakes the task, the others find it awake.
        if list.tokens.len() == 1
            && let Some(task) = &list.task
        {
            task.wake_by_ref();
        }
    }

    fn lock(&self) -> MutexGuard<'_, List> {
        self.list.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

struct SocketWaker {
    ready: Arc<Ready>,
    token: Token,
}

impl Wake for SocketWaker {
    fn wake(self: Arc<Self>) {
        self.ready.push(self.token);
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.ready.push(self.token);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[derive(Default)]
    struct Count(AtomicUsize);

    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[test]
    fn many_tokens_wake_the_driver_once_per_turn() {
        let (ready, count) = (Arc::new(Ready::default()), Arc::new(Count::default()));
        let task = Waker::from(Arc::clone(&count));
        let mut taken = Vec::new();
        assert!(!ready.take(&task, &mut taken));

        ready.waker(Token::Listener(1)).wake();
        ready.waker(Token::Listener(2)).wake();
        assert_eq!(count.0.load(Ordering::Relaxed), 1);

        assert!(!ready.take(&task, &mut taken), "nobody rang");
        assert_eq!(taken, [Token::Listener(1), Token::Listener(2)]);
        taken.clear();
        ready.waker(Token::Listener(3)).wake();
        assert_eq!(count.0.load(Ordering::Relaxed), 2);
        ready.wake();
        assert_eq!(count.0.load(Ordering::Relaxed), 3);
        assert!(ready.take(&task, &mut taken), "heard once");
        taken.clear();
        assert!(!ready.take(&task, &mut taken));
    }
}
