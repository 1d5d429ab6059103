"""Keys and tokens: what is not exactly right is refused, and the reason repeats nothing of it."""

import base64
import json
import time
from pathlib import Path
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from bentos.identity import Identity
from bentos.keys import main as keys
from bentos.problems import ProblemError
from bentos.settings import AuthSettings, JwtSettings
from hallmark.errors import ConfigError

SECRET = "a-secret-of-more-than-32-bytes-for-the-tests"
KNOWN = {"issuer": "https://project.example/auth/v1", "audience": "authenticated"}
HS256 = JwtSettings(algorithms=["HS256"], secret=SECRET, **KNOWN)


def claims(**changes: Any) -> dict[str, Any]:
    """What Supabase puts into the token of a signed-in user."""
    values = {
        "iss": KNOWN["issuer"],
        "aud": KNOWN["audience"],
        "sub": "11111111-1111-4111-8111-111111111111",
        "exp": int(time.time()) + 600,
        "iat": int(time.time()),
        "role": "authenticated",
        "aal": "aal1",
        "session_id": "22222222-2222-4222-8222-222222222222",
        "email": "ada@example.org",
        "app_metadata": {"provider": "email", "providers": ["email"]},
        "user_metadata": {"hallmark_role": "admin", "subjects": ["ben"]},  # its user may write here
        "is_anonymous": False,
    }
    return {name: value for name, value in {**values, **changes}.items() if value is not None}


def identify(token: str, settings: JwtSettings = HS256) -> Any:
    return Identity(AuthSettings(jwt=settings)).identify(f"Bearer {token}", None)


def test_a_token_of_supabase_works_as_it_comes() -> None:
    principal = identify(jwt.encode(claims(), SECRET, "HS256"))
    assert (principal.client_id, principal.role) == (claims()["sub"], "person")
    assert principal.subjects == {claims()["sub"]}, "what its user wrote into user_metadata gives no right"


def test_the_server_names_the_people_of_a_clinician() -> None:
    metadata = {"hallmark_role": "clinician", "subjects": ["ada", "ben"]}
    principal = identify(jwt.encode(claims(app_metadata=metadata), SECRET, "HS256"))
    assert (principal.role, principal.subjects) == ("clinician", {"ada", "ben"})


def test_a_scope_narrows_what_a_role_may_do_and_never_widens_it() -> None:
    principal = identify(jwt.encode(claims(scope="read metrics"), SECRET, "HS256"))
    assert principal.scopes == {"read"}


REFUSED: dict[str, Any] = {
    "expired": claims(exp=int(time.time()) - 60),
    "no expiry": claims(exp=None),
    "another issuer": claims(iss="https://other.example"),
    "no issuer": claims(iss=None),
    "another audience": claims(aud="other"),
    "a list of audiences": claims(aud=["authenticated", "other"]),
    "no audience": claims(aud=None),
    "no subject": claims(sub=None),
    "an empty subject": claims(sub=""),
    "a blank subject": claims(sub=" "),
    "a subject that is a number": claims(sub=7),
    "a subject like an API key's client": claims(sub="key:app"),
    "a long subject": claims(sub="x" * 201),
    "an anonymous role": claims(role="anon"),
    "the role that bypasses row-level security": claims(role="service_role"),
    "an unknown role": claims(app_metadata={"hallmark_role": "root"}),
    "subjects that are no list": claims(app_metadata={"hallmark_role": "clinician", "subjects": "ada"}),
    "metadata that are no mapping": claims(app_metadata=["admin"]),
    "not valid yet": claims(nbf=int(time.time()) + 600),
}


@pytest.mark.parametrize("why", list(REFUSED))
def test_claims_that_are_not_right_are_refused(why: str) -> None:
    try:
        token = jwt.encode(REFUSED[why], SECRET, "HS256")
    except TypeError:  # PyJWT refuses to sign a subject that is no text: sign it by hand
        body = REFUSED[why]
        token = jwt.api_jws.encode(json.dumps(body).encode(), SECRET, "HS256")
    with pytest.raises(ProblemError) as refused:
        identify(token)
    assert refused.value.problem.status == 401
    assert "ada" not in refused.value.problem.detail


def part(value: Any) -> str:
    return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=").decode()


def forged() -> dict[str, str]:
    """Tokens that nobody signed with the right key."""
    private = rsa.generate_private_key(65537, 2048)
    public = private.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    good = jwt.encode(claims(), SECRET, "HS256")
    head, _, signature = good.split(".")
    return {
        "no algorithm": f"{part({'alg': 'none', 'typ': 'JWT'})}.{part(claims())}.",
        "no algorithm, in capitals": f"{part({'alg': 'NONE'})}.{part(claims())}.",
        "another key": jwt.encode(claims(), "another-secret-that-is-long-enough-too", "HS256"),
        "another algorithm": jwt.encode(claims(), private, "RS256"),
        "another algorithm of the same secret": jwt.encode(claims(), SECRET * 2, "HS512"),
        "another body": f"{head}.{part(claims(sub='ben'))}.{signature}",
        "no signature": f"{head}.{part(claims())}.",
        "a public key as a secret": f"{part({'alg': 'HS256', 'kid': public.decode()})}.{part(claims())}.{signature}",
        "a key that it brings along": jwt.encode(
            claims(), "x" * 40, "HS256", headers={"jwk": {"kty": "oct", "k": "eA"}}
        ),
        "a header that is no JSON": f"AAAA.{part(claims())}.{signature}",
        "two parts": "a.b",
        "nothing": "..",
    }


@pytest.mark.parametrize("why", list(forged()))
def test_a_forged_token_is_refused(why: str) -> None:
    with pytest.raises(ProblemError) as refused:
        identify(forged()[why])
    assert refused.value.problem.status == 401


def test_public_keys_verify_tokens_and_their_ids_choose_the_key(tmp_path: Path) -> None:
    first, second = rsa.generate_private_key(65537, 2048), ec.generate_private_key(ec.SECP256R1())
    jwks = []
    for private, algorithm, name in (
        (first, jwt.algorithms.RSAAlgorithm, "a"),
        (second, jwt.algorithms.ECAlgorithm, "b"),
    ):
        jwks.append({**json.loads(algorithm.to_jwk(private.public_key())), "kid": name})
    (tmp_path / "jwks.json").write_text(json.dumps({"keys": jwks}))
    settings = JwtSettings(algorithms=["RS256", "ES256"], jwks_file=tmp_path / "jwks.json", **KNOWN)
    assert identify(jwt.encode(claims(), first, "RS256", headers={"kid": "a"}), settings).role == "person"
    assert identify(jwt.encode(claims(), second, "ES256", headers={"kid": "b"}), settings).role == "person"
    for kid in ("b", "c", None):
        with pytest.raises(ProblemError):
            identify(jwt.encode(claims(), first, "RS256", headers={"kid": kid} if kid else None), settings)


def test_a_public_key_is_never_a_secret(tmp_path: Path) -> None:
    """The confusion of algorithms: a token signed by HS256 with the text of the public key."""
    private = rsa.generate_private_key(65537, 2048)
    pem = private.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    (tmp_path / "key.pem").write_bytes(pem)
    settings = JwtSettings(algorithms=["RS256"], public_key_file=tmp_path / "key.pem", **KNOWN)
    assert identify(jwt.encode(claims(), private, "RS256"), settings).role == "person"
    head = part({"alg": "HS256", "typ": "JWT"})
    body = part(claims())
    import hashlib
    import hmac

    signed = hmac.new(pem, f"{head}.{body}".encode(), hashlib.sha256).digest()
    with pytest.raises(ProblemError):
        identify(f"{head}.{body}.{base64.urlsafe_b64encode(signed).rstrip(b'=').decode()}", settings)


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"algorithms": ["HS256"], "secret": "short"}, "at least 32 bytes"),
        ({"algorithms": ["HS256", "RS256"], "secret": SECRET}, "belongs to HS256 alone"),
        ({"algorithms": ["RS256"]}, "exactly one of"),
        ({"algorithms": ["none"], "secret": SECRET}, "Input should be 'HS256'"),
    ],
)
def test_settings_that_would_accept_too_much_are_refused(settings: dict[str, Any], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        JwtSettings(**settings, **KNOWN)


def test_keys_are_made_listed_and_removed_and_only_their_digest_is_kept(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "keys.json"
    assert keys(["--file", str(file), "add", "doctor", "--role", "clinician", "--subjects", "ada,ben"]) == 0
    key = capsys.readouterr().out.strip()
    assert key not in file.read_text()
    assert file.stat().st_mode & 0o077 == 0
    principal = Identity(AuthSettings(keys_file=file)).identify(None, key)
    assert (principal.client_id, principal.subjects) == ("key:doctor", {"ada", "ben"})
    with pytest.raises(ProblemError):
        Identity(AuthSettings(keys_file=file)).identify(None, key + "x")
    assert keys(["--file", str(file), "list"]) == 0
    assert capsys.readouterr().out.split() == ["clinician", "doctor"]
    assert keys(["--file", str(file), "remove", "doctor"]) == 0
    with pytest.raises(ProblemError):
        Identity(AuthSettings(keys_file=file)).identify(None, key)
    assert keys(["--file", str(file), "remove", "doctor"]) == 1


def test_a_person_key_stands_for_that_subject_and_no_other_key_can_be_mistaken_for_one(tmp_path: Path) -> None:
    file = tmp_path / "keys.json"
    file.write_text(json.dumps([{"client_id": "key:app", "role": "person", "sha256": "a" * 64}]))
    with pytest.raises(ConfigError, match="begins with 'key:'"):
        Identity(AuthSettings(keys_file=file))


def test_keys_that_are_added_or_removed_count_at_the_next_call(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "keys.json"
    keys(["--file", str(file), "add", "first", "--role", "service"])
    first = capsys.readouterr().out.strip()
    identity = Identity(AuthSettings(keys_file=file))
    keys(["--file", str(file), "add", "second", "--role", "service"])
    second = capsys.readouterr().out.strip()
    assert identity.identify(None, second).client_id == "key:second"
    keys(["--file", str(file), "remove", "first"])
    with pytest.raises(ProblemError):
        identity.identify(None, first)
    file.write_text("{broken")
    assert identity.identify(None, second).client_id == "key:second"


@pytest.mark.parametrize("client", ["", " ", " a ", "key:x", "a\0b", "x" * 201])
def test_a_client_that_the_service_would_refuse_gets_no_key(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], client: str
) -> None:
    assert keys(["--file", str(tmp_path / "keys.json"), "add", client, "--role", "service"]) == 1
    assert len(capsys.readouterr().err.splitlines()) == 1
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("text", ["{broken", '{"a": 1}', "[1]"])
def test_a_broken_file_of_keys_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str) -> None:
    (tmp_path / "keys.json").write_text(text)
    with pytest.raises(ConfigError):
        Identity(AuthSettings(keys_file=tmp_path / "keys.json"))
    if text != "[1]":
        assert keys(["--file", str(tmp_path / "keys.json"), "list"]) == 1
        assert len(capsys.readouterr().err.splitlines()) == 1


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("--role", "service", "--subjects", "ada"), "a key of role service takes no --subjects"),
        (("--role", "clinician"), "a key of role clinician needs --subjects"),
    ],
)
def test_subjects_belong_to_a_clinicians_key(
    arguments: tuple[str, ...], told: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "keys.json"
    assert keys(["--file", str(file), "add", "app", *arguments]) == 1
    assert told in capsys.readouterr().err
    assert not file.exists()
