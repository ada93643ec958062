//! The RPCs, one file per gRPC service, with the conversions to their messages.

mod property_service;
