//! The provider on a real `SoftHSM2`, with faults of the token and of the module.

mod room;

use std::fs;

use cryptoki::{
    context::Pkcs11,
    mechanism::Mechanism,
    object::{Attribute, ObjectClass},
    session::{Session, UserType},
    types::AuthPin,
};
use ed25519_dalek::{Signature, VerifyingKey};

use self::room::{Room, with_a_token, with_a_token_of, within};
use super::*;
use crate::{
    CacheKey, KEY_DEADLINE, OpenError, OpenedCache, RowBinding, Secret, Vault,
    aead::tests::wycheproof, keys::conformance,
};

const AAD: &[u8] = b"row";
const ROW: RowBinding<'static> = RowBinding {
    org: "org_1",
    vault: "vlt_1",
    path: "stripe/prod/bot/STRIPE_SECRET_KEY",
    version: 1,
};
/// What a test may take beyond a deadline on a busy machine.
const SLACK: Duration = Duration::from_millis(500);

fn dek() -> Dek {
    Dek::from_bytes(&[7; Dek::LEN])
}

async fn opens(keys: &Pkcs11Keys, kek: &KekId, wrapped: &[u8]) -> bool {
    let opened = keys.unwrap(kek, wrapped, AAD).await;
    opened.is_ok_and(|opened| opened.expose() == dek().expose())
}

async fn answers_in_time<T>(call: impl Future<Output = T>) -> T {
    let started = Instant::now();
    let answer = call.await;
    let took = started.elapsed();
    assert!(took < KEY_DEADLINE + SLACK, "{took:?}");
    answer
}

fn is_unavailable<T>(answer: &Result<T, KeyError>) -> bool {
    matches!(answer, Err(KeyError::Unavailable { .. }))
}

fn setup_error<T>(answer: Result<T, KeyError>) -> Pkcs11Error {
    match answer {
        Err(KeyError::Pkcs11(error)) => error,
        Err(other) => panic!("{other}"),
        Ok(_) => panic!("it was not refused"),
    }
}

/// The token as another program of the same user sees it.
struct Tool<'a>(&'a Room);

impl Tool<'_> {
    /// A session of its own each time: when the provider connects anew, all sessions of the process end.
    fn session(&self) -> Session {
        let room = self.0;
        let pkcs11 = Pkcs11::new(room.hsm.module()).unwrap();
        let slots = pkcs11.get_slots_with_initialized_token().unwrap();
        let session = pkcs11.open_rw_session(slots[0]).unwrap();
        let pin = fs::read_to_string(room.hsm.user_pin()).unwrap();
        // One login counts for the whole process, which the provider shares with this tool.
        session
            .login(UserType::User, Some(&AuthPin::new(pin.trim_end().into())))
            .ok();
        session
    }

    /// Makes a KEK as the provider does, but for these attributes.
    fn make(&self, label: &str, id: &[u8], other: &[Attribute]) {
        let mut template = vec![
            Attribute::Class(ObjectClass::SECRET_KEY),
            Attribute::ValueLen(32.into()),
            Attribute::Label(label.as_bytes().to_vec()),
            Attribute::Id(id.to_vec()),
            Attribute::Token(true),
            Attribute::Private(true),
            Attribute::Sensitive(true),
            Attribute::Extractable(false),
            Attribute::Encrypt(true),
            Attribute::Decrypt(true),
            Attribute::Wrap(false),
            Attribute::Unwrap(false),
            Attribute::Sign(false),
            Attribute::Verify(false),
            Attribute::Derive(false),
        ];
        template.retain(|kept| {
            let is_replaced = |one: &Attribute| one.attribute_type() == kept.attribute_type();
            !other.iter().any(is_replaced)
        });
        template.extend_from_slice(other);
        self.session()
            .generate_key(&Mechanism::AesKeyGen, &template)
            .unwrap();
    }

    fn destroy(&self, label: &str) {
        let label = Attribute::Label(label.as_bytes().to_vec());
        let session = self.session();
        for handle in session.find_objects(&[label]).unwrap() {
            session.destroy_object(handle).unwrap();
        }
    }
}

#[test]
fn the_conformance_story_holds() {
    with_a_token(async |room| conformance::holds(room.open().await.unwrap()).await);
}

#[test]
fn the_conformance_story_holds_by_key_wrap_where_there_is_no_gcm() {
    with_a_token_of("CKM_AES_KEY_GEN,CKM_AES_KEY_WRAP_PAD", async |room| {
        let keys = room.open().await.unwrap();
        conformance::holds(Arc::clone(&keys) as Arc<dyn KeyWrapper>).await;
        let info = keys.describe(&kek_id("vlt_c1")).await.unwrap();
        assert_eq!(info.versions[0].mechanism, "CKM_AES_KEY_WRAP_PAD+HMAC");
    });
}

#[test]
fn key_unwrapping_agrees_with_wycheproof() {
    with_a_token(async |room| {
        let keys = room.open().await.unwrap();
        let cases = wycheproof("aes_kwp");
        assert_eq!(cases.len(), 15);
        for case in cases {
            let template = [
                Attribute::Class(ObjectClass::SECRET_KEY),
                Attribute::KeyType(cryptoki::object::KeyType::AES),
                Attribute::Value(hex::decode(&case.key).unwrap()),
                Attribute::Token(false),
                Attribute::Unwrap(true),
            ];
            let wrapped = hex::decode(&case.ct).unwrap().try_into().unwrap();
            let opened = keys
                .on_token(&kek_id("*"), move |held| {
                    let kek = held.session.create_object(&template)?;
                    held.key_unwrap(kek, &wrapped)
                })
                .await
                .unwrap();
            assert_eq!(opened.is_ok(), case.is_valid(), "{}", case.tc_id);
            if let Ok(dek) = opened {
                assert_eq!(hex::encode(dek.expose()), case.msg, "{}", case.tc_id);
            }
        }
    });
}

#[test]
fn what_was_wrapped_opens_after_a_restart_and_says_how_it_was_wrapped() {
    with_a_token(async |room| {
        let keys = room.open().await.unwrap();
        let kek = keys.create_kek("vlt_1").await.unwrap();
        let wrapped = keys.wrap(&kek, &dek(), AAD).await.unwrap();
        drop(keys);
        let keys = room.open().await.unwrap();
        assert!(opens(&keys, &kek, &wrapped).await);
        let info = keys.describe(&kek).await.unwrap();
        assert_eq!(info.versions[0].mechanism, "CKM_AES_GCM");
        assert_eq!((wrapped[0], wrapped.len()), (0x02, 81));
    });
}

#[test]
fn a_token_without_any_mechanism_is_refused() {
    with_a_token_of("CKM_AES_KEY_GEN,CKM_AES_CBC", async |room| {
        let error = setup_error(room.open().await);
        assert!(matches!(error, Pkcs11Error::NoMechanism { .. }), "{error}");
    });
}

#[test]
fn a_module_or_token_that_is_not_there_is_named() {
    with_a_token(async |room| {
        let elsewhere = |module: &str| Pkcs11Options {
            module: module.into(),
            ..room.options()
        };
        for module in ["/nonexistent/module.so", file!(), "/etc/passwd"] {
            let error = setup_error(Pkcs11Keys::open(elsewhere(module)).await);
            assert!(
                matches!(&error, Pkcs11Error::Module { path, .. } if path.ends_with(module)),
                "{error}"
            );
        }
        for token in [TokenRef::Label("other".to_owned()), TokenRef::Slot(4711)] {
            let options = Pkcs11Options {
                token,
                ..room.options()
            };
            let error = setup_error(Pkcs11Keys::open(options).await);
            assert!(matches!(error, Pkcs11Error::NoToken { .. }), "{error}");
        }
    });
}

#[test]
fn a_token_is_found_by_its_slot() {
    with_a_token(async |room| {
        let pkcs11 = Pkcs11::new(room.hsm.module()).unwrap();
        let slot = pkcs11.get_slots_with_initialized_token().unwrap()[0];
        let options = Pkcs11Options {
            token: TokenRef::Slot(slot.id()),
            ..room.options()
        };
        let keys = Pkcs11Keys::open(options).await.unwrap();
        keys.create_kek("vlt_1").await.unwrap();
    });
}

#[test]
fn a_wrong_pin_is_tried_once_and_never_again_in_this_process() {
    with_a_token(async |room| {
        let wrong = || Pkcs11Options {
            pin: PinSource::Secret(Secret::from("not-the-pin".to_owned())),
            ..room.faulty_options()
        };
        for _ in 0..5 {
            let error = setup_error(Pkcs11Keys::open(wrong()).await);
            assert!(matches!(error, Pkcs11Error::WrongPin { .. }), "{error}");
            assert!(!error.to_string().contains("not-the-pin"), "{error}");
        }
        assert_eq!(room.calls("Login"), 1);
        // Not even with the right one: which of the two is right, this process cannot know.
        let right = Pkcs11Keys::open(room.faulty_options()).await;
        assert!(matches!(setup_error(right), Pkcs11Error::WrongPin { .. }));
        assert_eq!(room.calls("Login"), 1);

        // The token is as usable as before: another module is another process, as far as this one knows.
        let keys = room.open().await.unwrap();
        keys.create_kek("vlt_1").await.unwrap();
    });
}

#[test]
fn keys_that_could_have_left_the_token_are_refused_by_name() {
    let cases: [(&str, &[Attribute]); 7] = [
        ("CKA_EXTRACTABLE", &[Attribute::Extractable(true)]),
        ("no CKA_SENSITIVE", &[Attribute::Sensitive(false)]),
        ("no CKA_PRIVATE", &[Attribute::Private(false)]),
        ("another CKA_VALUE_LEN", &[Attribute::ValueLen(16.into())]),
        ("beside CKA_WRAP", &[Attribute::Wrap(true)]),
        ("CKA_DERIVE", &[Attribute::Derive(true)]),
        ("CKA_ID that is not of 16", &[Attribute::Id(vec![1])]),
    ];
    with_a_token(async |room| {
        let keys = room.open().await.unwrap();
        let tool = Tool(&room);
        for (number, (expected, attributes)) in cases.into_iter().enumerate() {
            let vault = format!("vlt_{number}");
            let label = format!("claviger-kek:{vault}:v1");
            tool.make(&label, &[9; 16], attributes);
            let at_start = setup_error(room.open().await).to_string();
            // The one that is open met no such key yet.
            let when_met = within(Duration::from_secs(5), async || {
                let answer = keys.create_kek(&vault).await;
                // The key before this one is gone, which is a reason to connect anew.
                (!is_unavailable(&answer)).then(|| setup_error(answer).to_string())
            })
            .await;
            for error in [at_start, when_met] {
                assert!(
                    error.contains(&label) && error.contains(expected),
                    "{error}"
                );
            }
            tool.destroy(&label);
        }
        room.open().await.unwrap();
    });
}

#[test]
fn a_key_that_was_brought_in_from_outside_is_refused() {
    with_a_token(async |room| {
        let keys = room.open().await.unwrap();
        let brought = [
            Attribute::Class(ObjectClass::SECRET_KEY),
            Attribute::KeyType(cryptoki::object::KeyType::AES),
            Attribute::Value(vec![1; 32]),
            Attribute::Label(b"claviger-kek:vlt_1:v1".to_vec()),
            Attribute::Id(vec![9; 16]),
            Attribute::Token(true),
            Attribute::Private(true),
            Attribute::Sensitive(true),
            Attribute::Extractable(false),
            Attribute::Encrypt(true),
            Attribute::Decrypt(true),
        ];
        Tool(&room).session().create_object(&brought).unwrap();
        let error = setup_error(keys.create_kek("vlt_1").await).to_string();
        assert!(error.contains("no CKA_ALWAYS_SENSITIVE"), "{error}");
    });
}

#[test]
fn two_keys_with_one_label_or_one_id_are_refused_by_name() {
    with_a_token(async |room| {
        let keys = room.open().await.unwrap();
        let kek = keys.create_kek("vlt_1").await.unwrap();
        let wrapped = keys.wrap(&kek, &dek(), AAD).await.unwrap();
        let id = &Wrapped::parse(&wrapped).unwrap().header.id;
        let tool = Tool(&room);

        tool.make("claviger-kek:vlt_1:v1", &[9; 16], &[]);
        let at_start = setup_error(room.open().await);
        let later = setup_error(keys.describe(&kek).await);
        for error in [at_start, later] {
            assert!(
                error
                    .to_string()
                    .contains("several keys with the label claviger-kek:vlt_1:v1"),
                "{error}"
            );
        }
        let twins: Vec<_> = tool
            .session()
            .find_objects(&[Attribute::Id(vec![9; 16])])
            .unwrap();
        tool.session().destroy_object(twins[0]).unwrap();
        assert!(keys.describe(&kek).await.is_ok());

        tool.make("somebody else's", id, &[]);
        let expected = format!("several keys with the id {}", hex::encode(id));
        for error in [
            setup_error(room.open().await),
            setup_error(keys.describe(&kek).await),
        ] {
            assert!(error.to_string().contains(&expected), "{error}");
        }
        tool.destroy("somebody else's");
        assert!(opens(&keys, &kek, &wrapped).await);
        room.open().await.unwrap();
    });
}

#[test]
fn keys_of_others_in_the_token_are_left_alone() {
    with_a_token(async |room| {
        let keys = room.open().await.unwrap();
        Tool(&room).make("somebody else's", &[1], &[Attribute::Extractable(true)]);
        keys.create_kek("vlt_1").await.unwrap();
        room.open().await.unwrap();
    });
}

#[test]
fn the_kek_cannot_be_read_out_and_serves_nothing_else() {
    with_a_token(async |room| {
        let keys = room.open().await.unwrap();
        keys.create_kek("vlt_1").await.unwrap();
        let tool = Tool(&room);
        let label = Attribute::Label(b"claviger-kek:vlt_1:v1".to_vec());
        let found = tool.session().find_objects(&[label]).unwrap();
        let value = tool
            .session()
            .get_attributes(found[0], &[cryptoki::object::AttributeType::Value]);
        assert!(value.is_err() || value.unwrap().is_empty());
        let block = tool
            .session()
            .encrypt(&Mechanism::AesEcb, found[0], &[0; 16]);
        assert!(block.is_err(), "it is bound to CKM_AES_GCM");
        let extractable = [Attribute::Extractable(true)];
        let changed = tool.session().update_attributes(found[0], &extractable);
        assert!(changed.is_err());
    });
}

#[test]
fn a_token_that_is_gone_is_unavailable_and_serves_again_when_it_is_back() {
    with_a_token(async |room| {
        let keys = room.open().await.unwrap();
        let kek = keys.create_kek("vlt_1").await.unwrap();
        let wrapped = keys.wrap(&kek, &dek(), AAD).await.unwrap();
        for _ in 0..3 {
            room.take_away();
            for _ in 0..10 {
                let unwrapped = answers_in_time(keys.unwrap(&kek, &wrapped, AAD)).await;
                assert!(is_unavailable(&unwrapped), "{unwrapped:?}");
                let wrapped = answers_in_time(keys.wrap(&kek, &dek(), AAD)).await;
                assert!(is_unavailable(&wrapped), "{wrapped:?}");
                let created = answers_in_time(keys.create_kek("vlt_2")).await;
                assert!(is_unavailable(&created), "{created:?}");
                assert!(is_unavailable(&answers_in_time(keys.check()).await));
            }
            room.put_back();
            within(Duration::from_secs(5), async || {
                opens(&keys, &kek, &wrapped).await.then_some(())
            })
            .await;
            keys.check().await.unwrap();
        }
    });
}

#[test]
fn a_token_that_was_initialised_anew_opens_nothing_and_takes_new_keys() {
    with_a_token(async |room| {
        let keys = room.open().await.unwrap();
        let kek = keys.create_kek("vlt_1").await.unwrap();
        let wrapped = keys.wrap(&kek, &dek(), AAD).await.unwrap();
        room.initialise_anew();
        for _ in 0..3 {
            let unwrapped = keys.unwrap(&kek, &wrapped, AAD).await;
            assert!(
                matches!(unwrapped, Err(KeyError::UnknownKek { .. })),
                "{unwrapped:?}"
            );
            let rewrapped = keys.wrap(&kek, &dek(), AAD).await;
            assert!(matches!(rewrapped, Err(KeyError::UnknownKek { .. })));
        }
        // A key of the same name is still not the same key.
        let again = keys.create_kek("vlt_1").await.unwrap();
        assert_eq!(again, kek);
        let unwrapped = keys.unwrap(&kek, &wrapped, AAD).await;
        assert!(
            matches!(unwrapped, Err(KeyError::UnknownKek { .. })),
            "{unwrapped:?}"
        );
        // And it lasts: it was not made under the login of the token that is no more.
        let wrapped = keys.wrap(&kek, &dek(), AAD).await.unwrap();
        room.take_away();
        assert!(is_unavailable(&keys.check().await));
        room.put_back();
        within(Duration::from_secs(5), async || {
            opens(&keys, &kek, &wrapped).await.then_some(())
        })
        .await;
    });
}

#[test]
fn a_kek_made_in_a_token_that_was_initialised_anew_survives_even_as_the_first_call() {
    with_a_token(async |room| {
        let keys = room.open().await.unwrap();
        keys.create_kek("vlt_1").await.unwrap();
        room.initialise_anew();
        let kek = keys.create_kek("vlt_2").await.unwrap();
        let wrapped = keys.wrap(&kek, &dek(), AAD).await.unwrap();
        room.take_away();
        assert!(is_unavailable(&keys.check().await));
        room.put_back();
        within(Duration::from_secs(5), async || {
            opens(&keys, &kek, &wrapped).await.then_some(())
        })
        .await;
    });
}

#[test]
fn a_pin_that_was_changed_meanwhile_is_tried_once() {
    with_a_token(async |room| {
        let keys = Pkcs11Keys::open(room.faulty_options()).await.unwrap();
        let kek = keys.create_kek("vlt_1").await.unwrap();
        let wrapped = keys.wrap(&kek, &dek(), AAD).await.unwrap();
        let logins = room.calls("Login");
        room.initialise_anew_with(Some("another-pin"));
        let started = Instant::now();
        while started.elapsed() < Duration::from_secs(3) {
            let error = setup_error(keys.unwrap(&kek, &wrapped, AAD).await);
            assert!(matches!(error, Pkcs11Error::WrongPin { .. }), "{error}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        assert_eq!(room.calls("Login"), logins + 1);
    });
}

#[test]
fn a_key_that_was_destroyed_is_unknown_and_the_others_serve() {
    with_a_token(async |room| {
        let keys = room.open().await.unwrap();
        let kek = keys.create_kek("vlt_1").await.unwrap();
        let other = keys.create_kek("vlt_2").await.unwrap();
        let wrapped = keys.wrap(&kek, &dek(), AAD).await.unwrap();
        let theirs = keys.wrap(&other, &dek(), AAD).await.unwrap();
        Tool(&room).destroy("claviger-kek:vlt_1:v1");
        let unwrapped = keys.unwrap(&kek, &wrapped, AAD).await;
        assert!(
            matches!(unwrapped, Err(KeyError::UnknownKek { kek: ref k }) if *k == kek),
            "{unwrapped:?}"
        );
        assert!(opens(&keys, &other, &theirs).await);
    });
}

#[test]
fn a_version_that_another_node_made_is_found() {
    with_a_token(async |room| {
        let (ours, theirs) = (room.open().await.unwrap(), room.open().await.unwrap());
        let kek = ours.create_kek("vlt_1").await.unwrap();
        assert_eq!(theirs.create_kek("vlt_1").await.unwrap(), kek);
        assert_eq!(theirs.rotate_kek(&kek).await.unwrap(), 2);
        let wrapped = theirs.wrap(&kek, &dek(), AAD).await.unwrap();
        assert!(opens(&ours, &kek, &wrapped).await, "at once for unwrapping");
        within(Duration::from_secs(10), async || {
            let current = ours.current_version(&kek).await.unwrap();
            (current == 2).then_some(())
        })
        .await;
    });
}

#[test]
fn nodes_that_make_one_kek_at_once_end_with_one() {
    /// Tries again while another node is in the way.
    async fn make(keys: &Pkcs11Keys, vault: &str, pause: Duration) {
        within(Duration::from_secs(20), async || {
            let made = keys.create_kek(vault).await;
            tokio::time::sleep(pause).await;
            match made {
                Ok(_) => Some(()),
                // A twin is seen for as long as the other node has not stepped back.
                Err(KeyError::Pkcs11(Pkcs11Error::Duplicate { .. })) => None,
                Err(error) if error.is_retryable() => None,
                Err(error) => panic!("{error}"),
            }
        })
        .await;
    }
    with_a_token(async |room| {
        let (ours, theirs) = (room.open().await.unwrap(), room.open().await.unwrap());
        for number in 0..10 {
            let vault = format!("vlt_{number}");
            tokio::join!(
                make(&ours, &vault, Duration::from_millis(7)),
                make(&theirs, &vault, Duration::from_millis(23)),
            );
            let kek = kek_id(&vault);
            let wrapped = ours.wrap(&kek, &dek(), AAD).await.unwrap();
            assert!(opens(&theirs, &kek, &wrapped).await);
            let label = Attribute::Label(format!("claviger-kek:{vault}:v1").into_bytes());
            let found = Tool(&room).session().find_objects(&[label]).unwrap();
            assert_eq!(found.len(), 1);
        }
    });
}

#[test]
fn a_module_that_hangs_costs_two_seconds_at_most_and_few_threads() {
    with_a_token(async |room| {
        let keys = Pkcs11Keys::open(room.faulty_options()).await.unwrap();
        let kek = keys.create_kek("vlt_1").await.unwrap();
        let wrapped = keys.wrap(&kek, &dek(), AAD).await.unwrap();
        let sessions = Pkcs11Options::DEFAULT_SESSIONS;

        room.fault("hang", Some(""));
        let started = Instant::now();
        let mut ticks = 0;
        // One thread drives all of this: if a call blocked it, the ticks would stop.
        while started.elapsed() < Duration::from_secs(14) {
            let calls = (0..16).map(|_| answers_in_time(keys.unwrap(&kek, &wrapped, AAD)));
            for answer in futures::future::join_all(calls).await {
                assert!(is_unavailable(&answer), "{answer:?}");
            }
            tokio::time::sleep(Duration::from_millis(250)).await;
            ticks += 1;
            let health = keys.health();
            assert!(health.threads <= 2 * sessions, "{health:?}");
            assert!(health.queued <= 64, "{health:?}");
        }
        assert!(
            ticks > 10,
            "callers are refused at once after a while: {ticks}"
        );
        assert!(keys.health().hanging >= sessions, "{:?}", keys.health());

        room.fault("hang", None);
        within(Duration::from_secs(10), async || {
            opens(&keys, &kek, &wrapped).await.then_some(())
        })
        .await;
        let health = within(Duration::from_secs(10), async || {
            let health = keys.health();
            (health.threads <= sessions && health.hanging == 0).then_some(health)
        })
        .await;
        assert_eq!(health.queued, 0);
    });
}

#[test]
fn a_slow_token_is_waited_for_within_the_deadline() {
    with_a_token(async |room| {
        let keys = Pkcs11Keys::open(room.faulty_options()).await.unwrap();
        let kek = keys.create_kek("vlt_1").await.unwrap();
        let wrapped = keys.wrap(&kek, &dek(), AAD).await.unwrap();
        room.fault("latency-ms", Some("300"));
        let started = Instant::now();
        assert!(opens(&keys, &kek, &wrapped).await);
        assert!(started.elapsed() >= Duration::from_millis(300));
        room.fault("latency-ms", Some("3000"));
        let answer = answers_in_time(keys.unwrap(&kek, &wrapped, AAD)).await;
        assert!(is_unavailable(&answer), "{answer:?}");
    });
}

#[test]
fn every_loss_that_a_module_can_name_is_recovered_from() {
    // CKR_GENERAL_ERROR, FUNCTION_FAILED, DEVICE_ERROR, DEVICE_REMOVED, SESSION_CLOSED, SESSION_HANDLE_INVALID,
    // TOKEN_NOT_PRESENT, USER_NOT_LOGGED_IN, KEY_HANDLE_INVALID, OBJECT_HANDLE_INVALID, CRYPTOKI_NOT_INITIALIZED, and a
    // vendor's own.
    let codes = [
        "5", "6", "30", "32", "b0", "b3", "e0", "101", "60", "82", "190", "80000001",
    ];
    with_a_token(async |room| {
        let keys = Pkcs11Keys::open(room.faulty_options()).await.unwrap();
        let kek = keys.create_kek("vlt_1").await.unwrap();
        let wrapped = keys.wrap(&kek, &dek(), AAD).await.unwrap();
        for code in codes {
            room.fault("fail", Some(code));
            for _ in 0..5 {
                let answer = answers_in_time(keys.unwrap(&kek, &wrapped, AAD)).await;
                assert!(is_unavailable(&answer), "{code}: {answer:?}");
            }
            room.fault("fail", None);
            within(Duration::from_secs(5), async || {
                opens(&keys, &kek, &wrapped).await.then_some(())
            })
            .await;
        }
        let health = keys.health();
        assert!(health.connections > 1, "{health:?}");
        assert!(
            room.calls("OpenSession") <= 200,
            "attempts to connect are spaced: {}",
            room.calls("OpenSession")
        );
    });
}

#[test]
fn a_storm_of_errors_opens_few_sessions_and_leaves_none() {
    with_a_token(async |room| {
        let keys = Pkcs11Keys::open(room.faulty_options()).await.unwrap();
        let kek = keys.create_kek("vlt_1").await.unwrap();
        let wrapped = keys.wrap(&kek, &dek(), AAD).await.unwrap();
        let before = room.calls("OpenSession");
        room.fault("fail", Some("30"));
        for _ in 0..50 {
            let calls = (0..16).map(|_| keys.unwrap(&kek, &wrapped, AAD));
            for answer in futures::future::join_all(calls).await {
                assert!(is_unavailable(&answer), "{answer:?}");
            }
        }
        assert!(room.calls("OpenSession") - before < 50);
        room.fault("fail", None);
        within(Duration::from_secs(5), async || {
            opens(&keys, &kek, &wrapped).await.then_some(())
        })
        .await;
        drop(keys);
    });
}

#[test]
fn what_is_sealed_stays_shut_without_the_token() {
    with_a_token(async |room| {
        let keys = room.open().await.unwrap();
        let kek = keys.create_kek("vlt_1").await.unwrap();
        let vault = Vault::new(Arc::clone(&keys) as Arc<dyn KeyWrapper>);
        let secret = Secret::from("sk_live_canary".to_owned());
        let sealed = vault.seal(&kek, &secret, &ROW).await.unwrap();
        room.take_away();
        let error = answers_in_time(vault.open(&sealed, &ROW))
            .await
            .unwrap_err();
        assert!(
            matches!(&error, OpenError::Key(KeyError::Unavailable { .. })) && error.is_retryable(),
            "{error}"
        );
        room.put_back();
        within(Duration::from_secs(5), async || {
            vault
                .open(&sealed, &ROW)
                .await
                .ok()
                .map(|opened| assert_eq!(opened, secret))
        })
        .await;
    });
}

#[test]
fn a_cached_secret_outlives_the_token_by_the_ttl_and_no_longer() {
    const TTL: Duration = Duration::from_secs(2);
    with_a_token(async |room| {
        let keys = room.open().await.unwrap();
        let kek = keys.create_kek("vlt_1").await.unwrap();
        let vault = Vault::new(Arc::clone(&keys) as Arc<dyn KeyWrapper>);
        let secret = Secret::from("sk_live_canary".to_owned());
        let sealed = vault.seal(&kek, &secret, &ROW).await.unwrap();
        let cache = OpenedCache::new(TTL, 8);
        let key = CacheKey::new("org_1", "set_1", 1, "");
        let ask = || cache.get_or_open(key.clone(), vault.open(&sealed, &ROW));

        let opened_at = Instant::now();
        ask().await.unwrap();
        room.take_away();
        assert_eq!(*ask().await.unwrap(), secret, "it is kept");
        let refused = within(TTL + SLACK, async || ask().await.err()).await;
        assert!(opened_at.elapsed() >= TTL);
        assert!(matches!(
            refused,
            OpenError::Key(KeyError::Unavailable { .. })
        ));
        assert!(answers_in_time(ask()).await.is_err());
        room.put_back();
        within(Duration::from_secs(5), async || ask().await.ok()).await;
    });
}

#[test]
fn the_signer_makes_keys_that_stay_and_signs_by_rfc_8032() {
    with_a_token(async |room| {
        let keys = room.open().await.unwrap();
        let signer = keys.signer().unwrap();
        let public = signer.create_signing_key("jwt", 1).await.unwrap();
        assert_eq!(signer.create_signing_key("jwt", 1).await.unwrap(), public);
        let next = signer.create_signing_key("jwt", 2).await.unwrap();
        assert_ne!(public, next);

        let verifies = |public: &[u8; 32], message: &[u8], signature: &[u8; 64]| {
            let key = VerifyingKey::from_bytes(public).unwrap();
            key.verify_strict(message, &Signature::from_bytes(signature))
                .is_ok()
        };
        for message in [&b""[..], b"header.payload", &[9; 5000]] {
            let signature = signer.sign("jwt", 1, message).await.unwrap();
            assert!(verifies(&public, message, &signature));
            assert!(!verifies(&next, message, &signature));
        }
        let unknown = signer.sign("jwt", 3, b"message").await.unwrap_err();
        assert!(
            matches!(unknown, KeyError::UnknownSigningKey { version: 3, .. }),
            "{unknown}"
        );
        for (name, version) in [("a b", 1), ("", 1), ("jwt", 0), ("jwt", u64::MAX)] {
            let error = signer.create_signing_key(name, version).await.unwrap_err();
            assert!(matches!(error, KeyError::BadName { .. }), "{error}");
        }
        drop((signer, keys));
        let signer = room.open().await.unwrap().signer().unwrap();
        assert_eq!(signer.create_signing_key("jwt", 1).await.unwrap(), public);
    });
}

#[test]
fn a_public_key_that_was_exchanged_is_refused() {
    with_a_token(async |room| {
        let keys = room.open().await.unwrap();
        let signer = keys.signer().unwrap();
        signer.create_signing_key("jwt", 1).await.unwrap();
        let tool = Tool(&room);
        let label = Attribute::Label(b"claviger-sign:jwt:v1".to_vec());
        let public = [label.clone(), Attribute::Class(ObjectClass::PUBLIC_KEY)];
        let found = tool.session().find_objects(&public).unwrap();
        tool.session().destroy_object(found[0]).unwrap();
        let gone = signer.create_signing_key("jwt", 1).await.unwrap_err();
        assert!(
            gone.to_string().contains("the public key is gone"),
            "{gone}"
        );

        let point = [&[0x04, 0x20][..], VerifyingKey::default().as_bytes()].concat();
        let exchanged = [
            label,
            Attribute::Class(ObjectClass::PUBLIC_KEY),
            Attribute::KeyType(cryptoki::object::KeyType::EC_EDWARDS),
            Attribute::EcParams(vec![0x06, 0x03, 0x2b, 0x65, 0x70]),
            Attribute::EcPoint(point),
            Attribute::Token(true),
        ];
        tool.session().create_object(&exchanged).unwrap();
        let error = signer.create_signing_key("jwt", 1).await.unwrap_err();
        assert!(
            error.to_string().contains("is not that of the private key"),
            "{error}"
        );
    });
}

#[test]
fn a_signing_key_that_could_leave_the_token_is_refused_at_the_start() {
    with_a_token(async |room| {
        let tool = Tool(&room);
        let common = [
            Attribute::Token(true),
            Attribute::Label(b"claviger-sign:jwt:v1".to_vec()),
            Attribute::Id(vec![3; 16]),
        ];
        let public = [
            &common[..],
            &[Attribute::EcParams(vec![0x06, 0x03, 0x2b, 0x65, 0x70])],
        ]
        .concat();
        let private = [
            &common[..],
            &[
                Attribute::Private(true),
                Attribute::Sensitive(true),
                Attribute::Extractable(true),
                Attribute::Sign(true),
            ],
        ]
        .concat();
        let mechanism = Mechanism::EccEdwardsKeyPairGen;
        tool.session()
            .generate_key_pair(&mechanism, &public, &private)
            .unwrap();
        let error = setup_error(room.open().await).to_string();
        assert!(
            error.contains("claviger-sign:jwt:v1") && error.contains("CKA_EXTRACTABLE"),
            "{error}"
        );
    });
}

#[test]
fn a_token_that_does_not_sign_has_no_signer() {
    with_a_token_of("CKM_AES_KEY_GEN,CKM_AES_GCM", async |room| {
        assert!(room.open().await.unwrap().signer().is_none());
    });
}

#[test]
fn nothing_prints_the_pin() {
    with_a_token(async |room| {
        let pin = fs::read_to_string(room.hsm.user_pin()).unwrap();
        let keys = room.open().await.unwrap();
        let options = Pkcs11Options {
            pin: PinSource::Secret(Secret::from(pin.clone())),
            ..room.options()
        };
        let shown = format!("{keys:?} {options:?} {:?} {:?}", keys.signer(), room.hsm);
        assert!(!shown.contains(pin.trim_end()), "{shown}");
        assert!(room.dir().join("softhsm/user-pin").exists());
    });
}
