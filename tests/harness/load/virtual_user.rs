//! One virtual user of a load.

use std::{collections::BTreeMap, ops::Range, time::Instant};

use drystone::Reason;
use serde_json::{Value, json};
use uuid::Uuid;

use super::CallLog;
use crate::{Edges, RestClient, RestRequest, RestResponse, Tokens, User, unique_email};

/// How many steps until the sequence of operations repeats.
const STEPS: usize = 24;

/// A user and the state that was acknowledged to them.
#[derive(Debug)]
pub(super) struct VirtualUser {
    edges: Edges,
    log: CallLog,
    user: User,
    tokens: Tokens,
    step: usize,
    properties: Vec<OwnedProperty>,
    deleted: Vec<String>,
    /// Request id and name of a creation that failed and is repeated until it succeeds.
    pending_creation: Option<(String, String)>,
    /// An account whose registration failed and is repeated until it succeeds.
    pending_registration: Option<User>,
    registered: Vec<User>,
    /// A second session, which is revoked next.
    second_session: Option<Tokens>,
    revoked: Vec<RevokedSession>,
}

/// A session whose revocation was acknowledged, and when that call was in flight.
#[derive(Debug)]
struct RevokedSession {
    tokens: Tokens,
    call: Range<Instant>,
}

/// A property as its owner knows it.
#[derive(Debug)]
struct OwnedProperty {
    id: String,
    etag: String,
    /// The acknowledged name, then the names of updates that failed and may have been applied; `None` means a
    /// deletion that failed and may have been applied.
    possible_names: Vec<Option<String>>,
}

impl VirtualUser {
    pub(super) async fn signed_in(edges: Edges, log: CallLog) -> Self {
        let user = User::register_at(edges.next()).await;
        let tokens = user.sign_in_at(edges.next()).await;
        Self {
            edges,
            log,
            user,
            tokens,
            step: 0,
            properties: Vec::new(),
            deleted: Vec::new(),
            pending_creation: None,
            pending_registration: None,
            registered: Vec::new(),
            second_session: None,
            revoked: Vec::new(),
        }
    }

    /// Runs the next operation. Whether it succeeded.
    pub(super) async fn run_step(&mut self) -> bool {
        let step = self.step % STEPS;
        self.step += 1;
        let result = match step {
            0 => self.register().await,
            4 => self.open_second_session().await,
            5 => self.revoke_second_session().await,
            10 => self.delete_property().await,
            22 => self.refresh().await,
            _ => match step % 6 {
                0 | 1 => self.create_property().await,
                2 => self.update_property().await,
                3 => self.read("list properties", "/v1/properties?pageSize=5").await,
                4 if step == 16 => self.read("list messages", "/v1/messages").await,
                4 => self.read("get user", "/v1/users/me").await,
                _ => self.read("list sessions", "/v1/sessions").await,
            },
        };
        result.is_some()
    }

    /// Makes a call with the access token.
    async fn call(&mut self, operation: &'static str, call: RestRequest) -> Option<RestResponse> {
        self.log.call(&self.edges, operation, call.bearer(&self.tokens.access)).await
    }

    async fn read(&mut self, operation: &'static str, path: &str) -> Option<()> {
        let call = self.rest().get(path);
        self.call(operation, call).await?.expect(200);
        Some(())
    }

    async fn create_property(&mut self) -> Option<()> {
        let generate = || (Uuid::now_v7().to_string(), format!("property {}", Uuid::now_v7().simple()));
        let (request_id, name) = self.pending_creation.clone().unwrap_or_else(generate);
        self.pending_creation = Some((request_id.clone(), name.clone()));
        let call = self.rest().post("/v1/properties", json!({"displayName": name, "requestId": request_id}));
        let property = self.call("create", call).await?.expect(200).json();
        self.pending_creation = None;
        self.properties.push(OwnedProperty::from_response(&property));
        Some(())
    }

    async fn update_property(&mut self) -> Option<()> {
        let Some(index) = self.properties.len().checked_sub(1) else { return self.create_property().await };
        let OwnedProperty { id, etag, .. } = &self.properties[index];
        let path = format!("/v1/properties/{id}");
        let name = format!("changed {}", Uuid::now_v7().simple());
        let call = self.rest().patch(&path, json!({"displayName": name, "etag": etag}));
        let Some(answer) = self.call("update", call).await else {
            self.properties[index].possible_names.push(Some(name));
            return None;
        };
        let answer = if answer.status == 409 {
            // An earlier update failed for the caller and was applied.
            answer.refused(Reason::StaleEtag);
            let call = self.rest().get(&path);
            self.call("read", call).await?
        } else {
            answer
        };
        let current = OwnedProperty::from_response(&answer.expect(200).json());
        let possible = &self.properties[index].possible_names;
        let name_now = &current.possible_names[0];
        assert!(*name_now == Some(name) || possible.contains(name_now), "{current:?} after {possible:?}");
        self.properties[index] = current;
        Some(())
    }

    async fn delete_property(&mut self) -> Option<()> {
        if self.properties.len() < 2 {
            return self.create_property().await;
        }
        let path = format!("/v1/properties/{}", self.properties[0].id);
        let call = self.rest().delete(&path);
        let Some(answer) = self.call("delete", call).await else {
            self.properties[0].possible_names.push(None);
            return None;
        };
        if answer.status == 404 {
            // An earlier attempt, of this user or a retry of the mesh, was applied although its response was lost.
            answer.refused(Reason::PropertyNotFound);
        } else {
            answer.expect(200);
        }
        self.deleted.push(self.properties.remove(0).id);
        Some(())
    }

    async fn refresh(&mut self) -> Option<()> {
        let call = self.rest().post("/v1/auth/refresh", json!({"refreshToken": self.tokens.refresh}));
        let answer = self.log.call(&self.edges, "refresh", call).await?;
        if answer.status == 401 {
            answer.refused(Reason::SessionEnded);
            return self.sign_in_again().await;
        }
        self.tokens = Tokens::of(&answer.expect(200).json());
        Some(())
    }

    async fn sign_in_again(&mut self) -> Option<()> {
        self.tokens = self.sign_in("sign in again").await?;
        Some(())
    }

    async fn open_second_session(&mut self) -> Option<()> {
        self.second_session = Some(self.sign_in("sign in").await?);
        Some(())
    }

    async fn sign_in(&mut self, operation: &'static str) -> Option<Tokens> {
        let body = json!({"email": self.user.email, "password": self.user.password});
        let call = self.rest().post("/v1/auth/login", body);
        let answer = self.log.call(&self.edges, operation, call).await?;
        Some(Tokens::of(&answer.expect(200).json()))
    }

    async fn revoke_second_session(&mut self) -> Option<()> {
        let Some(other) = self.second_session.clone() else { return self.read("list sessions", "/v1/sessions").await };
        let call = self.rest().delete(&format!("/v1/sessions/{}", other.session_id));
        let start = Instant::now();
        let answer = self.call("revoke session", call).await?;
        self.second_session = None;
        if answer.status == 404 {
            // An earlier attempt failed for the caller and was applied, or the session was lost.
            answer.refused(Reason::SessionNotFound);
        } else {
            answer.expect(200);
            self.revoked.push(RevokedSession { tokens: other, call: start..Instant::now() });
        }
        Some(())
    }

    async fn register(&mut self) -> Option<()> {
        let generate = || {
            let password = crate::PASSWORD.to_owned();
            User { email: unique_email(), password, id: Uuid::now_v7().to_string() }
        };
        // Until the account exists, `id` is the request id.
        let user = self.pending_registration.clone().unwrap_or_else(generate);
        self.pending_registration = Some(user.clone());
        let User { email, password, id } = &user;
        let body = json!({"email": email, "password": password, "displayName": "Ada", "requestId": id});
        let call = self.rest().post("/v1/auth/register", body);
        let answer = self.log.call(&self.edges, "register", call).await?.expect(200).json();
        self.pending_registration = None;
        self.registered.push(User { id: answer["user"]["id"].as_str().expect("an id").to_owned(), ..user });
        Some(())
    }

    /// Asserts that every acknowledged write is there, and nothing is there twice.
    pub(super) async fn assert_no_lost_writes(&mut self) {
        // Signs in again if the session was lost.
        self.refresh().await.expect("the mesh has recovered");
        let mut listed = self.list().await;
        for OwnedProperty { id, possible_names, .. } in &self.properties {
            let found = listed.remove(id);
            assert!(
                possible_names.contains(&found),
                "property {id} has the name {found:?}, expected one of {possible_names:?}"
            );
        }
        for id in &self.deleted {
            assert_eq!(listed.get(id), None, "deleted property {id}");
        }
        let pending = self.pending_creation.take().map(|(_, name)| name);
        let unknown: Vec<_> = listed.into_values().filter(|name| Some(name) != pending.as_ref()).collect();
        assert!(unknown.is_empty(), "properties that were never created: {unknown:?}");

        for user in std::mem::take(&mut self.registered) {
            let tokens = user.sign_in_at(self.edges.next()).await;
            let me = self.edges.next().get("/v1/users/me").bearer(&tokens.access).send().await.expect(200).json();
            assert_eq!((&me["id"], &me["email"]), (&json!(user.id), &json!(user.email)));
        }
        for RevokedSession { tokens, call } in std::mem::take(&mut self.revoked) {
            let me = self.edges.next().get("/v1/users/me").bearer(&tokens.access).send().await;
            assert_eq!(me.status, 401, "the revocation took {:?}", call.end - call.start);
            me.refused(Reason::TokenRevoked);
            let body = json!({"refreshToken": tokens.refresh});
            self.edges.next().post("/v1/auth/refresh", body).send().await.refused(Reason::SessionEnded);
        }
    }

    /// Excludes sessions whose revocation was in flight at some time during this period.
    pub(super) fn ignore_revocations_in_flight_during(&mut self, period: &Range<Instant>) {
        self.revoked.retain(|revoked| revoked.call.end < period.start || period.end < revoked.call.start);
    }

    /// The names of all properties, by id.
    async fn list(&self) -> BTreeMap<String, String> {
        let (mut found, mut page_token) = (BTreeMap::new(), String::new());
        loop {
            let path = format!("/v1/properties?pageSize=200&pageToken={page_token}");
            let page = self.edges.next().get(&path).bearer(&self.tokens.access).send().await.expect(200).json();
            for property in page["properties"].as_array().expect("a list") {
                let text = |field: &str| property[field].as_str().expect("a string").to_owned();
                assert_eq!(found.insert(text("id"), text("displayName")), None, "listed twice");
            }
            let next = page["nextPageToken"].as_str().expect("a string");
            if next.is_empty() {
                return found;
            }
            next.clone_into(&mut page_token);
        }
    }

    fn rest(&self) -> RestClient {
        self.edges.next()
    }
}

impl OwnedProperty {
    fn from_response(property: &Value) -> Self {
        let text = |field: &str| property[field].as_str().unwrap_or_else(|| panic!("{property}")).to_owned();
        Self { id: text("id"), etag: text("etag"), possible_names: vec![Some(text("displayName"))] }
    }
}
