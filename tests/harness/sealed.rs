//! Opens sealed values by their documented form, apart from the mesh's own code.

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use base64::{Engine, engine::general_purpose::STANDARD};

/// Opens the envelope of a value with the text of a master key file.
///
/// # Panics
/// If it does not open.
#[must_use]
pub fn open(key_file: &str, envelope: &[u8], [table, row, column]: [&str; 3]) -> Vec<u8> {
    let context: Vec<u8> = [table, row, column]
        .into_iter()
        .flat_map(|part| [&(part.len() as u64).to_be_bytes()[..], part.as_bytes()].concat())
        .collect();
    // The version, the id of the master key, the encrypted data key, and the value: nonce, ciphertext and tag.
    let [1, id_length, rest @ ..] = envelope else { panic!("the envelope has version 1") };
    let (id, rest) = rest.split_at(usize::from(*id_length));
    let (key_length, rest) = rest.split_at(2);
    let key_length = u16::from_be_bytes([key_length[0], key_length[1]]);
    let (encrypted_key, value) = rest.split_at(usize::from(key_length));
    let id = std::str::from_utf8(id).expect("the id is text");
    let lines = key_file.lines().filter_map(|line| line.split_once(' '));
    let mut master =
        lines.filter(|(name, _)| *name == id).map(|(_, key)| STANDARD.decode(key).expect("a key is base64"));
    let master = master.next().unwrap_or_else(|| panic!("there is no master key `{id}`"));
    decrypt(&decrypt(&master, encrypted_key, &context), value, &context)
}

fn decrypt(key: &[u8], encrypted: &[u8], context: &[u8]) -> Vec<u8> {
    let key = LessSafeKey::new(UnboundKey::new(&AES_256_GCM, key).expect("the key has 32 bytes"));
    let (nonce, ciphertext) = encrypted.split_first_chunk::<12>().expect("there is a nonce");
    let mut buffer = ciphertext.to_vec();
    let nonce = Nonce::assume_unique_for_key(*nonce);
    let opened = key.open_in_place(nonce, Aad::from(context), &mut buffer).expect("the value opens");
    opened.to_vec()
}
