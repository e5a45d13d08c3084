"""Certificates: checked before the server starts, or made for its time where a browser needs one."""

import ssl
import subprocess
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from tempfile import TemporaryDirectory

from deeptalk.errors import ConfigError

DAYS = 30


@dataclass(frozen=True, kw_only=True, slots=True)
class Certificate:
    """Files in PEM: the certificate with its chain, and its key, which may stand in the same file."""

    cert: Path
    key: Path | None = None


def certificate_for(
    host: str, *, cert: Path | None, key: Path | None, is_self_signed: bool
) -> AbstractContextManager[Certificate | None]:
    """What is asked for on the command line, while a block runs; None for a server without TLS."""
    if (key is not None and cert is None) or (cert is not None and is_self_signed):
        raise ConfigError("Give --tls-cert, with its --tls-key, or --self-signed, or none of them.")
    return _certificate(host, cert=cert, key=key, is_self_signed=is_self_signed)


@contextmanager
def _certificate(
    host: str, *, cert: Path | None, key: Path | None, is_self_signed: bool
) -> Iterator[Certificate | None]:
    if is_self_signed:
        with _self_signed(host) as made:
            yield made
    else:
        yield None if cert is None else check_certificate(Certificate(cert=cert, key=key))


def check_certificate(certificate: Certificate) -> Certificate:
    """The same; ConfigError where the files can't be used together or the key asks for a password."""
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(
            certificate.cert, certificate.key, password=lambda: b""
        )
    except (OSError, ValueError) as error:
        files = " and ".join(str(path) for path in (certificate.cert, certificate.key) if path is not None)
        raise ConfigError(
            f"{files} can't be used for TLS ({getattr(error, 'strerror', None) or error}): --tls-cert and "
            "--tls-key need a certificate and its key in PEM, without a password."
        ) from error
    return certificate


@contextmanager
def _self_signed(host: str) -> Iterator[Certificate]:
    """A certificate that nobody vouches for, while the block runs; ConfigError where ``openssl`` can't."""
    names = {f"{'IP' if _is_address(name) else 'DNS'}:{name}" for name in (host, "localhost", "127.0.0.1")}
    with TemporaryDirectory(prefix="deeptalk-tls-") as folder:
        made = Certificate(cert=Path(folder, "cert.pem"), key=Path(folder, "key.pem"))
        command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"]
        command += ["-nodes", "-days", str(DAYS), "-subj", "/CN=deeptalk"]
        command += ["-addext", f"subjectAltName={','.join(sorted(names))}"]
        command += ["-keyout", str(made.key), "-out", str(made.cert)]
        try:
            subprocess.run(command, check=True, capture_output=True)
        except (OSError, subprocess.CalledProcessError) as error:
            raise ConfigError(
                "--self-signed needs a working openssl command: install it, or give --tls-cert and --tls-key."
            ) from error
        yield check_certificate(made)


def _is_address(name: str) -> bool:
    try:
        ip_address(name)
    except ValueError:
        return False
    return True
