//! Second factors of users: authenticator apps and backup codes.
//!
//! | file | content |
//! |---|---|
//! | `factor/totp.rs` | codes of authenticator apps |
//! | `factor/backup_code.rs` | backup codes |
//! | `factor/check.rs` | the check of a code |
//! | `factor/tries.rs` | how long somebody waits who has tried wrong ones |
//! | `factor/management.rs` | adding, renaming and removing factors |

pub mod backup_code;
pub(crate) mod check;
pub(crate) mod management;
pub mod totp;
pub mod tries;

use std::time::Duration;

use drystone_mesh::clock::Timestamp;
use drystone_store::sealing::Sealed;
use uuid::Uuid;
use zeroize::Zeroizing;

use crate::{password::PasswordHash, sign_in_history};

/// How many authenticator apps a user may have.
pub const MAX_FACTORS: u32 = 10;

/// How long a factor that was begun can be confirmed.
pub const CONFIRM_TIMEOUT: Duration = Duration::from_mins(15);

/// How long it is remembered that the code of a step was used: the codes of two hours become valid again if a clock is set back by
/// that.
pub(crate) const USE_RETENTION: Duration = Duration::from_hours(3);

/// An authenticator app of a user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Factor {
    /// Its id.
    pub id: Uuid,
    /// The user.
    pub user_id: Uuid,
    /// Its name.
    pub display_name: String,
    /// When it was begun.
    pub created_at: Timestamp,
    /// When it was last used.
    pub last_used_at: Option<Timestamp>,
}

/// An authenticator app with its secret, sealed at [`crate::store::factor_place`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredFactor {
    /// The app.
    pub factor: Factor,
    /// Its secret.
    pub secret: Sealed,
}

/// A code that somebody has typed.
#[derive(Clone)]
pub enum Code {
    /// Of an authenticator app.
    Totp(Zeroizing<String>),
    /// A backup code.
    Backup(Zeroizing<String>),
}

impl std::fmt::Debug for Code {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Totp(_) => "Totp(..)",
            Self::Backup(_) => "Backup(..)",
        })
    }
}

/// What a right code uses up: it serves once.
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
}

impl FactorUse {
    /// How the user has signed in, with a password besides.
    #[must_use]
    pub const fn sign_in_method(&self) -> sign_in_history::Method {
        match self {
            Self::Totp { .. } => sign_in_history::Method::PasswordAndTotp,
            Self::Backup { .. } => sign_in_history::Method::PasswordAndBackupCode,
        }
    }
}

/// What has changed about the second factors of a user, as the message to them names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Change {
    Removed,
    Disabled,
    Reset,
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
            Self::BackupCodesReplaced => "backup_codes_replaced",
            Self::BackupCodeUsed => "backup_code_used",
        }
    }
}
