//! Attestation objects (section 6.5.4). None is asked for, since nothing depends on the make of an authenticator.

use minicbor::Decoder;

use crate::{cbor, failure::Failure, public_key::PublicKey};

const MALFORMED: Failure = Failure::Malformed("attestationObject");

/// An attestation object.
pub(crate) struct Attestation<'a> {
    pub(crate) authenticator_data: &'a [u8],
    statement: Statement<'a>,
}

enum Statement<'a> {
    None,
    /// By the key of the credential itself (section 8.2).
    PackedSelf {
        algorithm: i64,
        signature: &'a [u8],
    },
}

impl<'a> Attestation<'a> {
    /// Reads an attestation object: a map of `fmt`, `attStmt` and `authData`.
    pub(crate) fn read(bytes: &'a [u8]) -> Result<Self, Failure> {
        let mut decoder = Decoder::new(bytes);
        let (mut format, mut statement, mut authenticator_data) = (None, None, None);
        for _ in 0..cbor::map(&mut decoder).ok_or(MALFORMED)? {
            match decoder.str().map_err(|_| MALFORMED)? {
                "fmt" if format.is_none() => format = Some(decoder.str().map_err(|_| MALFORMED)?),
                "attStmt" if statement.is_none() => {
                    let start = decoder.position();
                    cbor::skip(&mut decoder).ok_or(MALFORMED)?;
                    statement = bytes.get(start..decoder.position());
                }
                "authData" if authenticator_data.is_none() => {
                    authenticator_data = Some(decoder.bytes().map_err(|_| MALFORMED)?);
                }
                _ => return Err(MALFORMED),
            }
        }
        let (Some(format), Some(statement), Some(authenticator_data)) = (format, statement, authenticator_data) else {
            return Err(MALFORMED);
        };
        if decoder.position() != bytes.len() {
            return Err(MALFORMED);
        }
        let statement = match format {
            "none" if statement == [0xa0] => Statement::None,
            "none" => return Err(MALFORMED),
            "packed" => packed_self(statement).ok_or(Failure::AttestationFormat)?,
            _ => return Err(Failure::AttestationFormat),
        };
        Ok(Self { authenticator_data, statement })
    }

    /// Verifies the statement about the credential with this key.
    pub(crate) fn verify(&self, public_key: &PublicKey, client_data_hash: &[u8]) -> Result<(), Failure> {
        match self.statement {
            Statement::None => Ok(()),
            Statement::PackedSelf { algorithm, signature } => {
                let signed = [self.authenticator_data, client_data_hash].concat();
                let is_valid = algorithm == public_key.algorithm() && public_key.verifies(&signed, signature);
                if is_valid { Ok(()) } else { Err(Failure::Attestation) }
            }
        }
    }
}

/// Reads a statement of the format `packed` without certificates; `None` if it has others.
fn packed_self(bytes: &[u8]) -> Option<Statement<'_>> {
    let mut decoder = Decoder::new(bytes);
    let (mut algorithm, mut signature) = (None, None);
    for _ in 0..cbor::map(&mut decoder)? {
        match decoder.str().ok()? {
            "alg" if algorithm.is_none() => algorithm = Some(decoder.i64().ok()?),
            "sig" if signature.is_none() => signature = Some(decoder.bytes().ok()?),
            _ => return None,
        }
    }
    Some(Statement::PackedSelf { algorithm: algorithm?, signature: signature? })
}
