//! Provider templates as data, and the injection schemes.
