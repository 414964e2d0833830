"""A world with known truth: demo data with every type of event, and an oracle to judge by.

What is true (`world`), what people do (`behaviour`, `outcome`), what days do to them (`state`,
`day`), what is shown (`policy`), what should have been (`oracle`), what is published (`tables`,
`text`, `images`), and the source (`source`).
"""

from shortlist.datasets.simulated.config import WorldConfig, load_world_config, preset_names
from shortlist.datasets.simulated.source import SimulatedConfig, load_simulated, stream
from shortlist.datasets.simulated.world import World

__all__ = [
    "SimulatedConfig",
    "World",
    "WorldConfig",
    "load_simulated",
    "load_world_config",
    "preset_names",
    "stream",
]
