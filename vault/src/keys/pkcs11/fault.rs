//! What a failed call of the module means for the connection, for the key, and for the caller.

use cryptoki::{
    context::Function,
    error::{Error, RvError},
};

use super::{PROVIDER, Pkcs11Error};
use crate::keys::{KekId, KeyError};

/// A failure inside one of the pool's threads.
#[derive(Debug)]
pub(super) enum Fault {
    /// The token or the way to it is gone, or may be: connect anew, then try once more.
    Lost(String),
    /// The key's handle is no longer valid: find the key anew, then try once more.
    Handle(String),
    /// The token will not do this with this key.
    Refused(String),
    /// Nothing that another try would change, or nothing that this part should retry.
    Final(KeyError),
}

impl Fault {
    /// The connection does not serve any more.
    pub(super) fn lost(error: &Error) -> Self {
        Self::Lost(reason(error))
    }

    /// Whether a failed decryption or unwrapping may mean that the ciphertext is not the key's. Modules differ in what
    /// they answer; some answer what an outage answers too.
    pub(super) fn of_opening(error: &Error) -> Opening {
        match error {
            Error::Pkcs11(code, Function::Decrypt | Function::UnwrapKey) => match code {
                RvError::EncryptedDataInvalid
                | RvError::EncryptedDataLenRange
                | RvError::SignatureInvalid
                | RvError::SignatureLenRange
                | RvError::WrappedKeyInvalid
                | RvError::WrappedKeyLenRange
                | RvError::DataInvalid
                | RvError::DataLenRange => Opening::Mismatch,
                RvError::GeneralError | RvError::FunctionFailed | RvError::ArgumentsBad => {
                    Opening::Unclear
                }
                _ => Opening::Failed,
            },
            _ => Opening::Failed,
        }
    }

    /// For the caller. `kek` is what was asked for.
    pub(super) fn for_caller(self, kek: &KekId) -> KeyError {
        match self {
            Self::Lost(reason) | Self::Handle(reason) => unavailable(reason),
            Self::Refused(reason) => KeyError::Denied {
                provider: PROVIDER,
                kek: kek.clone(),
                reason,
            },
            Self::Final(error) => error,
        }
    }
}

/// What a failed opening says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Opening {
    /// The ciphertext is not the key's.
    Mismatch,
    /// That, or an outage.
    Unclear,
    /// Something else.
    Failed,
}

impl From<Error> for Fault {
    fn from(error: Error) -> Self {
        let said = reason(&error);
        let Error::Pkcs11(code, _) = error else {
            return Self::Refused(said);
        };
        match code {
            RvError::ObjectHandleInvalid
            | RvError::KeyHandleInvalid
            | RvError::WrappingKeyHandleInvalid
            | RvError::UnwrappingKeyHandleInvalid => Self::Handle(said),
            RvError::SessionCount | RvError::HostMemory | RvError::DeviceMemory => {
                Self::Final(unavailable(said))
            }
            RvError::KeyFunctionNotPermitted
            | RvError::KeyTypeInconsistent
            | RvError::KeySizeRange
            | RvError::KeyUnextractable
            | RvError::KeyNotWrappable
            | RvError::MechanismInvalid
            | RvError::MechanismParamInvalid
            | RvError::ActionProhibited
            | RvError::AttributeReadOnly
            | RvError::AttributeSensitive
            | RvError::AttributeTypeInvalid
            | RvError::AttributeValueInvalid
            | RvError::TemplateIncomplete
            | RvError::TemplateInconsistent
            | RvError::CurveNotSupported
            | RvError::FunctionNotSupported
            | RvError::TokenWriteProtected => Self::Refused(said),
            _ => Self::Lost(said),
        }
    }
}

impl From<KeyError> for Fault {
    fn from(error: KeyError) -> Self {
        Self::Final(error)
    }
}

impl From<Pkcs11Error> for Fault {
    fn from(error: Pkcs11Error) -> Self {
        Self::Final(error.into())
    }
}

pub(super) fn unavailable(reason: impl Into<String>) -> KeyError {
    KeyError::Unavailable {
        provider: PROVIDER,
        reason: reason.into(),
    }
}

/// The code's name, not the paragraph that the standard has for it.
fn reason(error: &Error) -> String {
    match error {
        Error::Pkcs11(code, function) => {
            format!("the PKCS#11 module answered {code:?} to {function:?}")
        }
        other => other.to_string(),
    }
}
