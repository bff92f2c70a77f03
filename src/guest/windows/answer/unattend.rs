//! `unattend.xml`: settings by pass, component and processor.

use std::collections::BTreeSet;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use zeroize::Zeroizing;

use super::AnswerError;
use super::encoding::{self, Encoding};
use super::xml::{Document, Element, Path};
use crate::craft::secret::Secret;
use crate::guest::windows::Architecture;
use crate::guest::windows::path::folded;

/// The component with computer name, time zone, users.
pub const SHELL_SETUP: &str = "Microsoft-Windows-Shell-Setup";
/// The component that runs commands in the specialize pass.
const DEPLOYMENT: &str = "Microsoft-Windows-Deployment";
/// The namespace of answer files.
const NAMESPACE: &str = "urn:schemas-microsoft-com:unattend";
/// The namespace of the attribute `action`.
const WCM: &str = "http://schemas.microsoft.com/WMIConfig/2002/State";
const DEFAULT: &str = include_str!("unattend.xml");

/// A pass of Windows Setup that comes at the next start of a generalized image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pass {
    /// The machine becomes one of its own.
    Specialize,
    /// Users and what a person would be asked.
    OobeSystem,
}

impl Pass {
    /// The name in the file.
    pub fn name(self) -> &'static str {
        match self {
            Self::Specialize => "specialize",
            Self::OobeSystem => "oobeSystem",
        }
    }
}

/// An answer file for one processor.
pub struct AnswerFile {
    document: Document,
    encoding: Encoding,
    architecture: &'static str,
}

fn same(a: &str, b: &str) -> bool {
    folded(a) == folded(b)
}

impl AnswerFile {
    /// Reads a file.
    pub fn parse(bytes: &[u8], architecture: Architecture) -> Result<Self, AnswerError> {
        let (text, encoding) = encoding::decode(bytes)?;
        let document = Document::parse(text.as_str())?;
        let root = document.root();
        if root.local() != "unattend" {
            return Err(AnswerError::Root { found: root.local().to_owned() });
        }
        let namespace = root.attributes.iter().any(|(_, value)| value == NAMESPACE);
        if !namespace {
            return Err(AnswerError::Namespace { namespace: NAMESPACE });
        }
        Ok(Self { document, encoding, architecture: architecture.name() })
    }

    /// The one that is written where there is none.
    pub fn default_text(architecture: Architecture) -> Secret {
        Secret::new(DEFAULT.replace("@ARCHITECTURE@", architecture.name()))
    }

    /// The file's bytes, in the encoding that it had.
    pub fn bytes(&self) -> Secret {
        Secret::new(encoding::encode(self.document.text(), self.encoding))
    }

    fn settings(&self) -> impl Iterator<Item = (usize, &Element)> {
        let all = self.document.root().children.iter().enumerate();
        all.filter(|(_, child)| child.local() == "settings")
    }

    fn settings_of(&self, pass: Pass) -> impl Iterator<Item = (usize, &Element)> {
        self.settings().filter(move |(_, settings)| settings.attribute("pass") == Some(pass.name()))
    }

    /// Whether Windows has used the file before and will not do so again: each of the passes that
    /// are due is marked as processed.
    pub fn is_spent(&self) -> bool {
        let due = [Pass::Specialize, Pass::OobeSystem];
        let mut passes = due.into_iter().flat_map(|pass| self.settings_of(pass)).peekable();
        passes.peek().is_some()
            && passes.all(|(_, settings)| settings.attribute("wasPassProcessed") == Some("true"))
    }

    /// The processors that the file has settings for.
    pub fn architectures(&self) -> BTreeSet<&str> {
        let components = self.settings().flat_map(|(_, settings)| &settings.children);
        components.filter_map(|component| component.attribute("processorArchitecture")).collect()
    }

    fn find_component(&self, pass: Pass, name: &str) -> Option<Path> {
        self.settings_of(pass).find_map(|(at, settings)| {
            let matches = |component: &Element| {
                component.local() == "component"
                    && component.attribute("name").is_some_and(|found| same(found, name))
                    && component
                        .attribute("processorArchitecture")
                        .is_some_and(|found| same(found, self.architecture))
            };
            settings.children.iter().position(matches).map(|index| vec![at, index])
        })
    }

    /// The component, made where it is missing.
    fn component(&mut self, pass: Pass, name: &str) -> Result<Path, AnswerError> {
        if let Some(path) = self.find_component(pass, name) {
            // An element that is to be processed again must not be marked as processed.
            self.document.remove_attribute(&path[..1], "wasPassProcessed")?;
            return Ok(path);
        }
        let root = self.document.root();
        let prefix = root.prefix().to_owned();
        let settings = self.settings_of(pass).next().map(|(at, _)| at);
        let at = match settings {
            Some(at) => at,
            None => {
                let at = root.children.len();
                let tag = format!("<{prefix}settings pass=\"{}\"/>", pass.name());
                self.document.append(&[], &[tag])?;
                at
            }
        };
        self.document.remove_attribute(&[at], "wasPassProcessed")?;
        let tag = format!(
            "<{prefix}component name=\"{name}\" processorArchitecture=\"{}\" \
             publicKeyToken=\"31bf3856ad364e35\" language=\"neutral\" versionScope=\"nonSxS\"/>",
            self.architecture
        );
        self.document.append(&[at], &[tag])?;
        self.find_component(pass, name).ok_or(AnswerError::Moved { what: "a component" })
    }

    /// A child of an element by name, made where it is missing.
    fn child(&mut self, path: &[usize], name: &str) -> Result<Path, AnswerError> {
        let index = |parent: &Element| parent.children.iter().position(|c| c.local() == name);
        let mut path = path.to_vec();
        let parent = self.document.at(&path);
        let found = parent.and_then(index);
        let next = match (found, parent) {
            (Some(found), _) => found,
            (None, Some(parent)) => {
                let (count, tag) = (parent.children.len(), format!("<{}{name}/>", parent.prefix()));
                self.document.append(&path, &[tag])?;
                count
            }
            (None, None) => return Err(AnswerError::Moved { what: "an element" }),
        };
        path.push(next);
        Ok(path)
    }

    /// The text of a setting.
    pub fn get(&self, pass: Pass, component: &str, setting: &[&str]) -> Option<&str> {
        let path = self.find_component(pass, component)?;
        let component = self.document.at(&path)?;
        let found = setting.iter().try_fold(component, |element, name| element.child(name))?;
        Some(found.text.trim())
    }

    /// Sets the text of a setting; all on the way that is missing is made.
    pub fn set(
        &mut self,
        pass: Pass,
        component: &str,
        setting: &[&str],
        text: &str,
    ) -> Result<(), AnswerError> {
        if self.get(pass, component, setting) == Some(text) {
            return Ok(());
        }
        let mut path = self.component(pass, component)?;
        for name in setting {
            path = self.child(&path, name)?;
        }
        self.document.set_text(&path, text)
    }

    /// Has a command run in the specialize pass, after those that are there already.
    pub fn run_in_specialize(
        &mut self,
        description: &str,
        command: &str,
    ) -> Result<(), AnswerError> {
        let component = self.component(Pass::Specialize, DEPLOYMENT)?;
        let list = self.child(&component, "RunSynchronous")?;
        let Some(element) = self.document.at(&list) else { return Ok(()) };
        if element.children.iter().any(|entry| entry.child_text("Path") == Some(command)) {
            return Ok(());
        }
        let orders = element.children.iter().filter_map(|entry| entry.child_text("Order"));
        let last = orders.filter_map(|order| order.parse::<u32>().ok()).max().unwrap_or(0);
        let (prefix, order) = (element.prefix().to_owned(), last.saturating_add(1));
        let escaped = quick_xml::escape::escape(command);
        self.document.append(
            &list,
            &[format!(
                "<{prefix}RunSynchronousCommand xmlns:wcm=\"{WCM}\" wcm:action=\"add\">\
                 <{prefix}Description>{description}</{prefix}Description>\
                 <{prefix}Order>{order}</{prefix}Order>\
                 <{prefix}Path>{escaped}</{prefix}Path>\
                 <{prefix}WillReboot>Never</{prefix}WillReboot>\
                 </{prefix}RunSynchronousCommand>"
            )],
        )
    }

    /// The local accounts that the file creates: name, and the way to the account.
    fn account_paths(&self) -> Vec<(String, Path)> {
        let Some(component) = self.find_component(Pass::OobeSystem, SHELL_SETUP) else {
            return Vec::new();
        };
        let step = |path: &Path, name: &str| {
            let parent = self.document.at(path)?;
            let index = parent.children.iter().position(|child| child.local() == name)?;
            Some([path.as_slice(), &[index]].concat())
        };
        let list = step(&component, "UserAccounts").and_then(|path| step(&path, "LocalAccounts"));
        let Some((path, list)) =
            list.and_then(|path| Some((path.clone(), self.document.at(&path)?)))
        else {
            return Vec::new();
        };
        let entries = list.children.iter().enumerate();
        entries
            .filter(|(_, entry)| entry.local() == "LocalAccount")
            .filter_map(|(index, entry)| {
                let name = entry.child_text("Name")?;
                Some((name.to_owned(), [path.as_slice(), &[index]].concat()))
            })
            .collect()
    }

    /// The names of the local accounts that the file creates.
    pub fn local_accounts(&self) -> Vec<String> {
        self.account_paths().into_iter().map(|(name, _)| name).collect()
    }

    /// Sets the password of the built-in administrator.
    pub fn set_administrator_password(&mut self, password: &Secret) -> Result<(), AnswerError> {
        let component = self.component(Pass::OobeSystem, SHELL_SETUP)?;
        let accounts = self.child(&component, "UserAccounts")?;
        let place = self.child(&accounts, "AdministratorPassword")?;
        self.set_password(&place, password, "AdministratorPassword")
    }

    /// Sets the password of an account that the file creates; says whether there is one of that
    /// name.
    pub fn set_account_password(
        &mut self,
        name: &str,
        password: &Secret,
    ) -> Result<bool, AnswerError> {
        let found = self.account_paths().into_iter().find(|(found, _)| same(found, name));
        let Some((_, path)) = found else { return Ok(false) };
        let place = self.child(&path, "Password")?;
        self.set_password(&place, password, "Password")?;
        Ok(true)
    }

    /// Sets the password of the automatic logon, if the file has one for this user.
    pub fn set_auto_logon_password(
        &mut self,
        user: &str,
        password: &Secret,
    ) -> Result<(), AnswerError> {
        let logs_on = self.get(Pass::OobeSystem, SHELL_SETUP, &["AutoLogon", "Username"]);
        if !logs_on.is_some_and(|found| same(found, user)) {
            return Ok(());
        }
        let component = self.component(Pass::OobeSystem, SHELL_SETUP)?;
        let logon = self.child(&component, "AutoLogon")?;
        let place = self.child(&logon, "Password")?;
        self.set_password(&place, password, "Password")
    }

    /// `Value` and `PlainText` of a password, hidden from the eye as Windows' own tools do: with
    /// the element's name after it, in UTF-16 and base64.
    fn set_password(
        &mut self,
        at: &[usize],
        password: &Secret,
        name: &str,
    ) -> Result<(), AnswerError> {
        let text = std::str::from_utf8(password.expose()).map_err(|_| AnswerError::Password)?;
        let mut bytes = Zeroizing::new(Vec::with_capacity((text.len() + name.len()) * 2));
        text.encode_utf16().chain(name.encode_utf16()).for_each(|u| bytes.extend(u.to_le_bytes()));
        let value = Zeroizing::new(STANDARD.encode(&*bytes));
        let place = self.child(at, "Value")?;
        self.document.set_text(&place, &value)?;
        let place = self.child(at, "PlainText")?;
        self.document.set_text(&place, "false")
    }
}

#[cfg(test)]
mod tests;
