//! Accounts as messages, and profiles in messages.

use std::collections::BTreeSet;

use drystone::user::v1::{Contact, User, UserStatus};
use drystone_mesh::{clock::Timestamp, error::Error as MeshError, etag, time::to_proto};

use super::invalid;
use crate::{
    Account, DisplayName, Email, Profile, ProfileChange, Status,
    account::TelegramId,
    profile::{self, InvalidProfile},
    role::evaluation::active_roles,
};

/// The fields of an account that can be changed.
pub(super) const MUTABLE_FIELDS: [&str; 8] =
    ["display_name", "given_name", "family_name", "phone", "locale", "time_zone", "avatar", "preferences"];

pub(super) fn to_message(account: Account, now: Timestamp) -> User {
    let Account {
        id,
        email,
        email_verified_at,
        profile,
        telegram_id,
        grants,
        status,
        deletion,
        version,
        created_at,
        updated_at,
    } = account;
    let Profile { display_name, given_name, family_name, phone, locale, time_zone, avatar, preferences } = profile;
    User {
        id: id.to_string(),
        email: email.into_string(),
        display_name: display_name.into_string(),
        roles: active_roles(&grants, now),
        etag: etag::format(version),
        create_time: Some(to_proto(created_at)),
        update_time: Some(to_proto(updated_at)),
        status: to_status(status).into(),
        given_name,
        family_name,
        phone,
        locale,
        time_zone,
        avatar,
        preferences: preferences.into_iter().collect(),
        telegram_id: telegram_id.map_or(0, TelegramId::get),
        delete_time: deletion.map(|deletion| to_proto(deletion.at)),
        purge_time: deletion.map(|deletion| to_proto(deletion.purge_at)),
        email_verified: email_verified_at.is_some(),
    }
}

/// How to address the user of an account.
pub(super) fn to_contact(account: Account) -> Contact {
    let Account { id, email, email_verified_at, profile, status, .. } = account;
    Contact {
        user_id: id.to_string(),
        email: email.into_string(),
        display_name: profile.display_name.into_string(),
        given_name: profile.given_name,
        family_name: profile.family_name,
        locale: profile.locale,
        status: to_status(status).into(),
        email_verified: email_verified_at.is_some(),
    }
}

pub(super) fn to_status(status: Status) -> UserStatus {
    match status {
        Status::Active => UserStatus::Active,
        Status::Disabled => UserStatus::Disabled,
        Status::Deleted => UserStatus::Deleted,
    }
}

/// The e-mail address and the profile of a new account.
pub(super) fn parse_new(user: User) -> Result<(Email, Profile), MeshError> {
    let email = Email::parse(&user.email).map_err(|error| invalid("user.email", &error))?;
    let display_name = parse_display_name("user.display_name", &user.display_name)?;
    let change = parse_change(user, &MUTABLE_FIELDS.into_iter().collect())?;
    Ok((email, Profile::new(display_name).with(change)))
}

/// The change of a profile: of the fields in the mask or, without a mask, of the fields that are set.
pub(super) fn parse_change(user: User, mask: &BTreeSet<&str>) -> Result<ProfileChange, MeshError> {
    let is_changed = |field: &str, is_set: bool| if mask.is_empty() { is_set } else { mask.contains(field) };
    let text = |field: &'static str, text: &str, parse: fn(&str) -> Result<String, InvalidProfile>| {
        let parsed = is_changed(last_part(field), !text.is_empty()).then(|| parse(text)).transpose();
        parsed.map_err(|error| invalid(field, &error))
    };
    Ok(ProfileChange {
        display_name: is_changed("display_name", !user.display_name.is_empty())
            .then(|| parse_display_name("user.display_name", &user.display_name))
            .transpose()?,
        given_name: text("user.given_name", &user.given_name, profile::parse_name)?,
        family_name: text("user.family_name", &user.family_name, profile::parse_name)?,
        phone: text("user.phone", &user.phone, profile::parse_phone)?,
        locale: text("user.locale", &user.locale, profile::parse_locale)?,
        time_zone: text("user.time_zone", &user.time_zone, profile::parse_time_zone)?,
        avatar: text("user.avatar", &user.avatar, profile::parse_avatar)?,
        preferences: is_changed("preferences", !user.preferences.is_empty())
            .then(|| profile::parse_preferences(user.preferences))
            .transpose()
            .map_err(|error| invalid("user.preferences", &error))?,
    })
}

pub(super) fn parse_display_name(field: &'static str, text: &str) -> Result<DisplayName, MeshError> {
    DisplayName::parse(text).map_err(|error| invalid(field, &error))
}

fn last_part(field: &str) -> &str {
    field.rsplit('.').next().unwrap_or(field)
}
