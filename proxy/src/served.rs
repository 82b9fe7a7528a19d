//! What a lease's binding serves a request by: its template, and the keys that may be used. Asked for once a tunnel.

use std::sync::Arc;

use leases::authorize::Permit;
use leases::id::SetId;
use leases::scope::{Keys, PathGlob};
use providers::template::Template;

use crate::context::Tunnel;
use crate::normalize::Target;
use crate::refuse::{Code, Refusal};

/// The template of a binding, and what follows from it for every request.
#[derive(Debug)]
pub(crate) struct Served {
    set: SetId,
    /// A `custom` set has none here: it carries its own.
    template: Option<Arc<Template>>,
    keys: Arc<[String]>,
}

impl Served {
    /// What serves this permit. `template` is asked for once a tunnel: one host is one set of its lease.
    pub(crate) fn of(
        permit: &Permit,
        tunnel: Option<&Tunnel>,
        template: impl Fn() -> Option<Arc<Template>>,
    ) -> Arc<Self> {
        let binding = permit.binding();
        let look_up = || {
            let template = template();
            Arc::new(Self {
                set: binding.set.clone(),
                keys: usable(&binding.keys, template.as_deref()),
                template,
            })
        };
        let Some(tunnel) = tunnel else {
            return look_up();
        };
        let served = tunnel.served.get_or_init(look_up);
        if served.set == binding.set {
            return Arc::clone(served);
        }
        look_up()
    }

    pub(crate) fn template(&self) -> Option<&Template> {
        self.template.as_deref()
    }

    /// The names that may be used: what the template sends, of what the grant allows. Empty means all, which is what a
    /// `custom` set says of itself. The ledger records those of them that the set has.
    pub(crate) fn usable_keys(&self) -> Arc<[String]> {
        Arc::clone(&self.keys)
    }

    /// Refuses an endpoint that hands out new credentials, unless the grant names it (threats.md C15), and a method that its paths
    /// alone do not name.
    pub(crate) fn check_denials(
        &self,
        permit: &Permit,
        target: &Target,
        method: &str,
    ) -> Result<(), Refusal> {
        let Some(template) = self.template() else {
            return Ok(());
        };
        let scope = &permit.binding().scope;
        let named = || {
            let matching = scope.paths.iter().filter(|glob| glob.matches(&target.path));
            matching.map(PathGlob::as_str)
        };
        let (host, path) = (target.host.as_str(), &*target.path);
        let is_listed = scope.paths.is_empty() || scope.methods.iter().any(|it| it == method);
        let unlisted = || template.denied_unlisted(host, method, path);
        let denied = template.denied(host, method, path, named);
        match denied.or_else(|| if is_listed { None } else { unlisted() }) {
            None => Ok(()),
            Some(denied) => Err(Refusal::new(Code::GrantDenied, denied.to_string())),
        }
    }
}

fn usable(allowed: &Keys, template: Option<&Template>) -> Arc<[String]> {
    let sent = template.map(Template::sent_keys);
    match (allowed, sent) {
        (Keys::All, None) => Arc::from([]),
        (Keys::All, Some(sent)) => sent.into(),
        (Keys::Only(names), None) => names.as_slice().into(),
        (Keys::Only(names), Some(sent)) => {
            sent.into_iter().filter(|key| names.contains(key)).collect()
        }
    }
}

#[cfg(test)]
mod tests {
    use leases::scope::PathGlob;
    use providers::Catalog;
    use providers::deny::{Denial, DeniedPath};

    #[test]
    fn every_built_in_denial_and_preset_can_be_written_in_a_grant() {
        for template in Catalog::builtin().iter() {
            let denied = template.denials().iter().flat_map(Denial::paths);
            let denied = denied.map(DeniedPath::as_str);
            let presets = template.presets().values();
            let preset = presets.flat_map(|preset| preset.paths.iter().map(String::as_str));
            for path in denied.chain(preset) {
                let glob = PathGlob::parse(path);
                assert!(glob.is_ok(), "{}: {path}: {glob:?}", template.name());
            }
        }
    }
}
