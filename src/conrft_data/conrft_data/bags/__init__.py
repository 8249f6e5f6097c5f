"""Episode bags: every episode is one rosbag2 recording of the tick messages, and the only way into the learner."""

from conrft_data.bags.assembly import Assembled
from conrft_data.bags.definitions import RecordedTopic
from conrft_data.bags.errors import BagError
from conrft_data.bags.import_recording import Imported, import_recording
from conrft_data.bags.in_memory import write_episode
from conrft_data.bags.label import Label, read_label, relabel
from conrft_data.bags.listing import EpisodeInfo, list_episodes, read_info
from conrft_data.bags.reader import read_episode
from conrft_data.bags.salvage import salvage, salvage_all
from conrft_data.bags.writer import EpisodeWriter

__all__ = [
    "Assembled",
    "BagError",
    "EpisodeInfo",
    "EpisodeWriter",
    "Imported",
    "Label",
    "RecordedTopic",
    "import_recording",
    "list_episodes",
    "read_episode",
    "read_info",
    "read_label",
    "relabel",
    "salvage",
    "salvage_all",
    "write_episode",
]
