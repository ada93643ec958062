//! The access rules of the fixture.

use drystone::contract::{Idempotency, Method, Subject};

macro_rules! methods {
    ($($name:literal $subject:ident)+) => {
        &[$(Method {
            path: concat!("/drystone.fixture.v1.FixtureService/", $name),
            callers: &["outside"],
            subject: Subject::$subject,
            permission: None,
            max_auth_age: None,
            audited: false,
            idempotency: Idempotency::Unknown,
            client_streaming: false,
            server_streaming: false,
            rest: &[],
        },)+]
    };
}

/// The fixture's access rules.
pub(crate) const METHODS: &[Method] = methods! {
    "Search" User
    "Get" None
    "GetSpecial" None
    "Create" None
    "Reset" None
    "Update" User
    "SetTexts" None
    "SetNumber" None
    "Delete" None
    "Hidden" None
};
