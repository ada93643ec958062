//! Somebody who uses the mesh all day.

use std::{collections::BTreeMap, ops::Range, time::Instant};

use drystone::Reason;
use serde_json::{Value, json};
use uuid::Uuid;

use super::Ledger;
use crate::{Answer, Call, Front, Rest, Tokens, User, unique_email};

/// How many steps until somebody does the same again.
const DAY: usize = 24;

/// Somebody, and what they were told.
#[derive(Debug)]
pub(super) struct Person {
    front: Front,
    ledger: Ledger,
    user: User,
    tokens: Tokens,
    step: usize,
    properties: Vec<Owned>,
    deleted: Vec<String>,
    /// A creation that was refused, to be repeated until it is not: its request id, and the name.
    creating: Option<(String, String)>,
    /// The same for an account.
    registering: Option<User>,
    registered: Vec<User>,
    /// A session beside the main one, which is to be ended next.
    ending: Option<Tokens>,
    ended: Vec<Ended>,
}

/// A session whose end was acknowledged, and when that call was made.
#[derive(Debug)]
struct Ended {
    tokens: Tokens,
    call: Range<Instant>,
}

/// A property, as far as its owner knows.
#[derive(Debug)]
struct Owned {
    id: String,
    etag: String,
    /// The name that was acknowledged last, and those that may have come to be since; `None` for none, once it may have
    /// been deleted.
    valid: Vec<Option<String>>,
}

impl Person {
    pub(super) async fn signed_in(front: Front, ledger: Ledger) -> Self {
        let user = User::register_at(front.next()).await;
        let tokens = user.sign_in_at(front.next()).await;
        Self {
            front,
            ledger,
            user,
            tokens,
            step: 0,
            properties: Vec::new(),
            deleted: Vec::new(),
            creating: None,
            registering: None,
            registered: Vec::new(),
            ending: None,
            ended: Vec::new(),
        }
    }

    /// The next thing of the day; whether it was served.
    pub(super) async fn does_something(&mut self) -> bool {
        let step = self.step % DAY;
        self.step += 1;
        let done = match step {
            0 => self.registers().await,
            4 => self.signs_in_elsewhere().await,
            5 => self.ends_the_other_session().await,
            10 => self.deletes().await,
            22 => self.refreshes().await,
            _ => match step % 6 {
                0 | 1 => self.creates().await,
                2 => self.updates().await,
                3 => self.reads("list properties", "/v1/properties?pageSize=5").await,
                4 => self.reads("who am I", "/v1/users/me").await,
                _ => self.reads("list sessions", "/v1/sessions").await,
            },
        };
        done.is_some()
    }

    /// Makes a call with the access token.
    async fn call(&mut self, what: &'static str, call: Call) -> Option<Answer> {
        self.ledger.call(&self.front, what, call.bearer(&self.tokens.access)).await
    }

    async fn reads(&mut self, what: &'static str, path: &str) -> Option<()> {
        let call = self.rest().get(path);
        self.call(what, call).await?.expect(200);
        Some(())
    }

    async fn creates(&mut self) -> Option<()> {
        let fresh = || (Uuid::now_v7().to_string(), format!("property {}", Uuid::now_v7().simple()));
        let (request_id, name) = self.creating.clone().unwrap_or_else(fresh);
        self.creating = Some((request_id.clone(), name.clone()));
        let call = self.rest().post("/v1/properties", json!({"displayName": name, "requestId": request_id}));
        let property = self.call("create", call).await?.expect(200).json();
        self.creating = None;
        self.properties.push(Owned::as_told(&property));
        Some(())
    }

    async fn updates(&mut self) -> Option<()> {
        let Some(index) = self.properties.len().checked_sub(1) else { return self.creates().await };
        let Owned { id, etag, .. } = &self.properties[index];
        let path = format!("/v1/properties/{id}");
        let name = format!("changed {}", Uuid::now_v7().simple());
        let call = self.rest().patch(&path, json!({"displayName": name, "etag": etag}));
        let Some(answer) = self.call("update", call).await else {
            self.properties[index].valid.push(Some(name));
            return None;
        };
        let answer = if answer.status == 409 {
            // One that was refused had come to be after all.
            answer.refused(Reason::StaleEtag);
            let call = self.rest().get(&path);
            self.call("read", call).await?
        } else {
            answer
        };
        let told = Owned::as_told(&answer.expect(200).json());
        let known = &self.properties[index].valid;
        assert!(told.valid[0] == Some(name) || known.contains(&told.valid[0]), "{told:?} after {known:?}");
        self.properties[index] = told;
        Some(())
    }

    async fn deletes(&mut self) -> Option<()> {
        if self.properties.len() < 2 {
            return self.creates().await;
        }
        let path = format!("/v1/properties/{}", self.properties[0].id);
        let call = self.rest().delete(&path);
        let Some(answer) = self.call("delete", call).await else {
            self.properties[0].valid.push(None);
            return None;
        };
        if answer.status == 404 {
            // A deletion whose answer was lost, and which was repeated: by us, or by the mesh.
            answer.refused(Reason::PropertyNotFound);
        } else {
            answer.expect(200);
        }
        self.deleted.push(self.properties.remove(0).id);
        Some(())
    }

    async fn refreshes(&mut self) -> Option<()> {
        let call = self.rest().post("/v1/auth/refresh", json!({"refreshToken": self.tokens.refresh}));
        let answer = self.ledger.call(&self.front, "refresh", call).await?;
        if answer.status == 401 {
            answer.refused(Reason::SessionEnded);
            return self.signs_in_again().await;
        }
        self.tokens = Tokens::of(&answer.expect(200).json());
        Some(())
    }

    async fn signs_in_again(&mut self) -> Option<()> {
        self.tokens = self.signs_in("sign in again").await?;
        Some(())
    }

    async fn signs_in_elsewhere(&mut self) -> Option<()> {
        self.ending = Some(self.signs_in("sign in").await?);
        Some(())
    }

    async fn signs_in(&mut self, what: &'static str) -> Option<Tokens> {
        let body = json!({"email": self.user.email, "password": self.user.password});
        let call = self.rest().post("/v1/auth/login", body);
        let answer = self.ledger.call(&self.front, what, call).await?;
        Some(Tokens::of(&answer.expect(200).json()))
    }

    async fn ends_the_other_session(&mut self) -> Option<()> {
        let Some(other) = self.ending.clone() else { return self.reads("list sessions", "/v1/sessions").await };
        let call = self.rest().delete(&format!("/v1/sessions/{}", other.session_id));
        let begun = Instant::now();
        let answer = self.call("end a session", call).await?;
        self.ending = None;
        if answer.status == 404 {
            // It was refused before and had come to be, or the session was lost.
            answer.refused(Reason::SessionNotFound);
        } else {
            answer.expect(200);
            self.ended.push(Ended { tokens: other, call: begun..Instant::now() });
        }
        Some(())
    }

    async fn registers(&mut self) -> Option<()> {
        let fresh = || {
            let password = format!("correct horse {}", Uuid::now_v7().simple());
            User { email: unique_email(), password, id: Uuid::now_v7().to_string() }
        };
        // Until it is registered, its id is that of the request.
        let user = self.registering.clone().unwrap_or_else(fresh);
        self.registering = Some(user.clone());
        let User { email, password, id } = &user;
        let body = json!({"email": email, "password": password, "displayName": "Ada", "requestId": id});
        let call = self.rest().post("/v1/auth/register", body);
        let answer = self.ledger.call(&self.front, "register", call).await?.expect(200).json();
        self.registering = None;
        self.registered.push(User { id: answer["user"]["id"].as_str().expect("an id").to_owned(), ..user });
        Some(())
    }

    /// All that was acknowledged is there, and nothing twice.
    pub(super) async fn assert_kept(&mut self) {
        // Who has lost their session signs in again.
        self.refreshes().await.expect("the mesh is well again");
        let mut listed = self.list().await;
        for Owned { id, valid, .. } in &self.properties {
            let found = listed.remove(id);
            assert!(valid.contains(&found), "property {id} is {found:?}, and was acknowledged to be one of {valid:?}");
        }
        for id in &self.deleted {
            assert_eq!(listed.get(id), None, "property {id} was deleted");
        }
        let pending = self.creating.take().map(|(_, name)| name);
        let unknown: Vec<_> = listed.into_values().filter(|name| Some(name) != pending.as_ref()).collect();
        assert!(unknown.is_empty(), "nobody was told of {unknown:?}");

        for user in std::mem::take(&mut self.registered) {
            let tokens = user.sign_in_at(self.front.next()).await;
            let me = self.front.next().get("/v1/users/me").bearer(&tokens.access).send().await.expect(200).json();
            assert_eq!((&me["id"], &me["email"]), (&json!(user.id), &json!(user.email)));
        }
        for Ended { tokens, call } in std::mem::take(&mut self.ended) {
            let me = self.front.next().get("/v1/users/me").bearer(&tokens.access).send().await;
            assert_eq!(me.status, 401, "the session was ended within {:?}", call.end - call.start);
            me.refused(Reason::TokenRevoked);
            let body = json!({"refreshToken": tokens.refresh});
            self.front.next().post("/v1/auth/refresh", body).send().await.refused(Reason::SessionEnded);
        }
    }

    /// Takes no account of sessions whose end was on its way at this moment.
    pub(super) fn forget_ends_at(&mut self, moment: Instant) {
        self.ended.retain(|ended| !ended.call.contains(&moment));
    }

    /// The names of all properties, by id.
    async fn list(&self) -> BTreeMap<String, String> {
        let (mut found, mut page_token) = (BTreeMap::new(), String::new());
        loop {
            let path = format!("/v1/properties?pageSize=200&pageToken={page_token}");
            let page = self.front.next().get(&path).bearer(&self.tokens.access).send().await.expect(200).json();
            for property in page["properties"].as_array().expect("a list") {
                let text = |field: &str| property[field].as_str().expect("a text").to_owned();
                assert_eq!(found.insert(text("id"), text("displayName")), None, "it is listed once");
            }
            let next = page["nextPageToken"].as_str().expect("a text");
            if next.is_empty() {
                return found;
            }
            next.clone_into(&mut page_token);
        }
    }

    fn rest(&self) -> Rest {
        self.front.next()
    }
}

impl Owned {
    fn as_told(property: &Value) -> Self {
        let text = |field: &str| property[field].as_str().unwrap_or_else(|| panic!("{property}")).to_owned();
        Self { id: text("id"), etag: text("etag"), valid: vec![Some(text("displayName"))] }
    }
}
