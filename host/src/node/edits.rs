//! EDITS: the kinds of edits that a tenant's `img_edits` may hold.

use std::collections::BTreeSet;
use std::str::FromStr;

use snf_image::edit::{Edit, kinds};
use snf_image::params::Problem;

/// The OS parameter.
const PARAMETER: &str = "img_edits";

/// Kinds that read files of the machine that customizes: a tenant's list never holds them, whatever is
/// allowed.
const LOCAL: [&str; 2] = ["copy-in", "tar-in"];

/// The kinds that a tenant's list may hold.
fn possible() -> impl Iterator<Item = &'static str> {
    kinds().filter(|kind| !LOCAL.contains(kind))
}

/// The kinds of edits that are allowed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Edits(BTreeSet<&'static str>);

impl Default for Edits {
    fn default() -> Self {
        Self(possible().collect())
    }
}

impl FromStr for Edits {
    type Err = String;

    /// Words: `all`, `none`, a kind, or `-` and a kind, which takes it out. They count from left to right.
    fn from_str(text: &str) -> Result<Self, String> {
        let mut allowed = BTreeSet::new();
        for (number, word) in text.split_whitespace().enumerate() {
            let (name, take) = match word.strip_prefix('-') {
                Some(name) => (name, true),
                None => (word, false),
            };
            match (name, take) {
                ("all", false) => allowed = possible().collect(),
                ("none", false) => allowed.clear(),
                // They are refused anyway.
                (name, true) if LOCAL.contains(&name) => {
                    if number == 0 {
                        allowed = possible().collect();
                    }
                }
                (name, false) if LOCAL.contains(&name) => {
                    return Err(format!(
                        "{word:?} reads files of the node, which no tenant may; leave it out"
                    ));
                }
                _ => {
                    let kind = possible().find(|kind| *kind == name).ok_or_else(|| {
                        let all: Vec<&str> = possible().collect();
                        format!(
                            "{word:?} is no kind of edit; there are all, none, {}",
                            all.join(", ")
                        )
                    })?;
                    // `-tar-in` alone is all but that.
                    if number == 0 && take {
                        allowed = possible().collect();
                    }
                    if take {
                        allowed.remove(kind);
                    } else {
                        allowed.insert(kind);
                    }
                }
            }
        }
        Ok(Self(allowed))
    }
}

impl std::fmt::Display for Edits {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let refused: Vec<&str> = possible().filter(|kind| !self.0.contains(kind)).collect();
        match (self.0.is_empty(), refused.is_empty()) {
            (_, true) => f.write_str("all"),
            (true, _) => f.write_str("none"),
            _ => write!(f, "all but {}", refused.join(", ")),
        }
    }
}

impl Edits {
    /// The edits of a plan that are not allowed.
    pub fn problems(&self, edits: &[Edit]) -> Vec<Problem> {
        let refused = edits.iter().filter(|edit| !self.0.contains(edit.action.name()));
        refused
            .map(|edit| Problem {
                parameter: PARAMETER.to_owned(),
                problem: format!(
                    "the admin of this node does not allow the edit {} (EDITS in \
                     /etc/default/snf-image): {}",
                    edit.action.name(),
                    edit.origin
                ),
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use snf_image::params::OsParameters;
    use snf_image::secret::Secret;

    #[test]
    fn words() {
        let parse = |text: &str| text.parse::<Edits>();
        assert_eq!(parse("all").unwrap(), Edits::default());
        assert_eq!(parse("none").unwrap().to_string(), "none");
        assert_eq!(parse("").unwrap(), parse("none").unwrap());
        assert_eq!(parse("-chown").unwrap(), parse("all -chown").unwrap());
        assert_eq!(parse("-chown -chmod").unwrap().to_string(), "all but chmod, chown");
        assert!(parse("mkdri").unwrap_err().contains("mkdir"));
        assert_eq!(parse("-copy-in").unwrap(), Edits::default());
        assert!(parse("all tar-in").unwrap_err().contains("files of the node"));
    }

    #[test]
    fn kinds_are_refused_one_by_one() {
        let edits = r#"[{"mkdir": {"path": "/srv"}}, {"delete": {"path": "/etc/motd"}}]"#;
        let parameters =
            OsParameters::from_lookup(|name| (name == PARAMETER).then(|| Secret::new(edits)));
        let plan = parameters.unwrap().plan().unwrap();
        assert_eq!(Edits::default().problems(&plan.edits), []);
        let problems = "all -delete".parse::<Edits>().unwrap().problems(&plan.edits);
        assert_eq!(problems.len(), 1);
        let text = problems[0].to_string();
        assert!(text.starts_with("img_edits: ") && text.contains("delete /etc/motd"), "{text}");
    }
}
