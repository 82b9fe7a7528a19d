//! KEKs in Google Cloud KMS.
