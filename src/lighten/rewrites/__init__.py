"""The ways to write a trained layer with less work, one file each."""

from lighten.rewrites.base import Rewrite
from lighten.rewrites.blueprint import Blueprint
from lighten.rewrites.depthwise import Depthwise
from lighten.rewrites.low_rank import LowRank
from lighten.rewrites.spatial import Spatial
from lighten.rewrites.tucker import Tucker

REWRITES: dict[str, Rewrite] = {
    rewrite.name: rewrite for rewrite in (Depthwise(), Blueprint(), Spatial(), Tucker(), LowRank())
}
