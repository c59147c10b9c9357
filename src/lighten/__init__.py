"""Makes trained convolutional networks light: less measured time, with the accuracy held and proven."""

from lighten.data import Data, as_data, load_data
from lighten.errors import BudgetError, LightenError
from lighten.folder import load
from lighten.measure.accuracy import evaluate
from lighten.models import build_model
from lighten.network.count import count
from lighten.network.table import CostTable
from lighten.network.trace import trace
from lighten.planning import Settings
from lighten.recover.distil import Recipe
from lighten.shrink import Lightened, shrink
from lighten.train import Trained, TrainRecipe, train

__all__ = [
    "BudgetError",
    "CostTable",
    "Data",
    "LightenError",
    "Lightened",
    "Recipe",
    "Settings",
    "TrainRecipe",
    "Trained",
    "as_data",
    "build_model",
    "count",
    "evaluate",
    "load",
    "load_data",
    "shrink",
    "trace",
    "train",
]
