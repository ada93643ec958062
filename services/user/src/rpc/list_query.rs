//! The filter, order and search of `ListUsers`.

use drystone::user::v1::ListUsersRequest;
use drystone_mesh::{
    call::Actor,
    error::Error as MeshError,
    filter::{self, Field, Kind, Operator, Term, Value},
    page::List,
};

use super::parse_role;
use crate::{
    Status,
    role::MEMBER,
    search,
    store::{ListOrder, ListQuery, StatusFilter},
};

/// The fields of the filter.
const FIELDS: [Field; 4] = [
    Field { name: "status", kind: Kind::Choice(&["active", "disabled", "deleted"]) },
    Field { name: "role", kind: Kind::Text },
    Field { name: "email", kind: Kind::Prefix },
    Field { name: "create_time", kind: Kind::Time },
];

/// The query of a request, and the list that its page tokens are bound to.
pub(super) fn parse(request: &ListUsersRequest, actor: Actor<'_>) -> Result<(ListQuery, List), MeshError> {
    let mut query = ListQuery::default();
    for term in filter::parse(&request.filter, &FIELDS)? {
        add(&mut query, term)?;
    }
    (query.order, query.is_descending) = order(&request.order_by)?;
    if !request.search.trim().is_empty() {
        if !request.order_by.is_empty() {
            let text = "must be empty with `search`, whose accounts are ordered by what matches";
            return Err(MeshError::invalid_field("order_by", text));
        }
        query.prefixes = search::prefixes(&request.search).ok_or_else(|| {
            MeshError::invalid_field("search", "must have 1 to 4 words, such as `ada love` or `ada@example.com`")
        })?;
    }
    let caller = match actor {
        Actor::Operator => "operator".to_owned(),
        Actor::User(user) => user.user_id.to_string(),
    };
    let list = List::new("users")
        .bound_to(&request.filter)
        .bound_to(&request.order_by)
        .bound_to(&request.search)
        .bound_to(&caller);
    Ok((query, list))
}

fn add(query: &mut ListQuery, term: Term) -> Result<(), MeshError> {
    match (term.field, term.operator, term.value) {
        ("status", _, Value::Choice(name)) => {
            let all = [Status::Active, Status::Disabled, Status::Deleted];
            query.status = all
                .into_iter()
                .find(|status| status.name() == name)
                .map_or(StatusFilter::NotDeleted, StatusFilter::Only);
        }
        // Everybody has it, without a grant.
        ("role", _, Value::Text(role)) if role == MEMBER => {}
        ("role", _, Value::Text(role)) => query.role = Some(parse_role("filter", &role)?),
        ("email", _, Value::Text(email)) => query.email = Some(email.to_lowercase()),
        ("email", _, Value::Prefix(prefix)) => query.email_prefix = Some(prefix.to_lowercase()),
        ("create_time", operator, Value::Time(time)) => {
            // To the microsecond, as times are stored.
            let next = time + chrono::TimeDelta::microseconds(1);
            let (from, before) = match operator {
                Operator::Equal => (Some(time), Some(next)),
                Operator::Less => (None, Some(time)),
                Operator::LessOrEqual => (None, Some(next)),
                Operator::Greater => (Some(next), None),
                Operator::GreaterOrEqual => (Some(time), None),
            };
            query.created_from = query.created_from.max(from);
            query.created_before = match (query.created_before, before) {
                (Some(one), Some(other)) => Some(one.min(other)),
                (one, other) => one.or(other),
            };
        }
        // The parser knows no other combination.
        _ => {}
    }
    Ok(())
}

fn order(order_by: &str) -> Result<(ListOrder, bool), MeshError> {
    let words: Vec<_> = order_by.split_ascii_whitespace().collect();
    let is_descending = matches!(words[..], [_, "desc"]);
    match words[..] {
        [] => Ok((ListOrder::CreateTime, false)),
        ["create_time"] | ["create_time", "asc" | "desc"] => Ok((ListOrder::CreateTime, is_descending)),
        ["email"] | ["email", "asc" | "desc"] => Ok((ListOrder::Email, is_descending)),
        _ => Err(MeshError::invalid_field(
            "order_by",
            "must be `create_time` or `email`, and ` desc` for the reverse order",
        )),
    }
}
