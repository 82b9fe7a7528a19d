//! REST API, authentication of people and agents, OpenAPI.
