"""Quantised graphs: int8 with scales by channel and row, and float16.

Matrix products take weights of 8 bits, with a scale for every output channel, and activations that are rounded to 8
bits as they come. Token tables are kept in 8 bits with a scale for every row. All else stays in float32.
"""

from collections.abc import Collection
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from efficientbert.train.cli.quiet import quiet_logs
from efficientbert.train.files.writing import writing
from efficientbert.train.runtimes.graph import module_of


CPU_FLAGS = Path("/proc/cpuinfo")
TABLE = 1_000_000  # numbers of a table that is worth 8 bits


def find_products(path: Path) -> dict[str, str]:
    """The products with weights in a graph: names of their operators, with the modules that they come from."""
    graph = onnx.load(path).graph
    weights = {tensor.name for tensor in graph.initializer}
    return {
        node.name: module_of(node)
        for node in graph.node
        if (node.op_type == "MatMul" and node.input[1] in weights)
        or (node.op_type == "Gemm" and node.input[1] in weights)
    }


def write_int8(source: Path, target: Path, kept: Collection[str] = (), reduce_range: bool = False) -> None:
    """Writes a graph in int8.

    Args:
        source: The graph in float32.
        target: The file to write.
        kept: Names of products that stay in float32.
        reduce_range: Whether weights have 7 bits, so that no sum of two products overflows on machines without VNNI.
    """
    from onnxruntime.quantization import QuantType, quantize_dynamic

    with writing(target) as temporary, quiet_logs():
        quantize_dynamic(
            source,
            temporary,
            op_types_to_quantize=["MatMul", "Gemm"],
            per_channel=True,
            reduce_range=reduce_range,
            weight_type=QuantType.QInt8,
            nodes_to_exclude=list(kept),
            extra_options={"MatMulConstBOnly": True},
        )
        model = onnx.load(temporary)
        shrink_tables(model.graph)
        onnx.save(model, temporary)


def shrink_tables(graph: onnx.GraphProto) -> None:
    """Keeps large tables that rows are taken from in 8 bits, each row with a scale of its own."""
    tables = {tensor.name: tensor for tensor in graph.initializer}
    for node in list(graph.node):
        table = tables.get(node.input[0]) if node.op_type == "Gather" else None
        if table is None or len(table.dims) != 2 or np.prod(table.dims) < TABLE:
            continue
        if sum(table.name in other.input for other in graph.node) > 1:
            continue  # the decoder of a masked-LM head reads it, too
        values = numpy_helper.to_array(table).astype(np.float32)
        scales = np.abs(values).max(1, keepdims=True) / 127
        scales[scales == 0] = 1.0
        rows = np.rint(values / scales).astype(np.int8)
        name = table.name
        graph.initializer.remove(table)
        graph.initializer.extend(
            [
                numpy_helper.from_array(rows, f"{name}_int8"),
                numpy_helper.from_array(scales, f"{name}_scales"),
            ]
        )
        ids, out = node.input[1], node.output[0]
        place = list(graph.node).index(node)
        graph.node.remove(node)
        made = [
            helper.make_node("Gather", [f"{name}_int8", ids], [f"{out}_int8"], f"{node.name}_rows"),
            helper.make_node("Gather", [f"{name}_scales", ids], [f"{out}_scales"], f"{node.name}_scales"),
            helper.make_node("Cast", [f"{out}_int8"], [f"{out}_float"], f"{node.name}_cast", to=TensorProto.FLOAT),
            helper.make_node("Mul", [f"{out}_float", f"{out}_scales"], [out], f"{node.name}_scaled"),
        ]
        for offset, one in enumerate(made):
            graph.node.insert(place + offset, one)


def write_float16(source: Path, target: Path) -> None:
    """Writes a graph with weights in float16; inputs and outputs stay what they are.

    Args:
        source: The graph in float32.
        target: The file to write.
    """
    from onnxruntime.transformers.float16 import convert_float_to_float16

    converted = convert_float_to_float16(onnx.load(source), keep_io_types=True)
    with writing(target) as temporary:
        onnx.save(converted, temporary)


def has_vnni(flags: Path = CPU_FLAGS) -> bool:
    """Whether this machine multiplies 8-bit numbers without overflow between the steps of a sum."""
    try:
        return "vnni" in flags.read_text(encoding="utf-8")
    except OSError:
        return False
