"""Training a network from scratch, or further: data in; a folder with the network and its learning curves out."""

import copy
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from importlib import metadata
from pathlib import Path

import torch
import torch.nn.functional as F
from lightning_fabric import Fabric
from torch import Tensor, nn

from lighten.data.batches import Data
from lighten.data.split import as_data
from lighten.errors import LightenError
from lighten.folder import CHECKPOINT, REPORT, RESULTS, open_partial, publish, save_network
from lighten.measure.accuracy import evaluate, evaluation_mode
from lighten.measure.latency import machine
from lighten.network.trace import trace
from lighten.plan.plan import Plan
from lighten.progress import OnProgress, Stages, silent
from lighten.recover.speed import fastest_way
from lighten.report.outcome import totals, without_path
from lighten.report.results import Epoch
from lighten.report.training import TrainingResults, write_training_report, write_training_results
from lighten.training.groups import parameter_groups
from lighten.training.mixing import mixing
from lighten.training.run import Loss, Progress, Run, Schedule, finish, resumed

RATES = {"sgd": 0.1, "adamw": 2e-3}  # for batches of 128 from scratch
DECAYS = {"sgd": 5e-4, "adamw": 0.05}
FINE_TUNING = 0.1  # of these rates, for a network that has learnt already


@dataclass(frozen=True, slots=True)
class TrainRecipe(Schedule):
    """How training runs.

    optimizer: sgd (with Nesterov's momentum) or adamw. learning_rate, weight_decay: None for the optimizer's own in
    RATES and DECAYS, a tenth of the rate where training goes on from weights.
    rates: {part of the network: factor of the learning rate}. mixup, cutmix, erase: see `training/mixing.py`; they pay
    in long runs. average_decay: of the moving average of the weights, which is measured and kept; 0 for none.
    """

    epochs: int = 30
    optimizer: str = "sgd"
    momentum: float = 0.9
    weight_decay: float | None = None
    label_smoothing: float = 0.1
    mixup: float = 0.0
    cutmix: float = 0.0
    erase: float = 0.0
    average_decay: float = 0.998
    rates: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Trained:
    """What a job gives back: the network of the best epoch in evaluation mode, and everything measured."""

    model: nn.Module
    results: TrainingResults


def train(
    model: nn.Module,
    data: Data | object,
    *,
    out: str | Path,
    name: str | None = None,
    weights: str | None = None,
    recipe: TrainRecipe | None = None,
    resume: bool = False,
    force: bool = False,
    show: OnProgress = silent,
) -> Trained:
    """Train a copy of a network and write it to the folder `out`, which serves as MODEL from then on.

    data: a `Data`, or datasets or loaders as `lighten.as_data` takes them; the epoch that is best on their held-out
    slice is kept. name: the text that rebuilds the network, kept in the folder; weights: what the model was loaded
    from, where it has learnt already. Raises LightenError for wrong input; the model stays as it was.
    """
    data, out, recipe = as_data(data), Path(out), recipe or TrainRecipe()
    stages = Stages(show)
    recipe = with_defaults(recipe, FINE_TUNING if weights else 1.0)
    folder = open_partial(out, force, resume)
    trained = copy.deepcopy(model)
    with stages.stage("train"):
        progress = fit(trained, data, recipe, show, folder / CHECKPOINT, resume)
    stages.seconds["train"] = round(progress.seconds, 3)  # with what was spent before a break
    results = measured(trained, data, recipe, progress, stages)
    results = replace(results, model=name or type(model).__name__, weights=weights)
    save_network(folder, trained, Plan(name, results.input_shape))  # in which nothing is replaced
    write_training_results(results, folder / RESULTS)
    write_training_report(results, folder / REPORT)
    publish(out)
    return Trained(trained, results)


def measured(
    trained: nn.Module, data: Data, recipe: TrainRecipe, progress: Progress, stages: Stages
) -> TrainingResults:
    """What the network costs and reaches; the test set is looked at once, here."""
    example = next(iter(data.held_out))[0]
    trained.eval()
    with stages.stage("verify"):
        test = evaluate(trained, data.test) if data.test else None
    after = replace(
        totals(trace(trained, example).cost),
        accuracy=test and test.value,
        held_out_accuracy=progress.best_accuracy,
    )
    return TrainingResults(
        lighten_version=metadata.version("lighten"),
        data=without_path(data.name),
        input_shape=tuple(example.shape[1:]),
        recipe=asdict(recipe) | {"learning_rate": progress.learning_rate},
        machine=machine(torch.get_num_threads()),
        after=after,
        metric=data.metric,
        num_test_samples=test.num_samples if test else 0,
        epochs=tuple(Epoch(**record) for record in progress.history),
        best_epoch=progress.best_epoch,
        seconds=stages.seconds,
    )


def fit(
    model: nn.Module,
    data: Data,
    recipe: TrainRecipe,
    show: OnProgress = silent,
    checkpoint: Path | None = None,
    resume: bool = False,
) -> Progress:
    """Train the model in place, from the last checkpoint on where there is one and it is asked for."""
    recipe = with_defaults(recipe)
    example = next(iter(data.calibration))[0]
    check_fit(model, data, example)
    loss, optimizer = labels_loss(recipe, data.num_classes), make_optimizer(model, recipe)
    precision = fastest_way(model, model, example, (), recipe.precision).precision
    fabric = Fabric(accelerator="auto", devices=1, precision=precision)
    run = Run(model, data, recipe, loss, optimizer, fabric, average_decay=recipe.average_decay)
    if not (resume and resumed(run, checkpoint)):
        run.progress.learning_rate = recipe.learning_rate
    finish(run, checkpoint, lambda p: show("train", min(p.share, 1.0), p.describe(recipe.epochs)))
    return run.progress


def check_fit(model: nn.Module, data: Data, example: Tensor) -> None:
    """Raise LightenError where the model doesn't take the data's inputs, or doesn't give what their labels need."""
    trace(model, example)
    with evaluation_mode(model):
        data.check_logits(model(example[:1]))


def with_defaults(recipe: TrainRecipe, factor: float = 1.0) -> TrainRecipe:
    """The recipe with its optimizer's own learning rate, `factor` times, and decay where it names none.

    Raises LightenError for an unknown optimizer.
    """
    if recipe.optimizer not in RATES:
        raise LightenError(f"there is no optimizer '{recipe.optimizer}'; there are {', '.join(RATES)}")
    rate = recipe.learning_rate or factor * RATES[recipe.optimizer]
    decay = DECAYS[recipe.optimizer] if recipe.weight_decay is None else recipe.weight_decay
    return replace(recipe, learning_rate=rate, weight_decay=decay)


def make_optimizer(model: nn.Module, recipe: TrainRecipe) -> torch.optim.Optimizer:
    """The recipe's optimizer; the run sets the learning rate before each step."""
    groups = parameter_groups(model, recipe.weight_decay or 0.0, recipe.rates)
    if recipe.optimizer == "adamw":
        return torch.optim.AdamW(groups, 0.0)
    return torch.optim.SGD(groups, 0.0, recipe.momentum, nesterov=recipe.momentum > 0)


def labels_loss(recipe: TrainRecipe, num_classes: int) -> Loss:
    """Cross-entropy with the labels, smoothed (Szegedy et al. 2016, section 7), of images that may be mixed.

    Of a recogniser, CTC's negative log-likelihood per character (Graves et al. 2006, equation 12).
    """
    mix = mixing(num_classes, recipe.mixup, recipe.cutmix, recipe.erase)

    def loss(network: nn.Module, inputs: Tensor, labels: Tensor) -> Tensor:
        if int(labels.min()) < 0:
            raise LightenError("cannot train: the training data have samples without a label")
        if labels.ndim == 2:
            return text_loss(network(inputs), labels)
        inputs, labels = mix(inputs, labels)
        return F.cross_entropy(network(inputs), labels, label_smoothing=recipe.label_smoothing)

    return loss


def text_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """CTC loss of logits (N, T, classes); labels (N, L), continued with 0. A line too short for its label counts 0."""
    steps = torch.full((len(logits),), logits.shape[1])
    log_probabilities = logits.float().log_softmax(-1).transpose(0, 1)
    return F.ctc_loss(log_probabilities, labels, steps, (labels > 0).sum(1), zero_infinity=True)
