"""What a stranger's columns probably are: by their names, and by what is in them."""
