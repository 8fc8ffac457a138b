"""Which tensor of the Jittor model is which of the PyTorch model.

Equal names are the map. Otherwise candidates are made from the order of definition, from the order
in which the layers run and from the structure of the module tree; a candidate must be one to one with
equal shapes. If the candidates differ, the one under which the outputs of both models agree by far
better in float64 is the map; if none does, that is an error that shows them. So is a map that takes numbered
layers of one shape out of their order: two layers that a port has confused look like that.
"""
from __future__ import annotations

import itertools
import re
from pathlib import Path

from training.errors import UserError, did_you_mean
from training.files import read_json

from . import weights
from .weights import COUNTER


class KeyMapError(UserError):
    """The tensors of the two models cannot be mapped one to one, or in more than one way."""


class Mismatch(KeyMapError):
    """The two models do not have the same tensors: one is missing, left over, or of another shape."""


def shapes(model) -> dict[str, tuple[int, ...]]:
    """Shape of every parameter and buffer in order of definition, counters of batches left out."""
    return {name: tuple(t.shape) or (1,) for name, t in weights.variables(model).items()
            if not name.endswith(COUNTER)}


def _constants(model) -> set[str]:
    """Names of what a model stores and never changes: buffers that are no running statistics, in Jittor
    Vars that take no gradient."""
    if weights.framework(model) == "torch":
        found = {name for name, _ in model.named_buffers(remove_duplicate=False)}
    else:
        found = {name for name, var in weights.variables(model).items() if var.is_stop_grad()}
    return {name for name in found if not name.endswith(("running_mean", "running_var"))}


def _stored(jittor_model, torch_model, named: set[str]) -> tuple[dict, dict]:
    """`shapes` of both models without the constants that the other one does not store.

    Args:
        named: names of constants that a map speaks of.
    """
    models = jittor_model, torch_model
    sides = shapes(jittor_model), shapes(torch_model)
    for model, own, other in zip(models, sides, sides[::-1]):
        constants = _constants(model) - named - set(other)
        for name in [name for name in own if name in constants]:
            if [*own.values()].count(own[name]) > [*other.values()].count(own[name]):
                del own[name]
    return sides


def read(path: str | Path) -> dict[str, str]:
    """A key map from a JSON file: {"name in Jittor": "name in PyTorch", ...}.

    Raises:
        KeyMapError: no such file, or something else in it.
    """
    try:
        found = read_json(path, pipe=True)
    except (OSError, ValueError) as error:
        raise KeyMapError(f"{path} is not a readable key map: {error}") from error
    if not isinstance(found, dict) or not all(isinstance(v, str) for v in found.values()):
        raise KeyMapError(f'{path} must hold {{"name in Jittor": "name in PyTorch", ...}}')
    return found


def check(jittor_model, torch_model, key_map: dict[str, str]) -> dict[str, str]:
    """`key_map` with prefixes expanded and the batch counters added.

    Args:
        key_map: tensor names, or module paths, which stand for all tensors below them; names that
            no entry covers stand for themselves.

    Raises:
        KeyMapError: an entry names nothing; two tensors go to one; a tensor of either side is left
            over; shapes differ.
    """
    ours, theirs = _stored(jittor_model, torch_model, {*key_map, *key_map.values()})
    used = set()
    found = {}
    for name in ours:
        prefixes = [k for k in key_map if name == k or name.startswith(f"{k}.")]
        key = max(prefixes, key=len, default=None)
        used.add(key)
        found[name] = name if key is None else key_map[key] + name[len(key):]
    unused = [key for key in key_map if key not in used]
    if unused:
        known = {name for tensor in ours for name in (tensor, tensor.rpartition(".")[0])}
        raise KeyMapError(f"the key map names {unused[0]!r}, which the Jittor model does not have"
                          + did_you_mean(unused[0], known))
    problem = _problem(found, ours, theirs)
    if problem:
        raise Mismatch(problem)
    return _with_counters(found, jittor_model, torch_model)


def _problem(found: dict, ours: dict, theirs: dict) -> str:
    """What is wrong with a map; empty if it is one to one with equal shapes."""
    targets = list(found.values())
    twice = next((t for t in targets if targets.count(t) > 1), None)
    if twice:
        both = " and ".join(name for name, t in found.items() if t == twice)
        return f"the key map is not one to one: {both} both go to {twice}"
    for name, target in found.items():
        if target not in theirs:
            return f"{name} of the Jittor model goes to {target}, which the PyTorch model does not have"
        if ours[name] != theirs[target]:
            return (f"{name} has shape {list(ours[name])} in Jittor, {target} has "
                    f"{list(theirs[target])} in PyTorch")
    left = [name for name in theirs if name not in targets]
    return f"{left[0]} of the PyTorch model is in no tensor of the Jittor model" if left else ""


def _with_counters(found: dict, jittor_model, torch_model) -> dict[str, str]:
    """The map with the batch counters of normalisation layers, where both sides have them."""
    theirs = set(torch_model.state_dict())
    extended = dict(found)
    for name in weights.names(jittor_model):
        if name.endswith(COUNTER):
            layer = name[:-len(COUNTER)]
            mean = found.get(f"{layer}running_mean", "")
            target = mean[:-len("running_mean")] + COUNTER
            if mean and target in theirs:
                extended[name] = target
    return extended


def infer(jittor_model, torch_model, distance, calls) -> tuple[dict[str, str], str]:
    """The key map of two models.

    Args:
        distance: function of a map that tells how far the outputs of both models lie apart under it.
        calls: function without arguments that gives the paths of the modules with own parameters in
            the order in which they run, as (of Jittor, of PyTorch).

    Returns:
        name in the Jittor model -> name in the PyTorch model, batch counters included; and, where the
        outputs alone tell that this is the map, what it might be otherwise.

    Raises:
        KeyMapError: no map fits, or several do.
    """
    ours, theirs = _stored(jittor_model, torch_model, set())
    if set(ours) == set(theirs):
        wrong = next((n for n in ours if ours[n] != theirs[n]), None)
        if wrong:
            raise Mismatch(f"{wrong} has shape {list(ours[wrong])} in Jittor and "
                              f"{list(theirs[wrong])} in PyTorch")
        return _with_counters({name: name for name in ours}, jittor_model, torch_model), ""
    if sorted(ours.values()) != sorted(theirs.values()):
        raise Mismatch(_difference(ours, theirs) + _in_lists(jittor_model) + _in_lists(torch_model))
    candidates: dict[str, dict[str, str]] = {}
    for how, make in (("order of definition", lambda: _by_order(ours, theirs)),
                      ("order of execution", lambda: _by_calls(ours, theirs, *calls())),
                      ("module tree", lambda: _by_tree(ours, theirs))):
        found = make()
        if found and not _problem(found, ours, theirs) and found not in candidates.values():
            candidates[how] = found
    if not candidates:
        raise KeyMapError("the tensors have the same shapes but neither their order of definition nor "
                          "that of execution maps them one to one; give a key map (--map FILE, "
                          '{"name in Jittor": "name in PyTorch"}). ' + _leftover(ours, theirs))
    whole = {how: _with_counters(found, jittor_model, torch_model) for how, found in candidates.items()}
    how, doubt = next(iter(whole)), ""
    if len(candidates) > 1:
        distances = {how: distance(found) for how, found in whole.items()}
        how, second = sorted(distances, key=distances.get)[:2]
        # A wrong map is off by the size of the output; a faulty port under the right map is often nearer.
        if distances[how] >= 1e-2 or distances[second] <= 100 * distances[how]:
            apart = ", ".join(f"{how}: {d:.1e}" for how, d in distances.items())
            raise KeyMapError(_ambiguous(candidates, f"The outputs do not tell (relative difference: {apart})"))
        doubt = _doubt(candidates, how)
    numbered = _by_number(candidates[how], ours)
    if numbered != candidates[how]:
        raise KeyMapError(_ambiguous({how: candidates[how], "numbers in the names": numbered},
                                     "Either these numbers mean nothing, or layers are confused"))
    return whole[how], doubt


def _by_number(found: dict[str, str], shapes: dict[str, tuple[int, ...]]) -> dict[str, str]:
    """The map with tensors of one shape, whose names differ in numbers alone on either side, in the order of
    their numbers."""
    def numbers(name):
        return [int(n) for n in re.findall(r"\d+", name)]

    groups: dict[tuple, tuple[list[str], list[str]]] = {}
    for pair in found.items():
        group = groups.setdefault((shapes[pair[0]], *(re.sub(r"\d+", "0", name) for name in pair)), ([], []))
        for names, name in zip(group, pair):
            names.append(name)
    return {name: target for group in groups.values()
            for name, target in zip(*(sorted(names, key=numbers) for names in group))}


def _doubt(candidates: dict[str, dict[str, str]], how: str) -> str:
    """What the map might be but for the outputs."""
    found = candidates[how]
    other, instead = next(item for item in candidates.items() if item[0] != how)
    name = next(name for name in found if found[name] != instead[name])
    return (f"the names do not tell. By the {how}, {name} is {found[name]}, and by the {other} "
            f"{instead[name]}; taken was the first, under which the outputs agree. If weights are to "
            "load in another way, give a key map")


def _by_order(ours: dict, theirs: dict) -> dict[str, str] | None:
    """Tensor by tensor in order of definition, if the shapes and the kinds allow it."""
    found = dict(zip(ours, theirs))
    fits = all(ours[a] == theirs[b] and _kind(a) == _kind(b) for a, b in found.items())
    return found if fits else None


def _kind(name: str) -> str:
    """Last part of a name."""
    return name.rpartition(".")[2]


def _layers(tensors: dict) -> dict[str, dict[str, tuple[int, ...]]]:
    """Module path -> its own tensors by the last part of their names."""
    found: dict[str, dict] = {}
    for name, shape in tensors.items():
        path, _, last = name.rpartition(".")
        found.setdefault(path, {})[last] = shape
    return found


def _by_calls(ours: dict, theirs: dict, our_calls: list[str], their_calls: list[str]):
    """Layer by layer in the order of the first call, if each pair has the same tensors."""
    ours, theirs = _layers(ours), _layers(theirs)
    first = [list(dict.fromkeys(path for path in calls if path in layers))
             for calls, layers in ((our_calls, ours), (their_calls, theirs))]
    if len(first[0]) != len(first[1]):
        return None
    found = {}
    for a, b in zip(*first):
        if ours[a] != theirs[b]:
            return None
        found.update((_join(a, last), _join(b, last)) for last in ours[a])
    return found


def _by_tree(ours: dict, theirs: dict):
    """By names that are equal, and for the others layer by layer in order of definition among those
    with the same tensors. None if names do not help."""
    equal = {name: name for name, shape in ours.items() if theirs.get(name) == shape}
    if not equal:
        return None
    left = [_layers({n: s for n, s in side.items() if n not in equal}) for side in (ours, theirs)]
    if len(left[0]) != len(left[1]):
        return None
    found = dict(equal)
    for (a, own), (b, other) in zip(*(side.items() for side in left)):
        if own != other:
            return None
        found.update((_join(a, last), _join(b, last)) for last in own)
    return found


def _join(path: str, last: str) -> str:
    return f"{path}.{last}" if path else last


def _difference(ours: dict, theirs: dict) -> str:
    """Which shape one side has more often than the other, with the tensors that have it."""
    for shape in sorted({*ours.values(), *theirs.values()}):
        sides = [[name for name, s in side.items() if s == shape] for side in (ours, theirs)]
        if len(sides[0]) != len(sides[1]):
            return (f"the models do not have the same tensors: {len(sides[0])} of shape "
                    f"{list(shape)} in Jittor ({_some(sides[0])}), {len(sides[1])} in PyTorch "
                    f"({_some(sides[1])})")
    return "the models do not have the same tensors"


def _in_lists(model) -> str:
    """A hint if modules lie in a Python list, where neither framework sees them."""
    named = dict(model.named_modules())
    known = {id(module) for module in named.values()}
    for path, module in named.items():
        for name, value in vars(module).items():
            hidden = value if isinstance(value, (list, tuple)) else ()
            if any(hasattr(item, "named_modules") and id(item) not in known for item in hidden):
                kind = weights.framework(model)
                return (f". {f'{path}.{name}'.lstrip('.')} of the {kind} model is a Python list, whose "
                        "modules no framework registers: make it an nn.ModuleList")
    return ""


def _some(names: list[str]) -> str:
    if not names:
        return "none"
    return ", ".join(names[:4]) + (", ..." if len(names) > 4 else "")


def _leftover(ours: dict, theirs: dict) -> str:
    """The first tensor whose name does not tell, and what it might be."""
    name = next(name for name in ours if theirs.get(name) != ours[name])
    same = [other for other, shape in theirs.items() if shape == ours[name]]
    return f"{name} may be any of: {_some(same)}"


def _ambiguous(candidates: dict[str, dict[str, str]], why: str) -> str:
    names = list(candidates.values())
    differing = [name for name in names[0] if len({found[name] for found in names}) > 1]
    shown = "; ".join(f"{name} -> " + " or ".join(
        f"{found[name]} ({how})" for how, found in candidates.items())
        for name in itertools.islice(differing, 3))
    return (f"the key map is ambiguous: {shown}{'; ...' if len(differing) > 3 else ''}. {why}. Give "
            'a key map: --map FILE, {"name in Jittor": "name in PyTorch"}')
