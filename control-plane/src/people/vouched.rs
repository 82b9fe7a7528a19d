//! Somebody for whom an identity provider vouches: which account that is, and whether there will be one.
//!
//! An account is bound to issuer and subject. By its email alone none is found, even where the provider has verified it: emails of
//! accounts are chosen by their owners and verified by nobody here, so either could lead one person into the account of another.
//! An email counts once, for an invitation, which somebody who manages people has written it into.

use leases::id::{OrgId, UserId};
use store::{Actor, ActorKind, Identified, Role, User};

use super::address_rules;
use super::email;
use super::sign_in::{self, SignedIn};
use crate::AppState;
use crate::context::RequestContext;
use crate::error::ApiError;
use crate::oidc::{Claims, OidcOptions, OidcSignUp};
use crate::problem::Code;
use crate::routes::auth::sign_up::make_org;
use crate::text::is_label;

/// Whom a verified token is about.
#[derive(Debug)]
pub(crate) struct Vouched {
    who: Identified,
    hosted: Option<String>,
    display_name: Option<String>,
}

impl Vouched {
    /// An email that the provider has not verified is none.
    pub(crate) fn of(claims: Claims) -> Self {
        let email = claims.email.filter(|_| claims.email_verified);
        Self {
            who: Identified {
                issuer: claims.iss,
                subject: claims.sub,
                email: email.as_deref().and_then(email::canonical),
            },
            hosted: claims.hd,
            display_name: claims.name.filter(|name| is_label(name, MAX_NAME)),
        }
    }
}

/// Signs in whom a provider vouches for, linked to the account of `link_to` first where that person has asked for it.
///
/// # Errors
/// [`Code::IdentityNotAdmitted`], [`Code::IdentityNotLinked`], [`Code::IdentityTaken`]; [`Code::Unauthenticated`] from a denied
/// address; what the store or the signing key say.
pub(crate) async fn sign_in(
    state: &AppState,
    options: &OidcOptions,
    vouched: Vouched,
    link_to: Option<(OrgId, UserId)>,
    context: &RequestContext,
) -> Result<SignedIn, ApiError> {
    if let Err(refused) = admitted(options, &vouched) {
        let why = "an identity was refused: it is not of those that are allowed";
        return Err(sign_in::turn_away(state, context, why, refused).await);
    }
    let identities = state.store.identities();
    let who = &vouched.who;
    let user = if let Some((org, user)) = link_to {
        let actor = person(&user, context);
        identities.link(&org, &user, who, &actor).await?
    } else if let Some(user) = identities.find(&who.issuer, &who.subject).await? {
        identities.touch(&user.org, who).await?;
        user
    } else {
        new_account(state, options, &vouched, context).await?
    };
    match sign_in::by_first_factor(state, &user, context).await {
        Ok(signed_in) => Ok(signed_in),
        Err(error) => Err(sign_in::hide_address(state, &user, context, error, REFUSED).await),
    }
}

fn admitted(options: &OidcOptions, vouched: &Vouched) -> Result<(), ApiError> {
    if options.lets_everybody_in() {
        return Ok(());
    }
    let Some(email) = &vouched.who.email else {
        return Err(not_admitted(NO_EMAIL));
    };
    if options.lets_in(email, vouched.hosted.as_deref()) {
        return Ok(());
    }
    Err(not_admitted(
        "this installation lets other domains and emails in alone; sign in with an account of those, or ask its operator (oidc.allowed_domains, oidc.allowed_emails)",
    ))
}

/// Makes the account of somebody who has none, by an invitation or where everybody may have one.
async fn new_account(
    state: &AppState,
    options: &OidcOptions,
    vouched: &Vouched,
    context: &RequestContext,
) -> Result<User, ApiError> {
    let why = "an identity was refused: it has no account, and none is made for it";
    let who = &vouched.who;
    let Some(email) = &who.email else {
        let refused = not_admitted(NO_EMAIL);
        return Err(sign_in::turn_away(state, context, why, refused).await);
    };
    if state.store.credentials().find(email).await?.is_some() {
        let detail = "an account has this email, and this identity is not linked to it; sign in to it as before and link the identity with `claviger account link`";
        let refused = ApiError::new(Code::IdentityNotLinked, detail);
        return Err(sign_in::turn_away(state, context, why, refused).await);
    }
    // The first organisation's alone: in another one's, where everybody may have one, an invitation could lure people in.
    let org = &state.home_org;
    let is_let_in = address_rules::check(state, org, context.client_ip).await;
    let identities = state.store.identities();
    let name = vouched.display_name.clone();
    match is_let_in {
        Ok(()) => {
            let actor = |user: &UserId| person(user, context);
            if let Some(user) = identities.accept(org, who, name.clone(), actor).await? {
                return Ok(user);
            }
        }
        Err(error) if error.code() == Code::AddressDenied => {}
        Err(error) => return Err(error),
    }
    let made = match options.sign_up {
        OidcSignUp::Invited => None,
        OidcSignUp::Open => own_org(state, who, (email, name), context).await?,
    };
    if let Some(user) = made {
        return Ok(user);
    }
    let refused = not_admitted(
        "you have no account here, and no invitation is open for your email; ask an owner or an admin for one",
    );
    Err(sign_in::turn_away(state, context, why, refused).await)
}

/// `None` when somebody had the email or the identity meanwhile: the organisation stays behind, empty and without anybody.
async fn own_org(
    state: &AppState,
    who: &Identified,
    (email, name): (&str, Option<String>),
    context: &RequestContext,
) -> Result<Option<User>, ApiError> {
    let actor = Actor {
        client_ip: context.client_ip,
        request_id: Some(context.id.clone()),
        ..Actor::system("sign-up")
    };
    let org = make_org(state, email, &actor).await?;
    let identities = state.store.identities();
    let made = identities.create(&org, who, (name, Role::Owner), &actor);
    Ok(made.await?)
}

fn person(user: &UserId, context: &RequestContext) -> Actor {
    Actor {
        kind: ActorKind::User,
        id: user.to_string(),
        client_ip: context.client_ip,
        request_id: Some(context.id.clone()),
    }
}

fn not_admitted(detail: &str) -> ApiError {
    ApiError::new(Code::IdentityNotAdmitted, detail)
}

const NO_EMAIL: &str = "the identity provider does not vouch for an email of yours, and without one you are not found here; verify it there, or sign in as before and link the identity with `claviger account link`";

/// The one answer to a sign-in by a provider that cannot be completed, whatever was wrong with it.
pub(crate) const REFUSED: &str = "this sign-in cannot be completed: it is unknown, was completed before, took longer than ten minutes, or the identity provider does not vouch for it; begin again";
const MAX_NAME: usize = 128;
