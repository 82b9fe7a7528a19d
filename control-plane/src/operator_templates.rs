//! Provider templates that the operator added over REST.
//!
//! They say where credentials go, so they are kept sealed like the keys of the service: whoever can write the database cannot
//! plant a template that sends a credential to a host of his own.

use leases::id::OrgId;
use providers::{Catalog, TemplateErrors, parse_template};
use serde::{Deserialize, Serialize};
use store::{Actor, Store, StoreError};
use vault::Secret;

use crate::keys::{KeyChest, KeyChestError, NewKey};

/// All templates of the operator, as one sealed document.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Document {
    templates: Vec<Stored>,
}

#[derive(Debug, Serialize, Deserialize)]
struct Stored {
    name: String,
    text: String,
}

/// Why the operator's templates cannot be read or added to.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OperatorTemplatesError {
    /// Another one of this name was added before.
    #[error("a template named `{0}` was added before; choose another name")]
    NameTaken(String),
    /// All of them together are too long.
    #[error(
        "the templates added over REST are too long together (at most {MAX_DOCUMENT} bytes); put some into files of `--providers DIR`"
    )]
    Full,
    /// A template of an earlier release no longer loads.
    #[error("the template `{name}` that was added over REST has mistakes: {errors}")]
    Template {
        /// Its name.
        name: String,
        /// All of its mistakes.
        errors: TemplateErrors,
    },
    /// The document does not open, or does not store.
    #[error(transparent)]
    Chest(#[from] KeyChestError),
}

/// Adds the templates that were added over REST to a catalog, at start. Gives their number.
///
/// A process that may not unwrap has none of them: it takes those of files alone, and says so in the log.
///
/// # Errors
/// [`OperatorTemplatesError`]; the catalog may then have some of them.
pub async fn load_templates(
    chest: &KeyChest,
    catalog: &mut Catalog,
) -> Result<usize, OperatorTemplatesError> {
    let document = match read(chest).await {
        Ok((_, document)) => document,
        Err(OperatorTemplatesError::Chest(error)) if error.is_denied() => {
            tracing::warn!(
                "templates added over REST cannot be opened by this plane; give it the same ones as files"
            );
            return Ok(0);
        }
        Err(error) => return Err(error),
    };
    for stored in &document.templates {
        let parsed = parse_template(&stored.name, &stored.text);
        let template = parsed.map_err(|errors| OperatorTemplatesError::Template {
            name: stored.name.clone(),
            errors,
        })?;
        catalog.insert(template);
    }
    Ok(document.templates.len())
}

/// Stores one more template.
pub(crate) async fn add(
    chest: &KeyChest,
    name: &str,
    text: &str,
    actor: &Actor,
) -> Result<(), OperatorTemplatesError> {
    for _ in 0..WRITE_ATTEMPTS {
        let (version, mut document) = read(chest).await?;
        if document.templates.iter().any(|stored| stored.name == name) {
            return Err(OperatorTemplatesError::NameTaken(name.to_owned()));
        }
        document.templates.push(Stored {
            name: name.to_owned(),
            text: text.to_owned(),
        });
        let json = serde_json::to_vec(&document).expect("a list of texts is JSON");
        if json.len() > MAX_DOCUMENT {
            return Err(OperatorTemplatesError::Full);
        }
        let next = NewKey {
            secret: Secret::new(json),
            public: Vec::new(),
        };
        match chest.put(DOCUMENT, version + 1, next, actor).await {
            Ok(_) => return Ok(()),
            // Another one was added meanwhile: read again, so that neither is lost.
            Err(KeyChestError::Store(StoreError::Conflict { .. })) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Err(KeyChestError::Store(StoreError::Conflict {
        what: "the list of templates",
    })
    .into())
}

/// The newest version of the list; `None` when there is none.
pub(crate) async fn newest(store: &Store, org: &OrgId) -> Result<Option<u64>, StoreError> {
    let current = store.sealed_keys().current(org, DOCUMENT).await?;
    Ok(current.map(|list| list.version))
}

async fn read(chest: &KeyChest) -> Result<(u64, Document), OperatorTemplatesError> {
    let Some(opened) = chest.current(DOCUMENT).await? else {
        return Ok((0, Document::default()));
    };
    let document = serde_json::from_slice(opened.secret.expose());
    let document = document.map_err(|_| KeyChestError::Malformed {
        name: DOCUMENT.to_owned(),
    })?;
    Ok((opened.version, document))
}

const DOCUMENT: &str = "provider-templates";
const WRITE_ATTEMPTS: usize = 3;
const MAX_DOCUMENT: usize = 512 * 1024;
