"""The judge judged: port bugs are caught, right ports are not accused."""
import json

import pytest

from parity import inject
from parity.faults import FAULTS

# Faults that need another net than `cnn`: a small one that has the place for them.
ELSEWHERE = {
    "lenet_bn": [name for name in FAULTS if name.startswith("batchnorm")],
    "resnet20_cifar": ["convolution_dilation", "convolution_channels_transposed",
                       "convolution_stride_in_the_other_layer", "convolution_padding_as_tensorflow",
                       "convolution_swapped_pair", "global_max_pool"],
    "densenet": ["concat_in_the_wrong_order", "max_pool_for_average"],
    "vgg11_lrn_bn": ["response_norm_size", "response_norm_alpha_not_divided"],
    "googlenet": ["pool_rounding", "auxiliary_weight"],
    "resnet18": ["pool_padding_as_tensorflow"],
    "bn_inception": ["average_pool_counts_padding"],
    "mobilenet": ["relu6_without_upper_bound"],
}
BIG = ("vgg11_lrn_bn", "googlenet", "bn_inception", "mobilenet")  # left to make test-all
SLOW = [(net, fault) for net in inject.FAMILIES for fault in FAULTS
        if net != "cnn" and fault not in ELSEWHERE.get(net, ())]


def judge(net, fault):
    row = inject.inject(net, fault)
    if row is None:
        return False
    assert row.caught, f"{fault} in {net} was not caught"
    assert row.first
    return True


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_in_cnn_is_caught(fault):
    if not judge("cnn", fault):
        assert any(fault in faults for faults in ELSEWHERE.values()), f"{fault} is tried in no net"


@pytest.mark.parametrize("net, fault", [
    pytest.param(net, fault, marks=[pytest.mark.slow] if net in BIG else [])
    for net, faults in ELSEWHERE.items() for fault in faults])
def test_a_fault_that_needs_another_net_is_caught(net, fault):
    assert judge(net, fault), f"{fault} has no place in {net}"


@pytest.mark.slow
@pytest.mark.parametrize("net, fault", SLOW)
def test_a_fault_in_another_family_is_caught(net, fault):
    judge(net, fault)


@pytest.mark.parametrize("net, seed", [("cnn", seed) for seed in range(3)] + [
    pytest.param(net, seed, marks=pytest.mark.slow) for net in inject.FAMILIES for seed in range(20)])
def test_a_right_pair_is_not_accused(net, seed):
    assert inject.false_alarm(net, seed) == ""


def test_a_missed_fault_makes_the_command_fail(tmp_path, monkeypatch, capsys):
    from contextlib import nullcontext
    from parity import __main__
    monkeypatch.setitem(FAULTS, "batchnorm_eps", lambda model, rng: nullcontext())
    path = tmp_path / "rows.json"
    assert __main__.main(["inject", "--net", "lenet_bn", "--fault", "batchnorm_eps", "--json",
                          str(path)]) == 1
    assert "0 of 1 faults caught" in capsys.readouterr().out
    assert json.loads(path.read_text())["rows"][0]["levels"] == []
