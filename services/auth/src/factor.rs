//! Second factors of users: authenticator apps, passkeys and backup codes.
//!
//! | file | content |
//! |---|---|
//! | `factor/totp.rs` | codes of authenticator apps |
//! | `factor/backup_code.rs` | backup codes |
//! | `factor/passkey.rs` | what is asked of browsers for passkeys, and the check of what they send |
//! | `factor/check.rs` | the check of a code or passkey |
//! | `factor/tries.rs` | how long somebody waits who has tried wrong ones |
//! | `factor/management.rs` | adding apps, renaming and removing factors |
//! | `factor/resets.rs` | resets by administrators |
//! | `factor/passkey_registration.rs` | adding passkeys |
//! | `factor/addition.rs` | what follows from a new factor |
//! | `factor/requirement.rs`, `factor/enrolment.rs` | roles whose users need a second factor, and how they add it while they sign in |

mod addition;
pub mod backup_code;
pub(crate) mod check;
mod enrolment;
pub(crate) mod management;
pub mod passkey;
mod passkey_registration;
pub mod requirement;
mod resets;
pub mod totp;
pub mod tries;

use std::time::Duration;

use drystone_mesh::clock::Timestamp;
use drystone_store::sealing::Sealed;
use drystone_webauthn::AuthenticationResponse;
use uuid::Uuid;
use zeroize::Zeroizing;

pub(crate) use self::addition::Added;
use self::passkey::PasskeyUse;
use crate::{authentication::Method, password::PasswordHash, sign_in_history};

/// How many authenticator apps and passkeys a user may have.
pub const MAX_FACTORS: u32 = 10;

/// How long a factor that was begun can be confirmed.
pub const CONFIRM_TIMEOUT: Duration = Duration::from_mins(15);

/// How long it is remembered that the code of a step was used: the codes of two hours become valid again if a clock is set back by
/// that.
pub(crate) const USE_RETENTION: Duration = Duration::from_hours(3);

/// The kind of a second factor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FactorKind {
    /// An authenticator app.
    Totp,
    /// A passkey.
    Passkey,
    /// A backup code.
    BackupCode,
    /// What a later release knows.
    Unknown,
}

impl FactorKind {
    /// The name in metrics.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Totp => "totp",
            Self::Passkey => "passkey",
            Self::BackupCode => "backup_code",
            Self::Unknown => "unknown",
        }
    }

    pub(crate) const fn to_column(self) -> i16 {
        match self {
            Self::Unknown | Self::BackupCode => 0,
            Self::Totp => 1,
            Self::Passkey => 2,
        }
    }

    pub(crate) const fn from_column(column: i16) -> Self {
        match column {
            1 => Self::Totp,
            2 => Self::Passkey,
            _ => Self::Unknown,
        }
    }
}

/// An authenticator app or a passkey of a user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Factor {
    /// Its id.
    pub id: Uuid,
    /// The user.
    pub user_id: Uuid,
    /// Its kind.
    pub kind: FactorKind,
    /// Its name.
    pub display_name: String,
    /// When it was begun.
    pub created_at: Timestamp,
    /// When it was last used.
    pub last_used_at: Option<Timestamp>,
}

/// A factor with its secret, sealed at [`crate::store::factor_place`]. That of a passkey is empty.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredFactor {
    /// The factor.
    pub factor: Factor,
    /// Its secret.
    pub secret: Sealed,
}

/// A reset of the second factors of a user that waits until it is due, so that the user can cancel it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FactorReset {
    /// The user.
    pub user_id: Uuid,
    /// The administrator who has requested it; `None`: the operator.
    pub requested_by: Option<Uuid>,
    /// When the factors are removed.
    pub due_at: Timestamp,
    /// When it was requested.
    pub created_at: Timestamp,
}

/// What somebody proves a second factor by.
#[derive(Clone)]
pub enum FactorProof {
    /// A code of an authenticator app.
    Totp(Zeroizing<String>),
    /// A backup code.
    Backup(Zeroizing<String>),
    /// What a browser has sent of a passkey.
    Passkey(Box<AuthenticationResponse>),
}

impl std::fmt::Debug for FactorProof {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Totp(_) => "Totp(..)",
            Self::Backup(_) => "Backup(..)",
            Self::Passkey(_) => "Passkey(..)",
        })
    }
}

impl FactorProof {
    /// The kind of factor.
    #[must_use]
    pub const fn kind(&self) -> FactorKind {
        match self {
            Self::Totp(_) => FactorKind::Totp,
            Self::Backup(_) => FactorKind::BackupCode,
            Self::Passkey(_) => FactorKind::Passkey,
        }
    }

    /// How the user signs in, with a password besides.
    #[must_use]
    pub const fn sign_in_method(&self) -> sign_in_history::Method {
        match self {
            Self::Totp(_) => sign_in_history::Method::PasswordAndTotp,
            Self::Backup(_) => sign_in_history::Method::PasswordAndBackupCode,
            Self::Passkey(_) => sign_in_history::Method::PasswordAndPasskey,
        }
    }
}

/// What a right proof uses up: it serves once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FactorUse {
    /// The code of a step.
    Totp {
        /// The authenticator app.
        factor_id: Uuid,
        /// The step.
        step: i64,
    },
    /// A backup code.
    Backup {
        /// Which of the ten.
        number: u8,
        /// Its hash, as it is stored.
        hash: PasswordHash,
    },
    /// A passkey.
    Passkey(PasskeyUse),
}

impl FactorUse {
    /// The method of authentication.
    #[must_use]
    pub const fn method(&self) -> Method {
        match self {
            Self::Totp { .. } | Self::Backup { .. } => Method::OneTimePassword,
            Self::Passkey(PasskeyUse { method, .. }) => *method,
        }
    }
}

/// What has changed about the second factors of a user, as the message to them names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Change {
    Removed,
    Disabled,
    Reset,
    ResetRequested,
    ResetCancelled,
    BackupCodesReplaced,
    BackupCodeUsed,
}

impl Change {
    /// As the template `second_factor_changed` knows it.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Removed => "removed",
            Self::Disabled => "disabled",
            Self::Reset => "reset",
            Self::ResetRequested => "reset_requested",
            Self::ResetCancelled => "reset_cancelled",
            Self::BackupCodesReplaced => "backup_codes_replaced",
            Self::BackupCodeUsed => "backup_code_used",
        }
    }
}
