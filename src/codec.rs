//! The codec of generated servers, which validates requests.

use std::marker::PhantomData;

use prost::{DecodeError, Message};
use prost_protovalidate::{Validate, ValidationError, Violation};
use tonic::{
    Status,
    codec::{Codec, DecodeBuf, Decoder},
};
use tonic_prost::ProstEncoder;
use tonic_types::FieldViolation;

use crate::{Reason, status};

/// Encodes responses with prost; decodes requests with prost and validates them with `buf.validate`, so that handlers only
/// receive valid messages. Clients use the plain codec: a service of a newer release may return values that an older
/// contract does not allow.
#[derive(Debug)]
pub struct ValidatingCodec<T, U>(PhantomData<(T, U)>);

impl<T, U> Default for ValidatingCodec<T, U> {
    fn default() -> Self {
        Self(PhantomData)
    }
}

impl<T, U> Codec for ValidatingCodec<T, U>
where
    T: Message + Send + 'static,
    U: Message + Default + Validate + Send + 'static,
{
    type Encode = T;
    type Decode = U;
    type Encoder = ProstEncoder<T>;
    type Decoder = ValidatingDecoder<U>;

    fn encoder(&mut self) -> Self::Encoder {
        ProstEncoder::default()
    }

    fn decoder(&mut self) -> Self::Decoder {
        ValidatingDecoder(PhantomData)
    }
}

/// The decoding half of [`ValidatingCodec`].
#[derive(Debug)]
pub struct ValidatingDecoder<U>(PhantomData<U>);

impl<U: Message + Default + Validate> Decoder for ValidatingDecoder<U> {
    type Item = U;
    type Error = Status;

    fn decode(&mut self, source: &mut DecodeBuf<'_>) -> Result<Option<U>, Status> {
        let message = U::decode(source).map_err(|error| undecodable(&error))?;
        message.validate().map_err(|error| validation_error(&error))?;
        Ok(Some(message))
    }
}

fn validation_error(error: &ValidationError) -> Status {
    let violations = error.violations().iter();
    status::invalid_request(
        violations.map(|violation| FieldViolation::new(violation.field_path(), description(violation))).collect(),
    )
}

/// The description of a violation. The rules for well-known formats have only an id and no message.
fn description(violation: &Violation) -> String {
    match (violation.message(), violation.rule_id()) {
        ("", "string.email" | "string.email_empty") => "must be an e-mail address".to_owned(),
        ("", "string.uuid" | "string.uuid_empty") => "must be a UUID".to_owned(),
        ("", rule) => format!("violates the rule `{rule}`"),
        (message, _) => message.to_owned(),
    }
}

fn undecodable(error: &DecodeError) -> Status {
    status::new(Reason::InvalidRequest, &format!("the message cannot be decoded: {error}"), Vec::new(), None)
}
