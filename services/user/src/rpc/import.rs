//! Accounts of an import, each of which is imported or refused by itself.

use drystone::user::v1::{NewUser, ProvisionResult, UserStatus};
use drystone_mesh::{clock::Timestamp, error::Error as MeshError, id, time::from_proto};

use super::{parse_role, user_message::parse_new};
use crate::{
    Error, NewAccount, Status,
    account::TelegramId,
    role::MAX_GRANTS,
    store::{Import, Provisioned, UserStore},
};

const MAX_EXTERNAL_ID_LENGTH: usize = 254;

/// Creates the accounts that it can. Returns what became of each.
pub(super) async fn provision(
    store: &UserStore,
    source: &str,
    users: Vec<NewUser>,
    now: Timestamp,
) -> Result<Vec<ProvisionResult>, Error> {
    let (mut imports, mut results) = (Vec::new(), Vec::new());
    for user in users {
        results.push(match parse(user, now) {
            Ok(import) => {
                imports.push(import);
                None
            }
            Err(error) => Some(refused(error.message().to_owned())),
        });
    }
    let mut provisioned = imports.iter().zip(store.provision(source, &imports, now).await?);
    let results = results.into_iter().map(|result| {
        result.or_else(|| provisioned.next().map(|(import, outcome)| to_result(import, outcome))).unwrap_or_default()
    });
    Ok(results.collect())
}

fn to_result(import: &Import, outcome: Provisioned) -> ProvisionResult {
    match outcome {
        Provisioned::Created => ProvisionResult { user_id: import.account.id.to_string(), refusal: String::new() },
        Provisioned::Existed(id) => ProvisionResult { user_id: id.to_string(), refusal: String::new() },
        Provisioned::Duplicate => refused("another account of the import has this external id".to_owned()),
        Provisioned::Taken => refused("another account has this e-mail address or Telegram user".to_owned()),
        Provisioned::UnknownRole(role) => refused(format!("there is no role `{role}`; create it first")),
    }
}

fn refused(refusal: String) -> ProvisionResult {
    ProvisionResult { user_id: String::new(), refusal }
}

fn parse(new: NewUser, now: Timestamp) -> Result<Import, MeshError> {
    let (email, profile) = parse_new(new.user.clone().unwrap_or_default())?;
    let id = &new.external_id;
    if id.is_empty() || id.chars().count() > MAX_EXTERNAL_ID_LENGTH || id.chars().any(char::is_control) {
        let text = "must have 1 to 254 characters, and no control characters";
        return Err(MeshError::invalid_field("external_id", text));
    }
    let status = match new.status() {
        UserStatus::Unspecified | UserStatus::Active => Status::Active,
        UserStatus::Disabled => Status::Disabled,
        UserStatus::Deleted => {
            return Err(MeshError::invalid_field("status", "must be active or disabled; leave deleted accounts out"));
        }
    };
    let created_at = match &new.create_time {
        None => now,
        // Other systems write what they do not know as the year 0 or 1.
        Some(time) => {
            from_proto(time).filter(|time| (Timestamp::UNIX_EPOCH..=now).contains(time)).ok_or_else(|| {
                MeshError::invalid_field("create_time", "must be a time since 1970, and not in the future")
            })?
        }
    };
    if new.roles.len() > MAX_GRANTS {
        return Err(MeshError::invalid_field("roles", format!("must be at most {MAX_GRANTS}")));
    }
    if new.telegram_id < 0 {
        return Err(MeshError::invalid_field("telegram_id", "must be the positive id of a Telegram user"));
    }
    let roles = new.roles.iter().map(|role| parse_role("roles", role)).collect::<Result<_, _>>()?;
    Ok(Import {
        account: NewAccount { id: id::parse("user_id", &new.user_id)?, email, profile },
        external_id: new.external_id,
        roles,
        status,
        telegram_id: TelegramId::new(new.telegram_id),
        created_at,
        email_verified: new.email_verified,
    })
}
