"""python -m benchmarks.kernel_bits: digests of what the numeric libraries compute, to compare two kinds of CPU.

The same inputs, made from integers, go through the operations that training and prediction consist of. Where a digest
is not that of `benchmarks/kernel_bits.json`, which another machine wrote, the operation adds in another order or rounds
otherwise there: the first thing to look at when dvc.lock differs between two machines. `--write` replaces the file.
"""

import argparse
import hashlib
import json
import math
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn import functional

from hallmark.prove.provenance import describe_machine

RECORDED = Path(__file__).with_suffix(".json")
ROWS = (1, 4, 16, 64)  # of a product: libraries choose their kernel by it


def main() -> None:
    """Compute every digest and compare it with the recorded one."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true", help="record the digests of this machine")
    options = parser.parse_args()
    torch.set_num_threads(1)
    digests = {name: digest(compute()) for name, compute in operations()}
    if options.write:
        content = {"machine": describe_machine(), "digests": digests}
        RECORDED.write_text(json.dumps(content, indent=1, sort_keys=True) + "\n")
    recorded = json.loads(RECORDED.read_text())
    different = [name for name, found in digests.items() if recorded["digests"].get(name) != found]
    print(f"recorded on {json.dumps(recorded['machine'])}")
    print(f"here        {json.dumps(describe_machine())}")
    print(f"{len(digests) - len(different)} of {len(digests)} operations have the recorded bits")
    for name in different:
        print(f"  differs: {name}")


def digest(values: Any) -> str:
    """Return the sha256 of some arrays, tensors or floats."""
    parts = values if isinstance(values, tuple | list) else [values]
    plain = [part.detach().numpy() if isinstance(part, torch.Tensor) else np.asarray(part) for part in parts]
    return hashlib.sha256(b"".join(np.ascontiguousarray(part).tobytes() for part in plain)).hexdigest()[:16]


def numbers(*shape: int, seed: int = 1, dtype: Any = np.float32) -> Any:
    """Return numbers between -2 and 2 that no library has rounded: multiples of 2⁻²⁰ from a linear congruence."""
    count, state, values = math.prod(shape), seed, []
    for _ in range(count):
        state = (state * 6364136223846793005 + 1442695040888963407) % 2**64
        values.append((state >> 42) - 2**21)
    return (np.asarray(values, dtype=np.float64) / 2**20).astype(dtype).reshape(shape)


def tensor(*shape: int, seed: int = 1, grad: bool = False) -> torch.Tensor:
    """Return `numbers` as a tensor."""
    return torch.from_numpy(numbers(*shape, seed=seed)).requires_grad_(grad)


def operations() -> Iterator[tuple[str, Callable[[], Any]]]:
    """Yield the name of every operation, and the function that computes it."""
    yield from of_numpy()
    yield from of_torch()
    yield from of_training()
    values = [float(x) for x in numbers(2000, dtype=np.float64)]
    yield (
        "libm: exp, log, sin, pow",
        lambda: [[math.exp(x), math.log(x + 3), math.sin(x), (x + 3) ** 1.7] for x in values],
    )


def of_numpy() -> Iterator[tuple[str, Callable[[], Any]]]:
    """Products, solutions and functions of numpy and scipy: OpenBLAS, and numpy's own loops."""
    from scipy import linalg

    for dtype in (np.float32, np.float64):
        kind = np.dtype(dtype).name
        square = numbers(160, 160, dtype=dtype)
        normal = square @ square.T + 160 * np.eye(160, dtype=dtype)
        right = numbers(160, 24, seed=2, dtype=dtype)
        for rows in ROWS:
            yield f"numpy {kind}: product of {rows} rows", partial(np.matmul, numbers(rows, 160, dtype=dtype), square)
        yield f"numpy {kind}: product of 600 rows", partial(np.matmul, numbers(600, 160, dtype=dtype), square)
        yield f"numpy {kind}: solve", partial(np.linalg.solve, normal, right)
        yield f"scipy {kind}: solve, positive definite", partial(linalg.solve, normal, right, assume_a="pos")
        yield f"numpy {kind}: eigenvalues", partial(np.linalg.eigvalsh, normal)
        flat = numbers(5000, dtype=dtype)
        for function in (np.exp, np.sin, np.tanh, np.expm1):
            yield f"numpy {kind}: {function.__name__}", partial(function, flat)
        yield f"numpy {kind}: log", partial(np.log, flat + dtype(3))
        yield f"numpy {kind}: sum, std", lambda flat=flat: [flat.sum(), flat.std(), flat.reshape(50, 100).mean(axis=0)]


def of_torch() -> Iterator[tuple[str, Callable[[], Any]]]:
    """Products and functions of torch: MKL, oneDNN, and ATen's own loops."""
    for rows in ROWS:
        yield (
            f"torch: linear of {rows} rows",
            partial(functional.linear, tensor(rows, 160), tensor(96, 160), tensor(96)),
        )
    yield "torch: product of 600 rows", partial(torch.mm, tensor(600, 160), tensor(160, 96))
    yield "torch: product of 600 rows, transposed", partial(torch.mm, tensor(160, 600).T, tensor(96, 160).T)
    yield "torch: batch of products", partial(torch.bmm, tensor(12, 40, 32), tensor(12, 32, 40))
    yield "torch: solve", lambda: torch.linalg.solve(tensor(60, 60) + 60 * torch.eye(60), tensor(60, 5))
    flat = tensor(5000)
    for function in (torch.exp, torch.expm1, torch.tanh, torch.sigmoid, torch.erf, torch.sin):
        yield f"torch: {function.__name__}", partial(function, flat)
    for function in (functional.gelu, functional.silu, functional.softplus):
        yield f"torch: {function.__name__}", partial(function, flat)
    yield "torch: log, sqrt, rsqrt", lambda: [torch.log(flat + 3), torch.sqrt(flat + 3), torch.rsqrt(flat + 3)]
    yield "torch: pow", lambda: torch.pow(flat + 3, 1.7)
    yield "torch: sum, std", lambda: [flat.sum(), flat.std(), flat.reshape(50, 100).mean(dim=0)]
    yield "torch: softmax", lambda: [torch.softmax(tensor(40, 112), -1), torch.log_softmax(tensor(40, 112), -1)]


def of_training() -> Iterator[tuple[str, Callable[[], Any]]]:
    """Layers with their gradients, and a step of the optimiser."""

    def gradients(output: Callable[..., torch.Tensor], *leaves: torch.Tensor) -> list[Any]:
        result = output(*leaves)
        result.backward(tensor(*result.shape, seed=9))
        return [result, *(leaf.grad for leaf in leaves)]

    def leaf(*shape: int, seed: int) -> torch.Tensor:
        return tensor(*shape, seed=seed, grad=True)

    yield (
        "torch: linear, with gradients",
        lambda: gradients(functional.linear, leaf(64, 160, seed=1), leaf(96, 160, seed=2), leaf(96, seed=3)),
    )
    yield (
        "torch: layer norm, with gradients",
        lambda: gradients(
            lambda x, w, b: functional.layer_norm(x, (128,), w, b),
            leaf(64, 128, seed=1),
            leaf(128, seed=2),
            leaf(128, seed=3),
        ),
    )
    yield (
        "torch: attention, with gradients",
        lambda: gradients(
            functional.scaled_dot_product_attention, *(leaf(4, 4, 48, 16, seed=seed) for seed in (1, 2, 3))
        ),
    )
    yield (
        "torch: convolution, with gradients",
        lambda: gradients(functional.conv1d, leaf(8, 4, 96, seed=1), leaf(16, 4, 12, seed=2), leaf(16, seed=3)),
    )
    yield "torch: gelu, with gradients", lambda: gradients(functional.gelu, leaf(64, 128, seed=1))

    def step() -> list[torch.Tensor]:
        weight = leaf(64, 64, seed=1)
        optimiser = torch.optim.AdamW([weight], lr=1e-2)
        for seed in range(3):
            weight.grad = tensor(64, 64, seed=seed + 2)
            torch.nn.utils.clip_grad_norm_([weight], 1.0)
            optimiser.step()
        return [weight]

    yield "torch: three steps of AdamW", step


if __name__ == "__main__":
    main()
