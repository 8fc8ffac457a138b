"""Port bugs that real ports had, each put into a right Jittor port.

A fault is a context manager of the Jittor model: inside it the port is wrong. It raises NotApplicable
where the model has no place for it. Faults of the update rule, the schedule, the loss and the batches
sit in what the trainers use.
"""
from __future__ import annotations

import contextlib
import importlib
from unittest import mock

import jt_models  # noqa: F401  (PyTorch and Jittor in the one order in which both work)
import jittor as jt
import numpy as np

from jt_models import arithmetic, batches, layers, losses, optim
from jt_models.norm import BatchNorm
from training.schedule import Schedule

FAULTS: dict = {}


class NotApplicable(Exception):
    """The model has no place where this fault could be."""


def fault(function):
    """Register a generator of (model, rng) as a fault under its name."""
    FAULTS[function.__name__] = contextlib.contextmanager(function)
    return function


def _modules(model, kind, accept=lambda module: True) -> list:
    return [m for m in model.modules() if isinstance(m, kind) and accept(m)]


def _one(found: list, rng):
    """One of the places at random."""
    if not found:
        raise NotApplicable
    return found[rng.integers(len(found))]


def _change(module, execute) -> None:
    """Give one module another execute(usual, x)."""
    kind = type(module)

    class Changed(kind):
        def execute(self, *inputs):
            return execute(lambda *x: kind.execute(self, *x), *inputs)

    Changed.__name__ = kind.__name__
    module.__class__ = Changed


def _become(module, **members) -> None:
    """Give one module other class attributes."""
    kind = type(module)
    module.__class__ = type(kind.__name__, (kind,), members)


def _change_tensor(layer, name, change) -> None:
    """Let one layer compute with change(weight) or change(bias) in the place of its own."""
    def execute(usual, x):
        kept = getattr(layer, name)
        setattr(layer, name, change(kept))
        try:
            return usual(x)
        finally:
            setattr(layer, name, kept)

    _change(layer, execute)


def _convs(model, accept=lambda module: True) -> list:
    return _modules(model, jt.nn.Conv2d, accept)


NORMS = BatchNorm


# --- BatchNorm ---

@fault
def batchnorm_eps(model, rng):
    """eps 1.1e-5 in one layer."""
    _one(_modules(model, NORMS), rng).eps *= 1.1
    yield


@fault
def batchnorm_momentum(model, rng):
    """momentum 0.11 in one layer."""
    _one(_modules(model, NORMS), rng).momentum *= 1.1
    yield


@fault
def batchnorm_momentum_convention(model, rng):
    """Momentum of the old value instead of the new one, as TensorFlow and Caffe count it."""
    for norm in _modules(model, NORMS):
        norm.momentum = 1 - norm.momentum
    if not _modules(model, NORMS):
        raise NotApplicable
    yield


@fault
def batchnorm_biased_variance(model, rng):
    """running_var of the biased variance, as Jittor's own layer keeps it."""
    norm = _one(_modules(model, NORMS), rng)

    def execute(usual, x):
        before, y = norm.running_var.detach(), usual(x)
        if norm.training:
            after = norm.running_var
            moved = after - before * arithmetic.constant(1 - norm.momentum, after)  # by the unbiased variance
            after.update(after - moved / (x.numel() // x.shape[1]))
        return y

    _change(norm, execute)
    yield


@fault
def batchnorm_frozen(model, rng):
    """Running statistics in training mode too, in one layer."""
    _become(_one(_modules(model, NORMS), rng), training=False)
    yield


@fault
def batchnorm_batch_statistics_in_evaluation(model, rng):
    """Batch statistics in evaluation mode too, in one layer."""
    _become(_one(_modules(model, NORMS), rng), training=True)
    yield


@fault
def batchnorm_stale_statistics(model, rng):
    """The running statistics of one layer are never updated."""
    norm = _one(_modules(model, NORMS), rng)

    def execute(usual, x):
        before, y = [v.detach() for v in (norm.running_mean, norm.running_var)], usual(x)
        for v, value in zip((norm.running_mean, norm.running_var), before):
            v.update(value)
        return y

    _change(norm, execute)
    yield


@fault
def batchnorm_left_out(model, rng):
    """One layer passes its input on."""
    _change(_one(_modules(model, NORMS), rng), lambda usual, x: x)
    yield


@fault
def batchnorm_without_shift(model, rng):
    """One layer ignores its shift."""
    norm = _one(_modules(model, NORMS), rng)
    axes = norm.axes
    _change(norm, lambda usual, x: usual(x) - norm.bias.broadcast(x, axes))
    yield


# --- convolution and linear layers ---

@fault
def convolution_padding_as_tensorflow(model, rng):
    """SAME padding of a strided convolution puts the odd pixel below and right."""
    def strided(m):
        return m.stride[0] > 1 and m.padding[0] > 0 and m.kernel_size[0] == 2 * m.padding[0] + 1
    _change(_one(_convs(model, strided), rng), lambda usual, x: usual(_moved_up_and_left(x)))
    yield


def _moved_up_and_left(x):
    n, c, h, w = x.shape
    return x.reindex([n, c, h, w], ["i0", "i1", "i2+1", "i3+1"])


@fault
def convolution_stride_in_the_other_layer(model, rng):
    """The stride of a block sits in its other convolution."""
    pairs = []
    for parent in model.modules():
        convs = [m for m in parent.children() if isinstance(m, jt.nn.Conv2d)]
        pairs += [(a, b) for a, b in zip(convs, convs[1:])
                  if a.stride != b.stride and a.out_channels == b.in_channels
                  and 2 * a.padding[0] + 1 == a.kernel_size[0] and 2 * b.padding[0] + 1 == b.kernel_size[0]]
    a, b = _one(pairs, rng)
    a.stride, b.stride = b.stride, a.stride
    yield


@fault
def convolution_dilation(model, rng):
    """Dilation 2, with the padding that keeps the size."""
    conv = _one(_convs(model, lambda m: m.kernel_size == (3, 3) and m.padding == (1, 1)
                       and m.dilation == (1, 1)), rng)
    conv.dilation, conv.padding = (2, 2), (2, 2)
    yield


@fault
def convolution_flipped_kernel(model, rng):
    """A convolution in the mathematical sense: the kernel is mirrored."""
    _change_tensor(_one(_convs(model, lambda m: m.kernel_size[0] > 1), rng), "weight",
                   lambda weight: jt.flip(weight, [2, 3]))
    yield


@fault
def convolution_swapped_pair(model, rng):
    """Two layers of equal shape use each other's weights."""
    convs = _convs(model)
    pairs = [(a, b) for i, a in enumerate(convs) for b in convs[i + 1:]
             if a.weight.shape == b.weight.shape and a.stride == b.stride and a.padding == b.padding]
    a, b = _one(pairs, rng)
    first, second = type(a).execute, type(b).execute
    _change(a, lambda _, x: second(b, x))
    _change(b, lambda _, x: first(a, x))
    yield


@fault
def convolution_channels_transposed(model, rng):
    """Input and output channels of a square kernel exchanged, as from a HWIO checkpoint."""
    _change_tensor(_one(_convs(model, lambda m: m.weight.shape[0] == m.weight.shape[1] > 1), rng),
                   "weight", lambda weight: weight.transpose(1, 0, 2, 3))
    yield


@fault
def bias_ignored(model, rng):
    """A convolution or linear layer has its bias and does not add it."""
    layer = _one(_modules(model, (jt.nn.Conv2d, jt.nn.Linear), lambda m: m.bias is not None), rng)
    _change_tensor(layer, "bias", lambda bias: None)
    yield


@fault
def bias_missing(model, rng):
    """A layer was built without its bias."""
    layer = _one(_modules(model, (jt.nn.Conv2d, jt.nn.Linear), lambda m: m.bias is not None), rng)
    layer.bias = None
    yield


@fault
def linear_transposed(model, rng):
    """The weight of a linear layer read as [in, out]."""
    _change_tensor(_one(_modules(model, jt.nn.Linear), rng), "weight",
                   lambda weight: weight.reshape(weight.shape[::-1]).transpose(1, 0))
    yield


@fault
def flattened_channels_last(model, rng):
    """The features before the first linear layer in the order of channels-last."""
    layer = _one(_modules(model, jt.nn.Linear)[:1], rng)
    features = layer.weight.shape[1]
    channels = [c.out_channels for c in _convs(model) if features % c.out_channels == 0
                and features // c.out_channels > 1]
    c = _one(channels[-1:], rng)
    _change(layer, lambda usual, x: usual(x.reshape(x.shape[0], c, -1).transpose(0, 2, 1).reshape(
        x.shape[0], features)))
    yield


@fault
def half_precision_in_one_layer(model, rng):
    """One layer's result is rounded to float16."""
    layer = _one(_modules(model, (jt.nn.Conv2d, jt.nn.Linear)), rng)
    _change(layer, lambda usual, x: usual(x).float16().cast(x.dtype))
    yield


@fault
def single_precision_constant(model, rng):
    """One layer is off by a relative 1e-7, as a constant rounded to float32 makes it."""
    layer = _one(_modules(model, (jt.nn.Conv2d, jt.nn.Linear)), rng)
    _change(layer, lambda usual, x: usual(x) * (1 + 1e-7))
    yield


# --- activations, pools, structure ---

@contextlib.contextmanager
def _counted(owner, name, replace, rng, model, accept=lambda *inputs: True):
    """Every `owner.name` of a forward pass is counted; one of them, at random, is replaced."""
    usual = getattr(owner, name)
    calls, total = [0], [0]

    def count(*inputs, **options):
        total[0] += accept(*inputs)
        return usual(*inputs, **options)

    with mock.patch.object(owner, name, count):
        shape = model.probe_shape  # set by `inject`
        layers.set_training(model, False)
        model(jt.zeros(shape))
        layers.set_training(model)
    if not total[0]:
        raise NotApplicable
    place = int(rng.integers(total[0]))
    execute = type(model).execute

    def changed(*inputs, **options):
        if not accept(*inputs):
            return usual(*inputs, **options)
        calls[0] += 1
        return (replace if calls[0] == place + 1 else usual)(*inputs, **options)

    def whole(self, *inputs):
        calls[0] = 0
        return execute(self, *inputs)

    with mock.patch.object(owner, name, changed), mock.patch.object(type(model), "execute", whole):
        yield


@fault
def relu_missing(model, rng):
    """One ReLU passes everything on."""
    with _counted(jt.nn, "relu", lambda x: x, rng, model):
        yield


@fault
def relu_leaky(model, rng):
    """One ReLU lets 1 % of the negative part through."""
    with _counted(jt.nn, "relu", jt.nn.leaky_relu, rng, model):
        yield


@fault
def relu6_without_upper_bound(model, rng):
    """One ReLU6 is a ReLU."""
    with _counted(jt.nn, "relu6", jt.nn.relu, rng, model):
        yield


@fault
def concat_in_the_wrong_order(model, rng):
    """One concatenation takes its inputs in reverse order."""
    owner = layers if type(model).__module__.startswith("jt_models.") else jt
    usual = owner.concat
    with _counted(owner, "concat", lambda parts, dim=0: usual(list(parts)[::-1], dim), rng, model,
                  lambda parts, dim=0: len(parts) > 1):
        yield


@fault
def max_pool_for_average(model, rng):
    """An average pool takes the maximum."""
    pool = _one(_modules(model, layers.AvgPool2d), rng)
    other = layers.MaxPool2d(pool.kernel_size, pool.stride, pool.padding, pool.ceil_mode)
    _change(pool, lambda usual, x: other(x))
    yield


@fault
def average_pool_for_max(model, rng):
    """A max-pool takes the mean."""
    pool = _one(_modules(model, layers.MaxPool2d), rng)
    other = layers.AvgPool2d(pool.kernel_size, pool.stride, pool.padding, pool.ceil_mode)
    _change(pool, lambda usual, x: other(x))
    yield


@fault
def pool_rounding(model, rng):
    """ceil_mode is the other one, at a size where that changes something."""
    places = []

    def watch(pool):
        def see(usual, x):
            size = pool.output_size(x.shape[2], 0)
            pool.ceil_mode = not pool.ceil_mode
            if pool.output_size(x.shape[2], 0) != size:
                places.append(pool)
            pool.ceil_mode = not pool.ceil_mode
            return usual(x)
        return see

    pools = _modules(model, (layers.MaxPool2d, layers.AvgPool2d))
    kinds = [type(pool) for pool in pools]
    for pool in pools:
        _change(pool, watch(pool))
    model(jt.zeros(model.probe_shape))
    for pool, kind in zip(pools, kinds):
        pool.__class__ = kind
    pool = _one(places, rng)
    pool.ceil_mode = not pool.ceil_mode
    yield


@fault
def average_pool_counts_padding(model, rng):
    """count_include_pad is the other one."""
    pool = _one(_modules(model, layers.AvgPool2d, lambda p: max(p.padding) > 0), rng)
    pool.count_include_pad = not pool.count_include_pad
    yield


@fault
def pool_padding_as_tensorflow(model, rng):
    """SAME padding of a strided pool puts the odd pixel below and right."""
    pool = _one(_modules(model, (layers.MaxPool2d, layers.AvgPool2d),
                         lambda p: p.padding[0] > 0 and p.stride[0] > 1), rng)
    _change(pool, lambda usual, x: usual(_moved_up_and_left(x)))
    yield


@fault
def global_max_pool(model, rng):
    """The global average pool takes the maximum."""
    usual = layers.adaptive_avg_pool2d
    sizes = []

    def maximum(x):
        sizes.append(x.shape[2] * x.shape[3])
        return x.max([2, 3], keepdims=True)

    pools = _modules(model, layers.AdaptiveAvgPool2d)
    family = importlib.import_module(type(model).__module__)
    if pools:
        _change(_one(pools, rng), lambda _, x: maximum(x))
        change = contextlib.nullcontext()
    elif getattr(family, "adaptive_avg_pool2d", None) is usual:
        change = mock.patch.object(family, "adaptive_avg_pool2d", lambda x, size: maximum(x))
    else:
        raise NotApplicable
    with change:
        model(jt.zeros(model.probe_shape))
        if max(sizes, default=1) == 1:  # of one value mean and maximum are the same
            raise NotApplicable
        yield


@fault
def response_norm_size(model, rng):
    """Response normalisation over 3 channels instead of 5."""
    _one(_modules(model, layers.LocalResponseNorm), rng).size -= 2
    yield


@fault
def response_norm_alpha_not_divided(model, rng):
    """alpha as in the paper, not divided by the size as PyTorch does."""
    norm = _one(_modules(model, layers.LocalResponseNorm), rng)
    norm.alpha *= norm.size
    yield


@fault
def input_channels_reversed(model, rng):
    """BGR instead of RGB."""
    if _convs(model)[0].in_channels != 3:
        raise NotApplicable
    _change(model, lambda usual, x: usual(x[:, ::-1]))
    yield


@fault
def input_mirrored(model, rng):
    """The image is transposed: height and width exchanged."""
    _change(model, lambda usual, x: usual(x.transpose(0, 1, 3, 2)))
    yield


@fault
def softmax_at_the_end(model, rng):
    """Probabilities instead of logits."""
    def execute(usual, x):
        out = usual(x)
        first = out[0] if isinstance(out, tuple) else out
        first = jt.nn.softmax(first, dim=1)
        return (first, *out[1:]) if isinstance(out, tuple) else first
    _change(model, execute)
    yield


@fault
def auxiliary_weight(model, rng):
    """Auxiliary losses with half their weight."""
    if not hasattr(model, "aux_weight"):
        raise NotApplicable
    model.aux_weight = model.aux_weight / 2
    yield


@fault
def gradient_cut(model, rng):
    """One layer's result is detached."""
    layer = _one(_modules(model, (jt.nn.Conv2d, jt.nn.Linear)), rng)
    _change(layer, lambda usual, x: usual(x).detach())
    yield


@fault
def parameter_frozen(model, rng):
    """One weight receives no gradient."""
    _one(_modules(model, (jt.nn.Conv2d, jt.nn.Linear)), rng).weight.stop_grad()
    yield


# --- dropout ---

def _dropout(change):
    def apply(model, rng):
        if not getattr(model, "probe_dropout", False):
            raise NotApplicable
        family = importlib.import_module(type(model).__module__)
        owners = [layers] + ([family] if hasattr(family, "dropout") else [])
        usual = layers.dropout
        with contextlib.ExitStack() as stack:
            for owner in owners:
                stack.enter_context(mock.patch.object(owner, "dropout", change(usual)))
            yield
    return apply


@fault
def dropout_unscaled(model, rng):
    """What dropout keeps is not scaled by 1 / (1 - p)."""
    yield from _dropout(lambda usual: lambda x, p=0.5, training=True: (
        usual(x, p, training) * arithmetic.constant(1 - p, x) if training else usual(x, p, training)))(
            model, rng)


@fault
def dropout_keeps_p(model, rng):
    """p is the part that is kept."""
    yield from _dropout(lambda usual: lambda x, p=0.5, training=True: usual(
        x, 1 - p if p else p, training))(model, rng)


@fault
def dropout_in_evaluation(model, rng):
    """Dropout is active in evaluation mode too."""
    yield from _dropout(lambda usual: lambda x, p=0.5, training=True: usual(x, p, True))(model, rng)


@fault
def dropout_never(model, rng):
    """Dropout is never active, as in a fresh layer of Jittor's."""
    yield from _dropout(lambda usual: lambda x, p=0.5, training=True: x)(model, rng)


# --- loss ---

@fault
def labels_shifted(model, rng):
    """Labels counted from 1."""
    usual = losses.cross_entropy
    with mock.patch.object(losses, "cross_entropy", lambda logits, y, *options: usual(
            logits, (y + 1) % logits.shape[1], *options)):
        yield


@fault
def loss_summed(model, rng):
    """The loss is the sum over the batch."""
    usual = losses.cross_entropy
    with mock.patch.object(losses, "cross_entropy", lambda logits, y, *options: usual(
            logits, y, *options) * logits.shape[0]):
        yield


@fault
def loss_smoothed(model, rng):
    """Label smoothing of 0.1 that the reference does not have."""
    usual = losses.cross_entropy
    with mock.patch.object(losses, "cross_entropy", lambda logits, y, *options: usual(logits, y, 0.1)):
        yield


# --- update rule, schedule, batches, initial weights ---

def _sgd(change):
    """SGD whose update of each parameter gets changed options."""
    together = optim.SGD.update_all

    def usual(self, *row, **options):
        together(self, [row], **options)

    def update_all(self, rows, **options):
        for row in rows:
            change(usual, self, *row, dict(options))

    return mock.patch.object(optim.SGD, "update_all", update_all)


@fault
def sgd_nesterov(model, rng):
    """Nesterov momentum that nobody asked for."""
    with _sgd(lambda usual, self, p, g, b, o: usual(
            self, p, g, b, **{**o, "nesterov": bool(o["momentum"])})):
        yield


@fault
def sgd_dampening_at_the_first_step(model, rng):
    """The first momentum is (1 - momentum) times the gradient, as Jittor's own dampening."""
    with _sgd(lambda usual, self, p, g, b, o: usual(
            self, p, g * arithmetic.constant(0.1, g) if self.steps == 1 else g, b, **o)):
        yield


@fault
def sgd_momentum_as_average(model, rng):
    """v = m v + (1 - m) g."""
    with _sgd(lambda usual, self, p, g, b, o: usual(
            self, p, g, b, **{**o, "dampening": o["momentum"]})):
        yield


@fault
def sgd_no_decay_of_biases(model, rng):
    """Vectors (biases, BatchNorm) are left out of the weight decay."""
    with _sgd(lambda usual, self, p, g, b, o: usual(
            self, p, g, b, **({**o, "weight_decay": 0.0} if p.ndim == 1 else o))):
        yield


@fault
def sgd_decoupled_decay(model, rng):
    """The weight decays beside the momentum, as AdamW's."""
    def change(usual, self, p, g, b, o):
        decay = o.pop("weight_decay")
        if decay:
            p.update(p * arithmetic.constant(1 - o["lr"] * decay, p))
        usual(self, p, g, b, weight_decay=0.0, **o)
    with _sgd(change):
        yield


@fault
def adam_epsilon_inside(model, rng):
    """epsilon is not corrected for bias, as in Jittor's own Adam."""
    usual = optim.Adam.update

    def update(self, p, g, m, v, **options):
        options["eps"] = options["eps"] / (1 - options["betas"][1] ** self.steps) ** 0.5
        usual(self, p, g, m, v, **options)

    with mock.patch.object(optim.Adam, "update", update):
        yield


@fault
def adamw_without_decay(model, rng):
    """AdamW's weight decay is 0 by default, as in Jittor's own."""
    usual = optim.AdamW.update
    with mock.patch.object(optim.AdamW, "update", lambda self, p, g, m, v, **o: usual(
            self, p, g, m, v, **{**o, "weight_decay": 0.0})):
        yield


@fault
def schedule_one_step_late(model, rng):
    """The learning rate of the step before."""
    usual = Schedule.__call__
    with mock.patch.object(Schedule, "__call__", lambda self, step: usual(self, max(0, step - 1))):
        yield


def _batches(change):
    usual = batches.Batches.__call__
    return mock.patch.object(batches.Batches, "__call__",
                             lambda self, split, batch: change(*usual(self, split, batch)))


@fault
def data_in_another_order(model, rng):
    """The images of a batch in another order than their plan."""
    with _batches(lambda x, y: (x[::-1], y[::-1])):
        yield


@fault
def data_channels_reversed(model, rng):
    """BGR images."""
    with _batches(lambda x, y: (x[:, ::-1], y)):
        yield


@fault
def data_labels_shifted(model, rng):
    """Labels of the images before."""
    with _batches(lambda x, y: (x, jt.concat([y[1:], y[:1]]))):
        yield


@fault
def data_never_flipped(model, rng):
    """Every image is mirrored."""
    with _batches(lambda x, y: (x[:, :, :, ::-1], y)):
        yield


@fault
def initial_scale(model, rng):
    """One kind of layer starts with weights that are 1.5 times as large."""
    for layer in _modules(model, jt.nn.Conv2d):
        layer.weight.assign(layer.weight * 1.5)
    yield


@fault
def initial_distribution(model, rng):
    """Uniform for normal weights, or normal for uniform ones, of the same spread."""
    for layer in _modules(model, (jt.nn.Conv2d, jt.nn.Linear)):
        values = layer.weight.numpy()
        if values.size < 2:
            continue
        uniform = np.abs(values).max() < 1.8 * values.std()
        new = (rng.standard_normal(values.shape) if uniform
               else rng.uniform(-3 ** 0.5, 3 ** 0.5, values.shape)) * values.std()
        layer.weight.assign(jt.array(new.astype("float32")))
    yield
