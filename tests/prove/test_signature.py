"""Signatures: made by us, verified by a stranger's tool; whatever is changed afterwards is found out."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from bentos.engine import Engine, load
from hallmark.errors import BundleError, ConfigError
from hallmark.prove.signature import sign, signature_of, verify
from tests.toys import ROOT


def pair(where: Path, name: str = "key") -> tuple[Path, Path]:
    """A private and a public key."""
    private = ec.generate_private_key(ec.SECP256R1())
    files = where / f"{name}.pem", where / f"{name}.pub.pem"
    plain = serialization.NoEncryption()
    files[0].write_bytes(private.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, plain))
    files[1].write_bytes(
        private.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    )
    return files


@pytest.fixture
def copy(bundle: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(bundle, tmp_path / "bundle"))


def test_what_is_signed_is_verified_and_the_tool_of_model_signing_agrees(copy: Path, tmp_path: Path) -> None:
    private, public = pair(tmp_path)
    assert sign(copy, private) == tmp_path / "bundle.sig"
    verify(copy, public)
    tool = [str(Path(sys.executable).parent / "model_signing"), "verify", "key", str(copy)]
    options = ["--signature", str(signature_of(copy)), "--public_key", str(public)]
    done = subprocess.run([*tool, *options], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def flip(bundle: Path) -> None:
    file = bundle / "base" / "model.safetensors"
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)


def add(bundle: Path) -> None:
    (bundle / "base" / "more.json").write_text("{}")


def remove(bundle: Path) -> None:
    (bundle / "card.md").unlink()


def swap(bundle: Path) -> None:
    first, second = sorted(p for p in (bundle / "subjects").iterdir() if p.is_dir())[:2]
    first.rename(bundle / "aside")
    second.rename(first)
    (bundle / "aside").rename(second)


@pytest.mark.parametrize("change", [flip, add, remove, swap])
def test_a_bundle_that_was_changed_after_it_was_signed_is_refused(copy: Path, tmp_path: Path, change: object) -> None:
    private, public = pair(tmp_path)
    sign(copy, private)
    change(copy)  # type: ignore[operator]
    with pytest.raises(BundleError, match=r"is not what the owner of key\.pub\.pem has signed"):
        verify(copy, public)


def test_another_key_no_signature_and_no_key_are_told_apart(copy: Path, tmp_path: Path) -> None:
    private, public = pair(tmp_path)
    _, other = pair(tmp_path, "other")
    with pytest.raises(BundleError, match="is not signed"):
        verify(copy, public)
    sign(copy, private)
    with pytest.raises(BundleError, match=r"owner of other\.pub\.pem"):
        verify(copy, other)
    with pytest.raises(ConfigError, match="openssl ecparam"):
        verify(copy, tmp_path / "gone.pem")
    signature_of(copy).write_text("{}")
    with pytest.raises(BundleError):
        verify(copy, public)


def test_a_key_of_another_kind_is_refused_in_one_line(copy: Path, tmp_path: Path) -> None:
    key = rsa.generate_private_key(65537, 2048)
    plain = serialization.NoEncryption()
    (tmp_path / "rsa.pem").write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, plain)
    )
    with pytest.raises(ConfigError, match="is no private key on P-256"):
        sign(copy, tmp_path / "rsa.pem")
    assert not signature_of(copy).exists()


def test_the_service_with_a_key_serves_what_is_signed_and_nothing_else(copy: Path, tmp_path: Path) -> None:
    private, public = pair(tmp_path)
    with pytest.raises(BundleError, match="is not signed"):
        load(copy, public)
    sign(copy, private)
    engine = Engine(copy, public)
    served = engine.served
    card = copy / "card.md"
    card.write_text(card.read_text() + "\nBetter than it is.\n")
    (copy / "hallmark.json").write_text((copy / "hallmark.json").read_text() + "\n")
    assert not engine.reload()
    assert engine.served is served


def test_the_commands_sign_and_verify(copy: Path, tmp_path: Path) -> None:
    private, public = pair(tmp_path)

    def hallmark(*arguments: str) -> "subprocess.CompletedProcess[str]":
        command = [sys.executable, "-m", "hallmark.cli", *arguments]
        return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)

    refused = hallmark("verify", str(copy), "--key", str(public))
    assert (refused.returncode, refused.stderr.count("\n")) == (1, 1)
    assert hallmark("sign", str(copy), "--key", str(private)).returncode == 0
    said = hallmark("verify", str(copy), "--key", str(public))
    assert said.returncode == 0, said.stderr
    assert "signed by the owner of" in said.stdout
