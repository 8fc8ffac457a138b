"""Conversion is bitwise and strict, in memory and through files."""
import json
import os
import warnings

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file

import jittor as jt
import jt_models
import torch_ref
from parity import weights
from parity.pair import randomise
from zoo.catalog import NETS, input_size


def pair(name="resnet18_lab", seed=0):
    net = NETS[name]
    size = input_size(name, min(net.size, 64))
    torch.manual_seed(seed)
    reference = torch_ref.create(name, 10, net.channels, size)
    randomise(reference, seed)
    return jt_models.create(name, 10, net.channels, size), reference


def same(a, b):
    return list(a) == list(b) and all(
        a[k].dtype == b[k].dtype and a[k].shape == b[k].shape
        and a[k].tobytes() == b[k].tobytes() for k in a)


@pytest.mark.parametrize("name", NETS)
def test_round_trip_is_bitwise(name, tmp_path):
    port, reference = pair(name)
    before = weights.tensors(reference)
    weights.convert(reference, port)
    weights.save(tmp_path / "w.safetensors", weights.tensors(port))
    other = pair(name, seed=1)[1]
    weights.load(other, weights.read(tmp_path / "w.safetensors"))
    after = weights.tensors(other)
    assert set(after) == set(before) and same({k: after[k] for k in before}, before)
    weights.convert(port, other)
    assert same(weights.tensors(other), before)


def test_batch_counters_are_converted():
    port, reference = pair()
    weights.convert(reference, port)
    assert port.conv1[1].num_batches_tracked == 3
    weights.load(port, {k: a for k, a in weights.tensors(reference).items() if "tracked" not in k})
    assert port.conv1[1].num_batches_tracked == 0


def drop(arrays):
    del arrays["layer2.0.bias"]


def add(arrays):
    arrays["layer9.weight"] = np.zeros(1, "float32")


def reshape(arrays):
    arrays["fc.weight"] = arrays["fc.weight"].T


def half(arrays):
    arrays["layer1.0.weight"] = arrays["layer1.0.weight"].astype("float16")


def poison(arrays):
    arrays["layer3.1.running_var"][5] = np.nan


def lose_a_counter(arrays):
    del arrays["layer1.1.num_batches_tracked"]


@pytest.mark.parametrize("side", ["jittor", "torch"])
@pytest.mark.parametrize("damage, message", [
    (drop, "1 missing: layer2.0.bias"), (add, "1 unexpected: layer9.weight"),
    (reshape, r"fc.weight has shape \(512, 10\), this net needs \(10, 512\)"),
    (half, "layer1.0.weight has dtype float16, this net needs float32"),
    (poison, "layer3.1.running_var holds 1 values that are not finite"),
    (lose_a_counter, "1 missing: layer1.1.num_batches_tracked"),
])
def test_bad_tensors_are_named_and_nothing_changes(side, damage, message):
    port, reference = pair()
    target = port if side == "jittor" else reference
    before, arrays = weights.tensors(target), weights.tensors(pair(seed=1)[1])
    damage(arrays)
    with pytest.raises(weights.WeightError, match=message):
        weights.load(target, arrays)
    assert same(weights.tensors(target), before)


def test_key_map_must_be_one_to_one():
    source, target = torch.nn.Linear(2, 2), torch.nn.Linear(2, 2)
    weights.convert(source, target, {"weight": "weight", "bias": "bias"})
    assert same(weights.tensors(source), weights.tensors(target))
    with pytest.raises(weights.WeightError, match="not one to one: two tensors go to bias"):
        weights.convert(source, target, {"weight": "bias", "bias": "bias"})
    with pytest.raises(weights.WeightError, match="not so for bias"):
        weights.convert(source, target, {"weight": "weight"})


def test_a_stock_jittor_net_takes_torch_weights():
    port = jt.nn.Sequential(jt.nn.Conv2d(3, 4, 3), jt.nn.BatchNorm2d(4))
    reference = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4))
    weights.convert(reference, port)
    weights.convert(port, reference)
    with pytest.raises(TypeError, match="not a torch or Jittor module: int"):
        weights.tensors(3)


def test_old_densenet_names_and_wrapped_state_dicts(tmp_path):
    state = torch_ref.create("densenet121", 10).state_dict()
    old = {k.replace("norm1", "norm.1").replace("conv2", "conv.2"): v for k, v in state.items()}
    assert old.keys() != state.keys()
    torch.save({"state_dict": old, "epoch": 3}, tmp_path / "old.pth")
    assert weights.read(tmp_path / "old.pth").keys() == state.keys()


class Malicious:
    def __reduce__(self):
        return os.mkdir, (self.path,)


def test_no_code_in_a_checkpoint_runs(tmp_path):
    bomb = Malicious()
    bomb.path = str(tmp_path / "pwned")
    torch.save({"weight": bomb}, tmp_path / "bomb.pth")
    with pytest.raises(weights.WeightError, match="it holds objects other than tensors") as caught:
        weights.read(tmp_path / "bomb.pth")
    assert "weights_only" not in str(caught.value)
    assert not (tmp_path / "pwned").exists()


def test_a_file_of_jittor_is_read_bit_for_bit(tmp_path):
    net = pair("lenet_bn")[0]
    net.save(str(tmp_path / "net.pkl"))
    right = {k: a for k, a in weights.tensors(net).items() if k in net.state_dict()}
    found = weights.read(tmp_path / "net.pkl")
    assert same({k: found[k] for k in right}, right) and found.keys() == right.keys()
    jt.save({"epoch": 3, "model": {"a": jt.array64(np.array([1.5, -2])), "b": np.arange(6).reshape(2, 3).T,
                                   "c": jt.ones((2,), "bool")}}, str(tmp_path / "other.pkl"))
    found = weights.read(tmp_path / "other.pkl")
    assert same(found, {"a": np.array([1.5, -2]), "b": np.arange(6).reshape(2, 3).T, "c": np.ones(2, bool)})


def test_a_file_of_jittor_with_anything_else_is_refused(tmp_path):
    bomb = Malicious()
    bomb.path = str(tmp_path / "pwned")
    for content, message in ((bomb, "mkdir, not tensors only"), ({"a": bomb}, "mkdir, not tensors only"),
                             ({"a": np.array([bomb])}, "array of object"), ({"a": 3}, "holds no state dict"),
                             ([np.ones(3)], "holds no state dict")):
        jt.save(content, str(tmp_path / "x.pkl"))
        with pytest.raises(weights.WeightError, match=message):
            weights.read(tmp_path / "x.pkl")
    assert not (tmp_path / "pwned").exists()


def as_safetensors(shape):
    def write(path):
        header = json.dumps({"a": {"dtype": "F32", "shape": shape, "data_offsets": [0, 0]}}).encode()
        path.write_bytes(len(header).to_bytes(8, "little") + header)
    return write


def as_pth(content):
    return lambda path: torch.save(content, path)


def as_pkl(content):
    return lambda path: jt.save(content, str(path))


OLD, NEW = (f"layers.denselayer1.norm{dot}1.weight" for dot in (".", ""))


@pytest.mark.parametrize("name, write, message", [
    ("x.safetensors", as_safetensors([0, 2**62]), "is not a readable safetensors file"),
    ("x.safetensors", as_safetensors([0, 2**63]), "is not a readable safetensors file"),
    ("x.safetensors", as_safetensors([0] * 100), "is not a readable safetensors file"),
    ("x.pth", as_pth({"a": torch.ones(2, dtype=torch.complex128)}), "a has dtype complex128; allowed are "),
    ("x.pkl", as_pkl({"a": np.ones(2, "longdouble")}), "a has dtype float128; allowed are "),
    ("x.pth", as_pth({"\udcff": torch.ones(2)}), r"may be named '\\udcff'"),
    ("x.pkl", as_pkl({"\udcff": np.ones(2)}), r"may be named '\\udcff'"),
    ("x.pth", as_pth({"__metadata__": torch.ones(2)}), "may be named '__metadata__'"),
    ("x.pth", as_pth({OLD: torch.zeros(2), NEW: torch.ones(2)}), f"holds {NEW} twice"),
    ("x.pth", lambda path: torch.jit.script(torch.nn.ReLU()).save(str(path)),
     "it holds objects other than tensors"),
    ("x.pth", lambda path: torch.save({}, path, pickle_protocol=4), "is not a readable PyTorch checkpoint"),
    ("x.pth", lambda path: torch.save({"a": torch.ones(2).storage()}, path), "holds no state dict"),
])
@pytest.mark.filterwarnings("ignore")
def test_what_weights_cannot_be_is_one_error_and_no_warning(name, write, message, tmp_path):
    write(tmp_path / name)
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        with pytest.raises(weights.WeightError, match=message) as caught:
            weights.read(tmp_path / name)
    assert "\n" not in str(caught.value) and "weights_only" not in str(caught.value)
    assert not warned


@pytest.mark.parametrize("arrays", [{"__metadata__": np.ones(2)}, {"\udcff": np.ones(2)},
                                    {"a": np.ones(2, "complex128")}])
def test_nothing_is_saved_that_could_not_be_read(arrays, tmp_path):
    with pytest.raises(weights.WeightError):
        weights.save(tmp_path / "x.safetensors", arrays)
    assert list(tmp_path.iterdir()) == []


def test_the_order_of_bytes_is_the_machines(tmp_path):
    arrays = {"a": np.arange(3, dtype=">f4"), "n": np.arange(3, dtype=">i8")}
    native = {"a": np.arange(3, dtype="float32"), "n": np.arange(3)}
    jt.save(arrays, str(tmp_path / "x.pkl"))
    weights.save(tmp_path / "x.safetensors", arrays)
    assert same(weights.read(tmp_path / "x.pkl"), native)
    assert same(weights.read(tmp_path / "x.safetensors"), native)


def test_notes_of_another_file_are_one_error(tmp_path):
    (tmp_path / "x").write_bytes(b"x" * 99)
    with pytest.raises(weights.WeightError, match="x is not a readable safetensors file"):
        weights.metadata(tmp_path / "x")


def test_damaged_files_are_one_error(tmp_path):
    good, bad = tmp_path / "good.safetensors", tmp_path / "bad.safetensors"
    save_file({"a": np.arange(100, dtype="float32")}, good)
    whole = good.read_bytes()
    for content in (b"", b"x", whole[:-1], whole[:20], b"\xff" * 64, whole + b"1"):
        bad.write_bytes(content)
        with pytest.raises(weights.WeightError, match="bad.safetensors is not a readable"):
            weights.read(bad)
    torch.save(torch.nn.Linear(2, 2).state_dict(), tmp_path / "good.pth")
    whole = (tmp_path / "good.pth").read_bytes()
    for content in (b"", b"x" * 100, whole[:-100], whole[:40]):
        (tmp_path / "bad.pth").write_bytes(content)
        with pytest.raises(weights.WeightError, match="bad.pth is not a readable"):
            weights.read(tmp_path / "bad.pth")
    torch.save([1, 2], tmp_path / "list.pth")
    with pytest.raises(weights.WeightError, match="holds no state dict"):
        weights.read(tmp_path / "list.pth")
    torch.save({"a": torch.ones(2, dtype=torch.bfloat16)}, tmp_path / "bf16.pth")
    with pytest.raises(weights.WeightError, match="a in .* cannot be converted: torch.bfloat16 on cpu"):
        weights.read(tmp_path / "bf16.pth")
    with pytest.raises(weights.WeightError, match="no such weights file"):
        weights.read(tmp_path / "absent.safetensors")


def test_strided_checkpoint_tensors_keep_their_values(tmp_path):
    """Jittor's own reader gives wrong values for these."""
    base = torch.arange(12.0).view(3, 4)
    torch.save({"columns": base[:, ::2], "transposed": base.t()}, tmp_path / "s.pth")
    found = weights.read(tmp_path / "s.pth")
    assert np.array_equal(found["columns"], base[:, ::2].numpy())
    assert np.array_equal(found["transposed"], base.t().numpy())
