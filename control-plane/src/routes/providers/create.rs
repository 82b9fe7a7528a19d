//! `POST /v1/providers`

use axum::extract::State;
use axum::http::StatusCode;
use providers::parse_template;
use serde::Deserialize;
use store::NewEvent;
use utoipa::ToSchema;

use super::ProviderView;
use crate::AppState;
use crate::auth::Person;
use crate::error::ApiError;
use crate::extract::Json;
use crate::keys::KeyChest;
use crate::operator_templates;
use crate::problem::{Code, Problem};
use crate::templates::{self, CUSTOM};

/// A template to be added. An unknown field is refused.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct CreateProvider {
    /// The template in TOML, as in a file of `--providers DIR`.
    template: String,
}

/// Adds a provider template of the operator's own. Every mistake is reported with its line and field.
#[utoipa::path(post, path = "/v1/providers", tag = "providers", operation_id = "createProvider", request_body = CreateProvider,
    params(("Idempotency-Key" = Option<String>, Header, description = "Repeats have one effect for 24 h")),
    responses((status = 201, body = ProviderView), (status = 409, body = Problem), (status = 422, body = Problem)))]
pub(crate) async fn handle(
    State(state): State<AppState>,
    person: Person,
    Json(body): Json<CreateProvider>,
) -> Result<(StatusCode, axum::Json<ProviderView>), ApiError> {
    check(&state, &person, &body)?;
    let template = parse_template("template", &body.template)
        .map_err(|errors| templates::invalid("template", &errors))?;
    if template.name() == CUSTOM || state.catalog().get(template.name()).is_some() {
        return Err(taken(template.name()));
    }
    let view = ProviderView::from(&template);
    save(&state, &person, template.name(), &body.template).await?;
    state.add_template(template);
    Ok((StatusCode::CREATED, axum::Json(view)))
}

/// All organisations share the catalog, so only the one that runs the server adds to it.
fn check(state: &AppState, person: &Person, body: &CreateProvider) -> Result<(), ApiError> {
    if person.org != state.home_org {
        let detail = "templates are added by the organisation that runs this server; use provider `custom` for your own sets";
        return Err(ApiError::new(Code::Forbidden, detail));
    }
    if body.template.len() > MAX_TEMPLATE {
        return Err(ApiError::invalid(
            "template",
            format_args!(
                "has {} bytes; at most {MAX_TEMPLATE} are taken",
                body.template.len()
            ),
        ));
    }
    Ok(())
}

async fn save(state: &AppState, person: &Person, name: &str, text: &str) -> Result<(), ApiError> {
    let chest = KeyChest::of(&state.store, &state.vault, &person.org).await?;
    operator_templates::add(&chest, name, text, &person.actor).await?;
    let event = NewEvent {
        action: "provider.create",
        path: Some(name.to_owned()),
        ..NewEvent::default()
    };
    state
        .store
        .audit()
        .append(&person.org, event, &person.actor)
        .await?;
    Ok(())
}

fn taken(name: &str) -> ApiError {
    ApiError::new(
        Code::NameTaken,
        format!("a provider named {name} exists; choose another name for yours"),
    )
}

const MAX_TEMPLATE: usize = 64 * 1024;
