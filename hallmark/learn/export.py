"""Export a trained network to ONNX, in float32 or 8 bits, and run it with ONNX Runtime.

What is exported lies beside the weights it was made from; whoever opens the model's directory finds it there.
"""

import logging
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from hallmark.errors import ConfigError
from hallmark.files import readable

NETWORK = "network.onnx"
OPSET = 18
OUTPUT = "output_"  # before their names: an exporter calls its own steps mean, sum …
BLOCK = 32  # weights that share a scale
REQUIREMENT = "onnxruntime"


@dataclass(frozen=True)
class Onnx:
    """A form in which a model is packaged.

    Attributes:
        int8: also keep the weights of matrix products in eight bits, a scale for every 32 of them. Activations are
            rounded block by block too, never over a batch: what is answered depends on no other row.
        most_drift: bound on how much that changes what answers rest on: the 99th percentile of the change, as a share
            of the standard deviation over test.
    """

    int8: bool
    most_drift: float

    def __post_init__(self) -> None:
        if not self.most_drift > 0:
            raise ValueError(f"most_drift={self.most_drift} must be positive")


def export(
    module: nn.Module,
    example: Mapping[str, Tensor],
    dynamic: Mapping[str, Sequence[str]],
    outputs: Sequence[str],
    directory: Path,
    form: Onnx,
) -> None:
    """Write a network into a directory; the same network gives the same bytes.

    Args:
        module: `forward(**example)` returns one tensor an output.
        example: inputs of any sizes.
        dynamic: input → names of its leading dimensions that may have other sizes; the same name, the same size.
        outputs: names.
        directory: of the weights.
        form: in which form.

    Raises:
        ConfigError: the exporter is not installed.
    """
    try:
        import onnx
        import onnxscript  # noqa: F401, torch's exporter asks for it
        from onnxruntime.quantization import matmul_nbits_quantizer as bits
        from onnxruntime.quantization.onnx_model import ONNXModel
    except ImportError as error:
        raise ConfigError(
            f"package.form needs {error.name}: `pip install hallmark[onnx]`, or choose package=standard"
        ) from error
    sizes: dict[str, Any] = {}
    shapes = {
        name: {i: sizes.setdefault(size, torch.export.Dim(size, min=1)) for i, size in enumerate(dynamic.get(name, ()))}
        for name in example
    }
    for name in ("onnxscript", "onnx_ir", "torch.onnx"):  # what they optimise is of no interest
        logging.getLogger(name).setLevel(logging.ERROR)
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # so is what they will deprecate
        made = torch.onnx.export(
            module.eval(),
            kwargs=dict(example),
            dynamo=True,
            dynamic_shapes=shapes,
            input_names=list(example),
            output_names=[OUTPUT + name for name in outputs],
            opset_version=OPSET,
            verbose=False,
        )
    assert made is not None
    model = made.model_proto
    for node in [*model.graph.node, *model.graph.value_info, *(n for f in model.functions for n in f.node)]:
        del node.metadata_props[:]  # stack traces: paths of this machine
        node.doc_string = ""
    del model.metadata_props[:], model.graph.metadata_props[:]
    if form.int8:
        logging.getLogger(bits.__name__).setLevel(logging.WARNING)
        plain = ONNXModel(model)
        plain.replace_gemm_with_matmul()
        how = bits.DefaultWeightOnlyQuantConfig(block_size=BLOCK, is_symmetric=True, accuracy_level=4, bits=8)
        quantizer = bits.MatMulNBitsQuantizer(plain.model, algo_config=how)
        quantizer.process()
        model = quantizer.model.model
    onnx.save(model, str(directory / NETWORK))


class Exported(nn.Module):
    """An exported network behind the call of the one it was made from; one thread."""

    def __init__(self, directory: Path) -> None:
        super().__init__()
        try:
            import onnxruntime
        except ImportError as error:
            raise ConfigError(f"{directory / NETWORK} needs onnxruntime: `pip install onnxruntime`") from error
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        with readable(directory / NETWORK, "package the model again: `dvc repro package`"):
            try:
                self.session = onnxruntime.InferenceSession(
                    str(directory / NETWORK), options, providers=["CPUExecutionProvider"]
                )
            except Exception as error:  # the runtime's own errors have no common family
                raise ValueError(str(error)) from error
        self.outputs = [output.name.removeprefix(OUTPUT) for output in self.session.get_outputs()]
        self.inputs = [given.name for given in self.session.get_inputs()]
        self.width = self.session.get_outputs()[0].shape[-1]

    def forward(self, **inputs: Tensor) -> dict[str, Tensor]:
        """Run it; returns every output by its name. What it does not take is left out."""
        found = self.session.run(None, {name: inputs[name].numpy() for name in self.inputs})
        return {name: torch.from_numpy(value) for name, value in zip(self.outputs, found, strict=True)}


class ExportedEncoder(Exported):
    """An exported `Encoder`."""

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:  # type: ignore[override]
        """Encode, (B, T) → (B, D)."""
        [found] = super().forward(input_ids=input_ids, attention_mask=attention_mask).values()
        return found


def export_encoder(encoder: nn.Module, directory: Path, form: Onnx) -> None:
    """Write an `Encoder`, its factors merged, into its model's directory."""
    ids = torch.arange(2 * 7).reshape(2, 7) + 5
    example = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    sizes = ("texts", "tokens")
    export(encoder, example, dict.fromkeys(example, sizes), ["vector"], directory, form)
