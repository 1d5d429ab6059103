"""The hash tree: one root for the same adapters in any order, a proof for each, and nothing passes for another."""

import hashlib
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hallmark.adapters.tree import HashTree, check_proof
from hallmark.errors import BundleError


def digest_of(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def many(count: int) -> dict[str, str]:
    return {f"person-{i}": digest_of(str(i)) for i in range(count)}


def test_every_adapter_is_proven_by_the_root_alone() -> None:
    tree = HashTree(many(300))
    for subject_id, digest in many(300).items():
        check_proof(tree.root, subject_id, digest, tree.prove(subject_id))


@pytest.mark.parametrize("count", [0, 1, 2, 3, 17])
def test_small_trees_prove_too(count: int) -> None:
    tree = HashTree(many(count))
    for subject_id, digest in many(count).items():
        check_proof(tree.root, subject_id, digest, tree.prove(subject_id))
    with pytest.raises(KeyError):
        tree.prove("nobody")


def test_what_is_not_in_the_tree_is_refused() -> None:
    tree = HashTree(many(50))
    proof, right = tree.prove("person-7"), digest_of("7")
    with pytest.raises(BundleError, match="was changed after it was packed"):
        check_proof(tree.root, "person-7", digest_of("8"), proof)
    with pytest.raises(BundleError, match="was changed after it was packed"):
        check_proof(tree.root, "person-8", right, proof)
    forged = replace(proof, bucket={**proof.bucket, "mallory": digest_of("m")})
    with pytest.raises(BundleError, match="not in the hash tree"):
        check_proof(tree.root, "mallory", digest_of("m"), forged)
    with pytest.raises(BundleError, match="not in the hash tree"):
        check_proof(HashTree(many(49)).root, "person-7", right, proof)
    for level in range(len(proof.siblings)):
        siblings = list(proof.siblings)
        siblings[level] = bytes(32)
        with pytest.raises(BundleError, match="not in the hash tree"):
            check_proof(tree.root, "person-7", right, replace(proof, siblings=tuple(siblings)))


def test_an_inner_node_does_not_pass_for_a_bucket() -> None:
    tree = HashTree(many(40))
    proof = tree.prove("person-7")
    with pytest.raises(BundleError, match="not in the hash tree"):
        check_proof(tree.root, "person-7", digest_of("7"), replace(proof, siblings=proof.siblings[1:]))


@settings(deadline=None, max_examples=40)
@given(st.lists(st.tuples(st.integers(0, 30), st.integers(-1, 3)), max_size=60))
def test_a_tree_that_was_changed_is_the_tree_that_is_built_anew(steps: list[tuple[int, int]]) -> None:
    tree, known = HashTree({}, bits=4), dict[str, str]()
    for person, version in steps:
        name = f"p{person}"
        if version < 0 and name in known:
            del known[name]
            assert tree.remove(name) == 5
        elif version >= 0:
            known[name] = digest_of(str(version))
            assert tree.put(name, known[name]) == 5
    assert tree.root == HashTree(known, bits=4).root == HashTree(dict(reversed(known.items())), bits=4).root


def test_adding_or_removing_one_of_ten_thousand_rehashes_one_path() -> None:
    tree = HashTree(many(10_000))
    before = tree.root
    assert tree.put("newcomer", digest_of("new")) == 15  # 2¹⁴ buckets: a bucket and 14 levels
    assert tree.root != before
    assert tree.remove("newcomer") == 15
    assert tree.root == before
    with pytest.raises(KeyError):
        tree.remove("newcomer")
