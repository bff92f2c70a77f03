//! Points in time as text: UTC, as ISO 8601 has it.

use snf_fs::Timestamp;

/// `2026-11-29 03:20`.
pub(super) fn short(time: Timestamp) -> String {
    shown(time, "%Y-%m-%d %H:%M")
}

/// `2026-11-29T03:20:05.000000123Z`.
pub(super) fn long(time: Timestamp) -> String {
    shown(time, "%Y-%m-%dT%H:%M:%S.%9NZ")
}

/// A time that no calendar has is shown as seconds since 1970.
fn shown(time: Timestamp, format: &str) -> String {
    let nanoseconds = i32::try_from(time.nanoseconds).unwrap_or_default();
    match jiff::Timestamp::new(time.seconds, nanoseconds) {
        Ok(time) => time.strftime(format).to_string(),
        Err(_) => format!("@{}", time.seconds),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_those_of_the_calendar() {
        let at = |seconds| Timestamp { seconds, nanoseconds: 7 };
        for (seconds, text) in [
            (0, "1970-01-01 00:00"),
            (-60, "1969-12-31 23:59"),
            (951_782_400, "2000-02-29 00:00"),
            (1_700_000_000, "2023-11-14 22:13"),
            (-11_644_473_600, "1601-01-01 00:00"),
            (i64::MAX, "@9223372036854775807"),
        ] {
            assert_eq!(short(at(seconds)), text);
        }
        assert_eq!(long(at(0)), "1970-01-01T00:00:00.000000007Z");
    }
}
