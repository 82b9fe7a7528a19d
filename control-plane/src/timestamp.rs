//! Times in JSON: RFC 3339 in UTC with milliseconds and `Z`.

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use time::format_description::BorrowedFormatItem;
use time::format_description::well_known::Rfc3339;
use time::macros::format_description;
use time::{OffsetDateTime, UtcOffset};
use utoipa::ToSchema;

/// A point in time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ToSchema)]
#[schema(value_type = String, format = DateTime, example = "2026-11-22T07:00:00.000Z")]
pub(crate) struct Timestamp(pub(crate) OffsetDateTime);

impl From<OffsetDateTime> for Timestamp {
    fn from(time: OffsetDateTime) -> Self {
        Self(time)
    }
}

impl Serialize for Timestamp {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&format(self.0))
    }
}

impl<'de> Deserialize<'de> for Timestamp {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let parsed = OffsetDateTime::parse(&text, &Rfc3339);
        parsed.map(Self).map_err(|_| {
            de::Error::custom("not a time; write it like 2026-11-22T07:00:00Z (RFC 3339)")
        })
    }
}

/// The time as it stands in answers.
pub(crate) fn format(time: OffsetDateTime) -> String {
    let utc = time.to_offset(UtcOffset::UTC);
    utc.format(MILLISECONDS).unwrap_or_else(|_| utc.to_string())
}

const MILLISECONDS: &[BorrowedFormatItem<'_>] =
    format_description!("[year]-[month]-[day]T[hour]:[minute]:[second].[subsecond digits:3]Z");

#[cfg(test)]
mod tests {
    use time::macros::datetime;

    use super::*;

    #[test]
    fn a_time_is_written_in_utc_with_milliseconds() {
        let time = Timestamp(datetime!(2026-11-22 09:00:00.1239 +2));
        assert_eq!(
            serde_json::to_string(&time).unwrap(),
            "\"2026-11-22T07:00:00.123Z\""
        );
    }

    #[test]
    fn a_time_without_an_offset_is_refused() {
        assert!(serde_json::from_str::<Timestamp>("\"2026-11-22T09:00:00+02:00\"").is_ok());
        for text in [
            "\"2026-11-22T09:00:00\"",
            "\"tomorrow\"",
            "1",
            "\"2026-13-01T00:00:00Z\"",
        ] {
            assert!(serde_json::from_str::<Timestamp>(text).is_err(), "{text}");
        }
    }
}
