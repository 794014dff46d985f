"""What runs on a compute node: the agent, which lives one worker's life, and the engines that it starts."""
