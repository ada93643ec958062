//! What users may do: read with one statement, without their accounts, of which few are in memory among a great number.

use std::sync::Arc;

use drystone_mesh::{clock::Timestamp, email::Email, time::from_micros};
use drystone_store::{places, run};
use sqlx::AssertSqlSafe;
use uuid::Uuid;

use super::{UserStore, accounts::grants_column};
use crate::{
    Error, Status,
    permission::FACTORS_RESET,
    role::{
        Actor, Definitions, Effect, Effective, Grant, GrantRecord, Override, OverrideRecord, Refused, RoleName,
        Subject, evaluation,
    },
};

/// The overrides of an account: `-` for a denial or `+`, the permission, a space, when it expires, and commas between them.
macro_rules! overrides_column {
    () => {
        "(
             SELECT string_agg(
                 CASE WHEN is_denial THEN '-' ELSE '+' END || permission || ' ' || COALESCE(CAST(expires_at AS TEXT), ''), ','
             )
             FROM permission_override
             WHERE permission_override.user_id = account.id
         )"
    };
}
pub(super) use overrides_column;

/// The columns of what a user may do, in the order of [`RightsRow`]. Whether the account is disabled is in an index of those that
/// are.
macro_rules! columns {
    () => {
        concat!(
            "id,
             EXISTS (SELECT 1 FROM account AS inactive WHERE inactive.id = account.id AND inactive.status <> 1), ",
            grants_column!(),
            ", ",
            overrides_column!(),
            ", (SELECT version FROM role_state WHERE id = 1)"
        )
    };
}

/// The last column is the version of the definitions.
type RightsRow = (Uuid, bool, Option<String>, Option<String>, i64);

/// How many users one statement reads, at most: fewer are filled up, so that there are few statements to prepare.
const BATCH_SIZES: [usize; 3] = [1, 10, 100];

/// What a user may do.
#[derive(Debug)]
pub struct Rights {
    /// The user.
    pub user_id: Uuid,
    /// Whether the user can sign in.
    pub status: Status,
    /// The granted roles, also expired ones.
    pub grants: Vec<Grant>,
    /// The overrides, also expired ones.
    pub overrides: Vec<Override>,
    /// The roles and permissions that these name.
    pub definitions: Arc<Definitions>,
}

impl Rights {
    /// What the user may do now. Nothing, if the account is disabled or deleted.
    #[must_use]
    pub fn evaluate(&self, now: Timestamp) -> Effective {
        match self.status {
            Status::Active => evaluation::evaluate(&self.definitions, &self.grants, &self.overrides, now),
            Status::Disabled | Status::Deleted => Effective::default(),
        }
    }

    fn subject(&self, now: Timestamp) -> Subject {
        let (grants, overrides) = (self.grants.clone(), self.overrides.clone());
        Subject::new(&self.definitions, self.user_id, self.status, grants, overrides, now)
    }
}

impl UserStore {
    /// What the user with this id may do.
    pub async fn rights(&self, id: Uuid) -> Result<Option<Rights>, Error> {
        Ok(self.rights_of_all(&[id]).await?.pop())
    }

    /// What the user with this e-mail address, case-insensitive, may do, and whether the address is verified.
    pub async fn rights_by_email(&self, email: &Email) -> Result<Option<(Rights, bool)>, Error> {
        type Row = (Uuid, bool, Option<String>, Option<String>, i64, bool);
        let row = run!(self.db.reader(), |db| {
            sqlx::query_as::<_, Row>(concat!(
                "SELECT ",
                columns!(),
                ", email_verified_at IS NOT NULL FROM account WHERE email_key = $1"
            ))
            .bind(email.key())
            .fetch_optional(db)
            .await?
        });
        let Some((id, is_disabled, grants, overrides, version, is_verified)) = row else { return Ok(None) };
        Ok(Some((self.read_rights((id, is_disabled, grants, overrides, version)).await?, is_verified)))
    }

    /// What the users with these ids may do, at most 100, in any order.
    pub async fn rights_of_all(&self, ids: &[Uuid]) -> Result<Vec<Rights>, Error> {
        let Some(first) = ids.first() else { return Ok(Vec::new()) };
        let size = BATCH_SIZES.into_iter().find(|size| *size >= ids.len()).unwrap_or(ids.len());
        let places = places(1, size);
        let select = concat!("SELECT ", columns!(), " FROM account WHERE id IN (");
        let rows = run!(self.db.reader(), |db| {
            let mut query = sqlx::query_as::<_, RightsRow>(AssertSqlSafe(format!("{select}{places})")));
            for id in ids.iter().chain(std::iter::repeat_n(first, size - ids.len())) {
                query = query.bind(*id);
            }
            query.fetch_all(db).await?
        });
        let mut all = Vec::with_capacity(rows.len());
        for row in rows {
            all.push(self.read_rights(row).await?);
        }
        Ok(all)
    }

    /// Checks whether a user may reset the second factors of another one now.
    ///
    /// # Errors
    /// [`Error::NotFound`] if there is no such other user, [`Error::Refused`].
    pub async fn authorize_factor_reset(&self, by: Uuid, user_id: Uuid, now: Timestamp) -> Result<(), Error> {
        let all = self.rights_of_all(&[by, user_id]).await?;
        let of = |id: Uuid| all.iter().find(|rights| rights.user_id == id);
        // An account that is gone may do nothing.
        let actor = of(by).ok_or(Error::Refused(Refused::PermissionMissing(FACTORS_RESET)))?;
        let user = of(user_id).ok_or(Error::NotFound)?;
        Ok(Actor::User(actor.subject(now)).may_reset_factors(&actor.definitions, &user.subject(now))?)
    }

    async fn read_rights(&self, row: RightsRow) -> Result<Rights, Error> {
        let (user_id, is_disabled, grants, overrides, version) = row;
        Ok(Rights {
            user_id,
            status: if is_disabled { Status::Disabled } else { Status::Active },
            grants: read_grants(grants.as_deref()),
            overrides: read_overrides(overrides.as_deref()),
            definitions: self.definitions_at(version).await?,
        })
    }

    /// The grants and overrides of a user, with who made them.
    pub async fn records(&self, id: Uuid) -> Result<(Vec<GrantRecord>, Vec<OverrideRecord>), Error> {
        let grants = run!(self.db.reader(), |db| {
            sqlx::query_as::<_, (String, Option<i64>, String, i64)>(
                "SELECT role, expires_at, granted_by, granted_at FROM role_grant WHERE user_id = $1 ORDER BY role",
            )
            .bind(id)
            .fetch_all(db)
            .await?
        });
        let overrides = run!(self.db.reader(), |db| {
            sqlx::query_as::<_, (String, bool, Option<i64>, String, String, i64)>(
                "SELECT permission, is_denial, expires_at, reason, set_by, set_at
                 FROM permission_override
                 WHERE user_id = $1
                 ORDER BY permission",
            )
            .bind(id)
            .fetch_all(db)
            .await?
        });
        let grants = grants.into_iter().map(|(role, expires_at, granted_by, granted_at)| GrantRecord {
            grant: Grant { role: RoleName::from_stored(&role), expires_at: expires_at.map(from_micros) },
            granted_by,
            granted_at: from_micros(granted_at),
        });
        let overrides = overrides.into_iter().map(|(permission, is_denial, expires_at, reason, set_by, set_at)| {
            let effect = if is_denial { Effect::Deny } else { Effect::Grant };
            let exception = Override { permission, effect, expires_at: expires_at.map(from_micros) };
            OverrideRecord { exception, reason, set_by, set_at: from_micros(set_at) }
        });
        Ok((grants.collect(), overrides.collect()))
    }
}

/// Reads the grants of a row.
pub(super) fn read_grants(text: Option<&str>) -> Vec<Grant> {
    let grants = text.into_iter().flat_map(|text| text.split(','));
    let grants = grants.filter_map(|grant| {
        let (role, expires_at) = grant.split_once(' ')?;
        Some(Grant { role: RoleName::from_stored(role), expires_at: read_expiry(expires_at) })
    });
    grants.collect()
}

/// Reads the overrides of a row.
pub(super) fn read_overrides(text: Option<&str>) -> Vec<Override> {
    let overrides = text.into_iter().flat_map(|text| text.split(','));
    let overrides = overrides.filter_map(|one| {
        let (sign, rest) = one.split_at_checked(1)?;
        let (permission, expires_at) = rest.split_once(' ')?;
        let effect = if sign == "+" { Effect::Grant } else { Effect::Deny };
        Some(Override { permission: permission.to_owned(), effect, expires_at: read_expiry(expires_at) })
    });
    overrides.collect()
}

fn read_expiry(text: &str) -> Option<Timestamp> {
    text.parse().ok().map(from_micros)
}
