"""Certificates for TLS, and the keys that SuperNodes are known by: self-signed, for machines that trust one another."""

from __future__ import annotations

import ipaddress
import os
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from otoscope.errors import FederationError

_DAYS = 365


@dataclass(frozen=True)
class Certificates:
    """Files of a SuperLink, in PEM.

    Attributes:
        authority: certificate that clients check the server's with; goes to every SuperNode.
        certificate: of the server.
        key: of the server, which only the SuperLink's machine has.
    """

    authority: Path
    certificate: Path
    key: Path


def make_certificates(folder: Path, host: str = "127.0.0.1") -> Certificates:
    """Makes an authority and, signed by it, a certificate for a host; the authority's key is not kept.

    Args:
        folder: gets `ca.crt`, `server.pem` and `server.key`.
        host: name or address by which SuperNodes reach the SuperLink.

    Raises:
        FederationError: the folder cannot be written.
    """
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import NameOID

    try:
        name: x509.GeneralName = x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        name = x509.DNSName(host)
    begin = datetime.now(UTC) - timedelta(minutes=5)  # clocks differ

    def certificate(
        subject: str, issuer: str, key: ec.EllipticCurvePrivateKey, by: ec.EllipticCurvePrivateKey, authority: bool
    ) -> bytes:
        called = [x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)]) for text in (subject, issuer)]
        signer = x509.SubjectKeyIdentifier.from_public_key(by.public_key())
        builder = (
            x509.CertificateBuilder()
            .subject_name(called[0])
            .issuer_name(called[1])
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(begin)
            .not_valid_after(begin + timedelta(days=_DAYS))
            .add_extension(x509.BasicConstraints(ca=authority, path_length=0 if authority else None), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(signer), critical=False)
            .add_extension(_usage(authority), critical=True)
        )
        if not authority:
            builder = builder.add_extension(x509.SubjectAlternativeName([name]), critical=False)
        return builder.sign(by, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)

    root, own = (ec.generate_private_key(ec.SECP384R1()) for _ in range(2))
    made = Certificates(folder / "ca.crt", folder / "server.pem", folder / "server.key")
    _write(made.authority, certificate("otoscope", "otoscope", root, root, True))
    _write(made.certificate, certificate(host, "otoscope", own, root, False))
    plain = serialization.NoEncryption()
    pem, pkcs8 = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    _write(made.key, own.private_bytes(pem, pkcs8, plain), secret=True)
    return made


def make_node_key(folder: Path, name: str) -> Path:
    """Makes the key pair that a SuperNode is known by, P-384 in OpenSSH's form.

    Args:
        folder: gets the private key under the name, and the public key as `name.pub`.
        name: of the node.

    Returns:
        The private key, which only the SuperNode's machine has.

    Raises:
        FederationError: the folder cannot be written.
    """
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP384R1())
    pem, openssh = serialization.Encoding.PEM, serialization.PrivateFormat.OpenSSH
    _write(folder / name, key.private_bytes(pem, openssh, serialization.NoEncryption()), secret=True)
    public = key.public_key().public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH)
    _write(folder / f"{name}.pub", public + b"\n")
    return folder / name


def _usage(authority: bool) -> Any:
    from cryptography import x509

    return x509.KeyUsage(
        digital_signature=True, content_commitment=False, key_encipherment=False, data_encipherment=False,
        key_agreement=False, key_cert_sign=authority, crl_sign=authority, encipher_only=False, decipher_only=False,
    )  # fmt: skip


def _write(path: Path, data: bytes, secret: bool = False) -> None:
    """Writes a file; a secret one that nobody else can read at any time."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.unlink(missing_ok=True)
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600 if secret else 0o644), "wb") as file:
            file.write(data)
    except OSError as error:
        raise FederationError(f"{path} cannot be written ({error})", "Choose another folder.") from error
