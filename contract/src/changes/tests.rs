use super::*;
use crate::{
    Audit, Deadline, Idempotency, Policy,
    rest::{Binding, BodyMapping},
};

type Change = fn(&mut Method);

/// An RPC with every part of a rule.
fn method() -> Method {
    Method {
        path: "/acme.v1.S/M".into(),
        workload: "acme".into(),
        callers: vec!["edge".to_owned(), "operator".to_owned()],
        subject: Subject::UserOrOperator,
        permission: Some("orders:read:any".to_owned()),
        factors: Some(Factors::Two),
        max_auth_age: Some(Duration::from_mins(10)),
        fresh_revocations: true,
        audit: Some(Audit::Log),
        policy: Policy {
            deadline: Deadline { default: None, max: Some(Duration::from_secs(5)) },
            limit: Some("write".to_owned()),
            cache_max_age: None,
        },
        idempotency: Idempotency::Unknown,
        client_streaming: false,
        server_streaming: false,
        rest: vec![binding("/v1/orders")],
    }
}

fn binding(path: &str) -> Binding {
    let template = path.parse().unwrap();
    Binding { method: "GET".to_owned(), template, variables: Vec::new(), body: BodyMapping::Nothing }
}

/// The changes as texts.
fn changed(change: Change) -> Vec<(Direction, String, String)> {
    let (old, mut new) = (method(), method());
    change(&mut new);
    let changes = access_changes(&[Arc::new(old)], &[Arc::new(new)]);
    assert!(changes.iter().all(|change| change.rpc == "acme.v1.S/M"), "{changes:?}");
    changes.into_iter().map(|change| (change.direction, change.what, change.who)).collect()
}

#[track_caller]
fn assert_only(change: Change, direction: Direction, what: &str, who: &str) {
    assert_eq!(changed(change), [(direction, what.to_owned(), who.to_owned())]);
}

#[test]
fn each_loosened_part_is_found() {
    let cases: [(Change, &str, &str); 20] = [
        (|new| new.workload = "other".into(), "workload: acme -> other", "other, which receives the calls"),
        (
            |new| new.idempotency = Idempotency::Idempotent,
            "idempotency: unknown -> idempotent",
            "every caller: clients retry calls or do not",
        ),
        (
            |new| new.idempotency = Idempotency::NoSideEffects,
            "idempotency: unknown -> no_side_effects",
            "every caller: clients retry calls or do not",
        ),
        (
            |new| new.fresh_revocations = false,
            "fresh_revocations: true -> false",
            "users whose session may have ended, while a server does not hear of revocations",
        ),
        (|new| new.callers.push("auth".to_owned()), "caller added: auth", "auth"),
        (|new| new.callers.push("outside".to_owned()), "caller added: outside", "edge, ingress"),
        (
            |new| new.callers.push("any".to_owned()),
            "caller added: any",
            "every workload except edge, ingress and operator",
        ),
        (|new| new.subject = Subject::None, "subject: user_or_operator -> none", "callers without a user"),
        (|new| new.permission = None, "permission: orders:read:any -> none", "users without `orders:read:any`"),
        (
            |new| new.permission = Some("orders:read:own".to_owned()),
            "permission: orders:read:any -> orders:read:own",
            "users with `orders:read:own` and without `orders:read:any`",
        ),
        (|new| new.factors = None, "factors: two -> none", "users who have proved less"),
        (|new| new.max_auth_age = None, "max_auth_age: 600s -> none", "users who authenticated longer ago"),
        (
            |new| new.max_auth_age = Some(Duration::from_millis(600_500)),
            "max_auth_age: 600s -> 600.5s",
            "users who authenticated longer ago",
        ),
        (|new| new.audit = None, "audit: log -> none", "every caller: calls leave another record"),
        (|new| new.policy.limit = None, "limit: write -> none", "callers beyond the rate of `write`"),
        (
            |new| new.policy.limit = Some("read".to_owned()),
            "limit: write -> read",
            "callers beyond the rate of `write`",
        ),
        (|new| new.policy.deadline.max = None, "max deadline: 5s -> 60s", "every caller: calls may take another time"),
        (
            |new| new.policy.deadline.max = Some(Duration::from_secs(6)),
            "max deadline: 5s -> 6s",
            "every caller: calls may take another time",
        ),
        (
            |new| new.policy.cache_max_age = Some(Duration::from_secs(1)),
            "cache_max_age: none -> 1s",
            "shared caches, and web pages of any origin",
        ),
        (|new| new.rest.push(binding("/v2/orders")), "REST path added: GET /v2/orders", "clients of the edge"),
    ];
    for (change, what, who) in cases {
        assert_only(change, Direction::Looser, what, who);
    }
}

#[test]
fn each_stricter_part_is_found() {
    let cases: [(Change, &str, &str); 8] = [
        (|new| new.callers.retain(|caller| caller != "edge"), "caller removed: edge", "edge"),
        (|new| new.subject = Subject::User, "subject: user_or_operator -> user", "the operator without a user"),
        (
            |new| new.factors = Some(Factors::PhishingResistant),
            "factors: two -> phishing_resistant",
            "users who have proved less",
        ),
        (
            |new| new.max_auth_age = Some(Duration::from_mins(5)),
            "max_auth_age: 600s -> 300s",
            "users who authenticated longer ago",
        ),
        (|new| new.audit = Some(Audit::Trail), "audit: log -> trail", "every caller: calls leave another record"),
        (
            |new| new.policy.deadline.max = Some(Duration::from_secs(1)),
            "max deadline: 5s -> 1s",
            "every caller: calls may take another time",
        ),
        (|new| new.rest.clear(), "REST path removed: GET /v1/orders", "clients of the edge"),
        (|new| new.callers.reverse(), "", ""),
    ];
    for (change, what, who) in cases {
        if what.is_empty() {
            assert_eq!(changed(change), []);
        } else {
            assert_only(change, Direction::Stricter, what, who);
        }
    }
}

#[test]
fn lost_idempotency_is_stricter_and_another_kind_of_it_is_no_change() {
    let with = |idempotency| [Arc::new(Method { idempotency, ..method() })];
    let changes = |old, new| access_changes(&with(old), &with(new));
    let stricter = changes(Idempotency::NoSideEffects, Idempotency::Unknown);
    assert_eq!(stricter.len(), 1);
    assert_eq!(
        (stricter[0].direction, &*stricter[0].what),
        (Direction::Stricter, "idempotency: no_side_effects -> unknown")
    );
    assert_eq!(changes(Idempotency::NoSideEffects, Idempotency::Idempotent), []);
}

#[test]
fn another_permission_is_looser_for_some_users_and_stricter_for_others() {
    let what = "permission: orders:read:any -> orders:list";
    let changes = changed(|new| new.permission = Some("orders:list".to_owned()));
    let looser = "users with `orders:list` and without `orders:read:any`";
    let stricter = "users with `orders:read:any` and without `orders:list`";
    let expected = [(Direction::Looser, looser), (Direction::Stricter, stricter)];
    assert_eq!(changes, expected.map(|(direction, who)| (direction, what.to_owned(), who.to_owned())));
}

#[test]
fn a_caller_that_another_one_includes_is_no_change() {
    let with = |callers: &[&str]| {
        let callers = callers.iter().map(|&caller| caller.to_owned()).collect();
        [Arc::new(Method { callers, ..method() })]
    };
    let changes = |old: &[&str], new: &[&str]| {
        let changes = access_changes(&with(old), &with(new));
        changes.into_iter().map(|change| change.what).collect::<Vec<_>>()
    };
    assert_eq!(changes(&["outside"], &["edge", "ingress"]), Vec::<String>::new());
    assert_eq!(changes(&["any"], &["any", "auth"]), Vec::<String>::new());
    assert_eq!(changes(&["edge"], &["outside"]), ["caller added: outside"]);
    assert_eq!(changes(&["any"], &["auth"]), ["caller removed: any"]);
    assert_eq!(changes(&["any"], &["any", "operator"]), ["caller added: operator"]);
}

#[test]
fn added_and_removed_rpcs_are_changes_with_their_callers() {
    let (old, new) = (method(), Method { path: "/acme.v1.S/N".into(), ..method() });
    let changes = access_changes(&[Arc::new(old)], &[Arc::new(new)]);
    let who = "edge, operator (for a user, or as the operator)";
    let change = |direction, rpc: &str, what: &str| AccessChange {
        direction,
        rpc: rpc.to_owned(),
        what: what.to_owned(),
        who: who.to_owned(),
    };
    let added = "RPC added: callers edge, operator; subject user_or_operator; permission orders:read:any; factors two; \
                 max_auth_age 600s; fresh_revocations; REST GET /v1/orders";
    let expected =
        [change(Direction::Looser, "acme.v1.S/N", added), change(Direction::Stricter, "acme.v1.S/M", "RPC removed")];
    assert_eq!(changes, expected);
}

#[test]
fn an_added_rpc_with_another_rule_is_another_change() {
    let plain = Method {
        callers: vec!["operator".to_owned()],
        subject: Subject::None,
        permission: None,
        factors: None,
        max_auth_age: None,
        fresh_revocations: false,
        rest: Vec::new(),
        ..method()
    };
    let outside = Method { callers: vec!["outside".to_owned()], ..plain.clone() };
    let added = |method: Method| access_changes(&[], &[Arc::new(method)]).remove(0).what;
    assert_eq!(added(plain), "RPC added: callers operator; subject none");
    assert_eq!(added(outside), "RPC added: callers outside; subject none");
}

#[test]
fn a_stream_without_a_maximum_deadline_has_none() {
    let old = Method { server_streaming: true, ..method() };
    let mut new = old.clone();
    new.policy.deadline.max = None;
    let changes = access_changes(&[Arc::new(old)], &[Arc::new(new)]);
    assert_eq!(changes.len(), 1);
    assert_eq!((changes[0].direction, &*changes[0].what), (Direction::Looser, "max deadline: 5s -> none"));
}
