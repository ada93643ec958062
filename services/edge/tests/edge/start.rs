//! Contracts that cannot be served fail the start. The checks of a contract alone are tested in `drystone-contract`.

use drystone::contract::{Contracts, EncodedContract};
use drystone_edge::{Config, RequestLimit, Service, StartError};
use drystone_mesh::{health::Health, telemetry::Metrics};
use drystone_tests::fixture;

use crate::backend::FakeBackend;

fn start(contracts: &Contracts) -> Result<Service<FakeBackend>, StartError> {
    let (connect, limit) = (|_: &str| Ok(FakeBackend::echo()), RequestLimit::none());
    let (health, metrics, config) = (Health::new(), Metrics::default(), Config::default());
    Service::with_channels(contracts, connect, &health, &metrics, config, limit, crate::without_keys())
}

/// The error for a contract whose only RPC has this path.
fn fault(path: &str) -> String {
    let proto = format!(
        "syntax = \"proto3\";
        package acme.fixture.v1;
        import \"drystone/access/v1/access.proto\";
        import \"google/api/annotations.proto\";
        service S {{
          option (drystone.access.v1.workload) = \"fixture\";
          rpc Do(M) returns (M) {{
            option idempotency_level = NO_SIDE_EFFECTS;
            option (google.api.http) = {{get: \"{path}\"}};
            option (drystone.access.v1.rule) = {{callers: \"outside\" subject: SUBJECT_NONE}};
          }}
        }}
        message M {{ string text = 1; }}"
    );
    let contract = EncodedContract::from_bytes("fixture", fixture::compile(&proto).unwrap());
    let contracts = match Contracts::load([contract]) {
        Ok(contracts) => contracts,
        Err(error) => return error.to_string(),
    };
    start(&contracts).err().map_or_else(|| "none".to_owned(), |error| error.to_string())
}

#[test]
fn the_contracts_of_drystone_can_be_served() {
    assert!(start(&drystone::contracts().unwrap()).is_ok());
}

#[test]
fn the_health_path_is_reserved() {
    assert_eq!(fault("/v1/x"), "none");
    let fault = fault("/health");
    assert!(fault.contains("acme.fixture.v1.S.Do") && fault.contains("reserved for the health of the edge"), "{fault}");
}
