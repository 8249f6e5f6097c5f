"""``python -m conrft_bringup`` is ``conrft``, for where the script is not on the PATH."""

import sys

from conrft_bringup.command import main

sys.exit(main())
