//! The tree of a metadata text, and its writer. Keys and values that this crate does not know are
//! kept as they are.

/// A value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Value {
    /// A whole number.
    Integer(i64),
    /// Another number or a bare word, as it stands.
    Raw(String),
    /// A string without its quotes; any bytes.
    Text(Vec<u8>),
}

impl Value {
    /// The string, if it is one and UTF-8.
    pub(crate) fn as_str(&self) -> Option<&str> {
        match self {
            Self::Text(bytes) => std::str::from_utf8(bytes).ok(),
            _ => None,
        }
    }
}

/// The right-hand side of a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Item {
    Value(Value),
    Array(Vec<Value>),
    Section(Section),
}

/// Keys in the order of the text.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Section {
    pub(crate) entries: Vec<(String, Item)>,
}

impl Section {
    /// The first item of a key.
    pub(crate) fn get(&self, key: &str) -> Option<&Item> {
        self.entries.iter().find(|(name, _)| name == key).map(|(_, item)| item)
    }

    pub(crate) fn section(&self, key: &str) -> Option<&Section> {
        match self.get(key)? {
            Item::Section(section) => Some(section),
            _ => None,
        }
    }

    pub(crate) fn section_mut(&mut self, key: &str) -> Option<&mut Section> {
        self.entries.iter_mut().find_map(|(name, item)| match item {
            Item::Section(section) if name == key => Some(section),
            _ => None,
        })
    }

    pub(crate) fn sections(&self) -> impl Iterator<Item = (&str, &Section)> {
        self.entries.iter().filter_map(|(name, item)| match item {
            Item::Section(section) => Some((name.as_str(), section)),
            _ => None,
        })
    }

    pub(crate) fn integer(&self, key: &str) -> Option<i64> {
        match self.get(key)? {
            Item::Value(Value::Integer(number)) => Some(*number),
            _ => None,
        }
    }

    pub(crate) fn str(&self, key: &str) -> Option<&str> {
        match self.get(key)? {
            Item::Value(value) => value.as_str(),
            _ => None,
        }
    }

    pub(crate) fn array(&self, key: &str) -> Option<&[Value]> {
        match self.get(key)? {
            Item::Array(values) => Some(values),
            _ => None,
        }
    }

    /// Replaces the item of a key, or adds the key at the end.
    pub(crate) fn set(&mut self, key: &str, item: Item) {
        match self.entries.iter_mut().find(|(name, _)| name == key) {
            Some((_, old)) => *old = item,
            None => self.entries.push((key.to_owned(), item)),
        }
    }

    pub(crate) fn set_integer(&mut self, key: &str, number: u64) {
        // Numbers of the metadata count extents, sectors and seconds: far below 2^63.
        let number = i64::try_from(number).unwrap_or(i64::MAX);
        self.set(key, Item::Value(Value::Integer(number)));
    }

    pub(crate) fn set_str(&mut self, key: &str, text: &str) {
        self.set(key, Item::Value(Value::Text(text.as_bytes().to_vec())));
    }

    /// The text as it is written to disk, with the zero byte that ends it.
    pub(crate) fn to_bytes(&self) -> Vec<u8> {
        let mut out = Vec::new();
        self.write(&mut out);
        out.push(0);
        out
    }

    fn write(&self, out: &mut Vec<u8>) {
        for (key, item) in &self.entries {
            out.extend_from_slice(key.as_bytes());
            match item {
                Item::Value(value) => {
                    out.extend_from_slice(b" = ");
                    write_value(value, out);
                }
                Item::Array(values) => {
                    out.extend_from_slice(b" = [");
                    for (index, value) in values.iter().enumerate() {
                        if index > 0 {
                            out.extend_from_slice(b", ");
                        }
                        write_value(value, out);
                    }
                    out.push(b']');
                }
                Item::Section(section) => {
                    out.extend_from_slice(b" {\n");
                    section.write(out);
                    out.push(b'}');
                }
            }
            out.push(b'\n');
        }
    }
}

fn write_value(value: &Value, out: &mut Vec<u8>) {
    match value {
        Value::Integer(number) => out.extend_from_slice(number.to_string().as_bytes()),
        Value::Raw(text) => out.extend_from_slice(text.as_bytes()),
        Value::Text(bytes) => {
            out.push(b'"');
            for byte in bytes {
                if matches!(byte, b'"' | b'\\') {
                    out.push(b'\\');
                }
                out.push(*byte);
            }
            out.push(b'"');
        }
    }
}
