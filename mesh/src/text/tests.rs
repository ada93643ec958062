//! Validation of free-form text.

use super::*;

const MAX: usize = 200;

fn one_line(text: &str) -> Result<Cow<'_, str>, TextError> {
    normalize(text, LineMode::Single, MAX)
}

#[test]
fn valid_text_is_unchanged() {
    let valid = [
        "Ada Lovelace",
        "Seán Ó Ríordáin",
        "李小龍",
        "김민준",
        "Владимир",
        "ישראל",
        "محمد",
        // An ideographic space between words.
        "山田\u{3000}太郎",
        // Emoji: a family, a profession with a skin tone, a heart on fire, flags, a keycap, a text presentation.
        "\u{1f468}\u{200d}\u{1f469}\u{200d}\u{1f467}\u{200d}\u{1f466}",
        "\u{1f469}\u{1f3fd}\u{200d}\u{1f680}",
        "\u{2764}\u{fe0f}\u{200d}\u{1f525}",
        "\u{1f3f3}\u{fe0f}\u{200d}\u{1f308}",
        "\u{1f3f4}\u{200d}\u{2620}\u{fe0f}",
        "\u{1f1ee}\u{1f1ea}",
        "1\u{fe0f}\u{20e3}",
        "\u{2603}\u{fe0e}",
        // The flags of Scotland and of Wales.
        "\u{1f3f4}\u{e0067}\u{e0062}\u{e0073}\u{e0063}\u{e0074}\u{e007f}",
        "\u{1f3f4}\u{e0067}\u{e0062}\u{e0077}\u{e006c}\u{e0073}\u{e007f} Wales",
        // Joiners: Devanagari, Malayalam, Bengali (before the virama), Kannada, Persian, Persian after `re`, Mongolian.
        "\u{915}\u{94d}\u{200d}\u{937}",
        "\u{d28}\u{d4d}\u{200d}",
        "\u{9b0}\u{200d}\u{9cd}\u{9af}\u{9be}\u{9ac}",
        "\u{cb0}\u{200d}\u{ccd}\u{c95}",
        "\u{6cc}\u{200c}\u{62e}",
        "\u{6a9}\u{627}\u{631}\u{200c}\u{647}\u{627}",
        "\u{182d}\u{180b}\u{1820}",
        // An ideographic variation, and letters of Old Hangul.
        "\u{845b}\u{e0100}",
        "\u{1112}\u{119e}\u{11ab}",
    ];
    for text in valid {
        assert_eq!(one_line(text).as_deref(), Ok(text), "{}", text.escape_unicode());
        assert!(!is_blank(text), "{}", text.escape_unicode());
    }
}

#[test]
fn invisible_text_is_blank() {
    let blank = [
        '\u{20}',
        '\u{85}',
        '\u{a0}',
        '\u{ad}',
        '\u{34f}',
        '\u{61c}',
        '\u{115f}',
        '\u{1160}',
        '\u{1680}',
        '\u{17b4}',
        '\u{180e}',
        '\u{2000}',
        '\u{200a}',
        '\u{200b}',
        '\u{200c}',
        '\u{200d}',
        '\u{200e}',
        '\u{200f}',
        '\u{2028}',
        '\u{2029}',
        '\u{202e}',
        '\u{202f}',
        '\u{205f}',
        '\u{2060}',
        '\u{2064}',
        '\u{2800}',
        '\u{3000}',
        '\u{3164}',
        '\u{fe0f}',
        '\u{feff}',
        '\u{ffa0}',
        '\u{fffb}',
        '\u{1d159}',
        '\u{1d173}',
        '\u{e0001}',
        '\u{e0020}',
        '\u{e0100}',
        '\u{301}',
        '\u{0}',
        '\u{e000}',
        '\u{ffff}',
    ];
    for character in blank {
        assert!(is_blank(&character.to_string().repeat(3)), "{}", character.escape_unicode());
    }
    assert!(is_blank(""));
}

#[test]
fn control_and_invisible_characters_are_rejected() {
    let rejected: [(TextError, &[char]); 4] = [
        (TextError::Control, &['\u{0}', '\t', '\n', '\r', '\u{1b}', '\u{7f}', '\u{85}', '\u{2028}', '\u{2029}']),
        (
            TextError::Direction,
            &[
                '\u{61c}', '\u{200e}', '\u{200f}', '\u{202a}', '\u{202b}', '\u{202c}', '\u{202d}', '\u{202e}',
                '\u{2066}', '\u{2067}', '\u{2068}', '\u{2069}',
            ],
        ),
        (
            TextError::Invisible,
            &[
                '\u{ad}',
                '\u{34f}',
                '\u{115f}',
                '\u{1160}',
                '\u{17b4}',
                '\u{180e}',
                '\u{200b}',
                '\u{200c}',
                '\u{200d}',
                '\u{2060}',
                '\u{2064}',
                '\u{206a}',
                '\u{3164}',
                '\u{feff}',
                '\u{ffa0}',
                '\u{fff9}',
                '\u{1bca0}',
                '\u{1d173}',
                '\u{e0001}',
                '\u{e0041}',
                '\u{e0061}',
                '\u{e007f}',
            ],
        ),
        (TextError::Unassigned, &['\u{e000}', '\u{f8ff}', '\u{fdd0}', '\u{ffff}', '\u{10fffe}', '\u{378}']),
    ];
    for (error, characters) in rejected {
        for character in characters {
            let text = format!("Ada{character}Lovelace");
            assert_eq!(one_line(&text), Err(error), "{}", character.escape_unicode());
        }
    }
}

#[test]
fn joiners_selectors_and_tags_in_invalid_contexts_are_rejected() {
    let rejected = [
        "Ada\u{200d}",
        "\u{200d}Ada",
        // Digits are bases of keycaps, and not emoji by themselves.
        "1\u{200d}2",
        "\u{1f468}\u{200d}\u{200d}\u{1f469}",
        "\u{1f468}\u{200d}",
        "\u{1f468}\u{200c}\u{1f469}",
        "\u{6cc}\u{200c}",
        "\u{6cc}\u{200c}Ada",
        "Ada \u{fe0f}",
        "\u{fe0f}Ada",
        "A\u{fe0f}\u{fe0f}",
        "Ada\u{180b}",
        // Tags without a flag, without a cancel tag, of an invalid kind, too few and too many.
        "Ada\u{e0067}\u{e0062}\u{e0073}\u{e0063}\u{e0074}\u{e007f}",
        "\u{1f3f4}\u{e0067}\u{e0062}\u{e0073}\u{e0063}\u{e0074}",
        "\u{1f3f4}\u{e0067}\u{e0062}\u{e0041}\u{e0063}\u{e0074}\u{e007f}",
        "\u{1f3f4}\u{e0067}\u{e0062}\u{e007f}",
        "\u{1f3f4}\u{e0067}\u{e0062}\u{e0073}\u{e0063}\u{e0074}\u{e0074}\u{e0074}\u{e007f}",
        "\u{1f3f4}\u{e0067}\u{e0062}\u{e0073}\u{e0063}\u{e0074}\u{e007f}\u{e007f}",
    ];
    for text in rejected {
        assert_eq!(one_line(text), Err(TextError::Invisible), "{}", text.escape_unicode());
    }
}

#[test]
fn text_is_normalized_to_nfc() {
    assert_eq!(one_line("Sea\u{301}n").as_deref(), Ok("Seán"));
    assert_eq!(one_line("\u{1100}\u{1161}\u{11a8}").as_deref(), Ok("각"));
    assert_eq!(one_line("\u{212b}").as_deref(), Ok("Å"));
}

#[test]
fn the_length_is_in_code_points_of_the_normal_form() {
    assert!(one_line(&"a\u{301}".repeat(MAX)).is_ok());
    assert!(one_line(&"é".repeat(MAX)).is_ok());
    assert_eq!(one_line(&"é".repeat(MAX + 1)), Err(TextError::TooLong(MAX)));
    // U+0958 is two code points in NFC.
    assert_eq!(one_line(&"\u{958}".repeat(MAX / 2 + 1)), Err(TextError::TooLong(MAX)));
}

#[test]
fn multi_line_text_allows_line_breaks_and_tabs_only() {
    let many = |text| normalize(text, LineMode::Multi, MAX);
    assert!(many("one\r\n\ttwo\n\u{2028}three\u{2029}").is_ok());
    assert_eq!(many("one\u{1b}[31m"), Err(TextError::Control));
    assert_eq!(many("one\u{202e}two"), Err(TextError::Direction));
    assert_eq!(many("one\u{200b}two"), Err(TextError::Invisible));
}
