//! `Retry-After` (RFC 9110, section 10.2.3).

use std::time::Duration;

use chrono::{DateTime, NaiveDateTime, Utc};
use http::{HeaderMap, header::RETRY_AFTER};

/// The longest wait that a receiver may ask for.
const MAX_WAIT: Duration = Duration::from_hours(1);

/// The forms of an HTTP date (RFC 9110, section 5.6.7): the one that is sent today, and the two obsolete ones.
const DATES: [&str; 3] = ["%a, %d %b %Y %H:%M:%S GMT", "%A, %d-%b-%y %H:%M:%S GMT", "%a %b %e %H:%M:%S %Y"];

/// How long the receiver asks to wait, from `now` on and at most an hour. `None` if it does not say so, or not in a
/// valid form.
pub(super) fn retry_after(headers: &HeaderMap, now: DateTime<Utc>) -> Option<Duration> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    let wait = if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
        // A number that is too large is still a long wait.
        Duration::from_secs(text.parse().unwrap_or(u64::MAX))
    } else {
        let until = DATES.iter().find_map(|form| NaiveDateTime::parse_from_str(text, form).ok())?.and_utc();
        // A date in the past is no wait.
        (until - now).to_std().unwrap_or_default()
    };
    Some(wait.min(MAX_WAIT))
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn wait(text: &str) -> Option<Duration> {
        let now = "1994-11-06T08:49:07Z".parse().unwrap();
        let mut headers = HeaderMap::new();
        headers.insert(RETRY_AFTER, HeaderValue::from_bytes(text.as_bytes()).unwrap());
        retry_after(&headers, now)
    }

    #[test]
    fn it_is_a_number_of_seconds_or_a_date() {
        for (text, seconds) in [
            ("0", 0),
            ("120", 120),
            (" 120 ", 120),
            ("3600", 3600),
            ("3601", 3600),
            ("99999999999999999999999999", 3600),
            ("Sun, 06 Nov 1994 08:49:37 GMT", 30),
            ("Sunday, 06-Nov-94 08:49:37 GMT", 30),
            ("Sun Nov  6 08:49:37 1994", 30),
            ("Sun, 06 Nov 1994 08:48:00 GMT", 0),
            ("Mon, 06 Nov 1995 08:49:37 GMT", 3600),
            ("Fri, 31 Dec 9999 23:59:59 GMT", 3600),
        ] {
            assert_eq!(wait(text), Some(Duration::from_secs(seconds)), "{text}");
        }
    }

    #[test]
    fn an_invalid_value_is_ignored() {
        let bad = [
            "",
            "-1",
            "+1",
            "1.5",
            "1e3",
            "soon",
            "Mon, 06 Nov 1994 08:49:37 GMT",
            "1994-11-06T08:49:37Z",
            "caf\u{e9}",
        ];
        for bad in bad {
            assert_eq!(wait(bad), None, "{bad}");
        }
        assert_eq!(retry_after(&HeaderMap::new(), Utc::now()), None);
    }
}
