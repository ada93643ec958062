//! What users may do: read with one statement for each user.

use std::sync::Arc;

use drystone_mesh::{clock::Timestamp, email::Email, time::from_micros};
use drystone_store::run;
use sqlx::AssertSqlSafe;
use uuid::Uuid;

use super::{AccountRow, UserStore, columns, grants_column, read_account};
use crate::{
    Account, Error, Status,
    role::{Definitions, Effect, Effective, Grant, GrantRecord, Override, OverrideRecord, RoleName, evaluation},
};

/// The version of the definitions, and the overrides of an account: `-` for a denial or `+`, the permission, a space, when it
/// expires, and commas between them.
macro_rules! access_columns {
    () => {
        "(SELECT version FROM role_state WHERE id = 1),
         (
             SELECT string_agg(
                 CASE WHEN is_denial THEN '-' ELSE '+' END || permission || ' ' || COALESCE(CAST(expires_at AS TEXT), ''), ','
             )
             FROM permission_override
             WHERE permission_override.user_id = account.id
         )"
    };
}

type AccessRow = (Uuid, String, String, i64, i64, i64, i16, Option<String>, i64, Option<String>);

type RightsRow = (Uuid, bool, Option<String>, i64, Option<String>);

/// How many users one statement reads, at most: fewer are filled up, so that there are few statements to prepare.
const BATCH_SIZES: [usize; 3] = [1, 10, 100];

/// An account, and what its user may do.
#[derive(Debug)]
pub struct Access {
    /// The account.
    pub account: Account,
    /// The overrides, also expired ones.
    pub overrides: Vec<Override>,
    /// The roles and permissions that these name.
    pub definitions: Arc<Definitions>,
}

impl Access {
    /// What the user may do now. Nothing, if the account is disabled.
    #[must_use]
    pub fn evaluate(&self, now: Timestamp) -> Effective {
        if self.account.status != Status::Active {
            return Effective::default();
        }
        evaluation::evaluate(&self.definitions, &self.account.grants, &self.overrides, now)
    }
}

/// What a user may do.
#[derive(Debug)]
pub struct Rights {
    /// The user.
    pub user_id: Uuid,
    /// Whether the account is disabled.
    pub is_disabled: bool,
    grants: Vec<Grant>,
    overrides: Vec<Override>,
    definitions: Arc<Definitions>,
}

impl Rights {
    /// What the user may do now. Nothing, if the account is disabled.
    #[must_use]
    pub fn evaluate(&self, now: Timestamp) -> Effective {
        if self.is_disabled {
            return Effective::default();
        }
        evaluation::evaluate(&self.definitions, &self.grants, &self.overrides, now)
    }

    /// The roles and permissions that these name.
    #[must_use]
    pub fn definitions(&self) -> &Definitions {
        &self.definitions
    }
}

impl UserStore {
    /// The account with this id, and what its user may do.
    pub async fn access(&self, id: Uuid) -> Result<Option<Access>, Error> {
        let row = run!(self.db.reader(), |db| {
            sqlx::query_as::<_, AccessRow>(concat!(
                "SELECT ",
                columns!(),
                ", ",
                access_columns!(),
                " FROM account WHERE id = $1"
            ))
            .bind(id)
            .fetch_optional(db)
            .await?
        });
        self.read_access(row).await
    }

    /// The account with this e-mail address, case-insensitive, and what its user may do.
    pub async fn access_by_email(&self, email: &Email) -> Result<Option<Access>, Error> {
        let row = run!(self.db.reader(), |db| {
            sqlx::query_as::<_, AccessRow>(concat!(
                "SELECT ",
                columns!(),
                ", ",
                access_columns!(),
                " FROM account WHERE email_key = $1"
            ))
            .bind(email.key())
            .fetch_optional(db)
            .await?
        });
        self.read_access(row).await
    }

    /// What the users with these ids may do, at most 100, in any order. Their accounts are not read: of a great number of them few
    /// are in memory.
    pub async fn rights(&self, ids: &[Uuid]) -> Result<Vec<Rights>, Error> {
        let Some(first) = ids.first() else { return Ok(Vec::new()) };
        let size = BATCH_SIZES.into_iter().find(|size| *size >= ids.len()).unwrap_or(ids.len());
        let places = (1..=size).map(|number| format!("${number}")).collect::<Vec<_>>().join(", ");
        let select = concat!(
            "SELECT id,
                 EXISTS (SELECT 1 FROM account AS inactive WHERE inactive.id = account.id AND inactive.status <> 1), ",
            grants_column!(),
            ", ",
            access_columns!(),
            " FROM account WHERE id IN ("
        );
        let rows = run!(self.db.reader(), |db| {
            let mut query = sqlx::query_as::<_, RightsRow>(AssertSqlSafe(format!("{select}{places})")));
            for id in ids.iter().chain(std::iter::repeat_n(first, size - ids.len())) {
                query = query.bind(*id);
            }
            query.fetch_all(db).await?
        });
        let mut all = Vec::with_capacity(rows.len());
        for (user_id, is_disabled, grants, definitions, overrides) in rows {
            all.push(Rights {
                user_id,
                is_disabled,
                grants: read_grants(grants.as_deref()),
                overrides: read_overrides(overrides.as_deref()),
                definitions: self.definitions_at(definitions).await?,
            });
        }
        Ok(all)
    }

    async fn read_access(&self, row: Option<AccessRow>) -> Result<Option<Access>, Error> {
        let Some((id, email, name, version, created_at, updated_at, status, grants, definitions, overrides)) = row
        else {
            return Ok(None);
        };
        let row: AccountRow = (id, email, name, version, created_at, updated_at, status, grants);
        let (account, overrides) = (read_account(row), read_overrides(overrides.as_deref()));
        Ok(Some(Access { account, overrides, definitions: self.definitions_at(definitions).await? }))
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
