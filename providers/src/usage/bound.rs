//! What a request itself says of the most that its answer may hold.

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};

use super::Format;

/// How many tokens of output a use holds of a budget where its request names no bound.
pub(super) const DEFAULT_OUTPUT: u64 = 4_096;
/// The least that one holds that names a bound: some providers read another name than the one that was sent.
pub(super) const LEAST_OUTPUT: u64 = 1_024;
/// How many it holds where nobody can tell what is asked for: what the largest models answer to eight choices at once.
pub(super) const UNTOLD_OUTPUT: u64 = 1_048_576;

/// What a body bounds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Bound {
    /// Tokens of output, over all choices.
    pub(super) output: u64,
    /// The one model that is asked.
    pub(super) model: Option<String>,
}

impl Bound {
    /// Of a body that cannot be read.
    pub(super) const UNTOLD: Self = Self {
        output: UNTOLD_OUTPUT,
        model: None,
    };

    /// Reads a body. Of a name that stands twice the larger value counts, whichever the provider takes. A form, which no provider
    /// takes for JSON, and no body at all ask for what a request does that names no bound.
    pub(super) fn read(format: Format, body: &[u8]) -> Self {
        if body.is_empty() || body.starts_with(b"--") {
            return Found::default().bound(format);
        }
        let mut found = Found::default();
        let mut reader = serde_json::Deserializer::from_slice(body);
        let read = Members {
            found: &mut found,
            is_config: false,
        }
        .deserialize(&mut reader);
        match read.and_then(|()| reader.end()) {
            Ok(()) => found.bound(format),
            Err(_) => Self::UNTOLD,
        }
    }
}

/// What stands in a body, in any order.
#[derive(Debug, Default)]
struct Found {
    /// The largest bound by each family of names.
    chat: Option<u64>,
    message: Option<u64>,
    config: Option<u64>,
    /// How many answers are asked for, at each prompt.
    choices: u64,
    prompts: u64,
    /// Something that bounds or multiplies the output is no count.
    is_odd: bool,
    models: Vec<Option<String>>,
}

impl Found {
    fn bound(self, format: Format) -> Bound {
        let honoured = match format {
            Format::OpenAi | Format::OpenRouter | Format::Cohere => self.chat,
            Format::Anthropic => self.message,
            // It is spoken to in OpenAI's way, too.
            Format::Gemini => self.config.or(self.chat),
        };
        let named = [self.chat, self.message, self.config];
        let largest = named.into_iter().flatten().max().unwrap_or(0);
        let least = honoured.map_or(DEFAULT_OUTPUT, |_| LEAST_OUTPUT);
        let one = if self.is_odd {
            UNTOLD_OUTPUT
        } else {
            largest.max(least)
        };
        let answers = self.choices.max(1).saturating_mul(self.prompts.max(1));
        let model = match self.models.as_slice() {
            [one] => one.clone(),
            _ => None,
        };
        Bound {
            output: one.saturating_mul(answers),
            model,
        }
    }

    fn count(&mut self, count: Count) -> Option<u64> {
        match count {
            Count::Absent => None,
            Count::Of(count) => Some(count),
            Count::Odd => {
                self.is_odd = true;
                None
            }
        }
    }
}

/// The members of a body, or of the object in it that configures the answer.
struct Members<'f> {
    found: &'f mut Found,
    is_config: bool,
}

impl<'de> DeserializeSeed<'de> for Members<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Members<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_unit<E: Error>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<(), A::Error> {
        let Self { found, is_config } = self;
        while let Some(name) = members.next_key::<String>()? {
            // Google takes `max_output_tokens` and `maxOutputTokens` for one.
            let plain = name.replace('_', "").to_ascii_lowercase();
            match plain.as_str() {
                "maxtokens" | "maxcompletiontokens" | "maxoutputtokens" | "maxtokenstosample" => {
                    let count = found.count(members.next_value_seed(Count::Absent)?);
                    let is_shared = plain == "maxtokens";
                    if is_config {
                        found.config = found.config.max(count);
                    }
                    if !is_config && plain != "maxtokenstosample" {
                        found.chat = found.chat.max(count);
                    }
                    if !is_config && (is_shared || plain == "maxtokenstosample") {
                        found.message = found.message.max(count);
                    }
                }
                "n" | "bestof" | "candidatecount" => {
                    let count = found.count(members.next_value_seed(Count::Absent)?);
                    found.choices = found.choices.max(count.unwrap_or(0));
                }
                "prompt" => {
                    let prompts = members.next_value_seed(Prompts)?;
                    found.prompts = found.prompts.max(prompts);
                }
                "generationconfig" if !is_config => members.next_value_seed(Members {
                    found,
                    is_config: true,
                })?,
                "model" if !is_config => {
                    let model = members.next_value::<Option<String>>()?;
                    found.models.push(model);
                }
                // Others that may answer in its place, as OpenRouter takes them.
                "models" if !is_config => {
                    members.next_value::<IgnoredAny>()?;
                    found.models.extend([None, None]);
                }
                _ => {
                    members.next_value::<IgnoredAny>()?;
                }
            }
        }
        Ok(())
    }
}

/// A count, as JSON or as a text of digits, which Google takes too.
#[derive(Debug, Clone, Copy)]
enum Count {
    Absent,
    Of(u64),
    /// Below zero, say, which some take for no bound at all.
    Odd,
}

impl<'de> DeserializeSeed<'de> for Count {
    type Value = Self;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Count {
    type Value = Self;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a count")
    }

    fn visit_unit<E: Error>(self) -> Result<Self, E> {
        Ok(Self::Absent)
    }

    fn visit_u64<E: Error>(self, count: u64) -> Result<Self, E> {
        Ok(Self::Of(count))
    }

    fn visit_i64<E: Error>(self, count: i64) -> Result<Self, E> {
        Ok(u64::try_from(count).map_or(Self::Odd, Self::Of))
    }

    fn visit_f64<E: Error>(self, count: f64) -> Result<Self, E> {
        // As it is written, rounded up; what is no number of tokens is odd.
        let text = count.to_string();
        Ok(crate::prices::decimal(&text, 0).map_or(Self::Odd, Self::Of))
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Self, E> {
        Ok(text.trim().parse().map_or(Self::Odd, Self::Of))
    }

    fn visit_bool<E: Error>(self, _: bool) -> Result<Self, E> {
        Ok(Self::Odd)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<Self, A::Error> {
        while elements.next_element::<IgnoredAny>()?.is_some() {}
        Ok(Self::Odd)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Self, A::Error> {
        while members.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(Self::Odd)
    }
}

/// How many prompts a legacy completion asks at once: the texts of an array, or arrays of tokens in it.
struct Prompts;

impl<'de> DeserializeSeed<'de> for Prompts {
    type Value = u64;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<u64, D::Error> {
        let prompt = <serde_json::Value as serde::Deserialize>::deserialize(deserializer)?;
        let elements = prompt.as_array().into_iter().flatten();
        Ok(elements.filter(|one| !one.is_number()).count() as u64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn output(format: Format, body: &str) -> u64 {
        Bound::read(format, body.as_bytes()).output
    }

    #[test]
    fn each_providers_own_bound_is_read() {
        for (format, body, expected) in [
            (Format::OpenAi, r#"{"max_tokens":100000}"#, 100_000),
            (
                Format::OpenAi,
                r#"{"max_completion_tokens":100000}"#,
                100_000,
            ),
            (Format::OpenAi, r#"{"max_output_tokens":1e5}"#, 100_000),
            (Format::OpenRouter, r#"{"max_tokens":2000.5}"#, 2_001),
            (Format::Cohere, r#"{"max_tokens":2000}"#, 2_000),
            (Format::Anthropic, r#"{"max_tokens":64000}"#, 64_000),
            (
                Format::Anthropic,
                r#"{"max_tokens_to_sample":64000}"#,
                64_000,
            ),
            (
                Format::Gemini,
                r#"{"generationConfig":{"maxOutputTokens":8000,"candidateCount":4}}"#,
                32_000,
            ),
            (
                Format::Gemini,
                r#"{"generation_config":{"max_output_tokens":"8000"}}"#,
                8_000,
            ),
            (Format::Gemini, r#"{"max_tokens":2000}"#, 2_000),
        ] {
            assert_eq!(output(format, body), expected, "{body}");
        }
    }

    #[test]
    fn choices_and_prompts_multiply_it() {
        for (body, expected) in [
            (r#"{"max_tokens":2000,"n":8}"#, 16_000),
            (r#"{"max_tokens":2000,"n":2,"best_of":10}"#, 20_000),
            (r#"{"max_tokens":2000,"prompt":["a","b","c"]}"#, 6_000),
            (r#"{"max_tokens":2000,"prompt":[1,2,3]}"#, 2_000),
            (r#"{"max_tokens":2000,"prompt":[[1],[2]],"n":2}"#, 8_000),
            (r#"{"max_tokens":2000,"prompt":"a","n":null}"#, 2_000),
            (r#"{"n":3}"#, 3 * DEFAULT_OUTPUT),
            (r#"{"max_tokens":18446744073709551615,"n":9}"#, u64::MAX),
        ] {
            assert_eq!(output(Format::OpenAi, body), expected, "{body}");
        }
    }

    #[test]
    fn what_names_no_bound_holds_the_default_and_a_small_one_the_least() {
        for body in [
            "{}",
            r#"{"max_tokens":null}"#,
            r#"{"generationConfig":null}"#,
            "",
            "--form\r\ncontent-disposition: form-data; name=\"max_tokens\"\r\n",
        ] {
            assert_eq!(output(Format::OpenAi, body), DEFAULT_OUTPUT, "{body}");
        }
        for body in [r#"{"max_tokens":1}"#, r#"{"max_tokens":0}"#] {
            assert_eq!(output(Format::OpenAi, body), LEAST_OUTPUT, "{body}");
        }
        // A name that this provider does not read lowers nothing, and may raise.
        let other = r#"{"generationConfig":{"maxOutputTokens":1}}"#;
        assert_eq!(output(Format::OpenAi, other), DEFAULT_OUTPUT);
        let other = r#"{"max_tokens_to_sample":1}"#;
        assert_eq!(output(Format::OpenAi, other), DEFAULT_OUTPUT);
        let other = r#"{"max_tokens":1,"max_output_tokens":9000}"#;
        assert_eq!(output(Format::Anthropic, other), 9_000);
    }

    #[test]
    fn of_two_readings_the_larger_counts() {
        for body in [
            r#"{"max_tokens":1,"max_tokens":90000}"#,
            r#"{"max_tokens":90000,"max_tokens":1}"#,
            r#"{"max_tokens":1,"max_completion_tokens":90000}"#,
            r#"{"max_tokens":1,"max_\u0074okens":90000}"#,
        ] {
            assert_eq!(output(Format::OpenAi, body), 90_000, "{body}");
        }
    }

    #[test]
    fn what_cannot_be_told_is_held_as_if_it_asked_for_much() {
        for body in [
            "[]",
            "{",
            r#"{"max_tokens":1} x"#,
            "\u{feff}{}",
            "\u{1f}\u{8b}gzip",
            r#"{"max_tokens":-1}"#,
            r#"{"max_tokens":-1.5}"#,
            r#"{"max_tokens":"many"}"#,
            r#"{"max_tokens":[1]}"#,
            r#"{"max_tokens":{}}"#,
            r#"{"max_tokens":true}"#,
            r#"{"n":-1}"#,
            r#"{"generationConfig":5}"#,
        ] {
            assert_eq!(output(Format::OpenAi, body), UNTOLD_OUTPUT, "{body}");
        }
    }

    #[test]
    fn one_model_is_known_and_of_several_none() {
        for (body, model) in [
            (r#"{"model":"gpt-4o"}"#, Some("gpt-4o")),
            (r#"{"model":null}"#, None),
            (r#"{"model":"gpt-4o","model":"o1-pro"}"#, None),
            (r#"{"model":"a","models":["b"]}"#, None),
            (r#"{"models":["b"]}"#, None),
            ("{}", None),
        ] {
            let bound = Bound::read(Format::OpenAi, body.as_bytes());
            assert_eq!(bound.model.as_deref(), model, "{body}");
        }
    }
}
