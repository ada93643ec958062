//! One command a file: its flags, and what it does.

pub(crate) mod access_show;
pub(crate) mod certs;
pub(crate) mod config_check;
pub(crate) mod config_show;
pub(crate) mod contract_export;
pub(crate) mod export_envoy;
pub(crate) mod health;
pub(crate) mod keys_generate;
pub(crate) mod keys_rewrap;
pub(crate) mod keys_seal;
pub(crate) mod migrate_status;
pub(crate) mod migrate_up;
pub(crate) mod new_service;
pub(crate) mod roles_grant;
pub(crate) mod roles_list;
pub(crate) mod roles_revoke;
pub(crate) mod roles_show;
pub(crate) mod serve;
pub(crate) mod up;
pub(crate) mod users_disable;
pub(crate) mod users_enable;
pub(crate) mod users_list;
pub(crate) mod users_promote;
pub(crate) mod users_show;
