//! What sign-ins and second factors promise, as code: which calls succeed, and what follows from those that do.
//!
//! It knows nothing of tokens, hashes and tables. Texts of codes, passwords and proofs are judged, wherever a client has them from.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use drystone::auth::v1::FactorKind;
use drystone_mesh::{clock::Timestamp, error::Reason};
use totp_rs::Totp;
use uuid::Uuid;

/// The methods of authentication, as `amr` names them.
pub(super) const BY_PASSWORD: &str = "pwd";
pub(super) const BY_CODE: &str = "otp";
pub(super) const BY_PASSKEY: &str = "hwk";

const CHALLENGE_LIFETIME: Duration = Duration::from_mins(5);
const CONFIRM_TIMEOUT: Duration = Duration::from_mins(15);
const MAX_TRIES: u32 = 5;
/// After so many wrong codes somebody may have to wait.
const FREE_TRIES: u32 = 5;
const BACKUP_CODES: usize = 10;
const MAX_FACTORS: usize = 10;
const STEP: i64 = 30;

/// What is known of all accounts.
pub(super) struct Model {
    pub(super) users: [User; 2],
    /// Those that can still be tried, by their tokens.
    pub(super) challenges: BTreeMap<String, Challenge>,
    /// Those that have not ended.
    pub(super) sessions: BTreeMap<Uuid, Session>,
    /// What has served: steps of apps, backup codes, and challenges of passkeys.
    served: BTreeSet<String>,
}

pub(super) struct User {
    pub(super) id: Uuid,
    pub(super) email: String,
    pub(super) password: String,
    /// By id, which is the order of their age.
    pub(super) factors: BTreeMap<String, Factor>,
    pub(super) begun: Option<Begun>,
    /// Those that are left.
    pub(super) backup_codes: BTreeSet<String>,
    /// Since the last factor was removed.
    wrong_codes: u32,
}

pub(super) enum Factor {
    App(Totp),
    /// Which passkey of the test it is, and the counter of its last proof.
    Passkey {
        key: usize,
        counter: u32,
    },
}

/// An app that is not confirmed.
pub(super) struct Begun {
    pub(super) id: String,
    pub(super) app: Totp,
    expires_at: Timestamp,
}

pub(super) struct Challenge {
    pub(super) user: usize,
    tries: u32,
    expires_at: Timestamp,
}

pub(super) struct Session {
    pub(super) user: usize,
    methods: BTreeSet<&'static str>,
}

/// What a passkey has signed, or is asked to sign, a challenge for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Purpose {
    SignIn,
    Complete(String),
    Verify(Uuid),
}

/// A proof by a passkey.
#[derive(Debug, Clone)]
pub(super) struct Assertion {
    pub(super) key: usize,
    pub(super) purpose: Purpose,
    pub(super) challenge: String,
    pub(super) expires_at: Timestamp,
    /// `None`: the authenticator has none.
    pub(super) counter: Option<u32>,
    pub(super) text: String,
}

/// A passkey that was created for a session.
#[derive(Debug, Clone)]
pub(super) struct Registration {
    pub(super) key: usize,
    pub(super) session: Uuid,
    pub(super) challenge: String,
    pub(super) expires_at: Timestamp,
    pub(super) text: String,
}

#[derive(Debug, Clone)]
pub(super) enum Proof {
    Code(String),
    Backup(String),
    Passkey(Assertion),
}

/// What a right password leads to.
pub(super) enum First {
    Session,
    Challenge,
}

/// What a right proof uses up.
pub(super) enum FactorUse {
    Step(String),
    Backup(String),
    Passkey { factor: String, counter: Option<u32>, challenge: String },
}

impl FactorUse {
    pub(super) fn method(&self) -> &'static str {
        match self {
            Self::Step(_) | Self::Backup(_) => BY_CODE,
            Self::Passkey { .. } => BY_PASSKEY,
        }
    }
}

impl User {
    pub(super) fn new(id: Uuid, email: String, password: String) -> Self {
        let (factors, backup_codes) = (BTreeMap::new(), BTreeSet::new());
        Self { id, email, password, factors, begun: None, backup_codes, wrong_codes: 0 }
    }

    /// The kinds of factors that complete a sign-in.
    pub(super) fn kinds(&self) -> Vec<FactorKind> {
        let has = |is_app: bool| self.factors.values().any(|factor| matches!(factor, Factor::App(_)) == is_app);
        let kinds = [
            (has(true), FactorKind::Totp),
            (has(false), FactorKind::Passkey),
            (!self.backup_codes.is_empty(), FactorKind::BackupCode),
        ];
        kinds.into_iter().filter_map(|(has, kind)| has.then_some(kind)).collect()
    }

    fn has_room(&self) -> Result<(), Reason> {
        if self.factors.len() < MAX_FACTORS { Ok(()) } else { Err(Reason::TooManyFactors) }
    }

    fn has_passkey(&self) -> bool {
        self.kinds().contains(&FactorKind::Passkey)
    }

    /// The app and the step of a code that is valid now.
    fn step_of(&self, code: &str, now: Timestamp) -> Option<String> {
        self.factors.iter().find_map(|(id, factor)| {
            let Factor::App(app) = factor else { return None };
            step_of(app, code, now).map(|step| format!("{id} {step}"))
        })
    }
}

/// The step of a time.
pub(super) fn step_at(now: Timestamp) -> i64 {
    now.timestamp().div_euclid(STEP)
}

/// What an app shows in a step.
pub(super) fn code_in(app: &Totp, step: i64) -> String {
    app.generate((step * STEP).cast_unsigned()).to_string()
}

/// The step of a code, which may be off by one.
fn step_of(app: &Totp, code: &str, now: Timestamp) -> Option<i64> {
    let current = step_at(now);
    (current - 1..=current + 1).rev().find(|step| code_in(app, *step) == code)
}

impl Session {
    /// Whether a second factor was proved in it.
    pub(super) fn has_second_factor(&self) -> bool {
        self.methods.contains(BY_CODE) || self.methods.contains(BY_PASSKEY)
    }

    /// The claim of its tokens, sorted.
    pub(super) fn amr(&self) -> Vec<&'static str> {
        let mut names = self.methods.clone();
        let has_passkey = names.contains(BY_PASSKEY);
        if has_passkey {
            names.insert("user");
        }
        if has_passkey || names.contains(BY_PASSWORD) && names.contains(BY_CODE) {
            names.insert("mfa");
        }
        names.into_iter().collect()
    }
}

/// Which calls succeed, and why others do not.
impl Model {
    pub(super) fn new(users: [User; 2]) -> Self {
        Self { users, challenges: BTreeMap::new(), sessions: BTreeMap::new(), served: BTreeSet::new() }
    }

    pub(super) fn sign_in(&self, user: usize, password: &str) -> Result<First, Reason> {
        let user = &self.users[user];
        if password != user.password {
            return Err(Reason::InvalidCredentials);
        }
        Ok(if user.factors.is_empty() { First::Session } else { First::Challenge })
    }

    pub(super) fn complete(&self, token: &str, proof: &Proof, now: Timestamp) -> Result<(usize, FactorUse), Reason> {
        let user = self.challenged(token, now)?;
        Ok((user, self.judge(user, proof, &Purpose::Complete(token.to_owned()), now)?))
    }

    pub(super) fn sign_in_with_passkey(
        &self,
        assertion: &Assertion,
        now: Timestamp,
    ) -> Result<(usize, FactorUse), Reason> {
        self.judge_passkey(assertion, &Purpose::SignIn, now)
    }

    /// A password proves nothing more once there is a second factor.
    pub(super) fn verify_password(&self, session: Uuid, password: &str) -> Result<(), Reason> {
        let user = &self.users[self.sessions[&session].user];
        if !user.factors.is_empty() {
            return Err(Reason::SecondFactorRequired);
        }
        if password == user.password { Ok(()) } else { Err(Reason::InvalidCredentials) }
    }

    pub(super) fn verify(&self, session: Uuid, proof: &Proof, now: Timestamp) -> Result<FactorUse, Reason> {
        self.judge(self.sessions[&session].user, proof, &Purpose::Verify(session), now)
    }

    /// Factors and the password change in a session with a second factor only, if there is one.
    pub(super) fn may_change_factors(&self, session: Uuid) -> Result<usize, Reason> {
        let session = &self.sessions[&session];
        if session.has_second_factor() || self.users[session.user].factors.is_empty() {
            return Ok(session.user);
        }
        Err(Reason::SecondFactorRequired)
    }

    pub(super) fn begin_factor(&self, session: Uuid) -> Result<usize, Reason> {
        let user = self.may_change_factors(session)?;
        self.users[user].has_room().map(|()| user)
    }

    pub(super) fn confirm(&self, session: Uuid, id: &str, code: &str, now: Timestamp) -> Result<FactorUse, Reason> {
        let user = &self.users[self.may_change_factors(session)?];
        let begun = user.begun.as_ref().filter(|begun| begun.id == id && now < begun.expires_at);
        let begun = begun.ok_or(Reason::FactorNotFound)?;
        let step = step_of(&begun.app, code, now).ok_or(Reason::CodeInvalid)?;
        user.has_room()?;
        Ok(FactorUse::Step(format!("{id} {step}")))
    }

    pub(super) fn register(&self, session: Uuid, registration: &Registration, now: Timestamp) -> Result<(), Reason> {
        let user = self.may_change_factors(session)?;
        if registration.session != session || now >= registration.expires_at {
            return Err(Reason::PasskeyInvalid);
        }
        self.users[user].has_room()?;
        if self.served.contains(&registration.challenge) { Err(Reason::PasskeyInvalid) } else { Ok(()) }
    }

    pub(super) fn remove(&self, session: Uuid, id: &str) -> Result<usize, Reason> {
        let user = self.may_change_factors(session)?;
        if self.users[user].factors.contains_key(id) { Ok(user) } else { Err(Reason::FactorNotFound) }
    }

    pub(super) fn regenerate(&self, session: Uuid) -> Result<usize, Reason> {
        let user = self.may_change_factors(session)?;
        if self.users[user].factors.is_empty() { Err(Reason::NoSecondFactor) } else { Ok(user) }
    }

    pub(super) fn change_password(&self, session: Uuid, current: &str) -> Result<(), Reason> {
        self.may_change_factors(session)?;
        let is_right = current == self.users[self.sessions[&session].user].password;
        if is_right { Ok(()) } else { Err(Reason::InvalidCredentials) }
    }

    /// Whether a passkey is asked for.
    pub(super) fn may_ask(&self, purpose: &Purpose, now: Timestamp) -> Result<(), Reason> {
        let user = match purpose {
            Purpose::SignIn => return Ok(()),
            Purpose::Complete(token) => self.challenged(token, now)?,
            Purpose::Verify(session) => self.sessions[session].user,
        };
        if self.users[user].has_passkey() { Ok(()) } else { Err(Reason::NoSecondFactor) }
    }

    /// Whether somebody who tries a code of this user may be told to wait instead.
    pub(super) fn may_have_to_wait(&self, user: usize, proof: &Proof) -> bool {
        !matches!(proof, Proof::Passkey(_)) && self.users[user].wrong_codes >= FREE_TRIES
    }

    /// The user of a challenge that can be tried now.
    fn challenged(&self, token: &str, now: Timestamp) -> Result<usize, Reason> {
        let challenge = self.challenges.get(token);
        let challenge = challenge.filter(|challenge| challenge.tries < MAX_TRIES && now < challenge.expires_at);
        challenge.map(|challenge| challenge.user).ok_or(Reason::ChallengeInvalid)
    }

    fn judge(&self, user: usize, proof: &Proof, purpose: &Purpose, now: Timestamp) -> Result<FactorUse, Reason> {
        let found = match proof {
            Proof::Passkey(assertion) => {
                let (owner, found) = self.judge_passkey(assertion, purpose, now)?;
                return if owner == user { Ok(found) } else { Err(Reason::PasskeyInvalid) };
            }
            Proof::Code(code) => {
                self.users[user].step_of(code, now).filter(|step| !self.served.contains(step)).map(FactorUse::Step)
            }
            Proof::Backup(code) => self.users[user].backup_codes.get(code).cloned().map(FactorUse::Backup),
        };
        found.ok_or(Reason::CodeInvalid)
    }

    /// The owner of a passkey, and what its proof uses up.
    fn judge_passkey(
        &self,
        assertion: &Assertion,
        purpose: &Purpose,
        now: Timestamp,
    ) -> Result<(usize, FactorUse), Reason> {
        let (owner, factor, last) = self.passkey(assertion.key).ok_or(Reason::PasskeyUnknown)?;
        let Assertion { challenge, counter, expires_at, .. } = assertion;
        let is_right = assertion.purpose == *purpose
            && now < *expires_at
            && !self.served.contains(challenge)
            && counter.is_none_or(|counter| counter > last);
        let found = FactorUse::Passkey { factor, counter: *counter, challenge: challenge.clone() };
        if is_right { Ok((owner, found)) } else { Err(Reason::PasskeyInvalid) }
    }

    /// The user of a passkey, its factor, and its counter.
    fn passkey(&self, wanted: usize) -> Option<(usize, String, u32)> {
        self.users.iter().enumerate().find_map(|(owner, user)| {
            user.factors.iter().find_map(|(id, factor)| match factor {
                Factor::Passkey { key, counter } if *key == wanted => Some((owner, id.clone(), *counter)),
                _ => None,
            })
        })
    }
}

/// What follows from calls that have succeeded, and from wrong codes.
impl Model {
    pub(super) fn challenge(&mut self, token: String, user: usize, now: Timestamp) -> Timestamp {
        let expires_at = now + CHALLENGE_LIFETIME;
        self.challenges.insert(token, Challenge { user, tries: 0, expires_at });
        expires_at
    }

    pub(super) fn start_session(&mut self, id: Uuid, user: usize, methods: &[&'static str]) {
        self.sessions.insert(id, Session { user, methods: methods.iter().copied().collect() });
    }

    /// The methods of a session are those of the last proof, with the password of its sign-in.
    pub(super) fn raise_session(&mut self, id: Uuid, method: &'static str) {
        if let Some(session) = self.sessions.get_mut(&id) {
            session.methods.retain(|method| *method == BY_PASSWORD);
            session.methods.insert(method);
        }
    }

    /// Uses up a proof: none serves twice.
    pub(super) fn spend(&mut self, user: usize, found: FactorUse) {
        let once = match found {
            FactorUse::Step(step) => step,
            FactorUse::Backup(code) => {
                self.users[user].backup_codes.remove(&code);
                code
            }
            FactorUse::Passkey { factor, counter: now, challenge } => {
                if let (Some(now), Some(Factor::Passkey { counter, .. })) =
                    (now, self.users[user].factors.get_mut(&factor))
                {
                    *counter = now;
                }
                challenge
            }
        };
        assert!(self.served.insert(once.clone()), "{once} has served before");
    }

    /// A wrong code, of a challenge or a session.
    pub(super) fn refuse_code(&mut self, user: usize, challenge: Option<&str>) {
        self.users[user].wrong_codes += 1;
        if let Some(challenge) = challenge {
            self.refuse_passkey(challenge);
        }
    }

    /// A wrong passkey is a try of its challenge alone: it makes nobody wait.
    pub(super) fn refuse_passkey(&mut self, challenge: &str) {
        if let Some(challenge) = self.challenges.get_mut(challenge) {
            challenge.tries += 1;
        }
    }

    pub(super) fn begin(&mut self, user: usize, id: String, app: Totp, now: Timestamp) {
        self.users[user].begun = Some(Begun { id, app, expires_at: now + CONFIRM_TIMEOUT });
    }

    /// With the first factor there are backup codes, and the other sessions end.
    pub(super) fn add(&mut self, session: Uuid, id: String, factor: Factor, backup_codes: &[String]) {
        let user = self.sessions[&session].user;
        let is_first = self.users[user].factors.is_empty();
        assert_eq!(backup_codes.len(), if is_first { BACKUP_CODES } else { 0 });
        if is_first {
            self.end_other_sessions(session);
            self.users[user].backup_codes = backup_codes.iter().cloned().collect();
        }
        self.users[user].factors.insert(id, factor);
    }

    pub(super) fn use_registration(&mut self, registration: &Registration) {
        self.served.insert(registration.challenge.clone());
    }

    /// With the last factor everything else goes that belongs to second factors.
    pub(super) fn remove_factors(&mut self, user: usize, id: Option<&str>) {
        let account = &mut self.users[user];
        account.factors.retain(|factor, _| id.is_some_and(|id| factor != id));
        if account.factors.is_empty() {
            account.backup_codes.clear();
            (account.begun, account.wrong_codes) = (None, 0);
            self.void_challenges(user);
        }
    }

    pub(super) fn replace_backup_codes(&mut self, user: usize, backup_codes: &[String]) {
        assert_eq!(backup_codes.len(), BACKUP_CODES);
        self.users[user].backup_codes = backup_codes.iter().cloned().collect();
    }

    pub(super) fn set_password(&mut self, session: Uuid, password: &str) {
        let user = self.sessions[&session].user;
        password.clone_into(&mut self.users[user].password);
        self.end_other_sessions(session);
        self.void_challenges(user);
    }

    fn end_other_sessions(&mut self, session: Uuid) {
        let user = self.sessions[&session].user;
        self.sessions.retain(|id, other| *id == session || other.user != user);
    }

    fn void_challenges(&mut self, user: usize) {
        self.challenges.retain(|_, challenge| challenge.user != user);
    }
}
