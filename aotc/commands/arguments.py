"""Arguments that several subcommands share: flags in, an Options value (or checked numbers) out."""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from aotc.config import (
    GOALS,
    NUMERICS,
    PRECISIONS,
    WEIGHTS_DTYPES,
    WEIGHTS_PLACES,
    DimSize,
    InputShape,
    Options,
)
from aotc.errors import UsageError
from aotc.regions import read_bytes, read_regions


def add_model_arguments(
    parser: argparse.ArgumentParser, default_cpu: str | None = None, several: bool = False
) -> None:
    """The model file (``models`` if there may be several) and what specialises it; ``default_cpu``
    is what --cpu is when left out."""
    if several:
        text = "the ONNX or TFLite file; several make one object of many entries (give a --name)"
        parser.add_argument("models", type=Path, nargs="+", metavar="model", help=text)
    else:
        parser.add_argument("model", type=Path, help="the ONNX or TFLite file")
    parser.add_argument(
        "--target",
        default="x86_64",
        help="the architecture, see `aotc targets`; x86_64 (the default) means x86-64-v3",
    )
    parser.add_argument(
        "--cpu",
        default=default_cpu,
        help="a processor by LLVM's name, an x86-64-vN level, or native"
        + (f" (default: {default_cpu})" if default_cpu else ""),
    )
    _add_device_arguments(parser)
    parser.add_argument("--abi", help="the calling convention by LLVM's name, e.g. ilp32f")
    parser.add_argument(
        "--numerics",
        choices=NUMERICS,
        default="fma",
        help="no-fma rounds products before they are added, as targets without fused multiply-add "
        "do, so that results are the same bytes as theirs",
    )
    parser.add_argument(
        "--opt", choices=GOALS, default="speed", help="fast code (the default), or small code"
    )
    parser.add_argument(
        "--weights-dtype",
        choices=WEIGHTS_DTYPES,
        help="round float32 weights of products, convolutions and tables to this type and store "
        "them so; they become float32 in registers (see docs/weights.md)",
    )
    _add_memory_arguments(parser)
    parser.add_argument(
        "--dim",
        action="append",
        default=[],
        metavar="NAME=N",
        help="bind a symbolic dimension, e.g. batch=1, or leave its size to each run within a "
        "range, e.g. seq=1..512"
        + (", or make an entry for each of several sizes, e.g. batch=1,8,32" if several else "")
        + "; may be repeated",
    )
    parser.add_argument(
        "--input-shape",
        action="append",
        default=[],
        metavar="INPUT=D,D,...",
        help="fix the shape of an input, e.g. x=1,3,224,224; a sequence has one for each element, "
        "e.g. s=3,4;5,4; (each ends with a semicolon), an optional input that is absent has "
        "x=none; may be repeated",
    )
    parser.add_argument(
        "--max",
        action="append",
        default=[],
        metavar="NAME=N",
        help="the most that a size known at run time only can be, by the value's name, or by * for "
        "all that nothing else bounds; may be repeated",
    )
    parser.add_argument(
        "--outputs",
        metavar="A,B",
        help="compute only these outputs, in this order",
    )
    parser.add_argument("--name", help="what the C symbols start with (default: from the file)")


def _add_device_arguments(parser: argparse.ArgumentParser) -> None:
    """--arch SM,..., --host TARGET and --precision TYPE."""
    parser.add_argument(
        "--arch", metavar="SM,...", help="for --target cuda: the architectures of the GPUs, e.g. "
        "sm_80,sm_90 (default: sm_80; PTX of the lowest runs on later ones)"
    )
    parser.add_argument(
        "--host", default="x86_64", help="for --target cuda: x86_64 (the default) or aarch64"
    )
    parser.add_argument(
        "--precision",
        choices=PRECISIONS,
        help="for --target cuda: what products of float32 are computed in (default: tf32, or f16 "
        "or bf16 if all products of the model are of that type); sums are float32",
    )


def _add_memory_arguments(parser: argparse.ArgumentParser) -> None:
    """--ram BYTES and --region NAME=SIZE."""
    parser.add_argument(
        "--ram",
        metavar="BYTES",
        help="the most bytes that the workspace may have, e.g. 96K or 2M: if need be, the first "
        "layers are computed by stripes, which takes more work",
    )
    parser.add_argument(
        "--region",
        action="append",
        default=[],
        metavar="NAME=SIZE",
        help="a memory of the device, e.g. flash=1M, sram=256K or fast=64K:rw,cost=1: what is used "
        "most is placed in the fastest in which it fits; may be repeated (see docs/targets.md)",
    )


def add_threads_argument(parser: argparse.ArgumentParser) -> None:
    """--threads, a switch."""
    parser.add_argument(
        "--threads",
        action="store_true",
        help="add NAME_run_threads, which shares the work among a pool (see runtime/aotc_pool.h)",
    )


def add_recipes_argument(parser: argparse.ArgumentParser) -> None:
    """--recipes FILE."""
    parser.add_argument(
        "--recipes",
        type=Path,
        metavar="FILE",
        help="schedules found by tuning: kernels that the file knows are built by it",
    )


def add_weights_argument(parser: argparse.ArgumentParser) -> None:
    """--weights object|file."""
    parser.add_argument(
        "--weights",
        choices=WEIGHTS_PLACES,
        default="object",
        help="put the weights into the object, or into a file beside it",
    )


def read_options(args: argparse.Namespace) -> Options:
    """The Options that the flags ask for; UsageError names the flag that does not parse."""
    dims = read_pairs(args.dim, "--dim")
    lists = {name: _read_sizes(value, f"--dim {name}") for name, value in dims if "," in value}
    if lists and args.command != "compile":
        name, sizes = next(iter(lists.items()))
        raise UsageError(
            f"`aotc {args.command}` takes one size of '{name}' at a time",
            remedy=f"give one of them: --dim {name}={sizes[0] if sizes else 1}",
        )
    return Options(
        target=args.target,
        cpu=args.cpu,
        dims={
            name: _read_dim(value, f"--dim {name}") for name, value in dims if name not in lists
        },
        sizes=lists,
        input_shapes={
            name: _read_shape(value, f"--input-shape {name}")
            for name, value in read_pairs(args.input_shape, "--input-shape")
        },
        bounds={
            name: _read_size(value, f"--max {name}")
            for name, value in read_pairs(args.max, "--max")
        },
        outputs=None if args.outputs is None else tuple(filter(None, args.outputs.split(","))),
        name=args.name,
        weights=getattr(args, "weights", "object"),
        threads=getattr(args, "threads", False) is True,
        recipes=getattr(args, "recipes", None),
        numerics=args.numerics,
        abi=args.abi,
        opt=args.opt,
        ram=None if args.ram is None else read_bytes(args.ram, "--ram"),
        regions=read_regions(args.region),
        weights_dtype=args.weights_dtype,
        arch=args.arch,
        host=args.host,
        precision=args.precision,
    )


def read_files(texts: Iterable[str], flag: str) -> dict[str, Path]:
    """NAME=FILE pairs of a repeatable flag."""
    return {name: Path(value) for name, value in read_pairs(texts, flag)}


def load_arrays(files: dict[str, Path]) -> dict[str, np.ndarray]:
    """The arrays of .npy files by name; UsageError for what cannot be read or would need
    unpickling."""
    arrays = {}
    for name, path in files.items():
        try:
            loaded = np.load(path, allow_pickle=False)
        except (OSError, ValueError, EOFError) as error:
            reason = getattr(error, "strerror", None) or str(error).splitlines()[0]
            raise UsageError(
                f"cannot read input '{name}': {reason}",
                where=str(path),
                remedy="give a file that numpy.save wrote, as in --input x=x.npy",
            ) from None
        if not isinstance(loaded, np.ndarray):
            raise UsageError(
                f"input '{name}' is an archive of arrays, not one array",
                where=str(path),
                remedy="give a file that numpy.save wrote",
            )
        arrays[name] = loaded
    return arrays


def read_pairs(texts: Iterable[str], flag: str) -> list[tuple[str, str]]:
    """NAME=VALUE pairs of a repeatable flag; UsageError for others, and for a name given twice."""
    found: dict[str, str] = {}
    for text in texts:
        # Names in a model may hold anything, '=' too; values never do, except in paths of files.
        name, equals, value = text.partition("=")
        if not (name and equals):
            raise UsageError(f"cannot read '{flag} {text}'", remedy=f"write {flag} NAME=VALUE")
        if name in found:
            raise UsageError(f"{flag} gives '{name}' twice", remedy="give it once")
        found[name] = value
    return list(found.items())


def _read_shape(text: str, flag: str) -> InputShape:
    """The shape of a tensor, those of a sequence's elements, or None for an absent value."""
    if text == "none":
        return None
    if ";" in text:
        return tuple(_read_sizes(item, flag) for item in text.removesuffix(";").split(";"))
    return _read_sizes(text, flag)


def _read_sizes(text: str, flag: str) -> tuple[int, ...]:
    return tuple(_read_size(size, flag) for size in text.split(",") if size)


def _read_dim(text: str, flag: str) -> DimSize:
    """A size, or two of them as in 1..512."""
    low, dots, high = text.partition("..")
    return (_read_size(low, flag), _read_size(high, flag)) if dots else _read_size(text, flag)


def _read_size(text: str, flag: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise UsageError(
            f"'{text}' is not a number", where=flag, remedy=f"write {flag}= and whole numbers"
        ) from None
