//! The RPCs, one file per gRPC service, and the conversions to their messages.

mod session_service;
mod watch;

use drystone::session::v1;
use drystone_mesh::time::to_proto;
use uuid::Uuid;

use crate::{
    revocation::{Holder, Revocation, Scope},
    session::Session,
};

/// The message of a session; `current` is the session of the call.
fn to_message(session: Session, current: Option<Uuid>) -> v1::Session {
    v1::Session {
        id: session.id.to_string(),
        user_id: session.user_id.to_string(),
        device: session.device,
        address: session.address,
        create_time: Some(to_proto(session.created_at)),
        last_seen_time: Some(to_proto(session.last_seen_at)),
        idle_expire_time: Some(to_proto(session.idle_expires_at)),
        expire_time: Some(to_proto(session.expires_at)),
        current: current == Some(session.id),
        last_device: session.last_device,
        last_address: session.last_address,
        auth_time: Some(to_proto(session.authentication.at)),
        amr: session.authentication.methods,
    }
}

impl From<Revocation> for v1::Revocation {
    fn from(revocation: Revocation) -> Self {
        let scope = match revocation.scope {
            Scope::Session(id) => v1::revocation::Scope::SessionId(id.to_string()),
            Scope::Tokens { of: Holder::User(user_id), void_until } => {
                v1::revocation::Scope::UserTokens(v1::UserTokens {
                    user_id: user_id.to_string(),
                    before_time: Some(to_proto(void_until)),
                })
            }
            Scope::Tokens { of: Holder::Role(role), void_until } => {
                v1::revocation::Scope::RoleTokens(v1::RoleTokens { role, before_time: Some(to_proto(void_until)) })
            }
            Scope::Key(key_id) => v1::revocation::Scope::KeyId(key_id),
        };
        Self { scope: Some(scope), expire_time: Some(to_proto(revocation.forget_at)) }
    }
}
