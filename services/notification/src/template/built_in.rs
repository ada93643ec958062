//! The built-in files.

pub const LAYOUT_TEXT: &str = include_str!("../templates/layout.txt");
pub const LAYOUT_HTML: &str = include_str!("../templates/layout.html");

macro_rules! files {
    ($($template:literal),* $(,)?) => {
        [$(
            ($template, "template.toml", include_str!(concat!("../templates/", $template, "/template.toml"))),
            ($template, "en.toml", include_str!(concat!("../templates/", $template, "/en.toml"))),
            ($template, "de.toml", include_str!(concat!("../templates/", $template, "/de.toml"))),
        )*]
    };
}

/// The template, the name of the file and its text.
pub const FILES: &[(&str, &str, &str)] = &files![
    "address_taken",
    "email_change",
    "email_change_notice",
    "email_changed",
    "email_changed_notice",
    "email_verification",
    "new_device",
    "new_device_notice",
    "password_changed",
    "password_reset",
    "second_factor_added",
    "second_factor_added_notice",
    "second_factor_changed",
    "session_ended_reuse",
    "session_shared",
];
