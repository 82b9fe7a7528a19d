//! How agents authenticate, as calls say it: texts that become keys, digests and bounds.

use base64::Engine;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use leases::id::VaultId;
use store::AuthMethod;
use time::OffsetDateTime;

use crate::ed25519;
use crate::error::ApiError;
use crate::jwt::{MAX_TOKEN_LIFETIME, MIN_TOKEN_LIFETIME};
use crate::timestamp::Timestamp;

/// Reads the name of a method.
pub(super) fn method(text: &str) -> Result<AuthMethod, ApiError> {
    text.parse().map_err(|_| {
        let names = AuthMethod::ALL.map(AuthMethod::as_str).join(", ");
        ApiError::invalid("auth_method", format_args!("must be one of {names}"))
    })
}

/// Reads an Ed25519 key: 32 bytes in base64.
pub(super) fn public_key(text: &str) -> Result<[u8; 32], ApiError> {
    let refused = |problem: &str| ApiError::invalid("public_key", problem);
    let bytes = base64_of(text)
        .and_then(|bytes| <[u8; 32]>::try_from(bytes).ok())
        .ok_or_else(|| refused("must be the 32 bytes of an Ed25519 key in base64"))?;
    let key = ed25519::key(&bytes);
    key.map(|_| bytes)
        .ok_or_else(|| refused("is no Ed25519 key by which anything can be verified"))
}

/// Reads a SHA-256 in hexadecimal, with or without colons, as tools print a certificate's.
pub(super) fn fingerprint(text: &str) -> Result<[u8; 32], ApiError> {
    let digits: String = text.chars().filter(|character| *character != ':').collect();
    let mut digest = [0; 32];
    hex::decode_to_slice(&digits, &mut digest).map_err(|_| {
        let rule = "must be the SHA-256 of the certificate's DER, 64 hexadecimal digits; `openssl x509 -noout -fingerprint -sha256` prints it";
        ApiError::invalid("client_cert_fingerprint", rule)
    })?;
    Ok(digest)
}

/// Reads a lifetime of tokens.
pub(super) fn ttl(seconds: i64) -> Result<u32, ApiError> {
    let (least, most) = (MIN_TOKEN_LIFETIME.as_secs(), MAX_TOKEN_LIFETIME.as_secs());
    let good = u32::try_from(seconds).ok();
    let good = good.filter(|seconds| (least..=most).contains(&u64::from(*seconds)));
    good.ok_or_else(|| {
        ApiError::invalid(
            "token_ttl_seconds",
            format_args!("must be {least} to {most}"),
        )
    })
}

/// Reads the vaults beyond which an agent reaches nothing.
pub(super) fn vaults(ids: &[String]) -> Result<Vec<VaultId>, ApiError> {
    if ids.is_empty() || ids.len() > MAX_VAULTS {
        let rule = format_args!(
            "must name 1 to {MAX_VAULTS} vaults; leave it out for an agent that is bound to none"
        );
        return Err(ApiError::invalid("vault_ids", rule));
    }
    let mut vaults = Vec::with_capacity(ids.len());
    for id in ids {
        let id: VaultId = id.parse().map_err(|_| ApiError::not_found("vault", id))?;
        if !vaults.contains(&id) {
            vaults.push(id);
        }
    }
    Ok(vaults)
}

/// Reads an end that is yet to come.
pub(super) fn end(
    Timestamp(end): Timestamp,
    now: OffsetDateTime,
) -> Result<OffsetDateTime, ApiError> {
    if end > now {
        return Ok(end);
    }
    Err(ApiError::invalid("expires_at", "must lie in the future"))
}

/// Base64 of either alphabet, padded or not.
fn base64_of(text: &str) -> Option<Vec<u8>> {
    let config =
        GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent);
    let alphabets = [&alphabet::STANDARD, &alphabet::URL_SAFE];
    let mut engines = alphabets
        .map(|alphabet| GeneralPurpose::new(alphabet, config))
        .into_iter();
    engines.find_map(|engine| engine.decode(text).ok())
}

const MAX_VAULTS: usize = 100;

#[cfg(test)]
mod tests {
    use base64::engine::general_purpose::STANDARD;
    use ed25519_dalek::SigningKey;

    use super::*;

    #[test]
    fn a_key_is_taken_in_either_alphabet() {
        let key = SigningKey::from_bytes(&[7; 32]).verifying_key().to_bytes();
        let text = STANDARD.encode(key);
        assert_eq!(public_key(&text).unwrap(), key);
        let url = text.replace('+', "-").replace('/', "_");
        assert_eq!(public_key(url.trim_end_matches('=')).unwrap(), key);
    }

    #[test]
    fn what_is_no_key_or_a_weak_one_is_refused() {
        for text in ["", "AAAA", "not base64", &STANDARD.encode([1; 33])] {
            assert!(public_key(text).is_err(), "{text:?}");
        }
        let mut identity = [0; 32];
        identity[0] = 1;
        assert!(public_key(&STANDARD.encode(identity)).is_err());
    }

    #[test]
    fn a_fingerprint_is_taken_as_tools_print_it() {
        let plain = "ab".repeat(32);
        assert_eq!(fingerprint(&plain).unwrap(), [0xab; 32]);
        assert_eq!(fingerprint(&plain.to_uppercase()).unwrap(), [0xab; 32]);
        let colons = vec!["AB"; 32].join(":");
        assert_eq!(fingerprint(&colons).unwrap(), [0xab; 32]);
        for bad in ["", "ab", &"ab".repeat(33), &"zz".repeat(32)] {
            assert!(fingerprint(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_lifetime_and_a_number_of_vaults_have_bounds() {
        assert_eq!(ttl(60).unwrap(), 60);
        assert_eq!(ttl(3600).unwrap(), 3600);
        for bad in [59, 3601, 0, -1, i64::MAX] {
            assert!(ttl(bad).is_err(), "{bad}");
        }
        let id = VaultId::new(OffsetDateTime::UNIX_EPOCH).to_string();
        assert_eq!(vaults(&[id.clone(), id.clone()]).unwrap().len(), 1);
        assert!(vaults(&[]).is_err());
        assert!(vaults(&["payments".to_owned()]).is_err());
        assert!(vaults(&vec![id; 101]).is_err());
    }
}
