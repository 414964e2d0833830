"""A world with known truth: demo data with every type of event, and an oracle to judge by.

What is true (`world`), what people do (`behaviour`, `outcome`), what days do to them (`state`,
`day`), what is shown (`policy`), what should have been (`oracle`), what is published (`tables`,
`text`, `images`), and the source (`source`).
"""

from shortlist.datasets.config import SimulatedConfig
from simulation.config import WorldConfig, load_world_config, preset_names
from simulation.source import load_simulated, open_world, stage_simulated, stream
from simulation.world import World

__all__ = [
    "SimulatedConfig",
    "World",
    "WorldConfig",
    "load_simulated",
    "load_world_config",
    "open_world",
    "preset_names",
    "stage_simulated",
    "stream",
]
