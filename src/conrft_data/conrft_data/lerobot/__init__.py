"""LeRobotDataset v3: demonstrations for other learners, and theirs for this one.

https://huggingface.co/docs/lerobot/lerobot-dataset-v3. The lerobot package itself is not needed.
"""

from conrft_data.lerobot.export import Exported, export_dataset
from conrft_data.lerobot.import_dataset import import_dataset

__all__ = ["Exported", "export_dataset", "import_dataset"]
