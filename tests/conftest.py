"""Imports PyTorch and Jittor in the one order in which both work."""
import jt_models  # noqa: F401
