//! How a pattern stands in a token: as a string that Datalog compares, as a prefix or suffix, or as a regular expression.

/// A pattern as Datalog tests it. The first two need no regular expression, which Biscuit compiles at each evaluation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Form {
    /// Equal to this.
    Is(String),
    /// A host that ends with this, or a path that begins with this.
    Under(String),
    /// Matched by this regular expression, which is anchored at both ends.
    Like(String),
}

impl Form {
    /// The words by which facts name the three.
    pub(crate) const NAMES: [&str; 3] = ["is", "under", "like"];

    pub(crate) const fn name(&self) -> &'static str {
        match self {
            Self::Is(_) => Self::NAMES[0],
            Self::Under(_) => Self::NAMES[1],
            Self::Like(_) => Self::NAMES[2],
        }
    }

    pub(crate) fn text(&self) -> &str {
        match self {
            Self::Is(text) | Self::Under(text) | Self::Like(text) => text,
        }
    }

    pub(crate) fn from_parts(name: &str, text: &str) -> Option<Self> {
        let make = match name {
            "is" => Self::Is,
            "under" => Self::Under,
            "like" => Self::Like,
            _ => return None,
        };
        Some(make(text.to_owned()))
    }
}
