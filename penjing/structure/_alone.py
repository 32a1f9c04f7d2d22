"""One at a time: a trace puts stand-ins into the network itself, and a proof changes torch's default float type, which
all threads of a process share.
"""

import threading

ALONE = threading.RLock()
