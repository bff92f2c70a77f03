//! The targets of the harness.
#![allow(dead_code, unreachable_pub)]

pub mod luks;
pub mod lvm;

use crate::choices::Choices;

/// Damages a text where parsers are weak: numbers, strings, whole lines.
pub fn damage_text(text: &mut Vec<u8>, choices: &mut Choices<'_>) {
    if text.len() < 8 {
        return;
    }
    let at = choices.below(text.len());
    match choices.below(7) {
        0 => {
            let from = at.min(text.len() - 8);
            crate::mutate::mutate(&mut text[from..], choices);
        }
        1 | 2 => {
            // Another number in place of one.
            let Some(start) = text[at..].iter().position(u8::is_ascii_digit) else { return };
            let start = at + start;
            let length = text[start..].iter().take_while(|byte| byte.is_ascii_digit()).count();
            const NUMBERS: &[&str] = &[
                "0",
                "1",
                "2",
                "-1",
                "7",
                "4294967295",
                "4294967296",
                "18446744073709551615",
                "9223372036854775807",
                "1000000",
                "256",
                "8193",
            ];
            let number = NUMBERS[choices.below(NUMBERS.len())];
            text.splice(start..start + length, number.bytes());
        }
        3 => {
            // A piece twice.
            let length = choices.below(400).min(text.len() - at);
            let piece = text[at..at + length].to_vec();
            text.splice(at..at, piece);
        }
        4 => {
            let length = choices.below(60).min(text.len() - at);
            text.drain(at..at + length);
        }
        5 => {
            // A piece in another place.
            let length = choices.below(60).min(text.len() - at);
            let piece: Vec<u8> = text.drain(at..at + length).collect();
            let to = choices.below(text.len() + 1);
            text.splice(to..to, piece);
        }
        _ => {
            const WORDS: &[&str] = &[
                "{",
                "}",
                "[",
                "]",
                "=",
                "\"",
                "\\",
                "#",
                ",",
                "null",
                "\"raid1\"",
                "\"thin\"",
                "\"mirror\"",
                "\"dynamic\"",
                "\"a\"",
                "\"pv0\"",
                "\"argon2id\"",
                "\0",
            ];
            let word = WORDS[choices.below(WORDS.len())];
            text.splice(at..at, word.bytes());
        }
    }
}
