"""Fills the tables of the README and of docs/ from the built nets and the committed measurements.

    python results/readme.py            rewrite the tables
    python results/readme.py --check    exit with 1 if one of them is stale
"""
from __future__ import annotations

import csv
import json
import re
import statistics
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

DOCS = ROOT / "docs"
DENSENET = ROOT / "results" / "densenet_cifar10"
GPU = ROOT / "results" / "gpu"


def rows(path: Path) -> list[dict]:
    with open(path) as file:
        return list(csv.DictReader(file))


def table(header: list[str], body: list[list[str]]) -> str:
    lines = [header, ["---"] * len(header), *body]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def zoo() -> str:
    """Every net of the zoo, as `--list` prints them."""
    from train_torch import trace
    from zoo.summary import net_rows
    header, *body = net_rows(trace)
    return table(list(header), [[f"`{row[0]}`", *row[1:]] for row in body])


def densenet() -> str:
    """Accuracy, losses and times of both trainers in the committed run."""
    body = []
    for framework in ("torch", "jittor"):
        folder = DENSENET / framework
        args, result = (json.loads((folder / f"{name}.json").read_text()) for name in ("args", "result"))
        log = rows(folder / "log.csv")
        epochs = sorted(float(row["seconds"]) for row in log[1:])
        version = args["versions"][framework]
        body.append([f"{framework} {version}", f"{float(log[-1]['train_loss']):.4f}",
                     f"{float(log[-1]['val_acc']):.2%}", f"{result['test_acc']:.2%}",
                     f"{float(log[0]['seconds']):.0f} s",
                     f"{epochs[0]:.0f} to {epochs[-1]:.0f} s"])
    note = (f"Seed {args['options']['seed']}, {args['precision']}, {args['device']}: {args['cpu']}, "
            f"{args['cores']} cores, Python {args['python']}. Data: {args['data']}.")
    return table(["framework", "train loss, epoch 3", "validation", "test (last epoch)",
                  "first epoch (Jittor compiles in it)", "epochs 2 and 3"], body) + "\n\n" + note


def losses() -> str:
    """The first losses: Jittor's distance from PyTorch beside PyTorch's own from one ulp away."""
    found = rows(DENSENET / "first_losses.csv")
    moved = [name for name in found[0] if name.startswith("torch_ulp")]
    body = []
    for row in found:
        if int(row["step"]) not in (1, 2, 3, 5, 10, 15, 20):
            continue
        torch = float(row["torch"])
        own = [abs(float(row[name]) - torch) / torch for name in moved]
        body.append([row["step"], f"{torch:.6f}", f"{float(row['jittor']):.6f}",
                     f"{abs(float(row['jittor']) - torch) / torch:.1e}",
                     f"{min(own):.1e} to {max(own):.1e}"])
    return table(["step", "loss, torch", "loss, jittor", "relative difference",
                  f"torch itself, {len(moved)} runs from one ulp away"], body)


def faults() -> str:
    """How many kinds of port bug there are."""
    from parity.faults import FAULTS
    return str(len(FAULTS))


def divergences() -> str:
    from parity.divergences import markdown
    return markdown()


def injection() -> str:
    """Per fault: in how many nets it was caught, and by which levels."""
    data = json.loads((ROOT / "results" / "injection.json").read_text())
    found: dict[str, list[dict]] = {}
    for row in (row for net in data for row in net["rows"]):
        found.setdefault(row["fault"], []).append(row)
    body = []
    for fault, own in found.items():
        missed = [row["net"] for row in own if not row["levels"]]
        levels = dict.fromkeys(level for row in own for level in row["levels"])
        body.append([f"`{fault}`", f"{len(own) - len(missed)} of {len(own)}",
                     ", ".join(levels).replace("structure ", ""), ", ".join(missed)])
    return table(["fault", "caught", "failing levels", "missed in"], body) + "\n\n" + _where(data)


def injected_nets() -> str:
    """Per net: faults caught, and right pairs that were not accused."""
    data = json.loads((ROOT / "results" / "injection.json").read_text())
    body, total = [], [0] * 4
    for net in data:
        counts = (sum(bool(row["levels"]) for row in net["rows"]), len(net["rows"]),
                  sum(not pair["failure"] for pair in net["right_pairs"]), len(net["right_pairs"]))
        total = [a + b for a, b in zip(total, counts)]
        body.append([f"`{net['net']}`", "{} of {}".format(*counts[:2]), "{} of {}".format(*counts[2:]),
                     f"{net['seconds'] / 60:.0f} min", f"{net['peak_memory_mb']} MB"])
    body.append(["all", "{} of {}".format(*total[:2]), "{} of {}".format(*total[2:]), "", ""])
    return table(["net", "bugs caught", "right pairs (one a seed) that pass on all levels", "time", "memory"],
                 body)


def jittor_models() -> str:
    """Per model the verdict, the failing levels and where they begin."""
    data = json.loads((ROOT / "results" / "jittor_models.json").read_text())
    body = []
    for row in data:
        failing = [f"{level.replace('structure ', '')} "
                   f"({': '.join(filter(None, (found['tensor'], found['note'])))})"
                   for level, found in row["levels"].items() if not found["passed"]]
        place = next((line.partition("): ")[2].partition(";")[0] for line in row["text"].splitlines()
                      if "first divergence" in line), "")
        body.append([f"`{row['net']}`", "passed" if row["passed"] else "differs",
                     "; ".join(failing) or ("" if row["passed"] else row["text"]), place])
    return table(["model", "verdict", "failing levels (worst tensor)", "first divergence"], body) + (
        "\n\n" + _where(data))


def matrix() -> str:
    """Per net the verdict and, of either dtype, the check that used the most of its budget."""
    data = json.loads((ROOT / "results" / "matrix.json").read_text())
    body = [[f"`{row['net']}`", _verdict(row), _nearest(row, "structure"), _nearest(row, "numerics"),
             f"{row['seconds']:.0f} s", f"{row['peak_memory_mb']} MB"] for row in data]
    passed = sum(row["passed"] for row in data)
    minutes = sum(row["seconds"] for row in data) / 60
    note = (f"{passed} of {len(data)} nets pass; times add up to {minutes:.0f} minutes{_in_one_run(data)}; at "
            f"most {max(row['peak_memory_mb'] for row in data)} MB each. {_where(data)}")
    return table(["net", "verdict", "float64: nearest to its budget", "float32: nearest to its budget",
                  "time", "memory"], body) + "\n\n" + note


def fault_matrix() -> str:
    """What the tests noted of each fault and component."""
    data = json.loads((ROOT / "results" / "faults.json").read_text())
    body = []
    for row in data["rows"]:
        ends = row["outcomes"]
        shown = "; ".join(text if len(ends) == 1 else f"{count} x {text}" for text, count in ends.items())
        body.append([row["fault"], f"`{row['component']}`", shown, str(row["times"])])
    ends = list(data["tests"].values())
    return table(["fault", "component", "what became of it", "times"], body) + (
        f"\n\n`python results/faults.py`: {len(ends)} tests, {ends.count('failed')} failed, "
        f"{ends.count('skipped')} skipped. {_machine(data)}.")


def scaling_measured() -> str:
    import scaling
    data = json.loads(scaling.FILE.read_text())
    return table(*scaling.measured_rows()) + (
        "\n\n`python results/scaling.py`: median of the epochs after the first and their range. Options: "
        f"`{' '.join(data['options'])}`. {_machine(data)}.")


def scaling_calculated() -> str:
    import scaling
    made = scaling.measured_steps()[1]
    (batch,), (size,) = ({row[name] for row in made["rows"]} for name in ("batch_size", "image_size"))
    return table(*scaling.calculated_rows()) + (
        f"\n\nOne GPU: {batch} images of {size}x{size}, {made['precision']}, as bench.py measured it "
        f"([table](cuda.md)): {_gpu({**made, 'gpu': made['limits']['gpu']})}.")


def compiled() -> str:
    """What the compile-only check found."""
    from zoo.catalog import NETS
    data = json.loads((ROOT / "results" / "cuda" / "compile.json").read_text())
    passed = sum(row["passed"] for row in data["rows"])
    return (f"{passed} of the {len(NETS)} nets compile, load, train and evaluate so, with "
            f"{sum(row['kernels'] for row in data['rows'])} kernels ({_machine(data)}).")


def gpu_precision() -> str:
    """Per dtype the errors of both frameworks, with TF32 forbidden and allowed."""
    data = json.loads((GPU / "precision.json").read_text())
    body = []
    for setting, entry in data.items():
        for row in entry["rows"]:
            flag = f", `use_tensorcore={row['use_tensorcore']}`" if row["use_tensorcore"] else ""
            for framework in ("torch", "jittor", *(["jt_models"] if "jt_models" in row else [])):
                if framework in row:
                    cells = [f"{error:.2g}" if error < 100 else f"{error:.0f}" for error in row[framework].values()]
                else:
                    cells = [row["failure"], "", "", ""]
                body.append([setting, row["dtype"], framework + flag * (framework != "torch"), *cells])
    names = list(next(iter(data.values()))["rows"][0]["torch"])
    return table(["", "dtype", "framework", *names], body) + (
        f"\n\n`python results/gpu/precision.py`, with and without `NVIDIA_TF32_OVERRIDE=0`: {_gpu(entry)}, "
        f"cuDNN {entry['cudnn']}.")


def gpu_matrix() -> str:
    """Per net the verdict and the check that used the most of its budget, in float32 on the GPU."""
    data = json.loads((GPU / "matrix.json").read_text())
    body = [[f"`{row['net']}`", _verdict(row), _nearest(row, "numerics"), f"{row['seconds']:.0f} s",
             row["run"]["began"][:16]] for row in data]
    passed = sum(row["passed"] for row in data)
    where = data[0]["environment"]
    return table(["net", "verdict", "nearest to its budget", "time", "judged (UTC)"], body) + (
        f"\n\n{passed} of {len(data)} nets pass. TF32 is forbidden; {_gpu(where)}; seed {where['seed']}.")


def gpu_speed() -> str:
    """`_speeds` of all runs on a GPU."""
    return "\n\n".join(_speeds(json.loads(path.read_text())) for path in sorted((GPU / "bench").rglob("*.json")))


def cpu_speed() -> str:
    """`_speeds` of all runs on a CPU, by the machine."""
    found: dict[str, list[str]] = {}
    for path in sorted((ROOT / "results" / "bench").rglob("*.json")):
        data = json.loads(path.read_text())
        found.setdefault(f"{data['cpu']}, {data['cores']} cores", []).append(_speeds(data))
    # Reversed, the machine whose figures are of the latest code comes first.
    return "\n\n".join("\n\n".join([f"**{machine}**", *speeds]) for machine, speeds in reversed(found.items()))


def cpu_profiles() -> str:
    """Per net where a step of Jittor's goes on a CPU."""
    rows = json.loads((ROOT / "results" / "profiles.json").read_text())
    parts = list(rows[0]["parts"])
    body = [[f"`{row['net']}`", f"{row['step_ms']:.0f} ms", *(
        f"{part['ms']:.{0 if part['ms'] >= 10 else 1}f}" if part["calls"] else "" for part in row["parts"].values())]
        for row in rows]
    return table(["net", "step", *parts], body) + (
        f"\n\n`python results/profiles.py {' '.join(row['net'] for row in rows)}`: milliseconds, {rows[0]['batch_size']} "
        f"images; {_machine(rows[0]['environment'])}.")


def cpu_convolutions(kind: str) -> str:
    """Per machine and shape of a convolution time and error of ours, and of Jittor's oneDNN."""
    return "\n\n".join(_convolutions(made, kind)
                       for made in json.loads((ROOT / "results" / "convolutions.json").read_text()))


def _convolutions(made: dict, kind: str) -> str:
    body = []
    for row in made["rows"]:
        if row["kind"] != kind:
            continue
        images, fan_in, fan_out, side, kernel, stride, _ = row["shape"]
        cells = [f"{images} of {side}x{side}", f"{fan_in} to {fan_out}",
                 "x".join(map(str, kernel)) + (f", stride {stride}" if stride > 1 else "")]
        for phase in ("forward", "training"):
            found = row[phase]
            cells += [f"{1e3 * found['onednn']:.2f} ms", f"{found['ratio']:.2f}x ({found['least']:.2f} to "
                      f"{found['largest']:.2f})"]
        body.append(cells + [", ".join(f"{u:.1f}" for u in row["error_u"][name]) for name in ("onednn", "ours")])
    return table(["images", "channels", "kernel", "oneDNN, forward", "ours", "with both gradients", "ours",
                  "errors of oneDNN (u): output, gradients", "ours"], body) + (
        f"\n\n`python results/convolutions.py`: float32, {made['rounds']} rounds; errors of the first "
        f"{made['checked']} images, seed 0; {_machine(made['environment'])}.")


def compile_times() -> str:
    """Per net what Jittor compiles for a training and an evaluation, and how long that takes."""
    rows = json.loads((ROOT / "results" / "compile_times.json").read_text())
    body = [[f"`{row['net']}`", *(cell for way in ("own", "own, headers as text", "stock") for cell in (
        str(row[way]["kernels"]), f"{row[way]['cold']:.0f} s", f"{row[way]['warm']:.1f} s"))] for row in rows]
    return table(["net", "kernels", "first run", "second", "headers read as text: kernels", "first run", "second",
                  "stock Jittor, as text: kernels", "first run", "second"], body) + (
        f"\n\n`python results/compile_times.py {' '.join(row['net'] for row in rows)}`: two training steps and an evaluation "
        f"of {rows[0]['batch_size']} images, once; {_machine(rows[0]['environment'])}.")


def cpu_pipeline() -> str:
    """How long an epoch takes beside its steps."""
    made = json.loads((ROOT / "results" / "pipeline.json").read_text())
    body = [[str(row["batch_size"]), row["framework"], f"{row['steps_ms']:.1f} ms", f"{row['making_ms']:.2f} ms",
             f"{row['carrying_ms']:.2f} ms", f"{row['ratio']:.3f} ({row['least']:.3f} to {row['largest']:.3f})"]
            for row in made["rows"]]
    return table(["images", "framework", "step", "making its batch", "carrying it out, in the step", "epoch, by its steps"],
                 body) + (
        f"\n\n`python results/pipeline.py`: `{made['net']}`, {made['epochs']} epochs of {made['images']:,} images of 32x32, "
        f"seed 0; {_machine(made['environment'])}.")


def _speeds(data: dict) -> str:
    """Per net and batch size of a run of bench.py: PyTorch in its faster layout, Jittor's share of that, memory."""
    from training.benchmark import HEADER, PHASES, REFERENCES, Row, table as figures
    found: dict[tuple, dict] = {}
    for values in figures([Row(**row) for row in data["rows"]], data["limits"]["flops"]):
        row = dict(zip(HEADER, values))
        found.setdefault((row["net"], row["batch_size"], row["image_size"]), {})[row["column"], row["phase"]] = row
    others = [name for name in dict.fromkeys(name for case in found.values() for name, _ in case)
              if name not in REFERENCES]
    body = []
    for (net, batch_size, side), case in found.items():
        cells, best = [], {phase: min((case[name, phase] for name in REFERENCES if (name, phase) in case),
                                      key=lambda row: row["seconds"]) for phase in PHASES}
        for phase in PHASES:
            milliseconds = 1e3 * best[phase]["seconds"]
            cells.append(f"{milliseconds:.{1 if milliseconds < 100 else 0}f} ms")
            cells += [f"{row['ratio']:.2f}x ({row['ratio_min']:.2f} to {row['ratio_max']:.2f})"
                      for row in (case[name, phase] for name in others)]
        memory = [case[name, "train"]["peak_memory_mb"] for name in others]
        body.append([f"`{net}`", f"{batch_size} of {side}x{side}", *cells, f"{best['train']['peak_memory_mb']:.0f} MB",
                     *(f"{used / best['train']['peak_memory_mb']:.2f}x" for used in memory)])
    limits = data["limits"]
    machine = (f"{_gpu({**data, 'gpu': limits['gpu']})}; {limits['flops'] / 1e12:.0f} TFLOP/s in a matrix product, "
               f"{limits['bytes'] / 1e12:.1f} TB/s in a copy" if limits["gpu"] else
               f"{_machine(data)}; {limits['flops'] / 1e9:.0f} GFLOP/s in a matrix product, "
               f"{limits['bytes'] / 1e9:.0f} GB/s in a copy")
    return table(["net", "images", "PyTorch's step", *others, "its evaluation", *others, "its memory", *others], body) + (
        f"\n\n{data['precision'].capitalize()}; `{data['command']}`, seed {data['seed']}; {machine}.")


def gpu_steps() -> str:
    """Per net: a step of both frameworks, and where it goes."""
    rows = json.loads((GPU / "steps.json").read_text())
    found = {(row["net"], row["kind"]): row for row in rows}
    parts = list(rows[0]["parts_ms"])
    body = []
    for net in dict.fromkeys(row["net"] for row in rows):
        cells = []
        for kind in ("torch", "jittor"):
            row = found[net, kind]
            cells += [f"{row['step_ms']:.1f} ms", f"{sum(row['parts_ms'].values()):.1f} ms", f"{row['launches']:.0f}",
                      *(f"{row['parts_ms'][part]:.1f} ms" for part in parts)]
        body.append([f"`{net}`", *cells])
    return table(["net", "PyTorch's step", "its kernels", "launches", *parts,
                  "Jittor's step", "its kernels", "launches", *parts], body) + (
        f"\n\n`python results/gpu/steps.py`, 128 images of 32x32, {rows[0]['precision']}, TF32 forbidden; {rows[0]['gpu']}.")


def gpu_training() -> str:
    """Loss, accuracy and memory of the trainings on the GPU."""
    body = []
    for path in sorted((GPU / "training").glob("*/result.json")):
        args, result, log = _run(path.parent)
        body.append([f"`{args['options']['net']}`", f"{args['framework']} {args['versions'][args['framework']]}",
                     args["precision"], str(len(log)), f"{float(log[-1]['train_loss']):.4f}",
                     f"{result['test_acc']:.2%}", f"{float(log[-1]['peak_memory_mb']):.0f} MB"])
    return table(["net", "framework", "precision", "epochs", "train loss, last epoch", "test accuracy", "memory"],
                 body) + (f"\n\nSeed {args['options']['seed']}; {args['gpu']}, {args['cores']} cores, Python "
                          f"{args['python']}. Data: {args['data']}.")


def _run(folder: Path) -> tuple[dict, dict, list[dict]]:
    """(args, result, log) of a run."""
    return (*(json.loads((folder / f"{name}.json").read_text()) for name in ("args", "result")),
            rows(folder / "log.csv"))


def _lab_runs() -> dict[tuple[str, str], list[tuple]]:
    """(net, framework) -> (args, result, log, jobs) of each seed that is kept."""
    import lab as script
    found = {(net, framework): [] for net in script.EXPERIMENTS for framework in ("torch", "jittor")}
    for path in sorted(script.OUT.glob("*/lab.json")):
        args, result, log = _run(path.parent)
        found[args["options"]["net"], args["framework"]].append(
            (args, result, log, json.loads(path.read_text())["jobs"]))
    return found


def lab_means() -> str:
    """What the lab reports say, and the mean accuracies of both frameworks."""
    import lab as script
    runs, body = _lab_runs(), []
    for net, experiment in script.EXPERIMENTS.items():
        accuracies = ([result["test_acc"] for _, result, *_ in runs[net, framework]]
                      for framework in ("torch", "jittor"))
        body.append([f"`{net}`", "CIFAR-10" if experiment.report == "000" else "MNIST", f"{experiment.accuracy:.1%}",
                     *(f"{statistics.fmean(values):.1%}" if values else "not run yet" for values in accuracies)])
    return table(["net", "data", "reported", "PyTorch", "Jittor"], body)


def convergence() -> str:
    """Per net of the lab report on CIFAR-10: the epochs after which the validation images reach an accuracy."""
    import lab as script
    targets, body = (0.5, 0.6, 0.7, 0.75, 0.8), []
    for (net, framework), runs in _lab_runs().items():
        if runs and script.EXPERIMENTS[net].report == "000":
            first = ([next((row["epoch"] for row in log if float(row["val_acc"]) >= target), "-")
                      for _, _, log, _ in runs] for target in targets)
            body.append([f"`{net}`", framework, *map(" ".join, first)])
    return table(["net", "framework", *(f"{target:.0%}" for target in targets)], body)


def _setting(args: dict) -> str:
    return f"{args['precision']}, {args['device']}: {args['cpu']}, OMP_NUM_THREADS={args['OMP_NUM_THREADS']}"


def controls() -> str:
    """Per net of the controls: the last training loss and the accuracy of both frameworks, also from moved weights."""
    import controls as script
    body, machines = [], set()
    for net in script.NETS:
        cells = []
        for framework in ("torch", "jittor"):
            moved = [seed for other, seed, whose in script.MOVED if (other, whose) == (net, framework)]
            for names in (["0"], [f"ulp{seed}" for seed in moved]):
                runs = [_run(script.OUT / f"{net}-{name}-{framework}") for name in names]
                cells.append(", ".join(f"{float(log[-1]['train_loss']):.3f} {result['test_acc']:.1%}"
                                       for _, result, log in runs))
                machines.update(_setting(args) for args, *_ in runs)
        body.append([f"`{net}`", *cells])
    return table(["net", "PyTorch", "from weights one ulp away", "Jittor", "from weights one ulp away"], body) + (
        f"\n\n`python results/controls.py CIFAR_DIR`: `{script.OPTIONS}`, seed 0; {'; '.join(sorted(machines))}.")


def gates() -> str:
    """With and without squeeze-and-excitation: the last training loss and the accuracy for each seed."""
    import controls as script
    body, machines = [], set()
    for net in script.GATED:
        for framework in ("torch", "jittor"):
            runs = [_run(script.OUT / "gates" / f"{net}-{seed}-{framework}") for seed in script.SEEDS]
            reached = [result["test_acc"] for _, result, _ in runs]
            body.append([f"`{net}`", framework, ", ".join(f"{float(log[-1]['train_loss']):.3f}" for *_, log in runs),
                         ", ".join(f"{value:.1%}" for value in reached), f"{statistics.mean(reached):.1%}"])
            machines.update(_setting(args) for args, *_ in runs)
    return table(["net", "framework", "loss of the last epoch, each seed", "accuracy, each seed", "mean"], body) + (
        f"\n\n`python results/controls.py CIFAR_DIR`: `{script.OPTIONS}`; {'; '.join(sorted(machines))}.")


def lab() -> str:
    """Per net of a lab report: what it reported, and what both frameworks reach here."""
    import lab as script
    runs, body, machines = _lab_runs(), [], {}
    for net, experiment in script.EXPERIMENTS.items():
        cells = []
        for framework in ("torch", "jittor"):
            found = runs[net, framework]
            seconds = [float(row["seconds"]) for _, _, log, jobs in found if jobs == 1 for row in log[1:]]
            cells.append(" ".join(f"{result['test_acc']:.2%}" for _, result, *_ in found) or "not run yet")
            cells.append(f"{min(seconds):.1f} to {max(seconds):.1f} s" if seconds else "")
            for args, *_ in found:
                where = (f"{args['precision']}, {args['device']}: {args.get('gpu') or args['cpu']}, "
                         f"{args['cores']} cores")
                machines.setdefault(where, set()).add(f"`{net}`")
        body.append([experiment.report, f"`{net}`", f"{experiment.accuracy:.1%}", f"`{experiment.options}`",
                     cells[0], cells[2], cells[1], cells[3]])
    said = " ".join(f"{', '.join(sorted(nets))}: {where}." for where, nets in machines.items())
    return table(["report", "net", "reported", "options", "PyTorch, each seed", "Jittor, each seed",
                  "an epoch of PyTorch", "of Jittor"], body) + f"\n\n{said}"


def _gpu(environment: dict) -> str:
    return f"{environment['gpu']}, {_machine(environment)}"


def _verdict(row: dict) -> str:
    failing = [level for level, worst in row["levels"].items() if not worst["passed"]]
    return "passed" if row["passed"] else f"failed: {', '.join(failing) or row['text']}"


def _nearest(row: dict, verdict: str) -> str:
    """The check of a verdict that used the most of its budget."""
    found = [(level.partition(" ")[2], worst) for level, worst in row["levels"].items()
             if level.startswith(verdict) and worst["budget_u"] and worst["error_u"] is not None
             and not level.endswith("init")]  # a statistic, not in u
    level, worst = max(found, key=lambda item: item[1]["error_u"] / item[1]["budget_u"], default=("", {}))
    return level and (f"{level}: {worst['error_u']:.2g} u of {worst['budget_u']:.3g}, "
                      f"torch {worst['torch_u']:.2g}")


def _in_one_run(rows: list[dict]) -> str:
    """How long the run took in which all rows were made; empty if there were several."""
    runs = {tuple(row.get("run", {"began": row["net"]}).values()) for row in rows}
    if len(runs) > 1:
        return ""
    (began, jobs), = runs
    return (f", in one run of {max(row['done_after'] for row in rows) / 60:.0f} minutes, {jobs} nets at a time, "
            f"begun {began} UTC")


def _machine(environment: dict) -> str:
    versions = ", ".join(f"{name} {v}" for name, v in environment["versions"].items())
    return f"{versions}, Python {environment['python']}; {environment['cpu']}, {environment['cores']} cores"


def _where(rows: list[dict]) -> str:
    """The machines of rows, each with its nets if there are several."""
    found: dict[str, list[str]] = {}
    for row in rows:
        if row["environment"]:
            what = f"{_machine(row['environment'])}; seed {row['environment']['seed']}"
            found.setdefault(what, []).append(f"`{row['net']}`")
    if len(found) == 1:
        return f"{next(iter(found))}."
    return " ".join(f"{', '.join(nets)}: {what}." for what, nets in found.items())


# File -> name of a table in it -> what makes it.
TABLES = {
    ROOT / "README.md": {"zoo": zoo, "densenet": densenet, "losses": losses, "lab_means": lab_means, "faults": faults},
    ROOT / "README.zh.md": {"densenet": densenet, "faults": faults},
    ROOT / "SECURITY.md": {"fault_matrix": fault_matrix},
    DOCS / "cuda.md": {"compiled": compiled, "gpu_precision": gpu_precision, "gpu_matrix": gpu_matrix,
                       "gpu_speed": gpu_speed, "gpu_steps": gpu_steps, "gpu_training": gpu_training},
    DOCS / "benchmark.md": {"cpu_speed": cpu_speed, "cpu_profiles": cpu_profiles,
                            "cpu_filtering": lambda: cpu_convolutions("filtering"),
                            "cpu_products": lambda: cpu_convolutions("product"), "compile_times": compile_times,
                            "cpu_pipeline": cpu_pipeline},
    DOCS / "lab.md": {"lab": lab, "convergence": convergence, "controls": controls, "gates": gates},
    DOCS / "scaling.md": {"scaling_measured": scaling_measured, "scaling_calculated": scaling_calculated},
    DOCS / "divergences.md": {"divergences": divergences},
    DOCS / "judge.md": {"matrix": matrix, "injected_nets": injected_nets, "injection": injection,
                         "jittor_models": jittor_models},
}


def filled(path: Path) -> str:
    """The text of a file with every table made anew."""
    text = path.read_text(encoding="utf-8")
    for name, make in TABLES[path].items():
        # A number stands within its line, a table on lines of its own.
        block = re.compile(rf"(<!-- {name}: [^>]*-->)(\n?).*?(<!-- end -->)", re.DOTALL)
        text, count = block.subn(
            lambda match: f"{match[1]}{match[2]}{make()}{match[2]}{match[3]}", text)
        if count != 1:
            raise SystemExit(f"{path.name} has {count} tables named {name}")
    return text


def main() -> int:
    new = {path: filled(path) for path in TABLES}
    if "--check" in sys.argv[1:]:
        return int(any(path.read_text(encoding="utf-8") != text for path, text in new.items()))
    for path, text in new.items():
        path.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
