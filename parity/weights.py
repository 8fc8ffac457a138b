"""Weights between PyTorch, Jittor and files: strict, bitwise, and the same for both frameworks.

Jittor's own `load_state_dict` accepts missing, unexpected, mis-shaped and non-finite tensors without
a word, and takes over the file's dtype. Here each of these raises an error that names the tensor,
before anything is changed.

A file is safetensors, with the names that both zoos share; `read` also takes a PyTorch checkpoint
(`.pth`, `.pt`) and a file of `jt.save` (`.pkl`), of which only tensors are ever unpickled.
"""
from __future__ import annotations

import contextlib
import hashlib
import os
import pickle
import re
import warnings
import zipfile
from pathlib import Path

import numpy as np

from training.errors import UserError
from training.files import atomic_write, is_text

from . import jittor_file

COUNTER = "num_batches_tracked"
_HASH = "parity.sha256"
# torchvision's DenseNet files of 2017 have names such as denselayer1.norm.1.weight.
_OLD_DENSENET = re.compile(r"(denselayer\d+\.(?:norm|relu|conv))\.([12]\.)")

# What a safetensors file can hold: its header keeps this name for notes.
_RESERVED = "__metadata__"
_DTYPES = ("bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64", "float16",
           "float32", "float64", "complex64")


class WeightError(UserError):
    """A tensor is missing, unexpected, of the wrong shape or dtype, or not finite; or a file is
    not what it should be. The message names the tensor or the file."""


def framework(model) -> str:
    """"torch" or "jittor". Raises TypeError for anything else."""
    for base in type(model).__mro__:
        if base.__name__ == "Module" and base.__module__.split(".")[0] in ("torch", "jittor"):
            return base.__module__.split(".")[0]
    raise TypeError(f"not a torch or Jittor module: {type(model).__name__}")


def tensors(model) -> dict[str, np.ndarray]:
    """Every parameter and buffer of a model of either framework, as copies, in order of definition.

    A BatchNorm's `num_batches_tracked` is an int64 scalar; Jittor's own BatchNorm has none.
    """
    if framework(model) == "torch":
        return {name: t.detach().cpu().numpy().copy() for name, t in model.state_dict().items()}
    import jittor as jt
    jt.sync_all(True)  # all that is pending at once, not again for each tensor
    found = {name: np.array(var.numpy()) for name, var in variables(model).items()}
    found.update((name, np.array(getattr(module, COUNTER), "int64"))
                 for name, module in _counters(model).items())
    return found


def names(model) -> list[str]:
    """Names of what `tensors` gives, without copying anything."""
    counters = [] if framework(model) == "torch" else list(_counters(model))
    return [*variables(model), *counters]


def variables(model) -> dict:
    """Every tensor of a model of either framework by name, in order of definition, a tied one under each
    of its names. (Jittor's `state_dict` knows the first only.)"""
    if framework(model) == "torch":
        return model.state_dict()
    import jittor as jt
    stored = {id(var) for var in model.state_dict().values()}
    found = {}
    for path, module in model.named_modules():
        own = module.params if isinstance(module, jt.nn.ParameterList) else vars(module)
        found.update((f"{path}.{name}".lstrip("."), value) for name, value in own.items()
                     if id(value) in stored and not str(name).startswith("_"))
    return found


def _counters(model) -> dict:
    """Name of the counter -> module, for the Jittor modules that count their batches."""
    return {f"{name}.{COUNTER}".lstrip("."): module for name, module in model.named_modules()
            if hasattr(module, COUNTER)}


def load(model, arrays: dict[str, np.ndarray]) -> None:
    """Put `arrays` into a model of either framework; all or nothing.

    The names must be exactly the model's. One exception: `num_batches_tracked`, which only a
    BatchNorm with momentum=None ever reads. Where the model has none (Jittor's own BatchNorm) it
    is dropped; where `arrays` has none at all (PyTorch before 0.4.1) the model's are set to 0.
    Whole numbers may be wider on one side and a single number may be [] or [1]: Jittor makes int64
    into int32 and has no 0-d tensors.

    Args:
        arrays: name -> array; dtype and shape must be the model's, but for what is said above.

    Raises:
        WeightError: a name is missing or unexpected; a shape, dtype or value is wrong.
    """
    own = _forms(model)
    if not any(name.endswith(COUNTER) for name in own):
        arrays = {name: a for name, a in arrays.items() if not name.endswith(COUNTER)}
    elif not any(name.endswith(COUNTER) for name in arrays):
        arrays = {**arrays, **{name: a for name, a in own.items() if name.endswith(COUNTER)}}
    arrays = {name: fitted(a, own[name]) if name in own else a for name, a in arrays.items()}
    _check(own, arrays)
    if framework(model) == "torch":
        import torch
        with torch.no_grad():
            for name, tensor in model.state_dict().items():
                tensor.copy_(torch.from_numpy(np.require(arrays[name], requirements=["C", "W"])))
        return
    import jittor as jt
    targets = variables(model)
    first: dict[int, str] = {}
    for name, var in targets.items():
        other = first.setdefault(id(var), name)
        if other != name and not np.array_equal(arrays[name], arrays[other]):
            raise WeightError(f"{other} and {name} are one tensor in this net; their weights differ")
    for name, module in _counters(model).items():
        setattr(module, COUNTER, int(arrays[name]))
    with jt.flag_scope(auto_convert_64_to_32=0):
        for name, var in targets.items():
            var.update(jt.array(np.array(arrays[name])))
            var.sync(False, False)


def _forms(model) -> dict[str, np.ndarray]:
    """Zeros of the shape and dtype of each tensor, in no memory."""
    found = {name: np.broadcast_to(np.zeros((), str(t.dtype).rpartition(".")[2]), tuple(t.shape))
             for name, t in variables(model).items()}
    if framework(model) == "jittor":
        found.update((name, np.zeros((), "int64")) for name in _counters(model))
    return found


def fitted(array: np.ndarray, own: np.ndarray) -> np.ndarray:
    """`array` as a model stores it that has `own` in its place, if no value changes (see `load`)."""
    if array.size == own.size == 1 and array.ndim + own.ndim == 1:
        array = array.reshape(own.shape)
    if array.dtype.kind == own.dtype.kind == "i":
        same = array.astype(own.dtype)
        array = same if np.array_equal(same, array) else array
    return array


def _check(own: dict, arrays: dict) -> None:
    missing = [name for name in own if name not in arrays]
    unexpected = [name for name in arrays if name not in own]
    if missing or unexpected:
        parts = [f"{len(names)} {kind}: {', '.join(names[:3])}{', ...' if len(names) > 3 else ''}"
                 for kind, names in (("missing", missing), ("unexpected", unexpected)) if names]
        raise WeightError("the weights do not fit this net; tensors " + "; ".join(parts))
    for name, want in own.items():
        got = arrays[name]
        if got.shape != want.shape:
            raise WeightError(f"{name} has shape {got.shape}, this net needs {want.shape}")
        if got.dtype != want.dtype:
            raise WeightError(f"{name} has dtype {got.dtype}, this net needs {want.dtype}")
        if got.dtype.kind == "f" and not np.isfinite(got).all():
            raise WeightError(f"{name} holds {int((~np.isfinite(got)).sum())} values "
                              "that are not finite")


def convert(source, target, key_map: dict[str, str] | None = None) -> None:
    """Copy all weights and buffers from one model to the other, in either direction, bitwise.

    Args:
        key_map: name in `source` -> name in `target`, for models whose names differ; must name
            every tensor of the source once. None: the names are equal.

    Raises:
        WeightError: as `load`, or a key map that is not one to one.
    """
    arrays = tensors(source)
    if key_map is not None:
        unmapped = sorted(set(arrays) ^ set(key_map))
        if unmapped:
            raise WeightError(f"the key map must name exactly the source's tensors; not so for "
                              f"{unmapped[0]}")
        if len(set(key_map.values())) != len(key_map):
            values = list(key_map.values())
            twice = next(v for v in values if values.count(v) > 1)
            raise WeightError(f"the key map is not one to one: two tensors go to {twice}")
        arrays = {key_map[name]: a for name, a in arrays.items()}
    load(target, arrays)


def sha256(arrays: dict[str, np.ndarray], notes: dict[str, str] | None = None) -> str:
    """Hex SHA-256 of names, dtypes, shapes and bytes, whatever their order, and of notes."""
    digest = hashlib.sha256(repr(sorted((notes or {}).items())).encode() if notes else b"")
    for name in sorted(arrays):
        digest.update(f"{name} {arrays[name].dtype} {arrays[name].shape}".encode())
        digest.update(np.ascontiguousarray(arrays[name]))
    return digest.hexdigest()


def save(path: str | Path, arrays: dict[str, np.ndarray], metadata: dict[str, str] | None = None) -> None:
    """Write a safetensors file, atomically: a killed process or a full disk leaves no partial file. Its
    metadata get a hash of the rest, so that `read` notices damage.

    Raises:
        WeightError: such a file cannot hold a tensor of this name or dtype.
    """
    from safetensors.numpy import save as serialise
    _check_storable(path, arrays)
    contiguous = {name: np.array(a, dtype=a.dtype.newbyteorder("="), order="C") for name, a in arrays.items()}
    with atomic_write(Path(path)) as file:
        file.write(serialise(contiguous, {**(metadata or {}), _HASH: sha256(contiguous, metadata)}))


def _check_storable(path: str | Path, arrays: dict[str, np.ndarray]) -> None:
    for name, array in arrays.items():
        if name == _RESERVED or not is_text(name):
            raise WeightError(f"{path}: no tensor of a weights file may be named {name!r}")
        dtype = str(array.dtype.newbyteorder("="))
        if dtype not in _DTYPES:
            raise WeightError(f"{path}: {name} has dtype {dtype}; allowed are {', '.join(_DTYPES)}")


def read(path: str | Path) -> dict[str, np.ndarray]:
    """All tensors of a safetensors file, a PyTorch checkpoint (`.pth`, `.pt`) or a file of `jt.save`
    (`.pkl`).

    Of the last two only tensors are unpickled, so no code in them runs; they may be a state dict or
    hold one under "state_dict" or "model". Checksums are compared where a file has them.

    Raises:
        WeightError: the file is missing, damaged, or of another kind; or it holds a name or dtype that `save`
            would refuse.
    """
    path = Path(path)
    if not path.is_file():
        raise WeightError(f"no such weights file: {path}")
    with open(path, "rb") as file:
        start = file.read(4)
        file.seek(-min(len(jittor_file.MARK), path.stat().st_size), os.SEEK_END)
        end = file.read()
    if end == jittor_file.MARK:
        arrays = _read_jittor(path)
    elif start == b"PK\x03\x04" or start[:1] == b"\x80":  # a zip archive or a pickle, as torch writes
        arrays = _read_torch(path)
    else:
        arrays = _read_safetensors(path)
    _check_storable(path, arrays)
    return arrays


def metadata(path: str | Path) -> dict[str, str]:
    """The notes that `save` put into a safetensors file that `read` accepts. Raises WeightError if it is no
    such file."""
    with _safetensors(path) as file:
        return {name: note for name, note in (file.metadata() or {}).items() if name != _HASH}


@contextlib.contextmanager
def _safetensors(path: str | Path):
    """The open file; WeightError for whatever is wrong with it until it is closed."""
    from safetensors import safe_open
    try:
        with safe_open(str(path), "numpy") as file:
            yield file
    except Exception as error:  # for a shape or dtype that numpy does not have, numpy's own
        raise WeightError(f"{path} is not a readable safetensors file: {error}") from error


def _read_safetensors(path: Path) -> dict[str, np.ndarray]:
    with _safetensors(path) as file:
        arrays = {name: file.get_tensor(name) for name in file.keys()}
        notes = file.metadata() or {}
    expected = notes.pop(_HASH, None)
    if expected and expected != sha256(arrays, notes):
        raise WeightError(f"{path} is damaged: its content is not what was saved")
    return arrays


def _check_archive(path: Path) -> None:
    """Compare the checksums of a zip archive, as torch writes it; `torch.load` does not.

    Raises:
        zipfile.BadZipFile: one is wrong.
    """
    if not zipfile.is_zipfile(path):
        return
    with zipfile.ZipFile(path) as archive:
        for member in archive.infolist():
            if member.CRC:  # torch can be told to write none
                with archive.open(member) as file:
                    while file.read(1 << 20):
                        pass


def _state_dict(path: Path, content, kind: type) -> dict:
    for key in ("state_dict", "model"):
        if isinstance(content, dict) and isinstance(content.get(key), dict):
            content = content[key]
    if not isinstance(content, dict) or not all(
            isinstance(name, str) and isinstance(value, kind) for name, value in content.items()):
        raise WeightError(f"{path} holds no state dict (names -> tensors)")
    return content


def _read_jittor(path: Path) -> dict[str, np.ndarray]:
    try:
        content = jittor_file.read(path.read_bytes())
    except Exception as error:  # whatever a pickle of another kind may raise
        raise WeightError(f"{path} is not a readable file of jt.save: {error}") from error
    return _state_dict(path, content, np.ndarray)


def _read_torch(path: Path) -> dict[str, np.ndarray]:
    import torch
    try:
        _check_archive(path)
        with warnings.catch_warnings():  # of how the file was pickled
            warnings.simplefilter("ignore")
            content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises a dozen types for a damaged or unsafe file
        # Where torch refuses objects, its own message advises to load the file unsafely.
        refused = isinstance(error, pickle.UnpicklingError) or "weights_only" in str(error)
        reason = ("it holds objects other than tensors" if refused
                  else f"{type(error).__name__}: {error}".splitlines()[0])
        raise WeightError(f"{path} is not a readable PyTorch checkpoint: {reason}") from error
    arrays = {}
    for name, tensor in _state_dict(path, content, torch.Tensor).items():
        try:
            array = tensor.detach().resolve_conj().contiguous().numpy()
        except (TypeError, RuntimeError) as error:  # bfloat16, sparse, meta: numpy has none of these
            raise WeightError(f"{name} in {path} cannot be converted: {tensor.dtype} on "
                              f"{tensor.device}") from error
        new = _OLD_DENSENET.sub(r"\1\2", name)
        if new in arrays:
            raise WeightError(f"{path} holds {new} twice: under this name and as torchvision used to call it")
        arrays[new] = array
    return arrays
