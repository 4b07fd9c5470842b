"""What a class map says, as polygons and as a table of areas."""
