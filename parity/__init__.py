"""The judge: weight conversion, and the checks that a Jittor net and its PyTorch reference agree."""
