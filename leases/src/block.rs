//! Reading a token's blocks: the container's form, then each block's facts and checks with their strings.

use biscuit_auth::{
    builder::{Check, Convert as _, Fact},
    datalog::SymbolTable,
    format::{
        convert::proto_block_to_token_block,
        schema::{self, public_key::Algorithm},
    },
};
use prost::Message as _;

use crate::{
    authority,
    bounds::{BoundError, Budget},
    limit::Limit,
    mint::MintRequest,
    verify::MAX_BLOCKS,
};

/// The Datalog versions of Biscuit v3: 3.0 to 3.3.
const DATALOG_VERSIONS: std::ops::RangeInclusive<u32> = 3..=6;
/// The versions of signed blocks that exist.
const MAX_SIGNATURE_VERSION: u32 = 1;

/// Why a token is no lease of ours. It holds nothing of the token.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ShapeError {
    #[error("it is no Biscuit: {0}")]
    Decode(String),
    #[error("it has {0} blocks of at most {MAX_BLOCKS}")]
    Blocks(usize),
    #[error("block {0} is a third-party block")]
    ThirdParty(usize),
    #[error("block {0} hands on to a key that is not Ed25519")]
    NextKey(usize),
    #[error("block {0} has an unknown version")]
    Version(usize),
    #[error("block {0} holds facts, rules, keys or scopes")]
    NotOnlyChecks(usize),
    #[error("block {block}: {source}")]
    Bounds { block: usize, source: BoundError },
    #[error("block {0} cannot be read")]
    Unreadable(usize),
    #[error("the authority block is not what is minted here")]
    Authority,
}

/// What a token says, by its bytes alone.
#[derive(Debug)]
pub(crate) struct Contents {
    pub(crate) root_key_id: Option<u32>,
    pub(crate) authority: MintRequest,
    /// The blocks after the authority block.
    pub(crate) narrowings: Vec<Narrowed>,
    pub(crate) is_sealed: bool,
}

/// A block after the authority block.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Narrowed {
    /// The checks whose meaning is known.
    pub(crate) limits: Vec<Limit>,
    /// The other checks.
    pub(crate) others: Vec<Other>,
}

/// A check whose meaning only Datalog knows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Other {
    /// The check's source.
    pub(crate) source: String,
    /// Whether it looks at the time.
    pub(crate) is_timed: bool,
}

/// Checks the container: the parts that are not signed over, or that the library takes and a lease does not have.
pub(crate) fn check_container(bytes: &[u8]) -> Result<schema::Biscuit, ShapeError> {
    let container =
        schema::Biscuit::decode(bytes).map_err(|e| ShapeError::Decode(e.to_string()))?;
    let count = container.blocks.len() + 1;
    if count > MAX_BLOCKS {
        return Err(ShapeError::Blocks(count));
    }
    for (at, block) in signed_blocks(&container).enumerate() {
        if block.external_signature.is_some() {
            return Err(ShapeError::ThirdParty(at));
        }
        // A holder could turn an ECDSA signature into another valid one, and the block would have a second
        // revocation identifier. Ed25519, as it is verified here, has one signature only.
        if block.next_key.algorithm != Algorithm::Ed25519 as i32 {
            return Err(ShapeError::NextKey(at));
        }
        if block.version.unwrap_or(0) > MAX_SIGNATURE_VERSION {
            return Err(ShapeError::Version(at));
        }
    }
    Ok(container)
}

fn signed_blocks(container: &schema::Biscuit) -> impl Iterator<Item = &schema::SignedBlock> {
    std::iter::once(&container.authority).chain(&container.blocks)
}

/// Reads the blocks. The signatures are somebody else's to check.
pub(crate) fn read(container: &schema::Biscuit) -> Result<Contents, ShapeError> {
    let mut symbols = SymbolTable::new();
    let mut blocks = signed_blocks(container).enumerate();
    let (at, first) = blocks.next().ok_or(ShapeError::Authority)?;
    let first = read_block(at, first, &mut symbols)?;
    let authority = authority::read(&first.facts, &first.checks)
        .filter(|_| first.has_only_facts_and_checks)
        .ok_or(ShapeError::Authority)?;
    let mut budget = Budget::new(&first.facts);
    let narrowings = blocks
        .map(|(at, block)| narrowed(at, &read_block(at, block, &mut symbols)?, &mut budget))
        .collect::<Result<_, _>>()?;
    Ok(Contents {
        root_key_id: container.root_key_id,
        authority,
        narrowings,
        is_sealed: matches!(
            container.proof.content,
            Some(schema::proof::Content::FinalSignature(_))
        ),
    })
}

struct Block {
    facts: Vec<Fact>,
    checks: Vec<Check>,
    sources: Vec<String>,
    /// No rules, no keys, no scopes, and no context.
    has_only_facts_and_checks: bool,
}

fn read_block(
    at: usize,
    signed: &schema::SignedBlock,
    symbols: &mut SymbolTable,
) -> Result<Block, ShapeError> {
    let unreadable = |_| ShapeError::Unreadable(at);
    let block =
        schema::Block::decode(signed.block.as_slice()).map_err(|_| ShapeError::Unreadable(at))?;
    if !DATALOG_VERSIONS.contains(&block.version.unwrap_or(0)) {
        return Err(ShapeError::Version(at));
    }
    let is_trusting = block.checks.iter().any(|check| {
        let mut queries = check.queries.iter();
        queries.any(|query| !query.scope.is_empty())
    });
    if is_trusting || !block.scope.is_empty() || !block.public_keys.is_empty() {
        return Err(ShapeError::NotOnlyChecks(at));
    }
    let own = SymbolTable::from(block.symbols.clone()).map_err(unreadable)?;
    symbols.extend(&own).map_err(unreadable)?;
    let has_only_facts_and_checks = block.rules.is_empty() && block.context.is_none();
    let block = proto_block_to_token_block(&block, None).map_err(unreadable)?;
    Ok(Block {
        facts: block
            .facts
            .iter()
            .map(|fact| Fact::convert_from(fact, symbols))
            .collect::<Result<_, _>>()
            .map_err(unreadable)?,
        checks: block
            .checks
            .iter()
            .map(|check| Check::convert_from(check, symbols))
            .collect::<Result<_, _>>()
            .map_err(unreadable)?,
        sources: block
            .checks
            .iter()
            .map(|check| symbols.print_check(check))
            .collect(),
        has_only_facts_and_checks: has_only_facts_and_checks && block.rules.is_empty(),
    })
}

fn narrowed(at: usize, block: &Block, budget: &mut Budget<'_>) -> Result<Narrowed, ShapeError> {
    if !block.facts.is_empty() || !block.has_only_facts_and_checks {
        return Err(ShapeError::NotOnlyChecks(at));
    }
    let mut narrowed = Narrowed {
        limits: Vec::new(),
        others: Vec::new(),
    };
    for (check, source) in block.checks.iter().zip(&block.sources) {
        budget
            .add(check)
            .map_err(|source| ShapeError::Bounds { block: at, source })?;
        match Limit::read(check) {
            Some(limit) => narrowed.limits.push(limit),
            None => narrowed.others.push(Other {
                source: source.clone(),
                is_timed: is_timed(check),
            }),
        }
    }
    Ok(narrowed)
}

/// Whether the check meets a fact that changes with the time.
fn is_timed(check: &Check) -> bool {
    check
        .queries
        .iter()
        .flat_map(|query| &query.body)
        .any(|predicate| matches!(predicate.name.as_str(), "time" | "minute"))
}
