//! A `SoftHSM` of a test's own: each story runs in a process of its own, whose environment names its own token directory.

use std::{
    any::type_name_of_val,
    env, fs,
    io::Write,
    path::{Path, PathBuf},
    process::Command,
    sync::Arc,
    time::{Duration, Instant},
};

use crate::{
    Pkcs11Keys, Pkcs11Options,
    keys::{
        KeyError,
        pkcs11::softhsm::{CONF_VARIABLE, SoftHsm, TOKEN_LABEL},
    },
};

const ROOM_VARIABLE: &str = "CLAVIGER_TEST_ROOM";
/// Written by a story that was told to its end.
const DONE: &str = "done";

/// A story's directory and its `SoftHSM`, with an initialised token.
pub(super) struct Room {
    dir: PathBuf,
    pub(super) hsm: SoftHsm,
}

/// Tells `story` in a process of its own, with a token of its own.
pub(super) fn with_a_token(story: impl AsyncFnOnce(Room)) {
    in_a_room(story, |_| {});
}

/// As [`with_a_token`], where the token has these mechanisms alone.
pub(super) fn with_a_token_of(mechanisms: &str, story: impl AsyncFnOnce(Room)) {
    in_a_room(story, |hsm| {
        let mut conf = fs::OpenOptions::new().append(true).open(hsm.conf());
        let conf = conf.as_mut().unwrap();
        writeln!(conf, "slots.mechanisms = {mechanisms}").unwrap();
    });
}

fn in_a_room(story: impl AsyncFnOnce(Room), configure: impl FnOnce(&SoftHsm)) {
    let Some(dir) = env::var_os(ROOM_VARIABLE).map(PathBuf::from) else {
        return in_a_process_of_its_own(type_name_of_val(&story));
    };
    let hsm = SoftHsm::prepare(&dir).unwrap();
    configure(&hsm);
    hsm.initialise().unwrap();
    let room = Room {
        dir: dir.clone(),
        hsm,
    };
    // A thread of the runtime that blocks is a thread too few.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(story(room));
    fs::write(dir.join(DONE), "").unwrap();
}

/// Runs the test that `story` is a closure of once more, as the only one of another process.
fn in_a_process_of_its_own(story: &str) {
    let test = story.trim_end_matches("::{{closure}}");
    let (_, test) = test.split_once("::").unwrap();
    let dir = tempfile::tempdir().unwrap();
    let output = Command::new(env::current_exe().unwrap())
        .args(["--exact", test, "--nocapture"])
        .env(ROOM_VARIABLE, dir.path())
        .env(CONF_VARIABLE, dir.path().join("softhsm/softhsm2.conf"))
        .env("CLAVIGER_FAULT_MODULE", module_of(dir.path()))
        .env("CLAVIGER_FAULT_DIR", dir.path())
        .output()
        .unwrap();
    assert!(
        output.status.success() && dir.path().join(DONE).exists(),
        "{test}\n{}\n{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr),
    );
}

fn module_of(dir: &Path) -> PathBuf {
    let hsm = SoftHsm::prepare(&dir.join("probe"));
    hsm.expect("these tests need SoftHSM2 (tests/run installs it)")
        .module()
        .to_owned()
}

impl Room {
    pub(super) fn options(&self) -> Pkcs11Options {
        self.hsm.options()
    }

    pub(super) async fn open(&self) -> Result<Arc<Pkcs11Keys>, KeyError> {
        Pkcs11Keys::open(self.options()).await
    }

    /// The options for the same token behind the module that makes faults.
    pub(super) fn faulty_options(&self) -> Pkcs11Options {
        let source = concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/src/keys/pkcs11/tests/fault_module.c"
        );
        let module = self.dir.join("fault_module.so");
        let built = Command::new("cc")
            .args(["-shared", "-fPIC", "-o"])
            .arg(&module)
            .args([source, "-ldl"])
            .status();
        assert!(built.unwrap().success());
        Pkcs11Options {
            module,
            ..self.options()
        }
    }

    /// Sets a fault, or ends it.
    pub(super) fn fault(&self, name: &str, value: Option<&str>) {
        let path = self.dir.join(name);
        match value {
            Some(value) => {
                // It must not be read half written.
                let new = self.dir.join("fault.new");
                fs::write(&new, value).unwrap();
                fs::rename(new, path).unwrap();
            }
            None => fs::remove_file(path).unwrap(),
        }
    }

    /// How often the module was called by this name.
    pub(super) fn calls(&self, name: &str) -> usize {
        let calls = fs::read_to_string(self.dir.join("calls")).unwrap_or_default();
        calls.lines().filter(|call| *call == name).count()
    }

    fn tokens(&self) -> PathBuf {
        self.dir.join("softhsm/tokens")
    }

    /// Takes the token out.
    pub(super) fn take_away(&self) {
        fs::rename(self.tokens(), self.dir.join("away")).unwrap();
    }

    /// Puts the token back in.
    pub(super) fn put_back(&self) {
        fs::rename(self.dir.join("away"), self.tokens()).unwrap();
    }

    /// Initialises the token anew from another process, with the same label and PINs.
    pub(super) fn initialise_anew(&self) {
        self.initialise_anew_with(None);
    }

    /// As [`initialise_anew`](Self::initialise_anew), with another user PIN.
    pub(super) fn initialise_anew_with(&self, other_pin: Option<&str>) {
        let pin = |name: &str| {
            let text = fs::read_to_string(self.dir.join("softhsm").join(name)).unwrap();
            text.trim_end().to_owned()
        };
        let (so_pin, pin) = (pin("so-pin"), pin("user-pin"));
        let pin = other_pin.unwrap_or(&pin);
        let by_label = ["--init-token", "--token", TOKEN_LABEL];
        let output = Command::new("softhsm2-util")
            .args(by_label)
            .args(["--label", TOKEN_LABEL, "--so-pin", &so_pin, "--pin", pin])
            .output()
            .expect("these tests need softhsm2-util (tests/run installs softhsm2)");
        assert!(output.status.success(), "{output:?}");
    }

    pub(super) fn dir(&self) -> &Path {
        &self.dir
    }
}

/// Asks until the answer is as wanted, for at most `within`.
pub(super) async fn within<T>(within: Duration, mut ask: impl AsyncFnMut() -> Option<T>) -> T {
    let started = Instant::now();
    loop {
        if let Some(answer) = ask().await {
            return answer;
        }
        assert!(started.elapsed() < within, "not within {within:?}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
