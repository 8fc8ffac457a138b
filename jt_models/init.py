"""Weight initialisation: Jittor's, also under the names of torch.nn.init that it lacks."""
from jittor.init import *  # noqa: F401,F403
from jittor.init import gauss_ as normal_  # noqa: F401
