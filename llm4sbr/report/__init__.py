"""Pages a person reads: records of what happened, and one self-contained HTML file made of them."""
