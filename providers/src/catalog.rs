//! The templates at hand, by name and by host.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use crate::host::Scheme;
use crate::load::TemplateErrors;
use crate::template::Template;

/// The built-in templates and the operator's own.
#[derive(Debug, Clone)]
pub struct Catalog {
    templates: BTreeMap<String, Arc<Template>>,
}

/// Why a directory of templates was not taken in.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CatalogError {
    /// The directory or a file in it could not be read.
    #[error("cannot read {path}; check that it exists and is readable")]
    Read {
        /// What could not be read.
        path: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// Every mistake of every file.
    #[error("{0}")]
    Templates(#[from] TemplateErrors),
}

impl Catalog {
    /// The templates that come with the product.
    pub fn builtin() -> Self {
        unimplemented!()
    }

    /// Adds every `*.toml` of a directory. A file may replace a built-in template of the same name.
    ///
    /// # Errors
    /// [`CatalogError`]; then nothing was added.
    pub fn load_dir(&mut self, dir: &Path) -> Result<(), CatalogError> {
        let _ = dir;
        unimplemented!()
    }

    /// Adds one template; a template of the same name is replaced.
    pub fn insert(&mut self, template: Template) {
        self.templates
            .insert(template.name().to_owned(), Arc::new(template));
    }

    /// The template of that name. `custom` is not among them: see [`crate::CustomSpec`].
    pub fn get(&self, name: &str) -> Option<Arc<Template>> {
        self.templates.get(name).map(Arc::clone)
    }

    /// All templates by name.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Template>> {
        self.templates.values()
    }

    /// The templates that send to a host, by name. `host` is canonical.
    pub fn for_host(&self, host: &str, port: u16) -> Vec<Arc<Template>> {
        let sends = |t: &Template| {
            [Scheme::Https, Scheme::Http]
                .iter()
                .any(|s| t.endpoint(*s, host, port).is_some())
        };
        self.iter()
            .filter(|template| sends(template))
            .map(Arc::clone)
            .collect()
    }
}
