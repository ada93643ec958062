//! gRPC server reflection: the encoded contracts, with custom options and comments.
//!
//! It uses the types of tonic-reflection. The service of tonic-reflection ends the stream if something is not found, does not
//! support extensions, and keeps every contract decoded for each version of the protocol.

mod descriptor;
mod index;

use std::{
    collections::{HashMap, HashSet},
    pin::Pin,
    sync::Arc,
};

use bytes::Bytes;
use drystone::contract::Contracts;
use futures_util::{Stream, stream};
use prost::Message as _;
use tonic::{Code, Request, Response, Status, Streaming, server::NamedService};
use tonic_reflection::pb;

pub(super) use self::index::DescriptorIndex;
use super::{DynService, TonicService};
use crate::error::Error;

type Services = HashMap<&'static str, Arc<dyn DynService>>;

/// The maximum size of a request, in bytes: the response contains it.
const MAX_REQUEST_LENGTH: usize = 4096;

/// The contracts of the mesh, and of the services that every server has.
pub(super) fn descriptors(contracts: &Contracts) -> Result<DescriptorIndex, Error> {
    let own = contracts.contracts().iter().map(|contract| match contract.static_descriptor_set() {
        Some(set) => Bytes::from_static(set),
        None => Bytes::copy_from_slice(contract.descriptor_set()),
    });
    let built_in = [
        tonic_health::pb::FILE_DESCRIPTOR_SET,
        // So that tools can decode error details.
        tonic_types::pb::FILE_DESCRIPTOR_SET,
        pb::v1::FILE_DESCRIPTOR_SET,
        pb::v1alpha::FILE_DESCRIPTOR_SET,
    ];
    DescriptorIndex::new(own.chain(built_in.map(Bytes::from_static))).map_err(Error::internal)
}

/// The reflection services of a server with these services: v1, and v1alpha for older tools.
pub(super) fn services(index: Arc<DescriptorIndex>, served: impl IntoIterator<Item = &'static str>) -> Services {
    use pb::{
        v1::server_reflection_server::ServerReflectionServer as V1,
        v1alpha::server_reflection_server::ServerReflectionServer as V1Alpha,
    };

    let mut served: Vec<&'static str> = served.into_iter().collect();
    served.extend([V1::<Reflection>::NAME, V1Alpha::<Reflection>::NAME]);
    served.sort_unstable();
    served.dedup();
    let reflection = Reflection { index, served: served.into() };
    HashMap::from([named(V1::new(reflection.clone())), named(V1Alpha::new(reflection))])
}

fn named<S: TonicService + NamedService>(service: S) -> (&'static str, Arc<dyn DynService>) {
    (S::NAME, Arc::new(service))
}

/// Both versions of `ServerReflection`. Clones share the contracts.
#[derive(Debug, Clone)]
struct Reflection {
    index: Arc<DescriptorIndex>,
    /// The services of this server.
    served: Arc<[&'static str]>,
}

/// A request of either version of the protocol.
#[derive(Debug)]
enum ReflectionRequest<'a> {
    File(&'a str),
    Symbol(&'a str),
    Extension { message: &'a str, number: i32 },
    ExtensionNumbers(&'a str),
    Services,
}

/// A response.
#[derive(Debug, PartialEq)]
enum ReflectionResponse {
    Files(Vec<Bytes>),
    ExtensionNumbers { message: String, numbers: Vec<i32> },
    Services(Arc<[&'static str]>),
    Failed(Code, &'static str),
}

/// One reflection stream.
struct ReflectionStream {
    reflection: Reflection,
    /// The names of the files already sent on the stream.
    sent: HashSet<Arc<str>>,
}

impl ReflectionStream {
    fn answer(&mut self, request: &ReflectionRequest<'_>) -> ReflectionResponse {
        let Self { reflection: Reflection { index, served }, sent } = self;
        let (found, missing) = match *request {
            ReflectionRequest::File(name) => (index.file(name), "no file has this name"),
            ReflectionRequest::Symbol(name) => (index.file_with_symbol(name), "no symbol has this name"),
            ReflectionRequest::Extension { message, number } => {
                (index.file_with_extension(message, number), "the message has no extension with this number")
            }
            ReflectionRequest::ExtensionNumbers(message) => {
                return match index.extension_numbers(message) {
                    Some(numbers) => ReflectionResponse::ExtensionNumbers { message: message.to_owned(), numbers },
                    None => ReflectionResponse::Failed(Code::NotFound, "no message has this name"),
                };
            }
            ReflectionRequest::Services => return ReflectionResponse::Services(served.clone()),
        };
        found.map_or(ReflectionResponse::Failed(Code::NotFound, missing), |file| {
            ReflectionResponse::Files(index.with_dependencies(file, sent))
        })
    }
}

/// Implements a version of the protocol: the two differ only in their package.
macro_rules! version {
    ($version:ident) => {
        mod $version {
            use pb::$version::{
                ErrorResponse, ExtensionNumberResponse, FileDescriptorResponse, ListServiceResponse,
                ServerReflectionRequest, ServerReflectionResponse, ServiceResponse,
                server_reflection_request::MessageRequest, server_reflection_response::MessageResponse,
                server_reflection_server::ServerReflection,
            };

            use super::*;

            #[tonic::async_trait]
            impl ServerReflection for Reflection {
                type ServerReflectionInfoStream =
                    Pin<Box<dyn Stream<Item = Result<ServerReflectionResponse, Status>> + Send>>;

                async fn server_reflection_info(
                    &self,
                    request: Request<Streaming<ServerReflectionRequest>>,
                ) -> Result<Response<Self::ServerReflectionInfoStream>, Status> {
                    let stream = ReflectionStream { reflection: self.clone(), sent: HashSet::new() };
                    let answers = stream::unfold(Some((request.into_inner(), stream)), |state| async move {
                        let (mut requests, mut stream) = state?;
                        match requests.message().await.transpose()? {
                            Ok(request) => Some((Ok(answer(&mut stream, request)), Some((requests, stream)))),
                            Err(status) => Some((Err(status), None)),
                        }
                    });
                    Ok(Response::new(Box::pin(answers)))
                }
            }

            pub(super) fn answer(
                stream: &mut ReflectionStream,
                request: ServerReflectionRequest,
            ) -> ServerReflectionResponse {
                if request.encoded_len() > MAX_REQUEST_LENGTH {
                    let too_long = ReflectionResponse::Failed(Code::InvalidArgument, "the request is too long");
                    return ServerReflectionResponse { message_response: Some(too_long.into()), ..Default::default() };
                }
                let answer = match &request.message_request {
                    Some(request) => stream.answer(&request.into()),
                    None => ReflectionResponse::Failed(
                        Code::InvalidArgument,
                        "the request asks for nothing; set `message_request`",
                    ),
                };
                ServerReflectionResponse {
                    valid_host: request.host.clone(),
                    original_request: Some(request),
                    message_response: Some(answer.into()),
                }
            }

            impl<'a> From<&'a MessageRequest> for ReflectionRequest<'a> {
                fn from(request: &'a MessageRequest) -> Self {
                    match request {
                        MessageRequest::FileByFilename(name) => Self::File(name),
                        MessageRequest::FileContainingSymbol(name) => Self::Symbol(name),
                        MessageRequest::FileContainingExtension(extension) => {
                            Self::Extension { message: &extension.containing_type, number: extension.extension_number }
                        }
                        MessageRequest::AllExtensionNumbersOfType(message) => Self::ExtensionNumbers(message),
                        MessageRequest::ListServices(_) => Self::Services,
                    }
                }
            }

            impl From<ReflectionResponse> for MessageResponse {
                fn from(answer: ReflectionResponse) -> Self {
                    match answer {
                        ReflectionResponse::Files(files) => Self::FileDescriptorResponse(FileDescriptorResponse {
                            file_descriptor_proto: files.iter().map(|file| file.to_vec()).collect(),
                        }),
                        ReflectionResponse::ExtensionNumbers { message, numbers } => {
                            Self::AllExtensionNumbersResponse(ExtensionNumberResponse {
                                base_type_name: message,
                                extension_number: numbers,
                            })
                        }
                        ReflectionResponse::Services(names) => Self::ListServicesResponse(ListServiceResponse {
                            service: names.iter().map(|&name| ServiceResponse { name: name.to_owned() }).collect(),
                        }),
                        ReflectionResponse::Failed(code, message) => Self::ErrorResponse(ErrorResponse {
                            error_code: code.into(),
                            error_message: message.to_owned(),
                        }),
                    }
                }
            }
        }
    };
}

version!(v1);
version!(v1alpha);

#[cfg(test)]
mod tests {
    use super::*;

    fn stream() -> ReflectionStream {
        let index = Arc::new(descriptors(&drystone::contracts().unwrap()).unwrap());
        let reflection = Reflection { index, served: ["acme.v1.Orders"].into() };
        ReflectionStream { reflection, sent: HashSet::new() }
    }

    #[test]
    fn an_unknown_symbol_is_an_error_response() {
        let mut stream = stream();
        for request in [
            ReflectionRequest::File("no/such.proto"),
            ReflectionRequest::Symbol("no.Such"),
            ReflectionRequest::Extension { message: "google.protobuf.MethodOptions", number: 1 },
            ReflectionRequest::ExtensionNumbers("no.Such"),
        ] {
            let answer = stream.answer(&request);
            assert!(matches!(answer, ReflectionResponse::Failed(Code::NotFound, _)), "{request:?}: {answer:?}");
        }
    }

    #[test]
    fn served_services_are_listed() {
        let services: Arc<[&str]> = ["acme.v1.Orders"].into();
        assert_eq!(stream().answer(&ReflectionRequest::Services), ReflectionResponse::Services(services));
    }

    #[test]
    fn the_response_contains_the_request_within_its_bound() {
        use pb::v1::{
            ServerReflectionRequest, server_reflection_request::MessageRequest,
            server_reflection_response::MessageResponse,
        };

        let request = |length| ServerReflectionRequest {
            host: "host".to_owned(),
            message_request: Some(MessageRequest::FileByFilename("x".repeat(length))),
        };
        let answer = v1::answer(&mut stream(), request(1000));
        assert_eq!((answer.valid_host.as_str(), answer.original_request), ("host", Some(request(1000))));
        let answer = v1::answer(&mut stream(), request(MAX_REQUEST_LENGTH));
        assert!(answer.encoded_len() < 100, "{answer:?}");
        let answer = v1::answer(&mut stream(), ServerReflectionRequest::default());
        let Some(MessageResponse::ErrorResponse(error)) = answer.message_response else { panic!("{answer:?}") };
        assert_eq!(error.error_code, i32::from(Code::InvalidArgument));
    }
}
