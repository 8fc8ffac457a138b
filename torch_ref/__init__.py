"""The classic CNN zoo in PyTorch: the reference of `jt_models`, with the same names throughout.

    import torch_ref
    net = torch_ref.create("densenet", num_classes=10)
"""
from zoo.catalog import Zoo

_zoo = Zoo(__name__)
create = _zoo.create
names = _zoo.names
own_key = _zoo.own_key
