//! What a block after the authority block may hold, and how much work its checks may take.
//!
//! Biscuit's own limits are looked at between queries, so they stop no single query that joins facts without end. Here
//! the work is counted before anything is evaluated: no rule adds facts, so the facts are known, and the number of
//! combinations that a query may try is the product of the facts that its predicates can meet.

use biscuit_auth::builder::{Binary, Check, Expression, Fact, Op, Rule, Term, Unary};

/// The most predicates of a query.
pub(crate) const MAX_PREDICATES: usize = 4;
/// The most operations in all expressions of a query.
const MAX_OPS: usize = 64;
/// The most bytes of a regular expression.
const MAX_REGEX_BYTES: usize = 512;
/// The most steps that all checks of a lease may take. A step is some ten nanoseconds, so all of them a few milliseconds.
const MAX_STEPS: u64 = 200_000;
/// Steps of one regular expression, which is compiled each time that it is evaluated.
const REGEX_STEPS: u64 = 500;
/// Steps of one byte of a regular expression: it may be tried at each byte of the longest path that is decided on.
const REGEX_BYTE_STEPS: u64 = 100;
/// Steps of one fact that a predicate meets, for which the variables are copied.
const MATCH_STEPS: u64 = 20;
/// Steps of one operation of an expression.
const OP_STEPS: u64 = 10;

/// The facts that the authorizer adds, with how many of each there can be.
const AMBIENT: [(&str, usize, u64); 12] = [
    ("time", 1, 1),
    ("minute", 2, 2),
    ("set", 1, 1),
    ("action", 1, 1),
    ("scheme", 1, 1),
    ("host", 1, 1),
    ("port", 1, 1),
    ("at", 2, 2),
    ("method", 1, 1),
    ("path", 1, 1),
    ("client_ip", 1, 1),
    ("client_net", 1, 1),
];

/// Why a check may not stand in a block after the authority block.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum BoundError {
    #[error("a query has more than {MAX_PREDICATES} predicates")]
    Predicates,
    #[error("a query names blocks to trust")]
    Trusting,
    #[error("a query's head has terms")]
    Head,
    #[error("a query has more than {MAX_OPS} operations")]
    Operations,
    #[error("an expression holds an operation or a term that is not allowed in a lease")]
    Forbidden,
    #[error("an expression is incomplete")]
    Stack,
    #[error(
        "a regular expression is not a constant, is longer than {MAX_REGEX_BYTES} bytes, or repeats by count"
    )]
    Regex,
    #[error("the checks would take {steps} steps of at most {MAX_STEPS}")]
    Work { steps: u64 },
}

/// Counts the work of checks against the facts that they can meet.
#[derive(Debug)]
pub(crate) struct Budget<'a> {
    facts: &'a [Fact],
    steps: u64,
}

impl<'a> Budget<'a> {
    /// A budget for a lease with these facts in its authority block.
    pub(crate) const fn new(facts: &'a [Fact]) -> Self {
        Self { facts, steps: 0 }
    }

    /// Takes one more check.
    pub(crate) fn add(&mut self, check: &Check) -> Result<(), BoundError> {
        for query in &check.queries {
            let cost = check_query(query)?;
            self.steps = self.steps.saturating_add(self.steps_of(query, cost));
            if self.steps > MAX_STEPS {
                return Err(BoundError::Work { steps: self.steps });
            }
        }
        Ok(())
    }

    /// The steps counted so far.
    #[cfg(test)]
    pub(crate) const fn steps(&self) -> u64 {
        self.steps
    }

    /// Each predicate walks over all facts once for each combination of those before it, and makes new combinations
    /// with the facts that it meets; each complete combination has the expressions evaluated.
    fn steps_of(&self, query: &Rule, expressions: u64) -> u64 {
        let ambient: u64 = AMBIENT.iter().map(|(_, _, count)| count).sum();
        let all = ambient + self.facts.len() as u64;
        let mut combinations = 1_u64;
        let mut steps = 1_u64;
        for predicate in &query.body {
            steps = steps.saturating_add(combinations.saturating_mul(all));
            let count = self.count(&predicate.name, predicate.terms.len());
            combinations = combinations.saturating_mul(count);
            steps = steps.saturating_add(combinations.saturating_mul(MATCH_STEPS));
        }
        steps.saturating_add(combinations.saturating_mul(expressions))
    }

    fn count(&self, name: &str, terms: usize) -> u64 {
        let ambient = AMBIENT
            .iter()
            .find(|(known, arity, _)| *known == name && *arity == terms)
            .map_or(0, |(_, _, count)| *count);
        let own = self
            .facts
            .iter()
            .filter(|fact| fact.predicate.name == name && fact.predicate.terms.len() == terms)
            .count();
        ambient + own as u64
    }
}

/// Checks a query's form. Returns the steps that its expressions take for one combination of facts.
fn check_query(query: &Rule) -> Result<u64, BoundError> {
    if query.body.len() > MAX_PREDICATES {
        return Err(BoundError::Predicates);
    }
    if !query.scopes.is_empty() {
        return Err(BoundError::Trusting);
    }
    // The library prints a line for a variable in the head that the body does not bind.
    if !query.head.terms.is_empty() {
        return Err(BoundError::Head);
    }
    let terms = query.body.iter().flat_map(|predicate| &predicate.terms);
    if !terms.into_iter().all(is_plain_term) {
        return Err(BoundError::Forbidden);
    }
    let mut cost = Cost::default();
    for Expression { ops } in &query.expressions {
        if cost.expression(ops)? != Element::Term {
            return Err(BoundError::Stack);
        }
    }
    if cost.ops > MAX_OPS {
        return Err(BoundError::Operations);
    }
    Ok(cost.steps)
}

#[derive(Debug, Default)]
struct Cost {
    ops: usize,
    steps: u64,
}

/// What an operation leaves on the stack.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Element {
    Term,
    Closure,
}

impl Cost {
    /// Walks over an expression as it would be evaluated. Closures are parts of `&&` and `||` and are counted as if
    /// they always ran.
    fn expression(&mut self, ops: &[Op]) -> Result<Element, BoundError> {
        let mut stack = Vec::new();
        for (at, op) in ops.iter().enumerate() {
            self.ops += 1;
            self.steps += OP_STEPS;
            if self.ops > MAX_OPS {
                return Err(BoundError::Operations);
            }
            match op {
                Op::Value(term) if is_plain_term(term) => stack.push(Element::Term),
                Op::Unary(Unary::Negate | Unary::Parens | Unary::Length) => {
                    if stack.last() != Some(&Element::Term) {
                        return Err(BoundError::Stack);
                    }
                }
                Op::Closure(parameters, inner) if parameters.is_empty() => {
                    if self.expression(inner)? != Element::Term {
                        return Err(BoundError::Stack);
                    }
                    stack.push(Element::Closure);
                }
                Op::Binary(binary) => {
                    self.binary(binary, at.checked_sub(1).and_then(|at| ops.get(at)))?;
                    let right = stack.pop();
                    let left = stack.pop();
                    let wanted = match binary {
                        Binary::LazyAnd | Binary::LazyOr => Element::Closure,
                        _ => Element::Term,
                    };
                    if (left, right) != (Some(Element::Term), Some(wanted)) {
                        return Err(BoundError::Stack);
                    }
                    stack.push(Element::Term);
                }
                Op::Value(_) | Op::Unary(_) | Op::Closure(..) => return Err(BoundError::Forbidden),
            }
        }
        match stack.as_slice() {
            [element] => Ok(*element),
            _ => Err(BoundError::Stack),
        }
    }

    /// `right` is the operation that made the right operand, if that was a single one.
    fn binary(&mut self, binary: &Binary, right: Option<&Op>) -> Result<(), BoundError> {
        match binary {
            Binary::Regex => {
                let Some(Op::Value(Term::Str(regex))) = right else {
                    return Err(BoundError::Regex);
                };
                if !is_bounded_regex(regex) {
                    return Err(BoundError::Regex);
                }
                self.steps += REGEX_STEPS + REGEX_BYTE_STEPS * regex.len() as u64;
                Ok(())
            }
            // They run a closure for each element, or call out, or reach into terms that are not allowed.
            Binary::All | Binary::Any | Binary::Ffi(_) | Binary::TryOr | Binary::Get => {
                Err(BoundError::Forbidden)
            }
            _ => Ok(()),
        }
    }
}

/// Whether the term is a scalar, a variable or a set of scalars.
fn is_plain_term(term: &Term) -> bool {
    match term {
        Term::Variable(_)
        | Term::Integer(_)
        | Term::Str(_)
        | Term::Date(_)
        | Term::Bytes(_)
        | Term::Bool(_) => true,
        Term::Set(terms) => terms
            .iter()
            .all(|term| is_plain_term(term) && !matches!(term, Term::Set(_) | Term::Variable(_))),
        Term::Parameter(_) | Term::Null | Term::Array(_) | Term::Map(_) => false,
    }
}

/// Whether the expression's automaton is about as large as its text: no counted repetition, no class by name, no flags.
fn is_bounded_regex(regex: &str) -> bool {
    let mut rest = regex.bytes().peekable();
    while let Some(byte) = rest.next() {
        let next = rest.peek().copied();
        let is_allowed = match byte {
            b'{' => false,
            b'\\' => rest
                .next()
                .is_some_and(|escaped| escaped.is_ascii_punctuation()),
            b'(' if next == Some(b'?') => {
                rest.next();
                rest.peek() == Some(&b':')
            }
            // A class in a class, and operations on classes.
            b'[' => next != Some(b'['),
            byte => byte.is_ascii(),
        };
        if !is_allowed {
            return false;
        }
    }
    regex.len() <= MAX_REGEX_BYTES
}

#[cfg(test)]
mod tests;
