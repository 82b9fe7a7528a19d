//! Setting up, and the process that replaces itself. What the token then does is told in `pkcs11/tests.rs`.

use std::os::unix::fs::PermissionsExt;

use super::*;

const DIR_VARIABLE: &str = "CLAVIGER_TEST_SOFTHSM";

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o7777
}

#[test]
fn preparing_makes_a_closed_directory_once() {
    let data = tempfile::tempdir().unwrap();
    let hsm = SoftHsm::prepare(data.path()).unwrap();
    let dir = data.path().join("softhsm").canonicalize().unwrap();
    assert_eq!((mode(&dir), mode(&dir.join("tokens"))), (0o700, 0o700));
    let files = [hsm.conf(), hsm.user_pin(), hsm.so_pin()];
    let texts = files.each_ref().map(|path| {
        assert_eq!(mode(path), 0o600, "{}", path.display());
        fs::read_to_string(path).unwrap()
    });
    assert!(texts[0].contains(&format!("{}/tokens\n", dir.display())));
    assert_eq!(texts[1].len(), 2 * PIN_BYTES + 1);
    assert_ne!(texts[1], texts[2]);

    SoftHsm::prepare(data.path()).unwrap();
    assert_eq!(texts, files.map(|path| fs::read_to_string(path).unwrap()));
}

#[test]
fn a_pin_file_that_others_can_read_is_refused() {
    let data = tempfile::tempdir().unwrap();
    let hsm = SoftHsm::prepare(data.path()).unwrap();
    fs::set_permissions(hsm.user_pin(), fs::Permissions::from_mode(0o644)).unwrap();
    let error = SoftHsm::prepare(data.path()).unwrap_err();
    assert!(matches!(error, Pkcs11Error::PinExposed { .. }), "{error}");
}

#[test]
fn a_directory_whose_name_does_not_fit_the_configuration_is_refused() {
    let data = tempfile::tempdir().unwrap();
    let odd = data.path().join("a#b");
    let error = SoftHsm::prepare(&odd).unwrap_err();
    assert!(error.to_string().contains("cannot stand in softhsm2.conf"));
}

#[test]
fn initialising_without_the_variable_is_refused() {
    let data = tempfile::tempdir().unwrap();
    let hsm = SoftHsm::prepare(data.path()).unwrap();
    let error = hsm.initialise().unwrap_err().to_string();
    assert!(error.contains("runs without SOFTHSM2_CONF="), "{error}");
}

/// The test runs itself as another process, which replaces itself and then finds its variable set.
#[test]
fn a_process_without_the_variable_is_replaced_by_itself() {
    if let Some(data) = env::var_os(DIR_VARIABLE) {
        let hsm = SoftHsm::prepare(Path::new(&data)).unwrap();
        let lives = Path::new(&data).join("lives");
        let before = fs::read_to_string(&lives).unwrap_or_default();
        fs::write(&lives, format!("{before}{}\n", std::process::id())).unwrap();
        enter(&hsm.conf()).unwrap();
        // Twice, as `init` run again would.
        hsm.initialise().unwrap();
        hsm.initialise().unwrap();
        return;
    }
    let data = tempfile::tempdir().unwrap();
    let test = "keys::pkcs11::softhsm::tests::a_process_without_the_variable_is_replaced_by_itself";
    let child = Command::new(env::current_exe().unwrap())
        .args(["--exact", test])
        .env(DIR_VARIABLE, data.path())
        .env_remove(CONF_VARIABLE)
        .output()
        .unwrap();
    assert!(child.status.success(), "{child:?}");
    let lives = fs::read_to_string(data.path().join("lives")).unwrap();
    let lives: Vec<_> = lives.lines().collect();
    assert_eq!(lives.len(), 2, "{lives:?}");
    assert_eq!(lives[0], lives[1], "the process id stays");
    let tokens = data.path().join("softhsm/tokens").read_dir().unwrap();
    assert_eq!(tokens.count(), 1);
}
