//! Which call of the API a request is.

use std::str::FromStr;

use http::Method;

/// The calls of `google.cloud.kms.v1.KeyManagementService` that the double knows, and the token endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Call {
    /// `CreateKeyRing`.
    CreateKeyRing,
    /// `GetKeyRing`.
    GetKeyRing,
    /// `CreateCryptoKey`.
    CreateCryptoKey,
    /// `GetCryptoKey`.
    GetCryptoKey,
    /// `CreateCryptoKeyVersion`.
    CreateCryptoKeyVersion,
    /// `GetCryptoKeyVersion`.
    GetCryptoKeyVersion,
    /// `ListCryptoKeyVersions`.
    ListCryptoKeyVersions,
    /// `UpdateCryptoKeyPrimaryVersion`.
    UpdatePrimaryVersion,
    /// `DestroyCryptoKeyVersion`.
    Destroy,
    /// `GetPublicKey`.
    GetPublicKey,
    /// `Encrypt`.
    Encrypt,
    /// `Decrypt`.
    Decrypt,
    /// `AsymmetricSign`.
    AsymmetricSign,
    /// A token of the security token service or the OAuth endpoint.
    Token,
    /// Something else.
    Unknown,
}

const NAMES: [(Call, &str, &str); 14] = [
    (Call::CreateKeyRing, "create-key-ring", "keyRings.create"),
    (Call::GetKeyRing, "get-key-ring", "keyRings.get"),
    (
        Call::CreateCryptoKey,
        "create-crypto-key",
        "cryptoKeys.create",
    ),
    (Call::GetCryptoKey, "get-crypto-key", "cryptoKeys.get"),
    (
        Call::CreateCryptoKeyVersion,
        "create-version",
        "cryptoKeyVersions.create",
    ),
    (
        Call::GetCryptoKeyVersion,
        "get-version",
        "cryptoKeyVersions.get",
    ),
    (
        Call::ListCryptoKeyVersions,
        "list-versions",
        "cryptoKeyVersions.list",
    ),
    (
        Call::UpdatePrimaryVersion,
        "update-primary",
        "cryptoKeys.update",
    ),
    (Call::Destroy, "destroy", "cryptoKeyVersions.destroy"),
    (
        Call::GetPublicKey,
        "get-public-key",
        "cryptoKeyVersions.viewPublicKey",
    ),
    (Call::Encrypt, "encrypt", "cryptoKeyVersions.useToEncrypt"),
    (Call::Decrypt, "decrypt", "cryptoKeyVersions.useToDecrypt"),
    (
        Call::AsymmetricSign,
        "asymmetric-sign",
        "cryptoKeyVersions.useToSign",
    ),
    (Call::Token, "token", "token"),
];

impl Call {
    /// The call's name in the text form of faults.
    pub fn name(self) -> &'static str {
        self.row().map_or("unknown", |(_, name, _)| name)
    }

    pub(crate) fn permission(self) -> String {
        let suffix = self
            .row()
            .map_or("unknown", |(_, _, permission)| permission);
        format!("cloudkms.{suffix}")
    }

    fn row(self) -> Option<(Self, &'static str, &'static str)> {
        NAMES.into_iter().find(|(call, ..)| *call == self)
    }

    /// The call of a request, and the resource that it names: its parent, where the call makes or lists.
    pub(crate) fn of(method: &Method, path: &str) -> (Self, String) {
        if path == "/token" {
            return (Self::Token, String::new());
        }
        let path = path.strip_prefix("/v1/").unwrap_or_default();
        let (name, verb) = path.split_once(':').unwrap_or((path, ""));
        let get = method == Method::GET;
        let depth = name.split('/').count();
        let last = name.rsplit('/').next().unwrap_or_default();
        let parent = || {
            name.rsplit_once('/')
                .map_or_else(String::new, |(parent, _)| parent.to_owned())
        };
        match (verb, depth, get) {
            ("encrypt", 8 | 10, false) => (Self::Encrypt, name.to_owned()),
            ("decrypt", 8, false) => (Self::Decrypt, name.to_owned()),
            ("updatePrimaryVersion", 8, false) => (Self::UpdatePrimaryVersion, name.to_owned()),
            ("destroy", 10, false) => (Self::Destroy, name.to_owned()),
            ("asymmetricSign", 10, false) => (Self::AsymmetricSign, name.to_owned()),
            ("", 5, false) if last == "keyRings" => (Self::CreateKeyRing, parent()),
            ("", 6, true) => (Self::GetKeyRing, name.to_owned()),
            ("", 7, false) if last == "cryptoKeys" => (Self::CreateCryptoKey, parent()),
            ("", 8, true) => (Self::GetCryptoKey, name.to_owned()),
            ("", 9, false) => (Self::CreateCryptoKeyVersion, parent()),
            ("", 9, true) => (Self::ListCryptoKeyVersions, parent()),
            ("", 10, true) => (Self::GetCryptoKeyVersion, name.to_owned()),
            ("", 11, true) if last == "publicKey" => (Self::GetPublicKey, parent()),
            _ => (Self::Unknown, name.to_owned()),
        }
    }
}

impl FromStr for Call {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        NAMES
            .into_iter()
            .find(|(_, name, _)| *name == text)
            .map(|(call, ..)| call)
            .ok_or_else(|| format!("no call {text:?}"))
    }
}
