//! What a request copies from is a second target: the lease is asked for it like for a GET of it (threats.md B15). Objects that its
//! body names are more of them, which only a lease on all objects there takes.
//!
//! An object store reads the source with the credential of the request, so a lease that may not read an object must not copy it
//! to where it may.

use std::net::IpAddr;

use http::{HeaderMap, Method};
use leases::authorize::Permit;
use leases::scope::PathGlob;
use providers::copy::{CopyError, CopySource, Place, objects_in_body};
use time::OffsetDateTime;

use crate::normalize::Target;
use crate::permit;
use crate::refuse::{Code, Refusal};
use crate::served::Served;

/// A permitted request whose source is to be decided on.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Copying<'r> {
    pub(crate) permit: &'r Permit,
    pub(crate) served: &'r Served,
    pub(crate) target: &'r Target,
    pub(crate) method: &'r Method,
    pub(crate) headers: &'r HeaderMap,
    pub(crate) client_ip: IpAddr,
}

impl Copying<'_> {
    /// Decides on the object that the request copies, if it copies one and the lease is bound to some.
    pub(crate) fn check(&self, now: OffsetDateTime) -> Result<(), Refusal> {
        if !self.permit.limits_targets() {
            return Ok(());
        }
        self.check_body()?;
        let source = CopySource::read(self.headers, self.target.query.as_deref());
        let Some(source) = source.map_err(|error| untold(&error))? else {
            return Ok(());
        };
        let place = source.place(self.target.host.as_str());
        let place = place.map_err(|error| untold(&error))?;
        for method in source.methods() {
            self.allow(&place, method, now).map_err(|refusal| Refusal {
                detail: format!(
                    "{} names {}, which takes a lease that allows a {method} of it: {}",
                    source.field,
                    source.shown(),
                    refusal.detail
                )
                .into(),
                ..refusal
            })?;
        }
        Ok(())
    }

    /// Refuses a body that names objects where the lease is bound to some of them by their paths.
    fn check_body(&self) -> Result<(), Refusal> {
        let Target {
            host, path, query, ..
        } = self.target;
        let Some(objects) = objects_in_body(self.method, host.as_str(), path, query.as_deref())
        else {
            return Ok(());
        };
        let covers = |glob: PathGlob| self.permit.covers_paths(&glob);
        if PathGlob::parse(&objects).is_ok_and(covers) {
            return Ok(());
        }
        Err(Refusal::new(
            Code::GrantDenied,
            format!(
                "the body names objects, and the lease is bound to some by their paths; send a request for each, or ask for a grant \
                 whose paths hold {objects}"
            ),
        ))
    }

    /// Asks the lease, in each spelling of the path: they are one object, which could be asked for in any.
    fn allow(&self, place: &Place, method: &str, now: OffsetDateTime) -> Result<(), Refusal> {
        let mut answer = Ok(());
        for path in &place.paths {
            answer = self.allow_path(&place.host, path, method, now);
            if answer.is_ok() {
                break;
            }
        }
        answer
    }

    fn allow_path(
        &self,
        host: &str,
        path: &str,
        method: &str,
        now: OffsetDateTime,
    ) -> Result<(), Refusal> {
        let source = self.target.beside(host, path)?;
        source.check_encoded_slash(self.served.template())?;
        let own = self.permit.binding();
        let permit = permit::permit(self.permit.lease(), &source, method, self.client_ip, now)?;
        if permit.binding().set != own.set {
            return Err(Refusal::new(
                Code::GrantDenied,
                format!(
                    "host {host} is another set's of this lease; send the request with a lease on the set that serves both"
                ),
            ));
        }
        self.served.check_denials(&permit, &source, method)
    }
}

fn untold(error: &CopyError) -> Refusal {
    let code = match error {
        CopyError::Twice(_) => Code::AmbiguousRequest,
        CopyError::Untold { .. } => Code::GrantDenied,
    };
    Refusal::new(code, error.to_string())
}
