//! The stored form of a sealed value.

use super::SealError;

/// The version of this form.
const VERSION: u8 = 1;

/// A sealed value with what is needed to open it, except the master key.
///
/// Encoded: the version (one byte), the length of the key id (one byte) and the key id, the length of the encrypted data
/// key (two bytes, big endian) and the encrypted data key, the ciphertext.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Envelope {
    /// The id of the master key.
    pub key_id: String,
    /// The data key, encrypted with the master key.
    pub encrypted_key: Vec<u8>,
    /// The value, encrypted with the data key: nonce, ciphertext and tag.
    pub ciphertext: Vec<u8>,
}

impl Envelope {
    /// The maximum length of a key id in bytes.
    pub const MAX_KEY_ID: usize = 255;

    pub(super) fn encode(&self) -> Vec<u8> {
        let (id, key) = (self.key_id.as_bytes(), self.encrypted_key.as_slice());
        let id_length = u8::try_from(id.len()).unwrap_or(u8::MAX);
        let key_length = u16::try_from(key.len()).unwrap_or(u16::MAX);
        [&[VERSION, id_length], id, &key_length.to_be_bytes(), key, &self.ciphertext].concat()
    }

    pub(super) fn decode(bytes: &[u8]) -> Result<Self, SealError> {
        let parse = || {
            let ([VERSION, id_length], rest) = bytes.split_first_chunk::<2>()? else { return None };
            let (id, rest) = rest.split_at_checked(usize::from(*id_length))?;
            let (key_length, rest) = rest.split_first_chunk::<2>()?;
            let (key, ciphertext) = rest.split_at_checked(u16::from_be_bytes(*key_length).into())?;
            let key_id = str::from_utf8(id).ok()?.to_owned();
            Some(Self { key_id, encrypted_key: key.to_vec(), ciphertext: ciphertext.to_vec() })
        };
        parse().ok_or(SealError::Malformed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_envelope_is_decoded_as_it_was_encoded() {
        let envelope = Envelope { key_id: "k1".into(), encrypted_key: vec![7; 300], ciphertext: vec![9; 40] };
        let encoded = envelope.encode();
        assert_eq!(Envelope::decode(&encoded).unwrap(), envelope);
        // Version, key id, its length: a change of the form needs another version.
        assert_eq!(&encoded[..6], [1, 2, b'k', b'1', 1, 44]);
    }

    #[test]
    fn what_is_no_envelope_is_refused() {
        let encoded = Envelope { key_id: "k1".into(), encrypted_key: vec![7; 60], ciphertext: vec![] }.encode();
        for end in 0..encoded.len() {
            assert!(Envelope::decode(&encoded[..end]).is_err(), "{end} bytes");
        }
        assert!(Envelope::decode(&[2, 0, 0, 0]).is_err(), "another version");
        assert!(Envelope::decode(&[1, 1, 0xff, 0, 0]).is_err(), "a key id that is no text");
    }
}
