"""Parameters, MACs and shapes of the built nets, on both sides, against outside facts."""
import hashlib
import inspect
import json
import re

import pytest
import torch
import torchvision

import jt_models
import jt_models.trace
import torch_ref
import torch_ref.trace
from facts import BUG_FINGERPRINTS, FACTS, PARAMETER_SHAPES, TORCHVISION
from jt_models import layers
from jt_models.optim import trainable
from zoo.catalog import NETS
from zoo.summary import totals

ZOOS = {"torch": (torch_ref, torch_ref.trace.trace), "jittor": (jt_models, jt_models.trace.trace)}


def traced(side, name, classes, channels, size, options):
    zoo, trace = ZOOS[side]
    net = zoo.create(name, classes, channels, size, **options)
    return trace(net, channels, size or NETS[name].size)


def digest(found):
    """First 16 hex digits of SHA-256 over the sorted list as compact JSON."""
    return hashlib.sha256(json.dumps(sorted(found), separators=(",", ":")).encode()).hexdigest()[:16]


def fingerprint(rows):
    """Digest of [in, out, kh, kw, sh, sw, dh, dw, groups, Hout, Wout] of every executed
    convolution."""
    found = []
    for row in rows:
        if row.kind == "Conv2d" and row.output:
            m = row.module
            found.append([m.in_channels, m.out_channels, *m.kernel_size, *m.stride, *m.dilation,
                          m.groups, *row.output[1:]])
    return digest(found)


def named(call):
    """Test id of a call of `create`."""
    name, _, _, size, options = call
    return "-".join([name, str(size or "native"), *(f"{k}={v}" for k, v in options.items())])


@pytest.mark.parametrize("side", ZOOS)
@pytest.mark.parametrize("call, shapes", PARAMETER_SHAPES, ids=[named(c) for c, _ in PARAMETER_SHAPES])
def test_parameter_shapes(side, call, shapes):
    name, classes, channels, size, options = call
    if side == "torch":
        with torch.device("meta"):
            net = torch_ref.create(name, classes, channels, size, **options)
        parameters = net.parameters()
    else:
        parameters = trainable(jt_models.create(name, classes, channels, size, **options)).values()
    assert digest([list(p.shape) for p in parameters]) == shapes


@pytest.mark.parametrize("side", ZOOS)
@pytest.mark.parametrize("call, params, macs, conv, shapes", FACTS, ids=[named(c) for c, *_ in FACTS])
def test_fact(side, call, params, macs, conv, shapes):
    rows = traced(side, *call)
    found_params, found_macs = totals(rows)
    assert found_params == params
    assert found_params not in BUG_FINGERPRINTS
    if macs is not None:
        assert found_macs == macs
    if conv is not None:
        assert fingerprint(rows) == conv
    outputs = {row.name: row.output for row in rows}
    assert {name: outputs[name] for name in shapes} == shapes
    assert outputs[""] == (call[1],)


@pytest.mark.parametrize("side", ZOOS)
def test_facts_of_parts(side):
    """Inception v2's stem (the paper gives no more widths), and facenet's net up to its embedding."""
    zoo, trace = ZOOS[side]
    rows = trace(zoo.create("inception_v2", 10).stem, 3, 299)
    assert totals(rows) == (711_872, 1_627_898_976)
    assert fingerprint(rows) == "ff951d1fb11506cd"
    assert [row.output for row in rows if row.name.isdigit()] == [
        (32, 149, 149), (32, 147, 147), (64, 147, 147), (64, 73, 73), (80, 71, 71), (192, 35, 35),
        (288, 35, 35)]
    net = zoo.create("inception_resnet_v1_facenet", 10)
    net.logits = torch.nn.Identity() if side == "torch" else layers.Identity()
    rows = trace(net, 3, 160)
    assert totals(rows) == (23_482_624, 1_417_662_304)
    assert fingerprint(rows) == "0f806276458b9e48"
    outputs = {row.name: row.output for row in rows}
    assert [outputs[name] for name in ("maxpool_3a", "conv2d_4b", "mixed_6a", "mixed_7a", "block8")] == [
        (64, 38, 38), (256, 17, 17), (896, 8, 8), (1792, 3, 3), (1792, 3, 3)]


@pytest.mark.parametrize("name", TORCHVISION)
def test_torchvision_publishes_the_same_size(name):
    published = torchvision.models.get_model_weights(name).IMAGENET1K_V1.meta
    for side in ZOOS:
        # Published are GoogLeNet without its auxiliary heads and Inception v3 with its own.
        options = {"aux": False} if name == "googlenet" else {}
        params, macs = totals(traced(side, name, 1000, 3, None, options))
        assert params == published["num_params"]
        assert round(macs / 1e9, 3) == published["_ops"]


@pytest.mark.parametrize("name", NETS)
def test_both_sides_trace_alike_and_the_docstring_tells_the_count(name):
    net = NETS[name]
    torch_rows, jittor_rows = (
        traced(side, name, net.classes, net.channels, None, {}) for side in ZOOS)
    assert ([(r.name, r.kind, r.output, r.params, r.macs) for r in torch_rows]
            == [(r.name, r.kind, r.output, r.params, r.macs) for r in jittor_rows])
    for side in (torch_ref, jt_models):
        family = __import__(f"{side.__name__}.{net.family}", fromlist=[name])
        told = re.search(r"([\d,]+) parameters", inspect.getdoc(getattr(family, name)))
        assert int(told[1].replace(",", "")) == totals(torch_rows)[0]
