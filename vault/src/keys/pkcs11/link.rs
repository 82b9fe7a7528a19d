//! The connection to the token: found, logged in to, lost, and made anew.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use cryptoki::{
    error::{Error, RvError},
    mechanism::{MechanismInfo, MechanismType},
    session::{Session, SessionState, UserType},
    slot::{Slot, TokenInfo},
    types::AuthPin,
};
use parking_lot::{Mutex, MutexGuard};

use super::{
    Pkcs11Error, Pkcs11Options, TokenRef,
    fault::{Fault, unavailable},
    keyring::Keyring,
    module::{Calling, Module},
    pin,
};
use crate::{Secret, keys::KeyError};

/// Between attempts to connect there is at least this much time, doubled with each failure.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
/// The longest such time, and so how long a token that is back may go unnoticed.
const LONGEST_PAUSE: Duration = Duration::from_secs(1);
/// A connection that lived for so long was a good one: the next attempt follows at once.
const SETTLED_AFTER: Duration = Duration::from_secs(5);

/// One token, as configured.
pub(super) struct Link {
    module: Arc<Module>,
    path: std::path::PathBuf,
    token: TokenRef,
    pin: Secret,
    state: Mutex<State>,
    /// Held while a key is made, so that one process makes a key once.
    pub(super) creating: Mutex<()>,
    connections: AtomicU64,
}

#[derive(Default)]
struct State {
    connection: Option<Arc<Connection>>,
    /// The epoch in which the last connection was lost. Its module is initialised anew first.
    lost_in: Option<u64>,
    was_connected: bool,
    pause: Duration,
    not_before: Option<Instant>,
    last_failure: Option<KeyError>,
}

/// What holds from one login to the loss of the token.
pub(super) struct Connection {
    epoch: u64,
    pub(super) slot: Slot,
    pub(super) abilities: Abilities,
    pub(super) made_at: Instant,
    pub(super) keyring: Mutex<Keyring>,
    // When an application's last session closes, it is logged out.
    anchor: Mutex<Option<Session>>,
}

/// Which mechanisms the token has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Abilities {
    pub(super) gcm: bool,
    pub(super) key_wrap: bool,
    pub(super) ed25519: bool,
}

/// What a thread of the pool keeps: its session, in the connection that it belongs to.
pub(super) struct Seat {
    link: Arc<Link>,
    held: Option<(Arc<Connection>, Session)>,
}

/// A session in use: what an operation on the token is given.
pub(super) struct Held<'a> {
    pub(super) link: &'a Link,
    pub(super) connection: &'a Connection,
    pub(super) session: &'a Session,
    pub(super) calling: &'a Calling<'a>,
    /// By when the operation must be done.
    pub(super) until: Instant,
}

impl Link {
    pub(super) fn new(options: Pkcs11Options) -> Result<Self, Pkcs11Error> {
        let pin = pin::read(options.pin)?.locked();
        Ok(Self {
            module: Module::load(&options.module)?,
            path: options.module,
            token: options.token,
            pin,
            state: Mutex::default(),
            creating: Mutex::default(),
            connections: AtomicU64::new(0),
        })
    }

    pub(super) fn token(&self) -> &TokenRef {
        &self.token
    }

    /// How often a connection was made.
    pub(super) fn connections(&self) -> u64 {
        self.connections.load(Ordering::Relaxed)
    }

    /// The connection, made if there is none. One thread makes it and the others wait.
    fn connection(&self, until: Instant) -> Result<Arc<Connection>, Fault> {
        let mut state = self.lock_state(until)?;
        if let Some(connection) = &state.connection {
            return Ok(Arc::clone(connection));
        }
        let now = Instant::now();
        if state.not_before.is_some_and(|instant| now < instant) {
            let failure = state.last_failure.clone();
            return Err(failure
                .unwrap_or_else(|| unavailable("not connected"))
                .into());
        }
        match self.connect(&mut state, until) {
            Ok(connection) => {
                let connection = Arc::new(connection);
                if state.was_connected {
                    tracing::info!("connected to the PKCS#11 token with {} again", self.token);
                }
                state.was_connected = true;
                state.connection = Some(Arc::clone(&connection));
                self.connections.fetch_add(1, Ordering::Relaxed);
                Ok(connection)
            }
            Err(fault) => {
                let error = self.explain(fault, state.was_connected);
                state.failed(error.clone());
                Err(error.into())
            }
        }
    }

    fn lock_state(&self, until: Instant) -> Result<MutexGuard<'_, State>, Fault> {
        let locked = self.state.try_lock_until(until);
        locked.ok_or_else(|| unavailable("a call hangs in the PKCS#11 module").into())
    }

    /// A token that was there and is not found any more is away. One that never was is a mistake to name.
    fn explain(&self, fault: Fault, was_connected: bool) -> KeyError {
        match fault {
            Fault::Final(KeyError::Pkcs11(Pkcs11Error::NoToken { .. })) if was_connected => {
                unavailable(format!("the token with {} is not present", self.token))
            }
            Fault::Lost(reason) | Fault::Handle(reason) | Fault::Refused(reason) => {
                unavailable(reason)
            }
            Fault::Final(error) => error,
        }
    }

    fn connect(&self, state: &mut State, until: Instant) -> Result<Connection, Fault> {
        if let Some(epoch) = state.lost_in {
            self.module.restart(epoch, until)?;
            state.lost_in = None;
        }
        let calling = self.module.enter(until)?;
        // Should it fail half way, the next attempt starts from a fresh module again.
        state.lost_in = Some(calling.epoch());
        let (slot, info) = self.find_slot(&calling)?;
        let session = calling
            .pkcs11
            .open_ro_session_no_drop(slot)
            .map_err(|error| Fault::lost(&error))?;
        if let Err(fault) = self.log_in(&session, &info) {
            close(session);
            return Err(fault);
        }
        let abilities = abilities(&calling, slot);
        if !(abilities.gcm || abilities.key_wrap) {
            close(session);
            return Err(Pkcs11Error::NoMechanism {
                token: self.token.clone(),
                mechanism: "CKM_AES_GCM and no CKM_AES_KEY_WRAP_PAD",
            }
            .into());
        }
        state.lost_in = None;
        Ok(Connection {
            epoch: calling.epoch(),
            slot,
            abilities,
            made_at: Instant::now(),
            keyring: Mutex::default(),
            anchor: Mutex::new(Some(session)),
        })
    }

    /// The slot with the token. A slot that does not answer may be the one.
    fn find_slot(&self, calling: &Calling<'_>) -> Result<(Slot, TokenInfo), Fault> {
        let slots = calling.pkcs11.get_slots_with_token();
        let (mut found, mut silent) = (Vec::new(), None);
        for slot in slots.map_err(|error| Fault::lost(&error))? {
            match calling.pkcs11.get_token_info(slot) {
                Ok(info) if self.is_meant(slot, &info) => found.push((slot, info)),
                Ok(_) => {}
                Err(error) => silent = Some(error),
            }
        }
        let (path, token) = (self.path.clone(), self.token.clone());
        match (found.pop(), found.is_empty(), silent) {
            (Some(found), true, _) => Ok(found),
            (Some(_), false, _) => Err(Pkcs11Error::ManyTokens { path, token }.into()),
            (None, _, Some(error)) => Err(Fault::lost(&error)),
            (None, _, None) => Err(Pkcs11Error::NoToken { path, token }.into()),
        }
    }

    fn is_meant(&self, slot: Slot, info: &TokenInfo) -> bool {
        info.token_initialized()
            && match &self.token {
                TokenRef::Label(label) => info.label() == label,
                TokenRef::Slot(number) => slot.id() == *number,
            }
    }

    /// Logs in, unless this process is logged in already. A PIN that was refused is never tried again, and none is tried
    /// that could be the last.
    fn log_in(&self, session: &Session, info: &TokenInfo) -> Result<(), Fault> {
        if is_logged_in(session, info)? {
            return Ok(());
        }
        let token = self.token.clone();
        if self.module.has_refused_pin(&token) {
            return Err(Pkcs11Error::WrongPin { token }.into());
        }
        if let Some(reason) = no_pin_taken(info) {
            return Err(Pkcs11Error::PinLocked { token, reason }.into());
        }
        let pin = self.pin.expose_str().unwrap_or_default();
        let answer = session.login(UserType::User, Some(&AuthPin::new(pin.into())));
        let code = match answer {
            Ok(()) => return Ok(()),
            Err(Error::Pkcs11(code, _)) => code,
            Err(error) => return Err(Fault::lost(&error)),
        };
        match code {
            RvError::UserAlreadyLoggedIn => Ok(()),
            RvError::PinIncorrect | RvError::PinInvalid | RvError::PinLenRange => {
                self.module.refuse_pin(&token);
                Err(Pkcs11Error::WrongPin { token }.into())
            }
            RvError::PinLocked | RvError::PinExpired | RvError::UserPinNotInitialized => {
                self.module.refuse_pin(&token);
                let reason = match code {
                    RvError::PinLocked => "it is locked",
                    RvError::PinExpired => "the PIN has expired",
                    _ => "none is set yet",
                };
                Err(Pkcs11Error::PinLocked { token, reason }.into())
            }
            _ => Err(Fault::lost(&Error::Pkcs11(
                code,
                cryptoki::context::Function::Login,
            ))),
        }
    }

    /// Gives up a connection, unless that has happened already.
    fn lose(&self, connection: &Arc<Connection>, reason: &str) {
        // Whoever holds the state is connecting anew, and will find out.
        let Some(mut state) = self.state.try_lock_for(FIRST_PAUSE) else {
            return;
        };
        let is_current = state
            .connection
            .as_ref()
            .is_some_and(|current| Arc::ptr_eq(current, connection));
        if !is_current {
            return;
        }
        tracing::warn!(
            "connecting anew to the PKCS#11 token with {}: {reason}",
            self.token
        );
        state.connection = None;
        state.lost_in = Some(connection.epoch);
        if connection.made_at.elapsed() < SETTLED_AFTER {
            state.failed(unavailable(reason));
        } else {
            state.pause = Duration::ZERO;
            state.not_before = None;
        }
    }
}

impl Link {
    /// Leaves the token, unless a call hangs in it.
    pub(super) fn close(&self) {
        let Some(mut state) = self.state.try_lock_for(FIRST_PAUSE) else {
            return;
        };
        let Some(connection) = state.connection.take() else {
            return;
        };
        if let Ok(calling) = self.module.enter(Instant::now() + FIRST_PAUSE)
            && calling.epoch() == connection.epoch
            && let Some(session) = connection.anchor.lock().take()
        {
            close(session);
        }
    }
}

impl State {
    fn failed(&mut self, error: KeyError) {
        self.last_failure = Some(error);
        // The first loss is followed by an attempt at once.
        self.not_before = (!self.pause.is_zero()).then(|| Instant::now() + self.pause);
        self.pause = (self.pause * 2).clamp(FIRST_PAUSE, LONGEST_PAUSE);
    }
}

impl Seat {
    pub(super) fn new(link: Arc<Link>) -> Self {
        Self { link, held: None }
    }

    /// Runs an operation in this seat's session, by `until`. If the token was lost it is found again, and the operation
    /// is run once more; it may have run before, in part.
    pub(super) fn run<T>(
        &mut self,
        until: Instant,
        operation: impl Fn(&Held<'_>) -> Result<T, Fault>,
    ) -> Result<T, Fault> {
        let mut last = Fault::Lost("the connection was lost".to_owned());
        for _ in 0..MAX_ATTEMPTS {
            let connection = self.link.connection(until)?;
            match self.attempt(&connection, until, &operation) {
                Ok(result) => return Ok(result),
                Err(Fault::Lost(reason)) => {
                    self.held = None;
                    self.link.lose(&connection, &reason);
                    last = Fault::Lost(reason);
                }
                Err(fault @ Fault::Handle(_)) => {
                    if let Some(mut keyring) = connection.keyring.try_lock_until(until) {
                        keyring.doubt();
                    }
                    last = fault;
                }
                Err(fault) => return Err(fault),
            }
            if Instant::now() >= until {
                break;
            }
        }
        Err(last)
    }

    fn attempt<T>(
        &mut self,
        connection: &Arc<Connection>,
        until: Instant,
        operation: impl Fn(&Held<'_>) -> Result<T, Fault>,
    ) -> Result<T, Fault> {
        let link = Arc::clone(&self.link);
        let calling = link.module.enter(until)?;
        if calling.epoch() != connection.epoch {
            return Err(Fault::Lost("the module was initialised anew".to_owned()));
        }
        let session = self.session(connection, &calling)?;
        let held = Held {
            link: &link,
            connection,
            session,
            calling: &calling,
            until,
        };
        let result = operation(&held);
        if result.is_err() {
            // Some modules leave the failed operation active in its session.
            self.leave(&calling);
        }
        result
    }

    fn session(
        &mut self,
        connection: &Arc<Connection>,
        calling: &Calling<'_>,
    ) -> Result<&Session, Fault> {
        let fits = |(of, _): &(Arc<Connection>, Session)| Arc::ptr_eq(of, connection);
        if !self.held.as_ref().is_some_and(fits) {
            self.leave(calling);
            let session = calling.pkcs11.open_ro_session_no_drop(connection.slot)?;
            self.held = Some((Arc::clone(connection), session));
        }
        let (_, session) = self.held.as_ref().expect("a session was opened just now");
        Ok(session)
    }

    /// Closes the session, if its number is still its own.
    fn leave(&mut self, calling: &Calling<'_>) {
        if let Some((connection, session)) = self.held.take()
            && connection.epoch == calling.epoch()
        {
            close(session);
        }
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let link = Arc::clone(&self.link);
        if let Ok(calling) = link.module.enter(Instant::now() + FIRST_PAUSE) {
            self.leave(&calling);
        }
    }
}

impl Fault {
    /// What happened, in words.
    pub(super) fn reason(&self) -> String {
        match self {
            Self::Lost(reason)
            | Self::Handle(reason)
            | Self::Refused(reason)
            | Self::Final(KeyError::Unavailable { reason, .. }) => reason.clone(),
            Self::Final(error) => error.to_string(),
        }
    }
}

pub(super) fn is_logged_in(session: &Session, info: &TokenInfo) -> Result<bool, Fault> {
    let session = session.get_session_info();
    let state = session
        .map_err(|error| Fault::lost(&error))?
        .session_state();
    let as_user = matches!(state, SessionState::RoUser | SessionState::RwUser);
    Ok(as_user || !info.login_required())
}

/// Why no PIN should be tried now.
fn no_pin_taken(info: &TokenInfo) -> Option<&'static str> {
    if info.user_pin_locked() {
        Some("it is locked")
    } else if !info.user_pin_initialized() {
        Some("none is set yet")
    } else if info.user_pin_final_try() {
        Some("one more wrong PIN would lock it")
    } else if info.user_pin_to_be_changed() {
        Some("the PIN has to be changed first")
    } else {
        None
    }
}

fn abilities(calling: &Calling<'_>, slot: Slot) -> Abilities {
    // Some modules describe mechanisms that their configuration has turned off.
    let listed = calling.pkcs11.get_mechanism_list(slot).unwrap_or_default();
    let has = |mechanism: MechanismType, fits: fn(&MechanismInfo) -> bool| {
        let info = calling.pkcs11.get_mechanism_info(slot, mechanism);
        listed.contains(&mechanism) && info.is_ok_and(|info| fits(&info))
    };
    Abilities {
        gcm: has(MechanismType::AES_GCM, |info| {
            info.encrypt() && info.decrypt() && info.max_key_size() >= 32
        }),
        key_wrap: has(MechanismType::AES_KEY_WRAP_PAD, |info| {
            info.wrap() && info.unwrap()
        }),
        ed25519: has(MechanismType::EDDSA, MechanismInfo::sign)
            && has(
                MechanismType::ECC_EDWARDS_KEY_PAIR_GEN,
                MechanismInfo::generate_key_pair,
            ),
    }
}

pub(super) fn close(session: Session) {
    if let Err(error) = session.close() {
        tracing::debug!("a PKCS#11 session did not close: {error}");
    }
}

/// Once as it is, once after the key was found anew, once after the token was, and once more for both.
const MAX_ATTEMPTS: usize = 4;
