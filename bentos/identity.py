"""Who calls: API keys and JSON Web Tokens become a `Principal`. Subject, role and scopes come from there alone."""

import hashlib
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import jwt

from bentos.problems import ProblemError
from bentos.settings import AuthSettings, JwtSettings
from hallmark.errors import ConfigError
from hallmark.files import read_json

log = logging.getLogger("bentoml.hallmark")

Role = Literal["person", "clinician", "service", "admin"]
ROLES: tuple[Role, ...] = get_args(Role)
Scope = Literal["predict", "read", "outcomes", "train", "export", "models", "metrics"]
SCOPES: Mapping[Role, frozenset[Scope]] = {
    "person": frozenset({"predict", "read", "outcomes", "train", "export", "models"}),
    "clinician": frozenset({"predict", "read", "outcomes", "train", "models"}),
    "service": frozenset({"predict", "read", "outcomes", "train", "models", "metrics"}),
    "admin": frozenset(get_args(Scope)),
}
KEY_CLIENT = "key:"  # client ids of API keys begin with it, so that no subject can have the same id
LONGEST_ID = 200


@dataclass(frozen=True)
class Principal:
    """An identified caller.

    Attributes:
        client_id: of the token's subject, or of the key.
        role: what it may do at all.
        subjects: whose data it may use; None for no limit.
        scopes: what this token may do.
    """

    client_id: str
    role: Role
    subjects: frozenset[str] | None
    scopes: frozenset[Scope]


def hash_key(key: str) -> str:
    """Return what is stored of an API key; keys are random and long, so that a plain digest cannot be guessed."""
    return hashlib.sha256(key.encode()).hexdigest()


class Identity:
    """Identifies callers.

    Args:
        settings: accepted keys and tokens.

    Raises:
        ConfigError: a file of keys cannot be read.
    """

    def __init__(self, settings: AuthSettings) -> None:
        self.keys_file, self._changed = settings.keys_file, 0
        self.keys: dict[str, Principal] = {}
        if self.keys_file is not None:
            self.keys, self._changed = read_keys(self.keys_file), _time_of(self.keys_file)
        self.tokens = None if settings.jwt is None else Tokens(settings.jwt)

    @property
    def configured(self) -> bool:
        """Whether there are keys or tokens that could identify a caller."""
        return bool(self.keys) or self.tokens is not None

    def identify(self, authorization: str | None, api_key: str | None) -> Principal:
        """Identify the caller from the headers `Authorization: Bearer …` or `X-API-Key: …`.

        Raises:
            ProblemError: 401; the reason names no part of the token.
        """
        self._read_again()
        scheme, _, credential = (authorization or "").partition(" ")
        if api_key is None and scheme.lower() == "bearer":
            api_key = credential.strip()
        if not api_key:
            raise unauthorised("Send a key or a token: Authorization: Bearer … (see /docs).")
        if (principal := self.keys.get(hash_key(api_key))) is not None:
            return principal
        if self.tokens is None or api_key.count(".") != 2:
            raise unauthorised("The key is unknown.")
        return self.tokens.principal(api_key)

    def _read_again(self) -> None:
        """Read the keys that were added or removed since; a file that cannot be read leaves the keys as they are."""
        if self.keys_file is None or (changed := _time_of(self.keys_file)) == self._changed:
            return
        self._changed = changed
        try:
            self.keys = read_keys(self.keys_file)
        except ConfigError as error:
            log.error("the keys stay as they were: %s", error)


def _time_of(file: Path) -> int:
    try:
        return file.stat().st_mtime_ns
    except OSError:
        return 0


class Tokens:
    """Verifies JSON Web Tokens, and reads the claims of the Supabase layout.

    `sub` is the caller. `role` must be absent or `authenticated`. `app_metadata`, which the issuer sets and the user
    cannot, may hold `hallmark_role` and `subjects`; a token without them belongs to a person.
    """

    def __init__(self, settings: JwtSettings) -> None:
        self.settings = settings
        self._keys: dict[str | None, Any] = {}
        try:
            if settings.secret is not None:
                self._keys[None] = settings.secret.get_secret_value()
            elif settings.public_key_file is not None:
                self._keys[None] = settings.public_key_file.read_text(encoding="utf-8")
            elif settings.jwks_file is not None:
                keys = jwt.PyJWKSet.from_dict(read_json(settings.jwks_file))
                self._keys = {key.key_id: key.key for key in keys.keys}
        except (OSError, ValueError, jwt.PyJWTError) as error:
            raise ConfigError(f"HALLMARK_AUTH__JWT: the key cannot be read ({type(error).__name__})") from None

    def principal(self, token: str) -> Principal:
        """Verify a token.

        Raises:
            ProblemError: 401.
        """
        try:
            key = self._keys[jwt.get_unverified_header(token).get("kid") if None not in self._keys else None]
            claims = jwt.decode(
                token,
                key,
                algorithms=list(self.settings.algorithms),
                audience=self.settings.audience,
                issuer=self.settings.issuer,
                leeway=self.settings.leeway_s,
                options={"require": ["exp", "iss", "aud", "sub"], "strict_aud": True},
            )
        except jwt.ExpiredSignatureError:
            raise unauthorised("The token has expired: get a new one.") from None
        except (jwt.PyJWTError, KeyError, ValueError, TypeError):
            raise unauthorised("The token is not valid.") from None
        return principal_of(claims)


def principal_of(claims: Mapping[str, Any]) -> Principal:
    """Read the claims of a verified token.

    Raises:
        ProblemError: 401; the claims name no person, or a role that no token may have.
    """
    client, metadata = claims.get("sub"), claims.get("app_metadata") or {}
    role = metadata.get("hallmark_role", "person") if isinstance(metadata, Mapping) else None
    listed = metadata.get("subjects", []) if isinstance(metadata, Mapping) else None
    if not is_id(client) or str(client).startswith(KEY_CLIENT):
        raise unauthorised("The token names no subject.")
    if claims.get("role", "authenticated") != "authenticated" or role not in ROLES:
        raise unauthorised("The token has a role that may not call: send the token of a signed-in user.")
    if not isinstance(listed, list) or not all(map(is_id, listed)):
        raise unauthorised("The token's list of subjects cannot be read.")
    return make_principal(str(client), role, listed, claims.get("scope"))


def make_principal(client: str, role: Role, listed: list[str], scope: str | None = None) -> Principal:
    """Make a principal: a person sees itself, a clinician the listed people, a service and an admin every subject."""
    scopes = SCOPES[role]
    if scope is not None:
        scopes = scopes & frozenset(str(scope).split())
    subjects = {"person": frozenset({client}), "clinician": frozenset(listed)}.get(role)
    return Principal(client, role, subjects, scopes)


def read_keys(file: Path) -> dict[str, Principal]:
    """Read API keys: sha256 of the key → who it belongs to.

    Raises:
        ConfigError: the file cannot be read, or an entry is incomplete.
    """
    keys = {}
    for number, entry in enumerate(read_entries(file), 1):
        try:
            client, role, digest = str(entry["client_id"]), entry["role"], entry["sha256"]
            if role not in ROLES or len(digest) != 64:
                raise ValueError("role or sha256 is wrong")
            check_client(client)
            name = client if role == "person" else KEY_CLIENT + client  # a person's key stands for that subject
            keys[digest] = make_principal(name, role, list(entry.get("subjects", ())), entry.get("scope"))
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise ConfigError(f"{file}: entry {number} cannot be used ({error}): remove it") from None
    return keys


def read_entries(file: Path) -> list[dict[str, Any]]:
    """Read the entries of a file of keys.

    Raises:
        ConfigError: it cannot be read, or is no list.
    """
    try:
        entries = read_json(file)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "it is no JSON"
        raise ConfigError(f"{file} cannot be read ({reason}): make it with `python -m bentos.keys add`") from None
    if not isinstance(entries, list):
        raise ConfigError(f"{file} is no list of keys: make it with `python -m bentos.keys add`")
    return entries


def check_client(client: str) -> None:
    """Check the name of a client.

    Raises:
        ValueError: it is blank or too long, or could be mistaken for another one.
    """
    if not is_id(client) or client.startswith(KEY_CLIENT):
        raise ValueError(f"client_id {client!r} is blank, too long, not printable, or begins with {KEY_CLIENT!r}")


def unauthorised(detail: str) -> ProblemError:
    """Make the error of a caller that cannot be identified."""
    return ProblemError(401, "unauthorised", detail, headers={"www-authenticate": "Bearer"})


def is_id(value: Any) -> bool:
    """Tell whether a value is a printable id without space around it."""
    return isinstance(value, str) and 0 < len(value.strip()) == len(value) <= LONGEST_ID and value.isprintable()
