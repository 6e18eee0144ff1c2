"""The certificate authority of the clouds: what a public one is to a real cloud."""

import subprocess


class Authority:
    """A fresh CA in `folder`; `pem` is the file that clients of the clouds trust."""

    def __init__(self, folder, name="Test Clouds"):
        self._folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self.pem, self._key = folder / "ca.pem", folder / "ca.key"
        _openssl("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes",
                 "-keyout", self._key, "-out", self.pem, "-days", "7", "-subj", f"/CN={name}",
                 "-addext", "basicConstraints=critical,CA:TRUE", "-addext", "keyUsage=critical,keyCertSign,cRLSign")

    def issue(self, *names):
        """A certificate for `names` (the first is its file's name, `*.` allowed); gives (certificate, key)."""
        stem = names[0].replace("*", "any")
        request, pem, key = (self._folder / f"{stem}.{end}" for end in ("csr", "pem", "key"))
        extensions = self._folder / f"{stem}.ext"
        alt = ",".join(f"{'IP' if name[0].isdigit() else 'DNS'}:{name}" for name in names)
        extensions.write_text(f"subjectAltName={alt}\nextendedKeyUsage=serverAuth\nbasicConstraints=critical,CA:FALSE\n"
                              "authorityKeyIdentifier=keyid\n")
        _openssl("req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-keyout", key,
                 "-out", request, "-subj", f"/CN={names[0]}")
        _openssl("x509", "-req", "-in", request, "-CA", self.pem, "-CAkey", self._key, "-CAcreateserial",
                 "-out", pem, "-days", "7", "-extfile", extensions)
        return pem, key


def _openssl(*args):
    subprocess.run(["openssl", *map(str, args)], check=True, stdin=subprocess.DEVNULL, capture_output=True)
