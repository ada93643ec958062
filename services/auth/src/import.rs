//! Imports of accounts with the hashes of their passwords.
//!
//! As for a [registration](crate::register), the credential is inserted first, pending and with a new user id; then the user service
//! creates the account with that id, or refuses it. What is interrupted in between is confirmed or removed by the
//! [`OrphanSweep`](crate::orphan_sweep::OrphanSweep), and repeating the import goes on with the accounts that are not there yet.

use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, Instant},
};

use drystone::{
    auth::v1::{ImportOutcome, ImportResult, ImportUsersRequest, ImportedUser},
    user::v1::{NewUser, ProvisionResult},
};
use drystone_mesh::{
    call::Call,
    clock::{Clock, Timestamp},
    email::Email,
    error::Chain,
    id,
    time::from_proto,
};
use tracing::debug;
use uuid::Uuid;

use crate::{
    credential::Credential,
    error::Error,
    password::{HashError, PasswordHash, typed_password::PasswordForm},
    store::AuthStore,
    upstreams::Upstreams,
};

/// The deadline of a call to the user service.
const TIMEOUT: Duration = Duration::from_secs(30);

/// Imports accounts.
#[derive(Clone)]
pub struct UserImport {
    /// The other services.
    pub upstreams: Arc<dyn Upstreams>,
    /// The store of credentials.
    pub store: AuthStore,
    /// Source of time.
    pub clock: Clock,
}

/// An account that was not imported before.
struct Pending {
    /// Its place in the request.
    index: usize,
    user: NewUser,
    password_hash: Option<PasswordHash>,
    user_id: Uuid,
}

impl UserImport {
    /// Imports the accounts of a request. Returns what became of each, in their order.
    ///
    /// # Errors
    /// Of the user service and the store: the import can be repeated.
    pub async fn import(&self, request: ImportUsersRequest) -> Result<Vec<ImportResult>, Error> {
        let ImportUsersRequest { source, mut users } = request;
        for user in &mut users {
            if user.external_id.is_empty() {
                let email = user.user.as_ref().map(|user| user.email.as_str()).unwrap_or_default();
                user.external_id = Email::parse(email).map(|email| email.key()).unwrap_or_default();
            }
        }
        let now = self.clock.now();
        let existing = self.existing(&source, &users).await?;
        let mut results = Vec::with_capacity(users.len());
        let mut pending = Vec::new();
        for (index, user) in users.into_iter().enumerate() {
            let result = match (existing.get(&user.external_id), read(index, user, now)) {
                (Some(id), _) => imported(ImportOutcome::Existed, id),
                (None, Ok(account)) => {
                    pending.push(account);
                    // Until the user service has answered.
                    ImportResult::default()
                }
                (None, Err(refusal)) => refused(refusal),
            };
            results.push(result);
        }
        if !pending.is_empty() {
            for (index, result) in self.provision(source, pending, now).await? {
                if let Some(place) = results.get_mut(index) {
                    *place = result;
                }
            }
        }
        Ok(results)
    }

    /// The accounts that were imported before, by their ids in the source.
    async fn existing(&self, source: &str, users: &[ImportedUser]) -> Result<HashMap<String, String>, Error> {
        let ids = users.iter().map(|user| user.external_id.clone());
        // The user service refuses the others.
        let is_valid = |id: &String| (1..=254).contains(&id.chars().count()) && !id.chars().any(char::is_control);
        let ids: Vec<_> = ids.filter(is_valid).collect();
        if ids.is_empty() {
            return Ok(HashMap::new());
        }
        let found = self.upstreams.look_up_imported(&background(), source, ids.clone()).await?;
        Ok(ids.into_iter().zip(found).filter(|(_, user_id)| !user_id.is_empty()).collect())
    }

    async fn provision(
        &self,
        source: String,
        pending: Vec<Pending>,
        now: Timestamp,
    ) -> Result<Vec<(usize, ImportResult)>, Error> {
        let credentials: Vec<_> = pending.iter().filter_map(|account| account.credential(now)).collect();
        self.store.insert_credentials(&credentials).await?;
        let mut places = Vec::with_capacity(pending.len());
        let mut users = Vec::with_capacity(pending.len());
        for Pending { index, user, user_id, .. } in pending {
            places.push((index, user_id));
            users.push(user);
        }
        let answers = self.upstreams.provision_users(&background(), source, users).await?;
        if answers.len() != places.len() {
            return Err(Error::InvalidResponse("the user service", "a result for each account"));
        }
        let (mut created, mut unused) = (Vec::new(), Vec::new());
        let mut results = Vec::with_capacity(places.len());
        for ((index, id), ProvisionResult { user_id, refusal }) in places.into_iter().zip(answers) {
            let result = if !refusal.is_empty() {
                unused.push(id);
                refused(refusal)
            } else if user_id == id.to_string() {
                created.push(id);
                imported(ImportOutcome::Imported, &user_id)
            } else {
                unused.push(id);
                imported(ImportOutcome::Existed, &user_id)
            };
            results.push((index, result));
        }
        // What fails here is done by the sweep.
        if let Err(error) = self.store.confirm_credentials(&created).await {
            debug!(cause = %Chain(&error), "imported credentials not confirmed");
        }
        if let Err(error) = self.store.delete_pending_credentials(&unused, now).await {
            debug!(cause = %Chain(&error), "credentials of refused accounts not deleted");
        }
        Ok(results)
    }
}

impl Pending {
    fn credential(&self, now: Timestamp) -> Option<Credential> {
        Some(Credential {
            user_id: self.user_id,
            password_hash: self.password_hash.clone()?,
            // What other systems hash is the text as it was typed.
            form: PasswordForm::Raw,
            request_id: None,
            pending_since: Some(now),
            created_at: now,
            updated_at: now,
            reset_required_at: None,
            recovered_at: None,
            second_factor_since: None,
        })
    }
}

/// Reads what this service needs to know of an account; the user service checks the rest.
fn read(index: usize, user: ImportedUser, now: Timestamp) -> Result<Pending, String> {
    let password_hash = match user.password_hash.as_str() {
        "" => None,
        text => Some(text.parse::<PasswordHash>().map_err(|error| unusable(&error))?),
    };
    // Lists are in the order of ids.
    let created_at = user.create_time.as_ref().and_then(from_proto).filter(|time| *time <= now);
    let user_id = id::v7_at(created_at.unwrap_or(now));
    let ImportedUser { user, external_id, roles, status, create_time, telegram_id, password_hash: _, email_verified } =
        user;
    let user_id_text = user_id.to_string();
    let user =
        NewUser { user_id: user_id_text, user, external_id, roles, status, create_time, telegram_id, email_verified };
    Ok(Pending { index, user, password_hash, user_id })
}

fn unusable(error: &HashError) -> String {
    let text = match error {
        HashError::Cost => "takes too long to check, or has a cost that is out of range",
        _ => "must be a hash by Argon2, bcrypt, PBKDF2 or scrypt in a form that is known",
    };
    format!("password_hash: {text}")
}

fn background() -> Call {
    Call::background(Some(Instant::now() + TIMEOUT))
}

fn imported(outcome: ImportOutcome, user_id: &str) -> ImportResult {
    ImportResult { outcome: outcome.into(), user_id: user_id.to_owned(), refusal: String::new() }
}

fn refused(refusal: String) -> ImportResult {
    ImportResult { outcome: ImportOutcome::Refused.into(), user_id: String::new(), refusal }
}
