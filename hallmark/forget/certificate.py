"""Certificate of an erasure: what was deleted, what was searched, what is left; anybody can check it without a network.

It lies in a directory of its own, `erasures/ID/certificate.json`, and is signed like a bundle. It names the subject by
a salted digest: who knows the id and the salt can tell whom it is about, and nobody else.
"""

import secrets
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from hallmark.errors import HallmarkError
from hallmark.files import digest_text, read_json, sha256, write_json
from hallmark.forget.erase import Erased
from hallmark.forget.search import Canary, search
from hallmark.prove.bundle import MANIFEST, open_bundle
from hallmark.prove.signature import sign, verify
from hallmark.stages.forget import subject_leaves, subjects_root

FORMAT = 1
FILE = "certificate.json"


class CertificateError(HallmarkError):
    """A certificate that does not hold."""


@dataclass(frozen=True)
class Certified:
    """A certificate that was written.

    Attributes:
        directory: where it lies.
        salt: what the id is digested with; for the subject, who can then show that it is about them.
    """

    directory: Path
    salt: str


def write_certificate(erased: Erased, subject_id: str, out: Path, key: Path | None) -> Certified:
    """Write what was done.

    Args:
        erased: what was done.
        subject_id: whose.
        out: directory of all certificates.
        key: private key that signs it; None leaves it unsigned.
    """
    canary, salt = Canary(subject_id), secrets.token_hex(16)
    number, digest = erased.deleted.entry

    def nameless(text: str) -> str:
        return canary.pattern.sub("…".encode(), text.encode()).decode()

    content = {
        "format": FORMAT,
        "at": erased.at.isoformat(),
        "continues": None if erased.earlier is None else erased.earlier.isoformat(),
        "subject_sha256": subject_digest(subject_id, salt),
        "audit": {"number": number, "sha256": digest},
        "rows": dict(erased.deleted.rows),
        "spooled_rows": erased.spooled,
        "jobs": erased.jobs,
        "versions": [{"directory": nameless(place), **asdict(made)} for place, made in erased.versions.items()],
        "models": erased.models,
        "purged_files": erased.purged,
        "replayed": {"answers": erased.replayed[0], "equal": erased.replayed[1]},
        "fitted_on_subject": erased.base,
        "searched": [
            {
                "path": str(store.path),
                "files": store.files,
                "bytes": store.bytes,
                "hits": [nameless(hit) for hit in store.hits],
                "unreadable": [nameless(file) for file in store.unreadable],
            }
            for store in erased.searched
        ],
        "rows_left": dict(erased.rows_left),
        "left": [nameless(sentence) for sentence in erased.left],
    }
    directory = out / f"{erased.at:%Y%m%dT%H%M%S}-{secrets.token_hex(4)}"
    write_json(directory / FILE, content)
    if key is not None:
        sign(directory, key)
    return Certified(directory, salt)


def subject_digest(subject_id: str, salt: str) -> str:
    """Return what a certificate names a subject by."""
    return digest_text(f"{salt}\0{subject_id}")


def check_certificate(
    directory: Path,
    bundles: Sequence[Path] = (),
    public_key: Path | None = None,
    subject: tuple[str, str] | None = None,
) -> list[str]:
    """Check a certificate against what is at hand.

    Args:
        directory: of the certificate.
        bundles: directories of bundles that it may name.
        public_key: of whoever must have signed it.
        subject: id and salt: the certificate must be about this subject, and the bundles must not hold the id.

    Returns:
        What was checked, in sentences.

    Raises:
        CertificateError, BundleError: something is not as it says.
    """
    if not (directory / FILE).is_file():
        raise CertificateError(f"{directory} holds no {FILE}")
    if public_key is not None:
        verify(directory, public_key)
        told = [f"signed by the owner of {public_key}"]
    else:
        told = ["its signature was not checked: anybody could have written it; give the public key by --key"]
    try:
        return told + _check_content(read_json(directory / FILE), directory, bundles, subject)
    except (ValueError, TypeError, KeyError, IndexError, AttributeError) as error:
        raise CertificateError(f"{directory / FILE} is no certificate ({type(error).__name__})") from error


def _check_content(
    content: dict[str, Any], directory: Path, bundles: Sequence[Path], subject: tuple[str, str] | None
) -> list[str]:
    if subject is not None and subject_digest(*subject) != content["subject_sha256"]:
        raise CertificateError(f"{directory} is about another subject, or the salt is another one")
    told = ["about this subject"] if subject is not None else []
    after = {made["after"][1]: made for made in content["versions"]}
    for bundle in bundles:
        if (bundle / MANIFEST).is_file() and (digest := sha256(bundle / MANIFEST)) in after:
            told.append(_check_bundle(bundle, after[digest], subject))
    hits = sum(len(store["hits"]) for store in content["searched"]) + sum(content["rows_left"].values())
    files = sum(store["files"] for store in content["searched"])
    told.append(f"it says: {files:,} files searched, {hits} of them or of the rows still hold the subject")
    return told


def _check_bundle(bundle: Path, made: dict[str, Any], subject: tuple[str, str] | None) -> str:
    """Compute the root of a bundle's subjects again, and search it for the subject."""
    hallmark, _ = open_bundle(bundle)
    root = subjects_root(hallmark.files)
    if root != made["root_after"]:
        raise CertificateError(f"{bundle}: the root of its subjects is {root[:12]}…, not {made['root_after'][:12]}…")
    count = len(subject_leaves(hallmark.files))
    if subject is None:
        return f"{bundle}: {count} subjects under the root that it names"
    [searched] = search([bundle], subject[0])
    if searched.hits:
        raise CertificateError(f"{bundle} holds the subject, in {len(searched.hits)} files")
    return f"{bundle}: {count} subjects under the root that it names; none of {searched.files} files holds this one"
