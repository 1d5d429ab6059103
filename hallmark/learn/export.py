"""Export a trained network to ONNX, in float32 or 8 bits, and run it with ONNX Runtime.

The exported network is in the same directory as the weights it was made from; loading the model prefers it.
"""

import logging
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from hallmark.build import Positive, configuration
from hallmark.errors import ConfigError
from hallmark.files import as_bundle_error

NETWORK = "network.onnx"
OPSET = 18
OUTPUT = "output_"  # prefix of output names: the exporter uses names like mean and sum itself
BLOCK = 32  # weights with a common scale
REQUIREMENT = "onnxruntime"


@configuration
class Onnx:
    """Packaging as an ONNX network.

    Attributes:
        int8: quantise the weights of matrix products to eight bits, with a scale for every 32 of them. Activations are
            quantised in blocks too, never over a batch: an answer does not depend on the other rows.
        max_drift: bound on the 99th percentile of the absolute change of the outputs, relative to their standard
            deviation over test.
    """

    int8: bool
    max_drift: Positive


def export(
    module: nn.Module,
    example: Mapping[str, Tensor],
    dynamic: Mapping[str, Sequence[str]],
    outputs: Sequence[str],
    directory: Path,
    form: Onnx,
) -> None:
    """Export a network to ONNX; the same network gives the same bytes.

    Args:
        module: `forward(**example)` returns one tensor per output.
        example: example inputs, of any sizes.
        dynamic: input → names of its leading dimensions of variable size; equal names have equal sizes.
        outputs: names of the outputs.
        directory: directory of the weights, which the network is written into.
        form: settings of the export.

    Raises:
        ConfigError: the exporter is not installed.
    """
    try:
        import onnx
        import onnxscript  # noqa: F401, torch's exporter needs it
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
    for name in ("onnxscript", "onnx_ir", "torch.onnx"):  # hide messages about graph optimisations
        logging.getLogger(name).setLevel(logging.ERROR)
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # hide deprecation warnings of the exporter
        program = torch.onnx.export(
            module.eval(),
            kwargs=dict(example),
            dynamo=True,
            dynamic_shapes=shapes,
            input_names=list(example),
            output_names=[OUTPUT + name for name in outputs],
            opset_version=OPSET,
            verbose=False,
        )
    assert program is not None
    model = program.model_proto
    for node in [*model.graph.node, *model.graph.value_info, *(inner for f in model.functions for inner in f.node)]:
        del node.metadata_props[:]  # stack traces contain paths of this machine
        node.doc_string = ""
    del model.metadata_props[:], model.graph.metadata_props[:]
    if form.int8:
        logging.getLogger(bits.__name__).setLevel(logging.WARNING)
        onnx_model = ONNXModel(model)
        onnx_model.replace_gemm_with_matmul()
        settings = bits.DefaultWeightOnlyQuantConfig(block_size=BLOCK, is_symmetric=True, accuracy_level=4, bits=8)
        quantizer = bits.MatMulNBitsQuantizer(onnx_model.model, algo_config=settings)
        quantizer.process()
        model = quantizer.model.model
    onnx.save(model, str(directory / NETWORK))


class Exported(nn.Module):
    """An exported network with the `forward` of the original module; it runs on one thread."""

    def __init__(self, directory: Path) -> None:
        super().__init__()
        try:
            import onnxruntime
        except ImportError as error:
            raise ConfigError(f"{directory / NETWORK} needs onnxruntime: `pip install onnxruntime`") from error
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        with as_bundle_error(directory / NETWORK, "package the model again: `dvc repro package`"):
            try:
                self.session = onnxruntime.InferenceSession(
                    str(directory / NETWORK), options, providers=["CPUExecutionProvider"]
                )
            except Exception as error:  # errors of the runtime have no common base class
                raise ValueError(str(error)) from error
        self.has_cuda = "CUDAExecutionProvider" in onnxruntime.get_available_providers()
        self.outputs = [output.name.removeprefix(OUTPUT) for output in self.session.get_outputs()]
        self.inputs = [model_input.name for model_input in self.session.get_inputs()]
        self.width = self.session.get_outputs()[0].shape[-1]

    def use_cuda(self) -> None:
        """Run on a CUDA device from now on.

        Raises:
            ConfigError: this onnxruntime has no provider for it.
        """
        if not self.has_cuda:
            raise ConfigError("device=cuda: onnxruntime here has no provider for CUDA: install onnxruntime-gpu")
        self.session.set_providers(["CUDAExecutionProvider", "CPUExecutionProvider"])

    def forward(self, **inputs: Tensor) -> dict[str, Tensor]:
        """Run the network; returns its outputs by name. Inputs that the network does not have are ignored."""
        outputs = self.session.run(None, {name: inputs[name].numpy() for name in self.inputs})
        return {name: torch.from_numpy(value) for name, value in zip(self.outputs, outputs, strict=True)}


class ExportedEncoder(Exported):
    """An exported `Encoder`."""

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:  # type: ignore[override]
        """Encode texts, (B, T) → (B, D)."""
        [encoded] = super().forward(input_ids=input_ids, attention_mask=attention_mask).values()
        return encoded


def export_encoder(encoder: nn.Module, directory: Path, form: Onnx) -> None:
    """Export an `Encoder`, with low-rank factors merged, into the model's directory."""
    ids = torch.arange(2 * 7).reshape(2, 7) + 5
    example = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    dimensions = ("texts", "tokens")
    export(encoder, example, dict.fromkeys(example, dimensions), ["vector"], directory, form)
