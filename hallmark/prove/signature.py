"""Sign bundles and verify signatures, in the format of OpenSSF Model Signing: any tool for it verifies them.

The signature of `bundle/` lies beside it, in `bundle.sig`: signing changes no byte of a bundle.
"""

from pathlib import Path

from hallmark.errors import BundleError, ConfigError

MAKE_KEYS = (
    "make a pair by `openssl ecparam -name prime256v1 -genkey -noout -out private.pem` and "
    "`openssl ec -in private.pem -pubout -out public.pem`"
)


def signature_of(bundle: Path) -> Path:
    """Return where the signature of a bundle lies."""
    return bundle.with_name(f"{bundle.name}.sig")


def sign(bundle: Path, private_key: Path, password: str | None = None) -> Path:
    """Sign every file of a bundle with a key on an elliptic curve; returns the signature's path.

    Args:
        bundle: its directory; check it first (`open_accepted`).
        private_key: PEM file of a key on P-256, P-384 or P-521.
        password: of the key.

    Raises:
        ConfigError: the key cannot be read.
    """
    from model_signing import hashing, signing

    key = _key(private_key)
    target = signature_of(bundle)
    fresh = target.with_name(f".{target.name}")
    try:
        config = signing.Config().use_elliptic_key_signer(private_key=key, password=password)
        files = hashing.Config().set_ignored_paths(paths=[], ignore_git_paths=False)
        config.set_hashing_config(files).sign(bundle, fresh)
        fresh.replace(target)
    except (ValueError, TypeError, AttributeError) as error:
        raise ConfigError(f"{private_key} is no private key on P-256, P-384 or P-521: {MAKE_KEYS}") from error
    finally:
        fresh.unlink(missing_ok=True)
    return target


def verify(bundle: Path, public_key: Path) -> None:
    """Check that a bundle is, byte for byte, what the owner of a key has signed.

    Raises:
        BundleError: there is no signature, it is of another key, or a file was changed, added or removed.
        ConfigError: the key cannot be read.
    """
    from model_signing import hashing, verifying

    key, signature = _key(public_key), signature_of(bundle)
    if not signature.is_file():
        raise BundleError(
            f"{bundle} is not signed: there is no {signature}; sign it by `hallmark sign --key private.pem {bundle}`"
        )
    try:
        config = verifying.Config().use_elliptic_key_verifier(public_key=key)
    except (ValueError, TypeError, AttributeError) as error:
        raise ConfigError(f"{public_key} is no public key on an elliptic curve: {MAKE_KEYS}") from error
    try:
        files = hashing.Config().set_ignored_paths(paths=[], ignore_git_paths=False)
        config.set_hashing_config(files).verify(bundle, signature)
    except Exception as error:  # the library raises ValueError for a mismatch, and others for what is no signature
        raise BundleError(
            f"{bundle} is not what the owner of {public_key.name} has signed: a file differs, or the key does"
        ) from error


def _key(path: Path) -> Path:
    if not path.is_file():
        raise ConfigError(f"key {path} is missing: {MAKE_KEYS}")
    return path
