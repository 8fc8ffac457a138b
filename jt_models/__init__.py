"""The classic CNN zoo in Jittor; `torch_ref` holds the same nets in PyTorch.

Importing this package prepares and imports Jittor (see `jt_models.runtime`).

    import jt_models
    net = jt_models.create("densenet", num_classes=10)
"""
import sys

from zoo.catalog import Zoo

# `python -m jt_models.runtime` must print its diagnosis also where Jittor cannot start. (Python 3.9
# does not tell the module's name here.)
if "jt_models.runtime" not in getattr(sys, "orig_argv", ["jt_models.runtime"] * (sys.argv[:1] == ["-m"])):
    from . import runtime
    runtime.start()

_zoo = Zoo(__name__)
create = _zoo.create
names = _zoo.names
own_key = _zoo.own_key
