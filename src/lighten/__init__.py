"""Makes trained convolutional networks light: less measured time, with the accuracy held and proven."""

from lighten.advise import Advice, advise
from lighten.data import Data, as_data, load_data
from lighten.errors import BudgetError, LightenError
from lighten.folder import load
from lighten.measure.accuracy import evaluate
from lighten.models import build_model
from lighten.network.compare import Comparison, compare
from lighten.network.count import count
from lighten.network.lint import Finding, lint
from lighten.network.table import CostTable
from lighten.network.trace import trace
from lighten.planning import Settings
from lighten.recover.distil import Recipe
from lighten.shrink import Lightened, shrink
from lighten.train import Trained, TrainRecipe, train

__all__ = [
    "Advice",
    "BudgetError",
    "Comparison",
    "CostTable",
    "Data",
    "Finding",
    "LightenError",
    "Lightened",
    "Recipe",
    "Settings",
    "TrainRecipe",
    "Trained",
    "advise",
    "as_data",
    "build_model",
    "compare",
    "count",
    "evaluate",
    "lint",
    "load",
    "load_data",
    "shrink",
    "trace",
    "train",
]
