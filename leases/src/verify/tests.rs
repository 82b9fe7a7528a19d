use biscuit_auth::{
    Algorithm, BlockBuilder, KeyPair, UnverifiedBiscuit,
    builder::{BiscuitBuilder, Convert as _, Scope as DatalogScope},
    format::schema,
};
use prost::Message as _;
use time::Duration;

use super::*;
use crate::{
    Narrowing, RootKeyPair, Scope, Token, authority,
    fixtures::{NOW, github, hosts, keys, mint_request, minted, narrowed, root, scope, stripe},
    mint,
};

fn token() -> Token {
    minted(vec![stripe(Scope::default())])
}

fn bytes(token: &Token) -> Vec<u8> {
    token.present().bytes().to_vec()
}

fn refusal(bytes: &[u8]) -> String {
    let token = Token::from_bytes(bytes).unwrap();
    let error = verify(&token.present(), &keys()).unwrap_err();
    // Whatever is wrong, the caller reads one and the same.
    assert_eq!(error.to_string(), "the lease is not valid; mint a new one");
    error.reason()
}

fn unverified(token: &Token) -> UnverifiedBiscuit {
    UnverifiedBiscuit::from(bytes(token)).unwrap()
}

/// A lease to which a block of this source was appended.
fn with_block(source: &str) -> Vec<u8> {
    let block = BlockBuilder::new().code(source).unwrap();
    unverified(&token())
        .append(block)
        .unwrap()
        .to_vec()
        .unwrap()
}

fn accepts(bytes: &[u8]) -> VerifiedLease {
    verify(&Token::from_bytes(bytes).unwrap().present(), &keys()).unwrap()
}

fn container(token: &Token) -> schema::Biscuit {
    schema::Biscuit::decode(bytes(token).as_slice()).unwrap()
}

/// A lease with three blocks after the authority block.
fn chain() -> Token {
    let narrow = |token: &Token, method: &str| {
        let methods = vec![method.to_owned(), "GET".to_owned()];
        narrowed(
            token,
            &Narrowing {
                methods,
                ..Narrowing::default()
            },
        )
    };
    narrow(&narrow(&narrow(&token(), "PUT"), "POST"), "PATCH")
}

#[test]
fn the_current_and_the_previous_root_key_are_taken_and_no_other() {
    let previous = RootKeyPair::generate(1);
    let current = RootKeyPair::generate(2);
    let request = mint_request(vec![stripe(Scope::default())]);
    let old = mint(&previous, &request).unwrap().token.present();
    let new = mint(&current, &request).unwrap().token.present();
    let both = RootPublicKeys::new(vec![current.public(), previous.public()]);
    assert!(verify(&old, &both).is_ok());
    assert!(verify(&new, &both).is_ok());
    let rotated = RootPublicKeys::new(vec![RootKeyPair::generate(3).public(), current.public()]);
    assert!(verify(&new, &rotated).is_ok());
    assert_eq!(
        verify(&old, &rotated).unwrap_err().reason(),
        "its root key is unknown"
    );
}

#[test]
fn a_token_signed_by_another_root_of_the_same_id_is_refused() {
    let forger = RootKeyPair::generate(1);
    let token = mint(&forger, &mint_request(vec![stripe(Scope::default())]))
        .unwrap()
        .token;
    assert!(refusal(&bytes(&token)).starts_with("a signature is wrong"));
}

#[test]
fn a_token_that_names_no_root_key_or_another_is_refused() {
    let mut none = container(&token());
    none.root_key_id = None;
    assert_eq!(refusal(&none.encode_to_vec()), "its root key is unknown");
    let mut other = container(&token());
    other.root_key_id = Some(9);
    assert_eq!(refusal(&other.encode_to_vec()), "its root key is unknown");
}

#[test]
fn every_flipped_bit_is_refused() {
    let good = bytes(&chain());
    for at in 0..good.len() {
        let mut bad = good.clone();
        bad[at] ^= 1 << (at % 8);
        let token = Token::from_bytes(&bad).unwrap();
        assert!(verify(&token.present(), &keys()).is_err(), "byte {at}");
    }
}

#[test]
fn every_truncation_is_refused() {
    let good = bytes(&chain());
    for length in 1..good.len() {
        let token = Token::from_bytes(&good[..length]).unwrap();
        assert!(verify(&token.present(), &keys()).is_err(), "{length} bytes");
    }
}

#[test]
fn removed_swapped_and_doubled_blocks_are_refused() {
    let good = container(&chain());
    for at in 0..3 {
        let mut removed = good.clone();
        removed.blocks.remove(at);
        assert!(refusal(&removed.encode_to_vec()).starts_with("a signature is wrong"));
        let mut doubled = good.clone();
        let block = doubled.blocks[at].clone();
        doubled.blocks.insert(at, block);
        assert!(refusal(&doubled.encode_to_vec()).starts_with("a signature is wrong"));
    }
    for (a, b) in [(0, 1), (1, 2), (0, 2)] {
        let mut swapped = good.clone();
        swapped.blocks.swap(a, b);
        assert!(refusal(&swapped.encode_to_vec()).starts_with("a signature is wrong"));
    }
    let mut beheaded = good.clone();
    beheaded.authority = beheaded.blocks.remove(0);
    assert!(refusal(&beheaded.encode_to_vec()).starts_with("a signature is wrong"));
}

#[test]
fn blocks_of_another_lease_are_refused() {
    let mut mixed = container(&chain());
    mixed.authority = container(&token()).authority;
    assert!(refusal(&mixed.encode_to_vec()).starts_with("a signature is wrong"));
    let mut mixed = container(&token());
    mixed.blocks = container(&chain()).blocks;
    assert!(refusal(&mixed.encode_to_vec()).starts_with("a signature is wrong"));
}

#[test]
fn a_proof_of_another_key_is_refused() {
    let mut other = container(&token());
    other.proof.content = Some(schema::proof::Content::NextSecret(vec![9; 32]));
    assert!(refusal(&other.encode_to_vec()).starts_with("a signature is wrong"));
    let mut none = container(&token());
    none.proof.content = None;
    assert!(!refusal(&none.encode_to_vec()).is_empty());
}

#[test]
fn a_sealed_lease_is_taken_and_nothing_can_be_appended_to_it() {
    let sealed = unverified(&token()).seal().unwrap();
    assert_eq!(accepts(&sealed.to_vec().unwrap()).block_count(), 1);
    // The block is signed by a key of the forger's own: the seal's key is gone.
    let mut appended = container(&token());
    appended.blocks = container(&chain()).blocks[..1].to_vec();
    let seal = schema::Biscuit::decode(sealed.to_vec().unwrap().as_slice()).unwrap();
    appended.proof = seal.proof;
    assert!(refusal(&appended.encode_to_vec()).starts_with("a signature is wrong"));
}

#[test]
fn a_second_encoding_of_the_same_message_is_refused() {
    // An unknown field at the end; the message is the same.
    let mut unknown = bytes(&token());
    unknown.extend([0x78, 0x01]);
    assert_eq!(refusal(&unknown), "it is not in its one encoding");
    // The root key's id a second time: the last one counts.
    let mut twice = bytes(&token());
    twice.extend([0x08, 0x01]);
    assert_eq!(refusal(&twice), "it is not in its one encoding");
    // The same number in two bytes instead of one.
    let good = bytes(&token());
    assert_eq!(good[..2], [0x08, 0x01]);
    let long = [&[0x08, 0x81, 0x00], &good[2..]].concat();
    assert_eq!(refusal(&long), "it is not in its one encoding");
}

#[test]
fn eight_blocks_are_taken_and_nine_are_not() {
    let mut biscuit = unverified(&token());
    let block = || {
        BlockBuilder::new()
            .check("check if method(\"GET\")")
            .unwrap()
    };
    for _ in 1..MAX_BLOCKS {
        biscuit = biscuit.append(block()).unwrap();
    }
    let eight = accepts(&biscuit.to_vec().unwrap());
    assert_eq!(eight.block_count(), 8);
    assert_eq!(eight.revocation_ids().len(), 8);
    let nine = biscuit.append(block()).unwrap();
    assert_eq!(
        refusal(&nine.to_vec().unwrap()),
        "it has 9 blocks of at most 8"
    );
}

#[test]
fn facts_and_rules_in_a_later_block_are_refused() {
    for source in [
        "right(\"set_x\", \"export_plaintext\");",
        "org(\"org_other\");",
        "set($s) <- right($s, $a);",
        "check if method(\"GET\"); host(\"api.stripe.com\");",
    ] {
        assert_eq!(
            refusal(&with_block(source)),
            "block 1 holds facts, rules, keys or scopes",
            "{source}"
        );
    }
}

#[test]
fn a_block_that_trusts_others_is_refused() {
    for source in [
        "check if method(\"GET\") trusting authority;",
        "check if method(\"GET\") trusting ed25519/acdd6d5b53bfee478bf689f8e012fe7988bf755e3d7c5152947abc149bc20189;",
    ] {
        assert_eq!(
            refusal(&with_block(source)),
            "block 1 holds facts, rules, keys or scopes",
            "{source}"
        );
    }
    for scope in [DatalogScope::Previous, DatalogScope::Authority] {
        let block = BlockBuilder::new().scope(scope);
        let appended = unverified(&token()).append(block).unwrap();
        assert_eq!(
            refusal(&appended.to_vec().unwrap()),
            "block 1 holds facts, rules, keys or scopes"
        );
    }
}

#[test]
fn a_third_party_block_is_refused() {
    let biscuit = unverified(&token());
    let external = KeyPair::new();
    let block = biscuit
        .third_party_request()
        .unwrap()
        .create_block(
            &external.private(),
            BlockBuilder::new()
                .check("check if method(\"GET\")")
                .unwrap(),
        )
        .unwrap();
    let appended = biscuit
        .append_third_party(&block.serialize().unwrap())
        .unwrap();
    assert_eq!(
        refusal(&appended.to_vec().unwrap()),
        "block 1 is a third-party block"
    );
}

#[test]
fn a_block_that_hands_on_to_another_kind_of_key_is_refused() {
    let block = BlockBuilder::new()
        .check("check if method(\"GET\")")
        .unwrap();
    let next = KeyPair::new_with_algorithm(Algorithm::Secp256r1);
    let appended = unverified(&token())
        .append_with_keypair(&next, block)
        .unwrap();
    assert_eq!(
        refusal(&appended.to_vec().unwrap()),
        "block 1 hands on to a key that is not Ed25519"
    );
}

/// Signs an authority block of any content by our root: what our own mint would never write.
fn signed_authority(builder: BiscuitBuilder) -> Vec<u8> {
    let biscuit = builder.root_key_id(1).build(root().pair()).unwrap();
    biscuit.to_vec().unwrap()
}

#[test]
fn an_authority_block_that_mint_does_not_write_is_refused() {
    let request = mint_request(vec![stripe(scope(r#"{"methods": ["GET"]}"#))]);
    let good = authority::write(&request);
    assert!(
        verify(
            &Token::from_bytes(&signed_authority(Biscuit::builder().merge(good.clone())))
                .unwrap()
                .present(),
            &keys()
        )
        .is_ok()
    );
    let mut changed = vec![];
    for (at, fact) in good.facts.iter().enumerate() {
        // Without one of its hosts, or without any key, it is what mint writes for another request.
        if ["serves", "all_keys"].contains(&fact.predicate.name.as_str()) {
            continue;
        }
        let mut fewer = good.clone();
        fewer.facts.remove(at);
        changed.push(fewer);
    }
    for at in 0..good.checks.len() {
        let mut fewer = good.clone();
        fewer.checks.remove(at);
        changed.push(fewer);
    }
    changed.push(
        good.clone()
            .fact("right(\"set_x\", \"export_plaintext\")")
            .unwrap(),
    );
    changed.push(good.clone().check("check if true").unwrap());
    changed.push(good.clone().rule("set($s) <- right($s, $a)").unwrap());
    changed.push(good.clone().context("a note".to_owned()));
    let mut swapped = good.clone();
    swapped.facts.swap(1, 2);
    changed.push(swapped);
    let trusting = Biscuit::builder()
        .merge(good.clone())
        .scope(DatalogScope::Previous);
    assert_eq!(
        refusal(&signed_authority(trusting)),
        "block 0 holds facts, rules, keys or scopes"
    );
    for (at, block) in changed.into_iter().enumerate() {
        let reason = refusal(&signed_authority(Biscuit::builder().merge(block)));
        assert!(
            reason.starts_with("the authority block") || reason.starts_with("block 0"),
            "{at}: {reason}"
        );
    }
}

#[test]
fn an_authority_block_with_ambiguous_hosts_is_refused_again() {
    let both = vec![stripe(Scope::default()), stripe(Scope::default())];
    let block = authority::write(&mint_request(both));
    let reason = refusal(&signed_authority(Biscuit::builder().merge(block)));
    assert!(reason.starts_with("its bindings are not"), "{reason}");
}

#[test]
fn an_unknown_format_of_the_authority_block_is_refused() {
    let mut block = authority::write(&mint_request(vec![stripe(Scope::default())]));
    block.facts[0] = crate::datalog::fact("lease_format", &[crate::datalog::number(2)]);
    assert_eq!(
        refusal(&signed_authority(Biscuit::builder().merge(block))),
        "the authority block is not what is minted here"
    );
}

#[test]
fn other_bytes_are_refused() {
    for bytes in [
        &b"\0"[..],
        b"not a biscuit at all",
        &[0xFF; 4096],
        &[0x0A, 0xFF, 0xFF, 0xFF, 0xFF, 0x0F],
    ] {
        assert!(refusal(bytes).starts_with("it is no Biscuit"));
    }
}

#[test]
fn each_block_has_its_own_revocation_id_and_the_parents_come_first() {
    let parent = token();
    let lease = accepts(&bytes(&parent));
    let child = narrowed(
        &parent,
        &Narrowing {
            hosts: hosts(&["api.stripe.com"]),
            ..Narrowing::default()
        },
    );
    let child = accepts(&bytes(&child));
    assert_eq!(child.revocation_ids()[..1], lease.revocation_ids()[..]);
    assert_ne!(child.revocation_ids()[1], child.revocation_ids()[0]);
    assert_eq!(child.lease(), lease.lease());
}

#[test]
fn the_earliest_end_of_all_blocks_counts() {
    let end = |minutes| Narrowing {
        expires_at: Some(NOW + Duration::minutes(minutes)),
        ..Narrowing::default()
    };
    let child = narrowed(&narrowed(&token(), &end(5)), &end(30));
    let lease = accepts(&bytes(&child));
    assert_eq!(lease.effective_expiry(), NOW + Duration::minutes(5));
    assert_eq!(lease.expires_at(), NOW + Duration::hours(1));
    // As other Biscuit tools write it.
    let other = with_block("check if time($date), $date <= 2026-11-22T07:01:00Z");
    assert_eq!(
        accepts(&other).effective_expiry(),
        NOW + Duration::seconds(61)
    );
}

#[test]
fn debug_and_errors_show_no_token() {
    let token = minted(vec![github(Scope::default())]);
    let lease = accepts(&bytes(&token));
    let shown = format!("{lease:?}");
    assert!(shown.contains(lease.lease().as_str()));
    assert!(!shown.contains(&token.as_str()[8..40]));
    let mut bad = bytes(&token);
    bad[40] ^= 1;
    let presented = Token::from_bytes(&bad).unwrap().present();
    let error = verify(&presented, &keys()).unwrap_err();
    assert!(!format!("{error:?}").contains(&presented.as_str()[8..40]));
}

#[test]
fn a_verified_lease_does_not_hold_the_key_that_narrows() {
    let lease = accepts(&bytes(&token()));
    let block = BlockBuilder::new()
        .check("check if method(\"GET\")")
        .unwrap();
    assert!(lease.biscuit().append(block).is_err());
}

/// Blocks that would take long or much, were they evaluated. Each is refused by what is counted, before it is.
#[test]
fn datalog_bombs_are_refused_before_anything_is_evaluated() {
    let deep = format!("check if {}true{}", "(".repeat(40), ")".repeat(40));
    let ops = format!("check if {} > 0", vec!["1"; 70].join(" + "));
    let regex = format!("path($p), $p.matches(\"{}\")", "a?".repeat(100));
    let regexes = [regex.as_str(); 12].join(" or ");
    for (source, reason) in [
        (
            "check if minute($a, $b), minute($c, $d), minute($e, $f), minute($g, $h), minute($i, $j)",
            "predicates",
        ),
        (
            "check if path($p), $p.matches(\"(a{1000}){1000}\")",
            "regular expression",
        ),
        (
            "check if path($p), $p.matches(\"\\\\w+\")",
            "regular expression",
        ),
        (
            "check if path($p), $p.matches(\"(?i)x\")",
            "regular expression",
        ),
        ("check if path($p), \"x\".matches($p)", "regular expression"),
        ("check if {1, 2}.all($x -> $x > 0)", "not allowed"),
        ("check if {1, 2}.any($x -> $x > 0)", "not allowed"),
        ("check if [1, 2].contains(1)", "not allowed"),
        ("check if {\"a\": 1}.get(\"a\") == 1", "not allowed"),
        ("check if null == 1", "not allowed"),
        ("check if true.extern::f()", "not allowed"),
        ("check if (1 / 0 > 0).try_or(true)", "not allowed"),
        (deep.as_str(), ""),
        (ops.as_str(), "operations"),
        (&format!("check if {regexes}"), "steps"),
    ] {
        let result = std::panic::catch_unwind(|| with_block(source));
        let Ok(bytes) = result else {
            panic!("the test's source is no Datalog: {source}")
        };
        if reason.is_empty() {
            accepts(&bytes);
        } else {
            let found = refusal(&bytes);
            assert!(found.contains(reason), "{source}: {found}");
        }
    }
}

/// The authority block's own facts are what a join in a later block multiplies.
#[test]
fn a_join_over_the_authority_blocks_facts_is_refused_by_its_size() {
    let mut many = stripe(Scope::default());
    many.keys = crate::Keys::Only((0..64).map(|n| format!("K{n}")).collect());
    let token = minted(vec![many]);
    let join = "check if key($a, $b), key($c, $d), key($e, $f), key($g, $h), $b == \"x\"";
    let append = |source: &str| {
        let block = BlockBuilder::new().code(source).unwrap();
        unverified(&token).append(block).unwrap().to_vec().unwrap()
    };
    assert!(refusal(&append(join)).contains("steps"));
    accepts(&append("check if key($a, $b), $b == \"K1\""));
}

#[test]
fn every_kind_of_check_is_taken() {
    for source in [
        "check if host(\"api.stripe.com\")",
        "check if host($h), {\"api.stripe.com\", \"x\"}.contains($h)",
        "check all method($m), $m == \"GET\" || $m == \"HEAD\"",
        "reject if path($p), $p.starts_with(\"/admin\")",
        "check if path($p), $p.length() < 100 && !$p.contains(\"..\")",
        "check if true",
        "check if time($t), $t >= 2026-01-01T00:00:00Z, $t < 2027-01-01T00:00:00Z",
    ] {
        assert_eq!(accepts(&with_block(source)).block_count(), 2, "{source}");
    }
}

#[test]
fn a_head_with_terms_is_refused() {
    use biscuit_auth::builder::{Check, CheckKind, Rule, pred, var};
    let rule = Rule::new(pred("query", &[var("nowhere")]), vec![], vec![], vec![]);
    let mut block = BlockBuilder::new();
    block.checks.push(Check {
        queries: vec![rule],
        kind: CheckKind::One,
    });
    let bytes = unverified(&token())
        .append(block)
        .unwrap()
        .to_vec()
        .unwrap();
    assert!(refusal(&bytes).contains("head has terms"));
}

#[test]
fn datalog_of_another_version_is_refused() {
    let (next, root) = (KeyPair::new(), root());
    for version in [0, 2, 7] {
        let good = container(&token());
        let mut block = schema::Block::decode(good.authority.block.as_slice()).unwrap();
        block.version = Some(version);
        // Sign it as version 0 of the signature: the block, the next key's algorithm and the key.
        let data = block.encode_to_vec();
        let mut signed = data.clone();
        signed.extend(0_u32.to_le_bytes());
        signed.extend(next.public().to_bytes());
        let signature = root.pair().sign(&signed).unwrap();
        let mut forged = good.clone();
        forged.authority.block = data;
        forged.authority.next_key = next.public().to_proto();
        forged.authority.signature = signature.to_bytes().to_vec();
        forged.proof.content = Some(schema::proof::Content::NextSecret(
            next.private().to_bytes().to_vec(),
        ));
        assert_eq!(
            refusal(&forged.encode_to_vec()),
            "block 0 has an unknown version"
        );
    }
}

/// Two blocks are printed alike by the same words: the writer's and the reader's.
#[test]
fn what_is_written_is_what_is_read() {
    let request = mint_request(vec![
        stripe(scope(r#"{"paths": ["/v1/**", "/a*/b", "/c"]}"#)),
        github(Scope::default()),
    ]);
    let block = authority::write(&request);
    let mut symbols = biscuit_auth::datalog::SymbolTable::new();
    let read: Vec<_> = block
        .checks
        .iter()
        .map(|check| {
            let check = check.convert(&mut symbols);
            biscuit_auth::builder::Check::convert_from(&check, &symbols).unwrap()
        })
        .collect();
    assert_eq!(authority::read(&block.facts, &read), Some(request));
}
