//! Audit events: their fields, and their one canonical text.

use std::net::IpAddr;

use ::leases::id::{AgentId, ApprovalId, GrantId, LeaseId, PolicyId, SetId, UseId, VaultId};
use serde::{Deserialize, Serialize};

use crate::ledger::Hold;
use crate::spend::Amount;

/// Whether what an event tells was allowed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Decision {
    /// It was done.
    #[default]
    Allow,
    /// It was refused.
    Deny,
}

impl Decision {
    /// The word in events.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Allow => "allow",
            Self::Deny => "deny",
        }
    }
}

/// An event as it is read back: the fields of the contract, absent ones left out of JSON.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// Its id, `evt_…`.
    pub id: String,
    /// The chain that it belongs to, `<node>/ledger` or `<node>/control`.
    pub stream: String,
    /// Its place in the chain, from 1 up without a gap.
    pub seq: u64,
    /// Hash of the record before it, lower-case hex; 64 zeros for the first.
    #[serde(default)]
    pub prev_hash: String,
    /// SHA-256 over the bytes of `prev_hash` and the stored body, lower-case hex.
    #[serde(default)]
    pub hash: String,
    /// RFC 3339 with milliseconds and `Z`.
    pub created_at: String,
    /// The organisation.
    pub org_id: String,
    /// What happened, e.g. `lease.use`.
    pub action: String,
    /// Whether it was allowed.
    pub decision: Decision,
    /// The refusal's code.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// `user`, `agent` or `system`.
    pub actor_type: String,
    /// Who did it.
    pub actor_id: String,
    /// The agent concerned.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agent_id: Option<String>,
    /// The lease concerned.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lease_id: Option<String>,
    /// The grant concerned.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub grant_id: Option<String>,
    /// The secret set concerned.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret_set_id: Option<String>,
    /// The set's version.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret_version: Option<u64>,
    /// Names of the entries concerned.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub keys: Vec<String>,
    /// Joins a use with its outcome.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub use_id: Option<String>,
    /// The request, as logs and problem bodies name it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request_id: Option<String>,
    /// Where the request came from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_ip: Option<String>,
    /// HTTP method.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub method: Option<String>,
    /// `https` or `http`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scheme: Option<String>,
    /// The host asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
    /// The port asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    /// The address dialled.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<String>,
    /// The path without its query.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// Status of the provider's answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<u16>,
    /// Bytes of body sent to the provider.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes_up: Option<u64>,
    /// Bytes of body received from the provider.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes_down: Option<u64>,
    /// From the use's record to the end of the answer, in milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub duration_ms: Option<u64>,
    /// How often the provider was dialled.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attempts: Option<u32>,
    /// The preset that a grant was made with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub preset: Option<String>,
    /// Of a `restore.epoch`: where the stream ended in the database.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub found_seq: Option<u64>,
    /// Of a `restore.epoch`: the signed head that the database does not hold.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signed_seq: Option<u64>,
    /// Why, in the words of the person who did it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// The approval concerned.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub approval_id: Option<String>,
    /// The vault concerned, where `keys` are paths in it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vault_id: Option<String>,
    /// The policy concerned, or by which it was decided.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub policy_id: Option<String>,
    /// Of a use on a budget: when the budget's window began, in milliseconds since 1970.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub held_since: Option<u64>,
    /// Of a use on a budget: tokens set aside until its outcome.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub held_tokens: Option<u64>,
    /// Of a use on a budget: millionths of a US dollar set aside until its outcome.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub held_usd_micros: Option<u64>,
    /// Of an outcome on a budget: tokens of input. Where nobody saw the end, all that was held.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tokens_in: Option<u64>,
    /// Of an outcome on a budget: tokens of output.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tokens_out: Option<u64>,
    /// Of an outcome on a budget: what it cost, in millionths of a US dollar.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub usd_micros: Option<u64>,
    /// Of a policy that was made or changed: SHA-256 over what it says from then on, lower-case hex.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub content_sha256: Option<String>,
    /// Of an outcome: how often the credential stood in the provider's answer and was masked; absent for never.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reflections: Option<u64>,
}

impl Event {
    /// The names of all fields, in their order: columns where events are told as a table.
    pub const FIELDS: [&str; 47] = [
        "id",
        "stream",
        "seq",
        "prev_hash",
        "hash",
        "created_at",
        "org_id",
        "action",
        "decision",
        "error",
        "actor_type",
        "actor_id",
        "agent_id",
        "lease_id",
        "grant_id",
        "secret_set_id",
        "secret_version",
        "keys",
        "use_id",
        "request_id",
        "client_ip",
        "method",
        "scheme",
        "host",
        "port",
        "address",
        "path",
        "status",
        "bytes_up",
        "bytes_down",
        "duration_ms",
        "attempts",
        "preset",
        "found_seq",
        "signed_seq",
        "reason",
        "approval_id",
        "vault_id",
        "policy_id",
        "held_since",
        "held_tokens",
        "held_usd_micros",
        "tokens_in",
        "tokens_out",
        "usd_micros",
        "content_sha256",
        "reflections",
    ];

    /// What a use held of its grant's budget.
    pub(crate) fn hold(&self) -> Option<Hold> {
        Some(Hold {
            since: self.held_since?.cast_signed(),
            amount: Amount {
                tokens: self.held_tokens?,
                usd_micros: self.held_usd_micros?,
            },
        })
    }
}

/// An event to be appended; who did it comes from the [`Actor`](crate::Actor).
#[derive(Debug, Clone, Default)]
pub struct NewEvent {
    /// What happened, e.g. `auth.failure`.
    pub action: &'static str,
    /// Whether it was allowed.
    pub decision: Decision,
    /// The refusal's code.
    pub error: Option<String>,
    /// The agent concerned.
    pub agent_id: Option<AgentId>,
    /// The lease concerned.
    pub lease_id: Option<LeaseId>,
    /// The grant concerned.
    pub grant_id: Option<GrantId>,
    /// The secret set concerned.
    pub secret_set_id: Option<SetId>,
    /// The set's version.
    pub secret_version: Option<u64>,
    /// Names of the entries concerned.
    pub keys: Vec<String>,
    /// Joins a use with its outcome.
    pub use_id: Option<UseId>,
    /// HTTP method.
    pub method: Option<String>,
    /// `https` or `http`.
    pub scheme: Option<&'static str>,
    /// The host asked for.
    pub host: Option<String>,
    /// The port asked for.
    pub port: Option<u16>,
    /// The address dialled.
    pub address: Option<IpAddr>,
    /// The path without its query.
    pub path: Option<String>,
    /// The preset that a grant was made with.
    pub preset: Option<String>,
    /// Why, in the words of the person who did it.
    pub reason: Option<String>,
    /// The approval concerned.
    pub approval_id: Option<ApprovalId>,
    /// The vault concerned, where `keys` are paths in it.
    pub vault_id: Option<VaultId>,
    /// The policy concerned, or by which it was decided.
    pub policy_id: Option<PolicyId>,
    /// Of a policy that was made or changed: SHA-256 over what it says from then on, lower-case hex.
    pub content_sha256: Option<String>,
}

impl NewEvent {
    /// The fields that it decides itself.
    pub(crate) fn draft(&self) -> Draft<'_> {
        Draft {
            action: self.action,
            decision: self.decision,
            error: self.error.as_deref(),
            agent_id: self.agent_id.as_ref().map(AgentId::as_str),
            lease_id: self.lease_id.as_ref().map(LeaseId::as_str),
            grant_id: self.grant_id.as_ref().map(GrantId::as_str),
            secret_set_id: self.secret_set_id.as_ref().map(SetId::as_str),
            secret_version: self.secret_version,
            keys: &self.keys,
            use_id: self.use_id.as_ref().map(UseId::as_str),
            method: self.method.as_deref(),
            scheme: self.scheme,
            host: self.host.as_deref(),
            port: self.port,
            address: self.address,
            path: self.path.as_deref(),
            preset: self.preset.as_deref(),
            reason: self.reason.as_deref(),
            approval_id: self.approval_id.as_ref().map(ApprovalId::as_str),
            vault_id: self.vault_id.as_ref().map(VaultId::as_str),
            policy_id: self.policy_id.as_ref().map(PolicyId::as_str),
            content_sha256: self.content_sha256.as_deref(),
            ..Draft::default()
        }
    }
}

/// An event about to be written, all fields borrowed.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Draft<'a> {
    pub(crate) id: &'a str,
    pub(crate) stream: &'a str,
    pub(crate) seq: u64,
    pub(crate) created_at: &'a str,
    pub(crate) org_id: &'a str,
    pub(crate) action: &'a str,
    pub(crate) decision: Decision,
    pub(crate) error: Option<&'a str>,
    pub(crate) actor_type: &'a str,
    pub(crate) actor_id: &'a str,
    pub(crate) agent_id: Option<&'a str>,
    pub(crate) lease_id: Option<&'a str>,
    pub(crate) grant_id: Option<&'a str>,
    pub(crate) secret_set_id: Option<&'a str>,
    pub(crate) secret_version: Option<u64>,
    pub(crate) keys: &'a [String],
    pub(crate) use_id: Option<&'a str>,
    pub(crate) request_id: Option<&'a str>,
    pub(crate) client_ip: Option<IpAddr>,
    pub(crate) method: Option<&'a str>,
    pub(crate) scheme: Option<&'a str>,
    pub(crate) host: Option<&'a str>,
    pub(crate) port: Option<u16>,
    pub(crate) address: Option<IpAddr>,
    pub(crate) path: Option<&'a str>,
    pub(crate) status: Option<u16>,
    pub(crate) bytes_up: Option<u64>,
    pub(crate) bytes_down: Option<u64>,
    pub(crate) duration_ms: Option<u64>,
    pub(crate) attempts: Option<u32>,
    pub(crate) preset: Option<&'a str>,
    pub(crate) found_seq: Option<u64>,
    pub(crate) signed_seq: Option<u64>,
    pub(crate) reason: Option<&'a str>,
    pub(crate) approval_id: Option<&'a str>,
    pub(crate) vault_id: Option<&'a str>,
    pub(crate) policy_id: Option<&'a str>,
    pub(crate) hold: Option<Hold>,
    pub(crate) tokens_in: Option<u64>,
    pub(crate) tokens_out: Option<u64>,
    pub(crate) usd_micros: Option<u64>,
    pub(crate) content_sha256: Option<&'a str>,
    pub(crate) reflections: Option<u64>,
}

impl Draft<'_> {
    /// Writes the canonical text into `out`, which is emptied first: JSON without white space, the
    /// fields in the order of [`Event`], absent ones left out.
    pub(crate) fn write(&self, out: &mut String) {
        out.clear();
        out.push('{');
        text(out, "\"id\":", self.id);
        text(out, ",\"stream\":", self.stream);
        number(out, ",\"seq\":", self.seq);
        text(out, ",\"created_at\":", self.created_at);
        text(out, ",\"org_id\":", self.org_id);
        text(out, ",\"action\":", self.action);
        text(out, ",\"decision\":", self.decision.as_str());
        optional_text(out, ",\"error\":", self.error);
        text(out, ",\"actor_type\":", self.actor_type);
        text(out, ",\"actor_id\":", self.actor_id);
        optional_text(out, ",\"agent_id\":", self.agent_id);
        optional_text(out, ",\"lease_id\":", self.lease_id);
        optional_text(out, ",\"grant_id\":", self.grant_id);
        optional_text(out, ",\"secret_set_id\":", self.secret_set_id);
        optional_number(out, ",\"secret_version\":", self.secret_version);
        list(out, ",\"keys\":", self.keys);
        optional_text(out, ",\"use_id\":", self.use_id);
        optional_text(out, ",\"request_id\":", self.request_id);
        address(out, ",\"client_ip\":", self.client_ip);
        optional_text(out, ",\"method\":", self.method);
        optional_text(out, ",\"scheme\":", self.scheme);
        optional_text(out, ",\"host\":", self.host);
        optional_number(out, ",\"port\":", self.port);
        address(out, ",\"address\":", self.address);
        optional_text(out, ",\"path\":", self.path);
        optional_number(out, ",\"status\":", self.status);
        optional_number(out, ",\"bytes_up\":", self.bytes_up);
        optional_number(out, ",\"bytes_down\":", self.bytes_down);
        optional_number(out, ",\"duration_ms\":", self.duration_ms);
        optional_number(out, ",\"attempts\":", self.attempts);
        optional_text(out, ",\"preset\":", self.preset);
        optional_number(out, ",\"found_seq\":", self.found_seq);
        optional_number(out, ",\"signed_seq\":", self.signed_seq);
        optional_text(out, ",\"reason\":", self.reason);
        optional_text(out, ",\"approval_id\":", self.approval_id);
        optional_text(out, ",\"vault_id\":", self.vault_id);
        optional_text(out, ",\"policy_id\":", self.policy_id);
        if let Some(hold) = &self.hold {
            number(out, ",\"held_since\":", hold.since.cast_unsigned());
            number(out, ",\"held_tokens\":", hold.amount.tokens);
            number(out, ",\"held_usd_micros\":", hold.amount.usd_micros);
        }
        optional_number(out, ",\"tokens_in\":", self.tokens_in);
        optional_number(out, ",\"tokens_out\":", self.tokens_out);
        optional_number(out, ",\"usd_micros\":", self.usd_micros);
        optional_text(out, ",\"content_sha256\":", self.content_sha256);
        optional_number(out, ",\"reflections\":", self.reflections);
        out.push('}');
    }
}

fn text(out: &mut String, name: &str, value: &str) {
    out.push_str(name);
    out.push('"');
    escaped(out, value);
    out.push('"');
}

fn optional_text(out: &mut String, name: &str, value: Option<&str>) {
    if let Some(value) = value {
        text(out, name, value);
    }
}

fn optional_number(out: &mut String, name: &str, value: Option<impl Into<u64>>) {
    if let Some(value) = value {
        number(out, name, value.into());
    }
}

fn list(out: &mut String, name: &str, values: &[String]) {
    if values.is_empty() {
        return;
    }
    out.push_str(name);
    for (index, value) in values.iter().enumerate() {
        out.push_str(if index == 0 { "[\"" } else { ",\"" });
        escaped(out, value);
        out.push('"');
    }
    out.push(']');
}

fn address(out: &mut String, name: &str, value: Option<IpAddr>) {
    match value {
        None => {}
        Some(IpAddr::V4(ip)) => {
            // The formatter's padding logic costs more than the address.
            out.push_str(name);
            for (index, octet) in ip.octets().into_iter().enumerate() {
                out.push(if index == 0 { '"' } else { '.' });
                digits(out, u64::from(octet));
            }
            out.push('"');
        }
        Some(IpAddr::V6(ip)) => text(out, name, &ip.to_string()),
    }
}

fn number(out: &mut String, name: &str, value: u64) {
    out.push_str(name);
    digits(out, value);
}

fn digits(out: &mut String, mut value: u64) {
    let mut buffer = [0_u8; 20];
    let mut start = buffer.len();
    loop {
        start -= 1;
        buffer[start] = b'0' + (value % 10) as u8;
        value /= 10;
        if value == 0 {
            break;
        }
    }
    out.extend(buffer[start..].iter().map(|&digit| char::from(digit)));
}

/// Escapes what RFC 8259 section 7 says must be, and DEL and the C1 controls, which terminals obey.
fn escaped(out: &mut String, value: &str) {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    // Nearly every value is plain ASCII. Without an early exit the compiler looks at many bytes at
    // once.
    let special = value
        .bytes()
        .map(|byte| u8::from(matches!(byte, 0..0x20 | b'"' | b'\\' | 0x7f..)))
        .fold(0, std::ops::BitOr::bitor);
    if special == 0 {
        out.push_str(value);
        return;
    }
    let mut plain = 0;
    for (index, character) in value.char_indices() {
        let code = u32::from(character);
        if code >= 0x20 && character != '"' && character != '\\' && !(0x7f..0xa0).contains(&code) {
            continue;
        }
        out.push_str(&value[plain..index]);
        plain = index + character.len_utf8();
        if matches!(character, '"' | '\\') {
            out.push('\\');
            out.push(character);
        } else {
            out.push_str("\\u00");
            out.push(char::from(HEX[(code >> 4) as usize & 15]));
            out.push(char::from(HEX[code as usize & 15]));
        }
    }
    out.push_str(&value[plain..]);
}

/// RFC 3339 in UTC with milliseconds, e.g. `2026-11-22T07:00:01.234Z`, for years 0 to 9999.
///
/// Days become a date by Howard Hinnant's `civil_from_days`, in integers alone.
pub(crate) fn rfc3339(out: &mut String, millis: i64) {
    let days = millis.div_euclid(86_400_000);
    let in_day = millis.rem_euclid(86_400_000).cast_unsigned();
    let shifted = days + 719_468;
    let era = shifted.div_euclid(146_097);
    let day_of_era = shifted.rem_euclid(146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 {
        month_from_march + 3
    } else {
        month_from_march - 9
    };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    out.clear();
    padded(out, year.cast_unsigned(), 4);
    out.push('-');
    padded(out, month.cast_unsigned(), 2);
    out.push('-');
    padded(out, day.cast_unsigned(), 2);
    out.push('T');
    padded(out, in_day / 3_600_000, 2);
    out.push(':');
    padded(out, in_day / 60_000 % 60, 2);
    out.push(':');
    padded(out, in_day / 1_000 % 60, 2);
    out.push('.');
    padded(out, in_day % 1_000, 3);
    out.push('Z');
}

fn padded(out: &mut String, value: u64, width: u32) {
    for place in (0..width).rev() {
        out.push(char::from(b'0' + (value / 10_u64.pow(place) % 10) as u8));
    }
}

#[cfg(test)]
mod tests;
