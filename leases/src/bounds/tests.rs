use biscuit_auth::builder::BlockBuilder;

use super::*;
use crate::datalog::{fact, number};

fn count(source: &str, facts: &[Fact]) -> Result<u64, BoundError> {
    let mut budget = Budget::new(facts);
    for check in &BlockBuilder::new().code(source).unwrap().checks {
        budget.add(check)?;
    }
    Ok(budget.steps())
}

#[test]
fn the_steps_are_an_upper_bound_of_the_combinations_that_are_tried() {
    const MATCH: u64 = MATCH_STEPS;
    const OP: u64 = OP_STEPS;
    // 14 ambient facts. A query is one step, and each predicate walks over all of them.
    assert_eq!(count("check if true", &[]), Ok(1 + OP));
    assert_eq!(count("check if method(\"GET\")", &[]), Ok(1 + 14 + MATCH));
    assert_eq!(
        count("check if minute($a, $b), minute($c, $d)", &[]),
        Ok(1 + 14 + 2 * MATCH + 2 * 14 + 4 * MATCH)
    );
    // Ten facts of one kind, joined: a hundred combinations, then a thousand; and none after a predicate without facts.
    let facts: Vec<_> = (0..10).map(|n| fact("k", &[number(n)])).collect();
    assert_eq!(
        count("check if k($a), k($b), k($c)", &facts),
        Ok(1 + 24 * 111 + 1110 * MATCH)
    );
    assert_eq!(count("check if none($a), k($b), k($c)", &facts), Ok(1 + 24));
    // Expressions count for each combination, and a regular expression by its length too.
    assert_eq!(
        count("check if k($a), $a > 1", &facts),
        Ok(1 + 24 + 10 * MATCH + 10 * 3 * OP)
    );
    assert_eq!(
        count("check if path($p), $p.matches(\"xy\")", &[]),
        Ok(1 + 14 + MATCH + 3 * OP + REGEX_STEPS + 2 * REGEX_BYTE_STEPS)
    );
    assert_eq!(
        count("check if true or true; check if true", &[]),
        Ok(3 * (1 + OP))
    );
}

#[test]
fn too_much_work_is_refused_by_its_count() {
    let facts: Vec<_> = (0..40).map(|n| fact("k", &[number(n)])).collect();
    assert!(count("check if k($a), k($b)", &facts).is_ok());
    assert!(matches!(
        count("check if k($a), k($b), k($c), k($d)", &facts),
        Err(BoundError::Work { steps }) if steps > MAX_STEPS
    ));
    // Each check is cheap, all of them are not.
    let many = "check if k($a), k($b);".repeat(100);
    assert!(matches!(count(&many, &facts), Err(BoundError::Work { .. })));
}

#[test]
fn counting_does_not_overflow() {
    let facts: Vec<_> = (0..70_000).map(|n| fact("k", &[number(n)])).collect();
    assert!(matches!(
        count("check if k($a), k($b), k($c), k($d)", &facts),
        Err(BoundError::Work { .. })
    ));
}

#[test]
fn what_closures_hold_is_counted() {
    let shallow = count("check if true && true", &[]).unwrap();
    let deep = count("check if true && (true && (true || false))", &[]).unwrap();
    assert!(deep > shallow);
    let hidden = "check if path($p), true || $p.matches(\"a{9}\")";
    assert_eq!(count(hidden, &[]), Err(BoundError::Regex));
    let long = format!("check if true || ({})", vec!["true"; 40].join(" && "));
    assert_eq!(count(&long, &[]), Err(BoundError::Operations));
}

#[test]
fn expressions_that_leave_no_single_term_are_refused() {
    let value = || Op::Value(Term::Bool(true));
    for ops in [
        vec![],
        vec![value(), value()],
        vec![Op::Binary(Binary::And)],
        vec![value(), Op::Binary(Binary::And)],
        vec![Op::Unary(Unary::Negate)],
        vec![Op::Closure(vec![], vec![value()])],
        vec![value(), value(), Op::Binary(Binary::LazyAnd)],
        vec![
            value(),
            Op::Closure(vec![], vec![]),
            Op::Binary(Binary::LazyAnd),
        ],
        vec![
            value(),
            Op::Closure(vec![], vec![value()]),
            Op::Binary(Binary::And),
        ],
    ] {
        let query = crate::datalog::query(vec![], vec![Expression { ops }]);
        assert_eq!(check_query(&query), Err(BoundError::Stack));
    }
    let parameter = vec![
        value(),
        Op::Closure(vec!["x".to_owned()], vec![value()]),
        Op::Binary(Binary::LazyAnd),
    ];
    let query = crate::datalog::query(vec![], vec![Expression { ops: parameter }]);
    assert_eq!(check_query(&query), Err(BoundError::Forbidden));
}

#[test]
fn nested_sets_and_variables_in_sets_are_no_plain_terms() {
    let set = |term| Term::Set([term].into());
    assert!(is_plain_term(&set(Term::Integer(1))));
    assert!(!is_plain_term(&set(set(Term::Integer(1)))));
    assert!(!is_plain_term(&set(Term::Variable("x".to_owned()))));
    assert!(!is_plain_term(&Term::Null));
    assert!(!is_plain_term(&Term::Array(vec![])));
}

#[test]
fn regular_expressions_whose_automaton_outgrows_them_are_refused() {
    for regex in [
        "^/v1/[^/]+$",
        "a|b",
        "(?:a)*",
        "^/a\\.b$",
        "[a-z0-9]*",
        "(a*)*",
        "",
    ] {
        assert!(is_bounded_regex(regex), "{regex}");
    }
    for regex in [
        "a{2}",
        "a{1,}",
        "\\w",
        "\\pL",
        "\\d",
        "(?i)a",
        "(?P<n>a)",
        "(?<n>a)",
        "[[:alpha:]]",
        "ä",
        "a\\",
        "(?",
    ] {
        assert!(!is_bounded_regex(regex), "{regex}");
    }
    assert!(!is_bounded_regex(&"a".repeat(513)));
}
