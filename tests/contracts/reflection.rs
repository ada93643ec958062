//! gRPC reflection returns the contracts with their custom options.

use std::collections::{BTreeMap, BTreeSet};

use drystone::contract::{Method, Subject};
use drystone_tests::{Mesh, methods, services};
use prost::Message;
use prost_reflect::{DescriptorPool, DynamicMessage, MethodDescriptor, Value};
use prost_types::FileDescriptorProto;
use tonic::transport::Channel;

/// The two versions of the protocol differ only in their package.
macro_rules! reflection {
    ($version:ident) => {
        mod $version {
            use tonic::transport::Channel;
            use tonic_reflection::pb::$version::{
                ServerReflectionRequest, server_reflection_client::ServerReflectionClient,
                server_reflection_request::MessageRequest, server_reflection_response::MessageResponse,
            };

            async fn send_request(channel: Channel, request: MessageRequest) -> MessageResponse {
                let request = ServerReflectionRequest { host: String::new(), message_request: Some(request) };
                let requests = tokio_stream::iter([request]);
                let answers = ServerReflectionClient::new(channel).server_reflection_info(requests).await;
                let answer = answers.unwrap().into_inner().message().await.unwrap().unwrap();
                answer.message_response.unwrap()
            }

            pub(super) async fn services(channel: Channel) -> Vec<String> {
                match send_request(channel, MessageRequest::ListServices(String::new())).await {
                    MessageResponse::ListServicesResponse(list) => {
                        list.service.into_iter().map(|one| one.name).collect()
                    }
                    other => panic!("{other:?}"),
                }
            }

            pub(super) async fn file_of(channel: Channel, symbol: &str) -> Vec<Vec<u8>> {
                files(send_request(channel, MessageRequest::FileContainingSymbol(symbol.to_owned())).await)
            }

            pub(super) async fn file(channel: Channel, name: &str) -> Vec<Vec<u8>> {
                files(send_request(channel, MessageRequest::FileByFilename(name.to_owned())).await)
            }

            fn files(answer: MessageResponse) -> Vec<Vec<u8>> {
                match answer {
                    MessageResponse::FileDescriptorResponse(files) => files.file_descriptor_proto,
                    other => panic!("{other:?}"),
                }
            }
        }
    };
}

reflection!(v1);
reflection!(v1alpha);

#[derive(Clone, Copy)]
enum Version {
    V1,
    V1Alpha,
}

impl Version {
    async fn services(self, channel: Channel) -> Vec<String> {
        match self {
            Self::V1 => v1::services(channel).await,
            Self::V1Alpha => v1alpha::services(channel).await,
        }
    }

    async fn file_of(self, channel: Channel, symbol: &str) -> Vec<Vec<u8>> {
        match self {
            Self::V1 => v1::file_of(channel, symbol).await,
            Self::V1Alpha => v1alpha::file_of(channel, symbol).await,
        }
    }

    async fn file(self, channel: Channel, name: &str) -> Vec<Vec<u8>> {
        match self {
            Self::V1 => v1::file(channel, name).await,
            Self::V1Alpha => v1alpha::file(channel, name).await,
        }
    }

    /// The file of a symbol with all its dependencies, one request each.
    async fn pool(self, channel: Channel, symbol: &str) -> DescriptorPool {
        let (mut files, mut requested) = (BTreeMap::new(), BTreeSet::new());
        let mut found = self.file_of(channel.clone(), symbol).await;
        while let Some(bytes) = found.pop() {
            let file = FileDescriptorProto::decode(&bytes[..]).unwrap();
            files.insert(file.name().to_owned(), bytes);
            for name in file.dependency {
                if requested.insert(name.clone()) {
                    found.extend(self.file(channel.clone(), &name).await);
                }
            }
        }
        DescriptorPool::decode(&file_set(files.values())[..]).unwrap()
    }
}

/// A `FileDescriptorSet` of these encoded files. Decoding them with prost would drop the custom options.
fn file_set<'a>(files: impl Iterator<Item = &'a Vec<u8>>) -> Vec<u8> {
    let mut set = Vec::new();
    for file in files {
        prost::encoding::bytes::encode(1, file, &mut set);
    }
    set
}

#[tokio::test]
async fn reflection_lists_every_service() {
    let mesh = Mesh::shared();
    for version in [Version::V1, Version::V1Alpha] {
        for service in services() {
            let listed: BTreeSet<String> =
                version.services(mesh.channel(service, "operator")).await.into_iter().collect();
            let own = methods()
                .iter()
                .filter(|method| *method.workload == *service)
                .map(|method| method.service().to_owned());
            let own: BTreeSet<String> = own.collect();
            assert!(own.is_subset(&listed), "{service} does not list {own:?}: {listed:?}");
        }
    }
}

#[tokio::test]
async fn both_reflection_versions_return_the_rule_of_every_rpc() {
    let mesh = Mesh::shared();
    for version in [Version::V1, Version::V1Alpha] {
        let mut seen = 0;
        for service in methods().iter().map(|method| method.service()).collect::<BTreeSet<_>>() {
            let workload = &methods().iter().find(|method| method.service() == service).unwrap().workload;
            let pool = version.pool(mesh.channel(workload, "operator"), service).await;
            for rpc in pool.get_service_by_name(service).unwrap().methods() {
                let path = format!("/{service}/{}", rpc.name());
                let method = methods().iter().find(|method| *method.path == *path).unwrap();
                assert_rule(&pool, &rpc, method);
                seen += 1;
            }
        }
        assert_eq!(seen, methods().len());
    }
}

#[track_caller]
fn assert_rule(pool: &DescriptorPool, rpc: &MethodDescriptor, method: &Method) {
    let options = rpc.options();
    let extension = pool.get_extension_by_name("drystone.access.v1.rule").unwrap();
    assert_eq!(extension.number(), 50701);
    assert!(options.has_extension(&extension), "{} has no rule", method.path);
    let rule = options.get_extension(&extension);
    let rule: &DynamicMessage = rule.as_message().unwrap();
    let callers = rule.get_field_by_name("callers").unwrap();
    let callers: Vec<&str> = callers.as_list().unwrap().iter().map(|caller| caller.as_str().unwrap()).collect();
    assert_eq!(callers, method.callers, "{}", method.path);
    let subject = match method.subject {
        Subject::None => 1,
        Subject::User => 2,
        Subject::UserOrOperator => 3,
    };
    assert_eq!(rule.get_field_by_name("subject").as_deref(), Some(&Value::EnumNumber(subject)), "{}", method.path);
    let permission = rule.get_field_by_name("permission").unwrap();
    assert_eq!(permission.as_str().filter(|name| !name.is_empty()), method.permission.as_deref(), "{}", method.path);
}

#[tokio::test]
async fn reflection_returns_validation_rules_and_rest_bindings() {
    let mesh = Mesh::shared();
    let pool = Version::V1.pool(mesh.channel("auth", "operator"), "drystone.auth.v1.AuthService").await;
    let http = pool.get_extension_by_name("google.api.http").unwrap();
    let service = pool.get_service_by_name("drystone.auth.v1.AuthService").unwrap();
    let register = service.methods().find(|rpc| rpc.name() == "Register").unwrap();
    assert!(register.options().has_extension(&http));
    let valid = pool.get_extension_by_name("buf.validate.field").unwrap();
    let password = register.input().get_field_by_name("password").unwrap();
    assert!(password.options().has_extension(&valid));
}
