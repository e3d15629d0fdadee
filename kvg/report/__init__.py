"""What a set of runs was worth: figures with intervals, learning curves and pictures, from what runs leave."""
