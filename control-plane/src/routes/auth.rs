//! Signing in and out: tokens for keys, passwords, codes, devices and identities, and what belongs to a person's own account.

pub(crate) mod accept_invitation;
pub(crate) mod agent_token;
pub(crate) mod api_keys;
pub(crate) mod change_password;
pub(crate) mod device;
pub(crate) mod key_token;
pub(crate) mod me;
pub(crate) mod mfa;
pub(crate) mod oidc;
pub(crate) mod sign_out;
pub(crate) mod sign_up;
pub(crate) mod token;

use crate::error::ApiError;
use crate::text::is_label;

/// What a person likes to be called: as an agent's name.
fn check_display_name(name: Option<&str>) -> Result<(), ApiError> {
    check_label("display_name", name)
}

fn check_label(field: &str, text: Option<&str>) -> Result<(), ApiError> {
    if text.is_none_or(|text| is_label(text, MAX_NAME)) {
        return Ok(());
    }
    Err(ApiError::invalid(
        field,
        format_args!("must be 1 to {MAX_NAME} characters and no control characters"),
    ))
}

const MAX_NAME: usize = 128;
