//! One loaded PKCS#11 module, which the whole process shares: a library can be initialised once in a process.
//!
//! Some modules see a token that was taken away and brought back only after `C_Finalize` and `C_Initialize`. Nothing may
//! be under way in the module meanwhile, so every call is made behind a gate, and each initialisation starts an epoch:
//! what belongs to an earlier one (sessions, handles) is void and is not even closed, since its number may by now be that
//! of somebody else's session.

use std::{
    collections::{HashMap, HashSet},
    path::{Path, PathBuf},
    sync::{Arc, LazyLock},
    time::{Duration, Instant},
};

use cryptoki::{
    context::{CInitializeArgs, CInitializeFlags, Pkcs11},
    error::{Error, RvError},
};
use parking_lot::{Mutex, RwLock, RwLockReadGuard};

use super::{Pkcs11Error, TokenRef, fault::Fault};

/// How long an initialisation waits for the calls under way to return.
const QUIET_WITHIN: Duration = Duration::from_millis(300);

/// A module never leaves the process once it is loaded: others may hold its sessions, and some crash when unloaded.
static LOADED: LazyLock<Mutex<HashMap<PathBuf, Arc<Module>>>> = LazyLock::new(Mutex::default);

/// A loaded module.
#[derive(Debug)]
pub(super) struct Module {
    pkcs11: Pkcs11,
    gate: RwLock<Epoch>,
    refused: Mutex<HashSet<String>>,
}

/// Which initialisation is in force.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) struct Epoch {
    number: u64,
    initialised: bool,
}

/// Leave to call the module, for as long as it is held.
pub(super) struct Calling<'a> {
    pub(super) pkcs11: &'a Pkcs11,
    epoch: RwLockReadGuard<'a, Epoch>,
}

impl Calling<'_> {
    /// The number of the initialisation that is in force.
    pub(super) fn epoch(&self) -> u64 {
        self.epoch.number
    }
}

impl Module {
    /// The module of this path, loaded if it is not yet.
    pub(super) fn load(path: &Path) -> Result<Arc<Self>, Pkcs11Error> {
        let failed = |reason: String| Pkcs11Error::Module {
            path: path.to_owned(),
            reason,
        };
        let path = path
            .canonicalize()
            .map_err(|error| failed(error.to_string()))?;
        let mut loaded = LOADED.lock();
        if let Some(module) = loaded.get(&path) {
            return Ok(Arc::clone(module));
        }
        let pkcs11 = Pkcs11::new(&path).map_err(|error| failed(error.to_string()))?;
        let module = Arc::new(Self {
            pkcs11,
            gate: RwLock::default(),
            refused: Mutex::default(),
        });
        loaded.insert(path, Arc::clone(&module));
        Ok(module)
    }

    /// Leave to call the module, which is initialised if it is not yet.
    pub(super) fn enter(&self, until: Instant) -> Result<Calling<'_>, Fault> {
        loop {
            let epoch = self.gate.try_read_until(until).ok_or_else(busy)?;
            if epoch.initialised {
                return Ok(Calling {
                    pkcs11: &self.pkcs11,
                    epoch,
                });
            }
            drop(epoch);
            self.initialise(until)?;
        }
    }

    fn initialise(&self, until: Instant) -> Result<(), Fault> {
        let mut epoch = self.gate.try_write_until(until).ok_or_else(busy)?;
        if epoch.initialised {
            return Ok(());
        }
        self.start(&mut epoch)
    }

    /// Initialises the module anew, unless somebody did since `epoch`. If a call hangs in it, nothing happens.
    pub(super) fn restart(&self, epoch: u64, until: Instant) -> Result<(), Fault> {
        let quiet = until.min(Instant::now() + QUIET_WITHIN);
        let Some(mut gate) = self.gate.try_write_until(quiet) else {
            return Ok(());
        };
        if gate.number != epoch {
            return Ok(());
        }
        if gate.initialised {
            // Whatever it answers, what was is void.
            if let Err(error) = self.pkcs11.clone().finalize() {
                tracing::debug!("the PKCS#11 module did not finalise: {error}");
            }
            gate.initialised = false;
        }
        self.start(&mut gate)
    }

    fn start(&self, epoch: &mut Epoch) -> Result<(), Fault> {
        let args = CInitializeArgs::new(CInitializeFlags::OS_LOCKING_OK);
        match self.pkcs11.initialize(args) {
            Ok(()) | Err(Error::Pkcs11(RvError::CryptokiAlreadyInitialized, _)) => {
                epoch.number += 1;
                epoch.initialised = true;
                Ok(())
            }
            Err(error) => Err(Fault::lost(&error)),
        }
    }

    /// Remembers that a token refused its PIN, for as long as the process lives.
    pub(super) fn refuse_pin(&self, token: &TokenRef) {
        self.refused.lock().insert(token.to_string());
    }

    /// Whether the token refused its PIN in this process.
    pub(super) fn has_refused_pin(&self, token: &TokenRef) -> bool {
        self.refused.lock().contains(&token.to_string())
    }
}

fn busy() -> Fault {
    Fault::Lost("a call hangs in the PKCS#11 module".to_owned())
}
