"""The registry, and that the two zoos mirror each other."""
import difflib
import inspect
from pathlib import Path

import numpy as np
import pytest
import torch

import jittor as jt
import jt_models
import torch_ref
import train_torch
from jt_models.layers import set_training
from zoo.catalog import NETS, input_size, out_size
from zoo.heads import heads

ROOT = Path(__file__).resolve().parents[1]
WORDS = [("import jittor as jt", "import torch"), ("from . import layers as nn", "from torch import nn"),
         ("from .layers import", "from torch.nn.functional import"), ("nn.concat(", "torch.concat("), ("jt.", "torch."),
         ("def execute", "def forward")]


@pytest.mark.parametrize("family", ["blocks", *sorted({net.family for net in NETS.values()})])
def test_the_files_differ_in_framework_words_only(family):
    ours, theirs = ((ROOT / zoo / f"{family}.py").read_text() for zoo in ("jt_models", "torch_ref"))
    for jittor_word, torch_word in WORDS:
        ours = ours.replace(jittor_word, torch_word)
    if "import torch" not in ours.splitlines():  # whose concat is torch's own, and ours one of our layers
        theirs = theirs.replace("import torch\n", "", 1)
    assert list(difflib.unified_diff(ours.splitlines(), theirs.splitlines(), lineterm="")) == []


def test_names_are_equal_and_signatures_too():
    assert jt_models.names() == torch_ref.names() == list(NETS)
    assert inspect.signature(jt_models.create) == inspect.signature(torch_ref.create)


@pytest.mark.parametrize("zoo", [jt_models, torch_ref], ids=lambda z: z.__name__)
@pytest.mark.parametrize("call, message", [
    (dict(name="resnet81"), "unknown net 'resnet81'; did you mean resnet18"),
    (dict(name="qqq"), "unknown net 'qqq'; there are: cnn, "),
    (dict(name="resnet18", num_classes=0), "num_classes must be a whole number of at least 1, not 0"),
    (dict(name="resnet18", in_channels=2.5), "in_channels must be .* not 2.5"),
    (dict(name="resnet18", image_size=-1), "image_size must be .* not -1"),
    (dict(name="resnet18", stem="tiny"), "stem must be 'imagenet' or 'small', not 'tiny'"),
    (dict(name="resnet18", wide=True), "resnet18 has no option 'wide'; it has: stem, dropout"),
    (dict(name="cnn", dropout=1.0), r"dropout must lie in \[0, 1\), not 1.0"),
    (dict(name="cnn", image_size=8), "8x8 pixels is too small"),
    (dict(name="alexnet", image_size=32), "32x32 pixels is too small for alexnet, which needs 63x63"),
    (dict(name="inception_v3", dropout_aux=-1), r"dropout_aux must lie in \[0, 1\), not -1"),
    (dict(name="vgg11", stem="big"), "stem must be 'imagenet' or 'small', not 'big'"),
    (dict(name="bn_inception", image_size=40), "40x40 pixels"),
    (dict(name="densenet121", image_size=20, stem="imagenet"), "20x20 pixels is too small"),
])
def test_bad_calls_name_the_value(zoo, call, message):
    with pytest.raises(ValueError, match=message):
        zoo.create(**call)


@pytest.mark.parametrize("name", NETS)
def test_state_has_the_same_names_shapes_and_order(name):
    ours, theirs = jt_models.create(name, 10), torch_ref.create(name, 10)
    wanted = [(k, tuple(v.shape)) for k, v in theirs.state_dict().items()
              if not k.endswith("num_batches_tracked")]
    assert [(k, tuple(v.shape)) for k, v in ours.state_dict().items()] == wanted


@pytest.mark.parametrize("name", ["resnet18", "plain18", "se_resnet18", "densenet121", "googlenet",
                                  "googlenet_paper"])
def test_small_images_get_the_small_stem(name):
    for zoo in (jt_models, torch_ref):
        kernel = {size: next(v.shape[-1] for v in zoo.create(name, 10, 3, size).state_dict().values())
                  for size in (32, 64, 65)}
        assert kernel == {32: 3, 64: 3, 65: 7}


@pytest.mark.parametrize("name, layer, shape", [
    ("mobilenet", "conv_stem", (32, 32, 32)), ("vgg11", "classifier.0", (512,)),
    ("vgg11", "classifier.3", (512,)), ("googlenet", "inception3a", (256, 32, 32)),
    ("se_resnet18", "layer1", (64, 32, 32)), ("plain18", "layer1", (64, 32, 32))])
def test_small_forms(name, layer, shape):
    assert {row.name: row.output for row in train_torch.trace(name, 32)}[layer] == shape
    assert {row.name: row.output for row in train_torch.trace(name, 96)}[layer] != shape


@pytest.mark.parametrize("name", NETS)
def test_every_net_runs_at_its_smallest_size_and_tells_what_is_smaller(name):
    """Shapes only: nothing is computed on either side."""
    smallest, channels = NETS[name].smallest, NETS[name].channels
    with torch.device("meta"):
        reference = torch_ref.create(name, 10, channels, input_size(name, 1))
        theirs = heads(reference(torch.empty(2, channels, smallest, smallest))
                       if smallest > 1 else reference.eval()(torch.empty(2, channels, 1, 1)))
    port = jt_models.create(name, 10, channels, smallest)
    if smallest == 1:
        set_training(port, False)
    ours = heads(port(jt.zeros((2, channels, smallest, smallest))))
    assert [tuple(v.shape) for v in ours] == [tuple(v.shape) for v in theirs]
    for size in range(1, smallest):
        for zoo in (jt_models, torch_ref):
            with pytest.raises(ValueError, match=f"{size}x{size} pixels is too small"):
                zoo.create(name, 10, channels, size)


@pytest.mark.parametrize("name, count", [("googlenet", 3), ("googlenet_paper", 3), ("inception_v3", 2)])
def test_auxiliary_heads_answer_in_training_only_and_can_be_left_out(name, count):
    for zoo, empty in ((jt_models, jt.zeros), (torch_ref, lambda shape: torch.zeros(shape, device="meta"))):
        for aux, outputs in ((True, count), (False, 1)):
            with torch.device("meta"):
                net = zoo.create(name, 10, aux=aux)
            x = empty((2, 3, 224, 224))
            assert [tuple(v.shape) for v in heads(net(x))] == [(2, 10)] * outputs
            set_training(net, False) if zoo is jt_models else net.eval()
            assert tuple(net(x).shape) == (2, 10)


@pytest.mark.parametrize("name", ["cnn", "densenet", "lenet", "resnet18_lab", "densenet_fc128",
                                  "se_resnet18_preact"])
def test_dropout_acts_in_training_only(name):
    net, x = jt_models.create(name, 10, 3, 32, dropout=0.5), jt.randn((4, 3, 32, 32))
    first, second = net(x).numpy(), net(x).numpy()
    assert not np.array_equal(first, second)
    set_training(net, False)
    assert np.array_equal(net(x).numpy(), net(x).numpy())
    reference = torch_ref.create(name, 10, 3, 32, dropout=0.5)
    t = torch.randn(4, 3, 32, 32)
    assert not torch.equal(reference(t), reference(t))
    assert torch.equal(reference.eval()(t), reference(t))


def test_initial_weights_have_the_reference_distribution():
    """Mean and standard deviation of every large weight agree within 5 standard errors."""
    torch.manual_seed(0)
    jt.set_global_seed(0)
    for name in ("cnn", "resnet18", "densenet121", "se_resnet18_preact", "alexnet_paper", "vgg11",
                 "googlenet_paper", "mobilenet"):
        ours, theirs = jt_models.create(name, 10), torch_ref.create(name, 10)
        for key, t in theirs.state_dict().items():
            if t.ndim < 2 or t.numel() < 1000:  # BatchNorm begins constant
                continue
            a, b = ours.state_dict()[key].numpy().ravel(), t.numpy().ravel()
            spread = b.std()
            assert abs(a.mean() - b.mean()) < 5 * spread * (2 / a.size) ** 0.5, (name, key)
            assert abs(a.std() / spread - 1) < 5 * (2 / a.size) ** 0.5, (name, key)


def test_out_size():
    assert out_size(224, (7, 2, 3), (3, 2, 1)) == 56
    with pytest.raises(ValueError, match="4x4 pixels"):
        out_size(4, (5, 1, 0))
