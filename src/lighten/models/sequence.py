"""Heads that read text from a row of features: recurrent ones, and separable convolutions over time."""

from collections.abc import Callable

from torch import Tensor, nn

from lighten.errors import LightenError

KERNEL, NUM_BLOCKS = 9, 3  # a step of the convolutional head sees 25 steps, four heights of the line


class Recurrent(nn.Module):
    """A recurrent layer in both directions, then a linear layer on what both say.

    kind: nn.LSTM or nn.GRU. x: (N, T, in_features) → (N, T, out_features).
    """

    def __init__(self, kind: type[nn.LSTM] | type[nn.GRU], in_features: int, hidden: int, out_features: int):
        super().__init__()
        self.rnn = kind(in_features, hidden, batch_first=True, bidirectional=True)
        self.linear = nn.Linear(2 * hidden, out_features)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(self.rnn(x)[0])


class Convolutional(nn.Module):
    """Depthwise-separable convolutions over time, each with norm and ReLU, as in Kriman et al. 2020 (QuartzNet).

    x: (N, T, in_features) → (N, T, num_classes).
    """

    def __init__(self, in_features: int, hidden: int, num_classes: int):
        super().__init__()
        self.blocks = nn.Sequential()
        for _ in range(NUM_BLOCKS):
            self.blocks += nn.Sequential(
                nn.Conv1d(in_features, in_features, KERNEL, padding=KERNEL // 2, groups=in_features, bias=False),
                nn.Conv1d(in_features, hidden, 1, bias=False),
                nn.BatchNorm1d(hidden),
                nn.ReLU(),
            )
            in_features = hidden
        self.linear = nn.Linear(hidden, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(self.blocks(x.transpose(1, 2)).transpose(1, 2))


def bilstm(in_features: int, hidden: int, num_classes: int) -> nn.Sequential:
    """Two bidirectional LSTMs (Shi et al. 2015, table 1), each with its linear layer."""
    return nn.Sequential(
        Recurrent(nn.LSTM, in_features, hidden, hidden), Recurrent(nn.LSTM, hidden, hidden, num_classes)
    )


def gru(in_features: int, hidden: int, num_classes: int) -> nn.Sequential:
    """The same with GRUs: three quarters of the recurrent weights."""
    return nn.Sequential(Recurrent(nn.GRU, in_features, hidden, hidden), Recurrent(nn.GRU, hidden, hidden, num_classes))


HEADS: dict[str, Callable[[int, int, int], nn.Module]] = {"bilstm": bilstm, "gru": gru, "conv": Convolutional}


def make_head(name: str, in_features: int, hidden: int, num_classes: int) -> nn.Module:
    """The head of that name, (N, T, in_features) → logits (N, T, num_classes); raises LightenError for unknown ones."""
    if name not in HEADS:
        raise LightenError(f"there is no head '{name}'; there are {', '.join(HEADS)}")
    return HEADS[name](in_features, hidden, num_classes)
