"""python -m bentos.keys add CLIENT --role service: make an API key; the file keeps only its sha256."""

import argparse
import os
import secrets
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bentos.identity import ROLES, check_client, hash_key, read_entries
from hallmark.errors import ConfigError, HallmarkError
from hallmark.files import write_json

DEFAULT = Path(".records/keys.json")


def main(arguments: Sequence[str]) -> int:
    """Add, list or remove keys; return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m bentos.keys", description=__doc__)
    parser.add_argument("--file", type=Path, default=Path(os.environ.get("HALLMARK_AUTH__KEYS_FILE", DEFAULT)))
    commands = parser.add_subparsers(dest="command", required=True)
    add = commands.add_parser("add", help="make a key and print it, once")
    add.add_argument("client", help="name of the client; of a person, its subject_id")
    add.add_argument("--role", choices=ROLES, required=True)
    add.add_argument("--subjects", default="", help="subjects of a clinician, separated by commas")
    commands.add_parser("list", help="list clients and roles")
    remove = commands.add_parser("remove", help="remove every key of a client")
    remove.add_argument("client")
    options = parser.parse_args(arguments)
    try:
        entries = read_entries(options.file) if options.file.is_file() else []
        if options.command == "add":
            if options.role == "clinician" and not options.subjects:
                raise ConfigError("a key of role clinician needs --subjects")
            if options.role != "clinician" and options.subjects:
                raise ConfigError(f"a key of role {options.role} takes no --subjects: a clinician's key does")
            key, entry = make_key(options.client, options.role, [s for s in options.subjects.split(",") if s])
            write_keys(options.file, [*entries, entry])
            print(key)
            print(f"kept in {options.file}: its sha256 alone, so write the key down", file=sys.stderr)
        elif options.command == "remove":
            kept = [entry for entry in entries if entry["client_id"] != options.client]
            if len(kept) == len(entries):
                raise ConfigError(f"{options.file} has no key of {options.client!r}")
            write_keys(options.file, kept)
        else:
            for entry in entries:
                print(f"{entry['role']:10} {entry['client_id']}")
    except HallmarkError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def make_key(client: str, role: str, subjects: Sequence[str] = ()) -> tuple[str, dict[str, Any]]:
    """Make a random key of 256 bits; returns it, and what is kept of it."""
    try:
        check_client(client)
    except ValueError as error:
        raise ConfigError(str(error)) from None
    key = f"hk_{secrets.token_urlsafe(32)}"
    return key, {"client_id": client, "role": role, "subjects": list(subjects), "sha256": hash_key(key)}


def write_keys(file: Path, entries: Sequence[dict[str, Any]]) -> None:
    """Write the file of keys; only its owner can read it."""
    try:
        write_json(file, list(entries))
        file.chmod(0o600)
    except OSError as error:
        raise ConfigError(f"{file} cannot be written ({error.strerror}): name another with --file") from None


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
