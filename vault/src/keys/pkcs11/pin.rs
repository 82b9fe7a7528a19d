//! Reading a PIN, and refusing one that others can read.

use std::{
    fs::{File, Metadata, OpenOptions},
    io::{self, Read},
    os::{
        fd::RawFd,
        unix::fs::{MetadataExt, OpenOptionsExt},
    },
    path::Path,
    sync::Arc,
};

use nix::{fcntl::OFlag, unistd::Uid};
use zeroize::Zeroizing;

use super::{Pkcs11Error, options::PinSource};
use crate::Secret;

/// Longest PIN in bytes. Tokens allow less; a longer text is a wrong file.
pub(super) const MAX_LEN: usize = 255;

const ROOT: u32 = 0;
/// What the group and others may not do with a PIN file.
const OTHERS: u32 = 0o077;
/// As above for a systemd credential, whose group bits are the mask of its access list.
const WORLD: u32 = 0o007;

/// Reads the PIN, once.
pub(super) fn read(source: PinSource) -> Result<Secret, Pkcs11Error> {
    let (from, text) = match source {
        PinSource::Secret(secret) => ("the configuration".to_owned(), secret),
        PinSource::File(path) => (path.display().to_string(), read_file(&path, OTHERS, None)?),
        PinSource::Credential { directory, name } => {
            let path = directory.join(&name);
            let text = if is_file_name(&name) {
                read_file(&path, WORLD, Some(ROOT))?
            } else {
                Secret::new(Vec::new())
            };
            (path.display().to_string(), text)
        }
        PinSource::Descriptor(descriptor) => (
            format!("file descriptor {descriptor}"),
            read_descriptor(descriptor)?,
        ),
    };
    first_line(&text).ok_or(Pkcs11Error::NoPin { from, max: MAX_LEN })
}

fn is_file_name(name: &str) -> bool {
    !name.is_empty() && !name.contains('/') && name != ".."
}

fn read_file(path: &Path, closed: u32, also_owner: Option<u32>) -> Result<Secret, Pkcs11Error> {
    let failed = |error| unreadable(path.display().to_string(), error);
    // A FIFO is not waited for, and the open file is what is examined.
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(OFlag::O_NONBLOCK.bits())
        .open(path)
        .map_err(failed)?;
    let metadata = file.metadata().map_err(failed)?;
    check(path, &metadata, closed, also_owner)?;
    read_all(file).map_err(failed)
}

fn check(
    path: &Path,
    metadata: &Metadata,
    closed: u32,
    also_owner: Option<u32>,
) -> Result<(), Pkcs11Error> {
    let (owner, user) = (metadata.uid(), Uid::effective().as_raw());
    if owner != user && also_owner != Some(owner) {
        return Err(Pkcs11Error::PinForeignOwner {
            path: path.to_owned(),
            owner,
            user,
        });
    }
    let mode = metadata.mode() & 0o7777;
    if mode & closed != 0 {
        return Err(Pkcs11Error::PinExposed {
            path: path.to_owned(),
            mode,
        });
    }
    Ok(())
}

fn read_descriptor(descriptor: RawFd) -> Result<Secret, Pkcs11Error> {
    let failed = |error| unreadable(format!("file descriptor {descriptor}"), error);
    // The standard streams belong to others, and stay open.
    if descriptor <= 2 {
        return Err(failed(io::ErrorKind::InvalidInput.into()));
    }
    let text = File::open(format!("/dev/fd/{descriptor}")).and_then(read_all);
    // Child processes must not inherit the PIN.
    let closed = nix::unistd::close(descriptor);
    let text = text.map_err(failed)?;
    closed.map_err(|errno| failed(errno.into()))?;
    Ok(text)
}

fn read_all(file: File) -> io::Result<Secret> {
    let limit = MAX_LEN + 3;
    let mut text = Zeroizing::new(Vec::with_capacity(limit));
    file.take(limit as u64).read_to_end(&mut text)?;
    Ok(Secret::from(text))
}

/// The text without its line feed. `None` if it is empty, long, or of several lines.
fn first_line(text: &Secret) -> Option<Secret> {
    let text = text.expose_str()?;
    let line = text.strip_suffix('\n').unwrap_or(text);
    let line = line.strip_suffix('\r').unwrap_or(line);
    let fits = (1..=MAX_LEN).contains(&line.len()) && !line.contains(['\n', '\r', '\0']);
    fits.then(|| Secret::new(line.as_bytes().to_vec()))
}

fn unreadable(from: String, error: io::Error) -> Pkcs11Error {
    Pkcs11Error::PinUnreadable {
        from,
        source: Arc::new(error),
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, os::fd::IntoRawFd, os::unix::fs::PermissionsExt};

    use super::*;

    fn file(text: &str, mode: u32) -> tempfile::TempPath {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), text).unwrap();
        fs::set_permissions(file.path(), fs::Permissions::from_mode(mode)).unwrap();
        file.into_temp_path()
    }

    fn from_file(path: &Path) -> Result<Secret, Pkcs11Error> {
        read(PinSource::File(path.to_owned()))
    }

    #[test]
    fn a_pin_file_is_one_line_with_or_without_its_end() {
        for text in ["4711", "4711\n", "4711\r\n"] {
            let pin = from_file(&file(text, 0o600)).unwrap();
            assert_eq!(pin.expose(), b"4711");
        }
    }

    #[test]
    fn a_pin_file_that_others_can_read_is_refused_with_the_command_to_run() {
        for mode in [0o640, 0o604, 0o660, 0o601] {
            let path = file("4711", mode);
            let error = from_file(&path).unwrap_err().to_string();
            assert!(error.contains(&format!("(mode {mode:04o}); run `chmod 600 ")));
            assert!(!error.contains("4711"), "{error}");
        }
    }

    #[test]
    fn what_is_no_pin_is_refused() {
        for text in ["", "\n", "47\n11", "47\u{0}11", &"1".repeat(256)] {
            let error = from_file(&file(text, 0o600)).unwrap_err();
            assert!(matches!(error, Pkcs11Error::NoPin { .. }), "{error}");
        }
        let missing = from_file(Path::new("/nonexistent/pin")).unwrap_err();
        assert!(matches!(missing, Pkcs11Error::PinUnreadable { .. }));
        assert!(read(PinSource::Secret(Secret::new(Vec::new()))).is_err());
    }

    #[test]
    fn a_systemd_credential_may_have_group_bits_and_stays_in_its_directory() {
        let path = file("4711", 0o440);
        let credential = |name: &str| PinSource::Credential {
            directory: path.parent().unwrap().to_owned(),
            name: name.to_owned(),
        };
        let name = path.file_name().unwrap().to_str().unwrap();
        assert_eq!(read(credential(name)).unwrap().expose(), b"4711");
        for outside in ["../pin", "", "..", "a/b"] {
            let error = read(credential(outside)).unwrap_err();
            assert!(matches!(error, Pkcs11Error::NoPin { .. }), "{error}");
        }
        fs::set_permissions(&path, fs::Permissions::from_mode(0o444)).unwrap();
        assert!(matches!(
            read(credential(name)),
            Err(Pkcs11Error::PinExposed { .. })
        ));
    }

    #[test]
    fn a_descriptor_is_read_to_its_end_and_closed() {
        let (reader, mut writer) = io::pipe().unwrap();
        io::Write::write_all(&mut writer, b"4711\n").unwrap();
        drop(writer);
        let descriptor = reader.into_raw_fd();
        let pin = read(PinSource::Descriptor(descriptor)).unwrap();
        assert_eq!(pin.expose(), b"4711");
        let again = read(PinSource::Descriptor(descriptor)).unwrap_err();
        assert!(
            matches!(again, Pkcs11Error::PinUnreadable { .. }),
            "{again}"
        );
        assert!(read(PinSource::Descriptor(0)).is_err());
    }
}
