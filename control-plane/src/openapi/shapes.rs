//! Shapes that no derive describes.

use utoipa::openapi::schema::{AnyOfBuilder, ArrayBuilder};
use utoipa::openapi::{ObjectBuilder, Schema, Type};

/// `"*"` or a list of names.
pub(crate) fn keys() -> Schema {
    any_keys().build().into()
}

/// The same, or `null`.
pub(crate) fn keys_or_null() -> Schema {
    let null = ObjectBuilder::new().schema_type(Type::Null);
    any_keys().item(null).build().into()
}

fn any_keys() -> AnyOfBuilder {
    let all = ObjectBuilder::new()
        .schema_type(Type::String)
        .enum_values(Some(["*"]));
    let name = ObjectBuilder::new().schema_type(Type::String);
    AnyOfBuilder::new()
        .description(Some("`\"*\"` or a list of names."))
        .item(all)
        .item(ArrayBuilder::new().items(name))
}
