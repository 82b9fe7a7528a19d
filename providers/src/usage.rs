//! What an answer of a model's provider says that it cost: tokens, by the provider's own count.
//!
//! A [`Meter`] reads the answer as it passes and keeps nothing of it but numbers and the model's name, however long it is.
//! Where an answer tells nothing, [`Meter::charge`] estimates: one token for each four bytes in either direction.

use std::fmt;
use std::str::FromStr;

use crate::prices::{Prices, decimal};

mod bound;
mod events;
mod walk;

use bound::Bound;
use events::Events;
use walk::{Scalar, Sink, Walker};

/// So many bytes, of request and answer with all their framing, are estimated as one token.
const BYTES_PER_TOKEN: u64 = 4;
/// How many tokens of input it holds when its length is not known.
const HELD_INPUT: u64 = 4_096;

/// How a provider reports usage: `usage` in a template.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Format {
    /// `usage` with `prompt_tokens` or `input_tokens`: OpenAI, and the many that speak as it does.
    OpenAi,
    /// The same, and `cost` in dollars.
    OpenRouter,
    /// `usage` of a message, and in a stream of its beginning and its end. It is understood under the other names too, since
    /// many speak both ways.
    Anthropic,
    /// `usageMetadata`.
    Gemini,
    /// `billed_units`.
    Cohere,
}

impl Format {
    /// Every format by its name in templates.
    pub const ALL: [(&'static str, Self); 5] = [
        ("openai", Self::OpenAi),
        ("openrouter", Self::OpenRouter),
        ("anthropic", Self::Anthropic),
        ("gemini", Self::Gemini),
        ("cohere", Self::Cohere),
    ];
}

impl FromStr for Format {
    type Err = ();

    fn from_str(name: &str) -> Result<Self, ()> {
        let mut all = Self::ALL.into_iter();
        all.find(|(known, _)| *known == name)
            .map(|(_, format)| format)
            .ok_or(())
    }
}

/// Tokens by what they cost.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Usage {
    /// The model, as the answer names it.
    pub model: Option<String>,
    /// Tokens of input, but for those below.
    pub input: u64,
    /// Tokens of input that were read from the provider's cache.
    pub cached: u64,
    /// Tokens of input that were written to the provider's cache.
    pub written: u64,
    /// The same, to be kept for an hour.
    pub written_long: u64,
    /// Tokens of output, those of reasoning included.
    pub output: u64,
    /// What the provider says that it cost, in millionths of a US dollar.
    pub cost_micros: Option<u64>,
}

impl Usage {
    /// All tokens of input.
    pub const fn all_input(&self) -> u64 {
        self.input
            .saturating_add(self.cached)
            .saturating_add(self.written)
            .saturating_add(self.written_long)
    }
}

/// What a use is charged with.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Charge {
    /// Tokens of input.
    pub tokens_in: u64,
    /// Tokens of output.
    pub tokens_out: u64,
    /// What they cost, in millionths of a US dollar.
    pub usd_micros: u64,
}

/// What is known of a request and its answer beside the answer's body.
#[derive(Debug, Clone, Copy)]
pub struct Exchange<'a> {
    /// The request's method.
    pub method: &'a str,
    /// Bytes of the request's body.
    pub bytes_up: u64,
    /// The answer's status.
    pub status: u16,
    /// Whether the answer reached its end.
    pub has_ended: bool,
}

/// What is known of a request before it is sent.
#[derive(Debug, Clone, Copy)]
pub struct Asking<'a> {
    /// Its method.
    pub method: &'a str,
    /// Its path.
    pub path: &'a str,
    /// Its body, where it was read.
    pub body: Option<&'a [u8]>,
    /// The body's length in bytes, if it is known.
    pub length: Option<u64>,
}

/// What a use of `provider` may spend, as far as can be told before it is sent. A request that is no POST asks for no inference,
/// and holds nothing.
///
/// Of input that is a token for each four bytes of its body. Of output it is what the body bounds it to (`max_tokens` and its kin), at
/// least 1,024 tokens, and 4,096 where it names no bound; times the answers that it asks for (`n`, `best_of`, `candidateCount`, prompts).
/// Where a body was not read, or is no JSON, it is 1,048,576. Money is what that costs with the model that the body names, or with the
/// provider's most expensive one.
pub fn estimate(prices: &Prices, provider: &str, format: Format, asking: &Asking<'_>) -> Charge {
    if !infers(asking.method) {
        return Charge::default();
    }
    let bound = match asking.body {
        Some(body) => Bound::read(format, body),
        None if asking.length == Some(0) => Bound::read(format, &[]),
        None => Bound::UNTOLD,
    };
    let length = asking.body.map(|body| body.len() as u64).or(asking.length);
    let input = length.map_or(HELD_INPUT, |length| length.div_ceil(BYTES_PER_TOKEN));
    // Azure's deployments have names of their own, and the body's model is not read.
    let is_named_elsewhere = asking.path.contains("/deployments/");
    let usage = Usage {
        model: bound.model.filter(|_| !is_named_elsewhere),
        ..guess(input, bound.output)
    };
    charge(prices, provider, &usage)
}

/// Reads the usage out of one answer.
#[derive(Debug)]
pub struct Meter {
    format: Format,
    body: Body,
    tally: Tally,
    bytes: u64,
}

#[derive(Debug)]
enum Body {
    /// One document, or one after the other.
    Json(Walker),
    /// Server-sent events.
    Events(Events),
    /// Sound, pictures and the like.
    Opaque,
}

impl Meter {
    /// A meter for an answer of this `content-type`.
    pub fn new(format: Format, content_type: Option<&str>) -> Self {
        let media = content_type.unwrap_or_default().to_ascii_lowercase();
        let body = if media.starts_with("text/event-stream") {
            Body::Events(Events::default())
        } else if media.contains("json") {
            Body::Json(Walker::default())
        } else {
            Body::Opaque
        };
        Self {
            format,
            body,
            tally: Tally::default(),
            bytes: 0,
        }
    }

    /// Reads the next part of the answer's body, in the clear.
    pub fn push(&mut self, bytes: &[u8]) {
        self.bytes = self.bytes.saturating_add(bytes.len() as u64);
        let mut sink = Reader {
            format: self.format,
            tally: &mut self.tally,
        };
        match &mut self.body {
            Body::Json(walker) => walker.push(bytes, &mut sink),
            Body::Events(events) => events.push(bytes, &mut sink),
            Body::Opaque => {}
        }
    }

    /// The body has ended.
    pub fn finish(&mut self) {
        let mut sink = Reader {
            format: self.format,
            tally: &mut self.tally,
        };
        match &mut self.body {
            Body::Json(walker) => walker.finish(&mut sink),
            Body::Events(events) => events.finish(&mut sink),
            Body::Opaque => {}
        }
    }

    /// What the answer has reported so far.
    pub fn usage(&self) -> Option<Usage> {
        self.tally.usage(self.format)
    }

    /// What the exchange is charged with, once nothing more of it comes.
    ///
    /// What an answer reports counts, whatever was asked. One that breaks off before its last report counts as what it
    /// reported or one token for each four bytes, whichever is more; so does one that reports nothing, unless the provider
    /// refused the request, or it was none for inference.
    pub fn charge(&self, exchange: &Exchange<'_>, prices: &Prices, provider: &str) -> Charge {
        let up = exchange.bytes_up.div_ceil(BYTES_PER_TOKEN);
        let down = self.bytes.div_ceil(BYTES_PER_TOKEN);
        let Some(mut usage) = self.usage() else {
            if exchange.status >= 400 || !infers(exchange.method) {
                return Charge::default();
            }
            let usage = Usage {
                model: self.tally.model.clone(),
                ..guess(up, down)
            };
            return charge(prices, provider, &usage);
        };
        if !exchange.has_ended || !self.tally.is_final {
            usage.output = usage.output.max(down);
            usage.cost_micros = None;
            if usage.all_input() == 0 {
                usage.input = up;
            }
        }
        charge(prices, provider, &usage)
    }
}

/// Whether a request of this method may ask a model for anything.
pub fn infers(method: &str) -> bool {
    !["GET", "HEAD", "OPTIONS", "DELETE"].contains(&method)
}

fn guess(input: u64, output: u64) -> Usage {
    Usage {
        input,
        output,
        ..Usage::default()
    }
}

fn charge(prices: &Prices, provider: &str, usage: &Usage) -> Charge {
    Charge {
        tokens_in: usage.all_input(),
        tokens_out: usage.output,
        usd_micros: prices.cost(provider, usage),
    }
}

/// The numbers read so far, each the largest of its kind: streams repeat and raise them.
#[derive(Debug, Default)]
struct Tally {
    model: Option<String>,
    prompt: u64,
    /// Of the prompt.
    cached: u64,
    /// Beside the prompt, as what was written.
    cached_beside: u64,
    written: u64,
    written_long: u64,
    tool: u64,
    completion: u64,
    thoughts: u64,
    total: u64,
    cost: Option<u64>,
    /// No later report is to be expected to say more.
    is_final: bool,
}

impl Tally {
    fn usage(&self, format: Format) -> Option<Usage> {
        let counts = [self.prompt, self.completion, self.total, self.cached_beside];
        if counts == [0; 4] {
            return None;
        }
        let mut usage = Usage {
            model: self.model.clone(),
            input: self.prompt,
            cached: self.cached,
            output: self.completion,
            cost_micros: self.cost,
            ..Usage::default()
        };
        match format {
            Format::OpenAi | Format::OpenRouter | Format::Anthropic => {
                usage.input = self.prompt.saturating_sub(self.cached);
                usage.cached = self.cached.saturating_add(self.cached_beside);
                usage.written_long = self.written_long;
                usage.written = self.written.saturating_sub(self.written_long);
                if self.prompt == 0 && self.completion == 0 {
                    usage.input = self.total;
                } else {
                    // Some leave the tokens of reasoning out of the completion, and none out of the total.
                    let rest = self.total.saturating_sub(self.prompt);
                    usage.output = self.completion.max(rest);
                }
            }
            Format::Gemini => {
                let asked = self.prompt.saturating_add(self.tool);
                usage.input = asked.saturating_sub(self.cached);
                let answered = self.completion.saturating_add(self.thoughts);
                usage.output = answered.max(self.total.saturating_sub(asked));
            }
            Format::Cohere => {}
        }
        Some(usage)
    }
}

/// Puts what a document says into the tally.
struct Reader<'a> {
    format: Format,
    tally: &'a mut Tally,
}

impl Sink for Reader<'_> {
    fn scalar(&mut self, place: &[Vec<u8>], scalar: Scalar<'_>) {
        let mut names = [""; 6];
        let Some(names) = names.get_mut(..place.len()) else {
            return;
        };
        for (name, bytes) in names.iter_mut().zip(place) {
            *name = std::str::from_utf8(bytes).unwrap_or_default();
        }
        match self.format {
            Format::OpenAi | Format::OpenRouter | Format::Anthropic => self.chat(names, scalar),
            Format::Gemini => self.gemini(names, scalar),
            Format::Cohere => self.cohere(names, scalar),
        }
    }
}

impl Reader<'_> {
    /// The shape of OpenAI and that of Anthropic, which many of the former's kind speak too.
    fn chat(&mut self, names: &[&str], scalar: Scalar<'_>) {
        // A stream of Anthropic's begins with the message, whose output has only begun.
        let is_begun = names.first() == Some(&"message");
        let names = match names {
            // Beside it the event that ends a response, Groq's last chunk, Moonshot's last choice.
            ["message" | "response" | "x_groq", names @ ..]
            | ["choices", "*", names @ ..]
            | names => names,
        };
        let tally = &mut *self.tally;
        let slot = match names {
            ["model"] => return tally.name(scalar),
            ["usage", "prompt_tokens" | "input_tokens"] => &mut tally.prompt,
            ["usage", "completion_tokens" | "output_tokens"] => {
                tally.is_final |= raise(&mut tally.completion, scalar) && !is_begun;
                return;
            }
            ["usage", "total_tokens"] => {
                tally.is_final |= raise(&mut tally.total, scalar);
                return;
            }
            ["usage", "prompt_cache_hit_tokens" | "cached_tokens"]
            | [
                "usage",
                "prompt_tokens_details" | "input_tokens_details",
                "cached_tokens",
            ] => &mut tally.cached,
            ["usage", "cache_read_input_tokens"] => &mut tally.cached_beside,
            ["usage", "cache_creation_input_tokens"] => &mut tally.written,
            ["usage", "cache_creation", "ephemeral_1h_input_tokens"] => &mut tally.written_long,
            ["usage", "cost"] | ["usage", "cost_details", "upstream_inference_cost"]
                if self.format == Format::OpenRouter =>
            {
                tally.cost = tally.cost.max(number(scalar, 6));
                return;
            }
            _ => return,
        };
        raise(slot, scalar);
    }

    fn gemini(&mut self, names: &[&str], scalar: Scalar<'_>) {
        // A stream without events is one array.
        let names = match names {
            ["*", names @ ..] | names => names,
        };
        let tally = &mut *self.tally;
        let slot = match names {
            ["modelVersion"] => return tally.name(scalar),
            ["usageMetadata", "promptTokenCount"] => &mut tally.prompt,
            ["usageMetadata", "cachedContentTokenCount"] => &mut tally.cached,
            ["usageMetadata", "toolUsePromptTokenCount"] => &mut tally.tool,
            ["usageMetadata", "candidatesTokenCount"] => &mut tally.completion,
            ["usageMetadata", "thoughtsTokenCount"] => &mut tally.thoughts,
            ["usageMetadata", "totalTokenCount"] => &mut tally.total,
            _ => return,
        };
        tally.is_final |= raise(slot, scalar);
    }

    fn cohere(&mut self, names: &[&str], scalar: Scalar<'_>) {
        // The end of a stream, in version 2 and in version 1.
        let names = match names {
            ["delta" | "response", names @ ..] | names => names,
        };
        let tally = &mut *self.tally;
        let slot = match names {
            ["model"] => return tally.name(scalar),
            ["usage" | "meta", "billed_units" | "tokens", "input_tokens"] => &mut tally.prompt,
            ["usage" | "meta", "billed_units" | "tokens", "output_tokens"] => &mut tally.completion,
            _ => return,
        };
        tally.is_final |= raise(slot, scalar);
    }
}

impl Tally {
    fn name(&mut self, scalar: Scalar<'_>) {
        if let Scalar::Text(name) = scalar {
            self.model = std::str::from_utf8(name).ok().map(str::to_owned);
        }
    }
}

/// Raises `slot` to a number; false if the scalar is none.
fn raise(slot: &mut u64, scalar: Scalar<'_>) -> bool {
    let number = number(scalar, 0);
    *slot = number.unwrap_or(0).max(*slot);
    number.is_some()
}

/// A number times ten to the power of `places`, rounded up. Below zero, or none at all: `None`.
fn number(scalar: Scalar<'_>, places: i32) -> Option<u64> {
    let Scalar::Number(text) = scalar else {
        return None;
    };
    decimal(std::str::from_utf8(text).ok()?, places)
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = Self::ALL.iter().find(|(_, format)| format == self);
        f.write_str(name.map_or("", |(name, _)| name))
    }
}

#[cfg(test)]
mod tests;
