"""A run that has come to its end, as its folder tells (see training.run); what cannot be one is refused."""
from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

from zoo.catalog import NETS

from . import logs
from .errors import UserError
from .files import read_json
from .forms import between, dict_of, holding, one_of, or_null, text
from .run import read_record

FRAMEWORKS = ("torch", "jittor")


@dataclass(frozen=True)
class Finished:
    """One complete run.

    Attributes:
        record, result: args.json, result.json.
        log: rows of log.csv, numbers; None for an empty cell.
    """
    folder: Path
    record: dict
    log: list[dict[str, float | None]]
    result: dict

    @property
    def framework(self) -> str:
        return self.record["framework"]

    @property
    def net(self) -> str:
        return self.record["options"]["net"]

    @property
    def seed(self) -> int:
        return self.record["options"]["seed"]

    @property
    def later_seconds(self) -> list[float]:
        """Training seconds of the epochs after the first, in which Jittor compiles its kernels."""
        return [row["seconds"] for row in self.log[1:]]

    @property
    def epoch_images(self) -> int:
        """Images that an epoch trains on."""
        return round(self.log[-1]["images_per_second"] * self.log[-1]["seconds"])

    @property
    def epoch_steps(self) -> int:
        return math.ceil(self.epoch_images / self.record["options"]["batch_size"])

    @property
    def later_energy(self) -> list[float]:
        """Joules of the GPU in the training of the epochs after the first; empty if one is not known."""
        found = [row["energy_j"] for row in self.log[1:]]
        return [] if None in found else found

    @property
    def peak_memory(self) -> float:
        """MB."""
        return max(row["peak_memory_mb"] for row in self.log)

    def reach(self, accuracy: float) -> tuple[int, float] | None:
        """First epoch whose validation accuracy is at least this, and the training seconds until its end."""
        seconds = 0.0
        for row in self.log:
            seconds += row["seconds"]
            if row["val_acc"] is not None and row["val_acc"] >= accuracy:
                return int(row["epoch"]), seconds
        return None


def read(folder: Path) -> Finished:
    """Raises UserError if `folder` holds no complete run, or files that no run can have left."""
    folder = Path(folder)
    record = read_record(folder)
    if not (folder / "result.json").is_file():
        raise UserError(f"the run in {folder} is not complete: --resume {folder} continues it")
    try:
        _, rows = logs.read_log(folder / "log.csv", logs.LOG, lambda n: f"{n},")
        result = read_json(folder / "result.json")
        _RECORD(record, "args.json")
        holding(**{record["framework"]: text})(record["versions"], "args.json.versions")
        if _RESULT(result, "result.json")["epochs"] != len(rows):
            raise ValueError(f"result.json tells of {result['epochs']} epochs, log.csv of {len(rows)}")
        found = Finished(folder, record, [dict(zip(logs.LOG, row)) for row in rows], result)
        for row in found.log:
            _LOG(row, f"log.csv, epoch {row['epoch']:g}")
        if len({row["val_acc"] is None for row in found.log}) > 1:
            raise ValueError("log.csv: some epochs have a validation, others have none")
        if found.epoch_images < 1:
            raise ValueError("log.csv: an epoch without images")
    except (OSError, ValueError) as error:
        raise UserError(f"the files in {folder} are damaged: {error}") from error
    return found


# What the tables are made of. No time or size is 0 or beyond measure: they are divided by each other.
_COUNT, _SHARE, _SIZE = between(1, 2**53, whole=True), between(0, 1), between(1e-9, 1e15)
_LOSS = between(-1e300, 1e300)
_RECORD = holding(
    **dict.fromkeys(("data", "data_sha256", "start_sha256", "device", "precision", "cpu", "python"), text),
    framework=one_of(FRAMEWORKS), cores=_COUNT, net_image_size=_COUNT, versions=dict_of(text),
    options=holding(net=one_of(NETS, "a net of the zoo"), seed=between(0, 2**53, whole=True), batch_size=_COUNT))
_RESULT = holding(test_acc=_SHARE, test_top5=_SHARE, test_loss=_LOSS, test_images=_COUNT,
                  seconds=between(0, 1e15), epochs=_COUNT)
_LOG = holding(train_loss=_LOSS, train_acc=_SHARE, val_loss=or_null(_LOSS), val_acc=or_null(_SHARE),
               seconds=_SIZE, images_per_second=_SIZE, peak_memory_mb=_SIZE, energy_j=or_null(between(0, 1e15)))
