"""One forward on stand-ins, written down operator by operator, and everything put back afterwards."""
