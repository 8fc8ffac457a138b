"""Parameters, MACs and shapes of the built nets, on both sides, against outside facts."""
import hashlib
import inspect
import json
import re

import pytest
import torchvision

import jt_models
import jt_models.trace
import torch_ref
import torch_ref.trace
from facts import BUG_FINGERPRINTS, FACTS, TORCHVISION
from zoo.catalog import NETS
from zoo.summary import totals

ZOOS = {"torch": (torch_ref, torch_ref.trace.trace), "jittor": (jt_models, jt_models.trace.trace)}


def traced(side, name, classes, channels, size, options):
    zoo, trace = ZOOS[side]
    net = zoo.create(name, classes, channels, size, **options)
    return trace(net, channels, size or NETS[name].size)


def fingerprint(rows):
    """First 16 hex digits of SHA-256 over the sorted list, as compact JSON, of
    [in, out, kh, kw, sh, sw, dh, dw, groups, Hout, Wout] of every executed convolution."""
    found = []
    for row in rows:
        if row.kind == "Conv2d":
            m = row.module
            found.append([m.in_channels, m.out_channels, *m.kernel_size, *m.stride, *m.dilation,
                          m.groups, *row.output[1:]])
    return hashlib.sha256(json.dumps(sorted(found), separators=(",", ":")).encode()).hexdigest()[:16]


@pytest.mark.parametrize("side", ZOOS)
@pytest.mark.parametrize("call, params, macs, conv, shapes", FACTS,
                         ids=[f"{c[0]}-{c[3] or 'native'}-{c[4].get('stem', '')}" for c, *_ in FACTS])
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


@pytest.mark.parametrize("name", TORCHVISION)
def test_torchvision_publishes_the_same_size(name):
    published = torchvision.models.get_model_weights(name).IMAGENET1K_V1.meta
    for side in ZOOS:
        params, macs = totals(traced(side, name, 1000, 3, None, {}))
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
