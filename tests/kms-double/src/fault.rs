//! The faults, and their text form.

use std::{str::FromStr, time::Duration};

use http::StatusCode;

use crate::call::Call;

/// What a request meets instead of the service's own answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// One bit of the answer's bytes (ciphertext, plaintext, signature, PEM) differs; the checksum stays.
    DamageAnswer,
    /// The answer's checksum differs.
    DamageChecksum,
    /// The answer has no checksum.
    OmitChecksum,
    /// The answer says that the service verified none of the request's checksums.
    DenyChecksum,
    /// One bit of the request's bytes differs when the service looks at it.
    DamageRequest,
    /// The request waits this long, and then meets the service.
    Delay(Duration),
    /// `PERMISSION_DENIED`.
    Deny,
    /// `UNAUTHENTICATED`.
    Unauthenticated,
    /// An error of this HTTP status.
    Status(StatusCode),
    /// A page of HTML with status 200.
    Garbage,
    /// The connection closes without an answer.
    HangUp,
    /// The answer names this version of the key.
    NameVersion(u64),
    /// The answer names this key or version; the version's number stays where it names a key.
    NameKey(String),
    /// The first answer that this call ever had.
    Replay,
}

impl FromStr for Action {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (name, argument) = text.split_once('=').unwrap_or((text, ""));
        let number = || {
            argument
                .parse::<u64>()
                .map_err(|_| format!("{name} takes a number, as in {name}=500"))
        };
        Ok(match name {
            "damage-answer" => Self::DamageAnswer,
            "damage-checksum" => Self::DamageChecksum,
            "omit-checksum" => Self::OmitChecksum,
            "deny-checksum" => Self::DenyChecksum,
            "damage-request" => Self::DamageRequest,
            "delay" => Self::Delay(Duration::from_millis(number()?)),
            "deny" => Self::Deny,
            "unauthenticated" => Self::Unauthenticated,
            "status" => Self::Status(
                u16::try_from(number()?)
                    .ok()
                    .and_then(|code| StatusCode::from_u16(code).ok())
                    .ok_or("no such status")?,
            ),
            "garbage" => Self::Garbage,
            "hang-up" => Self::HangUp,
            "version" => Self::NameVersion(number()?),
            "key" => Self::NameKey(argument.to_owned()),
            "replay" => Self::Replay,
            _ => return Err(format!("no action {text:?}")),
        })
    }
}

/// The faults that are set. The one that was set last and still has a use left is met.
#[derive(Debug, Default)]
pub(crate) struct Faults(Vec<Fault>);

#[derive(Debug)]
struct Fault {
    call: Option<Call>,
    action: Action,
    left: Option<u32>,
}

impl Faults {
    pub(crate) fn set(&mut self, call: Option<Call>, action: Action, times: Option<u32>) {
        self.0.push(Fault {
            call,
            action,
            left: times,
        });
    }

    pub(crate) fn clear(&mut self) {
        self.0.clear();
    }

    pub(crate) fn meet(&mut self, call: Call) -> Option<Action> {
        let fault = self.0.iter_mut().rev().find(|fault| {
            fault.call.is_none_or(|only| only == call) && fault.left.is_none_or(|left| left > 0)
        })?;
        if let Some(left) = &mut fault.left {
            *left -= 1;
        }
        Some(fault.action.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_fault_with_a_use_left_is_met() {
        let mut faults = Faults::default();
        faults.set(None, Action::Deny, None);
        faults.set(Some(Call::Encrypt), Action::Garbage, Some(1));
        assert_eq!(faults.meet(Call::Decrypt), Some(Action::Deny));
        assert_eq!(faults.meet(Call::Encrypt), Some(Action::Garbage));
        assert_eq!(faults.meet(Call::Encrypt), Some(Action::Deny));
        faults.clear();
        assert_eq!(faults.meet(Call::Encrypt), None);
    }

    #[test]
    fn actions_have_a_text_form() {
        assert_eq!(
            "delay=30000".parse(),
            Ok(Action::Delay(Duration::from_secs(30)))
        );
        assert_eq!(
            "status=429".parse(),
            Ok(Action::Status(StatusCode::TOO_MANY_REQUESTS))
        );
        for bad in ["", "delay", "delay=soon", "status=99999", "explode"] {
            assert!(bad.parse::<Action>().is_err(), "{bad}");
        }
    }
}
