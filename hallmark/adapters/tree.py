"""Hash tree of adapters: one root vouches for many, one adapter is proven alone, a change rehashes one path.

A Merkle tree over buckets: a subject's bucket is given by the first bits of the sha256 of its id, so that the root
depends on the adapters alone and not on the order in which they came. Leaves and inner nodes are hashed with different
first bytes, as in RFC 6962, so that none can be passed off as the other.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass

from hallmark.errors import BundleError

MOST_BITS = 24  # 16 million buckets


@dataclass(frozen=True)
class Proof:
    """What shows that an adapter hangs in a tree, to whoever knows the root alone.

    Attributes:
        bucket: subject_id → sha256 of the adapter, of all in its bucket.
        siblings: digests beside the path from the bucket to the top, the lowest first.
    """

    bucket: Mapping[str, str]
    siblings: tuple[bytes, ...]


class HashTree:
    """Digests of adapters under one root.

    Args:
        digests: subject_id → sha256 of its adapter, hexadecimal.
        bits: logarithm of the number of buckets; by default there is about one adapter a bucket. A tree that has grown
            far beyond stays right, and is cheaper once it is built anew.
    """

    def __init__(self, digests: Mapping[str, str], bits: int | None = None) -> None:
        self.bits = min(max(len(digests) - 1, 1).bit_length(), MOST_BITS) if bits is None else bits
        self._buckets: dict[int, dict[str, str]] = {}
        for subject_id, digest in digests.items():
            self._buckets.setdefault(_bucket(subject_id, self.bits), {})[subject_id] = digest
        empty = _leaf({})
        level = [empty] * (1 << self.bits)
        for place, bucket in self._buckets.items():
            level[place] = _leaf(bucket)
        self._levels = [level]
        while len(level) > 1:
            level = [_node(level[i], level[i + 1]) for i in range(0, len(level), 2)]
            self._levels.append(level)

    @property
    def root(self) -> str:
        """Digest of everything in the tree, hexadecimal."""
        return _root(self.bits, self._levels[-1][0])

    def put(self, subject_id: str, digest: str) -> int:
        """Add or replace an adapter; returns how many hashes were computed."""
        place = _bucket(subject_id, self.bits)
        self._buckets.setdefault(place, {})[subject_id] = digest
        return self._rehash(place)

    def remove(self, subject_id: str) -> int:
        """Remove an adapter; returns how many hashes were computed.

        Raises:
            KeyError: it is not in the tree.
        """
        place = _bucket(subject_id, self.bits)
        del self._buckets.get(place, {})[subject_id]
        return self._rehash(place)

    def prove(self, subject_id: str) -> Proof:
        """Return the proof for an adapter.

        Raises:
            KeyError: it is not in the tree.
        """
        place = _bucket(subject_id, self.bits)
        bucket = self._buckets.get(place, {})
        if subject_id not in bucket:
            raise KeyError(subject_id)
        return Proof(dict(bucket), tuple(level[(place >> i) ^ 1] for i, level in enumerate(self._levels[:-1])))

    def _rehash(self, place: int) -> int:
        self._levels[0][place] = _leaf(self._buckets.get(place, {}))
        for below, above in zip(self._levels, self._levels[1:], strict=False):
            place >>= 1
            above[place] = _node(below[2 * place], below[2 * place + 1])
        return len(self._levels)


def check_proof(root: str, subject_id: str, digest: str, proof: Proof) -> None:
    """Check that a root vouches for an adapter.

    Raises:
        BundleError: the adapter is not the one in the tree, or the proof is of another tree.
    """
    if proof.bucket.get(subject_id) != digest:
        raise BundleError("adapter was changed after it was packed (sha256)")
    place, top = _bucket(subject_id, len(proof.siblings)), _leaf(proof.bucket)
    for sibling in proof.siblings:
        top = _node(sibling, top) if place & 1 else _node(top, sibling)
        place >>= 1
    if _root(len(proof.siblings), top) != root:
        raise BundleError("adapter is not in the hash tree of this bundle")


def _bucket(subject_id: str, bits: int) -> int:
    return int.from_bytes(hashlib.sha256(subject_id.encode()).digest()[:4], "big") >> (32 - bits)


def _leaf(bucket: Mapping[str, str]) -> bytes:
    state = hashlib.sha256(b"\x00")
    for subject_id, digest in sorted(bucket.items()):
        name = subject_id.encode()
        state.update(len(name).to_bytes(4, "big") + name + bytes.fromhex(digest))
    return state.digest()


def _node(left: bytes, right: bytes) -> bytes:
    return hashlib.sha256(b"\x01" + left + right).digest()


def _root(bits: int, top: bytes) -> str:
    """Digest the top with the number of levels: trees of other depths have other roots."""
    return hashlib.sha256(b"\x02" + bytes([bits]) + top).hexdigest()
