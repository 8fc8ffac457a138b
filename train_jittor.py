"""Train a net of jt_models on CIFAR-10: the twin of train_torch.py.

    python train_jittor.py --net densenet
    python train_jittor.py --list
"""
from __future__ import annotations

import contextlib
import os
import resource
import sys

import numpy as np

from parity import weights
from training import cli, gpu, job
from training.errors import UserError
from training.ranks import Ranks
from zoo.catalog import NETS, input_size
from zoo.heads import aux_weight, heads, mixed, total_loss


class Engine:
    """The net, its optimizer and the data on the device (see training.loop)."""

    def __init__(self, args, data, ranks=Ranks()):
        jt_models, jt = _start(args.device)
        from jt_models import compiling, memory
        from jt_models.batches import Batches
        from jt_models.layers import set_training, stock, synchronised
        from jt_models.losses import cross_entropy
        from jt_models.optim import trainable
        self.jt, self.args, self.ranks = jt, args, ranks
        self.cross_entropy, self.set_training = cross_entropy, set_training
        self.trainable = trainable
        size = input_size(args.net, data.image_size)
        self.device = "cuda" if jt.flags.use_cuda else "cpu"
        if self.device == "cpu" and args.kernels != "stock":
            memory.reserve()
        self.seed(args.seed)
        self.net = jt_models.create(args.net, data.num_classes, data.in_channels, size,
                                    dropout=args.dropout)
        if args.kernels == "stock":
            stock(self.net)
            compiling.leave_loops()
        elif args.sync_bn and ranks.size > 1:
            synchronised(self.net)
        self.align()  # Jittor's ranks draw other weights
        self.optimizer = _optimizer(self.net, args)
        self.inputs = Batches(data, size)
        self.average = []  # of each parameter, once there is a step

    def environment(self) -> dict:
        """Framework, device and precision, for the record."""
        return {"framework": "jittor", "device": self.device,
                "gpu": gpu.name() if self.device == "cuda" else None,
                "precision": gpu.precision(self.device),
                "use_mkl": os.environ.get("use_mkl", "1"), "kernels": self.args.kernels or "own",
                "ranks": self.ranks.size}

    def seed(self, value):
        self.jt.set_global_seed(value)

    def step(self, batch, lr):
        part, scale = self.ranks.part(batch)
        x, y = self.inputs("train", part)
        self.optimizer.lr = lr
        output = self.net(x)
        loss = mixed(lambda y: self._loss(output, y), y, batch.mix) * scale
        self.optimizer.backward(loss)
        if self.args.clip_norm:
            self.optimizer.clip_gradients(self.args.clip_norm)
        self.optimizer.step()
        if self.args.ema:
            self._follow()
        guess = heads(output)[0].argmax(1)[0]
        return loss / self.ranks.size, mixed(lambda y: (guess == y).sum(), y, batch.mix)

    def _loss(self, output, y):
        return total_loss(lambda logits: self.cross_entropy(
            logits, y, label_smoothing=self.args.label_smoothing), output, aux_weight(self.net))

    def fetch(self, values):
        if self.ranks.size == 1:
            return [v.item() for v in values]
        values = self.jt.concat([v.float32().reshape([1]) for v in values])
        return values.mpi_all_reduce("add").numpy().tolist()

    def total(self, array):
        if self.ranks.size == 1:
            return array
        with self.jt.flag_scope(auto_convert_64_to_32=0):
            return self.jt.array64(array).mpi_all_reduce("add").numpy()

    def align(self):
        if self.ranks.size > 1:
            self.net.mpi_param_broadcast(0)
            self.jt.sync_all(True)  # what one rank alone runs later must not wait for the others

    def outputs(self, split, batches):
        self.set_training(self.net, False)
        waiting = []
        with self.jt.no_grad():
            for batch in batches:
                x, y = self.inputs(split, batch)
                waiting.append([self.net(x), y])
                self.jt.sync(waiting[-1])
                if len(waiting) == 16:  # to read one is to wait for all that the GPU was given
                    yield from self._read(waiting)
            yield from self._read(waiting)
        self.set_training(self.net)

    @staticmethod
    def _read(waiting):
        while waiting:
            yield tuple(v.numpy() for v in waiting.pop(0))

    def _follow(self):
        parameters = list(self.trainable(self.net).values())
        if self.average:
            for a, p in zip(self.average, parameters):
                a.update(a + (p - a) * (1 - self.args.ema))
        else:
            self.average = [p.copy().stop_grad() for p in parameters]

    @contextlib.contextmanager
    def averaged(self):
        parameters = list(self.trainable(self.net).values()) if self.average else []
        kept = [p.copy() for p in parameters]
        self._put(parameters, self.average)
        yield
        self._put(parameters, kept)

    def _put(self, parameters, values):
        for p, value in zip(parameters, values):
            p.update(value)
            p.start_grad()  # `update` takes over that a value needs no gradient

    def average_arrays(self):
        return {name: np.array(a.numpy()) for name, a in zip(self.trainable(self.net), self.average)}

    def load_average(self, arrays):
        self.average = [self.jt.array(arrays[name]).stop_grad()
                        for name in self.trainable(self.net)] if arrays else []

    def arrays(self):
        return weights.tensors(self.net)

    def optimizer_arrays(self):
        return {**{name: np.array(var.numpy()) for name, var in self._slots().items()},
                "steps": np.array(self.optimizer.steps)}

    def load_optimizer(self, arrays):
        for name, var in self._slots().items():
            var.update(self.jt.array(arrays[name]))
        self.optimizer.steps = int(arrays["steps"])

    def state_shapes(self):
        shapes = {name: tuple(p.shape) for name, p in self.trainable(self.net).items()}
        slots = {name: tuple(var.shape) for name, var in self._slots().items()}
        return {"optimizer": {**slots, "steps": ()}, "average": shapes if self.args.ema else {}}

    def _slots(self):
        """"momentum_buffer.conv1.weight" and so on -> Var of the optimizer's state."""
        group, = self.optimizer.param_groups
        return {f"{slot}.{name}": var for slot in self.optimizer.state
                for name, var in zip(self.trainable(self.net), group[slot])}

    def peak_memory(self):
        if self.device == "cuda":  # neither framework's pool shrinks, so what it holds is its peak
            return gpu.memory() or self.jt.get_mem_info().total_cuda_used / 1e6
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6

    def energy(self):
        return gpu.energy() if self.device == "cuda" and self.ranks.size == 1 else None


def _start(device: str):
    """Import Jittor for "auto", "cpu" or "cuda"; returns (jt_models, jittor)."""
    if device == "cpu":
        os.environ.setdefault("nvcc_path", "")
    if "torch" not in sys.modules:  # it is if torchvision has read the images or torch weights
        os.environ.setdefault("FIX_TORCH_ERROR", "0")
    try:
        import jt_models
        import jittor as jt
    except ImportError as error:
        raise UserError(str(error)) from error
    if device == "cuda" and not jt.has_cuda:
        raise UserError(f"--device cuda: Jittor runs on {jt_models.runtime.device}; use cpu or auto "
                        "(`python -m jt_models.runtime` says more)")
    jt.flags.use_cuda = int(device != "cpu" and jt.has_cuda)
    return jt_models, jt


def _optimizer(net, args):
    from jt_models import optim
    parameters = list(optim.trainable(net).values())
    if args.optimizer == "sgd":
        return optim.SGD(parameters, args.lr, args.momentum, weight_decay=args.wd,
                         nesterov=args.nesterov)
    rule = {"adam": optim.Adam, "adamw": optim.AdamW}[args.optimizer]
    return rule(parameters, args.lr, weight_decay=args.wd)


def trace(name: str, size: int | None = None):
    """Layers of a net in its native form, or for images of `size` pixels."""
    jt_models, _ = _start("cpu")
    from jt_models.trace import trace as trace_net
    net = NETS[name]
    size = size or net.size
    return trace_net(jt_models.create(name, net.classes, net.channels, size), net.channels, size)


def main(argv: list[str] | None = None) -> int:
    return job.main("jittor", Engine, trace, argv)


if __name__ == "__main__":
    cli.leave(main)
