//! A token in `SoftHSM`, set up for a trial: a directory under the data directory, and PINs in files beside it.
//!
//! `SoftHSM` finds its tokens by a configuration file that the environment variable [`CONF_VARIABLE`] names, which it
//! reads when it is initialised. A process with threads cannot change its environment safely, so a process that was
//! started without the variable is replaced by itself with the variable set ([`enter`]), before it has threads. A unit of
//! systemd sets it by `Environment=`, and then nothing is replaced.

use std::{
    env,
    fs::{self, DirBuilder, File, OpenOptions},
    io::{self, Write},
    os::unix::{
        fs::{DirBuilderExt, OpenOptionsExt},
        process::CommandExt,
    },
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

use cryptoki::{
    context::Pkcs11,
    session::UserType,
    slot::{Slot, TokenInfo},
    types::AuthPin,
};
use zeroize::Zeroizing;

use super::{PinSource, Pkcs11Error, Pkcs11Options, TokenRef, module::Module, pin};
use crate::aead::fill_random;

/// The environment variable that names `SoftHSM`'s configuration file.
pub const CONF_VARIABLE: &str = "SOFTHSM2_CONF";
/// The token's label.
pub const TOKEN_LABEL: &str = "claviger";

/// Where distributions put the module.
const MODULES: [&str; 10] = [
    "/usr/lib/softhsm/libsofthsm2.so",
    "/usr/lib/x86_64-linux-gnu/softhsm/libsofthsm2.so",
    "/usr/lib/aarch64-linux-gnu/softhsm/libsofthsm2.so",
    "/usr/lib64/pkcs11/libsofthsm2.so",
    "/usr/lib64/softhsm/libsofthsm2.so",
    "/usr/lib64/libsofthsm2.so",
    "/usr/lib/pkcs11/libsofthsm2.so",
    "/usr/local/lib/softhsm/libsofthsm2.so",
    "/opt/homebrew/lib/softhsm/libsofthsm2.so",
    "/run/current-system/sw/lib/softhsm/libsofthsm2.so",
];
const PIN_BYTES: usize = 16;

/// A `SoftHSM` of one installation: `DIR/softhsm`, mode 0700, with `softhsm2.conf`, `tokens`, `user-pin` and `so-pin`.
#[derive(Debug, Clone)]
pub struct SoftHsm {
    dir: PathBuf,
    module: PathBuf,
}

impl SoftHsm {
    /// Makes the directory, the configuration and two random PINs (mode 0600), where they are missing.
    ///
    /// # Errors
    /// [`Pkcs11Error::SoftHsm`] if the module is not installed or a file cannot be written; the errors of a PIN file if
    /// one is there that others can read.
    pub fn prepare(data_dir: &Path) -> Result<Self, Pkcs11Error> {
        let module = find_module()?;
        let hsm = Self {
            dir: make_dir(&data_dir.join("softhsm"))?,
            module,
        };
        make_dir(&hsm.tokens())?;
        let tokens = hsm.tokens();
        let tokens = tokens.to_str().filter(|path| !path.contains(['\n', '#']));
        let tokens =
            tokens.ok_or_else(|| failed("its directory's name cannot stand in softhsm2.conf"))?;
        let conf = format!(
            "directories.tokendir = {tokens}\n\
             objectstore.backend = file\n\
             log.level = ERROR\n\
             slots.removable = false\n"
        );
        write_new(&hsm.conf(), conf.as_bytes())?;
        for path in [hsm.user_pin(), hsm.so_pin()] {
            if !path.exists() {
                write_new(&path, &random_pin()?)?;
            }
            pin::read(PinSource::File(path))?;
        }
        Ok(hsm)
    }

    /// The configuration file: the value of [`CONF_VARIABLE`].
    pub fn conf(&self) -> PathBuf {
        self.dir.join("softhsm2.conf")
    }

    /// The module.
    pub fn module(&self) -> &Path {
        &self.module
    }

    /// The file with the user PIN.
    pub fn user_pin(&self) -> PathBuf {
        self.dir.join("user-pin")
    }

    /// Initialises the token, unless there is one, and gives what [`Pkcs11Keys::open`](super::Pkcs11Keys::open) needs.
    /// It blocks for some milliseconds.
    ///
    /// # Errors
    /// [`Pkcs11Error::SoftHsm`] if the process was not started with [`CONF_VARIABLE`] (see [`enter`]), or the module
    /// refuses.
    pub fn initialise(&self) -> Result<Pkcs11Options, Pkcs11Error> {
        if env::var_os(CONF_VARIABLE).is_none_or(|conf| Path::new(&conf) != self.conf()) {
            return Err(failed(format!(
                "the process runs without {CONF_VARIABLE}={}",
                self.conf().display()
            )));
        }
        let module = Module::load(&self.module)?;
        let calling = module
            .enter(Instant::now() + Duration::from_secs(10))
            .map_err(|fault| failed(fault.reason()))?;
        self.make_token(calling.pkcs11)
            .map_err(|error| failed(error.to_string()))??;
        Ok(self.options())
    }

    /// What [`Pkcs11Keys::open`](super::Pkcs11Keys::open) needs, once the token is initialised.
    pub fn options(&self) -> Pkcs11Options {
        let token = TokenRef::Label(TOKEN_LABEL.to_owned());
        Pkcs11Options::new(&self.module, token, PinSource::File(self.user_pin()))
    }

    fn make_token(&self, pkcs11: &Pkcs11) -> cryptoki::error::Result<Result<(), Pkcs11Error>> {
        let is_ours = |info: &TokenInfo| info.token_initialized() && info.label() == TOKEN_LABEL;
        let so_pin = match auth_pin(self.so_pin()) {
            Ok(pin) => pin,
            Err(error) => return Ok(Err(error)),
        };
        let user_pin = match auth_pin(self.user_pin()) {
            Ok(pin) => pin,
            Err(error) => return Ok(Err(error)),
        };
        if slot_where(pkcs11, is_ours)?.is_none() {
            let Some(free) = slot_where(pkcs11, |info| !info.token_initialized())? else {
                return Ok(Err(failed("it has no free slot")));
            };
            pkcs11.init_token(free, &so_pin, TOKEN_LABEL)?;
        }
        // Its slot has another number now.
        let Some(slot) = slot_where(pkcs11, is_ours)? else {
            return Ok(Err(failed("the token made just now is gone")));
        };
        if !pkcs11.get_token_info(slot)?.user_pin_initialized() {
            let session = pkcs11.open_rw_session(slot)?;
            session.login(UserType::So, Some(&so_pin))?;
            session.init_pin(&user_pin)?;
            session.logout()?;
        }
        Ok(Ok(()))
    }

    fn tokens(&self) -> PathBuf {
        self.dir.join("tokens")
    }

    fn so_pin(&self) -> PathBuf {
        self.dir.join("so-pin")
    }
}

/// Sees to it that this process has [`CONF_VARIABLE`] set to `conf`: if it has not, it is replaced by the same program
/// with the same arguments and the variable, and this call does not return.
///
/// Call it first thing, before other threads exist and before anything was read from a descriptor. Process id, open
/// descriptors and signal mask stay; limits on core dumps stay, while `PR_SET_DUMPABLE` and memory locks do not.
///
/// # Errors
/// What the operating system said when it did not start the program.
pub fn enter(conf: &Path) -> io::Result<()> {
    if env::var_os(CONF_VARIABLE).is_some_and(|set| Path::new(&set) == conf) {
        return Ok(());
    }
    let mut arguments = env::args_os();
    let mut again = Command::new(env::current_exe()?);
    if let Some(name) = arguments.next() {
        again.arg0(name);
    }
    Err(again.args(arguments).env(CONF_VARIABLE, conf).exec())
}

fn slot_where(
    pkcs11: &Pkcs11,
    fits: impl Fn(&TokenInfo) -> bool,
) -> cryptoki::error::Result<Option<Slot>> {
    for slot in pkcs11.get_slots_with_token()? {
        if fits(&pkcs11.get_token_info(slot)?) {
            return Ok(Some(slot));
        }
    }
    Ok(None)
}

fn auth_pin(path: PathBuf) -> Result<AuthPin, Pkcs11Error> {
    let pin = pin::read(PinSource::File(path))?;
    Ok(AuthPin::new(pin.expose_str().unwrap_or_default().into()))
}

fn find_module() -> Result<PathBuf, Pkcs11Error> {
    let found = MODULES.iter().map(Path::new).find(|path| path.exists());
    found.map(Path::to_owned).ok_or_else(|| {
        failed("its module is not installed; install it, e.g. by `apt-get install softhsm2`")
    })
}

fn make_dir(path: &Path) -> Result<PathBuf, Pkcs11Error> {
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .and_then(|()| path.canonicalize())
        .map_err(|error| failed(format!("cannot make {}: {error}", path.display())))
}

/// Writes a file that only this user can read, unless it is there.
fn write_new(path: &Path, text: &[u8]) -> Result<(), Pkcs11Error> {
    let written = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)
        .and_then(|mut file: File| file.write_all(text).and_then(|()| file.sync_all()));
    match written {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        other => other.map_err(|error| {
            // Half a PIN is worse than none.
            fs::remove_file(path).ok();
            failed(format!("cannot write {}: {error}", path.display()))
        }),
    }
}

fn random_pin() -> Result<Zeroizing<Vec<u8>>, Pkcs11Error> {
    let mut random = Zeroizing::new([0; PIN_BYTES]);
    fill_random(&mut *random).map_err(|error| failed(error.to_string()))?;
    let mut text = Zeroizing::new(vec![b'\n'; 2 * PIN_BYTES + 1]);
    hex::encode_to_slice(*random, &mut text[..2 * PIN_BYTES]).expect("two digits for each byte");
    Ok(text)
}

fn failed(reason: impl Into<String>) -> Pkcs11Error {
    Pkcs11Error::SoftHsm {
        reason: reason.into(),
    }
}

#[cfg(test)]
mod tests;
