//! Duplicate members and parameters are errors, in either spelling of a field.

use proptest::prelude::*;
use serde_json::json;

use crate::Edge;

#[tokio::test]
async fn duplicate_members_are_refused_in_either_spelling() {
    let edge = Edge::echo().await;
    for (body, field) in [
        (r#"{"bigNumber": 1, "big_number": 2}"#, "big_number"),
        (r#"{"big_number": 1, "bigNumber": 1}"#, "bigNumber"),
        (r#"{"bigNumber": null, "big_number": 2}"#, "big_number"),
        (r#"{"bigNumber": 1, "big_number": null}"#, "big_number"),
        (r#"{"bigNumber": 1, "big\u004eumber": 2}"#, "bigNumber"),
        (r#"{"bigNumber": 1, "big\u005fnumber": 2}"#, "big_number"),
        (r#"{"smallFraction": 1, "text": "", "small_fraction": 1}"#, "small_fraction"),
        (r#"{"nested": {"displayName": "a", "display_name": "b"}}"#, "nested.display_name"),
        (r#"{"nested": {"deeper": {"deeper": {"bigNumber": 1, "big_number": 1}}}}"#, "nested.deeper.deeper.big_number"),
        (r#"{"children": [{}, {"displayName": "a", "display_name": "b"}]}"#, "children[1].display_name"),
        (r#"{"byName": {"k": {"displayName": "a", "display_name": "b"}}}"#, "byName.k.display_name"),
        (r#"{"byName": {}, "by_name": {}}"#, "by_name"),
        (r#"{"byNumber": {"1": {}, "01": {}}}"#, "byNumber.01"),
        (r#"{"byNumber": {"0": {}, "-0": {}}}"#, "byNumber.-0"),
        (r#"{"byNumber": {"7": {"displayName": "a", "display_name": "b"}}}"#, "byNumber.7.display_name"),
        (r#"{"byFlag": {"true": "a", "true": "b"}}"#, "byFlag.true"),
        (r#"{"labels": {"k": "a", "\u006b": "b"}}"#, "labels.k"),
        (r#"{"anything": {"a": {"b": 1, "b": 2}}}"#, "anything.a.b"),
        (r#"{"maybeText": "a", "maybe_text": "b"}"#, "maybe_text"),
        (r#"{"left": "a", "left": "b"}"#, "left"),
        (
            r#"{"detail": {"@type": "type.googleapis.com/acme.fixture.v1.Nested", "displayName": "a", "display_name": "b"}}"#,
            "detail.display_name",
        ),
    ] {
        let reply = edge.request("POST /v1/things", body).await;
        assert_eq!((reply.status, reply.reason().as_str()), (400, "INVALID_REQUEST"), "{body}: {}", reply.text());
        let (name, description) = reply.violation();
        assert!(name == field && description.contains("twice"), "{body}: {name}: {description}");
    }
    let reply = edge.request("POST /v1/things", r#"{"bigNumber": 1, "big_number": 2}"#).await;
    assert_eq!(reply.violation().1, "is given twice; bigNumber and big_number are one field: send it once");
    for (request, body, field) in [
        ("PATCH /v1/things/1", r#"{"displayName": "a", "display_name": "b"}"#, "display_name"),
        ("PATCH /v1/things/1", r#"{"nested": {"bigNumber": 1, "big_number": 1}}"#, "nested.big_number"),
    ] {
        let reply = edge.request(request, body).await;
        assert_eq!((reply.status, reply.violation().0.as_str()), (400, field), "{request} {body}");
    }
    assert!(edge.backend.received().is_empty());
}

#[tokio::test]
async fn only_one_member_of_a_oneof_is_accepted() {
    let edge = Edge::echo().await;
    for (body, field) in [
        (r#"{"left": "a", "right": "b"}"#, "right"),
        (r#"{"left": "", "right": ""}"#, "right"),
        (r#"{"inside": {}, "outside": "x"}"#, "outside"),
        (r#"{"outside": "x", "inside": {"displayName": "y"}}"#, "inside"),
    ] {
        let reply = edge.request("POST /v1/things", body).await;
        assert_eq!((reply.status, reply.violation().0.as_str()), (400, field), "{body}: {}", reply.text());
        assert!(reply.violation().1.contains("only one of"), "{body}: {}", reply.text());
    }
    // Null is not a value (ProtoJSON), so that it does not count.
    assert_eq!(edge.received("POST /v1/things", r#"{"left": null, "right": "b"}"#).await, json!({"right": "b"}));
    assert_eq!(edge.received("POST /v1/things", r#"{"right": "b", "left": null}"#).await, json!({"right": "b"}));
}

#[tokio::test]
async fn names_of_different_members_are_not_duplicates() {
    let edge = Edge::echo().await;
    for message in [
        json!({"labels": {"displayName": "a", "display_name": "b", "1": "c", "01": "d"}}),
        json!({"anything": {"displayName": "a", "display_name": "b"}}),
        json!({"byNumber": {"1": {}, "10": {}, "-1": {"displayName": "a"}}}),
        json!({"byFlag": {"true": "a", "false": "b"}}),
        json!({"nested": {"displayName": "a", "deeper": {"displayName": "b"}}, "children": [{"displayName": "a"}, {"displayName": "b"}]}),
    ] {
        assert_eq!(edge.received("POST /v1/things", &message.to_string()).await, message);
    }
}

#[tokio::test]
async fn duplicate_parameters_are_refused_in_either_spelling() {
    let edge = Edge::echo().await;
    for (request, field, text) in [
        ("GET /v1/things?bigNumber=1&bigNumber=1", "bigNumber", "twice"),
        ("GET /v1/things?bigNumber=1&big_number=1", "big_number", "twice"),
        ("GET /v1/things?bigNumber=1&big%5Fnumber=1", "big_number", "twice"),
        ("GET /v1/things?nested.displayName=a&nested.display_name=b", "nested.display_name", "twice"),
        ("GET /v1/things?maybeNumber=1&maybe_number.value=2", "maybe_number.value", "twice"),
        ("GET /v1/things?maybeNumber.value=1&maybeNumber=2", "maybeNumber", "twice"),
        ("GET /v1/things?mask=text&mask.paths=number", "mask.paths", "twice"),
        ("GET /v1/things?left=a&right=b", "right", "together with left"),
        ("GET /v1/things?outside=a&inside.displayName=b", "inside.displayName", "together with outside"),
        ("GET /v1/things?inside.display_name=b&outside=a", "outside", "together with inside"),
        ("GET /v1/things/one?text=one", "text", "given by the path"),
        ("GET /v1/nested/a/colours/1?nested.display_name=a", "nested.display_name", "given by the path"),
        ("PATCH /v1/things/1?thing.display_name=x", "thing.display_name", "belongs into the body"),
        ("POST /v1/things?big_number=1", "big_number", "in the body"),
    ] {
        let reply = edge.request(request, "").await;
        assert_eq!((reply.status, reply.reason().as_str()), (400, "INVALID_REQUEST"), "{request}: {}", reply.text());
        let (name, description) = reply.violation();
        assert!(name == field && description.contains(text), "{request}: {name}: {description}");
    }
    assert!(edge.backend.received().is_empty());
    for (query, message) in [
        ("texts=a&texts=b&numbers=1&numbers=1", json!({"texts": ["a", "b"], "numbers": [1, 1]})),
        ("nested.displayName=a&nested.bigNumber=1", json!({"nested": {"displayName": "a", "bigNumber": "1"}})),
        ("inside.displayName=a&inside.big_number=1", json!({"inside": {"displayName": "a", "bigNumber": "1"}})),
    ] {
        assert_eq!(edge.received(&format!("GET /v1/things?{query}"), "").await, message, "{query}");
    }
}

/// The fields of `Nested`, in JSON and proto names.
const FIELDS: [(&str, &str); 3] = [("displayName", "display_name"), ("bigNumber", "big_number"), ("deeper", "deeper")];

/// A name with one letter that may be escaped.
fn escaped(name: &'static str) -> impl Strategy<Value = String> {
    (0..name.len(), any::<bool>()).prop_map(|(at, is_escaped)| {
        let letter = &name[at..=at];
        let written = if is_escaped { format!("\\u{:04x}", name.as_bytes()[at]) } else { letter.to_owned() };
        format!("{}{written}{}", &name[..at], &name[at + 1..])
    })
}

fn member() -> impl Strategy<Value = (usize, String)> {
    (0..FIELDS.len(), any::<bool>()).prop_flat_map(|(field, is_json)| {
        let (json, proto) = FIELDS[field];
        (Just(field), escaped(if is_json { json } else { proto }))
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    /// At any depth, an object is accepted if and only if each field occurs once.
    #[test]
    fn an_object_is_accepted_if_its_fields_are_unique(members in prop::collection::vec(member(), 1..4), depth in 0..4_usize, place in 0..4_usize) {
        let text = members.iter().map(|(_, name)| format!("\"{name}\": null")).collect::<Vec<_>>().join(", ");
        let nested = r#"{"deeper": "#.repeat(depth) + &format!("{{{text}}}") + &"}".repeat(depth);
        let body = match place {
            0 => format!(r#"{{"nested": {nested}}}"#),
            1 => format!(r#"{{"children": [{{}}, {nested}]}}"#),
            2 => format!(r#"{{"byName": {{"k": {nested}}}}}"#),
            _ => format!(r#"{{"byNumber": {{"7": {nested}}}}}"#),
        };
        let mut fields: Vec<usize> = members.iter().map(|(field, _)| *field).collect();
        fields.sort_unstable();
        let count = fields.len();
        fields.dedup();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let status = runtime.block_on(async { Edge::echo().await.request("POST /v1/things", &body).await.status });
        prop_assert_eq!(status, if fields.len() == count { 200 } else { 400 }, "{}", body);
    }
}
