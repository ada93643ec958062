use std::{collections::HashSet, fs, os::unix::fs::PermissionsExt};

use proptest::prelude::*;
use tempfile::TempDir;

use super::*;

struct Built {
    folder: TempDir,
    summary: Summary,
}

impl Built {
    fn path(&self) -> PathBuf {
        self.folder.path().join("list.filter")
    }

    fn open(&self) -> Blocklist {
        Blocklist::open(&self.path()).unwrap()
    }
}

fn try_build(input: &[u8], kind: Option<LineKind>) -> Result<Built, BuildError> {
    let folder = tempfile::tempdir().unwrap();
    let summary = build(input, &folder.path().join("list.filter"), kind)?;
    Ok(Built { folder, summary })
}

fn built(input: impl AsRef<[u8]>) -> Built {
    try_build(input.as_ref(), None).unwrap()
}

fn sha1(password: &str) -> String {
    let digest = digest::digest(&digest::SHA1_FOR_LEGACY_USE_ONLY, password.as_bytes());
    digest.as_ref().iter().map(|byte| format!("{byte:02X}")).collect::<Vec<_>>().concat()
}

#[test]
fn passwords_are_found_as_listed_and_in_lower_case() {
    let built =
        built("Password1\r\n\npassword2\nshort\ncafe\u{301} noir\n".to_owned() + &"x".repeat(257) + "\nlast line");
    assert_eq!(
        built.summary,
        Summary { kind: LineKind::Password, lines: 6, not_utf8: 0, out_of_length: 2, entries: 5 }
    );
    let list = built.open();
    for password in
        ["Password1", "password1", "PASSWORD1", "PassWord2", "caf\u{e9} noir", "CAF\u{c9} noir", "last line"]
    {
        assert!(list.contains(password).unwrap(), "{password}");
    }
    for password in ["password3", "short", "", "last line ", &"x".repeat(257)] {
        assert!(!list.contains(password).unwrap(), "{password}");
    }
}

#[test]
fn lines_that_are_not_utf8_are_counted_and_long_ones_are_bounded() {
    let long = "\u{1f40e}".repeat(400);
    let input = [b"caf\xe9 noir\n".as_slice(), long.as_bytes(), b"\npassword1\n", &vec![b'x'; 100_000]].concat();
    let summary = built(input).summary;
    assert_eq!(summary, Summary { kind: LineKind::Password, lines: 4, not_utf8: 1, out_of_length: 2, entries: 1 });
}

#[test]
fn lines_of_have_i_been_pwned_round_trip() {
    let passwords = ["password1", "Password1", "trustno1!", "short"];
    let lines = [
        format!("{}:42\r\n", sha1(passwords[0])),
        format!("{}\n", sha1(passwords[1]).to_lowercase()),
        format!("{}:1\n{}:7\n", sha1(passwords[2]), sha1(passwords[2])),
        sha1(passwords[3]),
    ];
    let built = built(lines.concat());
    assert_eq!(built.summary, Summary { kind: LineKind::Sha1, lines: 5, not_utf8: 0, out_of_length: 0, entries: 4 });
    let list = built.open();
    assert_eq!(list.entries(), 4);
    assert!(passwords.iter().all(|password| list.contains(password).unwrap()));
    assert!(list.contains("PASSWORD1").unwrap());
    assert!(!list.contains("TrustNo1").unwrap());
}

#[test]
fn a_line_of_another_kind_is_an_error_without_its_content() {
    for line in ["hunter2hunter2", &sha1("a")[1..], &(sha1("a") + ":"), &(sha1("a") + ":x"), &(sha1("a") + "0"), "é"] {
        let error = try_build(format!("{}\n{line}\n", sha1("b")).as_bytes(), None).err().unwrap();
        assert!(matches!(error, BuildError::NotSha1 { line: 2 }), "{error}");
        assert!(!error.to_string().contains(line));
    }
    // The flag overrides the detection.
    let list = try_build(sha1("b").as_bytes(), Some(LineKind::Password)).unwrap();
    assert!(list.open().contains(&sha1("b")).unwrap());
    assert!(matches!(try_build(b"password1", Some(LineKind::Sha1)), Err(BuildError::NotSha1 { line: 1 })));
    assert!(matches!(try_build(b"\nshort\n", None), Err(BuildError::Empty)));
}

#[test]
fn a_list_is_replaced_atomically() {
    let built = built("password1");
    let old = built.open();
    assert_eq!(fs::metadata(built.path()).unwrap().permissions().mode() & 0o777, 0o644);
    assert!(build(b"short".as_slice(), &built.path(), None).is_err());
    assert!(built.open().contains("password1").unwrap());
    build(b"password2".as_slice(), &built.path(), None).unwrap();
    assert!(built.open().contains("password2").unwrap());
    assert!(old.contains("password1").unwrap(), "an open list stays as it was");
    assert_eq!(fs::read_dir(built.folder.path()).unwrap().count(), 1);
    let nowhere = built.folder.path().join("missing/list");
    assert!(matches!(build(b"password1".as_slice(), &nowhere, None), Err(BuildError::Write(_))));
}

#[test]
fn the_order_of_the_lines_does_not_change_the_file() {
    let files = ["password1\npassword2\npassword2\n", "password2\npassword1"]
        .map(|lines| fs::read(built(lines).path()).unwrap());
    assert_eq!(files[0], files[1]);
}

#[test]
fn few_other_passwords_match() {
    let passwords: Vec<String> = (0..20_000).map(|index| format!("Listed password {index}\n")).collect();
    let list = built(passwords.concat()).open();
    let others = (0..100_000).map(|index| format!("Other {index} password"));
    let false_positives = others.filter(|password| list.contains(password).unwrap()).count();
    assert!(false_positives < 10, "{false_positives}");
}

#[test]
fn a_corrupt_file_is_an_error_that_says_what_to_do() {
    let built = built("password1\npassword2\n");
    let valid = fs::read(built.path()).unwrap();
    let error = |bytes: &[u8]| {
        fs::write(built.path(), bytes).unwrap();
        let error = Blocklist::open(&built.path()).unwrap_err();
        assert!(error.to_string().contains("list.filter") && error.to_string().contains("build"), "{error}");
        let OpenError::Format { source, .. } = error else { panic!("{error}") };
        source
    };
    assert_eq!(error(b""), FormatError::NotABlocklist);
    assert_eq!(error(b"password1\n"), FormatError::NotABlocklist);
    let length = valid.len() as u64;
    for end in [8, 63, 64, valid.len() - 1] {
        let expected = if end < HEADER_LENGTH { HEADER_LENGTH as u64 } else { length };
        assert_eq!(error(&valid[..end]), FormatError::Length { found: end as u64, expected });
    }
    assert_eq!(error(&[valid.as_slice(), b"x"].concat()), FormatError::Length { found: length + 1, expected: length });
    let mut other_version = valid.clone();
    other_version[8] = 2;
    assert_eq!(error(&other_version), FormatError::Version { found: 2 });
    for index in 12..HEADER_LENGTH {
        let mut changed = valid.clone();
        changed[index] ^= 1;
        assert_eq!(error(&changed), FormatError::Header, "{index}");
    }
    let missing = Blocklist::open(&built.folder.path().join("missing")).unwrap_err();
    assert!(matches!(missing, OpenError::Io { .. }), "{missing}");
    assert!(Blocklist::open(built.folder.path()).is_err());
}

#[test]
fn values_out_of_bounds_are_refused_even_with_a_valid_checksum() {
    let valid = built("password1\npassword2\n").open().header;
    let refused = [
        Header { shard_bits: 17, ..valid },
        Header { shard_bits: u32::MAX, ..valid },
        Header { entries: 0, ..valid },
        Header { entries: u64::MAX, ..valid },
        Header { geometry: fuse_filter::Geometry { segment_length: 3, ..valid.geometry }, ..valid },
        Header { geometry: fuse_filter::Geometry { segment_length: 0, ..valid.geometry }, ..valid },
        Header { geometry: fuse_filter::Geometry { segment_length: 1 << 31, ..valid.geometry }, ..valid },
        Header { geometry: fuse_filter::Geometry { segment_count: 0, ..valid.geometry }, ..valid },
        Header { geometry: fuse_filter::Geometry { segment_count: u32::MAX, ..valid.geometry }, ..valid },
    ];
    for header in refused {
        assert_eq!(Header::decode(&header.encode(), u64::MAX), Err(FormatError::Header), "{header:?}");
    }
    assert_eq!(Header::decode(&valid.encode(), valid.file_length()), Ok(valid));
}

#[test]
fn a_file_that_shrinks_while_it_is_open_is_a_read_error() {
    let built = built("password1");
    let list = built.open();
    fs::File::options().write(true).open(built.path()).unwrap().set_len(70).unwrap();
    assert!(list.contains("password1").is_err());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn a_list_has_every_entry(passwords in proptest::collection::hash_set("[^\\p{C}\r\n]{8,40}", 1..200)) {
        let passwords: HashSet<String> = passwords.iter().map(|password| password.nfc().collect()).collect();
        let lines: Vec<&str> = passwords.iter().map(String::as_str).collect();
        let list = try_build(lines.join("\n").as_bytes(), Some(LineKind::Password)).unwrap().open();
        for password in passwords.iter().filter(|password| password.chars().count() >= 8) {
            prop_assert!(list.contains(password).unwrap());
        }
    }

    #[test]
    fn no_input_panics(input in proptest::collection::vec(any::<u8>(), 0..300), is_sha1 in any::<bool>()) {
        let _ = try_build(&input, is_sha1.then_some(LineKind::Sha1));
    }
}
