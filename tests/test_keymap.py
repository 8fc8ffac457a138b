"""Which tensor is which, in models with other names."""
import json
import os

import pytest
import torch
from torch import nn as tnn

import jittor as jt
from jittor import nn as jnn
from jt_models import layers
from parity import check, keymap
from parity.keymap import KeyMapError, Mismatch
from parity.pair import make_pair
from parity.task import Task

import numpy as np


class TorchTwin(tnn.Module):
    """Two convolutions of one shape, a norm and a head."""

    def __init__(self):
        super().__init__()
        self.a = tnn.Conv2d(3, 3, 3, padding=1)
        self.b = tnn.Conv2d(3, 3, 3, padding=1)
        self.norm = tnn.BatchNorm2d(3)
        self.head = tnn.Linear(3, 4)

    def forward(self, x):
        return self.head(torch.relu(self.norm(self.b(torch.tanh(self.a(x))))).sum((2, 3)))


class JittorTwin(jnn.Module):
    """The same; `order` is that of definition."""

    def __init__(self, order=("first", "second"), norm=layers.BatchNorm2d):
        super().__init__()
        self.out = jnn.Linear(3, 4)
        for name in order:
            setattr(self, name, jnn.Conv2d(3, 3, 3, padding=1))
        self.bn = norm(3)

    def execute(self, x):
        return self.out(jnn.relu(self.bn(self.second(jt.tanh(self.first(x))))).sum((2, 3)))


RIGHT = {"out": "head", "first": "a", "second": "b", "bn": "norm"}


def task(n=2):
    return Task((np.random.default_rng(0).standard_normal((n, 3, 5, 5)).astype("float32"),))


def expanded(port, reference):
    return keymap.check(port, reference, RIGHT)


@pytest.mark.parametrize("order", [("first", "second"), ("second", "first")])
@pytest.mark.parametrize("norm", [layers.BatchNorm2d, jnn.BatchNorm2d])
def test_the_order_of_execution_tells_where_names_and_definition_do_not(order, norm):
    port, reference = JittorTwin(order, norm), TorchTwin()
    pair = make_pair(port, reference, task())
    found = pair.names
    assert found == expanded(port, reference)
    assert found["first.weight"] == "a.weight"
    assert ("bn.num_batches_tracked" in found) == (norm is layers.BatchNorm2d)


def test_the_order_of_execution_is_seen_beside_the_users_hooks():
    port, calls = JittorTwin(), []
    for module in (port, *port.children()):
        module.register_forward_hook(lambda module, inputs, output: calls.append(module))
    assert make_pair(port, TorchTwin(), task()).names["first.weight"] == "a.weight"
    assert calls


def test_a_map_may_name_modules_or_tensors():
    port, reference = JittorTwin(), TorchTwin()
    found = make_pair(port, reference, task(), RIGHT).names
    assert found["bn.running_var"] == "norm.running_var" and len(found) == 11
    single = {name: target for name, target in found.items() if "num_batches" not in name}
    assert make_pair(port, reference, task(), single).names == found


@pytest.mark.parametrize("change, words", [
    ({"outt": "head"}, "names 'outt'.*did you mean 'out"),
    ({"first": "b"}, "not one to one: first.weight and second.weight both go to b.weight"),
    ({"first": "c"}, "c.weight, which the PyTorch model does not have"),
    ({"out": "norm", "bn": "head"}, "out.weight has shape .4, 3. in Jittor, norm.weight has .3. in"),
])
def test_a_wrong_map_is_one_sentence(change, words):
    with pytest.raises(KeyMapError, match=words):
        make_pair(JittorTwin(), TorchTwin(), task(), {**RIGHT, **change})


def test_other_tensors_are_a_mismatch_that_names_them():
    reference = TorchTwin()
    port = JittorTwin()
    port.first.bias = None
    with pytest.raises(Mismatch, match=r"3 of shape \[3\] in Jittor \(.*\), 4|of shape \[3\] in Jittor"):
        make_pair(port, reference, task())
    port = JittorTwin()
    port.out = jnn.Linear(3, 5)
    with pytest.raises(Mismatch, match=r"shape \[4\] in Jittor \(none\), 1 in PyTorch \(head.bias\)"):
        make_pair(port, reference, task())


def test_an_ambiguous_map_shows_the_candidates():
    """Definition and execution disagree, and a fault hides which is right."""
    class Faulty(JittorTwin):
        def __init__(self):
            super().__init__(("second", "first"))
            self.__dict__["out"] = self.__dict__.pop("out")  # defined last, as in PyTorch

        def execute(self, x):
            return super().execute(x) * 3 + 1

    port = Faulty()
    with pytest.raises(KeyMapError) as caught:
        make_pair(port, TorchTwin(), task())
    assert not isinstance(caught.value, Mismatch)
    text = str(caught.value)
    assert "a.weight" in text and "b.weight" in text and "order of execution" in text
    assert "--map" in text


def test_a_map_that_the_outputs_alone_tell_is_said():
    """A port that confuses its two convolutions looks like one whose order of definition is another."""
    class Jittor(JittorTwin):
        def __init__(self):
            super().__init__(("second", "first"))
            self.__dict__["out"] = self.__dict__.pop("out")  # defined last, as in PyTorch

    pair = make_pair(Jittor(), TorchTwin(), task())
    assert pair.names["first.weight"] == "a.weight"
    assert ("By the order of execution, first.weight is a.weight, and by the order of definition b.weight"
            in pair.doubt)
    report = check(Jittor(), TorchTwin(), task().inputs, levels="eval", locate=False)
    assert report.passed and report.skipped["weights, names"] == pair.doubt
    assert not make_pair(Jittor(), TorchTwin(), task(), RIGHT).doubt


class TorchNumbered(tnn.Module):
    def __init__(self):
        super().__init__()
        self.layers = tnn.ModuleList([tnn.Linear(5, 5), tnn.Linear(5, 5), tnn.Linear(5, 2)])

    def forward(self, x):
        for layer in self.layers:
            x = layer(torch.tanh(x))
        return x


class JittorNumbered(jnn.Module):
    """`order` is that of execution, `names` that of definition."""

    def __init__(self, order, names=("fc0", "fc1", "fc2")):
        super().__init__()
        self.order = order
        for name in names:
            setattr(self, name, jnn.Linear(5, 2 if name == "fc2" else 5))

    def execute(self, x):
        for index in self.order:
            x = getattr(self, f"fc{index}")(jt.tanh(x))
        return x


@pytest.mark.parametrize("names", [("fc0", "fc1", "fc2"), ("fc2", "fc0", "fc1")])
def test_numbered_layers_that_a_port_confuses_are_not_mapped_silently(names):
    inputs = Task((np.random.default_rng(0).standard_normal((3, 5)).astype("float32"),))
    pair = make_pair(JittorNumbered((0, 1, 2), names), TorchNumbered(), inputs)
    assert pair.names["fc1.bias"] == "layers.1.bias" and not pair.doubt
    with pytest.raises(KeyMapError, match=r"layers.0.weight \(numbers in the names\).*confused.*--map"):
        make_pair(JittorNumbered((1, 0, 2), names), TorchNumbered(), inputs)
    renumbered = {"fc1": "layers.0", "fc0": "layers.1", "fc2": "layers.2"}
    assert make_pair(JittorNumbered((1, 0, 2), names), TorchNumbered(), inputs, renumbered).names


def test_a_small_fault_does_not_hide_the_map():
    port = JittorTwin(("second", "first"))
    port.bn.eps = 1e-3
    assert make_pair(port, TorchTwin(), task()).names["first.weight"] == "a.weight"


def test_a_map_file_is_read_strictly(tmp_path):
    path = tmp_path / "map.json"
    path.write_text(json.dumps(RIGHT))
    assert keymap.read(path) == RIGHT
    for text in ("[1]", '{"a": 1}', "{", '{"a": "b", "a": "c"}', "[" * 10**5 + "]" * 10**5,
                 '{"a": "\\ud800"}'):
        path.write_text(text)
        with pytest.raises(KeyMapError, match="map.json"):
            keymap.read(path)
    with pytest.raises(KeyMapError, match="absent.json"):
        keymap.read(tmp_path / "absent.json")


def test_a_map_may_come_through_a_pipe():
    reader, writer = os.pipe()
    os.write(writer, json.dumps(RIGHT).encode())
    os.close(writer)
    assert keymap.read(f"/dev/fd/{reader}") == RIGHT
    os.close(reader)
