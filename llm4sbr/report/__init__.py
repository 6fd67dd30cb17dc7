"""Reports for people: records of a run, and the self-contained HTML pages rendered from them."""
