"""What lets Jittor 1.3.11.0 as it is compile with CUDA 12 or 13 and cuDNN 9 (see `overlay`)."""
