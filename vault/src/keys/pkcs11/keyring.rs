//! The keys in the token: found by label and id, checked, made.

use std::{
    collections::{BTreeMap, HashMap},
    time::{Duration, Instant},
};

use cryptoki::{
    error::{Error, RvError},
    mechanism::{Mechanism, MechanismType},
    object::{Attribute, AttributeType, KeyType, ObjectClass, ObjectHandle},
    session::Session,
    types::Ulong,
};
use parking_lot::MutexGuard;

use super::{
    Pkcs11Error,
    fault::{Fault, unavailable},
    form::{Header, ID_LEN, KeyId, KeyName, Mode, Purpose},
    link::{Held, close, is_logged_in},
};
use crate::aead::{KEY_LEN, fill_random};

/// How old the list may be of keys that nobody looked for by name. Reading it takes two calls for each key.
const LIST_AFTER: Duration = Duration::from_secs(30);
/// A login this young is that of the token as it is now.
const YOUNG: Duration = Duration::from_secs(1);

/// The secret keys that were seen in the token, since it was connected to.
#[derive(Default)]
pub(super) struct Keyring {
    listed_at: Option<Instant>,
    keys: BTreeMap<KeyName, Vec<Key>>,
    ids: HashMap<Vec<u8>, usize>,
    /// When a vault was last looked at for a newer version of its KEK.
    probed_at: HashMap<String, Instant>,
}

/// One key object.
#[derive(Debug, Clone)]
struct Key {
    handle: ObjectHandle,
    id: Vec<u8>,
    mode: Option<Mode>,
}

/// A key that may be used: alone under its label and id, and with the right attributes.
#[derive(Debug, Clone, Copy)]
pub(super) struct CheckedKey {
    pub(super) handle: ObjectHandle,
    pub(super) header: Header,
}

impl Keyring {
    /// Handles may be stale: list the keys before the next use.
    pub(super) fn doubt(&mut self) {
        self.listed_at = None;
    }

    fn is_doubtful(&self) -> bool {
        self.listed_at.is_none()
    }

    fn is_older_than(&self, age: Duration) -> bool {
        self.listed_at.is_none_or(|instant| instant.elapsed() > age)
    }

    /// The newest version of a vault's KEK.
    fn newest(&self, vault: &str) -> Option<KeyName> {
        let first = KeyName::new(Purpose::Kek, vault, 1)?;
        let last = KeyName::new(Purpose::Kek, vault, u32::MAX)?;
        let (name, _) = self.keys.range(first..=last).next_back()?;
        Some(name.clone())
    }
}

impl Held<'_> {
    /// A KEK by its name, and its id. `None` if the token, which answers, has none.
    pub(super) fn key(&self, name: &KeyName, id: &KeyId) -> Result<Option<CheckedKey>, Fault> {
        let mut keyring = self.keyring()?;
        let is_known = |keyring: &Keyring| {
            let keys = keyring.keys.get(name);
            keys.is_some_and(|keys| keys.iter().any(|key| key.id == id))
        };
        if keyring.is_doubtful() || (!is_known(&keyring) && self.has_label(name)?) {
            self.list(&mut keyring)?;
        }
        if !is_known(&keyring) {
            self.check_presence()?;
            return Ok(None);
        }
        self.checked(&mut keyring, name).map(Some)
    }

    /// The newest version of a vault's KEK, looked for no longer than `age` ago.
    pub(super) fn newest_key(
        &self,
        vault: &str,
        age: Duration,
    ) -> Result<Option<CheckedKey>, Fault> {
        let mut keyring = self.keyring()?;
        if keyring.is_doubtful() {
            self.list(&mut keyring)?;
        }
        let newest = keyring.newest(vault);
        let is_stale = match (&newest, KeyName::new(Purpose::Kek, vault, 1)) {
            (Some(newest), _) => self.has_successor(&mut keyring, newest, age)?,
            (None, Some(first)) => keyring.is_older_than(LIST_AFTER) || self.has_label(&first)?,
            (None, None) => false,
        };
        if is_stale {
            self.list(&mut keyring)?;
        }
        if let Some(name) = keyring.newest(vault) {
            return self.checked(&mut keyring, &name).map(Some);
        }
        self.check_presence()?;
        Ok(None)
    }

    /// All versions of a vault's KEK, as they are now, the oldest first.
    pub(super) fn all_versions(&self, vault: &str) -> Result<Vec<CheckedKey>, Fault> {
        let mut keyring = self.keyring()?;
        self.list(&mut keyring)?;
        let names: Vec<_> = keyring.keys.keys().cloned().collect();
        let names = names.iter().filter(|name| name.name() == vault);
        let found: Result<Vec<_>, _> = names.map(|name| self.checked(&mut keyring, name)).collect();
        let found = found?;
        if found.is_empty() {
            self.check_presence()?;
        }
        Ok(found)
    }

    /// Checks every KEK in the token, and looks for new ones once in a while.
    pub(super) fn check_all(&self) -> Result<(), Fault> {
        let mut keyring = self.keyring()?;
        if keyring.is_older_than(LIST_AFTER) {
            self.list(&mut keyring)?;
        }
        let names: Vec<_> = keyring.keys.keys().cloned().collect();
        for name in names {
            self.checked(&mut keyring, &name)?;
        }
        Ok(())
    }

    /// Whether the token is there and shows its private keys. Some modules find nothing in a token that is away, which
    /// must not be taken for a token without the key.
    pub(super) fn check_presence(&self) -> Result<(), Fault> {
        let info = self.calling.pkcs11.get_token_info(self.connection.slot);
        let info = info.map_err(|error| Fault::lost(&error))?;
        if is_logged_in(self.session, &info)? {
            Ok(())
        } else {
            Err(Fault::Lost("the session is not logged in".to_owned()))
        }
    }

    /// Makes a KEK, unless the token has it.
    pub(super) fn make_key(&self, name: &KeyName) -> Result<(), Fault> {
        let making = self.link.creating.try_lock_until(self.until);
        let _one_at_a_time = making.ok_or_else(|| unavailable("another key is being made"))?;
        if self.has_label(name)? {
            let mut keyring = self.keyring()?;
            self.list(&mut keyring)?;
            return self.checked(&mut keyring, name).map(drop);
        }
        self.check_login()?;
        let abilities = self.connection.abilities;
        let modes = [
            (abilities.gcm, Mode::Gcm),
            (abilities.key_wrap, Mode::KeyWrap),
        ];
        for (_, mode) in modes.into_iter().filter(|(is_there, _)| *is_there) {
            if self.make_key_by(name, mode)? {
                return Ok(());
            }
        }
        Err(Pkcs11Error::NoMechanism {
            token: self.link.token().clone(),
            mechanism: "AES-GCM with AAD and no CKM_AES_KEY_WRAP_PAD that works",
        }
        .into())
    }

    /// Whether a key by this mode works. If it does not, it is destroyed again.
    fn make_key_by(&self, name: &KeyName, mode: Mode) -> Result<bool, Fault> {
        let mut id: KeyId = [0; ID_LEN];
        fill_random(&mut id).map_err(crate::KeyError::from)?;
        let writing = self.write_session()?;
        let handle = generate(writing.get(), name, &id, mode)?;
        let header = Header {
            mode,
            version: name.version(),
            id,
        };
        let verdict = self.judge(name, CheckedKey { handle, header });
        if !matches!(verdict, Ok(true)) {
            let destroyed = writing.get().destroy_object(handle);
            if let Err(error) = destroyed {
                tracing::warn!("a key that is not wanted stays in the token: {error}");
            }
            self.keyring()?.forget(name, &id);
        }
        verdict
    }

    /// Whether a key that was just made is the only one of its name, is what it should be, and works.
    fn judge(&self, name: &KeyName, key: CheckedKey) -> Result<bool, Fault> {
        if self.with_label(name)?.len() != 1 {
            // Somebody else makes it too. Neither knows who was first, so both step back.
            return Err(unavailable("another process makes the same key").into());
        }
        {
            let mut keyring = self.keyring()?;
            let (handle, id) = (key.handle, key.header.id.to_vec());
            let mode = None;
            keyring.add(name, Key { handle, id, mode });
            self.checked(&mut keyring, name)?;
        }
        match self.self_test(key) {
            Ok(()) => Ok(true),
            Err(Fault::Refused(reason)) => {
                tracing::info!(
                    "the token with {} does not do {}: {reason}",
                    self.link.token(),
                    key.header.mode.mechanism()
                );
                Ok(false)
            }
            Err(fault) => Err(fault),
        }
    }

    /// A token that another process initialised anew may go on in this one as if it were the old: what is then made
    /// would be lost with the process. So a key that is known to be in the token has to work, or the login be young.
    pub(super) fn check_login(&self) -> Result<(), Fault> {
        let known = {
            let mut keyring = self.keyring()?;
            let name = keyring.keys.keys().next().cloned();
            name.map(|name| self.checked(&mut keyring, &name))
                .transpose()?
        };
        match known {
            Some(key) => self.self_test(key),
            None if self.connection.made_at.elapsed() < YOUNG => Ok(()),
            None => Err(Fault::Lost("logging in anew to make a key".to_owned())),
        }
    }

    fn keyring(&self) -> Result<MutexGuard<'_, Keyring>, Fault> {
        let locked = self.connection.keyring.try_lock_until(self.until);
        locked.ok_or_else(|| unavailable("a call hangs in the PKCS#11 module").into())
    }

    /// Reads labels and ids of all secret keys. Keys that are gone mean that the token is not the one that it was.
    fn list(&self, keyring: &mut Keyring) -> Result<(), Fault> {
        let mut listed = Keyring {
            listed_at: Some(Instant::now()),
            probed_at: std::mem::take(&mut keyring.probed_at),
            ..Keyring::default()
        };
        let all = [
            Attribute::Class(ObjectClass::SECRET_KEY),
            Attribute::Token(true),
        ];
        for handle in self.session.find_objects(&all)? {
            let (label, id) = self.label_and_id(handle)?;
            match KeyName::parse(Purpose::Kek, &label) {
                Some(name) => {
                    let mode = keyring.mode_of(&name, handle, &id);
                    listed.add(&name, Key { handle, id, mode });
                }
                // Somebody else's key, which must not have the id of one of ours.
                None if !id.is_empty() => *listed.ids.entry(id).or_default() += 1,
                None => {}
            }
        }
        let gone = keyring
            .keys
            .keys()
            .find(|name| !listed.keys.contains_key(name));
        if let Some(gone) = gone {
            return Err(Fault::Lost(format!("key {} is gone", gone.label())));
        }
        *keyring = listed;
        Ok(())
    }

    fn label_and_id(&self, handle: ObjectHandle) -> Result<(Vec<u8>, Vec<u8>), Fault> {
        let wanted = [AttributeType::Label, AttributeType::Id];
        let (mut label, mut id) = (Vec::new(), Vec::new());
        for attribute in self.session.get_attributes(handle, &wanted)? {
            match attribute {
                Attribute::Label(bytes) => label = bytes,
                Attribute::Id(bytes) => id = bytes,
                _ => {}
            }
        }
        Ok((label, id))
    }

    /// Whether another process has made a newer version. Asked at most once in a while.
    fn has_successor(
        &self,
        keyring: &mut Keyring,
        newest: &KeyName,
        age: Duration,
    ) -> Result<bool, Fault> {
        let probed_at = keyring.probed_at.get(newest.name()).copied();
        let known_at = probed_at.max(keyring.listed_at);
        if known_at.is_some_and(|instant| instant.elapsed() < age) {
            return Ok(false);
        }
        let Some(next) = newest.next() else {
            return Ok(false);
        };
        let is_there = self.has_label(&next)?;
        keyring
            .probed_at
            .insert(newest.name().to_owned(), Instant::now());
        Ok(is_there)
    }

    fn has_label(&self, name: &KeyName) -> Result<bool, Fault> {
        Ok(!self.with_label(name)?.is_empty())
    }

    fn with_label(&self, name: &KeyName) -> Result<Vec<ObjectHandle>, Fault> {
        Ok(self.session.find_objects(&[
            Attribute::Class(ObjectClass::SECRET_KEY),
            Attribute::Token(true),
            Attribute::Label(name.label().into_bytes()),
        ])?)
    }

    /// The key, if it is alone under its label and id and has the attributes that it was made with. A key that is
    /// refused is looked at anew the next time, since somebody will put it right.
    fn checked(&self, keyring: &mut Keyring, name: &KeyName) -> Result<CheckedKey, Fault> {
        let key = self.check_key(keyring, name);
        if key.is_err() {
            keyring.doubt();
        }
        key
    }

    fn check_key(&self, keyring: &mut Keyring, name: &KeyName) -> Result<CheckedKey, Fault> {
        let duplicate = |attribute, value| Pkcs11Error::Duplicate {
            token: self.link.token().clone(),
            attribute,
            value,
        };
        let Some([key]) = keyring.keys.get_mut(name).map(Vec::as_mut_slice) else {
            return Err(duplicate("label", name.label()).into());
        };
        if keyring.ids.get(&key.id).is_some_and(|count| *count > 1) {
            return Err(duplicate("id", hex::encode(&key.id)).into());
        }
        let bad = |found| Pkcs11Error::BadKey {
            token: self.link.token().clone(),
            label: name.label(),
            found,
        };
        let id = key.id.as_slice().try_into();
        let id = id.map_err(|_| bad("a CKA_ID that is not of 16 bytes"))?;
        let mode = match key.mode {
            Some(mode) => mode,
            None => self.check_attributes(key.handle)?.map_err(bad)?,
        };
        key.mode = Some(mode);
        Ok(CheckedKey {
            handle: key.handle,
            header: Header {
                mode,
                version: name.version(),
                id,
            },
        })
    }

    fn check_attributes(&self, handle: ObjectHandle) -> Result<Result<Mode, &'static str>, Fault> {
        let wanted = [
            AttributeType::KeyType,
            AttributeType::ValueLen,
            AttributeType::Token,
            AttributeType::Private,
            AttributeType::Sensitive,
            AttributeType::AlwaysSensitive,
            AttributeType::Extractable,
            AttributeType::NeverExtractable,
            AttributeType::Local,
            AttributeType::Encrypt,
            AttributeType::Decrypt,
            AttributeType::Wrap,
            AttributeType::Unwrap,
            AttributeType::Sign,
            AttributeType::Derive,
        ];
        let attributes = self.session.get_attributes(handle, &wanted)?;
        Ok(mode_of(&attributes))
    }

    /// A session that may change the token, for as long as it is held.
    pub(super) fn write_session(&self) -> Result<Writing, Fault> {
        let session = self
            .calling
            .pkcs11
            .open_rw_session_no_drop(self.connection.slot)?;
        Ok(Writing(Some(session)))
    }
}

/// A session that is closed when it is dropped.
pub(super) struct Writing(Option<Session>);

impl Writing {
    pub(super) fn get(&self) -> &Session {
        self.0.as_ref().expect("it is taken by drop alone")
    }
}

impl Drop for Writing {
    fn drop(&mut self) {
        if let Some(session) = self.0.take() {
            close(session);
        }
    }
}

impl Keyring {
    /// What was found out before about the same object.
    fn mode_of(&self, name: &KeyName, handle: ObjectHandle, id: &[u8]) -> Option<Mode> {
        let same = |key: &&Key| key.handle == handle && key.id == id;
        self.keys.get(name)?.iter().find(same)?.mode
    }

    fn add(&mut self, name: &KeyName, key: Key) {
        *self.ids.entry(key.id.clone()).or_default() += 1;
        self.keys.entry(name.clone()).or_default().push(key);
    }

    fn forget(&mut self, name: &KeyName, id: &KeyId) {
        if let Some(keys) = self.keys.get_mut(name) {
            keys.retain(|key| key.id != id);
            if keys.is_empty() {
                self.keys.remove(name);
            }
        }
        self.listed_at = None;
    }
}

/// What a KEK is for by its attributes, or the attribute that it must not have.
fn mode_of(attributes: &[Attribute]) -> Result<Mode, &'static str> {
    let has = |wanted: &Attribute| attributes.contains(wanted);
    let needed = [
        (
            Attribute::KeyType(KeyType::AES),
            "another CKA_KEY_TYPE than CKK_AES",
        ),
        (
            Attribute::ValueLen(key_len()),
            "another CKA_VALUE_LEN than 32",
        ),
        (Attribute::Token(true), "no CKA_TOKEN"),
        (Attribute::Private(true), "no CKA_PRIVATE"),
        (Attribute::Sensitive(true), "no CKA_SENSITIVE"),
        (Attribute::AlwaysSensitive(true), "no CKA_ALWAYS_SENSITIVE"),
        (Attribute::Extractable(false), "CKA_EXTRACTABLE"),
        (
            Attribute::NeverExtractable(true),
            "no CKA_NEVER_EXTRACTABLE",
        ),
        (Attribute::Local(true), "no CKA_LOCAL"),
    ];
    if let Some((_, found)) = needed.iter().find(|(attribute, _)| !has(attribute)) {
        return Err(found);
    }
    let unwanted = [
        (Attribute::Sign(true), "CKA_SIGN"),
        (Attribute::Derive(true), "CKA_DERIVE"),
    ];
    if let Some((_, found)) = unwanted.iter().find(|(attribute, _)| has(attribute)) {
        return Err(found);
    }
    let ciphers = has(&Attribute::Encrypt(true)) || has(&Attribute::Decrypt(true));
    let wraps = has(&Attribute::Wrap(true)) || has(&Attribute::Unwrap(true));
    match (ciphers, wraps) {
        (true, false) => Ok(Mode::Gcm),
        (false, true) => Ok(Mode::KeyWrap),
        // Another key could be wrapped by it and then decrypted.
        (true, true) => Err("CKA_DECRYPT or CKA_ENCRYPT beside CKA_WRAP or CKA_UNWRAP"),
        (false, false) => Err("neither CKA_DECRYPT nor CKA_UNWRAP"),
    }
}

fn generate(
    session: &Session,
    name: &KeyName,
    id: &KeyId,
    mode: Mode,
) -> Result<ObjectHandle, Fault> {
    let ciphers = mode == Mode::Gcm;
    let mut template = vec![
        Attribute::Class(ObjectClass::SECRET_KEY),
        Attribute::KeyType(KeyType::AES),
        Attribute::ValueLen(key_len()),
        Attribute::Label(name.label().into_bytes()),
        Attribute::Id(id.to_vec()),
        Attribute::Token(true),
        Attribute::Private(true),
        Attribute::Modifiable(false),
        Attribute::Sensitive(true),
        Attribute::Extractable(false),
        Attribute::Encrypt(ciphers),
        Attribute::Decrypt(ciphers),
        Attribute::Wrap(!ciphers),
        Attribute::Unwrap(!ciphers),
        Attribute::Sign(false),
        Attribute::Verify(false),
        Attribute::Derive(false),
    ];
    let only = match mode {
        Mode::Gcm => MechanismType::AES_GCM,
        Mode::KeyWrap => MechanismType::AES_KEY_WRAP_PAD,
    };
    template.push(Attribute::AllowedMechanisms(vec![only]));
    match session.generate_key(&Mechanism::AesKeyGen, &template) {
        // Not every token can bind a key to its mechanism.
        Err(Error::Pkcs11(
            RvError::AttributeTypeInvalid
            | RvError::AttributeValueInvalid
            | RvError::TemplateInconsistent,
            _,
        )) => {
            template.pop();
            Ok(session.generate_key(&Mechanism::AesKeyGen, &template)?)
        }
        other => Ok(other?),
    }
}

fn key_len() -> Ulong {
    const { Ulong::new(KEY_LEN as u64) }
}
