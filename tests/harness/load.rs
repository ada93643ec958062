//! A steady load: people who do what people do, again and again, and remember what they were told.
//!
//! Whatever was acknowledged has to be there afterwards ([`Outcome::assert_kept`]), and whatever was refused has to have
//! been refused in order ([`Outcome::assert_refused_in_order`]).

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use tokio::task::JoinHandle;

use self::person::Person;
use crate::{Answer, Call, Front, wait};

mod person;

/// How long somebody thinks between two calls: the load leaves room for what is under test.
const THINKING: Duration = Duration::from_millis(10);
/// How long somebody waits who was refused. What the answer advises is longer, and would show less of an outage.
const REFUSED: Duration = Duration::from_millis(50);

/// People at work, until they are told to go home.
#[derive(Debug)]
pub struct Load {
    ledger: Ledger,
    over: Arc<AtomicBool>,
    people: Vec<JoinHandle<Person>>,
}

/// What became of a load.
#[derive(Debug)]
pub struct Outcome {
    people: Vec<Person>,
    /// Every call.
    pub calls: Vec<Done>,
}

/// A call that has been answered, or has failed.
#[derive(Debug, Clone)]
pub struct Done {
    /// What was to be done.
    pub what: &'static str,
    /// When it was begun.
    pub begun: Instant,
    /// When it was answered.
    pub ended: Instant,
    /// The HTTP status; 0 if there was no whole answer.
    pub status: u16,
    /// The reason of a refusal.
    pub reason: String,
    /// After how many seconds to come back.
    pub retry_after: Option<u32>,
    /// What else there is to say of a refusal.
    pub text: String,
}

/// All calls of a load. Clones are the same.
#[derive(Debug, Clone, Default)]
struct Ledger(Arc<Mutex<Vec<Done>>>);

impl Load {
    /// So many people, all signed in, begin.
    pub async fn start(front: &Front, count: usize) -> Self {
        let (ledger, over) = (Ledger::default(), Arc::new(AtomicBool::new(false)));
        let mut people = Vec::new();
        for _ in 0..count {
            let mut person = Person::signed_in(front.clone(), ledger.clone()).await;
            let over = over.clone();
            people.push(tokio::spawn(async move {
                while !over.load(Ordering::Relaxed) {
                    let went_well = person.does_something().await;
                    tokio::time::sleep(if went_well { THINKING } else { REFUSED }).await;
                }
                person
            }));
        }
        let this = Self { ledger, over, people };
        // Everybody has done everything once.
        this.until_served("the load has begun", 20 * count).await;
        this
    }

    /// Waits until so many more calls have been answered as they should, and none after the first of these has not.
    pub async fn until_served(&self, what: &str, count: usize) {
        let mut seen = self.ledger.lock().len();
        let mut served = 0;
        wait::until(what, async || {
            let ledger = self.ledger.lock();
            for done in &ledger[seen..] {
                served = if done.is_refusal() { 0 } else { served + 1 };
            }
            seen = ledger.len();
            (served >= count).then_some(())
        })
        .await;
    }

    /// Waits until so many more calls have been refused.
    pub async fn until_refused(&self, what: &str, count: usize) {
        let before = self.refused();
        wait::until(what, async || (self.refused() >= before + count).then_some(())).await;
    }

    /// How many calls have been refused so far.
    #[must_use]
    pub fn refused(&self) -> usize {
        self.ledger.lock().iter().filter(|done| done.is_refusal()).count()
    }

    /// Ends it: each finishes what they are at.
    ///
    /// # Panics
    /// If one of them met what must not be.
    pub async fn stop(self) -> Outcome {
        self.over.store(true, Ordering::Relaxed);
        let mut people = Vec::new();
        for person in self.people {
            people.push(person.await.expect("nobody met what must not be"));
        }
        let calls = self.ledger.lock().clone();
        Outcome { people, calls }
    }
}

impl Outcome {
    /// The calls that were not answered as they should.
    pub fn refusals(&self) -> impl Iterator<Item = &Done> {
        self.calls.iter().filter(|done| done.is_refusal())
    }

    /// Asserts that every call was answered as it should be.
    #[track_caller]
    pub fn assert_all_served(&self) {
        let refusals: Vec<_> = self.refusals().collect();
        assert!(refusals.is_empty(), "{} of {}: {refusals:#?}", refusals.len(), self.calls.len());
    }

    /// Asserts that whoever was refused was told to come back and when: UNAVAILABLE or RESOURCE_EXHAUSTED, with advice.
    #[track_caller]
    pub fn assert_refused_in_order(&self) {
        let is_in_order = |done: &&Done| {
            let is_known = matches!(
                (done.status, &*done.reason),
                (503, "UNAVAILABLE") | (429, "OVERLOADED") | (507, "DATABASE_FULL")
            );
            is_known && done.retry_after.is_some_and(|seconds| seconds >= 1)
        };
        let invalid: Vec<_> = self.refusals().filter(|done| !is_in_order(done)).collect();
        assert!(invalid.is_empty(), "{} of {}: {invalid:#?}", invalid.len(), self.calls.len());
    }

    /// Takes no account of sessions whose end was on its way at this moment: a store that lost everything then lost them
    /// before anybody had heard of it.
    pub fn forget_ends_at(&mut self, moment: Instant) {
        for person in &mut self.people {
            person.forget_ends_at(moment);
        }
    }

    /// Asserts that all that was acknowledged is there, and nothing twice. Where sessions have been lost, people have
    /// signed in again.
    pub async fn assert_kept(&mut self) {
        for person in &mut self.people {
            person.assert_kept().await;
        }
    }

    /// What was done how often, and how it was answered; the slowest answer, and the slowest refusal.
    #[must_use]
    pub fn summary(&self) -> String {
        let mut counts = BTreeMap::<_, usize>::new();
        for done in &self.calls {
            *counts.entry((done.status, &*done.reason, done.what)).or_default() += 1;
        }
        let slowest = |refused: bool| {
            let times = self.calls.iter().filter(|done| done.is_refusal() == refused);
            times.map(|done| done.ended - done.begun).max().unwrap_or_default()
        };
        format!(
            "{} calls, slowest {:?}, slowest refusal {:?}: {counts:?}",
            self.calls.len(),
            slowest(false),
            slowest(true)
        )
    }
}

impl Done {
    /// Whether something kept the call from being answered as it should be.
    #[must_use]
    pub fn is_refusal(&self) -> bool {
        self.status == 0 || self.status >= 500 || self.status == 429
    }
}

impl Ledger {
    /// Makes a call and writes down what came of it; `None` if it was not served.
    async fn call(&self, front: &Front, what: &'static str, call: Call) -> Option<Answer> {
        let begun = Instant::now();
        let answer = front.try_send(call).await;
        let ended = Instant::now();
        let mut done =
            Done { what, begun, ended, status: 0, reason: String::new(), retry_after: None, text: String::new() };
        match &answer {
            Ok(answer) => {
                done.status = answer.status;
                if answer.status >= 400 {
                    done.reason = answer.reason();
                    done.retry_after = answer.header("retry-after").parse().ok();
                    done.text = format!("{} {}", answer.header("x-request-id"), answer.text());
                }
            }
            Err(error) => done.text = error.to_string(),
        }
        let is_refusal = done.is_refusal();
        self.lock().push(done);
        answer.ok().filter(|_| !is_refusal)
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Done>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
