"""The same net in Jittor, with names of its own."""
from jittor import nn

from jt_models.layers import BatchNorm2d  # Jittor's own keeps another running variance


class ResidualUnit(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.first = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.first_norm = BatchNorm2d(width)
        self.second = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.second_norm = BatchNorm2d(width)

    def execute(self, x):
        out = nn.relu(self.first_norm(self.first(x)))
        return nn.relu(self.second_norm(self.second(out)) + x)


class Net(nn.Module):
    def __init__(self, num_classes=10):
        super().__init__()
        self.classifier = nn.Linear(16, num_classes)
        self.entry = nn.Conv2d(3, 16, 3, padding=1)
        self.body = nn.Sequential(ResidualUnit(16), ResidualUnit(16))
        self.shrink = nn.MaxPool2d(2, 2)
        self.drop = nn.Dropout(0.2)

    def execute(self, x):
        x = self.body(self.shrink(nn.relu(self.entry(x))))
        return self.classifier(self.drop(x.mean((2, 3))))
