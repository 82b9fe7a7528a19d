//! Small words for building and reading Datalog terms, so that no text is ever parsed as Datalog.

use biscuit_auth::builder::{
    Binary, Check, CheckKind, Expression, Fact, Op, Predicate, Rule, Term, Unary,
};

/// A literal string. It is stored as it is, whatever it holds.
pub(crate) fn text(text: &str) -> Term {
    Term::Str(text.to_owned())
}

pub(crate) fn number(number: impl Into<i64>) -> Term {
    Term::Integer(number.into())
}

pub(crate) fn variable(name: &str) -> Term {
    Term::Variable(name.to_owned())
}

/// Seconds since 1970.
pub(crate) const fn date(seconds: u64) -> Term {
    Term::Date(seconds)
}

pub(crate) fn fact(name: &str, terms: &[Term]) -> Fact {
    Fact::new(name.to_owned(), terms)
}

pub(crate) fn predicate(name: &str, terms: &[Term]) -> Predicate {
    Predicate::new(name.to_owned(), terms)
}

/// `left op right`.
pub(crate) fn compare(left: Term, op: Binary, right: Term) -> Expression {
    Expression {
        ops: vec![Op::Value(left), Op::Value(right), Op::Binary(op)],
    }
}

/// `(path + "/").starts_with(prefix)`: a path and all below it, but no path that only begins with the same letters.
pub(crate) fn is_under(path: Term, prefix: Term) -> Expression {
    Expression {
        ops: vec![
            Op::Value(path),
            Op::Value(text("/")),
            Op::Binary(Binary::Add),
            Op::Unary(Unary::Parens),
            Op::Value(prefix),
            Op::Binary(Binary::Prefix),
        ],
    }
}

pub(crate) fn query(body: Vec<Predicate>, expressions: Vec<Expression>) -> Rule {
    Rule::new(predicate("query", &[]), body, expressions, vec![])
}

/// `check if` one of the queries finds something.
pub(crate) const fn check_if(queries: Vec<Rule>) -> Check {
    Check {
        queries,
        kind: CheckKind::One,
    }
}

/// Whether two checks say the same. `PartialEq` would also compare how they were built.
pub(crate) fn is_same_check(left: &Check, right: &Check) -> bool {
    let is_same_query = |left: &Rule, right: &Rule| {
        left.head == right.head
            && left.body == right.body
            && left.expressions == right.expressions
            && left.scopes == right.scopes
    };
    left.kind == right.kind
        && left.queries.len() == right.queries.len()
        && left
            .queries
            .iter()
            .zip(&right.queries)
            .all(|(left, right)| is_same_query(left, right))
}
