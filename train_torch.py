"""Train a net of torch_ref on CIFAR-10: the twin of train_jittor.py.

    python train_torch.py --net densenet
    python train_torch.py --list
"""
from __future__ import annotations

import atexit
import contextlib
import datetime
import resource

from parity import weights
from training import cli, gpu, job
from training.errors import UserError
from training.ranks import Ranks
from zoo.catalog import NETS, input_size
from zoo.heads import aux_weight, heads, mixed, total_loss


class Engine:
    """The net, its optimizer and the data on the device (see training.loop)."""

    def __init__(self, args, data, ranks=Ranks()):
        import torch
        from torch_ref import create
        from torch_ref.batches import Batches
        from torch_ref.sync import synchronised
        self.torch, self.args, self.ranks = torch, args, ranks
        self.cross_entropy = torch.nn.functional.cross_entropy
        self.device = _device(torch, args.device, ranks)
        if ranks.size > 1:
            _join(torch, "nccl" if self.device.type == "cuda" else "gloo")
        if args.amp and self.device.type == "cpu":
            raise UserError("--amp needs an NVIDIA GPU, and this training runs on the CPU")
        self.autocast = torch.autocast(self.device.type, torch.bfloat16, enabled=args.amp)
        size = input_size(args.net, data.image_size)
        self.seed(args.seed)
        torch.backends.cudnn.benchmark = True
        layout = torch.channels_last if args.channels_last else torch.contiguous_format
        self.net = create(args.net, data.num_classes, data.in_channels, size,
                          dropout=args.dropout).to(self.device, memory_format=layout)
        self.run = self.net
        if ranks.size > 1:
            self.run = torch.nn.parallel.DistributedDataParallel(
                synchronised(self.net) if args.sync_bn else self.net, broadcast_buffers=False)
        if args.compile:
            self.run = _compiled(torch, self.run, self.device)
        self.optimizer = _optimizer(torch, self.net.parameters(), args)
        self.inputs = Batches(data, size, self.device, layout)
        self.average = []  # of each parameter, once there is a step

    def environment(self) -> dict:
        """Framework, device and precision, for the record."""
        torch = self.torch
        name = torch.cuda.get_device_name() if self.device.type == "cuda" else None
        return {"framework": "torch", "device": self.device.type, "gpu": name,
                "precision": "bfloat16 by autocast" if self.args.amp else gpu.precision(self.device.type),
                "threads": torch.get_num_threads(), "ranks": self.ranks.size}

    def seed(self, value):
        self.torch.manual_seed(value + self.ranks.rank)

    def step(self, batch, lr):
        part, scale = self.ranks.part(batch)
        x, y = self.inputs("train", part)
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        with self.autocast:
            output = self.run(x)
            loss = mixed(lambda y: self._loss(output, y), y, batch.mix) * scale
        self.optimizer.zero_grad()
        loss.backward()
        if self.args.clip_norm:
            self.torch.nn.utils.clip_grad_norm_(self.net.parameters(), self.args.clip_norm)
        self.optimizer.step()
        if self.args.ema:
            self._follow()
        guess = heads(output)[0].detach().argmax(1)
        return loss.detach() / self.ranks.size, mixed(lambda y: (guess == y).sum(), y, batch.mix)

    def _loss(self, output, y):
        return total_loss(lambda logits: self.cross_entropy(
            logits, y, label_smoothing=self.args.label_smoothing), output, aux_weight(self.net))

    def fetch(self, values):
        return self._sum(self.torch.stack([v.double() for v in values])).tolist()

    def total(self, array):
        return self._sum(self.torch.from_numpy(array).to(self.device)).cpu().numpy()

    def _sum(self, tensor):
        if self.ranks.size > 1:
            self.torch.distributed.all_reduce(tensor)
        return tensor

    def align(self):
        if self.ranks.size > 1:
            for tensor in self.net.state_dict().values():
                self.torch.distributed.broadcast(tensor, 0)

    def outputs(self, split, batches):
        self.net.eval()
        with self.torch.no_grad():
            for batch in batches:
                x, y = self.inputs(split, batch)
                with self.autocast:
                    logits = self.run(x)
                yield logits.float().cpu().numpy(), y.cpu().numpy()
        self.net.train()

    def _follow(self):
        parameters = [p.detach() for p in self.net.parameters()]
        if self.average:
            self.torch._foreach_lerp_(self.average, parameters, 1 - self.args.ema)
        else:
            self.average = [p.clone() for p in parameters]

    @contextlib.contextmanager
    def averaged(self):
        parameters = [p.detach() for p in self.net.parameters()] if self.average else []
        kept = [p.clone() for p in parameters]
        self._put(parameters, self.average)
        yield
        self._put(parameters, kept)

    def _put(self, parameters, values):
        for p, value in zip(parameters, values):
            p.copy_(value)

    def average_arrays(self):
        return {name: a.cpu().numpy() for (name, _), a in zip(self.net.named_parameters(), self.average)}

    def load_average(self, arrays):
        self.average = [self.torch.tensor(arrays[name]).to(self.device)
                        for name, _ in self.net.named_parameters()] if arrays else []

    def arrays(self):
        return weights.tensors(self.net)

    def optimizer_arrays(self):
        names = [name for name, _ in self.net.named_parameters()]
        return {f"{slot}.{names[index]}": value.cpu().numpy()
                for index, slots in self.optimizer.state_dict()["state"].items()
                for slot, value in slots.items() if value is not None}

    def load_optimizer(self, arrays):
        index = {name: i for i, (name, _) in enumerate(self.net.named_parameters())}
        state = {}
        for key, array in arrays.items():
            slot, _, name = key.partition(".")
            state.setdefault(index[name], {})[slot] = self.torch.tensor(array)
        self.optimizer.load_state_dict({**self.optimizer.state_dict(), "state": state})

    def state_shapes(self):
        shapes = {name: tuple(p.shape) for name, p in self.net.named_parameters()}
        sgd = ("momentum_buffer",) if self.args.momentum else ()
        slots = sgd if self.args.optimizer == "sgd" else ("step", "exp_avg", "exp_avg_sq")
        optimizer = {f"{slot}.{name}": () if slot == "step" else shape
                     for slot in slots for name, shape in shapes.items()}
        return {"optimizer": optimizer, "average": shapes if self.args.ema else {}}

    def peak_memory(self):
        if self.device.type == "cuda":
            return gpu.memory() or self.torch.cuda.max_memory_reserved() / 1e6
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6

    def energy(self):
        return gpu.energy() if self.device.type == "cuda" and self.ranks.size == 1 else None


def _device(torch, choice: str, ranks):
    there = choice != "cpu" and torch.cuda.is_available()
    if choice == "cuda" and not there:
        raise UserError("--device cuda: this PyTorch sees no usable NVIDIA GPU; use cpu or auto")
    if not there:
        return torch.device("cpu")
    if ranks.local >= torch.cuda.device_count():
        raise UserError(f"{ranks.local + 1} ranks on this machine, but PyTorch sees "
                        f"{torch.cuda.device_count()} GPU(s): start fewer, or use --device cpu")
    torch.cuda.set_device(ranks.local)
    return torch.device("cuda", ranks.local)


def _join(torch, backend: str) -> None:
    try:
        # At the start and in each sum; NCCL's own default, while gloo would wait for half an hour.
        torch.distributed.init_process_group(backend, timeout=datetime.timedelta(minutes=10))
    except RuntimeError as error:
        raise UserError(f"the ranks of this training did not find each other: {error}") from error
    atexit.register(torch.distributed.destroy_process_group)


def _compiled(torch, net, device):
    try:
        torch.compile(lambda x: x.sin() + 1)(torch.ones(8, device=device))
    except Exception as error:  # whatever a compiler may raise
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        raise UserError(f"--compile: torch.compile does not work here: {reason}") from error
    return torch.compile(net)


def _optimizer(torch, parameters, args):
    if args.optimizer == "sgd":
        return torch.optim.SGD(parameters, args.lr, args.momentum, weight_decay=args.wd,
                               nesterov=args.nesterov)
    rule = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[args.optimizer]
    return rule(parameters, args.lr, weight_decay=args.wd)


def trace(name: str, size: int | None = None):
    """Layers of a net in its native form, or for images of `size` pixels."""
    import torch
    import torch_ref
    from torch_ref.trace import trace as trace_net
    net = NETS[name]
    size = size or net.size
    with torch.device("meta"):
        model = torch_ref.create(name, net.classes, net.channels, size)
    return trace_net(model, net.channels, size)


def main(argv: list[str] | None = None) -> int:
    return job.main("torch", Engine, trace, argv)


if __name__ == "__main__":
    cli.leave(main)
