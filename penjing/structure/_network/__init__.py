"""The network itself: its modules, tensors and integers; how it is called, copied and refused."""
