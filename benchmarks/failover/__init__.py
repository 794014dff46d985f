"""Streams of real engines that are cut and go on at another worker, beside the undisturbed answers."""
