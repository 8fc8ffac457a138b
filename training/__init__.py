"""What both trainers share: data, schedule, plots. Imports neither PyTorch nor Jittor."""
