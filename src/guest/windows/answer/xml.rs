//! An XML text that is changed by splicing: what is not asked for stays byte for byte, with its
//! blanks, comments and order.

use std::ops::Range;

use quick_xml::Reader;
use quick_xml::escape::partial_escape;
use quick_xml::events::{BytesStart, Event};
use zeroize::Zeroizing;

use super::AnswerError;
use crate::limits::{XML_ELEMENTS, XML_LEVELS};

/// An element and where it stands in the text.
#[derive(Clone, Debug)]
pub struct Element {
    /// Its name with its prefix.
    pub name: String,
    /// Attributes: name with prefix, value.
    pub attributes: Vec<(String, String)>,
    /// Its own text, without that of its children.
    pub text: Zeroizing<String>,
    /// Elements in it.
    pub children: Vec<Element>,
    /// The start tag, or the whole of an empty element.
    open: Range<usize>,
    /// The end tag; `None` for an empty element (`<a/>`).
    close: Option<Range<usize>>,
}

/// A way from the root element: which child at each step.
pub type Path = Vec<usize>;

impl Element {
    /// The name without its prefix.
    pub fn local(&self) -> &str {
        self.name.rsplit(':').next().unwrap_or_default()
    }

    /// The prefix with its colon, or nothing.
    pub fn prefix(&self) -> &str {
        self.name.rfind(':').map_or("", |colon| &self.name[..=colon])
    }

    /// The value of an attribute, whatever its prefix.
    pub fn attribute(&self, local: &str) -> Option<&str> {
        let found = self.attributes.iter().find(|(name, _)| name.rsplit(':').next() == Some(local));
        found.map(|(_, value)| value.as_str())
    }

    /// The first child of that name, prefixes aside.
    pub fn child(&self, local: &str) -> Option<&Element> {
        self.children.iter().find(|child| child.local() == local)
    }

    /// The text of a child.
    pub fn child_text(&self, local: &str) -> Option<&str> {
        self.child(local).map(|child| child.text.trim())
    }

    fn end(&self) -> usize {
        self.close.as_ref().map_or(self.open.end, |close| close.end)
    }
}

/// A text and its elements.
pub struct Document {
    text: Zeroizing<String>,
    root: Element,
}

impl Document {
    /// Parses a text. The error says what is wrong and where.
    pub fn parse(text: impl Into<String>) -> Result<Self, AnswerError> {
        let text = Zeroizing::new(text.into());
        let root = parse(&text)?;
        Ok(Self { text, root })
    }

    /// The text.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The root element.
    pub fn root(&self) -> &Element {
        &self.root
    }

    /// The element at a path.
    pub fn at(&self, path: &[usize]) -> Option<&Element> {
        path.iter().try_fold(&self.root, |element, index| element.children.get(*index))
    }

    /// Replaces all that is in the element by a text.
    pub fn set_text(&mut self, path: &[usize], text: &str) -> Result<(), AnswerError> {
        let Some(element) = self.at(path) else { return Ok(()) };
        let escaped = Zeroizing::new(partial_escape(text).into_owned());
        let (range, new) = match &element.close {
            Some(close) => (element.open.end..close.start, escaped),
            None => self.opened(element, &escaped),
        };
        self.splice(range, &new)
    }

    /// An empty element as a pair of tags around `content`, and what it replaces.
    fn opened(&self, element: &Element, content: &str) -> (Range<usize>, Zeroizing<String>) {
        let tag = self.text[element.open.clone()].trim_end_matches('>').trim_end_matches('/');
        let new = format!("{}>{content}</{}>", tag.trim_end(), element.name);
        (element.open.clone(), Zeroizing::new(new))
    }

    /// Adds elements, given as text, after all that is in the element, on lines of their own.
    pub fn append(&mut self, path: &[usize], lines: &[String]) -> Result<(), AnswerError> {
        let Some(element) = self.at(path) else { return Ok(()) };
        let newline = if self.text.contains("\r\n") { "\r\n" } else { "\n" };
        let outer = self.indent(element.open.start).to_owned();
        // As deep as what is there, else two blanks deeper than the element itself.
        let inner = match element.children.first() {
            Some(first) => self.indent(first.open.start).to_owned(),
            None => format!("{outer}  "),
        };
        let mut content = Zeroizing::new(String::new());
        for line in lines {
            content.push_str(newline);
            content.push_str(&inner);
            content.push_str(line);
        }
        content.push_str(newline);
        content.push_str(&outer);
        let (range, new) = match &element.close {
            Some(close) => {
                let before = self.text[element.open.end..close.start].trim_end();
                (element.open.end + before.len()..close.start, content)
            }
            None => self.opened(element, &content),
        };
        self.splice(range, &new)
    }

    /// Takes an element out, with the line that it leaves empty.
    pub fn remove(&mut self, path: &[usize]) -> Result<(), AnswerError> {
        let Some(element) = self.at(path).filter(|_| !path.is_empty()) else { return Ok(()) };
        let mut start = element.open.start;
        let line = self.indent(start).len();
        if self.text[..start - line].ends_with('\n') {
            start -= line;
            start -= 1 + usize::from(self.text[..start].ends_with("\r\n"));
        }
        let range = start..element.end();
        self.splice(range, "")
    }

    /// Takes an attribute out of an element.
    pub fn remove_attribute(&mut self, path: &[usize], local: &str) -> Result<(), AnswerError> {
        let Some(element) = self.at(path) else { return Ok(()) };
        let Some((name, _)) =
            element.attributes.iter().find(|(name, _)| name.rsplit(':').next() == Some(local))
        else {
            return Ok(());
        };
        // Attributes as the parser saw them: blank, name, equals sign, quoted value.
        let tag = &self.text[element.open.clone()];
        let mut from = 0;
        while let Some(found) = tag[from..].find(name.as_str()) {
            let start = from + found;
            from = start + name.len();
            let before = tag[..start].trim_end();
            let Some(value) = tag[from..].trim_start().strip_prefix('=').map(str::trim_start)
            else {
                continue;
            };
            let quote = value.chars().next().filter(|c| matches!(c, '"' | '\''));
            let Some(quote) = quote.filter(|_| before.len() < start) else { continue };
            let Some(length) = value[1..].find(quote) else { continue };
            let end = tag.len() - value.len() + length + 2;
            let base = element.open.start;
            return self.splice(base + before.len()..base + end, "");
        }
        Ok(())
    }

    /// The blanks between the start of a line and `at`; empty when something else is there.
    fn indent(&self, at: usize) -> &str {
        let before = &self.text[..at];
        let line = before.rfind('\n').map_or(0, |newline| newline + 1);
        let blanks = &before[line..];
        if blanks.chars().all(|c| matches!(c, ' ' | '\t')) { blanks } else { "" }
    }

    fn splice(&mut self, range: Range<usize>, new: &str) -> Result<(), AnswerError> {
        let parts = [&self.text[..range.start], new, &self.text[range.end..]];
        // One allocation, so that no part of a secret stays behind in one that was outgrown.
        let mut text = Zeroizing::new(String::with_capacity(parts.iter().map(|p| p.len()).sum()));
        parts.iter().for_each(|part| text.push_str(part));
        self.root = parse(&text)?;
        self.text = text;
        Ok(())
    }
}

fn parse(text: &str) -> Result<Element, AnswerError> {
    let mut reader = Reader::from_str(text);
    let mut open: Vec<Element> = Vec::new();
    let mut root = None;
    let mut count = 0;
    loop {
        let start = position(&reader);
        let wrong = |problem| AnswerError::Markup { line: line(text, start), problem };
        let broken = |source| AnswerError::Xml { line: line(text, start), source };
        let event = reader.read_event().map_err(broken)?;
        let range = start..position(&reader);
        match event {
            Event::Start(tag) => {
                count += 1;
                if open.len() >= XML_LEVELS || count > XML_ELEMENTS {
                    return Err(wrong("too many elements, or elements within elements"));
                }
                if open.is_empty() && root.is_some() {
                    return Err(wrong("a second element after the root"));
                }
                open.push(element(&tag, range).map_err(broken)?);
            }
            Event::Empty(tag) => {
                count += 1;
                if count > XML_ELEMENTS {
                    return Err(wrong("too many elements"));
                }
                let element = element(&tag, range).map_err(broken)?;
                match open.last_mut() {
                    Some(parent) => parent.children.push(element),
                    None if root.is_none() => root = Some(element),
                    None => return Err(wrong("a second element after the root")),
                }
            }
            Event::End(_) => {
                // The reader has checked that it belongs to the last start tag.
                let Some(mut element) = open.pop() else {
                    return Err(wrong("an end tag without a start tag"));
                };
                element.close = Some(range);
                match open.last_mut() {
                    Some(parent) => parent.children.push(element),
                    None => root = Some(element),
                }
            }
            Event::Text(part) => match open.last_mut() {
                Some(element) => element.text.push_str(&part.xml10_content()),
                None if part.trim().is_empty() => {}
                None => return Err(wrong("text outside of the root element")),
            },
            Event::CData(part) => {
                if let Some(element) = open.last_mut() {
                    element.text.push_str(&part.xml10_content());
                }
            }
            Event::GeneralRef(name) => {
                let c = match name.resolve_char_ref() {
                    Ok(Some(c)) => Some(c),
                    Ok(None) => predefined(&name.xml10_content()),
                    Err(_) => None,
                };
                let Some(c) = c else { return Err(wrong("an entity that is not known")) };
                if let Some(element) = open.last_mut() {
                    element.text.push(c);
                }
            }
            Event::DocType(_) => {
                return Err(wrong("a document type, which no answer file has"));
            }
            Event::Comment(_) | Event::Decl(_) | Event::PI(_) => {}
            Event::Eof => break,
        }
    }
    if let Some(element) = open.last() {
        return Err(AnswerError::Unfinished { element: element.name.clone() });
    }
    root.ok_or(AnswerError::Empty)
}

/// The number of the line that a position is in.
fn line(text: &str, position: usize) -> usize {
    text.bytes().take(position).filter(|byte| *byte == b'\n').count() + 1
}

fn position(reader: &Reader<&[u8]>) -> usize {
    usize::try_from(reader.buffer_position()).unwrap_or(usize::MAX)
}

fn predefined(name: &str) -> Option<char> {
    let known = [("lt", '<'), ("gt", '>'), ("amp", '&'), ("apos", '\''), ("quot", '"')];
    known.into_iter().find(|(known, _)| *known == name).map(|(_, c)| c)
}

fn element(tag: &BytesStart<'_>, open: Range<usize>) -> Result<Element, quick_xml::Error> {
    let mut attributes = Vec::new();
    for attribute in tag.attributes() {
        let attribute = attribute?;
        let value = quick_xml::escape::unescape(&attribute.value)?;
        attributes.push((attribute.key.0.to_owned(), value.into_owned()));
    }
    let name = tag.name().0.to_owned();
    let (text, children) = (Zeroizing::new(String::new()), Vec::new());
    Ok(Element { name, attributes, text, children, open, close: None })
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "<?xml version='1.0'?>\r\n<!-- c -->\r\n<u:a xmlns:u=\"x\">\r\n    <u:b  k = 'v&amp;' \
                        wasPassProcessed=\"true\" >t&lt;<![CDATA[&]]>&#65;</u:b>\r\n    <c/>\r\n</u:a>\r\n";

    #[test]
    fn elements_and_their_text() {
        let document = Document::parse(TEXT).unwrap();
        let root = document.root();
        assert_eq!((root.local(), root.prefix()), ("a", "u:"));
        let b = root.child("b").unwrap();
        assert_eq!(b.text.as_str(), "t<&A");
        assert_eq!(b.attribute("k"), Some("v&"));
        assert_eq!(document.at(&[1]).unwrap().name, "c");
    }

    #[test]
    fn splices_leave_the_rest() {
        let mut document = Document::parse(TEXT).unwrap();
        document.set_text(&[0], "<&\"").unwrap();
        document.set_text(&[1], "x").unwrap();
        document.remove_attribute(&[0], "wasPassProcessed").unwrap();
        document.append(&[], &["<d>1</d>".to_owned(), "<e/>".to_owned()]).unwrap();
        assert_eq!(
            document.text(),
            "<?xml version='1.0'?>\r\n<!-- c -->\r\n<u:a xmlns:u=\"x\">\r\n    <u:b  k = 'v&amp;' \
             >&lt;&amp;\"</u:b>\r\n    <c>x</c>\r\n    <d>1</d>\r\n    <e/>\r\n</u:a>\r\n"
        );
        document.append(&[3], &["<f/>".to_owned()]).unwrap();
        assert!(document.text().contains("    <e>\r\n      <f/>\r\n    </e>\r\n"));
        document.remove(&[0]).unwrap();
        document.remove(&[2]).unwrap();
        assert!(
            document
                .text()
                .ends_with("<u:a xmlns:u=\"x\">\r\n    <c>x</c>\r\n    <d>1</d>\r\n</u:a>\r\n")
        );
        document.remove(&[]).unwrap();
        document.remove(&[7]).unwrap();
        let mut inline = Document::parse("<a x='1' y=\"2\"/>").unwrap();
        inline.remove_attribute(&[], "y").unwrap();
        inline.append(&[], &["<b/>".to_owned()]).unwrap();
        assert_eq!(inline.text(), "<a x='1'>\n  <b/>\n</a>");
    }

    #[test]
    fn what_is_no_document() {
        let deep = format!("{}{}", "<a>".repeat(100), "</a>".repeat(100));
        for (text, part) in [
            ("", "no element"),
            ("text", "text outside"),
            ("<a>", "ends within the element a"),
            ("<a></b>", "line 1"),
            ("<a>\n\n<b x=1/></a>", "line 3"),
            ("<a/><b/>", "second element"),
            ("<!DOCTYPE a [<!ENTITY b \"c\">]><a>&b;</a>", "a document type"),
            ("<a>&nbsp;</a>", "an entity that is not known"),
            ("</a>", "line 1"),
            (&deep, "too many"),
        ] {
            let error = Document::parse(text).err().unwrap();
            let error = crate::craft::sentence::sentence(&error);
            assert!(error.contains(part), "{text}: {error}");
            assert_eq!(error.lines().count(), 1, "{error}");
        }
    }
}
