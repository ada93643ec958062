//! What a user can be to a property.

use uuid::Uuid;

/// What a user is to a property.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Relation {
    /// It is theirs.
    Owner,
}

impl Relation {
    /// The name, as in messages and tokens.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Owner => "owner",
        }
    }
}

/// A user's relation to a property, as the user's token claims it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Claim {
    /// The property.
    pub property_id: Uuid,
    /// What the user is to it.
    pub relation: Relation,
}

impl Claim {
    /// How many claims a token carries, at most: each costs some 50 bytes of every request.
    pub const MAX: u32 = 64;
}
