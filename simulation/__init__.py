"""A simulated world: demo data with all event types, and an oracle that knows the best lists.

Users have hidden (latent) tastes and moods; only the oracle reads them. A slate is the list of
items on one page. The modules are:

- `world`: latent attributes of items and users; `config`, `parameters`: its configuration
- `behaviour`: probabilities of user actions; `outcome`: draws from them
- `state`: how users change from day to day; `day`: simulates one day
- `policy`: the logging policy, which fills the pages of the published log
- `oracle`: expected results of any slate, and the best slates
- `tables`, `text`, `images`: the published tables; `source`: the data source for `ingest`
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
