//! What a use on a budget spends: told by its answer as it passes, estimated where that tells nothing.

use std::sync::Arc;

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use leases::id::GrantId;
use moka::sync::Cache;
use pingora::http::ResponseHeader;
use providers::template::Template;
use providers::usage::{self, Asking, Charge, Exchange, Format, Meter};
use providers::{Catalog, Prices};
use store::{Amount, Hold, Settled};

/// How many grants are remembered.
const GRANTS: u64 = 16 * 1024;

/// Which grants have a budget, as far as the ledger has said it with a recorded use. A budget is made with its grant, and neither added
/// nor taken away later.
#[derive(Debug)]
pub(crate) struct Budgeted(Cache<GrantId, bool>);

impl Budgeted {
    pub(crate) fn new() -> Self {
        Self(Cache::new(GRANTS))
    }

    /// Whether a use of this grant may hold part of a budget. Before its first one that is not known.
    pub(crate) fn may_hold(&self, grant: &GrantId) -> bool {
        self.0.get(grant).unwrap_or(true)
    }

    pub(crate) fn note(&self, grant: &GrantId, has_budget: bool) {
        if self.0.get(grant) != Some(has_budget) {
            self.0.insert(grant.clone(), has_budget);
        }
    }
}

/// Whether what a request may spend is told by its body.
pub(crate) fn is_told_by_body(template: Option<&Template>, method: &str) -> bool {
    template.is_some_and(|template| template.usage().is_some()) && usage::infers(method)
}

/// What a use may spend. Providers that count no tokens have no estimate.
pub(crate) fn estimate(
    catalog: &Catalog,
    template: Option<&Template>,
    asking: &Asking<'_>,
) -> Amount {
    let Some((template, format)) = template.and_then(|one| Some((one, one.usage()?))) else {
        return Amount::default();
    };
    let charge = usage::estimate(catalog.prices(), template.name(), format, asking);
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
    use time::macros::datetime;

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
            let asking = Asking {
                method,
                path: "/v1/responses",
                body: Some(br#"{"model":"gpt-4o","max_output_tokens":2000}"#),
                length: None,
            };
            estimate(&catalog, template.as_deref(), &asking).tokens
        };
        assert_eq!(estimate("openai", "POST"), 11 + 2_000);
        assert_eq!(estimate("openai", "GET"), 0);
        assert_eq!(estimate("stripe", "POST"), 0);
        assert_eq!(estimate("no such provider", "POST"), 0);
    }

    #[test]
    fn a_grant_may_have_a_budget_until_a_use_says_that_it_has_none() {
        let budgeted = Budgeted::new();
        let grant =
            |day| GrantId::new(datetime!(2026-11-01 07:00:00 UTC) + time::Duration::days(day));
        let (free, bounded) = (grant(1), grant(2));
        assert!(budgeted.may_hold(&free) && budgeted.may_hold(&bounded));
        budgeted.note(&free, false);
        budgeted.note(&bounded, true);
        assert!(!budgeted.may_hold(&free) && budgeted.may_hold(&bounded));
    }

    #[test]
    fn only_what_may_ask_a_model_is_told_by_its_body() {
        let template = |name| Catalog::builtin().get(name);
        for (name, method, is_told) in [
            ("openai", "POST", true),
            ("openai", "GET", false),
            ("stripe", "POST", false),
        ] {
            let template = template(name);
            let told = is_told_by_body(template.as_deref(), method);
            assert_eq!(told, is_told, "{name} {method}");
        }
        assert!(!is_told_by_body(None, "POST"));
    }
}
