//! Reflection on one stream: what cannot be found does not end it.

use std::collections::BTreeSet;

use prost::Message;
use tonic::Code;
use tonic_reflection::pb::v1::{
    ExtensionRequest, ServerReflectionRequest, ServerReflectionResponse,
    server_reflection_client::ServerReflectionClient, server_reflection_request::MessageRequest as Ask,
    server_reflection_response::MessageResponse as Answer,
};

use super::TestServer;

/// The answers to these questions on one stream, which has to end with the last of them.
async fn ask(server: &TestServer, questions: Vec<Option<Ask>>) -> Vec<Answer> {
    let requests: Vec<_> = questions
        .into_iter()
        .map(|message_request| ServerReflectionRequest { host: "user".to_owned(), message_request })
        .collect();
    let mut client = ServerReflectionClient::new(server.channel("operator", "user"));
    let stream = client.server_reflection_info(tokio_stream::iter(requests.clone())).await;
    let mut stream = stream.unwrap().into_inner();
    let mut answers = Vec::new();
    for request in requests {
        let ServerReflectionResponse { valid_host, original_request, message_response } =
            stream.message().await.unwrap().expect("the stream goes on");
        assert_eq!((valid_host.as_str(), original_request), ("user", Some(request)));
        answers.push(message_response.unwrap());
    }
    assert_eq!(stream.message().await.unwrap(), None);
    answers
}

fn extension(message: &str, number: i32) -> Ask {
    Ask::FileContainingExtension(ExtensionRequest { containing_type: message.to_owned(), extension_number: number })
}

fn error_code(answer: &Answer) -> Code {
    match answer {
        Answer::ErrorResponse(error) => Code::from_i32(error.error_code),
        other => panic!("{other:?}"),
    }
}

fn files(answer: &Answer) -> Vec<String> {
    match answer {
        Answer::FileDescriptorResponse(files) => {
            let decode = |bytes: &Vec<u8>| prost_types::FileDescriptorProto::decode(&bytes[..]).unwrap();
            files.file_descriptor_proto.iter().map(|bytes| decode(bytes).name().to_owned()).collect()
        }
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn an_unknown_symbol_is_answered_and_the_stream_continues() {
    let server = TestServer::new().await;
    let unknown = "no.Such".to_owned();
    let answers = ask(
        &server,
        vec![
            Some(Ask::FileByFilename(unknown.clone())),
            Some(Ask::FileContainingSymbol(unknown.clone())),
            Some(extension("google.protobuf.MethodOptions", 1)),
            Some(Ask::AllExtensionNumbersOfType(unknown)),
            None,
            Some(Ask::FileContainingSymbol("drystone.user.v1.UserService.GetMe".to_owned())),
        ],
    )
    .await;
    for answer in &answers[..4] {
        assert_eq!(error_code(answer), Code::NotFound);
    }
    assert_eq!(error_code(&answers[4]), Code::InvalidArgument);
    assert!(files(&answers[5])[0].starts_with("drystone/user/v1/"), "{answers:?}");
}

#[tokio::test]
async fn files_are_sent_with_their_dependencies_once() {
    let server = TestServer::new().await;
    let symbol = |name: &str| Some(Ask::FileContainingSymbol(name.to_owned()));
    let answers =
        ask(&server, vec![symbol("drystone.user.v1.UserService"), symbol("drystone.session.v1.SessionService")]).await;
    let (first, second) = (files(&answers[0]), files(&answers[1]));
    assert!(first.contains(&"google/protobuf/descriptor.proto".to_owned()), "{first:?}");
    let all: BTreeSet<&String> = first.iter().chain(&second).collect();
    assert_eq!(all.len(), first.len() + second.len(), "{first:?} {second:?}");
}

#[tokio::test]
async fn custom_options_are_found() {
    let server = TestServer::new().await;
    for (options, expected) in [
        ("google.protobuf.MethodOptions", &[50701, 50703][..]),
        ("google.protobuf.ServiceOptions", &[50702, 50704, 50705]),
    ] {
        let answers = ask(&server, vec![Some(Ask::AllExtensionNumbersOfType(options.to_owned()))]).await;
        let Answer::AllExtensionNumbersResponse(numbers) = &answers[0] else { panic!("{answers:?}") };
        assert_eq!(numbers.base_type_name, options);
        for number in expected {
            assert!(numbers.extension_number.contains(number), "{number}: {numbers:?}");
            // On a new stream, because a file is sent once per stream.
            let answers = ask(&server, vec![Some(extension(options, *number))]).await;
            assert!(files(&answers[0])[0].starts_with("drystone/access/v1/"), "{number}: {answers:?}");
        }
    }
}

#[tokio::test]
async fn only_served_services_are_listed() {
    let server = TestServer::new().await;
    let answers = ask(&server, vec![Some(Ask::ListServices(String::new()))]).await;
    let Answer::ListServicesResponse(list) = &answers[0] else { panic!("{answers:?}") };
    let names: Vec<&str> = list.service.iter().map(|service| service.name.as_str()).collect();
    let expected = [
        "drystone.auth.v1.KeyService",
        "drystone.user.v1.UserService",
        "grpc.health.v1.Health",
        "grpc.reflection.v1.ServerReflection",
        "grpc.reflection.v1alpha.ServerReflection",
    ];
    assert_eq!(names, expected);
}
