//! The limits of a narrower lease: each is one check, which is written here and known again when it is read.

use std::{fmt, net::IpAddr};

use biscuit_auth::builder::{Binary, Check, CheckKind, Op, Rule, Term};
use ipnet::IpNet;
use time::OffsetDateTime;

use crate::{
    authorize::{AccessRequest, Dimension},
    clock::rfc3339,
    datalog::{
        check_if, compare, date, is_same_check, is_under, number, predicate, query, text, variable,
    },
    form::Form,
    glob::PathGlob,
    host::HostPattern,
    net,
};

/// A check whose meaning is known, so that a refusal can say what it is about and its end in time is known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Limit {
    /// One of these hosts.
    Hosts(Vec<HostPattern>),
    /// One of these methods.
    Methods(Vec<String>),
    /// One of these paths.
    Paths(Vec<PathGlob>),
    /// A client in one of these networks.
    Clients(Vec<IpNet>),
    /// Before this instant, in whole seconds.
    Before(OffsetDateTime),
}

impl Limit {
    /// What the limit is on.
    pub const fn dimension(&self) -> Dimension {
        match self {
            Self::Hosts(_) => Dimension::Host,
            Self::Methods(_) => Dimension::Method,
            Self::Paths(_) => Dimension::Path,
            Self::Clients(_) => Dimension::Client,
            Self::Before(_) => Dimension::Time,
        }
    }

    /// What is allowed, for people to read.
    pub fn allowed(&self) -> String {
        match self {
            Self::Hosts(hosts) => listed(hosts),
            Self::Methods(methods) => listed(methods),
            Self::Paths(paths) => listed(paths),
            Self::Clients(nets) => listed(nets),
            Self::Before(at) => rfc3339(*at),
        }
    }

    /// Whether the request is within the limit.
    pub(crate) fn allows(&self, request: &AccessRequest<'_>, now: OffsetDateTime) -> bool {
        match self {
            Self::Hosts(hosts) => hosts
                .iter()
                .any(|host| host.matches_by(request.scheme, request.host, request.port)),
            Self::Methods(methods) => methods.iter().any(|method| method == request.method),
            Self::Paths(paths) => paths.iter().any(|path| path.matches(request.path)),
            Self::Clients(nets) => is_client_in(nets, request.client_ip),
            Self::Before(end) => now < *end,
        }
    }

    /// The check that says it.
    pub(crate) fn write(&self) -> Check {
        check_if(match self {
            Self::Hosts(hosts) => hosts.iter().map(host_query).collect(),
            Self::Methods(methods) => methods
                .iter()
                .map(|method| query(vec![predicate("method", &[text(method)])], vec![]))
                .collect(),
            Self::Paths(paths) => paths.iter().map(path_query).collect(),
            Self::Clients(nets) => nets.iter().map(client_query).collect(),
            Self::Before(end) => vec![query(
                vec![predicate("time", &[variable("time")])],
                vec![compare(
                    variable("time"),
                    Binary::LessThan,
                    date(end.unix_timestamp().unsigned_abs()),
                )],
            )],
        })
    }

    /// The limit that a check says, if it is one of those known here.
    pub(crate) fn read(check: &Check) -> Option<Self> {
        if let Some(end) = read_end(check) {
            return Some(Self::Before(end));
        }
        let first = check.queries.first()?.body.first()?;
        let limit = match first.name.as_str() {
            "at" => Self::Hosts(read_each(check, read_host)?),
            "method" => Self::Methods(read_each(check, read_method)?),
            "path" => Self::Paths(read_each(check, read_path)?),
            "client_net" => Self::Clients(read_each(check, read_client)?),
            _ => return None,
        };
        is_same_check(&limit.write(), check).then_some(limit)
    }
}

impl fmt::Display for Limit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Before(end) => write!(f, "before {}", rfc3339(*end)),
            Self::Hosts(_) | Self::Methods(_) | Self::Paths(_) | Self::Clients(_) => {
                write!(f, "{} {}", self.dimension(), self.allowed())
            }
        }
    }
}

/// Texts divided by commas, cut after some of them.
pub(crate) fn listed<T: ToString>(items: &[T]) -> String {
    const SHOWN: usize = 8;
    let mut texts: Vec<_> = items.iter().take(SHOWN).map(ToString::to_string).collect();
    if items.len() > SHOWN {
        texts.push(format!("{} more", items.len() - SHOWN));
    }
    texts.join(", ")
}

pub(crate) fn is_client_in(nets: &[IpNet], client: IpAddr) -> bool {
    nets.iter().any(|net| net::contains(net, client))
}

/// A pattern's port as a term: 0 is the port that belongs to the scheme.
pub(crate) fn port_term(host: &HostPattern) -> Term {
    number(host.port().unwrap_or(0))
}

/// The host of a fact or of a check.
pub(crate) fn host_from(form: &Form, port: &Term) -> Option<HostPattern> {
    match port {
        Term::Integer(port) => HostPattern::from_form(form, u16::try_from(*port).ok()?),
        _ => None,
    }
}

fn host_query(host: &HostPattern) -> Rule {
    let port = port_term(host);
    let at = |name| vec![predicate("at", &[name, port])];
    match host.form() {
        Form::Is(name) => query(at(text(&name)), vec![]),
        Form::Under(suffix) => query(
            at(variable("host")),
            vec![compare(variable("host"), Binary::Suffix, text(&suffix))],
        ),
        Form::Like(regex) => query(
            at(variable("host")),
            vec![compare(variable("host"), Binary::Regex, text(&regex))],
        ),
    }
}

fn path_query(path: &PathGlob) -> Rule {
    let path_is = |term| vec![predicate("path", &[term])];
    match path.form() {
        Form::Is(path) => query(path_is(text(&path)), vec![]),
        Form::Under(prefix) => query(
            path_is(variable("path")),
            vec![is_under(variable("path"), text(&prefix))],
        ),
        Form::Like(regex) => query(
            path_is(variable("path")),
            vec![compare(variable("path"), Binary::Regex, text(&regex))],
        ),
    }
}

fn client_query(net: &IpNet) -> Rule {
    query(
        vec![predicate("client_net", &[variable("net")])],
        vec![compare(
            variable("net"),
            Binary::Prefix,
            text(&net::net_bits(net)),
        )],
    )
}

/// `time($t), $t < end` under whatever name, and `<=` as other Biscuit tools write it.
fn read_end(check: &Check) -> Option<OffsetDateTime> {
    let [query] = check.queries.as_slice() else {
        return None;
    };
    let ([predicate], [expression]) = (query.body.as_slice(), query.expressions.as_slice()) else {
        return None;
    };
    let [Term::Variable(bound)] = predicate.terms.as_slice() else {
        return None;
    };
    let [
        Op::Value(Term::Variable(compared)),
        Op::Value(Term::Date(seconds)),
        Op::Binary(op),
    ] = expression.ops.as_slice()
    else {
        return None;
    };
    let seconds = match op {
        Binary::LessThan => *seconds,
        Binary::LessOrEqual => seconds.checked_add(1)?,
        _ => return None,
    };
    let is_end = check.kind == CheckKind::One && predicate.name == "time" && bound == compared;
    if !is_end || !query.scopes.is_empty() {
        return None;
    }
    OffsetDateTime::from_unix_timestamp(i64::try_from(seconds).ok()?).ok()
}

fn read_each<T>(check: &Check, read: impl Fn(&Rule) -> Option<T>) -> Option<Vec<T>> {
    check.queries.iter().map(read).collect()
}

/// The constant that is compared with, and how: the last two operations of the query's one expression.
fn comparison(query: &Rule) -> Option<(&Binary, &str)> {
    match query.expressions.as_slice() {
        [expression] => match expression.ops.as_slice() {
            [.., Op::Value(Term::Str(constant)), Op::Binary(op)] => Some((op, constant)),
            _ => None,
        },
        _ => None,
    }
}

/// The form that a query tests a term for. `under` is the operation that a prefix or suffix is tested by.
fn read_form(query: &Rule, term: &Term, under: &Binary) -> Option<Form> {
    match term {
        Term::Str(exact) => Some(Form::Is(exact.clone())),
        Term::Variable(_) => match comparison(query)? {
            (Binary::Regex, regex) => Some(Form::Like(regex.to_owned())),
            (op, constant) if op == under => Some(Form::Under(constant.to_owned())),
            _ => None,
        },
        _ => None,
    }
}

fn read_host(query: &Rule) -> Option<HostPattern> {
    let [name, port] = query.body.first()?.terms.as_slice() else {
        return None;
    };
    host_from(&read_form(query, name, &Binary::Suffix)?, port)
}

fn read_method(query: &Rule) -> Option<String> {
    match query.body.first()?.terms.as_slice() {
        [Term::Str(method)] => Some(method.clone()),
        _ => None,
    }
}

fn read_path(query: &Rule) -> Option<PathGlob> {
    let term = query.body.first()?.terms.first()?;
    PathGlob::from_form(&read_form(query, term, &Binary::Prefix)?)
}

fn read_client(query: &Rule) -> Option<IpNet> {
    match comparison(query)? {
        (Binary::Prefix, bits) => net::net_from_bits(bits),
        _ => None,
    }
}

#[cfg(test)]
mod tests;
