//! Keys and sealing: key wrappers, envelope encryption, the cache of opened secrets.
