"""Lets one thread at a time import the libraries that run models.

transformers replaces its own module while it is imported: a thread that waits for that import (Python 3.11) gets the module
from before, which has none of its names.
"""

import threading

IMPORTING = threading.RLock()
