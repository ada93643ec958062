//! Changes of access rules between two sets of contracts: what became looser, and what stricter.

use std::{sync::Arc, time::Duration};

use crate::{
    Idempotency, Method, Subject,
    method::{ANY, ENTRY_POINTS, Factors, OUTSIDE},
};

/// The maximum deadline of a unary call without one in its policy, as servers have it by default.
const DEFAULT_MAX_DEADLINE: Duration = Duration::from_mins(1);

/// What an absent value is called.
const NONE: &str = "none";

/// One change of an access rule, or of what an RPC exposes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AccessChange {
    /// Whether it is looser now.
    pub direction: Direction,
    /// The RPC, `package.Service/Method`.
    pub rpc: String,
    /// What has changed, such as `caller added: outside`. The text identifies the change.
    pub what: String,
    /// Who gains the RPC if it is looser, or loses it if it is stricter.
    pub who: String,
}

/// The direction of a change.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Direction {
    /// More calls are allowed, or calls are recorded, counted or bounded less.
    Looser,
    /// Fewer calls are allowed.
    Stricter,
}

/// The changes from `old` to `new`: looser ones first, and then by RPC.
#[must_use]
pub fn access_changes(old: &[Arc<Method>], new: &[Arc<Method>]) -> Vec<AccessChange> {
    let find = |methods: &[Arc<Method>], path: &str| methods.iter().find(|method| *method.path == *path).cloned();
    let mut changes = Vec::new();
    for method in new {
        let mut comparison = Comparison { rpc: &method.path[1..], changes: &mut changes };
        match find(old, &method.path) {
            Some(before) => comparison.compare(&before, method),
            None => comparison.add(Direction::Looser, added(method), everybody(method)),
        }
    }
    for method in old.iter().filter(|method| find(new, &method.path).is_none()) {
        let mut comparison = Comparison { rpc: &method.path[1..], changes: &mut changes };
        comparison.add(Direction::Stricter, "RPC removed".to_owned(), everybody(method));
    }
    // Stable, so that the changes of an RPC stay in the order of its parts.
    changes.sort_by(|a, b| (a.direction, &a.rpc).cmp(&(b.direction, &b.rpc)));
    changes
}

/// What an added RPC allows, so that another rule is another change.
fn added(method: &Method) -> String {
    let mut parts =
        vec![format!("callers {}", method.callers.join(", ")), format!("subject {}", method.subject.name())];
    parts.extend(method.permission.as_ref().map(|permission| format!("permission {permission}")));
    parts.extend(method.factors.map(|factors| format!("factors {}", factors.name())));
    parts.extend(method.max_auth_age.map(|age| format!("max_auth_age {}", seconds(Some(age)))));
    parts.extend(method.fresh_revocations.then(|| "fresh_revocations".to_owned()));
    parts.extend(method.rest.iter().map(|path| format!("REST {path}")));
    format!("RPC added: {}", parts.join("; "))
}

/// Everybody who may call.
fn everybody(method: &Method) -> String {
    let user = match method.subject {
        Subject::None => "without a user",
        Subject::User => "for a user",
        Subject::UserOrOperator => "for a user, or as the operator",
    };
    let callers: Vec<String> = method.callers.iter().map(|caller| workloads(caller)).collect();
    format!("{} ({user})", callers.join(", "))
}

/// The workloads that a caller of a rule means.
fn workloads(caller: &str) -> String {
    match caller {
        OUTSIDE => ENTRY_POINTS.join(", "),
        ANY => "every workload except edge, ingress and operator".to_owned(),
        name => name.to_owned(),
    }
}

/// Whether a rule with these callers allows everything that `caller` means.
fn covers(method: &Method, caller: &str) -> bool {
    match caller {
        OUTSIDE => ENTRY_POINTS.iter().all(|name| method.allows(name)),
        ANY => method.callers.iter().any(|other| other == ANY),
        name => method.allows(name),
    }
}

/// Collects the changes of one RPC.
struct Comparison<'a> {
    rpc: &'a str,
    changes: &'a mut Vec<AccessChange>,
}

impl Comparison<'_> {
    fn add(&mut self, direction: Direction, what: String, who: String) {
        self.changes.push(AccessChange { direction, rpc: self.rpc.to_owned(), what, who });
    }

    fn compare(&mut self, old: &Method, new: &Method) {
        self.workload(&old.workload, &new.workload);
        self.callers(old, new);
        self.subject(old.subject, new.subject);
        self.permission(old.permission.as_deref(), new.permission.as_deref());
        let who = "users who have proved less";
        self.ordered(
            "factors",
            old.factors,
            new.factors,
            |factors| factors.map_or(NONE, Factors::name).to_owned(),
            who,
        );
        // Less is stricter, and none is the loosest.
        let age = |age: Option<Duration>| std::cmp::Reverse(age.unwrap_or(Duration::MAX));
        let text = |age: std::cmp::Reverse<Duration>| seconds(Some(age.0).filter(|age| *age != Duration::MAX));
        let who = "users who authenticated longer ago";
        self.ordered("max_auth_age", age(old.max_auth_age), age(new.max_auth_age), text, who);
        let text = |fresh: bool| fresh.to_string();
        let who = "users whose session may have ended, while a server does not hear of revocations";
        self.ordered("fresh_revocations", old.fresh_revocations, new.fresh_revocations, text, who);
        let text = |audit: Option<crate::Audit>| audit.map_or(NONE, crate::Audit::name).to_owned();
        self.ordered("audit", old.audit, new.audit, text, "every caller: calls leave another record");
        self.limit(old.policy.limit.as_deref(), new.policy.limit.as_deref());
        let deadline = |method: &Method| {
            let default = if method.is_streaming() { Duration::MAX } else { DEFAULT_MAX_DEADLINE };
            std::cmp::Reverse(method.policy.deadline.max.unwrap_or(default))
        };
        let text = |max: std::cmp::Reverse<Duration>| seconds(Some(max.0).filter(|max| *max != Duration::MAX));
        self.ordered("max deadline", deadline(old), deadline(new), text, "every caller: calls may take another time");
        let age = |method: &Method| std::cmp::Reverse(method.policy.cache_max_age.unwrap_or_default());
        let text = |age: std::cmp::Reverse<Duration>| seconds(Some(age.0).filter(|age| !age.is_zero()));
        self.ordered("cache_max_age", age(old), age(new), text, "shared caches, and web pages of any origin");
        self.idempotency(old.idempotency, new.idempotency);
        self.rest(old, new);
    }

    /// Compares values of which a greater one is stricter.
    fn ordered<T: Copy + Ord>(&mut self, part: &str, old: T, new: T, text: impl Fn(T) -> String, who: &str) {
        let direction = match new.cmp(&old) {
            std::cmp::Ordering::Less => Direction::Looser,
            std::cmp::Ordering::Equal => return,
            std::cmp::Ordering::Greater => Direction::Stricter,
        };
        self.add(direction, format!("{part}: {} -> {}", text(old), text(new)), who.to_owned());
    }

    /// The new workload receives the calls, and the tokens of their users.
    fn workload(&mut self, old: &str, new: &str) {
        if old != new {
            self.add(
                Direction::Looser,
                format!("workload: {old} -> {new}"),
                format!("{new}, which receives the calls"),
            );
        }
    }

    /// Clients retry calls that are idempotent or have no side effects, alike.
    fn idempotency(&mut self, old: Idempotency, new: Idempotency) {
        let is_retried = |idempotency| idempotency != Idempotency::Unknown;
        let direction = match (is_retried(old), is_retried(new)) {
            (false, true) => Direction::Looser,
            (true, false) => Direction::Stricter,
            _ => return,
        };
        let what = format!("idempotency: {} -> {}", old.name(), new.name());
        self.add(direction, what, "every caller: clients retry calls or do not".to_owned());
    }

    fn callers(&mut self, old: &Method, new: &Method) {
        for caller in new.callers.iter().filter(|caller| !covers(old, caller)) {
            self.add(Direction::Looser, format!("caller added: {caller}"), workloads(caller));
        }
        for caller in old.callers.iter().filter(|caller| !covers(new, caller)) {
            self.add(Direction::Stricter, format!("caller removed: {caller}"), workloads(caller));
        }
    }

    fn subject(&mut self, old: Subject, new: Subject) {
        let strictness = |subject| match subject {
            Subject::None => 0,
            Subject::UserOrOperator => 1,
            Subject::User => 2,
        };
        let without_user = old == Subject::None || new == Subject::None;
        let who = if without_user { "callers without a user" } else { "the operator without a user" };
        let direction = match strictness(new).cmp(&strictness(old)) {
            std::cmp::Ordering::Less => Direction::Looser,
            std::cmp::Ordering::Equal => return,
            std::cmp::Ordering::Greater => Direction::Stricter,
        };
        self.add(direction, format!("subject: {} -> {}", old.name(), new.name()), who.to_owned());
    }

    fn permission(&mut self, old: Option<&str>, new: Option<&str>) {
        if old == new {
            return;
        }
        let what = format!("permission: {} -> {}", old.unwrap_or(NONE), new.unwrap_or(NONE));
        // Who has `RESOURCE:ACTION:any` has `RESOURCE:ACTION:own`.
        let includes = |held: &str, required: &str| {
            held == required
                || held.strip_suffix(":any").is_some_and(|held| required.strip_suffix(":own") == Some(held))
        };
        if let Some(old) = old
            && !new.is_some_and(|new| includes(new, old))
        {
            let holders = new.map_or_else(String::new, |new| format!(" with `{new}` and"));
            self.add(Direction::Looser, what.clone(), format!("users{holders} without `{old}`"));
        }
        if let Some(new) = new
            && !old.is_some_and(|old| includes(old, new))
        {
            let holders = old.map_or_else(String::new, |old| format!(" with `{old}` and"));
            self.add(Direction::Stricter, what, format!("users{holders} without `{new}`"));
        }
    }

    /// Of two classes the contract does not say which has the higher rate, so that another one counts as looser.
    fn limit(&mut self, old: Option<&str>, new: Option<&str>) {
        if old == new {
            return;
        }
        let what = format!("limit: {} -> {}", old.unwrap_or(NONE), new.unwrap_or(NONE));
        let direction = if old.is_some() { Direction::Looser } else { Direction::Stricter };
        let class = old.or(new).unwrap_or_default();
        self.add(direction, what, format!("callers beyond the rate of `{class}`"));
    }

    fn rest(&mut self, old: &Method, new: &Method) {
        let paths = |method: &Method| method.rest.iter().map(ToString::to_string).collect::<Vec<_>>();
        let (old, new) = (paths(old), paths(new));
        let who = "clients of the edge";
        for path in new.iter().filter(|path| !old.contains(path)) {
            self.add(Direction::Looser, format!("REST path added: {path}"), who.to_owned());
        }
        for path in old.iter().filter(|path| !new.contains(path)) {
            self.add(Direction::Stricter, format!("REST path removed: {path}"), who.to_owned());
        }
    }
}

fn seconds(duration: Option<Duration>) -> String {
    duration.map_or_else(|| NONE.to_owned(), |duration| format!("{duration:?}"))
}

#[cfg(test)]
mod tests;
