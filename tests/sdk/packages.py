"""Makes version 1.0.0 of a small package, and the registry that offers it.

Arguments: the kind of registry (pypi, npm, cargo, maven) and its host. On stdout, as JSON: what the registry serves, by path.
"""

import base64
import gzip
import hashlib
import io
import json
import sys
import tarfile
import zipfile

NAME = "acme-widgets"
VERSION = "1.0.0"


def wheel() -> bytes:
    """PEP 427."""
    module = "acme_widgets"
    info = f"{module}-{VERSION}.dist-info"
    files = {
        f"{module}.py": "ANSWER = 42\n",
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {NAME}\nVersion: {VERSION}\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: tests\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    lines = [f"{path},sha256={urlsafe(text)},{len(text)}" for path, text in files.items()]
    files[f"{info}/RECORD"] = "\n".join([*lines, f"{info}/RECORD,,"]) + "\n"
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as writer:
        for path, text in files.items():
            writer.writestr(path, text)
    return archive.getvalue()


def urlsafe(text: str) -> str:
    digest = hashlib.sha256(text.encode()).digest()
    return base64.urlsafe_b64encode(digest).rstrip(b"=").decode()


def tarball(files: dict[str, str]) -> bytes:
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as writer:
        for path, text in files.items():
            entry = tarfile.TarInfo(path)
            entry.size = len(text)
            writer.addfile(entry, io.BytesIO(text.encode()))
    return gzip.compress(archive.getvalue(), mtime=0)


def pypi(host: str) -> dict:
    """The simple repository API, PEP 503."""
    content = wheel()
    path = f"/files/acme_widgets-{VERSION}-py3-none-any.whl"
    anchor = f'<a href="{path}#sha256={hashlib.sha256(content).hexdigest()}">{path.rsplit("/", 1)[1]}</a>'
    page = f"<!DOCTYPE html><html><body>{anchor}</body></html>"
    return {
        f"/simple/{NAME}/": ("text/html", page.encode()),
        path: ("application/octet-stream", content),
    }


def npm(host: str) -> dict:
    package = {"name": NAME, "version": VERSION, "main": "index.js"}
    content = tarball(
        {"package/package.json": json.dumps(package), "package/index.js": "module.exports = 42;\n"}
    )
    path = f"/{NAME}/-/{NAME}-{VERSION}.tgz"
    digest = base64.b64encode(hashlib.sha512(content).digest()).decode()
    dist = {"tarball": f"https://{host}{path}", "integrity": f"sha512-{digest}"}
    document = {
        "name": NAME,
        "dist-tags": {"latest": VERSION},
        "versions": {VERSION: {**package, "dist": dist}},
    }
    return {
        f"/{NAME}": ("application/json", json.dumps(document).encode()),
        path: ("application/octet-stream", content),
    }


def cargo(host: str) -> dict:
    """A sparse index that wants authentication, and its downloads."""
    root = f"{NAME}-{VERSION}"
    manifest = f'[package]\nname = "{NAME}"\nversion = "{VERSION}"\nedition = "2021"\n'
    content = tarball({f"{root}/Cargo.toml": manifest, f"{root}/src/lib.rs": "pub const ANSWER: u8 = 42;\n"})
    release = {
        "name": NAME,
        "vers": VERSION,
        "deps": [],
        "cksum": hashlib.sha256(content).hexdigest(),
        "features": {},
        "yanked": False,
    }
    config = {"dl": f"https://{host}/dl", "auth-required": True}
    return {
        "/index/config.json": ("application/json", json.dumps(config).encode()),
        f"/index/ac/me/{NAME}": ("text/plain", (json.dumps(release) + "\n").encode()),
        f"/dl/{NAME}/{VERSION}/download": ("application/gzip", content),
    }


def maven(host: str) -> dict:
    """A POM to inherit from, with the checksum that Maven looks for."""
    pom = f"""<project xmlns="http://maven.apache.org/POM/4.0.0">
  <modelVersion>4.0.0</modelVersion>
  <groupId>com.acme</groupId><artifactId>widgets-parent</artifactId><version>{VERSION}</version>
  <packaging>pom</packaging>
</project>
""".encode()
    path = f"/releases/com/acme/widgets-parent/{VERSION}/widgets-parent-{VERSION}.pom"
    return {
        path: ("application/xml", pom),
        f"{path}.sha1": ("text/plain", hashlib.sha1(pom).hexdigest().encode()),
    }


if __name__ == "__main__":
    kind, host = sys.argv[1:]
    served = {"pypi": pypi, "npm": npm, "cargo": cargo, "maven": maven}[kind](host)
    json.dump(
        {path: {"type": kind, "base64": base64.b64encode(content).decode()} for path, (kind, content) in served.items()},
        sys.stdout,
    )
