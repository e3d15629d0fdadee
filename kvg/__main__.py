"""``python -m kvg`` is ``kvg``."""

import sys

from kvg.cli.kvg import main

sys.exit(main())
