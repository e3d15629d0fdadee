"""``python -m kvg`` is ``kvg``."""

import sys

from kvg.cli import main

sys.exit(main())
