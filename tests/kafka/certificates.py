"""Certificates for the tests: two private authorities, of which the broker's trusts one."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

KEY_PASSWORD = "battery-staple"
_KEY = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"]


class Certificates:
    """Files of PEM in a folder, made with openssl.

    Attributes
    ----------
    ca, stranger
        Authorities: the one that has signed all others, and one that nobody trusts.
    server
        The key and the certificate of 127.0.0.1.
    client, client_key
        A client's certificate, and its key with `KEY_PASSWORD`.
    """

    def __init__(self, folder: Path) -> None:
        if shutil.which("openssl") is None:
            pytest.skip("openssl is needed to make certificates")
        self._folder = folder
        self.ca = self._authority("ca")
        self.stranger = self._authority("stranger")
        key, certificate = self._signed(
            "server", "-nodes", "-addext", "subjectAltName=IP:127.0.0.1"
        )
        self.server = folder / "server.pem"
        self.server.write_text(key.read_text() + certificate.read_text())
        self.client_key, self.client = self._signed("client", "-passout", f"pass:{KEY_PASSWORD}")

    def _openssl(self, *args: str) -> None:
        done = subprocess.run(
            ["openssl", *args], cwd=self._folder, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr

    def _authority(self, name: str) -> Path:
        self._openssl(
            *("req", "-x509", *_KEY, "-nodes", "-days", "2", "-subj", f"/CN={name}"),
            *("-keyout", f"{name}.key", "-out", f"{name}.crt"),
        )
        return self._folder / f"{name}.crt"

    def _signed(self, name: str, *more: str) -> tuple[Path, Path]:
        """The key and the certificate of a name."""
        self._openssl(
            *("req", *_KEY, *more, "-subj", f"/CN={name}"),
            *("-keyout", f"{name}.key", "-out", f"{name}.csr"),
        )
        self._openssl(
            *("x509", "-req", "-in", f"{name}.csr", "-days", "2", "-copy_extensions", "copy"),
            *("-CA", "ca.crt", "-CAkey", "ca.key", "-out", f"{name}.crt"),
        )
        return self._folder / f"{name}.key", self._folder / f"{name}.crt"
