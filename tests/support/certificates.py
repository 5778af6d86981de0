"""Certificates as a user makes them, by openssl."""
import shutil
import subprocess

import pytest

KEY = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]


def openssl(*words, **keywords):
    """Runs openssl -> what it printed."""
    return subprocess.run(["openssl"] + [str(word) for word in words], stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                          check=True, **keywords).stdout.decode()


class Authority:
    """An authority in a folder, and the certificates that it has signed: NAME.pem with its key."""

    def __init__(self, folder, name="ca"):
        if shutil.which("openssl") is None:
            pytest.skip("needs openssl")
        folder.mkdir(parents=True, exist_ok=True)
        self.folder, self._name = folder, name
        self.path = folder / (name + ".pem")
        openssl("req", "-x509", *KEY, "-keyout", folder / (name + ".key"), "-out", self.path, "-days", "30", "-subj",
                "/CN=Authority " + name, "-addext", "keyUsage=critical,keyCertSign,cRLSign")

    def sign(self, name, common_name, names="", days=30):
        """The path of a new certificate with its key; names: "DNS:localhost,IP:127.0.0.1"."""
        path, key, request = (self.folder / (name + end) for end in (".pem", ".key", ".csr"))
        extensions = ["basicConstraints=CA:FALSE", "subjectKeyIdentifier=hash", "authorityKeyIdentifier=keyid"]
        extensions += ["subjectAltName=" + names] * bool(names)
        (self.folder / "extensions").write_text("\n".join(extensions))
        openssl("req", "-new", *KEY, "-keyout", key, "-out", request, "-subj", "/CN=" + common_name)
        openssl("x509", "-req", "-in", request, "-CA", self.path, "-CAkey", self.folder / (self._name + ".key"),
                "-CAcreateserial", "-days", days, "-extfile", self.folder / "extensions", "-out", path)
        path.write_text(path.read_text() + key.read_text())
        path.chmod(0o600)
        return path


def sign_server(authority, name="server", days=30):
    """The certificate of an agent on this host."""
    return authority.sign(name, "agent", "DNS:localhost,IP:127.0.0.1,IP:127.0.0.2", days)
