//! The values that settings take. Each error is the rest of a sentence that begins with file, line and
//! key.

use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

pub(super) fn absolute(value: &str) -> Result<PathBuf, String> {
    if value.starts_with('/') && !value.contains('\0') {
        Ok(value.into())
    } else {
        Err(format!("{value:?} is not an absolute path"))
    }
}

pub(super) fn optional_path(value: &str) -> Result<Option<PathBuf>, String> {
    if value.is_empty() { Ok(None) } else { absolute(value).map(Some) }
}

pub(super) fn boolean(value: &str) -> Result<bool, String> {
    match value.to_ascii_lowercase().as_str() {
        "yes" | "true" | "1" | "on" | "set" => Ok(true),
        "" | "no" | "false" | "0" | "off" | "unset" => Ok(false),
        _ => Err(format!("{value:?} is neither yes nor no")),
    }
}

pub(super) fn duration(value: &str) -> Result<Duration, String> {
    let (digits, unit) = match value.char_indices().last() {
        Some((at, 's')) => (&value[..at], 1),
        Some((at, 'm')) => (&value[..at], 60),
        Some((at, 'h')) => (&value[..at], 3600),
        Some((at, 'd')) => (&value[..at], 86400),
        _ => (value, 1),
    };
    let problem =
        || format!("{value:?} is not a time: a number of seconds, or one followed by s, m, h or d");
    if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return Err(problem());
    }
    let seconds: u64 =
        digits.parse::<u64>().ok().and_then(|n| n.checked_mul(unit)).ok_or_else(problem)?;
    if seconds == 0 || seconds > 7 * 86400 {
        return Err(format!("{value:?} is out of range: from 1 second to 7 days"));
    }
    Ok(Duration::from_secs(seconds))
}

pub(super) fn rate(value: &str) -> Result<u64, String> {
    value.parse().map_err(|_| format!("{value:?} is not a number of bytes a second"))
}

pub(super) fn memory(value: &str) -> Result<Option<u32>, String> {
    if value.is_empty() {
        return Ok(None);
    }
    match value.parse::<u32>() {
        Ok(mib @ 32..=65536) => Ok(Some(mib)),
        _ => Err(format!("{value:?} is not a number of MiB from 32 to 65536")),
    }
}

pub(super) fn user(value: &str) -> Result<String, String> {
    let plain = value.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.$".contains(&b));
    if value.is_empty() || !plain || value.starts_with('-') {
        return Err(format!("{value:?} is not the name of a user"));
    }
    // Another name of root is refused when the user is looked up.
    if value == "root" || value.parse() == Ok(0_u32) {
        return Err("the helper must not run as root".into());
    }
    Ok(value.to_owned())
}

/// `FIRST-LAST`; empty for none.
pub(super) fn uid_range(value: &str) -> Result<Option<RangeInclusive<u32>>, String> {
    if value.is_empty() {
        return Ok(None);
    }
    let wrong = || format!("{value:?} is not a range of user numbers such as 200000-200063");
    let (first, last) = value.split_once('-').ok_or_else(wrong)?;
    let number = |text: &str| text.parse::<u32>().map_err(|_| wrong());
    let (first, last) = (number(first)?, number(last)?);
    if first == 0 {
        return Err("the helper must not run as root".into());
    }
    if first > last || last == u32::MAX {
        return Err(wrong());
    }
    Ok(Some(first..=last))
}

pub(super) fn nic_config(value: &str) -> Result<String, String> {
    let plain = value.strip_prefix("dhcp+").unwrap_or(value);
    let combined = plain.len() != value.len();
    match plain {
        "dhcpv6" | "slaac" | "slaac_dhcp" => Ok(value.to_owned()),
        "" | "dhcp" if !combined => Ok(value.to_owned()),
        _ => Err(format!(
            "{value:?} is none of \"\", dhcp, dhcpv6, slaac, slaac_dhcp, dhcp+dhcpv6, dhcp+slaac and dhcp+slaac_dhcp"
        )),
    }
}

pub(super) fn addresses(value: &str) -> Result<String, String> {
    for word in value.split_whitespace() {
        if word.parse::<std::net::IpAddr>().is_err() {
            return Err(format!("{word:?} is not the address of a name server"));
        }
    }
    Ok(value.to_owned())
}
