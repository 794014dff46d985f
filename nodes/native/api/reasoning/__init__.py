"""What a model thinks before it answers: the tags of the families, and the text between them."""
