//! Relations between users and properties.

use uuid::Uuid;

/// The relation of a user to a property.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Relation {
    /// The user owns it.
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

/// A user's relation to a property, as a claim in the user's token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Claim {
    /// The property.
    pub property_id: Uuid,
    /// The relation of the user to it.
    pub relation: Relation,
}

impl Claim {
    /// The maximum number of claims in a token: each adds about 50 bytes to every request.
    pub const MAX: u32 = 64;
}
