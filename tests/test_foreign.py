"""Other libraries' nets: their weights load under our names, and our nets give their output."""
import pytest
import torch
import torchvision

import jittor as jt
import jt_models
import torch_ref
from facts import TORCHVISION
from parity import weights
from parity.pair import randomise
from parity.truth import U, budget, error
from zoo.catalog import NETS

EXTRA = "needs the extra: pip install -e .[zoo]"


def from_torchvision(name, **options):
    if name in ("googlenet", "inception_v3"):
        options["init_weights"] = False
    return torchvision.models.get_model(name, weights=None, num_classes=10, **options)


def from_timm(name, **options):
    library = pytest.importorskip("timm", reason=EXTRA)
    return library.create_model(name, num_classes=10, **options)


def from_cadene(name):
    """Cadene's pretrained-models: built for 1000 classes only."""
    library = pytest.importorskip("pretrainedmodels", reason=EXTRA)
    net = getattr(library, name)(num_classes=1000, pretrained=None)
    net.last_linear = torch.nn.Linear(net.last_linear.in_features, 10)
    return net


def from_facenet(name):
    """In no extra of ours, since its release pins an old PyTorch."""
    library = pytest.importorskip(
        "facenet_pytorch", reason="needs facenet-pytorch, installed with --no-deps, and requests")
    return getattr(library, name)(classify=True, num_classes=10)


LIBRARIES = {from_torchvision: "torchvision", from_timm: "timm", from_cadene: "Cadene",
             from_facenet: "facenet-pytorch"}
# Our name, who builds the other net, its name there, and image size (Cadene's pools are fixed to
# theirs). `make test` takes the lightest of each layout; the others are left to `make test-all`.
LIGHT = [
    *[(name, from_torchvision, name, 64) for name in ("alexnet", "vgg11", "resnet18", "resnet50",
                                                      "densenet121", "googlenet")],
    ("inception_v3", from_torchvision, "inception_v3", 107),
    ("se_resnet18", from_timm, "legacy_seresnet18", 64),
    ("mobilenet", from_timm, "mobilenetv1_100", 64),
    ("bn_inception", from_cadene, "bninception", 224),
    ("inception_resnet_v1_facenet", from_facenet, "InceptionResnetV1", 107),
]
HEAVY = [
    *[(name, from_torchvision, name, 64) for name in TORCHVISION
      if name not in {light[0] for light in LIGHT}],
    *[(f"se_resnet{n}", from_timm, f"legacy_seresnet{n}", 64) for n in (34, 50, 101, 152)],
    *[(f"se_resnet{n}", from_cadene, f"se_resnet{n}", 224) for n in (50, 101, 152)],
    ("inception_v4", from_timm, "inception_v4", 107),
    ("inception_v4", from_cadene, "inceptionv4", 299),
    ("inception_resnet_v2", from_timm, "inception_resnet_v2", 107),
    ("inception_resnet_v2", from_cadene, "inceptionresnetv2", 299),
]
CASES = [*LIGHT, *[pytest.param(*case, marks=pytest.mark.slow) for case in HEAVY]]


@pytest.mark.parametrize("name, build, foreign, size", CASES)
def test_foreign_weights_load_and_give_the_foreign_output(name, build, foreign, size, tmp_path):
    torch.manual_seed(0)
    original = build(foreign)
    randomise(original, 0)
    torch.save(original.state_dict(), tmp_path / "net.pth")
    found = weights.read(tmp_path / "net.pth")
    port, reference = jt_models.create(name, 10), torch_ref.create(name, 10)
    for net, zoo in ((port, jt_models), (reference, torch_ref)):
        weights.load(net, {zoo.own_key(name, key): a for key, a in found.items()})
    x = torch.randn(2, 3, size, size)
    jt_models.layers.set_training(port, False)
    ours = port(jt.array(x.numpy())).numpy()
    with torch.no_grad():
        plain = original.eval()(x).numpy()
        truth = original.double()(x.double()).numpy()
        again = reference.eval().double()(x.double()).numpy()
    assert error(again, truth).worst <= 1e-12
    assert error(ours, truth).worst / U <= budget(error(plain, truth).worst / U)


@pytest.mark.parametrize("name", ["googlenet", "inception_v3"])
def test_auxiliary_outputs_are_torchvisions(name):
    """In their order, in training mode; at 299 pixels, since torchvision's Inception needs them."""
    torch.manual_seed(0)
    original = from_torchvision(name)
    randomise(original, 0)
    for module in original.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    reference = torch_ref.create(name, 10)
    weights.convert(original, reference)
    x = torch.randn(2, 3, 299, 299)
    with torch.no_grad():
        theirs, ours = original(x), reference(x)
    assert len(ours) == len(theirs)
    for a, b in zip(ours, theirs):
        assert error(a.numpy(), b.double().numpy()).worst <= 64 * U


@pytest.mark.parametrize("name", ["googlenet", "inception_v3"])
def test_transform_input_is_torchvisions(name):
    torch.manual_seed(0)
    original = from_torchvision(name, transform_input=True).eval()
    randomise(original, 0)
    reference = torch_ref.create(name, 10, transform_input=True).eval()
    weights.convert(original, reference)
    x = torch.randn(2, 3, 107, 107)
    with torch.no_grad():
        assert error(reference(x).numpy(), original(x).double().numpy()).worst <= 64 * U
    with pytest.raises(ValueError, match="transform_input needs 3 channels, not 1"):
        torch_ref.create(name, 10, 1, transform_input=True)


@pytest.mark.parametrize("name", NETS)
def test_our_own_keys_are_not_renamed(name):
    with torch.device("meta"):
        keys = torch_ref.create(name, 10).state_dict()
    assert all(torch_ref.own_key(name, key) == key for key in keys)


def test_cadenes_names_become_ours():
    """From the naming of pretrained-models 0.7.4, models/bninception.py."""
    theirs = ["conv1_7x7_s2.weight", "conv2_3x3_reduce_bn.running_mean", "inception_3a_1x1.bias",
              "inception_4e_double_3x3_2_bn.weight", "inception_5b_pool_proj.weight",
              "last_linear.weight"]
    ours = ["conv1.conv.weight", "conv2.0.bn.running_mean", "inc3a.branch1.conv.bias",
            "inc4e.branch3.2.bn.weight", "inc5b.branch4.1.conv.weight", "fc.weight"]
    for zoo in (jt_models, torch_ref):
        assert [zoo.own_key("bn_inception", key) for key in theirs] == ours
        assert zoo.own_key("inception_resnet_v2", "last_linear.bias") == "classif.bias"


def test_every_layout_of_the_catalogue_is_tested():
    tested = {(name, LIBRARIES[build]) for name, build, _, _ in LIGHT + HEAVY}
    assert {(name, library) for name, net in NETS.items() for library in net.layouts} == tested
