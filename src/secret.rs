//! Values that must not be printed and are wiped when dropped.

use std::fmt;

use zeroize::Zeroizing;

/// Secret bytes: a password, a key, the content of an injected file. `Debug` does not show them
/// and the memory is overwritten when the last owner lets go of it.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Secret(Zeroizing<Vec<u8>>);

impl Secret {
    /// Takes ownership of secret bytes.
    pub fn new(bytes: impl Into<Vec<u8>>) -> Self {
        Self(Zeroizing::new(bytes.into()))
    }

    /// The bytes themselves, for the one place that needs them.
    pub fn expose(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Secret({} bytes)", self.0.len())
    }
}

#[cfg(test)]
mod tests {
    use super::Secret;

    #[test]
    fn debug_hides_the_value() {
        let text = format!("{:?}", Secret::new("hunter2"));
        assert_eq!(text, "Secret(7 bytes)");
    }
}
