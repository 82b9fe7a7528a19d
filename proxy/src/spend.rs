//! What a use on a budget spends: told by its answer as it passes, estimated where that tells nothing.

use std::sync::Arc;

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use pingora::http::ResponseHeader;
use providers::template::Template;
use providers::usage::{self, Charge, Exchange, Format, Meter};
use providers::{Catalog, Prices};
use store::{Amount, Hold, Settled};

/// What a use may spend, as far as its head tells. Providers that count no tokens have no estimate.
pub(crate) fn estimate(
    catalog: &Catalog,
    template: Option<&Template>,
    method: &str,
    length: Option<u64>,
) -> Amount {
    let Some(template) = template.filter(|template| template.usage().is_some()) else {
        return Amount::default();
    };
    let charge = usage::estimate(catalog.prices(), template.name(), method, length);
    Amount {
        tokens: charge.tokens_in.saturating_add(charge.tokens_out),
        usd_micros: charge.usd_micros,
    }
}

/// A use that holds part of its grant's budget.
#[derive(Debug)]
pub(crate) struct Spending {
    hold: Hold,
    provider: String,
    format: Format,
    prices: Arc<Prices>,
    method: String,
    /// Something of the request may have left.
    is_sent: bool,
    answer: Option<Answer>,
}

#[derive(Debug)]
struct Answer {
    meter: Meter,
    status: u16,
    has_ended: bool,
}

impl Spending {
    pub(crate) fn new(
        hold: Hold,
        catalog: &Catalog,
        template: Option<&Template>,
        method: &str,
    ) -> Self {
        Self {
            hold,
            provider: template.map_or_else(String::new, |template| template.name().to_owned()),
            // A template may have been replaced since the grant was made. What its answers do not tell is estimated.
            format: template.and_then(Template::usage).unwrap_or(Format::OpenAi),
            prices: Arc::clone(catalog.prices()),
            method: method.to_owned(),
            is_sent: false,
            answer: None,
        }
    }

    /// The request goes out.
    pub(crate) const fn send(&mut self) {
        self.is_sent = true;
    }

    /// The answer begins.
    pub(crate) fn begin(&mut self, head: &ResponseHeader) {
        let media = head.headers.get(CONTENT_TYPE);
        let media = media.and_then(|media| media.to_str().ok());
        self.answer = Some(Answer {
            meter: Meter::new(self.format, media),
            status: head.status.as_u16(),
            has_ended: false,
        });
    }

    /// The next part of the answer's body, as the agent gets it.
    pub(crate) fn part(&mut self, part: Option<&Bytes>, end: bool) {
        let Some(answer) = &mut self.answer else {
            return;
        };
        if let Some(part) = part {
            answer.meter.push(part);
        }
        if end {
            answer.meter.finish();
            answer.has_ended = true;
        }
    }

    /// What is charged in place of what was held. Without an answer that is all of it, unless nothing was sent.
    pub(crate) fn settle(&self, bytes_up: u64) -> (Settled, Charge) {
        let Some(answer) = &self.answer else {
            let settled = if self.is_sent {
                self.hold.kept()
            } else {
                self.hold.given_back()
            };
            return (settled, Charge::default());
        };
        let exchange = Exchange {
            method: &self.method,
            bytes_up,
            status: answer.status,
            has_ended: answer.has_ended,
        };
        let charge = answer.meter.charge(&exchange, &self.prices, &self.provider);
        let settled = self
            .hold
            .spent(charge.tokens_in, charge.tokens_out, charge.usd_micros);
        (settled, charge)
    }

    pub(crate) fn provider(&self) -> &str {
        &self.provider
    }
}

#[cfg(test)]
mod tests {
    use store::Spend;

    use super::*;
    use crate::fixtures::{World, facts};
    use crate::record::record_use;

    const HELD: Amount = Amount {
        tokens: 1_034,
        usd_micros: 5_000,
    };

    /// A use of OpenAI's API that holds [`HELD`] of its grant's budget.
    async fn spending() -> (Spending, Hold) {
        let world = World::with_budget(Some(Spend {
            tokens: Some(1_000_000),
            usd_micros: None,
            per_seconds: None,
        }));
        let world = world.await;
        let keys = Arc::default();
        let (ledger, permit) = (world.store.ledger(), world.permit());
        let used = record_use(ledger, &permit, keys, None, HELD, facts())
            .await
            .unwrap();
        let hold = used.hold().unwrap();
        let catalog = Catalog::builtin();
        let template = catalog.get("openai").unwrap();
        (Spending::new(hold, &catalog, Some(&template), "POST"), hold)
    }

    fn answer(status: u16, media: &str) -> ResponseHeader {
        let mut head = ResponseHeader::build(status, None).unwrap();
        head.insert_header("content-type", media).unwrap();
        head
    }

    #[tokio::test]
    async fn what_was_held_is_given_back_only_while_nothing_was_sent() {
        let (mut spending, hold) = spending().await;
        assert_eq!(spending.settle(0), (hold.given_back(), Charge::default()));
        spending.send();
        assert_eq!(spending.settle(0), (hold.kept(), Charge::default()));
        assert_eq!(spending.provider(), "openai");
    }

    #[tokio::test]
    async fn an_answer_says_what_it_cost() {
        const USAGE: &[u8] =
            br#"{"model":"gpt-4o","usage":{"prompt_tokens":1000,"completion_tokens":20}}"#;
        let cases: [(u16, &str, &[u8], u64, u64); 4] = [
            (200, "application/json", USAGE, 1_000, 20),
            // A token for each four bytes, of 400 up and of those that came.
            (200, "application/json", br#"{"choices": []} "#, 100, 4),
            (200, "audio/mpeg", &[0; 4_000], 100, 1_000),
            (429, "application/json", br#"{"error": {}}"#, 0, 0),
        ];
        for (status, media, body, tokens_in, tokens_out) in cases {
            let (mut spending, hold) = spending().await;
            spending.send();
            spending.begin(&answer(status, media));
            let (front, back) = body.split_at(9);
            spending.part(Some(&Bytes::from_static(front)), false);
            spending.part(Some(&Bytes::from_static(back)), true);
            let (settled, charge) = spending.settle(400);
            let tokens = (charge.tokens_in, charge.tokens_out);
            assert_eq!(tokens, (tokens_in, tokens_out), "{status} {media}");
            assert_eq!(
                settled,
                hold.spent(tokens_in, tokens_out, charge.usd_micros)
            );
        }
    }

    #[test]
    fn only_a_provider_that_counts_tokens_has_an_estimate() {
        let catalog = Catalog::builtin();
        let estimate = |provider: &str, method: &str| {
            let template = catalog.get(provider);
            estimate(&catalog, template.as_deref(), method, Some(40)).tokens
        };
        assert_eq!(estimate("openai", "POST"), 10 + 1_024);
        assert_eq!(estimate("openai", "GET"), 0);
        assert_eq!(estimate("stripe", "POST"), 0);
        assert_eq!(estimate("no such provider", "POST"), 0);
    }
}
