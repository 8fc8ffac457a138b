"""The one command line of both trainers."""
from __future__ import annotations

import argparse
import importlib.util
import json
import shlex
from pathlib import Path

from zoo.catalog import lookup

from .datasets import DATASETS
from .errors import UserError
from .files import is_text
from .run import read_record
from .schedule import KINDS, LARGEST

ZOOS = {"jittor": "jt_models", "torch": "torch_ref"}
# Pixels; far above any net's, and an image of so many fits into memory.
LARGEST_SIZE = 16384
# Options of a command that trains nothing new, or starts others that do; those that say where a run is kept.
NO_RUN = ("--resume", "--list", "--summary", "--evaluate", "--seeds")
OUTPUTS = ("--output-dir", "--save-init")


class Parser(argparse.ArgumentParser):
    """Errors are UserErrors; options have one name, so that those who pass them on know them."""

    def __init__(self, *arguments, **options):
        super().__init__(*arguments, allow_abbrev=False, **options)

    def error(self, message):
        raise UserError(f"{message} (see --help)")


def number(kind, low, high=None, open_high=False):
    """argparse type: a number in [low, high], or [low, high); `high` is by default 2**31 - 1 for whole
    numbers and schedule.LARGEST for others."""
    high = (2**31 - 1 if kind is int else LARGEST) if high is None else high

    def parse(text):
        try:
            value = kind(text)
        except ValueError:
            noun = "a whole number" if kind is int else "a number"
            raise argparse.ArgumentTypeError(f"{text!r} is not {noun}") from None
        if not (low <= value < high if open_high else low <= value <= high):
            raise argparse.ArgumentTypeError(f"{text} is not allowed: at least {low} and "
                                             f"{'below' if open_high else 'at most'} {high}")
        return value
    return parse


def net(text: str) -> str:
    """argparse type: the name of a net."""
    try:
        lookup(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
    return text


def _safetensors(text: str) -> Path:
    """argparse type: a .safetensors file that can be written."""
    path = Path(text)
    if path.suffix != ".safetensors" or path.is_dir():
        raise argparse.ArgumentTypeError(f"{text!r} is not a .safetensors file")
    return path


def parser(framework: str, add_help: bool = True) -> argparse.ArgumentParser:
    """The options, for the trainer of one framework ("jittor" or "torch")."""
    zoo = ZOOS[framework]
    p = Parser(
        prog=f"train_{framework}.py", add_help=add_help,
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
        description=f"Train a net of {zoo}. train_jittor.py and train_torch.py take the same "
                    "options and, with the same seed, see the same batches.",
        epilog="Exit code: 0 done; 2 bad input, or a file that cannot be read or written (one line "
               "says what); 130 interrupted by Ctrl-C or SIGTERM (137 where Jittor was compiling and had "
               "to be killed).")
    whole, fraction = number(int, 1), number(float, 0, 1, open_high=True)

    g = p.add_argument_group("net")
    g.add_argument("--net", type=net, metavar="NAME", help="one of --list")
    g.add_argument("--list", action="store_true", help="list the nets and stop")
    g.add_argument("--summary", action="store_true",
                   help="print the net's layers for its native input (or --image-size) and stop")
    g.add_argument("--dropout", type=fraction, default=0.0, metavar="P",
                   help="probability, where the net's source has its dropout")
    g.add_argument("--init-from", type=Path, metavar="FILE",
                   help="start from these weights (.safetensors, .pth, Jittor's .pkl), of either framework")
    g.add_argument("--save-init", type=_safetensors, metavar="FILE",
                   help="save the starting weights (.safetensors)")

    g = p.add_argument_group("data")
    g.add_argument("--dataset", choices=DATASETS, default="auto",
                   help="auto: images in --data-dir, else CIFAR-10, else the embedded digits")
    g.add_argument("--data-dir", type=Path, metavar="DIR",
                   help="where data sets lie or are downloaded to (default: data); for images: "
                        "DIR/train/CLASS/* and DIR/test/CLASS/*")
    g.add_argument("--val-fraction", type=fraction, default=0.1, metavar="F",
                   help="part of the training images that is held out for validation")
    g.add_argument("--image-size", type=number(int, 1, LARGEST_SIZE), metavar="PIXELS",
                   help="resize the images")
    g.add_argument("--augment", action=argparse.BooleanOptionalAction, default=True,
                   help="random crop and flip, where the data set allows")
    g.add_argument("--cutout", type=number(int, 0), default=0, metavar="PIXELS",
                   help="blank a random square of this side in every training image; 0: none")
    g.add_argument("--mixup", type=number(float, 0), default=0.0, metavar="ALPHA",
                   help="train on weighted means of two images, the weight drawn from Beta(ALPHA, ALPHA) for "
                        "each batch; 0: never")

    g = p.add_argument_group("training")
    g.add_argument("--epochs", type=whole, default=10, metavar="N", help="passes over the data")
    g.add_argument("-b", "--batch-size", type=whole, default=128, metavar="N",
                   help="images a step, of all ranks together")
    g.add_argument("--optimizer", choices=("sgd", "adam", "adamw"), default="sgd", help="update rule")
    g.add_argument("--lr", type=number(float, 0), metavar="LR",
                   help="peak learning rate (default: 0.01 for sgd, 0.001 for adam and adamw)")
    g.add_argument("--momentum", type=fraction, default=0.9, metavar="M", help="of sgd")
    g.add_argument("--nesterov", action="store_true", help="Nesterov momentum for sgd")
    g.add_argument("--wd", "--weight-decay", dest="wd", type=number(float, 0), default=5e-4,
                   metavar="WD", help="weight decay, on all parameters")
    g.add_argument("--clip-norm", type=number(float, 0), default=0.0, metavar="NORM",
                   help="scale gradients whose norm, of all parameters together, is larger; 0: never")
    g.add_argument("--ema", type=fraction, default=0.0, metavar="DECAY",
                   help="evaluate and save the exponential moving average of the weights over the steps "
                        "(0.999, say; BatchNorm's statistics are the net's); 0: the weights themselves")
    g.add_argument("--schedule", choices=KINDS, default="cosine", help="learning rate over time")
    g.add_argument("--warmup-epochs", type=number(float, 0), default=0.0, metavar="N",
                   help="linear warm-up")
    g.add_argument("--milestones", type=whole, nargs="+", default=[], metavar="EPOCH",
                   help="epochs at whose start multistep multiplies the rate by --gamma")
    g.add_argument("--gamma", type=number(float, 0), default=0.1, help="factor of multistep")
    g.add_argument("--sync-bn", action="store_true",
                   help="BatchNorm over the batch of all ranks together (torchrun, mpirun)")
    g.add_argument("--label-smoothing", type=fraction, default=0.0, metavar="F",
                   help="weight of the uniform distribution in the target")
    g.add_argument("--limit-batches", type=whole, metavar="N",
                   help="only the first N batches of each epoch and evaluation, for a quick try")

    g = p.add_argument_group("run")
    g.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto",
                   help="auto: the GPU if there is one")
    g.add_argument("--amp", action="store_true",
                   help="mixed precision by PyTorch's autocast to bfloat16, on a GPU; Jittor has none to rely on")
    g.add_argument("--seed", type=number(int, 0, 2**31 - 1), default=0, metavar="N",
                   help="of weights, batches, validation split and dropout")
    g.add_argument("--output-dir", type=Path, metavar="DIR",
                   help=f"the run's folder, new or empty (default: runs/NET-{framework}-TIME)")
    g.add_argument("--resume", type=Path, metavar="DIR",
                   help="continue the interrupted run in this folder, with its options; it ends bit for bit "
                        "(CPU) as if it had not been interrupted")
    g.add_argument("--seeds", type=number(int, 0, 2**31 - 1), nargs="+", default=[], metavar="N",
                   help="one run for each of these seeds, in folders of their own in --output-dir, and a "
                        "table of their results; with --output-dir the same command continues what was "
                        "interrupted")
    g.add_argument("--print-every", type=whole, metavar="STEPS",
                   help="a line about each so many steps, too, where losses are fetched: at an epoch's first step, "
                        "at multiples of 20 and at the last")
    g.add_argument("--tensorboard", action="store_true",
                   help="write the logs for TensorBoard, too, into the run's folder")
    g.add_argument("--evaluate", action="store_true",
                   help="only evaluate the weights of --init-from on the test images")
    if framework == "jittor":
        g = p.add_argument_group("Jittor only")
        # No default of its own: compare.py takes an option that is not given for one that PyTorch's lacks.
        g.add_argument("--kernels", choices=("own", "stock"),
                       help="stock: convolutions, BatchNorm, ReLUs and pools as Jittor computes them, BatchNorm less "
                            "exact and with the biased variance; to measure against (default: own)")
    else:
        g = p.add_argument_group("PyTorch only")
        g.add_argument("--channels-last", action="store_true", help="memory layout of images and weights")
        g.add_argument("--compile", action="store_true", help="torch.compile the net")
    return p


def parse(framework: str, argv: list[str] | None = None) -> argparse.Namespace:
    """Parse and cross-check the options.

    Raises:
        UserError: one sentence that names the option.
    """
    args = parser(framework).parse_args(argv)
    if args.amp and framework == "jittor":
        raise UserError("--amp: Jittor 1.3.11.0 adds up in float16 in a float16 convolution, and has none in "
                        "bfloat16 (docs/cuda.md)")
    return _recorded(framework, args) if args.resume else _checked(args)


def refuse(arguments: list[str], names: tuple[str, ...], why: str) -> None:
    """UserError if one of the options `names` is among `arguments`."""
    for name in names:
        if name in (word.partition("=")[0] for word in arguments):
            raise UserError(f"{name} {why}")


def plain(args: argparse.Namespace) -> dict:
    """Parsed options as a run's record holds them."""
    return json.loads(json.dumps(vars(args), default=str))


def _checked(args: argparse.Namespace) -> argparse.Namespace:
    if args.list:
        return args
    if args.net is None:
        raise UserError("--net NAME is needed (see --list)")
    if args.lr is None:
        args.lr = 0.01 if args.optimizer == "sgd" else 1e-3
    if args.data_dir is None:
        args.data_dir = Path("data")
    elif args.dataset == "auto" and not args.data_dir.is_dir():
        raise UserError(f"--data-dir {args.data_dir} is no folder (name a --dataset to download it there)")
    if args.seeds and (args.seed or args.evaluate or args.save_init):
        raise UserError("--seeds needs to be without --seed, --evaluate and --save-init")
    if args.evaluate and args.save_init:
        raise UserError("--save-init belongs to a training: leave out --evaluate")
    if args.tensorboard and importlib.util.find_spec("tensorboard") is None:
        raise UserError('--tensorboard: tensorboard is not installed (pip install -e ".[tensorboard]")')
    if args.evaluate and args.init_from is None:
        raise UserError("--evaluate needs the weights: --init-from FILE")
    if args.nesterov and (args.optimizer != "sgd" or args.momentum == 0):
        raise UserError("--nesterov needs --optimizer sgd and a --momentum above 0")
    if args.milestones and args.schedule != "multistep":
        raise UserError("--milestones needs --schedule multistep")
    for name, value in vars(args).items():
        if isinstance(value, Path) and not is_text(str(value)) and not args.evaluate and not args.summary:
            raise UserError(f"--{name.replace('_', '-')} {value} is no name in UTF-8: --resume could not "
                            "find it again")
    return args


def _recorded(framework: str, given: argparse.Namespace) -> argparse.Namespace:
    """The options of the run in the folder given.resume."""
    default = vars(parser(framework).parse_args([]))
    others = [name for name, value in vars(given).items() if value != default[name] and name != "resume"]
    if others:
        raise UserError(f"--resume takes all options from the run: leave out --{others[0].replace('_', '-')}")
    record = read_record(given.resume)
    if record.get("framework") != framework:
        raise UserError(f"{given.resume} is a run of train_{record.get('framework')}.py")
    if (given.resume / "result.json").exists():
        raise UserError(f"the run in {given.resume} is complete")
    # Without help: it would be printed, and the process would end as if all were well.
    args = parser(framework, add_help=False).parse_args(shlex.split(record["command"])[2:])
    for name in NO_RUN:
        if getattr(args, name.lstrip("-")):
            raise UserError(f"{given.resume}: args.json holds a command with {name}, which leaves no run")
    wanted = plain(_checked(args))
    recorded = {**wanted, **record["options"]}  # an older run lacks what was added since
    for name in wanted:
        if wanted[name] != recorded[name]:
            raise UserError(f"{given.resume}: {name} in the command of args.json is not that in its options")
    args.output_dir = args.resume = given.resume
    return args
