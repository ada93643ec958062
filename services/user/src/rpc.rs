//! The RPCs, one file per gRPC service, with the conversions to their messages.

mod user_service;
