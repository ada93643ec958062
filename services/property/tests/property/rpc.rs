//! The RPCs of the property service, called as a given user.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use drystone::{
    Reason,
    property::v1::{
        CreatePropertyRequest, DeletePropertyRequest, GetPropertyRequest, ListPropertiesRequest,
        ListPropertyClaimsRequest, Property, UpdatePropertyRequest, property_service_server::PropertyService,
    },
};
use drystone_mesh::{
    call::{self, Call, CallFields, Client},
    clock::Clock,
    error::reason_of,
    telemetry::TraceContext,
    token::Principal,
};
use drystone_property::{Claim, Deps, MIGRATIONS, PropertyStore, Quota, Service};
use drystone_store::Db;
use tempfile::TempDir;
use tonic::{Request, Response, Status};
use uuid::Uuid;

/// The service with an empty store, a manual clock, and a user.
struct Fixture {
    service: Service,
    clock: Clock,
    ada: Uuid,
    _directory: TempDir,
}

impl Fixture {
    async fn new() -> Self {
        let directory = TempDir::new().unwrap();
        let db = Db::open(&directory.path().join("property.db"), MIGRATIONS).await.unwrap();
        let clock = Clock::manual(Clock::system().now());
        let service = Service::new(Deps { store: PropertyStore::new(db, Quota::default()), clock: clock.clone() });
        Self { service, clock, ada: Uuid::now_v7(), _directory: directory }
    }

    async fn create(&self, message: CreatePropertyRequest) -> Result<Property, Reason> {
        outcome(self.service.create_property(as_user(self.ada, message)).await)
    }

    async fn get(&self, by: Uuid, id: &str) -> Result<Property, Reason> {
        let request = as_user(by, GetPropertyRequest { id: id.to_owned() });
        outcome(self.service.get_property(request).await)
    }

    async fn update(&self, by: Uuid, property: Property, mask: &[&str]) -> Result<Property, Reason> {
        let paths = mask.iter().map(ToString::to_string).collect();
        let update_mask = Some(prost_types::FieldMask { paths });
        let request = as_user(by, UpdatePropertyRequest { property: Some(property), update_mask });
        outcome(self.service.update_property(request).await)
    }

    async fn delete(&self, by: Uuid, id: &str, etag: &str) -> Result<(), Reason> {
        let request = as_user(by, DeletePropertyRequest { id: id.to_owned(), etag: etag.to_owned() });
        outcome(self.service.delete_property(request).await).map(drop)
    }
}

fn barn() -> CreatePropertyRequest {
    CreatePropertyRequest {
        display_name: "Barn".to_owned(),
        description: "By the river".to_owned(),
        labels: [("kind".to_owned(), "barn".to_owned())].into(),
        request_id: String::new(),
    }
}

/// A request of this user after the server stack.
fn as_user<T>(user_id: Uuid, message: T) -> Request<T> {
    let now = Clock::system().now();
    let principal = Principal {
        user_id,
        session_id: Uuid::now_v7(),
        token_id: Uuid::now_v7(),
        key_id: "key-1".into(),
        issued_at: now,
        expires_at: now + Duration::from_mins(5),
        auth_time: now,
        amr: Vec::new(),
        roles: Vec::new(),
        permissions: Vec::new(),
        properties: BTreeMap::new(),
    };
    let mut request = Request::new(message);
    request.extensions_mut().insert(Call::new(CallFields {
        request_id: call::new_request_id(),
        trace: TraceContext::new_root(),
        deadline: None,
        caller: None,
        principal: Some(Arc::new(principal)),
        authorization: None,
        client: Client::default(),
    }));
    request
}

/// The response, or the reason of the error.
fn outcome<T>(result: Result<Response<T>, Status>) -> Result<T, Reason> {
    result.map(Response::into_inner).map_err(|status| reason_of(&status).expect("every error has a reason"))
}

#[tokio::test]
async fn a_property_belongs_to_the_user_who_created_it() {
    let fixture = Fixture::new().await;
    let property = fixture.create(barn()).await.unwrap();
    assert_eq!(property.owner_id, fixture.ada.to_string());
    assert_eq!((property.display_name.as_str(), property.description.as_str()), ("Barn", "By the river"));
    assert_eq!(property.labels, barn().labels);
    assert_eq!(property.create_time, property.update_time);
    assert_eq!(property.create_time.unwrap().seconds, fixture.clock.now().timestamp());
    assert_eq!(fixture.get(fixture.ada, &property.id).await, Ok(property));
}

#[tokio::test]
async fn a_property_of_another_user_is_not_found() {
    let fixture = Fixture::new().await;
    let property = fixture.create(barn()).await.unwrap();
    let eve = Uuid::now_v7();
    assert_eq!(fixture.get(eve, &property.id).await, Err(Reason::PropertyNotFound));
    assert_eq!(fixture.update(eve, property.clone(), &[]).await, Err(Reason::PropertyNotFound));
    assert_eq!(fixture.delete(eve, &property.id, "").await, Err(Reason::PropertyNotFound));
    assert_eq!(fixture.get(fixture.ada, &property.id).await, Ok(property));
}

#[tokio::test]
async fn a_creation_with_a_request_id_is_idempotent() {
    let fixture = Fixture::new().await;
    let message = CreatePropertyRequest { request_id: Uuid::now_v7().to_string(), ..barn() };
    let property = fixture.create(message.clone()).await.unwrap();
    assert_eq!(fixture.create(message.clone()).await, Ok(property));
    let other = CreatePropertyRequest { display_name: "Shed".to_owned(), ..message };
    assert_eq!(fixture.create(other).await, Err(Reason::RequestIdReused));
}

#[tokio::test]
async fn an_invalid_property_is_rejected() {
    let fixture = Fixture::new().await;
    for message in [
        CreatePropertyRequest { display_name: " ".to_owned(), ..barn() },
        CreatePropertyRequest { display_name: "\u{3164}".to_owned(), ..barn() },
        CreatePropertyRequest { display_name: "Barn\u{2028}".to_owned() + "Shed", ..barn() },
        CreatePropertyRequest { description: "\u{7}".to_owned(), ..barn() },
        CreatePropertyRequest { description: "one\u{202e}".to_owned(), ..barn() },
        CreatePropertyRequest { labels: [("kind".to_owned(), "a\nb".to_owned())].into(), ..barn() },
        CreatePropertyRequest { request_id: "invalid".to_owned(), ..barn() },
    ] {
        assert_eq!(fixture.create(message).await, Err(Reason::InvalidRequest));
    }
}

#[tokio::test]
async fn an_update_mask_selects_the_fields_to_change_or_clear() {
    let fixture = Fixture::new().await;
    let property = fixture.create(barn()).await.unwrap();
    fixture.clock.advance(Duration::from_secs(1));
    let wanted = Property { id: property.id.clone(), display_name: "Shed".to_owned(), ..Property::default() };

    let changed = fixture.update(fixture.ada, wanted.clone(), &["display_name", "labels"]).await.unwrap();
    assert_eq!((changed.display_name.as_str(), changed.description.as_str()), ("Shed", "By the river"));
    assert!(changed.labels.is_empty());
    assert_ne!(changed.etag, property.etag);
    assert_ne!(changed.update_time, property.update_time);

    let all = fixture.update(fixture.ada, wanted, &["*"]).await.unwrap();
    assert_eq!((all.display_name.as_str(), all.description.as_str()), ("Shed", ""));
}

#[tokio::test]
async fn without_a_mask_the_fields_that_are_set_are_changed() {
    let fixture = Fixture::new().await;
    let property = fixture.create(barn()).await.unwrap();
    let wanted = Property { id: property.id.clone(), description: "On the hill".to_owned(), ..Property::default() };
    let changed = fixture.update(fixture.ada, wanted, &[]).await.unwrap();
    assert_eq!((changed.display_name.as_str(), changed.description.as_str()), ("Barn", "On the hill"));
    assert_eq!(changed.labels, property.labels);
}

#[tokio::test]
async fn an_invalid_update_is_rejected() {
    let fixture = Fixture::new().await;
    let property = fixture.create(barn()).await.unwrap();
    let without_name = Property { display_name: String::new(), ..property.clone() };
    let without_id = Property { id: String::new(), ..property.clone() };
    let without_changes = Property { id: property.id.clone(), ..Property::default() };
    for (wanted, mask) in [
        (property.clone(), vec!["owner_id"]),
        (property.clone(), vec!["labels.kind"]),
        (property.clone(), vec!["etag"]),
        (without_name, vec!["display_name"]),
        (without_id, vec![]),
        (without_changes, vec![]),
    ] {
        let result = fixture.update(fixture.ada, wanted, &mask).await;
        assert_eq!(result, Err(Reason::InvalidRequest), "{mask:?}");
    }
    assert_eq!(fixture.get(fixture.ada, &property.id).await, Ok(property));
}

#[tokio::test]
async fn a_stale_etag_is_rejected() {
    let fixture = Fixture::new().await;
    let property = fixture.create(barn()).await.unwrap();
    let wanted = Property { description: "On the hill".to_owned(), ..property.clone() };
    let changed = fixture.update(fixture.ada, wanted.clone(), &["description"]).await.unwrap();
    // Even if the values are current: the client has read another version.
    let late = fixture.update(fixture.ada, wanted, &["description"]).await;
    assert_eq!(late, Err(Reason::StaleEtag));
    assert_eq!(fixture.delete(fixture.ada, &property.id, &property.etag).await, Err(Reason::StaleEtag));
    assert_eq!(fixture.delete(fixture.ada, &property.id, &changed.etag).await, Ok(()));
    assert_eq!(fixture.delete(fixture.ada, &property.id, &changed.etag).await, Err(Reason::PropertyNotFound));
    assert_eq!(fixture.get(fixture.ada, &property.id).await, Err(Reason::PropertyNotFound));
}

#[tokio::test]
async fn properties_are_listed_in_pages() {
    let fixture = Fixture::new().await;
    let mut expected = Vec::new();
    for _ in 0..7 {
        expected.push(fixture.create(barn()).await.unwrap());
    }
    let list = async |by: Uuid, page_token: String| {
        let request = as_user(by, ListPropertiesRequest { page_size: 3, page_token });
        outcome(fixture.service.list_properties(request).await)
    };
    let (mut seen, mut page_token) = (Vec::new(), String::new());
    loop {
        let page = list(fixture.ada, page_token).await.unwrap();
        seen.extend(page.properties);
        page_token = page.next_page_token;
        if page_token.is_empty() {
            break;
        }
        if seen.len() == 3 {
            // A property created during the listing is last.
            expected.push(fixture.create(barn()).await.unwrap());
        }
        let of_another = list(Uuid::now_v7(), page_token.clone()).await;
        assert_eq!(of_another, Err(Reason::InvalidPageToken), "a token is of its user");
    }
    assert_eq!(seen, expected);
    assert_eq!(list(fixture.ada, "invalid".to_owned()).await, Err(Reason::InvalidPageToken));
}

#[tokio::test]
async fn property_claims_are_the_newest_and_limited() {
    let fixture = Fixture::new().await;
    let mut expected = Vec::new();
    for _ in 0..=Claim::MAX {
        expected.insert(0, fixture.create(barn()).await.unwrap().id);
    }
    expected.pop();
    let request = Request::new(ListPropertyClaimsRequest { user_id: fixture.ada.to_string() });
    let claims = outcome(fixture.service.list_property_claims(request).await).unwrap().claims;
    assert!(claims.iter().all(|claim| claim.relation == "owner"));
    let ids: Vec<String> = claims.into_iter().map(|claim| claim.property_id).collect();
    assert_eq!(ids, expected);
}
