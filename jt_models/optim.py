"""Optimizers with PyTorch's update rules, in Jittor.

Jittor's own SGD applies dampening at the first step, its Adam does not correct epsilon for bias and
counts backward calls as steps, its AdamW has no default weight decay, and all take whatever
`parameters()` lists: running statistics too. `trainable` lists what torch's would.
"""
from __future__ import annotations

import functools
import math

import jittor as jt

from .arithmetic import constant, like, total
from .source import filled


def trainable(module: jt.nn.Module) -> dict[str, jt.Var]:
    """Name -> parameter, in order of definition, without buffers such as running statistics."""
    return {name: var for name, var in module.named_parameters()
            if not name.endswith(("running_mean", "running_var"))}


class _Optimizer(jt.optim.Optimizer):
    """Common part: state per parameter, and the step count that a rule may need.

    Args:
        params: list of parameters, or of groups {"params": [...], option: value}.
        lr: learning rate; may be changed between steps through the attribute `lr`.
        **options: the rule's other options, which a group may override.
    """
    state: tuple[str, ...] = ()

    def __init__(self, params, lr, **options):
        super().__init__(list(params), lr)
        self.options = options
        self.steps = 0
        for group in self.param_groups:
            for name in self.state:
                group[name] = [jt.zeros(p.shape, p.dtype).stop_grad() for p in group["params"]]

    def clip_gradients(self, max_norm):
        """Scale the gradients of `backward` so that their norm, over all parameters together, is at most
        `max_norm`, as torch.nn.utils.clip_grad_norm_. Call before `step()`.

        Sums go axis by axis: all at once, as in its own `clip_grad_norm`, Jittor adds one by one, which
        is off by 2e-4 for 10^6 values and by 8e-3 for 10^7.

        Returns:
            The norm before, a Var.
        """
        trained = [g for group in self.param_groups for p, g in zip(group["params"], group["grads"])
                   if not p.is_stop_grad()]
        squares = [total(g * g, range(g.ndim)) for g in trained]
        norm = jt.sqrt(jt.concat(squares).sum())
        scale = jt.minimum(constant(max_norm, norm) / (norm + constant(1e-6, norm)), constant(1.0, norm))
        for g in trained:
            g.update(g * scale)
        return norm

    def step(self, loss=None, retain_graph=False):
        """One update; with `loss` given, its gradients are computed first."""
        self.pre_step(loss, retain_graph)
        self.steps += 1
        for group in self.param_groups:
            options = {name: group.get(name, value) for name, value in self.options.items()}
            options["lr"] = group.get("lr", self.lr)
            states = [group[name] for name in self.state]
            self.update_all([row for row in zip(group["params"], group["grads"], *states)
                             if not row[0].is_stop_grad()], **options)
        self.post_step()

    def update_all(self, rows, **options):
        """Update each parameter of `rows`, (parameter, gradient, *state)."""
        for row in rows:
            self.update(*row, **options)


# In PyTorch's order of operations. The options are data of a call, not text of the source: another rate compiles
# nothing. The old momentum counts `carried` times in the new one, the gradient `fresh` times.
_SGD_HEADER = """
template <class T> struct Options { T rate, momentum, carried, fresh, decay; bool nesterov; };
template <class T> WHERE T slope(T p, T g, const Options<T>& o) { return o.decay == 0 ? g : g + o.decay * p; }
template <class T> WHERE T mean(T p, T g, T m, const Options<T>& o) { return o.carried * m + o.fresh * slope(p, g, o); }
template <class T> WHERE T moved(T p, T g, T n, const Options<T>& o) {
    return p - o.rate * (o.nesterov ? slope(p, g, o) + o.momentum * n : n);
}
template <class T> WHERE void update(int64_t i, const T* p, const T* g, const T* m, T* q, T* n, const Options<T>& o) {
    const T weight = p[i], gradient = g[i], next = mean(weight, gradient, m[i], o);
    n[i] = next;
    q[i] = moved(weight, gradient, next, o);
}
"""
_SGD_OPTIONS = """
    const Options<in0_type> o = {(in0_type)data["rate"], (in0_type)data["momentum"], (in0_type)data["carried"],
                                 (in0_type)data["fresh"], (in0_type)data["decay"], (bool)data["nesterov"]};
"""
_SGD_CPU = _SGD_OPTIONS + """
    auto parameter = [&](int64_t count, auto p, auto g, auto m, auto q, auto n) {
        #pragma omp parallel for simd if (parallel: count > 32768)
        for (int64_t i = 0; i < count; i++) update<in0_type>(i, p, g, m, q, n, o);
    };
"""
# Elements of a parameter, from which on memory counts more than what an operation costs, and more than a second pass.
_ALONE, _LARGE = 1 << 20, 1 << 22
_SGD_HALF = _SGD_OPTIONS + """
    #pragma omp parallel for simd
    for (int64_t i = 0; i < in0->num; i++) out0_p[i] = HALF(in0_p[i], in1_p[i], in2_p[i], o);
"""
_SGD_KERNEL = """
template <class T> __global__ void updates(int64_t count, const T* p, const T* g, const T* m, T* q, T* n, Options<T> o) {
    for (int64_t i = blockIdx.x * blockDim.x + threadIdx.x; i < count; i += blockDim.x * gridDim.x)
        update(i, p, g, m, q, n, o);
}
"""
_SGD_CUDA = _SGD_OPTIONS + """
    auto parameter = [&](int64_t count, auto p, auto g, auto m, auto q, auto n) {
        updates<in0_type><<<std::min<int64_t>((count - 1) / 256 + 1, 4096), 256>>>(count, p, g, m, q, n, o);
    };
"""


@functools.lru_cache
def _sgd(count: int) -> dict[str, str]:
    """One operation for so many parameters, as options of jt.code."""
    calls = "\n".join(
        f"parameter(in{3 * i}->num, in{3 * i}_p, in{3 * i + 1}_p, in{3 * i + 2}_p, out{2 * i}_p, out{2 * i + 1}_p);"
        for i in range(count))
    return {"cpu_header": filled(_SGD_HEADER, WHERE="static inline"), "cpu_src": _SGD_CPU + calls,
            "cuda_header": filled(_SGD_HEADER, WHERE="static __device__") + _SGD_KERNEL, "cuda_src": _SGD_CUDA + calls}


class SGD(_Optimizer):
    """Stochastic gradient descent, as torch.optim.SGD (momentum after Sutskever et al. 2013).

    Raises:
        ValueError: Nesterov momentum without momentum, or with dampening.
    """
    state = ("momentum_buffer",)

    def __init__(self, params, lr=1e-3, momentum=0.0, dampening=0.0, weight_decay=0.0, nesterov=False):
        if nesterov and (momentum <= 0 or dampening != 0):
            raise ValueError("Nesterov momentum requires a momentum and zero dampening")
        super().__init__(params, lr, momentum=momentum, dampening=dampening,
                         weight_decay=weight_decay, nesterov=nesterov)
        self.kept = []

    def update_all(self, rows, lr, momentum, dampening, weight_decay, nesterov):
        first = self.steps == 1 or not momentum
        options = {"rate": lr, "momentum": momentum, "carried": 0 if first else momentum,
                   "fresh": 1 if first else 1 - dampening, "decay": weight_decay, "nesterov": nesterov}
        data = {name: float(value) for name, value in options.items()}
        # Written in Jittor an update is fourteen operations a parameter, more than a small layer's own. Eight of a kind
        # share an operation; what is left over goes alone, so that no net has to compile for its own number. So do larger
        # ones, of which eight at a time would need memory for as many weights and momentums anew.
        kinds, large = {}, []
        for row in rows:
            if not jt.flags.use_cuda and row[0].numel() >= _LARGE:
                large.append(row)
            else:
                kinds.setdefault((row[0].ndim, str(row[0].dtype), row[0].numel() >= _ALONE), []).append(row)
        if large:
            # Old weights and gradients are kept until new ones take their memory, of which a forward pass would take
            # pieces otherwise: so all but the large gradients is computed first, and not what may be computed with it.
            jt.sync([row[1] for kind in kinds.values() for row in kind], False, False)
            self.kept = [v.detach() for p, g, _ in large for v in (p, g)]
            jt.sync(self.kept)
        for row in large:
            self._update_in_turn(*row, data)
        for (*_, alone), kind in kinds.items():
            while kind:
                size = 8 if len(kind) >= 8 and not alone else 1
                self._update_together(kind[:size], data)
                kind = kind[size:]

    @staticmethod
    def _update_together(rows, data):
        inputs = [v for p, g, buffer in rows for v in (p, like(p, g), like(p, buffer))]
        shapes = [p.shape for p, *_ in rows for _ in range(2)]
        made = jt.code(shapes, [inputs[0].dtype] * len(shapes), inputs, data=data, **_sgd(len(rows)))
        for (p, _, buffer), new, kept in zip(rows, made[::2], made[1::2]):
            p.update(new)
            if data["momentum"]:
                buffer.update(kept)

    @staticmethod
    def _update_in_turn(p, g, buffer, data):
        """Bitwise as together, with less memory: the old momentum is gone before the new weight is made. Nothing waits."""
        def half(name, *inputs):
            return jt.code(p.shape, p.dtype, [p, *(like(p, v) for v in inputs)], data=data,
                           cpu_header=filled(_SGD_HEADER, WHERE="static inline"), cpu_src=filled(_SGD_HALF, HALF=name))

        mean = half("mean", g, buffer)
        if data["momentum"]:
            buffer.update(mean)
        jt.sync([mean])
        p.update(half("moved", g, mean))
        jt.sync([p])


class Adam(_Optimizer):
    """Adam (Kingma and Ba 2014, arXiv:1412.6980, section 2), as torch.optim.Adam."""
    state = ("exp_avg", "exp_avg_sq")
    decoupled = False

    def __init__(self, params, lr=1e-3, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.0):
        super().__init__(params, lr, betas=betas, eps=eps, weight_decay=weight_decay)

    def update(self, p, g, exp_avg, exp_avg_sq, lr, betas, eps, weight_decay):
        beta1, beta2 = betas
        kept = p
        if weight_decay and self.decoupled:
            kept = p * constant(1 - lr * weight_decay, p)
        elif weight_decay:
            g = g + p * constant(weight_decay, p)
        exp_avg.update(exp_avg * constant(beta1, p) + g * constant(1 - beta1, p))
        exp_avg_sq.update(exp_avg_sq * constant(beta2, p) + g * g * constant(1 - beta2, p))
        step_size = lr / (1 - beta1 ** self.steps)
        correction = math.sqrt(1 - beta2 ** self.steps)
        denominator = jt.sqrt(exp_avg_sq) / constant(correction, p) + constant(eps, p)
        p.update(kept - exp_avg / denominator * constant(step_size, p))


class AdamW(Adam):
    """Adam with decoupled weight decay (Loshchilov and Hutter 2017, arXiv:1711.05101)."""
    decoupled = True

    def __init__(self, params, lr=1e-3, betas=(0.9, 0.999), eps=1e-8, weight_decay=1e-2):
        super().__init__(params, lr, betas, eps, weight_decay)


class RMSprop(_Optimizer):
    """RMSprop (Tieleman and Hinton 2012, lecture 6.5), as torch.optim.RMSprop."""
    state = ("square_avg", "momentum_buffer", "grad_avg")

    def __init__(self, params, lr=1e-2, alpha=0.99, eps=1e-8, weight_decay=0.0, momentum=0.0,
                 centered=False):
        super().__init__(params, lr, alpha=alpha, eps=eps, weight_decay=weight_decay,
                         momentum=momentum, centered=centered)

    def update(self, p, g, square_avg, buffer, grad_avg, lr, alpha, eps, weight_decay, momentum,
               centered):
        if weight_decay:
            g = g + p * constant(weight_decay, p)
        square_avg.update(square_avg * constant(alpha, p) + g * g * constant(1 - alpha, p))
        variance = square_avg
        if centered:
            grad_avg.update(grad_avg * constant(alpha, p) + g * constant(1 - alpha, p))
            variance = square_avg - grad_avg * grad_avg
        new = g / (jt.sqrt(variance) + constant(eps, p))
        if momentum:
            buffer.update(buffer * constant(momentum, p) + new)
            new = buffer
        p.update(p - new * constant(lr, p))
