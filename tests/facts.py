"""Facts from outside this project, to test the built nets against.

Parameters: trainable. MACs: multiply-accumulates of convolution and linear layers for one image.
Stage shapes: outputs of modules, in order. Fingerprint: see `test_facts.py`. Sources: printouts and
tables of the lab reports; torchvision 0.28's published tables and source; timm 1.0.31 for
se_resnet18, which has the convolutions and linear layers of se_resnet18_lab but for stem and pool.
"""

# Call of `create` -> (parameters, MACs, convolution fingerprint or None, stage shapes).
FACTS = [
    (("cnn", 10, 3, None, {}), 62_006, 651_720, None,
     {"conv1": (6, 28, 28), "conv2": (16, 10, 10), "fc3": (10,)}),
    (("cnn_pad2", 10, 3, None, {}), 83_126, 886_440, "56561c0636157d21",
     {"conv1": (6, 32, 32), "conv2": (16, 12, 12), "fc1": (120,), "fc2": (84,), "fc3": (10,)}),
    (("cnn_1x1", 10, 3, None, {}), 62_278, 658_120, "747f45106728c11b",
     {"conv1": (6, 28, 28), "conv2": (16, 10, 10), "conv3": (16, 5, 5), "fc1": (120,),
      "fc2": (84,), "fc3": (10,)}),
    (("lenet", 10, 1, None, {}), 61_706, 416_520, None,
     {"features.0": (6, 28, 28), "features.2": (6, 14, 14), "features.3": (16, 10, 10),
      "features.5": (16, 5, 5), "classifier": (10,)}),
    (("resnet18_lab", 10, 3, None, {}), 11_184_650, 37_016_576, "8f86e6ad13122c5f",
     {"conv1": (64, 8, 8), "layer1p2": (64, 8, 8), "layer2p2": (128, 4, 4),
      "layer3p2": (256, 2, 2), "layer4p2": (512, 1, 1)}),
    (("resnet18", 10, 3, 32, {"stem": "imagenet"}), 11_181_642, 37_016_576, "8f86e6ad13122c5f",
     {"conv1": (64, 16, 16), "maxpool": (64, 8, 8), "layer1": (64, 8, 8), "layer2": (128, 4, 4),
      "layer3": (256, 2, 2), "layer4": (512, 1, 1)}),
    (("resnet18", 10, 3, 32, {}), 11_173_962, 555_422_720, "6d9341d4c1c0b630",
     {"conv1": (64, 32, 32), "layer1": (64, 32, 32), "layer2": (128, 16, 16),
      "layer3": (256, 8, 8), "layer4": (512, 4, 4)}),
    (("resnet50", 10, 3, 32, {}), 23_520_842, 1_297_829_888, "dc9e886c49916e5c",
     {"conv1": (64, 32, 32), "layer1": (256, 32, 32), "layer2": (512, 16, 16),
      "layer3": (1024, 8, 8), "layer4": (2048, 4, 4)}),
    (("resnet152", 10, 3, 32, {}), 58_156_618, 3_722_137_600, "6e40c5a176027358",
     {"layer1": (256, 32, 32), "layer4": (2048, 4, 4)}),
    (("resnet18", 1000, 3, None, {}), 11_689_512, 1_814_073_344, "50258078ae5ce223",
     {"conv1": (64, 112, 112), "maxpool": (64, 56, 56), "layer1": (64, 56, 56),
      "layer2": (128, 28, 28), "layer3": (256, 14, 14), "layer4": (512, 7, 7),
      "avgpool": (512, 1, 1)}),
    (("resnet34", 1000, 3, None, {}), 21_797_672, 3_663_761_408, "1221e660ca7f581b",
     {"layer1": (64, 56, 56), "layer4": (512, 7, 7)}),
    (("resnet50", 1000, 3, None, {}), 25_557_032, 4_089_184_256, "08b6193b5067a570",
     {"layer1": (256, 56, 56), "layer4": (2048, 7, 7)}),
    (("resnet101", 1000, 3, None, {}), 44_549_160, 7_801_405_440, "92e98ddd51989b76",
     {"layer1": (256, 56, 56), "layer4": (2048, 7, 7)}),
    (("densenet", 10, 3, None, {}), 1_753_546, 48_855_040, "3400a2ea85e96ab3",
     {"conv": (32, 16, 16), "max_pool": (32, 8, 8), "denseblock1": (224, 8, 8),
      "conv1": (64, 8, 8), "avg1": (64, 4, 4), "denseblock2": (448, 4, 4), "fc1": (10,)}),
    (("densenet_fc128", 10, 3, None, {}), 2_600_778, 49_702_144, "3400a2ea85e96ab3",
     {"sovleinput": (32, 8, 8), "denseblock1": (224, 8, 8), "transistion1": (64, 4, 4),
      "denseblock2": (448, 4, 4), "fc": (10,)}),
    (("densenet_wide", 10, 3, None, {}), 16_367_562, None, None,
     {"sovleinput": (32, 8, 8), "denseblock1": (224, 8, 8), "transistion1": (64, 8, 8),
      "denseblock2": (448, 8, 8), "fc.0": (512,), "fc": (10,)}),
    (("densenet121", 1000, 3, None, {}), 7_978_856, 2_834_161_664, "8891c9b470dd6d39",
     {"features.conv0": (64, 112, 112), "features.pool0": (64, 56, 56),
      "features.denseblock1": (256, 56, 56), "features.transition1": (128, 28, 28),
      "features.denseblock2": (512, 28, 28), "features.transition2": (256, 14, 14),
      "features.denseblock3": (1024, 14, 14), "features.transition3": (512, 7, 7),
      "features.denseblock4": (1024, 7, 7), "features.norm5": (1024, 7, 7)}),
    (("densenet169", 1000, 3, None, {}), 14_149_480, 3_359_843_328, "b112bff0bd39956e",
     {"features.denseblock3": (1280, 14, 14), "features.norm5": (1664, 7, 7)}),
    (("se_resnet18_lab", 10, 3, None, {}), 11_270_722, None, None,
     {"conv1": (64, 16, 16), "layer1": (64, 16, 16), "layer2": (128, 8, 8),
      "layer3": (256, 4, 4), "layer4": (512, 2, 2), "avg_pool": (512, 1, 1), "fc": (10,)}),
    (("se_resnet18_preact", 10, 3, None, {}), 11_260_354, None, None,
     {"conv1": (64, 32, 32), "layer1": (64, 32, 32), "layer2": (128, 16, 16),
      "layer3": (256, 8, 8), "layer4": (512, 4, 4), "linear": (10,)}),
]

# Nets whose layout and names are torchvision's.
TORCHVISION = ["resnet18", "resnet34", "resnet50", "resnet101", "resnet152",
               "densenet121", "densenet161", "densenet169", "densenet201"]

# Counts that only the reports' bugs give: an unused convolution, shared blocks, shortcut
# convolutions that are no parameters.
BUG_FINGERPRINTS = {68_782, 10_937_610, 11_011_722}
