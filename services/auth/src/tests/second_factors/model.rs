//! Random sequences of sign-ins and changes of second factors, compared with `model/specification.rs` after each step.
//!
//! Two users and two devices. A client keeps everything that it was ever given, codes and proofs of both users as well, and sends any of
//! it anywhere: used, expired, of somebody else, or for something else. The specification says of each call whether it succeeds; the
//! claims of each token, the sessions and the factors have to be as it says.

mod calls;
mod specification;

use std::{collections::BTreeMap, time::Duration};

use drystone_mesh::clock::Timestamp;
use drystone_testing::Passkey;
use proptest::{prelude::*, sample::Index};
use tokio::runtime::Builder;
use totp_rs::Totp;
use uuid::Uuid;

use self::{
    calls::{Call, sorted},
    specification::{Assertion, Model, Proof, Purpose, User, code_in, step_at},
};
use super::WRONG;
use crate::{
    Config,
    config::PasskeyConfig,
    tests::{
        fixture::{Fixture, PASSWORD, fast_hashing},
        running::Running,
    },
};

const ORIGIN: &str = "https://app.example.com";
const WRONG_BACKUP_CODE: &str = "0000-0000-0000";

/// One of what a client has: often the newest.
#[derive(Debug, Clone)]
struct Pick {
    is_newest: bool,
    index: Index,
}

impl Pick {
    fn of<T: Clone>(&self, all: &[T]) -> Option<T> {
        if self.is_newest || all.is_empty() { all.last().cloned() } else { Some(self.index.get(all).clone()) }
    }
}

/// What a second factor is proved by. `drift` is in steps.
#[derive(Debug, Clone)]
enum Choice {
    Code {
        app: Pick,
        drift: i64,
    },
    WrongCode,
    Backup(Pick),
    WrongBackup,
    /// What has served before.
    Again(Pick),
    Passkey(PasskeyChoice),
}

#[derive(Debug, Clone)]
enum PasskeyChoice {
    Fresh(Pick),
    /// A proof for something else.
    Elsewhere(Pick),
    /// Any proof from before.
    Replay(Pick),
}

#[derive(Debug, Clone)]
enum Operation {
    SignIn {
        user: usize,
        is_right: bool,
        device: Option<usize>,
    },
    Complete {
        challenge: Pick,
        choice: Choice,
    },
    /// As many wrong codes as a challenge has tries, and one more.
    Guess(Pick),
    SignInWithPasskey {
        choice: PasskeyChoice,
        device: Option<usize>,
    },
    VerifyPassword {
        session: Pick,
        is_right: bool,
    },
    Verify {
        session: Pick,
        choice: Choice,
    },
    AddApp(Pick),
    Begin(Pick),
    /// In the session that has begun, or another one.
    Confirm {
        session: Option<Pick>,
        drift: i64,
    },
    Register {
        session: Pick,
        sender: Option<Pick>,
        has_counter: bool,
    },
    Remove {
        session: Pick,
        factor: Pick,
    },
    Disable(Pick),
    Regenerate(Pick),
    ChangePassword {
        session: Pick,
        is_right: bool,
    },
    Advance {
        seconds: u64,
    },
    Retry,
}

fn pick() -> impl Strategy<Value = Pick> {
    (prop::bool::weighted(0.7), any::<Index>()).prop_map(|(is_newest, index)| Pick { is_newest, index })
}

fn drift() -> impl Strategy<Value = i64> {
    prop_oneof![6 => Just(0_i64), 2 => Just(1), 1 => Just(-1), 1 => Just(2), 1 => Just(-2)]
}

fn choice() -> impl Strategy<Value = Choice> {
    prop_oneof![
        6 => (pick(), drift()).prop_map(|(app, drift)| Choice::Code { app, drift }),
        1 => Just(Choice::WrongCode),
        3 => pick().prop_map(Choice::Backup),
        1 => Just(Choice::WrongBackup),
        2 => pick().prop_map(Choice::Again),
        5 => passkey_choice().prop_map(Choice::Passkey),
    ]
}

fn passkey_choice() -> impl Strategy<Value = PasskeyChoice> {
    prop_oneof![
        5 => pick().prop_map(PasskeyChoice::Fresh),
        1 => pick().prop_map(PasskeyChoice::Elsewhere),
        2 => pick().prop_map(PasskeyChoice::Replay),
    ]
}

fn operations() -> impl Strategy<Value = Vec<Operation>> {
    // The first user more often, so that much happens to one account.
    let user = || prop_oneof![3 => Just(0_usize), 1 => Just(1)];
    let device = || prop::option::of(0..2_usize);
    let is_right = || prop::bool::weighted(0.8);
    let operation = prop_oneof![
        8 => (user(), is_right(), device())
            .prop_map(|(user, is_right, device)| Operation::SignIn { user, is_right, device }),
        10 => (pick(), choice()).prop_map(|(challenge, choice)| Operation::Complete { challenge, choice }),
        1 => pick().prop_map(Operation::Guess),
        3 => (passkey_choice(), device()).prop_map(|(choice, device)| Operation::SignInWithPasskey { choice, device }),
        2 => (pick(), is_right()).prop_map(|(session, is_right)| Operation::VerifyPassword { session, is_right }),
        5 => (pick(), choice()).prop_map(|(session, choice)| Operation::Verify { session, choice }),
        4 => pick().prop_map(Operation::AddApp),
        1 => pick().prop_map(Operation::Begin),
        2 => (prop::option::weighted(0.3, pick()), drift())
            .prop_map(|(session, drift)| Operation::Confirm { session, drift }),
        4 => (pick(), prop::option::weighted(0.2, pick()), any::<bool>())
            .prop_map(|(session, sender, has_counter)| Operation::Register { session, sender, has_counter }),
        1 => (pick(), pick()).prop_map(|(session, factor)| Operation::Remove { session, factor }),
        1 => pick().prop_map(Operation::Disable),
        1 => pick().prop_map(Operation::Regenerate),
        1 => (pick(), is_right()).prop_map(|(session, is_right)| Operation::ChangePassword { session, is_right }),
        7 => prop_oneof![3 => 1..60_u64, 2 => 60..=600_u64].prop_map(|seconds| Operation::Advance { seconds }),
        3 => Just(Operation::Retry),
    ];
    prop::collection::vec(operation, 1..=40)
}

/// A passkey, and the counter of its last proof, if it has one.
struct Key {
    passkey: Passkey,
    counter: Option<u32>,
}

/// The service, the specification, and what clients have kept.
struct World<'a> {
    running: &'a Running,
    model: Model,
    /// Of each session.
    refresh_tokens: BTreeMap<Uuid, String>,
    /// The device tokens.
    devices: [String; 2],
    former_passwords: Vec<String>,
    /// With the device of the sign-in.
    challenges: Vec<(String, Option<usize>)>,
    /// The app that was begun last, and the session in which.
    begun: Option<(Uuid, String, Totp)>,
    apps: Vec<Totp>,
    keys: Vec<Key>,
    /// The ids of all factors.
    factors: Vec<String>,
    backup_codes: Vec<String>,
    assertions: Vec<Assertion>,
    /// Those that have served.
    proofs: Vec<Proof>,
    last: Option<Call>,
}

impl<'a> World<'a> {
    /// With users of its own.
    async fn new(running: &'a Running) -> Self {
        let users = [Self::register_user(running).await, Self::register_user(running).await];
        Self {
            running,
            model: Model::new(users),
            refresh_tokens: BTreeMap::new(),
            devices: [String::new(), String::new()],
            former_passwords: vec!["wrong horse".to_owned()],
            challenges: Vec::new(),
            begun: None,
            apps: Vec::new(),
            keys: Vec::new(),
            factors: Vec::new(),
            backup_codes: Vec::new(),
            assertions: Vec::new(),
            proofs: Vec::new(),
            last: None,
        }
    }

    async fn register_user(running: &Running) -> User {
        let email = format!("ada.{}@example.com", Uuid::now_v7().simple());
        let registered = running.fixture.register(&email, PASSWORD, "").await.unwrap();
        let id: Uuid = registered.id.parse().unwrap();
        running.fixture.upstreams.state().users.get_mut(&id).unwrap().email_verified = true;
        User::new(id, email, PASSWORD.to_owned())
    }

    fn now(&self) -> Timestamp {
        self.running.fixture.clock.now()
    }

    async fn run(&mut self, operation: &Operation) {
        match operation {
            Operation::Advance { seconds } => self.running.fixture.clock.advance(Duration::from_secs(*seconds)),
            Operation::Retry => {
                if let Some(last) = self.last.clone() {
                    self.perform(last).await;
                }
            }
            Operation::Guess(pick) => {
                let Some((challenge, device)) = pick.of(&self.challenges) else { return };
                for _ in 0..6 {
                    let (challenge, proof) = (challenge.clone(), Proof::Code(WRONG.to_owned()));
                    self.perform(Call::Complete { challenge, proof, device }).await;
                }
            }
            Operation::AddApp(session) => {
                let Some(session) = self.session(session) else { return };
                self.perform(Call::Begin { session }).await;
                if let Some(call) = self.confirmation(None, 0) {
                    self.perform(call).await;
                }
            }
            Operation::SignIn { .. } | Operation::Complete { .. } | Operation::SignInWithPasskey { .. } => {
                if let Some(call) = self.sign_in_call(operation).await {
                    self.perform(call).await;
                }
            }
            _ => {
                if let Some(call) = self.session_call(operation).await {
                    self.perform(call).await;
                }
            }
        }
    }

    /// A call without a session; `None` if the client lacks what it needs.
    async fn sign_in_call(&mut self, operation: &Operation) -> Option<Call> {
        match operation {
            Operation::SignIn { user, is_right, device } => {
                let password = self.password(*user, *is_right);
                Some(Call::SignIn { user: *user, password, device: *device })
            }
            Operation::Complete { challenge, choice } => {
                let (challenge, device) = challenge.of(&self.challenges)?;
                let proof = self.proof(choice, Purpose::Complete(challenge.clone()), Purpose::SignIn).await?;
                Some(Call::Complete { challenge, proof, device })
            }
            Operation::SignInWithPasskey { choice, device } => {
                let elsewhere = self.challenges.last().map(|(token, _)| Purpose::Complete(token.clone()));
                let elsewhere = elsewhere.unwrap_or(Purpose::SignIn);
                let assertion = self.assertion(choice, Purpose::SignIn, elsewhere).await?;
                Some(Call::SignInWithPasskey { assertion, device: *device })
            }
            _ => None,
        }
    }

    /// A call in a session; `None` if there is none, or the client lacks what it needs.
    async fn session_call(&mut self, operation: &Operation) -> Option<Call> {
        Some(match operation {
            Operation::VerifyPassword { session, is_right } => {
                let session = self.session(session)?;
                Call::VerifyPassword { session, password: self.password(self.user(session), *is_right) }
            }
            Operation::Verify { session, choice } => {
                let session = self.session(session)?;
                let proof = self.proof(choice, Purpose::Verify(session), Purpose::SignIn).await?;
                Call::Verify { session, proof }
            }
            Operation::Begin(session) => Call::Begin { session: self.session(session)? },
            Operation::Confirm { session, drift } => self.confirmation(session.as_ref(), *drift)?,
            Operation::Register { session, sender, has_counter } => {
                let session = self.session(session)?;
                let sender = sender.as_ref().and_then(|sender| self.session(sender)).unwrap_or(session);
                Call::Register { session: sender, registration: self.create(session, *has_counter).await? }
            }
            Operation::Remove { session, factor } => {
                let (session, id) = (self.session(session)?, factor.of(&self.factors)?);
                // Where there is none, the call is refused and yet forgets an app that was begun, which nothing promises.
                if self.model.users[self.user(session)].factors.is_empty() {
                    return None;
                }
                Call::Remove { session, id }
            }
            Operation::Disable(session) => Call::Disable { session: self.session(session)? },
            Operation::Regenerate(session) => Call::Regenerate { session: self.session(session)? },
            Operation::ChangePassword { session, is_right } => {
                let session = self.session(session)?;
                let current = self.password(self.user(session), *is_right);
                let new = format!("a new horse in the stable, number {}", self.former_passwords.len());
                Call::ChangePassword { session, current, new }
            }
            _ => return None,
        })
    }

    /// A session that has not ended.
    fn session(&self, pick: &Pick) -> Option<Uuid> {
        pick.of(&self.model.sessions.keys().copied().collect::<Vec<_>>())
    }

    fn user(&self, session: Uuid) -> usize {
        self.model.sessions[&session].user
    }

    fn password(&self, user: usize, is_right: bool) -> String {
        let right = &self.model.users[user].password;
        if is_right { right.clone() } else { self.former_passwords.last().unwrap_or(right).clone() }
    }

    fn confirmation(&self, session: Option<&Pick>, drift: i64) -> Option<Call> {
        let (begun_in, id, app) = self.begun.clone()?;
        let session = session.and_then(|session| self.session(session)).unwrap_or(begun_in);
        Some(Call::Confirm { session, id, code: code_in(&app, step_at(self.now()) + drift) })
    }

    async fn proof(&mut self, choice: &Choice, purpose: Purpose, elsewhere: Purpose) -> Option<Proof> {
        Some(match choice {
            Choice::Code { app, drift } => Proof::Code(code_in(&app.of(&self.apps)?, step_at(self.now()) + drift)),
            Choice::WrongCode => Proof::Code(WRONG.to_owned()),
            Choice::Backup(code) => Proof::Backup(code.of(&self.backup_codes)?),
            Choice::WrongBackup => Proof::Backup(WRONG_BACKUP_CODE.to_owned()),
            Choice::Again(proof) => proof.of(&self.proofs)?,
            Choice::Passkey(choice) => Proof::Passkey(self.assertion(choice, purpose, elsewhere).await?),
        })
    }

    async fn assertion(&mut self, choice: &PasskeyChoice, purpose: Purpose, elsewhere: Purpose) -> Option<Assertion> {
        let keys: Vec<usize> = (0..self.keys.len()).collect();
        match choice {
            PasskeyChoice::Fresh(key) => self.sign(key.of(&keys)?, purpose).await,
            PasskeyChoice::Elsewhere(key) => self.sign(key.of(&keys)?, elsewhere).await,
            PasskeyChoice::Replay(assertion) => assertion.of(&self.assertions),
        }
    }

    /// Factors, backup codes and sessions are those of the specification: also a call that is refused leaves nothing else behind.
    async fn check(&self) {
        // The end of sessions is delivered, and nothing is under way when the clock advances.
        self.running.settle().await;
        let fixture = &self.running.fixture;
        for user in &self.model.users {
            let stored = fixture.store.confirmed_factors(user.id).await.unwrap();
            let stored: Vec<String> = stored.iter().map(|stored| stored.factor.id.to_string()).collect();
            assert_eq!(stored, user.factors.keys().cloned().collect::<Vec<_>>());
            let left = fixture.store.backup_codes_left(user.id).await.unwrap();
            assert_eq!(usize::try_from(left), Ok(user.backup_codes.len()));
        }
        let state = fixture.upstreams.state();
        let is_here = |id: Uuid| self.model.users.iter().any(|user| user.id == id);
        let started = state.sessions.values().filter(|session| is_here(session.user_id));
        let started: BTreeMap<Uuid, Vec<&str>> =
            started.map(|session| (session.session_id, sorted(&session.amr))).collect();
        let expected = self.model.sessions.iter().map(|(id, session)| (*id, session.amr()));
        assert_eq!(started, expected.collect::<BTreeMap<_, _>>());
    }
}

async fn start() -> Running {
    let origins = vec![ORIGIN.to_owned()];
    let passkeys = PasskeyConfig { rp_id: "example.com".to_owned(), rp_name: String::new(), origins };
    Running::of(Fixture::new().await.restart(Config { passkeys, ..fast_hashing() }).await)
}

async fn matches_the_model(running: &Running, operations: &[Operation]) {
    let mut world = World::new(running).await;
    for user in 0..2 {
        world.perform(Call::SignIn { user, password: PASSWORD.to_owned(), device: Some(user) }).await;
    }
    for operation in operations {
        world.run(operation).await;
        world.check().await;
    }
}

#[test]
fn sign_ins_and_factors_match_the_model() {
    let runtime = Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let running = runtime.block_on(start());
    // Few, since each is a sequence of some hundred transactions.
    let config = ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() };
    proptest!(config, |(operations in operations())| {
        runtime.block_on(matches_the_model(&running, &operations));
    });
    runtime.block_on(running.stop());
}
