//! Generates the echo service of the transport benchmark: one unary RPC, without a contract.

fn main() {
    let echo = tonic_build::manual::Method::builder()
        .name("echo")
        .route_name("Echo")
        .input_type("drystone::user::v1::User")
        .output_type("drystone::user::v1::User")
        .codec_path("tonic_prost::ProstCodec")
        .build();
    let service = tonic_build::manual::Service::builder().name("Echo").package("bench").method(echo).build();
    tonic_build::manual::Builder::new().compile(&[service]);
}
