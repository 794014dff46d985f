"""The controller of a deployment: it keeps as many workers as are wanted, whatever ends them."""
